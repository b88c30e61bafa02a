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
        await locks.release(db, "app", "env", f"d{number}", AT)
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
    await locks.release(db, "app", "env", "two", AT)
    assert (await locks.read(db, "app"))["env"]["holder"]["deployment_id"] == "one"
    assert await locks.mark_running(db, "app", "env", "one")
    assert (await locks.read(db, "app"))["env"]["holder"]["state"] == "running"


async def test_another_running_deployment_makes_it_concurrent(db: Database) -> None:
    await deployment(db, "one", "running")
    await locks.take(db, "app", {"a": "one"}, AT)
    assert not (await locks.take(db, "app", {"b": "two"}, AT)).concurrent
    await locks.release(db, "app", "b", "two", AT)
    await locks.mark_running(db, "app", "a", "one")
    assert (await locks.take(db, "app", {"b": "three"}, AT)).concurrent


async def test_nothing_is_taken_in_an_environment_or_app_that_is_closed_until_all_who_closed_it_reopen(db: Database) -> None:
    assert await locks.close(db, "app", ["a"], by="one", at=AT) is None
    assert await locks.close(db, "app", ["a", "b"], by="two", at=AT) is None
    assert (await locks.take(db, "app", {"a": "d"}, AT)).closed == "a"
    await locks.reopen(db, "app", by="one")
    assert (await locks.take(db, "app", {"a": "d"}, AT)).closed == "a"
    assert (await locks.take(db, "app", {"c": "d"}, AT)).fences == {"c": 1}
    await locks.reopen(db, "app", by="two")
    assert (await locks.take(db, "app", {"a": "d", "b": "d"}, AT)).fences == {"a": 1, "b": 1}
    for environment in "abc":
        await locks.release(db, "app", environment, "d", AT)
    assert await locks.close(db, "app", None, by="three", at=AT) is None
    assert (await locks.take(db, "app", {"new": "d"}, AT)).closed == "app"
    await locks.reopen(db, "app", by="three")
    assert (await locks.take(db, "app", {"new": "d"}, AT)).fences == {"new": 1}


async def test_what_an_active_deployment_holds_is_not_closed_and_nothing_else_of_the_request_either(db: Database) -> None:
    await deployment(db, "d", "pending")
    await locks.take(db, "app", {"a": "d"}, AT)
    for wanted in (["b", "a"], None):
        holder = await locks.close(db, "app", wanted, by="one", at=AT)
        assert holder is not None
        assert holder.deployment_id == "d"
    assert (await locks.take(db, "app", {"b": "other"}, AT)).fences == {"b": 1}
    await db["deployments"].update_one({"_id": "d"}, {"$set": {"owned.state": "canceled"}})
    assert await locks.close(db, "app", ["a"], by="one", at=AT) is None


async def test_of_a_deployment_and_a_closing_at_the_same_moment_exactly_one_wins(db: Database) -> None:
    for number in range(20):
        environment = f"e{number}"
        await deployment(db, f"d{number}", "pending")
        taken, holder = await asyncio.gather(
            locks.take(db, "app", {environment: f"d{number}"}, AT),
            locks.close(db, "app", [environment], by=f"c{number}", at=AT),
        )
        assert (taken.closed is None) == (holder is not None)
        assert (taken.closed is None) == (taken.fences == {environment: 1})


async def test_the_fence_outlives_a_closing(db: Database) -> None:
    await locks.take(db, "app", {"a": "d"}, AT)
    await locks.release(db, "app", "a", "d", AT)
    await locks.close(db, "app", ["a"], by="one", at=AT)
    assert await locks.current_fence(db, "app", "a") == 1


async def test_a_closing_is_undecided_until_it_is_settled_or_undone(db: Database) -> None:
    async def undecided() -> list[str]:
        document = await db["locks"].find_one({"_id": "app"})
        return [mark["by"] for mark in (document or {}).get("undecided", [])]

    await locks.close(db, "app", ["a"], by="one", at=AT)
    await locks.close(db, "app", None, by="two", at=AT)
    assert await undecided() == ["one", "two"]
    await locks.settle(db, "app", by="one")
    await locks.reopen(db, "app", by="two")
    assert await undecided() == []
    assert (await locks.take(db, "app", {"a": "d"}, AT)).closed == "a"
    assert (await locks.take(db, "app", {"b": "d"}, AT)).fences == {"b": 1}
