"""Which requests are counted together, and how much of a minute's allowance is taken at once (`api.md` 1).

A window is one minute by the clock. docs/adr/0013-counters-in-the-database.md
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WINDOW_SECONDS: Final = 60

_AUTH = re.compile(r"/api/auth/")
_FILES = re.compile(r"/api/apps/[^/]+/workspaces/[^/]+/files(/.*)?")
_READS = frozenset({"GET", "HEAD"})


class Bucket(StrEnum):
    """What is counted apart."""

    AUTH = "auth"
    FILES = "files"
    READS = "reads"
    WRITES = "writes"


RESERVED_AHEAD: Final = frozenset({Bucket.FILES, Bucket.READS})
"""Of these a process takes several at once, so that a hot read does not cost a write of the counter each time."""


def bucket_of(method: str, path: str) -> Bucket:
    """The bucket of a request on a limited route: auth routes by address, the others by user."""
    if _AUTH.match(path):
        return Bucket.AUTH
    if _FILES.fullmatch(path):
        return Bucket.FILES
    return Bucket.READS if method in _READS else Bucket.WRITES


def portion(bucket: Bucket, limit: int) -> int:
    """How many requests a process reserves at once: a sixtieth of a minute's, one where each is counted by itself."""
    return max(1, limit // 60) if bucket in RESERVED_AHEAD else 1


def window_of(seconds: float) -> int:
    """The number of the minute in which a time lies, given in seconds since 1970."""
    return int(seconds // WINDOW_SECONDS)


def window_end(window: int) -> int:
    """When a window ends and the next one begins, seconds since 1970."""
    return (window + 1) * WINDOW_SECONDS


def address_group(address: str | None) -> str:
    """The address that is counted: an IPv4 address by itself, an IPv6 one with its /64, which is what one client has.

    What is no address (a socket file, a test's client) is a group of its own.
    """
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network(f"{found}/64", strict=False))
    return str(found)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands in a bucket after a request: what goes into the `X-RateLimit-*` headers."""

    limit: int
    remaining: int
    resets_at: int
    """When the window ends, seconds since 1970."""
    is_refused: bool = False
