"""`job:{id}` of a gate: the table of `spec.md` 9, cancel, and gates that an earlier run began."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.exceptions import ApplicationError
from workflow_world import World

from conman.domain.decision import Verdict
from conman.domain.jobs import JobState, JobType, ReasonCode, end_state
from conman.domain.messages import GateRun, GateStart
from conman.workflows import options
from conman.workflows.gate import GateWorkflow


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


def gate(world: World, job_type: JobType = JobType.MSUITE_SUBMIT) -> GateStart:
    return GateStart(
        job_id=world.id("job"),
        app_id=world.app_id,
        job_type=job_type,
        entity_type="changeset",
        entity_id=world.id("changeset"),
        commit_sha="head",
        scope="submit",
    )


async def run(world: World, job_type: JobType = JobType.MSUITE_SUBMIT) -> Verdict:
    return await world.client.execute_workflow(
        GateWorkflow.run, gate(world, job_type), id=world.id("job"), task_queue=options.queue_name(options.Queue.MAIN)
    )


def ending(*reasons: ReasonCode | Exception):
    """A suite whose attempts end one after the other as given, the last for ever."""

    async def suite(run: GateRun) -> ReasonCode:
        found = reasons[min(run.attempt, len(reasons)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    return suite


@pytest.mark.parametrize("reason", list(ReasonCode), ids=str)
async def test_only_what_the_machine_did_is_run_again_and_only_as_often_as_the_table_says(
    world: World, reason: ReasonCode
) -> None:
    again = reason in (ReasonCode.RUNNER_ERROR, ReasonCode.GIT_ERROR, ReasonCode.INFRASTRUCTURE)
    world.fakes.suite = ending(reason)
    verdict = await run(world)
    assert [run.attempt for run in world.fakes.runs] == ([1, 2, 3, 4] if again else [1])
    assert (verdict.reason_code, verdict.state) == (reason, end_state(reason))
    assert {run.max_attempts for run in world.fakes.runs} == {4}


async def test_the_attempts_of_a_deploy_gate_are_fewer(world: World) -> None:
    world.fakes.suite = ending(ReasonCode.INFRASTRUCTURE)
    assert (await run(world, JobType.MSUITE_DEPLOY)).attempt == 3
    assert {(run.max_attempts, run.timeout_seconds) for run in world.fakes.runs} == {(3, 600)}


async def test_pauses_between_attempts_double(world: World) -> None:
    world.fakes.suite = ending(ReasonCode.INFRASTRUCTURE)
    await run(world)
    history = await world.client.get_workflow_handle(world.id("job")).fetch_history()
    pauses = [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds()
        for event in history.events
        if event.HasField("timer_started_event_attributes")
    ]
    assert pauses == [2.0, 4.0, 8.0]


async def test_an_attempt_that_was_lost_counts_as_infrastructure_and_the_next_one_may_pass(world: World) -> None:
    world.fakes.suite = ending(ApplicationError("the worker was stopped"), ReasonCode.OK)
    verdict = await run(world)
    assert (verdict.reason_code, verdict.attempt, len(world.fakes.runs)) == (ReasonCode.OK, 2, 2)


async def test_a_commit_that_git_can_not_give_is_a_git_error(world: World) -> None:
    world.fakes.suite = ending(ApplicationError("no such commit", type=ReasonCode.GIT_ERROR.value, non_retryable=True))
    assert (await run(world)).reason_code is ReasonCode.GIT_ERROR


async def canceled_during(world: World, last: ReasonCode | Exception | None) -> Verdict:
    """The verdict of a gate that is canceled while its suite runs, and whose attempt then ends with `last`."""
    reached = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        try:
            reached.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if last is None:
                raise
            if isinstance(last, Exception):
                raise last from None
            return last
        raise AssertionError("it was never canceled")

    world.fakes.suite = suite
    handle = await world.client.start_workflow(
        GateWorkflow.run, gate(world), id=world.id("job"), task_queue=options.queue_name(options.Queue.MAIN)
    )
    await world.until(reached.is_set, "the suite runs")
    await handle.cancel()
    return await handle.result()


async def test_a_canceled_gate_ends_canceled_after_its_suite_has_ended(world: World) -> None:
    verdict = await canceled_during(world, None)
    assert (verdict.state, verdict.reason_code) == (JobState.CANCELED, ReasonCode.CANCELED)
    assert world.fakes.running == 0


async def test_a_suite_that_passed_before_the_cancel_reached_it_has_passed(world: World) -> None:
    assert (await canceled_during(world, ReasonCode.OK)).reason_code is ReasonCode.OK


@pytest.mark.parametrize("lost", [ReasonCode.INFRASTRUCTURE, ApplicationError("the worker died")], ids=["told", "raised"])
async def test_a_canceled_gate_whose_attempt_was_lost_is_not_run_again(world: World, lost: ReasonCode | Exception) -> None:
    assert (await canceled_during(world, lost)).reason_code is ReasonCode.CANCELED
    assert len(world.fakes.runs) == 1


async def test_a_cancel_in_the_pause_between_two_attempts_ends_it(world: World) -> None:
    world.fakes.suite = ending(ReasonCode.INFRASTRUCTURE)
    handle = await world.client.start_workflow(
        GateWorkflow.run, gate(world), id=world.id("job"), task_queue=options.queue_name(options.Queue.MAIN)
    )
    await world.until(lambda: len(world.fakes.runs) == 1 and not world.fakes.running, "the first attempt is over")
    await world.pausing(handle)
    await handle.cancel()
    assert (await handle.result()).reason_code is ReasonCode.CANCELED
