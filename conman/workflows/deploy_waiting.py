"""All that a deployment waits for while it is `pending`: its release, the one before it, lock, time, approvals, drift.

Each wait follows from the record alone, so that a process that begins anew beside a pending record goes on where the old one was
(`durability.md` 2 and 20).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from temporalio import workflow
from temporalio.exceptions import ActivityError

from conman.workflows import options
from conman.workflows.deploy_process import Process, Stop, canceled, failed, in_time, superseded
from conman.workflows.entity import now

with workflow.unsafe.imports_passed_through():
    from conman.domain import deploy_moves as moves
    from conman.domain import deployment as rules
    from conman.domain.decision import Actor, Decision
    from conman.domain.deploy_messages import (
        BeginQuestion,
        BeginReply,
        DriftQuestion,
        DriftReply,
        LockQuestion,
        LockReply,
        Outcome,
        Predecessor,
        StartQuestion,
        StartReply,
    )
    from conman.domain.deployment import Deployment, DeploymentState, Phase, Revalidation
    from conman.domain.errors import ErrorCode
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import ReasonCode
    from conman.domain.messages import ProfileQuestion, ProfileReply
    from conman.domain.times import later, milliseconds

ASK_FOR_LOCK = timedelta(seconds=30)
"""What a lost word that the lock is free costs."""
LOOK_AHEAD = timedelta(hours=1)
"""How long before its time a deployment is judged once more, for a warning (`spec.md` 12)."""
LOOK_AT_HOLD = timedelta(minutes=1)
LOOK_AT_VOTES = timedelta(minutes=15)
"""How often it looks whether those who approved still may, and whether what they approved is still what would go out."""
LOOK_AT_DRIFT = timedelta(minutes=15)
"""How often it looks whether somebody has mended the environment; `revalidate` looks at once."""
LOOKS = 3
"""How often one look is tried before it counts as one that nobody could make: the death of a worker is nobody's affair."""
LOOK_AFTER_A_LOST_ONE = timedelta(minutes=1)
"""How soon it looks again where nobody could."""
LOOK_AT_RELEASE = timedelta(hours=1)
FOR_EVER = frozenset({ErrorCode.INVALID_TRANSITION.value, ErrorCode.CONFLICT.value})
"""What no time and no approval clears: a release that is not to be deployed any more, an environment that is archived."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What goes out: the release, and the profile at the revision that is pinned."""

    facts: StartReply
    profile_id: str
    profile_revision_id: str


async def until_ready(process: Process) -> Ready:
    """Wait for all that a pending deployment waits for; it is `running` then. Raises `Stop`."""
    await _release(process)
    await _predecessor(process)
    await _lock(process)
    await _schedule(process)
    while True:
        facts = await _agreed(process)
        at = now()
        profile = await _profile(process, at)
        if not await _undisturbed(process, facts):
            continue  # it has waited: what was agreed is judged again
        if await _began(process, profile, at):
            return Ready(facts, profile.profile_id, profile.profile_revision_id)


async def _show(process: Process, phase: Phase, obstacle: str | None = None) -> None:
    await process.apply(f"phase:{phase.value}", lambda deployment: moves.decide_pending_phase(deployment, phase, obstacle))


async def _release(process: Process) -> None:
    """A rollback that undoes a release waits until the new one is published."""
    while process.state.release_id is None:
        await _show(process, Phase.LOCK, "the release that undoes what is to be rolled back")
        await process.pause(
            in_time(LOOK_AT_RELEASE), "the release that undoes another", lambda: process.entity.state.release_id is not None
        )


async def _predecessor(process: Process) -> None:
    """Of several environments in one request each waits for the one before it; the first failure cancels the rest."""
    state = process.state
    if state.after_deployment_id is None:
        return
    await _show(process, Phase.LOCK, "the deployment before it in the same request")
    question = Predecessor(app_id=process.app_id, deployment_id=state.after_deployment_id)
    outcome = await process.ask("await_deployment", question, Outcome, options.await_job())
    if outcome.state is not DeploymentState.SUCCEEDED:
        where = f" to {outcome.name}" if outcome.name else ""
        raise canceled(
            f"The deployment before it in the same request{where} ended {outcome.state.value}: this one did not start."
        )


