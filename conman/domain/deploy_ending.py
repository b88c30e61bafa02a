"""How a deployment ends: its state, the reason, what the environment was left with, and who is told (`spec.md` 9, 12 and 14)."""

from __future__ import annotations

from typing import Any, Literal

from conman.domain.decision import Decision, Event, JobEnd, Model
from conman.domain.deploy_news import ended_notices
from conman.domain.deployment import Deployment, DeploymentState, Kind, Move, Phase, RollbackMode, deployment_event, target
from conman.domain.errors import ErrorCode
from conman.domain.jobs import JobState, ReasonCode


class Left(Model):
    """What stands in an environment after a deployment that did not succeed, but got as far as the switch.

    `release_id` and `profile_revision_id` are what is in place there: this deployment's own, or what `restored` (a deployment's
    id) had put there, when that was put back. `marks_bad`: the release that was replaced so is bad for this environment.
    """

    release_id: str | None = None
    profile_revision_id: str | None = None
    folder: str | None = None
    health: Literal["healthy", "unhealthy", "unknown"] = "unknown"
    restored: str | None = None
    marks_bad: bool = False


class Ending(Model):
    """How a deployment ends. `code` is the deployment's own reason, where that says more than a job's reason can."""

    move: Move
    reason_code: ReasonCode
    message: str = ""
    folder: str | None = None
    approval_expired: bool = False
    code: ErrorCode | None = None
    superseded_by: str | None = None
    left: Left | None = None


_ACTIONS = {Move.SUCCEED: "succeeded", Move.FAIL: "failed", Move.CANCEL: "canceled"}


def decide_end(deployment_id: str, deployment: Deployment, ending: Ending) -> Decision[Deployment]:
    """The end, with the end of the job that the request returned: it is written after the release's record (`spec.md` 12)."""
    state = target(deployment.state, ending.move)
    reason = ending.code or ending.reason_code
    after = deployment.model_copy(
        update={
            "state": state,
            "phase": Phase.DONE if state is DeploymentState.SUCCEEDED else deployment.phase,
            "reason_code": reason,
            "message": ending.message or None,
            "folder": ending.folder,
            "obstacle": None,
            "warning": None,
            "revalidation": None,
            "drift_waits_until": None,
        }
    )

    def event(action: str, **more: Any) -> Event:
        return deployment_event(deployment_id, action, deployment, after, **more)

    events: list[Event] = []
    if ending.approval_expired:
        events.append(event("approval_expired", approvals=len(deployment.approvals)))
    if ending.superseded_by is not None:
        events.append(event("superseded", by_deployment_id=ending.superseded_by, reason_code=reason.value))
    events.append(event(_ACTIONS[ending.move], reason_code=reason.value))
    if ending.left is not None and ending.left.restored is not None:
        replaced = deployment.release_id if ending.left.marks_bad else None
        more = {"replaced_release_id": replaced} if replaced is not None else {}
        events.append(event("auto_rolled_back", reason_code=reason.value, **more))
    if state is DeploymentState.SUCCEEDED and deployment.kind is Kind.PROMOTE:
        events.append(event("promoted"))
    if state is DeploymentState.SUCCEEDED and deployment.rollback is not None:
        rollback = deployment.rollback
        undone = {"undone_release_id": rollback.release_id} if rollback.mode is RollbackMode.REVERT_AND_RELEASE else {}
        events.append(event("rolled_back", mode=rollback.mode.value, **undone))
    end = JobEnd(
        id=deployment.job_id,
        state=JobState(state.value),
        reason_code=ending.reason_code,
        summary={"message": ending.message} if ending.message else None,
        result={
            "deployment_id": deployment_id,
            "gate_job_id": deployment.gate_job_id,
            "folder": ending.folder,
        },
    )
    rolled_back = ending.left is not None and ending.left.restored is not None
    notices = ended_notices(
        deployment_id, after, expired=ending.approval_expired, rolled_back=rolled_back, message=ending.message
    )
    return Decision(after, events=tuple(events), job_ends=(*_gate_end(deployment, ending), end), notices=notices)


def _gate_end(deployment: Deployment, ending: Ending) -> tuple[JobEnd, ...]:
    """The end of the gate's job where the process was lost while the gate ran: nobody else ends it. One that has ended stays."""
    lost = deployment.state is DeploymentState.RUNNING and deployment.phase is Phase.GATE and ending.move is Move.FAIL
    if not lost or deployment.gate_job_id is None or ending.reason_code is not ReasonCode.INFRASTRUCTURE:
        return ()
    summary = {"message": "The process of its deployment was lost while it ran."}
    return (JobEnd(id=deployment.gate_job_id, state=JobState.FAILED, reason_code=ReasonCode.INFRASTRUCTURE, summary=summary),)
