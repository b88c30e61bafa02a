"""What a deployment learns while it is pending, and each step that it takes: one pure decision each (`spec.md` 12)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from conman.domain import deploy_news as news
from conman.domain.decision import Decision, Event, JobProgress, NewJob
from conman.domain.deploy_messages import Blocker, DriftReply, LockReply, StartReply
from conman.domain.deployment import (
    EXCEPTIONAL_APPROVALS,
    Approval,
    Deployment,
    DeploymentState,
    Move,
    Phase,
    Revalidation,
    deployment_event,
    skips_gate,
    target,
)
from conman.domain.drift import DriftItem, same_report
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobType, max_attempts
from conman.domain.times import later

DRIFT_PATIENCE = timedelta(hours=24)
"""How long a deployment waits for its environment to be mended, or for somebody to revalidate (`spec.md` 12)."""

_STEPS = (Phase.GATE, Phase.MIGRATE, Phase.SWITCH, Phase.VERIFY)
_DOING = {
    Phase.GATE: "runs the deploy gate",
    Phase.MIGRATE: "runs the migrations",
    Phase.SWITCH: "puts the release in place",
    Phase.VERIFY: "looks whether the environment works",
}


def progress(deployment: Deployment, phase: Phase, message: str | None = None) -> JobProgress:
    """How far the deployment's job is, by the steps that this deployment takes."""
    steps = [step for step in _STEPS if not (skips_gate(deployment) and step in (Phase.GATE, Phase.MIGRATE))]
    return JobProgress(
        id=deployment.job_id, done=steps.index(phase), total=len(steps), message=message or _DOING.get(phase, phase.value)
    )


# -- Pending


def decide_pending_phase(deployment: Deployment, phase: Phase, obstacle: str | None = None) -> Decision[Deployment] | None:
    """Where a pending deployment is and what stands in its way; None where that is known already."""
    if (deployment.phase, deployment.obstacle) == (phase, obstacle):
        return None
    return Decision(deployment.model_copy(update={"phase": phase, "obstacle": obstacle}))


def decide_locked(deployment_id: str, deployment: Deployment, reply: LockReply, at: str) -> Decision[Deployment] | None:
    """It holds the lock now; that another deployment of the app runs meanwhile makes it exceptional, and its approvals begin.

    The requester counts as one of those (`spec.md` 12).
    """
    if reply.fence is None or deployment.fence is not None:
        return None
    after = deployment.model_copy(update={"fence": reply.fence, "obstacle": None})
    if not reply.concurrent or "concurrent" in deployment.exceptional_reasons:
        return Decision(after)
    reasons = [*deployment.exceptional_reasons, "concurrent"]
    return _needs_more(deployment_id, after, reasons, EXCEPTIONAL_APPROVALS, None, at, reply.approval_ttl_hours)


def decide_judged(deployment_id: str, deployment: Deployment, reply: StartReply, at: str) -> Decision[Deployment] | None:
    """What the deciders say now of whose yes is needed, and to what: ordinary votes for something else are void.

    An exceptional deployment keeps them, since they count for what is exceptional about it.
    """
    known = deployment.exceptional_reasons
    # Whether it is concurrent was decided when it took the lock (`spec.md` 12).
    reasons = [*known, *(one for one in reply.exceptional_reasons if one not in (*known, "concurrent"))]
    after = deployment.model_copy(update={"shown_digest": reply.shown_digest or None})
    exceptional = EXCEPTIONAL_APPROVALS if reasons else 0
    required = max(exceptional, reply.approvals_required)
    decision = Decision(after)
    if required > deployment.approvals_required or reasons != deployment.exceptional_reasons:
        decision = _needs_more(deployment_id, after, reasons, required, reply.approval_role, at, reply.approval_ttl_hours)
    elif required != deployment.approvals_required or reply.approval_role != deployment.approval_role:
        decision = Decision(after.model_copy(update={"approvals_required": required, "approval_role": reply.approval_role}))
    owned = decision.owned
    stale = [vote for vote in owned.approvals if vote.digest != owned.shown_digest]
    if stale and not owned.exceptional_reasons and owned.approvals_required:
        owned = owned.model_copy(update={"approvals": [vote for vote in owned.approvals if vote not in stale]})
        decision = Decision(owned, notices=(news.waits_for_approval(deployment_id, owned),))
    if "override_freeze" in owned.exceptional_reasons and "override_freeze" not in known:
        decision = replace(decision, events=(*decision.events, _overrides_freeze(deployment_id, deployment, owned, reply)))
    return None if owned == deployment else decision