async def _lock(process: Process) -> None:
    """First come, first served: whoever is next in line when the lock is given up holds it then."""
    while process.state.fence is None:
        state = process.state
        question = LockQuestion(app_id=process.app_id, environment_id=state.environment_id, deployment_id=process.id, at=now())
        reply = await process.ask("take_lock", question, LockReply, options.persist())
        if reply.closed:
            raise canceled(rules.environment_closed(app_too=False).message, ErrorCode.CONFLICT)
        if reply.fence is not None:
            await process.apply("lock", partial(_locked, process.id, reply, now()))
            continue
        holder = f", held by deployment {reply.holder_id}" if reply.holder_id is not None else ""
        await _show(process, Phase.LOCK, f"the environment's lock{holder}")
        await process.pause(in_time(ASK_FOR_LOCK), "asks for the lock again")


async def _schedule(process: Process) -> None:
    """Wait for its time; an hour ahead, and after each publish, look whether it would now fail."""
    not_before = process.state.not_before
    if not_before is None or rules.needs_only_the_lock(process.state):
        return
    while now() < not_before:
        await _show(process, Phase.SCHEDULE)
        ahead = later(not_before, -LOOK_AHEAD)
        await process.pause(ahead if now() < ahead else not_before, "its time")
        if now() >= not_before:
            return
        found = await _judge(process, not_before)
        await process.apply("warning", partial(_warned, process.id, found))


async def _judge(process: Process, at: str) -> StartReply:
    """What the deciders say for a start at `at`, and what that changes about whose yes is needed."""
    state = process.state
    question = StartQuestion(
        app_id=process.app_id,
        environment_id=state.environment_id,
        release_id=process.release_id,
        deployment_id=process.id,
        at=at,
        approver_ids=[approval.user_id for approval in state.approvals],
    )
    found = await process.ask("judge_start", question, StartReply, options.persist())
    if not rules.needs_only_the_lock(process.state):
        seen = now()
        await process.apply("judged", lambda deployment: moves.decide_judged(process.id, deployment, found, seen))
    return found


async def _agreed(process: Process) -> StartReply:
    """Wait until enough people who may have said yes to what goes out, and no rule is against the start."""
    while True:
        votes = process.other_votes()
        found = await _judge(process, now())
        if rules.needs_only_the_lock(process.state):
            return found
        final = [blocker for blocker in found.blockers if blocker.code in FOR_EVER]
        if process.state.approvals_required and not found.eligible_approvers and not final:
            await _show(process, Phase.APPROVALS)
            # A vote that came while it was judged is looked at at once.
            await process.pause(in_time(LOOK_AT_VOTES), "approvals", votes, lacks_approvals=True)
            continue
        held = next((blocker for blocker in found.blockers if blocker.code == ErrorCode.APP_ON_HOLD.value), None)
        stops = final or [blocker for blocker in found.blockers if blocker is not held]
        if stops:
            raise canceled(stops[0].message, ErrorCode(stops[0].code))
        if held is None:
            return found
        await _show(process, Phase.SCHEDULE, f"the end of the hold. {held.message}")
        await process.pause(in_time(LOOK_AT_HOLD), "the end of the hold")


async def _profile(process: Process, at: str) -> ProfileReply:
    """The revision with which it would go out now; a profile that can't take what the release brings fails the deployment."""
    state = process.state
    pinned = state.rollback.profile_revision_id if state.rollback is not None else None
    question = ProfileQuestion(
        app_id=process.app_id,
        environment_id=state.environment_id,
        release_id=process.release_id,
        deployment_id=process.id,
        requested_by=state.requested_by,
        at=at,
        pinned_revision_id=(pinned or state.profile_revision_id) if rules.skips_gate(state) else None,
    )
    found = await process.ask("prepare_profile", question, ProfileReply, options.persist())
    if found.problem is not None:
        raise failed(found.problem, ReasonCode.RUNNER_ERROR)
    return found


