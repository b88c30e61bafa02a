"""Requests per minute, counted in MongoDB so that a limit holds over all API processes (`api.md` 1).

A process reserves a portion of a minute's allowance in one atomic write and serves from it: of reads and files a sixtieth at a
time, of the others each request by itself. So all processes together never serve more than the limit, whatever dies or races;
what a process had reserved and did not serve is lost to the others for the rest of the minute, a portion at most.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from starlette.requests import Request

from conman.config import Settings
from conman.domain.errors import RateLimited
from conman.domain.rate_limit import Bucket, Standing, address_group, bucket_of, portion, window_end, window_of
from conman.services.expiry import RATE_WINDOWS
from conman.store.database import Database, Document


@dataclass(slots=True)
class _Share:
    """What this process has of one caller's minute. `seen`: how much of it all processes had reserved, last we knew."""

    window: int
    seen: int = 0
    left: int = 0
    is_used_up: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimiter:
    """The counters of one process."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._limits = {
            Bucket.AUTH: settings.rate_limit_auth,
            Bucket.FILES: settings.rate_limit_files,
            Bucket.READS: settings.rate_limit_reads,
            Bucket.WRITES: settings.rate_limit_writes,
        }
        self._shares: dict[tuple[Bucket, str], _Share] = {}
        self._window = 0

    async def take(self, bucket: Bucket, subject: str) -> Standing:
        """Count one request of a caller, unless the minute's allowance is used up: then the standing says `is_refused`."""
        share = self._share(bucket, subject, window_of(time.time()))
        limit = self._limits[bucket]
        async with share.lock:
            if share.left == 0 and not share.is_used_up:
                await self._reserve(share, bucket, subject, limit)
            is_refused = share.left == 0
            if not is_refused:
                share.left -= 1
            remaining = limit - share.seen + share.left
        return Standing(limit, remaining, window_end(share.window), is_refused)

    def _share(self, bucket: Bucket, subject: str, window: int) -> _Share:
        if window != self._window:
            self._window = window
            self._shares = {}
        return self._shares.setdefault((bucket, subject), _Share(window))

    async def _reserve(self, share: _Share, bucket: Bucket, subject: str, limit: int) -> None:
        wanted = portion(bucket, limit)
        used = await self._add(f"{share.window}:{bucket.value}:{subject}", wanted, window_end(share.window))
        share.left = max(0, min(wanted, limit - (used - wanted)))
        share.seen = min(used, limit)
        share.is_used_up = share.left == 0

    async def _add(self, counter: str, wanted: int, ends_at: int) -> int:
        """Raise a counter; what it says then."""
        while True:
            try:
                found = await self._db[RATE_WINDOWS].find_one_and_update(
                    {"_id": counter},
                    {"$inc": {"used": wanted}, "$setOnInsert": {"ends_at": ends_at}},
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
            except DuplicateKeyError:
                continue  # another process made it at the same moment: now it is there
            return cast("Document", found)["used"]  # an upsert that returns the document after it always finds one


async def limit(request: Request, user_id: str | None = None) -> None:
    """Count the request: one on an auth route by its address, before login; another by its user, after login.

    The standing goes into the reply's headers, whatever the reply. Raises `rate_limited`.
    """
    bucket = bucket_of(request.method, request.url.path)
    if (bucket is Bucket.AUTH) != (user_id is None):
        return
    await count(request, bucket, user_id or address_group(request.client.host if request.client else None))


async def count(request: Request, bucket: Bucket, subject: str) -> None:
    """Count the request in a bucket by whose it is; its standing goes into the reply's headers. Raises `rate_limited`."""
    limiter: RateLimiter = request.app.state.rate_limiter
    standing = await limiter.take(bucket, subject)
    request.state.rate_limit = standing
    if standing.is_refused:
        seconds = max(1, round(standing.resets_at - time.time()))
        raise RateLimited(f"More than {standing.limit} such requests in a minute: go on in {seconds} s.", seconds)


def headers_of(standing: Standing) -> list[tuple[bytes, bytes]]:
    """`X-RateLimit-Limit`, `-Remaining` and `-Reset`: the end of the minute in seconds since 1970."""
    values = {"limit": standing.limit, "remaining": standing.remaining, "reset": standing.resets_at}
    return [(f"x-ratelimit-{name}".encode(), str(value).encode()) for name, value in values.items()]
