"""`queue:{app}` (`spec.md` 10, `durability.md` 14, 17, 18): membership, order, reservation, sweeps and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from workflow_names import sha, uid
from workflow_samples import entry, queue, queue_shown
from workflow_world import World, refused

from conman.domain.changeset_news import QueueNews
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import (
    EjectCommand,
    EnqueueCommand,
    GateRun,
    IntegrationMovedCommand,
    PublishedCommand,
    RemoveCommand,
    ReorderCommand,
    ReserveCommand,
    RevalidateCommand,
)
from conman.domain.queue_records import EntryState, EntryStatus, News, Sweep
from conman.domain.queue_verdicts import EntryVerdict
from conman.workflows import options

RELEASE = uid("release")


def names(world: World) -> list[str]:
    known = {uid(name): name for name in "abcdefgh"}
    return [known[entry.changeset_id] for entry in queue_shown(world).entries]


def verdict(name: str, status: EntryStatus, **fields: Any) -> EntryVerdict:
    """A verdict of the sweep of epoch 1 on `main-1`."""
    reason = {EntryStatus.VALID: ReasonCode.OK, EntryStatus.UNKNOWN: ReasonCode.TIMEOUT}.get(status, ReasonCode.TESTS_FAILED)
    base: dict[str, Any] = {"epoch": 1, "integration_sha": sha("main-1"), "changeset_id": uid(name), "head_sha": sha(name)}
    base |= {"job_id": uid(f"job {name}"), "status": status, "reason_code": reason}
    base |= {"job_state": JobState.SUCCEEDED if reason is ReasonCode.OK else JobState.FAILED}
    return EntryVerdict.model_validate(base | fields)


def sweeping(world: World, *listed: str, **fields: Any):
    """A queue whose sweep of epoch 1 is under way for all entries; `held` suites keep it from ending by itself."""
    entries = [entry(name, status=EntryStatus.RUNNING, job_id=uid(f"job {name}")) for name in listed]
    sweep = Sweep(epoch=1, integration_sha=sha("main-1"), changeset_ids=[uid(name) for name in listed])
    world.fakes.hold("trial_merges")
    for name in listed:
        world.store.jobs[uid(f"job {name}")] = {"state": "running"}
    return queue(world, *entries, epoch=1, sweep=sweep, progress_total=len(listed), **fields)


async def signal(world: World, *verdicts: EntryVerdict) -> None:
    handle = world.client.get_workflow_handle(options.queue_workflow(world.app_id))
    await handle.signal("take_verdicts", list(verdicts))


async def test_what_was_judged_on_the_present_head_enters_without_a_sweep(world: World) -> None:
    entity = queue(world, entry("a"))
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("b").model_dump())
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("b").model_dump())
    assert (names(world), queue_shown(world).epoch) == (["a", "b"], 0)


async def test_what_was_judged_on_an_older_head_is_revalidated_at_once(world: World) -> None:
    entity = queue(world, entry("a"), integration_sha=sha("main-2"))
    older = entry("b", judged_sha=sha("main-1"), base_sha=sha("main-1"))
    await world.do(entity, "enqueue", EnqueueCommand, entry=older.model_dump())
    await world.until(lambda: queue_shown(world).entries[1].judged_sha == sha("main-2"), "the verdict")
    assert [run.gate.entity_id for run in world.fakes.runs] == [uid("b")]
    assert (queue_shown(world).epoch, queue_shown(world).sweep) == (1, None)
    (job,) = world.store.jobs.values()
    assert (job["job_type"], job["state"]) == ("revalidate_queued_changeset", "succeeded")


async def test_a_hotpatch_enters_at_the_head(world: World) -> None:
    entity = queue(world, entry("a"))
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("b", hotpatch=True).model_dump())
    assert names(world) == ["b", "a"]


async def test_a_publish_begins_an_epoch_for_all_that_is_left_and_stops_the_sweep_before(world: World) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.job_id != uid("job b"):
            return ReasonCode.OK
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise
        raise AssertionError("it was never canceled")

    world.fakes.suite = suite
    entity = sweeping(world, "b", "c")
    world.fakes.holds.clear()
    await world.start(entity)
    await world.until(started.is_set, "the first sweep runs a suite")
    published = {"release_id": RELEASE, "integration_sha": sha("main-2")}
    await world.do(entity, "published", PublishedCommand, **published)
    await world.do(entity, "published", PublishedCommand, **published)
    await world.until(stopped.is_set, "the first sweep's suite was stopped")
    await world.until(lambda: queue_shown(world).sweep is None, "the second sweep's verdicts")
    shown = queue_shown(world)
    assert (shown.epoch, [row.judged_sha for row in shown.entries]) == (2, [sha("main-2")] * 2)
    assert world.store.jobs[uid("job b")]["reason_code"] == "superseded"
    assert world.store.actions().count("superseded") == 1
    assert {job["state"] for job in world.store.jobs.values()} == {"canceled", "succeeded"}


async def test_a_branch_that_was_moved_outside_begins_an_epoch_once_and_a_publish_makes_it_old_news(world: World) -> None:
    entity = queue(world, entry("a"), entry("b"))
    moved = {"old_sha": sha("main-1"), "new_sha": sha("main-2")}
    for _ in range(2):
        await world.do(entity, "integration_moved", IntegrationMovedCommand, **moved)
    await world.until(lambda: queue_shown(world).sweep is None, "the verdicts")
    shown = queue_shown(world)
    assert (shown.epoch, shown.integration_sha, [row.judged_sha for row in shown.entries]) == (
        1,
        sha("main-2"),
        [sha("main-2")] * 2,
    )
    await world.do(entity, "published", PublishedCommand, release_id=RELEASE, integration_sha=sha("main-3"))
    late = {"old_sha": sha("main-2"), "new_sha": sha("main-4")}
    await world.do(entity, "integration_moved", IntegrationMovedCommand, **late)
    assert (queue_shown(world).epoch, queue_shown(world).integration_sha) == (2, sha("main-3"))


async def test_a_publish_that_empties_the_queue_stops_the_sweep_too(world: World) -> None:
    held = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        held.set()
        await asyncio.sleep(60)
        raise AssertionError("it was never canceled")

    world.fakes.suite = suite
    entity = sweeping(world, "a")
    world.fakes.holds.clear()
    shown = queue_shown(world)
    reserved = [row.model_copy(update={"reserved_by": RELEASE}) for row in shown.entries]
    queue(world, **{**shown.model_dump(), "entries": reserved, "sweep": shown.sweep, "commands": []})
    await world.start(entity)
    await world.until(held.is_set, "the suite runs")
    await world.do(entity, "published", PublishedCommand, release_id=RELEASE, integration_sha=sha("main-2"))
    await world.until(lambda: world.fakes.running == 0, "the suite was stopped")
    await world.until(lambda: queue_shown(world).sweep_started, "the queue knows")
    assert (names(world), world.store.jobs[uid("job a")]["reason_code"]) == ([], "superseded")


@pytest.mark.parametrize(
    "older",
    [{"epoch": 0}, {"integration_sha": sha("main-0")}, {"head_sha": sha("other")}, {"job_id": uid("other")}],
    ids=["epoch", "integration head", "head", "job"],
)
async def test_a_verdict_about_anything_else_than_the_present_is_dropped(world: World, older: dict[str, Any]) -> None:
    entity = sweeping(world, "a", "b")
    await world.start(entity)
    await signal(world, verdict("a", EntryStatus.FAILED, **older))
    await signal(world, verdict("b", EntryStatus.VALID))
    await world.until(lambda: queue_shown(world).entry(uid("b")).status is EntryStatus.VALID, "the good verdict")
    assert queue_shown(world).entry(uid("a")).status is EntryStatus.RUNNING
    assert world.store.jobs[uid("job a")]["state"] == "running"


async def test_a_changeset_is_told_before_its_job_ends(world: World) -> None:
    entity = sweeping(world, "a", "b")
    await world.start(entity)
    held = world.fakes.hold("tell")
    await signal(world, verdict("a", EntryStatus.CONFLICTED, conflicts=[{"path": "x.json"}]), verdict("b", EntryStatus.FAILED))
    await world.until(held.reached.is_set, "the changesets are being told")
    assert names(world) == ["b"]
    assert world.store.jobs[uid("job a")]["state"] == "running"
    held.free.set()
    await world.until(lambda: not queue_shown(world).undelivered, "the end")
    assert world.fakes.told == [(uid("a"), "conflicted"), (uid("b"), "needs_revalidation")]
    assert [world.store.jobs[uid(f"job {name}")]["reason_code"] for name in "ab"] == ["tests_failed"] * 2
    log = world.store.log
    assert max(i for i, line in enumerate(log) if line.startswith("told")) < log.index("job tests_failed")


async def test_no_verdict_keeps_the_place_and_a_revalidation_judges_it_again(world: World) -> None:
    entity = sweeping(world, "a")
    await world.start(entity)
    await signal(world, verdict("a", EntryStatus.UNKNOWN))
    await world.until(lambda: queue_shown(world).entries[0].status is EntryStatus.UNKNOWN, "the verdict")
    world.fakes.holds.pop("trial_merges").free.set()
    answer = await world.do(entity, "revalidate", RevalidateCommand, changeset_id=uid("a"))
    assert answer["job_id"] in world.store.jobs
    await world.until(lambda: queue_shown(world).entries[0].status is EntryStatus.VALID, "the second verdict")


async def test_a_passing_revalidation_brings_back_what_needed_one(world: World) -> None:
    entity = queue(world, entry("a", state=EntryState.NEEDS_REVALIDATION, status=EntryStatus.FAILED))
    await world.do(entity, "revalidate", RevalidateCommand, changeset_id=uid("a"))
    await world.until(lambda: world.fakes.told == [(uid("a"), "revalidated")], "it is told")
    assert queue_shown(world).entries[0].state is EntryState.QUEUED


async def test_a_publish_that_comes_while_changesets_are_told_starts_its_sweep(world: World) -> None:
    entity = sweeping(world, "a", "b")
    await world.start(entity)
    held = world.fakes.hold("tell")
    await signal(world, verdict("a", EntryStatus.FAILED), verdict("b", EntryStatus.VALID))
    await world.until(held.reached.is_set, "the changesets are being told")
    world.fakes.holds.pop("trial_merges").free.set()
    await world.do(entity, "published", PublishedCommand, release_id=RELEASE, integration_sha=sha("main-2"))
    del world.fakes.holds["tell"]
    held.free.set()
    await world.until(lambda: queue_shown(world).progress_done == 2, "the sweep of the second epoch")
    assert {row.judged_sha for row in queue_shown(world).entries} == {sha("main-2")}


async def test_news_that_a_crash_left_untold_are_told_and_a_sweep_that_it_left_unstarted_is_started(world: World) -> None:
    left = News(changeset_id=uid("z"), news=QueueNews(kind="needs_revalidation", head_sha=sha("z"), job_id=uid("job z")))
    entity = sweeping(world, "a", sweep_started=False, undelivered=[left])
    world.fakes.holds.clear()
    await world.start(entity)
    await world.until(lambda: world.fakes.told == [(uid("z"), "needs_revalidation")], "the news")
    await world.until(lambda: queue_shown(world).sweep is None, "the sweep")


async def test_a_sweep_whose_verdicts_found_no_queue_is_run_again_for_what_still_runs(world: World) -> None:
    entity = sweeping(world, "h")  # no other test has a gate of this job
    world.fakes.holds.clear()
    await world.start(entity)
    await world.until(lambda: queue_shown(world).entries[0].status is EntryStatus.VALID, "the verdict")
    assert [run.gate.job_id for run in world.fakes.runs] == [uid("job h")]


async def test_reorder_takes_exactly_what_is_listed_at_the_version_that_was_read(world: World) -> None:
    entity = queue(world, entry("a"), entry("b"), entry("c", state=EntryState.NEEDS_REVALIDATION))
    order = [uid(name) for name in "cab"]
    await world.do(entity, "reorder", ReorderCommand, ordered_changeset_ids=order, expected_version=0)
    assert names(world) == ["c", "a", "b"]
    stale = await world.command(ReorderCommand, ordered_changeset_ids=order, expected_version=0)
    error = await refused(world.send(entity, "reorder", stale))
    assert (error.type, error.details[0]) == ("stale_write", {"version": 1})
    missing = await world.command(ReorderCommand, ordered_changeset_ids=order[:2], expected_version=1)
    assert (await refused(world.send(entity, "reorder", missing))).type == "validation_error"
    assert names(world) == ["c", "a", "b"]


async def test_an_enqueue_that_interleaves_makes_a_reorder_stale(world: World) -> None:
    entity = queue(world, entry("a"), entry("b"))
    held = world.store.hold("first")
    first = await world.command(EnqueueCommand, command_id="first", entry=entry("c").model_dump())
    enqueuing = asyncio.create_task(world.send(entity, "enqueue", first))
    await world.until(held.reached.is_set, "it is being written")
    order = await world.command(ReorderCommand, ordered_changeset_ids=[uid("b"), uid("a")], expected_version=0)
    reordering = asyncio.create_task(refused(world.send(entity, "reorder", order)))
    await world.accepted(entity, 2)
    held.free.set()
    await enqueuing
    assert (await reordering).type == "stale_write"
    assert names(world) == ["a", "b", "c"]


async def test_a_release_reserves_all_or_nothing(world: World) -> None:
    blocked = entry("c", reserved_by=uid("other release"))
    entity = queue(world, entry("a"), entry("b"), blocked, entry("d", state=EntryState.NEEDS_REVALIDATION))
    wanted = [uid(name) for name in "abcd"] + [uid("e")]
    error = await refused(
        world.send(entity, "reserve", await world.command(ReserveCommand, release_id=RELEASE, changeset_ids=wanted))
    )
    assert error.type == "conflict"
    assert [(row["changeset_id"], row["state"], row["release_id"]) for row in error.details[0]] == [
        (uid("c"), "queued", uid("other release")),
        (uid("d"), "needs_revalidation", None),
        (uid("e"), "not queued", None),
    ]
    assert [row.reserved_by for row in queue_shown(world).entries] == [None, None, uid("other release"), None]
    answer = await world.do(entity, "reserve", ReserveCommand, release_id=RELEASE, changeset_ids=[uid("b"), uid("a")])
    assert [row["changeset_id"] for row in answer["members"]] == [uid("b"), uid("a")]
    await world.do(entity, "reserve", ReserveCommand, release_id=RELEASE, changeset_ids=[uid("a")])
    assert [row.reserved_by for row in queue_shown(world).entries][:2] == [RELEASE, None]


async def test_two_releases_at_once_never_share_a_changeset(world: World) -> None:
    entity = queue(world, entry("a"))
    commands = [await world.command(ReserveCommand, release_id=uid(name), changeset_ids=[uid("a")]) for name in ("r1", "r2")]
    found = await asyncio.gather(*(world.send(entity, "reserve", command) for command in commands), return_exceptions=True)
    assert sum(isinstance(one, dict) for one in found) == 1


async def test_what_a_release_holds_can_not_be_removed(world: World) -> None:
    entity = queue(world, entry("a", reserved_by=RELEASE), entry("b"))
    held = await refused(world.send(entity, "remove", await world.command(RemoveCommand, changeset_id=uid("a"))))
    assert held.type == "conflict"
    assert await world.do(entity, "remove", RemoveCommand, changeset_id=uid("b")) == {"removed": True}
    assert await world.do(entity, "remove", RemoveCommand, changeset_id=uid("b")) == {"removed": False}
    assert names(world) == ["a"]


@pytest.mark.parametrize(("conflicted", "left"), [(True, []), (False, ["a"])], ids=["conflict", "failing suite"])
async def test_a_blamed_member_loses_its_reservation_and_its_running_revalidation(
    world: World, conflicted: bool, left: list[str]
) -> None:
    entity = sweeping(world, "a")
    shown = queue_shown(world)
    reserved = [row.model_copy(update={"reserved_by": RELEASE}) for row in shown.entries]
    queue(world, **{**shown.model_dump(), "entries": reserved, "sweep": shown.sweep, "commands": []})
    blame = {"release_id": RELEASE, "changeset_id": uid("a"), "conflicted": conflicted, "job_id": uid("suite")}
    await world.do(entity, "eject", EjectCommand, **blame)
    assert names(world) == left
    assert all((row.reserved_by, row.state) == (None, EntryState.NEEDS_REVALIDATION) for row in queue_shown(world).entries)
    assert world.store.jobs[uid("job a")]["reason_code"] == "superseded"


async def test_a_cancel_from_the_web_ui_does_not_end_a_queue(world: World) -> None:
    entity = queue(world, entry("a"))
    handle = await world.start(entity)
    held = world.store.hold("first")
    first = await world.command(EnqueueCommand, command_id="first", entry=entry("b").model_dump())
    enqueuing = asyncio.create_task(world.send(entity, "enqueue", first))
    await world.until(held.reached.is_set, "it is being written")
    await handle.cancel()
    held.free.set()
    await enqueuing
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("c").model_dump())
    assert names(world) == ["a", "b", "c"]