def _overrides_freeze(deployment_id: str, before: Deployment, after: Deployment, reply: StartReply) -> Event:
    """A window that was not open for its time at the request is overridden now; one that was, is audited with the request."""
    return deployment_event(
        deployment_id,
        "freeze_overridden",
        before,
        after,
        windows=reply.freeze_windows,
        frozen_until=reply.frozen_until,
        not_before=after.not_before,
    )


def _needs_more(
    deployment_id: str, deployment: Deployment, reasons: list[str], required: int, role: str | None, at: str, ttl_hours: int
) -> Decision[Deployment]:
    """More people must agree than was known at the request; they get as long as those who knew it from the request on."""
    votes = list(deployment.approvals)
    requester = deployment.requested_by
    if reasons and requester is not None and all(vote.user_id != requester for vote in votes):
        votes.append(Approval(user_id=requester, at=at, digest=deployment.shown_digest))
    base = max(at, deployment.not_before or at)
    needed = max(required, deployment.approvals_required)
    after = deployment.model_copy(
        update={
            "exceptional_reasons": reasons,
            "approvals_required": needed,
            "approval_role": role or deployment.approval_role,
            "approvals": votes,
            "approvals_expire_at": later(base, timedelta(hours=ttl_hours)),
        }
    )
    return Decision(after, notices=(news.waits_for_approval(deployment_id, after),))


def decide_warning(deployment_id: str, deployment: Deployment, blockers: list[Blocker]) -> Decision[Deployment] | None:
    """What would now stop it at its time; the requester is told of each new warning once."""
    warning = " ".join(blocker.message for blocker in blockers) or None
    if warning == deployment.warning:
        return None
    after = deployment.model_copy(update={"warning": warning})
    notices = (news.would_fail(deployment_id, after, warning),) if warning is not None else ()
    return Decision(after, notices=notices)


# -- Drift


def drift_in_the_way(deployment: Deployment, reply: DriftReply) -> bool:
    """Whether the environment is not what was last applied there, and nobody has said that it goes on all the same."""
    if reply.problem is not None or reply.overtaken:
        return not deployment.overwrites
    emergency = reply.emergency_revision_id not in (None, deployment.cleared_revision_id)
    return emergency or (not deployment.overwrites and bool(touched(reply.report)))


def touched(report: list[DriftItem]) -> list[DriftItem]:
    """What somebody changed in the environment itself; an emergency edit is a change of the profile."""
    return [item for item in report if item.kind != "emergency_edit"]


def decide_drift(
    deployment_id: str, deployment: Deployment, reply: DriftReply, asked: Revalidation | None, at: str
) -> Decision[Deployment]:
    """What a look at the environment changes: the deployment is blocked, blocked by something else, or free to go on.

    `asked` is the revalidation that the look answers: the emergency edit that the look saw may go out, and, where that was asked
    too, the deployment overwrites what was touched. One that came during the look is answered by the next.
    """
    update: dict[str, object] = {"phase": Phase.DRIFT, "obstacle": None}
    if asked is not None:
        update["revalidation"] = None if deployment.revalidation is asked else deployment.revalidation
        update["overwrites"] = deployment.overwrites or asked is Revalidation.OVERWRITE
        update["cleared_revision_id"] = reply.emergency_revision_id or deployment.cleared_revision_id
    seen = deployment.model_copy(update=update)
    if not drift_in_the_way(seen, reply):
        after = seen.model_copy(update={"drift_report": reply.report or None, "drift_waits_until": None})
        return Decision(deployment if after == deployment else after)
    until = deployment.drift_waits_until or later(at, DRIFT_PATIENCE)
    if reply.overtaken:
        obstacle = f"a look at its environment that nothing overtakes, until {until}"
        return Decision(seen.model_copy(update={"obstacle": obstacle, "drift_waits_until": until}))
    report = reply.report
    if reply.problem is not None:
        report = deployment.drift_report or []
        seen = seen.model_copy(update={"obstacle": f"a look at its environment, until {until}: {reply.problem}"})
    known = deployment.drift_report  # None where it was overtaken so far, and nobody was told
    if deployment.drift_waits_until is not None and known is not None and same_report(known, report):
        after = seen.model_copy(update={"drift_report": deployment.drift_report})  # the one that was told, with its digests
        return Decision(deployment if after == deployment else after)
    after = seen.model_copy(update={"drift_report": report, "drift_waits_until": until})
    dumped = [item.model_dump(mode="json") for item in report]
    event = deployment_event(deployment_id, "blocked_by_drift", deployment, after, report=dumped, waits_until=until)
    return Decision(after, events=(event,), notices=(news.blocked_by_drift(deployment_id, after),))


