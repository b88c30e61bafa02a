"""`revalidation:{app}:{epoch}` (`spec.md` 10, `durability.md` 18): one sweep over the queue against one head."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from workflow_names import sha, uid
from workflow_samples import entry
from workflow_world import World

from conman.domain.jobs import ReasonCode
from conman.domain.messages import GateRun, SweepStart
from conman.domain.queue import EntryStatus, EntryVerdict
from conman.workflows import options
from conman.workflows.revalidation import RevalidationWorkflow


@workflow.defn(name="listener")
class Listener:
    """Stands for the queue: it keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[list[EntryVerdict]] = []

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def take_verdicts(self, verdicts: list[EntryVerdict]) -> None:
        self.told.append(verdicts)

    @workflow.query
    def all(self) -> list[list[EntryVerdict]]:
        return self.told


@asynccontextmanager
async def listening(world: World) -> AsyncIterator[WorkflowHandle[Listener, None]]:
    queue = f"listeners-{world.number}"
    async with Worker(world.client, task_queue=queue, workflows=[Listener], workflow_runner=UnsandboxedWorkflowRunner()):
        yield await world.client.start_workflow(Listener.run, id=options.queue_workflow(world.app_id), task_queue=queue)


def sweep(world: World, *names: str) -> SweepStart:
    entries = [entry(name, status=EntryStatus.RUNNING, job_id=world.id(f"job {name}")) for name in names]
    return SweepStart(app_id=world.app_id, epoch=3, integration_sha=sha("main-2"), entries=entries)


async def start(world: World, *names: str) -> WorkflowHandle[RevalidationWorkflow, int]:
    return await world.client.start_workflow(
        RevalidationWorkflow.run,
        sweep(world, *names),
        id=options.revalidation_workflow(world.app_id, 3),
        task_queue=options.queue_name(options.Queue.MAIN),
    )


async def found(queue: WorkflowHandle[Listener, None]) -> list[list[EntryVerdict]]:
    return await queue.query(Listener.all)


async def test_conflicts_are_told_before_any_suite_runs(world: World) -> None:
    world.fakes.conflicts = {uid("b"): [{"path": "x.json"}]}
    free = asyncio.Event()

    async def suite(run: GateRun) -> ReasonCode:
        await free.wait()
        return ReasonCode.TESTS_FAILED if run.gate.entity_id == uid("c") else ReasonCode.OK

    world.fakes.suite = suite
    async with listening(world) as queue:
        handle = await start(world, "a", "b", "c")
        await world.until(lambda: len(world.fakes.runs) == 2, "the suites run")
        (first,) = await found(queue)
        assert [(v.changeset_id, v.status, v.conflicts) for v in first] == [
            (uid("b"), EntryStatus.CONFLICTED, [{"path": "x.json"}])
        ]
        free.set()
        assert await handle.result() == 3
        told = {v.changeset_id: v for batch in await found(queue) for v in batch}
    assert {told[uid(name)].status for name in "a"} == {EntryStatus.VALID}
    assert told[uid("c")].status is EntryStatus.FAILED
    assert {(v.epoch, v.integration_sha) for v in told.values()} == {(3, sha("main-2"))}
    assert told[uid("a")].head_sha == sha("a") and told[uid("a")].job_id == world.id("job a")


@pytest.mark.parametrize("at_once", [1, 3])
async def test_suites_run_in_queue_order_and_never_more_at_once_than_the_app_allows(world: World, at_once: int) -> None:
    world.fakes.concurrency = at_once
    async with listening(world):
        assert await (await start(world, *"abcdefgh")).result() == 8
    assert world.fakes.most_running <= at_once
    order = [run.gate.entity_id for run in world.fakes.runs]
    expected = [uid(name) for name in "abcdefgh"]
    assert order == expected if at_once == 1 else sorted(order) == sorted(expected)


@pytest.mark.parametrize("reason", [ReasonCode.TIMEOUT, ReasonCode.CANCELED, ReasonCode.BASELINE_FAILING], ids=str)
async def test_a_suite_without_a_verdict_on_the_files_says_unknown(world: World, reason: ReasonCode) -> None:
    async def suite(_run: GateRun) -> ReasonCode:
        return reason

    world.fakes.suite = suite
    async with listening(world) as queue:
        await (await start(world, "a")).result()
        ((only,),) = await found(queue)
    assert (only.status, only.reason_code) == (EntryStatus.UNKNOWN, reason)


async def test_a_canceled_sweep_stops_its_suites_and_leaves_no_entry_waiting(world: World) -> None:
    started = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        if len(world.fakes.runs) == 3:
            started.set()
        if len(world.fakes.runs) == 1:
            return ReasonCode.OK
        await asyncio.sleep(60)
        raise AssertionError("it was never canceled")

    world.fakes.suite, world.fakes.concurrency = suite, 2
    async with listening(world) as queue:
        handle = await start(world, *"abcd")
        await world.until(started.is_set, "one has passed, two run, one waits")
        await handle.cancel()
        assert await handle.result() == 4
        told = {v.changeset_id: v for batch in await found(queue) for v in batch}
    assert world.fakes.running == 0
    assert told[uid("a")].status is EntryStatus.VALID
    assert {told[uid(name)].reason_code for name in "bcd"} == {ReasonCode.CANCELED}
    assert {told[uid(name)].status for name in "bcd"} == {EntryStatus.UNKNOWN}


async def test_a_sweep_that_is_canceled_while_it_merges_leaves_no_entry_waiting(world: World) -> None:
    held = world.fakes.hold("trial_merges")
    async with listening(world) as queue:
        handle = await start(world, *"ab")
        await world.until(held.reached.is_set, "it merges")
        await handle.cancel()
        assert await handle.result() == 2
        assert [v.reason_code for batch in await found(queue) for v in batch] == [ReasonCode.CANCELED] * 2
    assert world.fakes.runs == []


async def test_a_sweep_ends_where_there_is_no_queue(world: World) -> None:
    assert await (await start(world, "a")).result() == 1


async def test_a_gate_that_an_earlier_sweep_began_is_joined(world: World) -> None:
    async with listening(world) as queue:
        await world.client.start_workflow(
            "listener", id=options.job_workflow(world.id("job a")), task_queue=f"listeners-{world.number}"
        )
        await (await start(world, "a")).result()
        ((only,),) = await found(queue)
    assert (only.status, world.fakes.runs) == (EntryStatus.VALID, [])
    assert "await_job" in world.store.log
