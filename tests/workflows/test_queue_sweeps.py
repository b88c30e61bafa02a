"""`queue:{app}` beside a sweep that is under way (`durability.md` 18): what joins, what leaves, and what is lost of it."""

from __future__ import annotations

import asyncio

from temporalio.client import WorkflowExecutionStatus
from workflow_fakes import Held
from workflow_names import sha, uid
from workflow_samples import entry, queue, queue_shown
from workflow_world import World

from conman.domain.jobs import ReasonCode
from conman.domain.messages import EnqueueCommand, GateRun, PublishedCommand, RemoveCommand, RevalidateCommand
from conman.domain.queue_records import EntryStatus
from conman.workflows import options
from conman.workflows.client import EntityWorkflow

OLDER = {"judged_sha": sha("main-0"), "base_sha": sha("main-0")}


def held_suites(world: World) -> Held:
    """Suites wait until they are let go."""
    held = Held()

    async def suite(_run: GateRun) -> ReasonCode:
        await held.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    return held


async def published(world: World, *names: str) -> tuple[EntityWorkflow, Held]:
    """A queue whose sweep of epoch 1 runs the suites of these."""
    held = held_suites(world)
    entity = queue(world, *(entry(name) for name in names))
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-2"))
    await world.until(lambda: world.fakes.running == min(len(names), world.fakes.concurrency), "suites")
    return entity, held


def judged(world: World) -> bool:
    shown = queue_shown(world)
    return shown.sweep is None and not shown.undelivered


async def test_who_enters_or_is_judged_again_while_a_sweep_runs_stops_no_suite(world: World) -> None:
    """Every suite runs once; the one asked for by hand runs afresh; the last verdict ends the epoch."""
    world.fakes.concurrency = 8
    entity, held = await published(world, "a", "b", "c")
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("d", **OLDER).model_dump())
    await world.do(entity, "enqueue", EnqueueCommand, entry=entry("e", hotpatch=True).model_dump())
    again = await world.do(entity, "revalidate", RevalidateCommand, changeset_id=uid("b"))
    await world.until(lambda: world.fakes.running == 5, "the suites of those that joined")
    assert (queue_shown(world).epoch, queue_shown(world).progress_total) == (1, 5)
    held.free.set()
    await world.until(lambda: judged(world), "all verdicts")
    shown = queue_shown(world)
    assert (shown.epoch, shown.progress_done, shown.progress_total) == (1, 5, 5)
    assert {item.status for item in shown.entries} == {EntryStatus.VALID}
    assert {job["state"] for job in world.store.jobs.values()} == {"succeeded"}
    assert sorted(run.gate.entity_id for run in world.fakes.runs) == sorted(uid(name) for name in "abcde")
    assert again["job_id"] in [run.gate.job_id for run in world.fakes.runs]


async def test_one_that_failed_is_judged_again_beside_the_others_and_afresh(world: World) -> None:
    first = asyncio.Event()

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.entity_id != uid("a"):
            await first.wait()
            return ReasonCode.OK
        return ReasonCode.OK if run.gate.fresh else ReasonCode.TESTS_FAILED

    world.fakes.suite = suite
    entity = queue(world, entry("a"), entry("b"))
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-2"))
    await world.until(lambda: queue_shown(world).entries[0].status is EntryStatus.FAILED, "the verdict")
    await world.do(entity, "revalidate", RevalidateCommand, changeset_id=uid("a"))
    await world.until(lambda: queue_shown(world).entries[0].status is EntryStatus.VALID, "the second verdict")
    assert (queue_shown(world).progress_done, queue_shown(world).progress_total) == (1, 2)
    first.set()
    await world.until(lambda: judged(world), "all verdicts")
    assert [run.gate.entity_id for run in world.fakes.runs].count(uid("b")) == 1


async def test_what_leaves_frees_its_slot(world: World) -> None:
    world.fakes.concurrency = 1
    entity, held = await published(world, "a", "b")
    await world.do(entity, "remove", RemoveCommand, changeset_id=uid("a"))
    await world.until(lambda: len(world.fakes.runs) == 2, "the suite of b")
    held.free.set()
    await world.until(lambda: judged(world), "the verdict")
    assert [item.changeset_id for item in queue_shown(world).entries] == [uid("b")]


async def test_the_last_that_leaves_ends_the_sweep(world: World) -> None:
    entity, held = await published(world, "a")
    await world.do(entity, "remove", RemoveCommand, changeset_id=uid("a"))
    handle = world.client.get_workflow_handle(options.revalidation_workflow(world.app_id, 1))
    assert await handle.result() == 0
    assert (world.fakes.running, held.free.is_set()) == (0, False)


async def test_what_joins_as_the_sweep_ends_is_judged_all_the_same(world: World) -> None:
    """The signal finds nobody: a second process of the same epoch judges it, and nothing else."""
    entity, held = await published(world, "a", "b")
    sweep = world.client.get_workflow_handle(options.revalidation_workflow(world.app_id, 1))
    written = world.store.hold("verdicts")
    held.free.set()
    await sweep.result()
    entering = asyncio.create_task(world.do(entity, "enqueue", EnqueueCommand, entry=entry("d", **OLDER).model_dump()))
    await world.accepted(entity, 2)
    written.free.set()
    await entering
    await world.until(lambda: judged(world), "all verdicts")
    assert {item.status for item in queue_shown(world).entries} == {EntryStatus.VALID}
    assert sorted(run.gate.entity_id for run in world.fakes.runs) == sorted(uid(name) for name in "abd")


async def test_a_sweep_that_somebody_terminated_is_begun_again_for_what_has_no_verdict(world: World) -> None:
    entity, held = await published(world, "a", "b")
    sweep = world.client.get_workflow_handle(options.revalidation_workflow(world.app_id, 1))
    await sweep.terminate()
    handle = world.client.get_workflow_handle(entity.workflow_id)
    await handle.signal("sweep_lost", 0)  # of an epoch that is over: nobody waits for it
    held.free.set()
    await handle.signal("sweep_lost", 1)
    await world.until(lambda: judged(world), "all verdicts")
    assert {item.judged_sha for item in queue_shown(world).entries} == {sha("main-2")}
    assert (await sweep.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_an_operator_sees_how_far_it_is_and_which_failed(world: World) -> None:
    async def suite(run: GateRun) -> ReasonCode:
        return ReasonCode.TESTS_FAILED if run.gate.entity_id in (uid("a"), uid("c")) else ReasonCode.OK

    world.fakes.suite = suite
    entity = queue(world, entry("a"), entry("b"), entry("c"))
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-2"))
    await world.until(lambda: judged(world), "all verdicts")
    shown = await world.client.get_workflow_handle(entity.workflow_id).query("__temporal_workflow_metadata")
    assert f"epoch 1 on {sha('main-2')[:12]}. Revalidated: 3 of 3. Failed: a, c." in str(shown)
