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
from conman.domain.messages import GateRun, SweepChange, SweepStart
from conman.domain.queue_records import EntryStatus
from conman.domain.queue_verdicts import EntryVerdict
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


async def test_suites_start_in_queue_order_and_never_more_at_once_than_the_app_allows(world: World) -> None:
    """Each time that one ends, the next in the queue begins, whichever ended."""
    world.fakes.concurrency = 3
    ends = {uid(name): asyncio.Event() for name in "abcdefgh"}

    async def suite(run: GateRun) -> ReasonCode:
        await ends[run.gate.entity_id].wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    async with listening(world):
        handle = await start(world, *"abcdefgh")
        started = list("abc")
        for ended in "cabedhgf":
            await world.until(lambda number=len(started): len(world.fakes.runs) == number, "the next suite")
            assert sorted(run.gate.entity_id for run in world.fakes.runs) == sorted(uid(name) for name in started)
            ends[uid(ended)].set()
            started += ["abcdefgh"[len(started)]] if len(started) < 8 else []
        assert await handle.result() == 8
    assert world.fakes.most_running == 3


async def test_a_changed_setting_counts_before_the_sweep_ends(skipping_world: World) -> None:
    """What begins ten seconds after the change or later: here after the pauses between three attempts at the first suite."""
    world = skipping_world
    world.fakes.concurrency = 1
    both = asyncio.Barrier(2)

    async def suite(run: GateRun) -> ReasonCode:
        if run.gate.entity_id == uid("a"):
            world.fakes.concurrency = 2
            return ReasonCode.INFRASTRUCTURE
        async with asyncio.timeout(10):
            await both.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    async with listening(world):
        assert await (await start(world, *"abc")).result() == 3
    assert world.fakes.most_running == 2


async def test_what_joins_is_judged_with_the_rest_in_the_order_of_the_queue(world: World) -> None:
    world.fakes.concurrency = 1
    world.fakes.conflicts = {uid("x"): [{"path": "x.json"}]}
    first = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        await first.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    async with listening(world) as queue:
        handle = await start(world, "a", "b")
        await world.until(lambda: world.fakes.running == 1, "the first suite")
        joins = sweep(world, "h", "x").entries
        order = [world.id(f"job {name}") for name in "hxab"]
        for _ in range(2):  # the queue repeats what it does not know to be told
            await handle.signal(RevalidationWorkflow.change, SweepChange(joins=joins, leaves=[], order=order))

        await world.until(lambda: world.store.log.count("trial_merges") == 2, "the merges of what joined")
        async with asyncio.timeout(10):
            while not (told := await found(queue)):  # noqa: ASYNC110  a query has no event
                await asyncio.sleep(0.02)
        ((conflicted,),) = told
        assert (conflicted.changeset_id, len(world.fakes.runs)) == (uid("x"), 1)
        first.set()
        assert await handle.result() == 4
        assert len([v for batch in await found(queue) for v in batch]) == 4
    assert [run.gate.entity_id for run in world.fakes.runs] == [uid(name) for name in "ahb"]


async def test_what_leaves_is_stopped_or_never_begun_and_the_others_go_on(world: World) -> None:
    world.fakes.concurrency = 2
    free = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        await free.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    async with listening(world) as queue:
        handle = await start(world, *"abcd")
        await world.until(lambda: world.fakes.running == 2, "two suites")
        order = [world.id(f"job {name}") for name in "bd"]
        leaves = [world.id(f"job {name}") for name in "ac"]
        await handle.signal(RevalidationWorkflow.change, SweepChange(joins=[], leaves=leaves, order=order))
        await world.until(lambda: len(world.fakes.runs) == 3 and world.fakes.running == 2, "d has the slot of a")
        free.set()
        assert await handle.result() == 2
        assert sorted(v.changeset_id for batch in await found(queue) for v in batch) == sorted([uid("b"), uid("d")])
    assert uid("c") not in [run.gate.entity_id for run in world.fakes.runs]


async def test_verdicts_that_are_ready_together_travel_together(world: World) -> None:
    world.fakes.concurrency = 20
    all_run = asyncio.Barrier(20)

    async def suite(_run: GateRun) -> ReasonCode:
        await all_run.wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    async with listening(world) as queue:
        assert await (await start(world, *(f"e{number}" for number in range(20)))).result() == 20
        batches = await found(queue)
    assert sum(map(len, batches)) == 20
    assert len(batches) < 20


async def test_a_long_sweep_goes_on_in_a_fresh_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is judged twice, none is left out, the order is kept, and each merge is made once."""
    monkeypatch.setattr(options, "CONTINUE_AFTER_EVENTS", 120)
    names = [f"e{number}" for number in range(40)]
    async with listening(world) as queue:
        handle = await start(world, *names)
        assert await handle.result() == 40
        told = [v.changeset_id for batch in await found(queue) for v in batch]
        latest = await world.client.get_workflow_handle(handle.id).describe()
    assert latest.run_id != handle.first_execution_run_id
    assert sorted(told) == sorted(uid(name) for name in names)
    assert sorted(run.gate.entity_id for run in world.fakes.runs) == sorted(told)
    assert world.store.log.count("trial_merges") == 1
    assert world.fakes.most_running <= 4


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
    passed = told.pop(world.fakes.runs[0].gate.entity_id)  # of the two that start together, either may run first
    assert passed.status is EntryStatus.VALID
    assert {one.reason_code for one in told.values()} == {ReasonCode.CANCELED}
    assert {one.status for one in told.values()} == {EntryStatus.UNKNOWN}


async def test_a_sweep_that_is_canceled_while_it_merges_leaves_no_entry_waiting(world: World) -> None:
    held = world.fakes.hold("trial_merges")
    async with listening(world) as queue:
        handle = await start(world, *"ab")
        await world.until(held.reached.is_set, "it merges")
        # Else the reading of the setting may end just while its cancel is asked for, which the test server never answers.
        await world.completed(handle, activities=1)
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
