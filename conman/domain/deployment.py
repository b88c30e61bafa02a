"""Deployments: one release to one environment, under the environment's lock and fence (`spec.md` 12, `durability.md` 15)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from conman.domain.decision import Decision, Event, Model, Owned
from conman.domain.drift import DriftItem
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import ReasonCode
from conman.domain.release import DEPLOYABLE, ReleaseState
from conman.domain.times import later
from conman.domain.transitions import follow


class DeploymentState(StrEnum):
    """The states of `spec.md` 3."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Phase(StrEnum):
    """Where a deployment is, in their order."""

    LOCK = "lock"
    SCHEDULE = "schedule"
    APPROVALS = "approvals"
    DRIFT = "drift"
    GATE = "gate"
    MIGRATE = "migrate"
    SWITCH = "switch"
    VERIFY = "verify"
    DONE = "done"


class Kind(StrEnum):
    """What asked for it."""

    DEPLOY = "deploy"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HEAL = "heal"


class Move(StrEnum):
    """What moves a deployment from one state to another."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"


_S = DeploymentState
TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELED})
TRANSITIONS: dict[tuple[DeploymentState, Move], DeploymentState] = {
    (_S.PENDING, Move.START): _S.RUNNING,
    (_S.PENDING, Move.FAIL): _S.FAILED,
    (_S.PENDING, Move.CANCEL): _S.CANCELED,
    (_S.RUNNING, Move.SUCCEED): _S.SUCCEEDED,
    (_S.RUNNING, Move.FAIL): _S.FAILED,
    (_S.RUNNING, Move.CANCEL): _S.CANCELED,
}
"""The one table of legal moves; what is not in it is refused."""

EXCEPTIONAL_APPROVALS = 2
"""Approvals by distinct users that an exceptional deployment needs (`spec.md` 12)."""


def target(state: DeploymentState, move: Move) -> DeploymentState:
    """Where `move` leads from `state`. Raises `invalid_transition` naming both states."""
    return follow("deployment", TRANSITIONS, state, move)


class Approval(Model):
    """One person's yes, and to what: `digest` binds it to the files, profile revision and overrides that were shown."""

    user_id: str
    at: str
    digest: str | None = None


class RollbackMode(StrEnum):
    """How a rollback goes (`spec.md` 12)."""

    REVERT_AND_RELEASE = "revert_and_release"
    REDEPLOY_PRIOR_TAG = "redeploy_prior_tag"


class Rollback(Model):
    """What a rollback was asked for: A undoes `release_id`, B returns to it with the revision that it had applied here.

    `replaced_release_id` is what B takes the environment from, `takes_along` names the newer releases whose changes B takes from
    it too.
    """

    mode: RollbackMode
    release_id: str
    profile_revision_id: str | None = None
    replaced_release_id: str | None = None
    takes_along: list[str] = Field(default_factory=list[str])


class Revalidation(StrEnum):
    """What somebody asked for a deployment that drift blocks: to look again, or to overwrite what was touched as well."""

    LOOK = "look"
    OVERWRITE = "overwrite"


class Deployment(Owned):
    """What the workflow `deployment:{id}` owns of a deployment.

    `obstacle` is a sentence on what stands in its way beyond its phase. `reason_code` is its job's, or the code of the rule that
    canceled it. `cleared_revision_id` is the emergency edit that may go out with it, `overwrites` says that drift may be.
    """

    app_id: str
    environment_id: str
    release_id: str | None
    kind: Kind = Kind.DEPLOY
    state: DeploymentState = DeploymentState.PENDING
    phase: Phase = Phase.LOCK
    requested_by: str | None = None
    requested_at: str
    group_id: str | None = None
    after_deployment_id: str | None = None
    skip_stage: bool = False
    override_freeze: bool = False
    wait: bool = False
    not_before: str | None = None
    warning: str | None = None
    exceptional_reasons: list[str] = Field(default_factory=list[str])
    approvals: list[Approval] = Field(default_factory=list[Approval])
    approvals_required: int = 0
    approval_role: str | None = None
    approvals_expire_at: str | None = None
    shown_digest: str | None = None
    drift_report: list[DriftItem] | None = None
    drift_waits_until: str | None = None
    revalidation: Revalidation | None = None
    cleared_revision_id: str | None = None
    overwrites: bool = False
    rollback: Rollback | None = None
    profile_revision_id: str | None = None
    previous_deployment_id: str | None = None
    obstacle: str | None = None
    reason_code: ReasonCode | ErrorCode | None = None
    message: str | None = None
    job_id: str
    gate_job_id: str | None = None
    fence: int | None
    folder: str | None = None


