"""The record of a deployment that begins: a request, a rollback and a healing differ in their ids and in what the audit adds."""

from __future__ import annotations

from typing import Any

from conman.domain.decision import Event, NewJob
from conman.domain.deployment import Deployment
from conman.domain.jobs import JobType, max_attempts
from conman.domain.outgoing import job_document
from conman.store.database import Document


def requested(deployment_id: str, state: Deployment, **more: Any) -> Event:
    """The audit event of its beginning; `more` is what only some kinds tell."""
    after = {
        "environment_id": state.environment_id,
        "release_id": state.release_id,
        "kind": state.kind.value,
        "state": state.state.value,
        "fence": state.fence,
        "job_id": state.job_id,
        "previous_deployment_id": state.previous_deployment_id,
        **more,
    }
    return Event("deployment", deployment_id, "requested", after=after)


def new_document(deployment_id: str, state: Deployment, *, audit: list[Document], job_entry_id: str) -> Document:
    """The record, with its audit entries and its job among what leaves it."""
    at, by = state.requested_at, state.requested_by
    kind = JobType.DEPLOY_RELEASE
    job = NewJob(state.job_id, kind, "deployment", deployment_id, max_attempts(kind), created_by=by)
    return {
        "_id": deployment_id,
        "app_id": state.app_id,
        "release_id": state.release_id,
        "created_at": at,
        "updated_at": at,
        "created_by": by,
        "version": 1,
        "owned": state.model_dump(mode="json"),
        "outgoing": [*audit, {"id": job_entry_id, "kind": "job", "doc": job_document(job, app_id=state.app_id, at=at)}],
    }