def decide_revalidate(deployment_id: str, deployment: Deployment, *, overwrite: bool) -> Decision[Deployment]:
    """Somebody wants the environment looked at again, or what was touched there overwritten.

    Raises `invalid_transition` for what is not pending, and `conflict` for what drift does not block.
    """
    if deployment.state is not DeploymentState.PENDING:
        target(deployment.state, Move.START)
    if deployment.drift_waits_until is None:
        raise DomainError(ErrorCode.CONFLICT, "This deployment is not blocked by drift: there is nothing to revalidate.")
    asked = Revalidation.OVERWRITE if overwrite or deployment.revalidation is Revalidation.OVERWRITE else Revalidation.LOOK
    after = deployment.model_copy(update={"revalidation": asked, "obstacle": "another look at its environment"})
    event = deployment_event(deployment_id, "revalidated", deployment, after, overwrite=overwrite)
    return Decision(after, events=(event,))


# -- The release of a rollback


def decide_release_ready(deployment: Deployment, release_id: str) -> Decision[Deployment]:
    """The release that undoes another one is published: this deployment brings it. Raises `invalid_transition` or `conflict`."""
    if deployment.release_id == release_id:
        return Decision(deployment)
    if deployment.state is not DeploymentState.PENDING:
        target(deployment.state, Move.START)
    if deployment.release_id is not None:
        raise DomainError(ErrorCode.CONFLICT, "This deployment has a release already.")
    return Decision(deployment.model_copy(update={"release_id": release_id, "obstacle": None}))


# -- Running


def decide_start(
    deployment_id: str,
    deployment: Deployment,
    *,
    gate_job_id: str | None,
    profile_revision_id: str,
    previous_deployment_id: str | None = None,
) -> Decision[Deployment]:
    """`running` starts with the gate, whose job is made now (`spec.md` 3), or with the switch where there is no gate.

    What one that waited in line comes after is known only now: others have been there since its request.
    """
    phase = Phase.GATE if gate_job_id is not None else Phase.SWITCH
    previous = previous_deployment_id if deployment.wait else None
    after = deployment.model_copy(
        update={
            "state": target(deployment.state, Move.START),
            "phase": phase,
            "obstacle": None,
            "warning": None,
            "gate_job_id": gate_job_id,
            "profile_revision_id": profile_revision_id,
            "previous_deployment_id": previous or deployment.previous_deployment_id,
        }
    )
    event = deployment_event(deployment_id, "started", deployment, after, fence=after.fence or 0)
    kind = JobType.MSUITE_DEPLOY
    gate = (
        (NewJob(gate_job_id, kind, "deployment", deployment_id, max_attempts(kind), created_by=deployment.requested_by),)
        if gate_job_id is not None
        else ()
    )
    return Decision(
        after,
        events=(event,),
        jobs=gate,
        job_starts=(deployment.job_id,),
        progress=(progress(after, phase),),
        notices=(news.started(deployment_id, after),),
    )


def decide_step(deployment_id: str, deployment: Deployment, phase: Phase) -> Decision[Deployment]:
    """The next step of a running deployment, shown before its work starts; a switch over what was touched is audited with it."""
    after = deployment.model_copy(update={"phase": phase, "message": None})
    events = ()
    report = touched(deployment.drift_report or [])
    if phase is Phase.SWITCH and deployment.overwrites and report:
        dumped = [item.model_dump(mode="json") for item in report]
        events = (deployment_event(deployment_id, "drift_overwritten", deployment, after, report=dumped),)
    return Decision(after, events=events, progress=(progress(after, phase),))


def decide_putting_back(deployment: Deployment, fence: int, why: str) -> Decision[Deployment]:
    """What was there before is put back, under a fence of its own, so that no attempt at what it replaces comes after it."""
    after = deployment.model_copy(update={"phase": Phase.SWITCH, "fence": fence, "message": why})
    return Decision(after, progress=(progress(after, Phase.SWITCH, "puts back what was there before"),))
