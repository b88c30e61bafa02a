"""What people are told of a deployment, and when (`spec.md` 14). Who they are is the rule of each kind of notice."""

from __future__ import annotations

from typing import Any

from conman.domain.decision import NewNotice
from conman.domain.deployment import Deployment, DeploymentState, Kind
from conman.domain.notification import NoticeKind


def _notice(kind: NoticeKind, deployment_id: str, deployment: Deployment, *user_ids: str, **data: Any) -> NewNotice:
    known = {
        "environment_id": deployment.environment_id,
        "release_id": deployment.release_id,
        "kind": deployment.kind.value,
        "requested_by": deployment.requested_by,
    }
    return NewNotice(kind, "deployment", deployment_id, user_ids=user_ids, data={**known, **data})


def waits_for_approval(deployment_id: str, deployment: Deployment) -> NewNotice:
    """Those who may approve it are told that it waits for them, and again when what they had approved has changed."""
    return _notice(
        NoticeKind.DEPLOYMENT_WAITS_FOR_APPROVAL,
        deployment_id,
        deployment,
        approvals_required=deployment.approvals_required,
        approvals_expire_at=deployment.approvals_expire_at,
        role=deployment.approval_role,
    )


def would_fail(deployment_id: str, deployment: Deployment, warning: str) -> NewNotice:
    """The requester is told that the deployment would now fail at its time."""
    return _notice(
        NoticeKind.DEPLOYMENT_WARNING,
        deployment_id,
        deployment,
        *_requester(deployment),
        warning=warning,
        not_before=deployment.not_before,
    )


def blocked_by_drift(deployment_id: str, deployment: Deployment) -> NewNotice:
    """The managers are told that the environment is not what was last applied there; the report stands in the record."""
    return _notice(
        NoticeKind.DEPLOYMENT_BLOCKED_BY_DRIFT,
        deployment_id,
        deployment,
        differences=len(deployment.drift_report or []),
        waits_until=deployment.drift_waits_until,
    )


def started(deployment_id: str, deployment: Deployment) -> NewNotice:
    """The managers are told that it runs."""
    return _notice(NoticeKind.DEPLOYMENT_STARTED, deployment_id, deployment)


def ended_notices(
    deployment_id: str, deployment: Deployment, *, expired: bool, rolled_back: bool, message: str
) -> tuple[NewNotice, ...]:
    """How it ended: a success to all, a failure to the managers, and to the requester what nobody asked for."""
    more = {"message": message, "reason_code": deployment.reason_code.value if deployment.reason_code else None}
    if deployment.state is DeploymentState.SUCCEEDED:
        kind = NoticeKind.DEPLOYMENT_HEALED if deployment.kind is Kind.HEAL else NoticeKind.DEPLOYMENT_SUCCEEDED
        return (_notice(kind, deployment_id, deployment, **more),)
    if deployment.state is DeploymentState.FAILED:
        kind = NoticeKind.DEPLOYMENT_AUTO_ROLLED_BACK if rolled_back else NoticeKind.DEPLOYMENT_FAILED
        return (_notice(kind, deployment_id, deployment, *_requester(deployment), **more),)
    return (_notice(NoticeKind.DEPLOYMENT_CANCELED, deployment_id, deployment, *_requester(deployment), expired=expired, **more),)


def _requester(deployment: Deployment) -> tuple[str, ...]:
    return (deployment.requested_by,) if deployment.requested_by is not None else ()
