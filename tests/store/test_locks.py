"""The environments' locks and fences (`durability.md` 15)."""

from __future__ import annotations

import asyncio

from conman.domain.hold import Hold
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


async def test_a_running_deployment_that_has_ended_makes_nothing_concurrent_before_its_lock_is_freed(db: Database) -> None:
    await deployment(db, "one", "running")
    await locks.take(db, "app", {"a": "one"}, AT)
    await locks.mark_running(db, "app", "a", "one")
    await db["deployments"].update_one({"_id": "one"}, {"$set": {"owned.state": "succeeded"}})
    assert not (await locks.take(db, "app", {"b": "two"}, AT)).concurrent


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


# -- The line


async def ended(db: Database, deployment_id: str) -> None:
    await db["deployments"].update_one({"_id": deployment_id}, {"$set": {"owned.state": "succeeded"}})


async def test_those_who_wait_get_the_lock_first_come_first_served_each_with_the_next_fence(db: Database) -> None:
    for name in ("holder", "one", "two"):
        await deployment(db, name, "pending")
    await locks.take(db, "app", {"env": "holder"}, AT)
    for name in ("one", "two"):
        waits = await locks.take(db, "app", {"env": name}, AT, wait=True)
        assert (waits.waits, waits.fences) == (True, {})
        assert waits.holder is not None
        assert waits.holder.deployment_id == "holder"
    await ended(db, "holder")
    assert await locks.release(db, "app", "env", "holder", AT) == "one"
    assert (await locks.take(db, "app", {"env": "one"}, AT, wait=True)).fences == {"env": 2}
    assert (await locks.take(db, "app", {"env": "two"}, AT, wait=True)).waits
    assert await locks.release(db, "app", "env", "one", AT) == "two"
    assert await locks.release(db, "app", "env", "two", AT) is None
    assert await locks.current_fence(db, "app", "env") == 3


async def test_nobody_passes_those_who_wait_by_asking_at_the_right_moment(db: Database) -> None:
    for name in ("holder", "one"):
        await deployment(db, name, "pending")
    await locks.take(db, "app", {"env": "holder"}, AT)
    await locks.take(db, "app", {"env": "one"}, AT, wait=True)
    await ended(db, "holder")  # its lock was not given up yet
    refused = await locks.take(db, "app", {"env": "late"}, AT)
    assert refused.holder is not None
    assert refused.holder.deployment_id == "one"
    assert (await locks.take(db, "app", {"env": "late", "other": "late"}, AT)).holder == refused.holder
    assert await locks.close(db, "app", ["env"], by="admin", at=AT) == refused.holder
    assert await locks.advance(db, "app", "env", AT) == "one"
    assert (await locks.read(db, "app"))["env"]["holder"]["deployment_id"] == "one"


async def test_who_leaves_the_line_or_never_came_to_be_is_passed_over(db: Database) -> None:
    for name in ("holder", "one", "gone", "two"):
        await deployment(db, name, "pending")
    await locks.take(db, "app", {"env": "holder"}, AT)
    for name in ("ghost", "one", "gone", "two"):
        await locks.take(db, "app", {"env": name}, AT, wait=True)
    assert await locks.release(db, "app", "env", "one", AT) is None
    await ended(db, "gone")
    assert await locks.release(db, "app", "env", "holder", OVER_A_MINUTE_LATER) == "two"
    assert (await locks.read(db, "app"))["env"]["waiting"] == []


async def test_a_repeat_keeps_its_place_in_the_line(db: Database) -> None:
    for name in ("holder", "one", "two"):
        await deployment(db, name, "pending")
    await locks.take(db, "app", {"env": "holder"}, AT)
    for name in ("one", "two", "one"):
        assert (await locks.take(db, "app", {"env": name}, AT, wait=True)).waits
    line = (await locks.read(db, "app"))["env"]["waiting"]
    assert [one["deployment_id"] for one in line] == ["one", "two"]


# -- Taking over, groups, a hold


async def test_a_lock_is_taken_over_from_one_that_is_pending_and_never_from_one_that_runs_or_has_others_behind_it(
    db: Database,
) -> None:
    for name in ("old", "new", "newer", "waits"):
        await deployment(db, name, "pending")
    await locks.take(db, "app", {"env": "old"}, AT)
    assert (await locks.take(db, "app", {"env": "new"}, AT)).holder is not None
    taken = await locks.take(db, "app", {"env": "new"}, AT, over=["old"])
    assert (taken.fences, taken.superseded) == ({"env": 2}, {"env": "old"})
    assert await locks.take(db, "app", {"env": "new"}, AT) == taken, "a repeat knows from whom it was taken"
    assert not await locks.mark_running(db, "app", "env", "old")
    await locks.release(db, "app", "env", "old", AT)
    await locks.take(db, "app", {"env": "waits"}, AT, wait=True)
    assert (await locks.take(db, "app", {"env": "newer"}, AT, over=["new"])).holder is not None
    assert (await locks.take(db, "app", {"env": "back"}, AT, over_pending=True)).superseded == {"env": "new"}
    assert [one["deployment_id"] for one in (await locks.read(db, "app"))["env"]["waiting"]] == ["waits"]
    await locks.take(db, "app", {"env": "new"}, AT, over_pending=True)
    await locks.release(db, "app", "env", "waits", AT)
    assert await locks.mark_running(db, "app", "env", "new")
    assert (await locks.take(db, "app", {"env": "newer"}, AT, over=["new"])).holder is not None


async def test_of_a_start_and_a_take_over_at_the_same_moment_exactly_one_wins(db: Database) -> None:
    for number in range(30):
        await deployment(db, f"old{number}", "pending")
        await deployment(db, f"new{number}", "pending")
        environment = f"e{number}"
        await locks.take(db, "app", {environment: f"old{number}"}, AT)
        runs, taken = await asyncio.gather(
            locks.mark_running(db, "app", environment, f"old{number}"),
            locks.take(db, "app", {environment: f"new{number}"}, AT, over=[f"old{number}"]),
        )
        assert runs == (taken.holder is not None)


async def test_one_of_a_group_whose_record_is_on_its_way_with_the_first_ones_is_no_orphan(db: Database) -> None:
    await deployment(db, "head", "pending")
    await locks.take(db, "app", {"a": "head", "b": "second"}, AT, kept_by="head")
    assert (await locks.take(db, "app", {"b": "other"}, OVER_A_MINUTE_LATER)).holder is not None


async def test_a_hold_refuses_in_the_write_that_takes_a_lock_what_is_to_start_while_it_stands(db: Database) -> None:
    hold = Hold(id="h", reason="audit", until=A_MINUTE_LATER, at=AT)
    await locks.take(db, "app", {"other": "first"}, AT)
    await db["locks"].update_one({"_id": "app"}, {"$set": {"hold": hold.model_dump(mode="json")}, "$inc": {"revision": 1}})
    assert (await locks.take(db, "app", {"env": "one"}, AT, start_at=AT)).hold == hold
    assert (await locks.take(db, "app", {"env": "one"}, AT, start_at=A_MINUTE_LATER)).fences == {"env": 1}
    assert (await locks.take(db, "app", {"back": "two"}, AT)).fences == {"back": 1}, "a rollback needs only the lock"
