"""What stands in the way of a deployment, and whose yes it needs (`spec.md` 12).

One set of deciders for the request, for the plan that only tells, and for the moment at which a pending deployment starts: so a
plan can't promise what the deployment refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from conman.domain.deploy_messages import Blocker
from conman.domain.deployment import (
    EXCEPTIONAL_APPROVALS,
    Approval,
    EnvironmentView,
    Kind,
    PastDeployment,
    approvals_needed,
    environment_closed,
    environment_locked,
    not_deployable,
    passes_stage_order,
    stage_skipped,
)
from conman.domain.environment import RequiredApprovals
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.hold import Hold, app_on_hold
from conman.domain.release import ReleaseState
from conman.domain.roles import Role
from conman.domain.times import later

FURTHEST = timedelta(days=7)
"""How far ahead `not_before` may be."""

TIME = "time"
"""Who clears what ends by itself."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `together` are the environments of the same request; `start_at` is the time it is judged for."""

    release_id: str
    start_at: str
    kind: Kind = Kind.DEPLOY
    skip_stage: bool = False
    override_freeze: bool = False
    wait: bool = False
    together: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LockView:
    """Who holds the environment besides this deployment; `waits_for_drift_only`: it may be superseded."""

    holder_id: str | None = None
    waits_for_drift_only: bool = False
    others_running: bool = False
    closed: bool = False
    app_closed: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How things are where it is to go; `past` has the release's deployments, newest first."""

    release_state: ReleaseState
    environment: EnvironmentView
    environments: Sequence[EnvironmentView]
    past: Sequence[PastDeployment] = ()
    lock: LockView = field(default_factory=LockView)
    frozen_until: str | None = None
    hold: Hold | None = None
    bad_release_ids: Collection[str] = ()
    required: RequiredApprovals | None = None


@dataclass(frozen=True, slots=True)
class Hindrance:
    """One thing in the way: as a plan lists it, and as a request is refused with it."""

    error: DomainError
    who: str
    until: str | None = None

    def blocker(self) -> Blocker:
        """As `api.md` 3 shows it."""
        return Blocker(code=self.error.code.value, message=self.error.message, who=self.who, until=self.until)


def check_not_before(not_before: str | None, at: str) -> None:
    """A start is at most seven days ahead; one that has passed is now. Raises `validation_error`."""
    if not_before is not None and not_before > later(at, FURTHEST):
        raise invalid("not_before", f"is at most {FURTHEST.days} days ahead")


def hindrances(wanted: Wanted, here: Surroundings) -> list[Hindrance]:
    """All that stands in the way, in the order in which a request is refused."""
    found: list[Hindrance] = []
    manager = Role.CONFIG_MANAGER.value
    unpublished = not_deployable(here.release_state)
    if unpublished is not None:
        found.append(Hindrance(unpublished, manager))
    if here.lock.closed or here.lock.app_closed:
        found.append(Hindrance(environment_closed(app_too=here.lock.app_closed), Role.APP_ADMIN.value))
    if here.hold is not None and here.hold.stands(wanted.start_at):
        found.append(Hindrance(app_on_hold(here.hold), manager, here.hold.until))
    if wanted.release_id in here.bad_release_ids:
        found.append(Hindrance(_marked_bad(here.environment), manager))
    if not wanted.skip_stage and not in_stage_order(wanted, here):
        found.append(Hindrance(stage_skipped(here.environment, here.environments), manager))
    if here.frozen_until is not None and not wanted.override_freeze:
        found.append(Hindrance(_frozen(here.environment, here.frozen_until), TIME, here.frozen_until))
    lock = here.lock
    if lock.holder_id is not None and not wanted.wait and not lock.waits_for_drift_only:
        found.append(Hindrance(environment_locked(lock.holder_id), manager))
    return found


def in_stage_order(wanted: Wanted, here: Surroundings) -> bool:
    """Stage order, which an environment also passes when the one just before it is in the same request."""
    before = [other for other in here.environments if other.position < here.environment.position]
    if before and max(before, key=lambda other: other.position).id in wanted.together:
        return True
    promote = wanted.kind is Kind.PROMOTE
    return passes_stage_order(wanted.release_id, here.environment, here.environments, here.past, promote=promote)


def exceptional_reasons(wanted: Wanted, here: Surroundings) -> list[str]:
    """Why it is exceptional: only what it really makes use of counts, an idle `skip_stage: true` does not."""
    reasons = {
        "skip_stage": wanted.skip_stage and not in_stage_order(wanted, here),
        "multiple_environments": len(wanted.together) > 1,
        "concurrent": here.lock.others_running,
        "override_freeze": wanted.override_freeze and here.frozen_until is not None,
    }
    return [reason for reason, holds in reasons.items() if holds]


@dataclass(frozen=True, slots=True)
class Approvals:
    """Whose yes is needed: `exceptional` people of at least reviewer, `ordinary` ones of at least `role`; one may be both."""

    exceptional: int = 0
    ordinary: int = 0
    role: Role = Role.REVIEWER

    @property
    def required(self) -> int:
        """How many distinct people at least."""
        return max(self.exceptional, self.ordinary)


def approvals_asked(reasons: Sequence[str], required: RequiredApprovals | None) -> Approvals:
    """Two for what is exceptional, and what the environment asks of every deployment."""
    return Approvals(
        exceptional=approvals_needed(reasons),
        ordinary=required.count if required is not None else 0,
        role=Role(required.role) if required is not None else Role.REVIEWER,
    )


def approved(asked: Approvals, given: Sequence[Approval], roles: Mapping[str, Role | None], shown_digest: str) -> list[str]:
    """Those whose yes counts now, when they are enough; else none.

    A role is held now or the yes does not count. An ordinary approval is bound to what was shown when it was given (`digest`);
    that of an exceptional deployment is not.
    """
    exceptional: list[str] = []
    ordinary: list[str] = []
    for approval in given:
        role = roles.get(approval.user_id)
        if role is None or role < Role.REVIEWER:
            continue
        exceptional.append(approval.user_id)
        if role >= asked.role and approval.digest == shown_digest:
            ordinary.append(approval.user_id)
    enough = len(set(exceptional)) >= asked.exceptional and len(set(ordinary)) >= asked.ordinary
    return list(dict.fromkeys([*ordinary, *exceptional])) if enough else []


def _marked_bad(environment: EnvironmentView) -> DomainError:
    return DomainError(
        ErrorCode.MARKED_BAD,
        f"This release was rolled back from {environment.name}, whose health check failed: clear it there, then deploy again.",
        {"environment_id": environment.id},
    )


def _frozen(environment: EnvironmentView, until: str) -> DomainError:
    return DomainError(
        ErrorCode.ENVIRONMENT_FROZEN,
        f"{environment.name} is frozen until {until}: deploy later, set not_before, or ask with override_freeze: true "
        f"(needs {EXCEPTIONAL_APPROVALS} approvals).",
        {"until": until, "environment_id": environment.id},
    )
