"""The feed of an app as clients follow it (`api.md` 3): all of it, once and in order, at each one's own speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from pymongo.errors import AutoReconnect

from conman.domain.feed import FeedEvent, FeedType
from conman.services import events
from conman.services.events import Events, FeedTails, News, Reset, Silence, Start, follow
from conman.services.platform import Platform
from conman.store import feed
from conman.store.database import Database, Document

AT = "2026-01-31T09:30:00.000Z"
APP = "app"
DEADLINE = 30.0


@pytest.fixture
def db(platform: Platform) -> Database:
    return platform.db


async def tell(db: Database, *names: int, app_id: str = APP) -> None:
    await feed.tell(db, [FeedEvent(f"{app_id}-{name}", app_id, AT, FeedType.JOB, "queued", f"j{name}") for name in names])


async def take(news: AsyncGenerator[News, None], last: int) -> list[int]:
    """The numbers of the events that a client is given, up to one."""
    found: list[int] = []
    async with asyncio.timeout(DEADLINE):
        async for each in news:
            if isinstance(each, Events):
                found += [told.seq for told in each.events]
            if found and found[-1] >= last:
                return found
    return found


async def test_a_client_without_a_place_is_given_what_happens_from_now_on_in_its_app_alone(db: Database) -> None:
    await tell(db, 1, 2)
    async with aclosing(follow(FeedTails(db), APP, None, patience=DEADLINE)) as news:
        assert await anext(news) == Start(2)
        await tell(db, 3, app_id="other")
        await tell(db, 3, 4)
        assert await take(news, 4) == [3, 4]


async def test_a_client_goes_on_behind_its_last_event_and_then_with_what_happens(db: Database) -> None:
    await tell(db, *range(1, 8))
    async with aclosing(follow(FeedTails(db), APP, 3, patience=DEADLINE)) as news:
        assert await anext(news) == Start(3)
        assert await take(news, 7) == [4, 5, 6, 7]
        await tell(db, 8)
        assert await take(news, 8) == [8]


@pytest.mark.parametrize("after", [1, 9], ids=["no longer kept", "never given"])
async def test_a_client_whose_place_is_not_known_is_told_to_read_anew_and_goes_on_from_now(db: Database, after: int) -> None:
    await tell(db, *range(1, 6))
    await db["feed"].delete_many({"seq": {"$lte": 3}})
    async with aclosing(follow(FeedTails(db), APP, after, patience=DEADLINE)) as news:
        assert await anext(news) == Reset(5)
        await tell(db, 6)
        assert await take(news, 6) == [6]


async def test_a_client_that_falls_behind_what_is_held_misses_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_HELD", 4)
    monkeypatch.setattr(events, "EVENTS_AT_ONCE", 3)
    tails = FeedTails(db)
    slow, quick = (follow(tails, APP, 0, patience=DEADLINE) for _ in range(2))
    async with aclosing(slow), aclosing(quick):
        assert (await anext(slow), await anext(quick)) == (Start(0), Start(0))
        for first in range(1, 31, 5):
            await tell(db, *range(first, first + 5))
            assert await take(quick, first + 4) == list(range(first, first + 5))
        assert await take(slow, 30) == list(range(1, 31))
        assert len(tails) == 1
    assert len(tails) == 0


async def test_a_client_for_which_events_were_removed_before_it_read_them_is_told_so(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOKS_IN_VAIN", 2)
    async with aclosing(follow(FeedTails(db), APP, 0, patience=DEADLINE)) as news:
        await anext(news)
        await tell(db, 1)
        assert await take(news, 1) == [1]
        await tell(db, *range(2, 10))
        await db["feed"].delete_many({"seq": {"$lte": 6}})
        async with asyncio.timeout(DEADLINE):
            while not isinstance(told := await anext(news), Reset):
                assert isinstance(told, Silence | Events)


async def test_what_a_look_took_in_before_the_database_failed_is_given_with_the_next_look(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "EVENTS_PER_LOOK", 2)
    read, failures = feed.read, [AutoReconnect("the connection broke")]

    async def failing_once(db: Database, app_id: str, after: int, limit: int) -> list[Document]:
        if after == 2 and failures:
            raise failures.pop()
        return await read(db, app_id, after, limit)

    monkeypatch.setattr(feed, "read", failing_once)
    tails = FeedTails(db)
    assert await tails.join(APP).moved(0, DEADLINE)
    async with aclosing(follow(tails, APP, None, patience=DEADLINE)) as news:
        assert await anext(news) == Start(0)
        await tell(db, 1, 2)
        assert await take(news, 2) == [1, 2]
    tails.leave(APP)


async def test_an_app_in_which_nothing_happens_is_silent_and_one_look_serves_all(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = events.FeedTail._look  # pyright: ignore[reportPrivateUsage]

    async def counted(tail: events.FeedTail) -> bool:
        nonlocal looks
        looks += 1
        return await look(tail)

    monkeypatch.setattr(events.FeedTail, "_look", counted)
    monkeypatch.setattr(events, "PACE", events.Pace(first=DEADLINE, slowest=DEADLINE))
    tails = FeedTails(db)
    clients = [follow(tails, APP, None, patience=0.05) for _ in range(20)]
    for client in clients:
        assert await anext(client) == Start(0)
        assert await anext(client) == Silence()
    assert looks == 1
    for client in clients:
        await client.aclose()