class EnvironmentView(Model):
    """What the rules must know of an environment."""

    id: str
    name: str
    position: int
    current_release_id: str | None = None


class PastDeployment(Model):
    """What the rules must know of an earlier deployment, newest first in a list."""

    environment_id: str
    release_id: str
    state: DeploymentState


def not_deployable(state: ReleaseState) -> DomainError | None:
    """Only published releases are deployed: the refusal of any other, `invalid_transition`."""
    if state in DEPLOYABLE:
        return None
    return DomainError(
        ErrorCode.INVALID_TRANSITION,
        f"A release that is {state.value} can't be deployed; only a published one can.",
        {"from": state.value, "to": ReleaseState.DEPLOYED_PARTIAL.value},
    )


def passes_stage_order(
    release_id: str,
    environment: EnvironmentView,
    environments: Sequence[EnvironmentView],
    past: Sequence[PastDeployment],
    *,
    promote: bool,
) -> bool:
    """Stage order of `spec.md` 12: the first environment is free; any other needs that this release's last deployment in the one
    just before succeeded, or that it already succeeded in the target itself. `past` is newest first.
    """
    before = [other for other in environments if other.position < environment.position]
    if not before:
        return True
    if any(
        old.environment_id == environment.id and old.release_id == release_id and old.state is DeploymentState.SUCCEEDED
        for old in past
    ):
        return True
    stage = max(before, key=lambda other: other.position)
    last = next((old for old in past if old.environment_id == stage.id and old.release_id == release_id), None)
    return last is not None and last.state is DeploymentState.SUCCEEDED


def stage_skipped(environment: EnvironmentView, environments: Sequence[EnvironmentView]) -> DomainError:
    """The refusal of a deployment out of stage order."""
    before = max((e for e in environments if e.position < environment.position), key=lambda other: other.position)
    return DomainError(
        ErrorCode.STAGE_SKIPPED,
        f"Deploy this release to {before.name} first, or ask with skip_stage: true (needs {EXCEPTIONAL_APPROVALS} approvals).",
        {"environment_id": before.id, "environment": before.name},
    )


def environment_locked(holder: str) -> DomainError:
    """The refusal of a second deployment to an environment."""
    return DomainError(
        ErrorCode.ENVIRONMENT_LOCKED,
        "Another deployment holds this environment: wait for it, or cancel it.",
        {"deployment_id": holder},
    )


def environment_closed(*, app_too: bool) -> DomainError:
    """The refusal of a deployment to an environment, or in an app, that is archived or about to be."""
    what = "app" if app_too else "environment"
    return DomainError(ErrorCode.CONFLICT, f"The {what} is archived, or about to be: nothing can be deployed there any more.")


def approvals_needed(reasons: Sequence[str]) -> int:
    """How many people must agree to what is exceptional before it starts."""
    return EXCEPTIONAL_APPROVALS if reasons else 0


def approvals_deadline(requested_at: str, ttl_hours: int) -> str:
    """When collected approvals expire (`spec.md` 12, `approval_ttl_hours`)."""
    return later(requested_at, timedelta(hours=ttl_hours))


def deployment_event(deployment_id: str, action: str, before: Deployment, after: Deployment, **more: Any) -> Event:
    """A step of a deployment for the audit: its state before and after, where and of what (`api.md` 5)."""
    return Event(
        "deployment",
        deployment_id,
        action,
        before={"state": before.state.value},
        after={
            "state": after.state.value,
            "environment_id": after.environment_id,
            "release_id": after.release_id,
            **more,
        },
    )


