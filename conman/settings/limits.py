"""Settings of the rate limits."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

_MOST = 1_000_000


class LimitSettings(BaseSettings):
    """Requests per minute (`api.md` 1)."""

    rate_limit_auth: int = Field(
        default=10, ge=1, le=_MOST, description="Requests to `/api/auth` per minute and client address; more are answered 429."
    )
    rate_limit_files: int = Field(
        default=300, ge=1, le=_MOST, description="Reads and writes of files per minute and user; more are answered 429."
    )
    rate_limit_reads: int = Field(
        default=1200, ge=1, le=_MOST, description="Other GET requests per minute and user; more are answered 429."
    )
    rate_limit_writes: int = Field(
        default=60, ge=1, le=_MOST, description="Other writing requests per minute and user; more are answered 429."
    )
    trusted_proxies: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Addresses or networks (CIDR) of the proxies before the API, separated by spaces or commas; only their"
        " `X-Forwarded-For` says who the client is. Unset: the peer is the client, so that behind a proxy all clients share"
        " one allowance.",
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_addresses(cls, value: Any) -> Any:
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: list[str]) -> list[str]:
        for one in value:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise ValueError(f"{one!r} is neither an address nor a network such as 10.0.0.0/8") from error
        return value
