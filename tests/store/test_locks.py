"""The environments' locks and fences (`durability.md` 15)."""

from __future__ import annotations

import asyncio

from conman.store import locks
from conman.store.database import Database

AT = "2026-01-31T09:30:00.000Z"
A_MINUTE_LATER = "2026-01-31T09:31:00.000Z"
OVER_A_MINUTE_LATER = "2026-01-31T09:31:00.001Z"


async def deployment(db: Database, deployment_id: str, state: str) -> None:
    await db["deployments"].insert_one({"_id": deployment_id, "app_id": "app", "owned": {"state": state}})


async def test_of_many_that_want_a_lock_exactly_one_gets_it(db: Database) -> None:
    for number in range(8):
        await deployment(db, f"d{number}", "pending")
    taken = await asyncio.gather(*(locks.take(db, "app", {"env": f"d{number}"}, AT) for number in range(8)))
    winners = [one for one in taken if one.holder is None]
    assert len(winners) == 1
    assert winners[0].fences == {"env": 1}
    assert len({one.holder.deployment_id for one in taken if one.holder is not None}) == 1


async def test_several_locks_are_taken_all_or_none(db: Database) -> None:
    await deployment(db, "one", "pending")
    await locks.take(db, "app", {"b": "one"}, AT)
    refused = await locks.take(db, "app", {"a": "two", "b": "two"}, AT)
    assert refused.holder is not None
    assert refused.holder.deployment_id == "one"
    held = await locks.read(db, "app")
    assert "a" not in held


async def test_a_repeat_by_the_holder_finds_its_own_lock_and_fence(db: Database) -> None:
    await deployment(db, "one", "pending")
    first = await locks.take(db, "app", {"env": "one"}, AT)
    again = await locks.take(db, "app", {"env": "one"}, AT)
    assert first.fences == again.fences == {"env": 1}


async def test_the_fence_only_grows(db: Database) -> None:
    fences: list[int] = []
    for number in range(4):
        await deployment(db, f"d{number}", "pending")
        fences.append((await locks.take(db, "app", {"env": f"d{number}"}, AT)).fences["env"])
        await locks.release(db, "app", "env", f"d{number}")
    assert fences == [1, 2, 3, 4]
    assert await locks.current_fence(db, "app", "env") == 4


async def test_a_holder_that_has_ended_counts_as_free(db: Database) -> None:
    await deployment(db, "one", "succeeded")
    await locks.take(db, "app", {"env": "one"}, AT)
    assert (await locks.take(db, "app", {"env": "two"}, AT)).fences == {"env": 2}


async def test_a_holder_without_a_record_counts_as_free_after_a_minute_and_not_before(db: Database) -> None:
    await locks.take(db, "app", {"env": "ghost"}, AT)
    assert (await locks.take(db, "app", {"env": "two"}, A_MINUTE_LATER)).holder is not None
    assert (await locks.take(db, "app", {"env": "two"}, OVER_A_MINUTE_LATER)).holder is None


async def test_only_the_holder_starts_and_frees(db: Database) -> None:
    await deployment(db, "one", "pending")
    await locks.take(db, "app", {"env": "one"}, AT)
    assert not await locks.mark_running(db, "app", "env", "two")
    await locks.release(db, "app", "env", "two")
    assert (await locks.read(db, "app"))["env"]["holder"]["deployment_id"] == "one"
    assert await locks.mark_running(db, "app", "env", "one")
    assert (await locks.read(db, "app"))["env"]["holder"]["state"] == "running"


async def test_another_running_deployment_makes_it_concurrent(db: Database) -> None:
    await deployment(db, "one", "running")
    await locks.take(db, "app", {"a": "one"}, AT)
    assert not (await locks.take(db, "app", {"b": "two"}, AT)).concurrent
    await locks.release(db, "app", "b", "two")
    await locks.mark_running(db, "app", "a", "one")
    assert (await locks.take(db, "app", {"b": "three"}, AT)).concurrent