def decide_approve(
    deployment_id: str, deployment: Deployment, user_id: str, at: str, digest: str | None = None
) -> Decision[Deployment]:
    """One person approves what they were shown; a repeat by the same person changes nothing unless that has changed since.

    Raises `invalid_transition` or `conflict`.
    """
    if deployment.state is not DeploymentState.PENDING:
        target(deployment.state, Move.START)
    if not deployment.approvals_required:
        raise DomainError(ErrorCode.CONFLICT, "This deployment needs no approval.")
    shown = digest or deployment.shown_digest
    if any(approval.user_id == user_id and approval.digest == shown for approval in deployment.approvals):
        return Decision(deployment)
    others = [approval for approval in deployment.approvals if approval.user_id != user_id]
    after = deployment.model_copy(update={"approvals": [*others, Approval(user_id=user_id, at=at, digest=shown)]})
    return Decision(
        after, events=(deployment_event(deployment_id, "approved", deployment, after, approvals=len(after.approvals)),)
    )


def waits_for_drift_only(deployment: Deployment) -> bool:
    """Whether it waits for nothing but its environment to be mended: a newer deployment may supersede it (`spec.md` 12)."""
    return (
        deployment.state is DeploymentState.PENDING
        and deployment.phase is Phase.DRIFT
        and deployment.drift_waits_until is not None
    )


def skips_gate(deployment: Deployment) -> bool:
    """A return to an earlier release, and a heal, run neither deploy gate nor migrations (`spec.md` 12)."""
    rollback = deployment.rollback
    return deployment.kind is Kind.HEAL or (rollback is not None and rollback.mode is RollbackMode.REDEPLOY_PRIOR_TAG)


def needs_only_the_lock(deployment: Deployment) -> bool:
    """Rollbacks and heals: no stage order, freeze, hold, approvals, or drift block (`spec.md` 12)."""
    return deployment.kind in (Kind.ROLLBACK, Kind.HEAL)


def waiting_for(deployment: Deployment) -> str | None:
    """One sentence on what this deployment waits for; None when it is at an end."""
    if deployment.state in TERMINAL:
        return None
    if deployment.state is DeploymentState.RUNNING:
        return _RUNNING[deployment.phase]
    found = _pending(deployment)
    if deployment.phase is not Phase.APPROVALS and deployment.approvals_required > len(deployment.approvals):
        return f"{found}; and {_missing(deployment)}"
    return found


_RUNNING = {
    Phase.LOCK: "the environment's lock",
    Phase.SCHEDULE: "its start time",
    Phase.APPROVALS: "approvals",
    Phase.DRIFT: "the drift check",
    Phase.GATE: "the deploy gate",
    Phase.MIGRATE: "the migrations",
    Phase.SWITCH: "the switch of the environment's files",
    Phase.VERIFY: "the health of the environment",
    Phase.DONE: "its records to be written",
}


def _pending(deployment: Deployment) -> str:
    if deployment.obstacle is not None:
        return deployment.obstacle
    match deployment.phase:
        case Phase.SCHEDULE if deployment.not_before is not None:
            return f"its start time, {deployment.not_before}"
        case Phase.APPROVALS if deployment.approvals_required > len(deployment.approvals):
            return _missing(deployment)
        case Phase.APPROVALS:
            return f"approvals of people who still may give them, until {deployment.approvals_expire_at}"
        case Phase.DRIFT if deployment.drift_waits_until is not None:
            return (
                f"the environment, which differs from what was last applied there, to be mended, or somebody to revalidate, "
                f"until {deployment.drift_waits_until}"
            )
        case phase:
            return _RUNNING[phase]


def _missing(deployment: Deployment) -> str:
    missing = deployment.approvals_required - len(deployment.approvals)
    return f"{missing} more approval{'s' if missing != 1 else ''} until {deployment.approvals_expire_at}"
