"""Counters that hold over processes (`api.md` 1)."""

from __future__ import annotations

import asyncio
import time

import pytest

from conman.api import rate_limits
from conman.api.rate_limits import RateLimiter
from conman.config import Settings
from conman.domain.rate_limit import WINDOW_SECONDS, Bucket, portion
from conman.services.clock import now
from conman.services.expiry import RATE_WINDOWS, forget_expired
from conman.services.platform import Platform
from tests.services.people import Office

LIMITS = {"rate_limit_auth": 7, "rate_limit_files": 120, "rate_limit_reads": 240, "rate_limit_writes": 60}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that limits are judged by, in the middle of a minute; a test moves it."""
    at = [(time.time() // WINDOW_SECONDS) * WINDOW_SECONDS + 30]
    monkeypatch.setattr(rate_limits.time, "time", lambda: at[0])
    return at


def limiter(platform: Platform) -> RateLimiter:
    return RateLimiter(platform.db, Settings(**LIMITS))


async def served(counter: RateLimiter, bucket: Bucket, asked: int, subject: str = "ann") -> int:
    standings = [await counter.take(bucket, subject) for _ in range(asked)]
    return sum(not standing.is_refused for standing in standings)


@pytest.mark.parametrize("bucket", list(Bucket))
async def test_exactly_the_limit_is_served_and_what_remains_falls_by_one(
    platform: Platform, clock: list[float], bucket: Bucket
) -> None:
    counter, limit = limiter(platform), LIMITS[f"rate_limit_{bucket.value}"]
    standings = [await counter.take(bucket, "ann") for _ in range(limit + 2)]
    assert [standing.remaining for standing in standings] == [*range(limit - 1, -1, -1), 0, 0]
    assert [standing.is_refused for standing in standings] == [False] * limit + [True] * 2
    assert {standing.limit for standing in standings} == {limit}
    assert {standing.resets_at for standing in standings} == {int(clock[0]) + 30}


@pytest.mark.parametrize("bucket", list(Bucket))
async def test_all_processes_together_never_serve_more_than_the_limit(
    office: Office, platform: Platform, clock: list[float], bucket: Bucket
) -> None:
    limit = LIMITS[f"rate_limit_{bucket.value}"]

    async def alone(process: Platform) -> int:
        counter = limiter(process)
        return sum(await asyncio.gather(*(served(counter, bucket, limit // 4) for _ in range(4))))

    # The local server may show a writer the counter as another one has left it just then: so it may refuse one too early.
    too_early = 3 * portion(bucket, limit)
    assert limit - too_early <= sum(await asyncio.gather(*(office.apart(alone) for _ in range(3)))) <= limit


async def test_reads_cost_few_writes_and_writes_are_counted_each(platform: Platform, clock: list[float]) -> None:
    counter = limiter(platform)
    for bucket, expected in ((Bucket.READS, 12), (Bucket.WRITES, 9)):
        await served(counter, bucket, 9)
        found = await platform.db[RATE_WINDOWS].find_one({"_id": {"$regex": bucket.value}})
        assert found is not None
        assert found["used"] == expected


async def test_buckets_and_people_are_counted_apart(platform: Platform, clock: list[float]) -> None:
    counter = limiter(platform)
    assert await served(counter, Bucket.AUTH, 8, "one") == 7
    assert await served(counter, Bucket.AUTH, 8, "two") == 7
    assert await served(counter, Bucket.WRITES, 8, "one") == 8


async def test_a_new_minute_is_a_new_allowance(platform: Platform, clock: list[float]) -> None:
    counter = limiter(platform)
    assert await served(counter, Bucket.AUTH, 8) == 7
    clock[0] += 29.9
    assert await served(counter, Bucket.AUTH, 1) == 0
    clock[0] += 0.1
    assert await served(counter, Bucket.AUTH, 8) == 7


async def test_windows_that_are_over_are_forgotten(platform: Platform, clock: list[float]) -> None:
    await served(limiter(platform), Bucket.AUTH, 1)
    assert await forget_expired(platform.db, now()) == 0
    clock[0] += 30 + 5 * 60 + 1
    assert await forget_expired(platform.db, now()) == 1
