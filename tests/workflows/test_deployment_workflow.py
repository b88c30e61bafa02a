"""`deployment:{id}` (`spec.md` 12, `durability.md` 13, 15, 16): approvals, gate, switch, verify; every end frees the lock."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from workflow_names import sha, uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World, refused

from conman.domain.deployment import Approval, DeploymentState, Phase
from conman.domain.jobs import ReasonCode
from conman.domain.messages import GateRun
from conman.domain.times import parse_time
from conman.workflows.client import EntityWorkflow
from conman.workflows.deployment import ApproveCommand, CancelCommand

D = DeploymentState
PHASES = {
    "lock": "judge_start",
    "start": "begin_running",
    "gate": "suite",
    "switch": "switch_environment",
    "verify": "verify_environment",
    "end": "end_deployment",
}


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


async def exceptional(world: World, **fields: object) -> EntityWorkflow:
    """A deployment that needs two approvals within a day; the requester's counts already."""
    now = await world.now()
    expires = (parse_time(now) + timedelta(hours=24)).isoformat()
    base = {"skip_stage": True, "exceptional_reasons": ["skip_stage"], "approvals_required": 2, "requested_at": now}
    base |= {"approvals_expire_at": expires, "approvals": [Approval(user_id=world.id("manager"), at=now)]}
    return deployment(world, **(base | fields))


async def approve(world: World, entity: EntityWorkflow, by: str) -> None:
    await world.send(entity, "approve", await world.command(ApproveCommand, by=by))


def handle_of(world: World, entity: EntityWorkflow) -> WorkflowHandle[object, str]:
    return world.handle(entity)


def job(world: World) -> tuple[str, str]:
    """State and reason of the job that the request returned."""
    found = world.store.jobs[world.id("job")]
    return found["state"], found["reason_code"]


