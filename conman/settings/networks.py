"""Networks as settings name them."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode


def _split(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _are_networks(value: list[str]) -> list[str]:
    for one in value:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise ValueError(f"{one!r} is neither an address nor a network such as 10.0.0.0/8") from error
    return value


Networks = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_are_networks)]
"""Addresses or networks (CIDR), separated by spaces or commas. Raises `ValueError` for what is neither."""
