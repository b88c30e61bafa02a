"""The feed of an app: numbers without a gap, each event once, whoever writes, and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from conman.domain.feed import FeedEvent, FeedType
from conman.domain.times import later
from conman.services.clock import now
from conman.store import feed
from conman.store.database import Database, connect

AT = "2026-01-31T09:30:00.000Z"
WRITERS = 20
EVENTS = 5


def event(name: str, app_id: str = "app", **more: Any) -> FeedEvent:
    return FeedEvent(name, app_id, AT, FeedType.CHANGESET, "submitted", f"of {name}", more=more)


async def kept(db: Database, app_id: str = "app", after: int = 0) -> list[tuple[int, str]]:
    return [(row["seq"], row["event_id"]) for row in await feed.read(db, app_id, after, 10_000)]


async def age(db: Database, *seqs: int) -> None:
    """These events were told two days ago."""
    old = later(now(), -timedelta(days=2))
    await db["feed"].update_many({"seq": {"$in": list(seqs)}}, {"$set": {"told_at": old}})


async def yesterday_is_forgotten(db: Database) -> int:
    return await feed.forget(db, later(now(), -timedelta(days=1)))


async def test_events_count_from_one_in_each_app_and_are_read_from_behind_a_number(db: Database) -> None:
    await feed.tell(db, [event("a"), event("x", "other"), event("b")])
    await feed.tell(db, [event("c")])
    assert await kept(db) == [(1, "a"), (2, "b"), (3, "c")]
    assert await kept(db, after=2) == [(3, "c")]
    assert await kept(db, "other") == [(1, "x")]
    assert (await feed.newest(db, "app"), await feed.newest(db, "nothing")) == (3, 0)
    assert [row["seq"] for row in await feed.read(db, "app", 0, 2)] == [1, 2]


async def test_an_event_shows_what_it_is_about_and_nothing_of_how_it_is_kept(db: Database) -> None:
    await feed.tell(db, [event("a", state="submitted")])
    (row,) = await feed.read(db, "app", 0, 1)
    about = {"type": "changeset", "action": "submitted", "entity_id": "of a", "state": "submitted", "actor_user_id": None}
    assert feed.shown(row) == {"id": "1", "at": AT, **about}


async def test_writers_of_two_processes_leave_no_gap_and_a_reader_beside_them_misses_nothing(
    db: Database, mongo_uri: str
) -> None:
    other = connect(mongo_uri)
    processes = (db, other[db.name])
    seen: list[int] = []

    async def write(number: int) -> None:
        for step in range(EVENTS):
            await feed.tell(processes[number % 2], [event(f"{number}:{step}:{part}") for part in ("a", "b")])

    async def follow() -> None:
        while len(seen) < WRITERS * EVENTS * 2:
            seen.extend(row["seq"] for row in await feed.read(db, "app", len(seen), 7))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(follow(), *(write(number) for number in range(WRITERS)))
    await other.close()
    told = [name for _, name in await kept(db)]
    assert seen == list(range(1, WRITERS * EVENTS * 2 + 1))
    assert sorted(told) == sorted(f"{n}:{step}:{part}" for n in range(WRITERS) for step in range(EVENTS) for part in ("a", "b"))
    for number in range(WRITERS):  # one writer's events keep their order
        own = [name for name in told if name.startswith(f"{number}:")]
        assert own == [f"{number}:{step}:{part}" for step in range(EVENTS) for part in ("a", "b")]


async def test_what_was_told_is_not_told_again_and_what_was_cut_short_is_finished(db: Database, mongo_uri: str) -> None:
    await feed.tell(db, [event("a"), event("b")])
    await feed.tell(db, [event("a"), event("b")])
    await feed.tell(db, [event("b"), event("c")])  # grown since
    other = connect(mongo_uri)
    await feed.tell(other[db.name], [event("a"), event("d"), event("c")])
    await other.close()
    assert await kept(db) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


async def test_old_events_go_but_the_last_one_stays_and_the_next_counts_on(db: Database) -> None:
    await feed.tell(db, [event("a"), event("b"), event("c")])
    await feed.tell(db, [event("x", "quiet")])
    await age(db, 1, 2, 3)
    assert await yesterday_is_forgotten(db) == 2
    assert (await kept(db, after=2), await kept(db, "quiet")) == ([(3, "c")], [(1, "x")])
    assert await kept(db) == []
    assert await yesterday_is_forgotten(db) == 0
    await feed.tell(db, [event("d"), event("e")])
    await age(db, 4)
    assert await yesterday_is_forgotten(db) == 2
    assert await kept(db, after=4) == [(5, "e")]


async def test_an_old_event_behind_a_younger_one_stays_as_long_as_that_one(db: Database) -> None:
    await feed.tell(db, [event(name) for name in "abcde"])
    await age(db, 1, 3)  # 3 was told by a process whose clock is behind
    assert await yesterday_is_forgotten(db) == 1
    assert await kept(db, after=1) == [(2, "b"), (3, "c"), (4, "d"), (5, "e")]
    await age(db, 2)
    assert await yesterday_is_forgotten(db) == 2


async def test_a_reader_goes_on_where_all_behind_its_number_is_kept_and_nowhere_else(db: Database) -> None:
    assert await feed.can_go_on(db, "app", 0)
    assert not await feed.can_go_on(db, "app", 1)
    await feed.tell(db, [event(name) for name in "abcde"])
    assert [await feed.can_go_on(db, "app", after) for after in (0, 4, 5, 6)] == [True, True, True, False]
    await age(db, 1, 2)
    await yesterday_is_forgotten(db)
    assert [await feed.can_go_on(db, "app", after) for after in (0, 1, 2, 5)] == [False, False, True, True]