async def _undisturbed(process: Process, facts: StartReply) -> bool:
    """Wait until the environment is what was last applied there, or somebody says that it goes on all the same.

    False when it had to wait: by then other things may stand in the way.
    """
    if rules.needs_only_the_lock(process.state):
        return True
    await _show(process, Phase.DRIFT)
    waited = False
    while True:
        process.check_end()
        process.check_expiry()
        asked = process.state.revalidation
        reply = await _look(process)
        await process.apply("drift", partial(_looked, process.id, reply, asked, now()))
        state = process.state
        if not moves.drift_in_the_way(state, reply):
            return not waited
        waited = True
        until = state.drift_waits_until
        if until is not None and now() >= until:
            raise canceled("Its environment was not mended within 24 hours, and nobody had it revalidated: ask again.")
        if state.revalidation is not None:
            continue
        wake = in_time(LOOK_AFTER_A_LOST_ONE if reply.overtaken or reply.problem is not None else LOOK_AT_DRIFT)
        await process.pause(
            min(wake, until) if until is not None else wake,
            "another look at the environment",
            lambda: process.entity.state.revalidation is not None,
        )


async def _look(process: Process) -> DriftReply:
    """One look at the environment; that it was lost is what it found."""
    question = DriftQuestion(
        app_id=process.app_id, environment_id=process.state.environment_id, deployment_id=process.id, at=now()
    )
    try:
        look = options.drift_check(summary="look for drift", attempts=LOOKS)
        return await process.ask("check_drift", question, DriftReply, look)
    except ActivityError as error:
        workflow.logger.warning("a look of deployment %s at its environment was lost: %s", process.id, error.cause)
        return DriftReply(checked_at=question.at, problem="the look was lost, and is made again.")


def _looked(
    deployment_id: str, reply: DriftReply, asked: Revalidation | None, at: str, deployment: Deployment
) -> Decision[Deployment]:
    return moves.decide_drift(deployment_id, deployment, reply, asked, at)


def _locked(deployment_id: str, reply: LockReply, at: str, deployment: Deployment) -> Decision[Deployment] | None:
    return moves.decide_locked(deployment_id, deployment, reply, at)


def _warned(deployment_id: str, found: StartReply, deployment: Deployment) -> Decision[Deployment] | None:
    return moves.decide_warning(deployment_id, deployment, found.blockers)


async def _began(process: Process, profile: ProfileReply, at: str) -> bool:
    """`running` starts with the gate; the lock's holder says so first (`durability.md` 15).

    From then on nobody changes the profile: what the approvals and the look at the environment were about is what goes out. False
    when what it was judged on has changed.
    """
    process.check_end()
    process.check_expiry()
    state = process.state
    gated = not rules.skips_gate(state)
    reply = await workflow.execute_activity(
        "begin_running",
        BeginQuestion(
            app_id=process.app_id,
            environment_id=state.environment_id,
            release_id=process.release_id,
            deployment_id=process.id,
            profile_revision_id=profile.profile_revision_id,
            pinned=not gated,
            requested_by=state.requested_by,
            at=at,
            starts_at=now(),
        ),
        result_type=BeginReply,
        **options.persist(),
    )
    if not reply.held:
        raise _lost(reply)
    if reply.moved:
        return False
    gate_job_id = derived_uuid7(milliseconds(now()), "deploy-gate", process.id) if gated else None
    revision_id = profile.profile_revision_id
    await process.entity.apply(
        f"start:{process.id}",
        Actor(),
        lambda deployment: moves.decide_start(
            process.id,
            deployment,
            gate_job_id=gate_job_id,
            profile_revision_id=revision_id,
            previous_deployment_id=reply.previous_deployment_id,
        ),
    )
    return True


def _lost(reply: BeginReply) -> Stop:
    """Somebody else holds the environment: a newer deployment that took it while this one waited for drift, or nobody knows."""
    if reply.holder_id is None:
        return failed("The environment's lock was lost.")
    return Stop(superseded(reply.holder_id))