@pytest.fixture(autouse=True)
def requested(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


def hold(world: World, phase: str) -> asyncio.Event:
    """The step waits; set once it is reached. A suite ends when it is canceled."""
    if phase != "gate":
        return world.fakes.hold(PHASES[phase]).reached
    reached = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        reached.set()
        await asyncio.sleep(60)
        raise AssertionError("it was never canceled")

    world.fakes.suite = suite
    return reached


def let_go(world: World) -> None:
    for held in world.fakes.holds.values():
        held.free.set()
    world.fakes.holds.clear()


async def test_an_ordinary_deployment_goes_gate_switch_verify_and_its_records_come_before_its_job(world: World) -> None:
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "succeeded"
    shown = deployment_shown(world)
    assert (shown.phase, shown.folder) == (Phase.DONE, f"/environments/{world.id('environment')}/current")
    steps = ("begin_running", "switch_environment", "verify_environment", "environment shows it", "audit started")
    order = [line for line in world.store.log if line in (*steps, "audit succeeded")]
    assert order == [
        "begin_running",
        "audit started",
        "switch_environment",
        "verify_environment",
        "environment shows it",
        "audit succeeded",
    ]
    assert (job(world), world.store.jobs[shown.gate_job_id]["state"]) == (("succeeded", "ok"), "succeeded")
    assert world.fakes.lock is None
    assert [run.gate.commit_sha for run in world.fakes.runs] == [sha("published")]


async def test_gate_and_environment_get_the_profile_at_the_revision_that_is_pinned_when_the_gate_starts(world: World) -> None:
    """`spec.md` 6."""
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "succeeded"
    pinned = deployment_shown(world).profile_revision_id
    assert pinned == uid("profile-1")
    assert [run.gate.profile_revision_id for run in world.fakes.runs] == [pinned]
    assert [switch.profile_revision_id for switch in world.fakes.switches] == [pinned]


async def test_gate_and_environment_get_what_the_release_brings_as_the_checks_looked_at_it(world: World) -> None:
    """`spec.md` 6: the whole set of overrides that arrives is in the revision that goes out."""
    world.fakes.goes_out_with = uid("with overrides")
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "succeeded"
    order = [line for line in world.store.log if line in ("begin_running", "prepare_profile", "check_drift", "audit started")]
    assert order == ["prepare_profile", "check_drift", "begin_running", "audit started"]
    (question,) = world.fakes.prepared
    assert (question.deployment_id, question.release_id) == (world.id("deployment"), world.id("release"))
    assert deployment_shown(world).profile_revision_id == uid("with overrides")
    assert [run.gate.profile_revision_id for run in world.fakes.runs] == [uid("with overrides")]
    assert [switch.profile_revision_id for switch in world.fakes.switches] == [uid("with overrides")]


async def test_what_the_profile_can_not_take_fails_the_deployment_before_its_gate(world: World) -> None:
    world.fakes.does_not_fit = "The overrides do not fit."
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "failed"
    shown = deployment_shown(world)
    assert (shown.reason_code, shown.message) == (ReasonCode.RUNNER_ERROR, "The overrides do not fit.")
    assert (world.fakes.runs, world.fakes.switches, world.fakes.lock) == ([], [], None)
    assert job(world) == ("failed", "runner_error")


async def test_two_distinct_people_let_an_exceptional_one_start(world: World) -> None:
    entity = await exceptional(world)
    await world.start(entity)
    await approve(world, entity, "manager")
    assert len(deployment_shown(world).approvals) == 1
    await approve(world, entity, "bea")
    assert await handle_of(world, entity).result() == "succeeded"
    assert [approval.user_id for approval in deployment_shown(world).approvals] == [world.id("manager"), world.id("bea")]
    assert world.store.actions() == ["approved", "started", "succeeded"]


async def test_an_ordinary_one_can_not_be_approved(world: World) -> None:
    reached = hold(world, "gate")
    entity = deployment(world)
    await world.start(entity)
    await world.until(reached.is_set, "the gate")
    error = await refused(world.send(entity, "approve", await world.command(ApproveCommand)))
    assert error.type == "invalid_transition"
    await world.do(entity, "cancel", CancelCommand)
    assert await handle_of(world, entity).result() == "canceled"


async def test_approvals_expire_after_a_day(world: World) -> None:
    entity = await exceptional(world)
    begun = parse_time(await world.now())
    await world.start(entity)
    assert await handle_of(world, entity).result() == "canceled"
    assert parse_time(await world.now()) - begun >= timedelta(hours=24)
    assert deployment_shown(world).message == "Its approvals expired: ask for the deployment again."
    assert world.store.actions() == ["approval_expired", "canceled"]
    assert (job(world), world.fakes.lock, world.fakes.runs) == (("canceled", "canceled"), None, [])


async def test_one_who_lost_the_role_does_not_count_and_it_waits_on(world: World) -> None:
    world.fakes.eligible = lambda user_id: user_id != world.id("bea")
    entity = await exceptional(world)
    await world.start(entity)
    await approve(world, entity, "bea")
    await world.until(lambda: "judge_start" in world.store.log, "it looked who still may")
    assert deployment_shown(world).state is D.PENDING
    await approve(world, entity, "cid")
    assert await handle_of(world, entity).result() == "succeeded"


async def test_it_still_expires_after_one_who_lost_the_role_approved(world: World) -> None:
    world.fakes.eligible = lambda user_id: user_id != world.id("bea")
    entity = await exceptional(world)
    await world.start(entity)
    await approve(world, entity, "bea")
    assert await handle_of(world, entity).result() == "canceled"
    assert world.store.actions() == ["approved", "approval_expired", "canceled"]
    assert world.fakes.lock is None


async def test_approvals_and_their_deadline_outlive_the_workflow(world: World) -> None:
    now = await world.now()
    approvals = [Approval(user_id=world.id(name), at=now) for name in ("manager", "bea")]
    entity = await exceptional(world, approvals=approvals, phase=Phase.APPROVALS)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "succeeded"


@pytest.mark.parametrize(
    ("reason", "state"),
    [(ReasonCode.TESTS_FAILED, "failed"), (ReasonCode.TIMEOUT, "failed"), (ReasonCode.INFRASTRUCTURE, "failed")],
    ids=str,
)
async def test_a_gate_that_does_not_pass_fails_it_and_frees_the_lock(world: World, reason: ReasonCode, state: str) -> None:
    async def suite(_run: GateRun) -> ReasonCode:
        return reason

    world.fakes.suite = suite
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == state
    assert (job(world), world.fakes.lock) == ((state, reason.value), None)
    assert "switch_environment" not in world.store.log


async def test_a_lock_that_was_lost_fails_it_before_anything_shows(world: World) -> None:
    world.fakes.holds_lock = False
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "failed"
    assert (job(world), world.fakes.runs) == (("failed", "infrastructure"), [])


@pytest.mark.parametrize("step", ["switch_environment", "verify_environment"])
async def test_an_effect_that_fails_for_good_fails_it_with_the_reason_and_frees_the_lock(world: World, step: str) -> None:
    world.fakes.errors[step] = ApplicationError("x.json differs", non_retryable=True)
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "failed"
    assert (deployment_shown(world).message, job(world)) == ("x.json differs", ("failed", "infrastructure"))
    assert world.fakes.lock is None


async def test_an_effect_is_tried_ten_times_before_it_fails(world: World) -> None:
    world.fakes.errors["verify_environment"] = ApplicationError("not healthy yet")
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "failed"
    assert world.store.log.count("verify_environment") == 10


@pytest.mark.parametrize("by", ["command", "web ui"])
@pytest.mark.parametrize("phase", ["approvals", "lock", "start", "gate"])
async def test_a_cancel_before_anything_shows_ends_it_canceled(world: World, phase: str, by: str) -> None:
    if phase == "approvals":
        entity = await exceptional(world)
        await world.start(entity)
        await world.until(lambda: deployment_shown(world).phase is Phase.APPROVALS, "approvals")
    else:
        reached = hold(world, phase)
        entity = deployment(world)
        await world.start(entity)
        await world.until(reached.is_set, phase)
    handle = handle_of(world, entity)
    if by == "command":
        command = await world.command(CancelCommand, command_id="stop", by="bea")
        canceling = asyncio.create_task(world.send(entity, "cancel", command))
        await world.accepted(entity, 1)
    else:
        await handle.cancel()
        await world.canceled(handle)
    let_go(world)
    assert await handle.result() == "canceled"
    assert (job(world), world.fakes.lock, world.fakes.running) == (("canceled", "canceled"), None, 0)
    assert {one["state"] for one in world.store.jobs.values()} == {"canceled"}
    assert "switch_environment" not in world.store.log
    actor = world.store.audit[-1]["actor_user_id"]
    if by == "command":
        assert (await canceling, actor) == ({}, world.id("bea"))
        # Waiting for the result let time skip, maybe past the first one's deadline.
        repeat = command.model_copy(update={"not_after": await world.not_after()})
        assert await world.send(entity, "cancel", repeat) == {}, "a repeat gets the first answer"
        again = await refused(world.send(entity, "cancel", await world.command(CancelCommand)))
        assert again.type == "invalid_transition"
    else:
        assert actor is None


@pytest.mark.parametrize("by", ["command", "web ui"])
@pytest.mark.parametrize("phase", ["switch", "verify", "end"])
async def test_past_the_gate_a_cancel_is_refused_and_it_finishes(world: World, phase: str, by: str) -> None:
    reached = hold(world, phase)
    entity = deployment(world)
    await world.start(entity)
    await world.until(reached.is_set, phase)
    handle = handle_of(world, entity)
    if by == "command":
        error = await refused(world.send(entity, "cancel", await world.command(CancelCommand)))
        assert error.type == "invalid_transition"
    else:
        await handle.cancel()
        await world.canceled(handle)
    let_go(world)
    assert await handle.result() == "succeeded"
    assert (job(world), world.fakes.lock) == (("succeeded", "ok"), None)


async def test_a_workflow_that_was_lost_while_it_ran_ends_as_failed_and_frees_the_lock(world: World) -> None:
    entity = deployment(world, state=D.RUNNING, phase=Phase.SWITCH, gate_job_id=uid("gate"))
    await world.start(entity)
    assert await handle_of(world, entity).result() == "failed"
    assert (job(world), world.fakes.lock) == (("failed", "infrastructure"), None)
    assert "switch_environment" not in world.store.log


@pytest.mark.parametrize("state", [D.SUCCEEDED, D.FAILED, D.CANCELED], ids=str)
async def test_late_commands_change_nothing(world: World, state: DeploymentState) -> None:
    entity = deployment(world, state=state, approvals_required=2)
    before = deployment_shown(world)
    for update, kind in (("approve", ApproveCommand), ("cancel", CancelCommand)):
        error = await refused(world.send(entity, update, await world.command(kind)))
        assert error.type == "invalid_transition"
    assert (deployment_shown(world), world.store.writes()) == (before, [])


async def test_commands_to_a_deployment_that_is_not_there_are_not_found(world: World) -> None:
    entity = world.commands.deployment_start(world.app_id, world.id("deployment"))
    for update, kind in (("approve", ApproveCommand), ("cancel", CancelCommand)):
        assert (await refused(world.send(entity, update, await world.command(kind)))).type == "not_found"
    assert await handle_of(world, entity).result() == "gone"


async def test_the_end_is_written_again_after_its_answer_was_lost(world: World) -> None:
    world.store.lose_reply("end:", for_good=False)
    entity = deployment(world)
    await world.start(entity)
    assert await handle_of(world, entity).result() == "succeeded"
    assert len(world.store.writes("end:")) == 1
