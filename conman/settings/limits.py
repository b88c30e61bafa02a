"""Settings of the rate limits."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

from conman.settings.networks import Networks

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
    trusted_proxies: Networks = Field(
        default=[],
        description="Addresses or networks (CIDR) of the proxies before the API, separated by spaces or commas; only their"
        " `X-Forwarded-For` says who the client is. Unset: the peer is the client, so that behind a proxy all clients share"
        " one allowance.",
    )
