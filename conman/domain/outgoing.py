"""What leaves a document with a decision: audit events, new jobs, started and ended jobs, notices (`durability.md` 3).

Ids are UUIDv7 whose time is the event's and whose other bits are a hash of entity, part, version and position, so that a second
run of the same write makes the same entries.
"""

from __future__ import annotations

from typing import Any

from conman.domain.audit import make_event
from conman.domain.decision import Actor, Decision, Event, JobEnd, JobProgress, NewJob, NewNotice
from conman.domain.ids import derived_uuid7
from conman.domain.jobs import JobState
from conman.domain.notification import Notice, notice_entry
from conman.domain.times import milliseconds


def outgoing_entries(
    decision: Decision[Any], *, app_id: str | None, entity: str, version: int, actor: Actor, at: str, workflow_id: str | None
) -> list[dict[str, Any]]:
    """The entries of one decision, in the order in which they are delivered: audit, new jobs, starts, progress, ends, notices."""
    entries: list[dict[str, Any]] = []

    def next_id() -> str:
        return derived_uuid7(milliseconds(at), entity, "owned", str(version), str(len(entries)), order=len(entries))

    for event in decision.events:
        entries.append(audit_entry(next_id(), event, app_id=app_id, actor=actor, at=at, workflow_id=workflow_id))
    for job in decision.jobs:
        entries.append({"id": next_id(), "kind": "job", "doc": job_document(job, app_id=app_id, at=at)})
    for job_id in decision.job_starts:
        entries.append({"id": next_id(), "kind": "job_start", "job_id": job_id, "doc": job_start(at)})
    for step in decision.progress:
        entries.append({"id": next_id(), "kind": "job_progress", "job_id": step.id, "doc": job_progress(step, at)})
    for end in decision.job_ends:
        entries.append({"id": next_id(), "kind": "job_end", "job_id": end.id, "doc": job_end(end, at=at)})
    for notice in decision.notices:
        entries.append(notice_entry(next_id(), notice_of(notice, app_id=app_id, actor=actor, at=at)))
    return entries


def notice_of(new: NewNotice, *, app_id: str | None, actor: Actor, at: str) -> Notice:
    """A decision's notice, with who did it, where and when."""
    return Notice(
        kind=new.kind,
        at=at,
        app_id=app_id,
        entity_type=new.entity_type,
        entity_id=new.entity_id,
        actor_user_id=actor.user_id,
        user_ids=list(new.user_ids),
        data=new.data,
    )


def audit_entry(
    entry_id: str, event: Event, *, app_id: str | None, actor: Actor, at: str, workflow_id: str | None = None
) -> dict[str, Any]:
    """One audit event as an outgoing entry. Raises `ValueError` for an action or a shape that the audit table does not know."""
    made = make_event(
        event_id=entry_id,
        occurred_at=at,
        actor_user_id=actor.user_id,
        app_id=app_id,
        entity_type=event.entity_type,
        entity_id=event.entity_id,
        action=event.action,
        before=event.before,
        after=event.after,
        git_sha=event.git_sha,
        ip=actor.ip,
        user_agent=actor.user_agent,
        request_id=actor.request_id,
        workflow_id=workflow_id,
    )
    return {"id": entry_id, "kind": "audit", "doc": made.document()}


def job_document(job: NewJob, *, app_id: str | None, at: str) -> dict[str, Any]:
    """A queued job as it is first kept (`api.md` 4)."""
    return {
        "_id": job.id,
        "app_id": app_id,
        "created_at": at,
        "updated_at": at,
        "version": 1,
        "created_by": job.created_by,
        "job_type": job.job_type.value,
        "state": JobState.QUEUED.value,
        "reason_code": None,
        "entity_type": job.entity_type,
        "entity_id": job.entity_id,
        "attempt": 0,
        "max_attempts": job.max_attempts,
        "queued_at": at,
        "started_at": None,
        "finished_at": None,
        "exit_code": None,
        "summary": None,
        "progress": None,
        "result": None,
    }


def job_start(at: str) -> dict[str, Any]:
    """The fields that change when a job starts."""
    return {"state": JobState.RUNNING.value, "started_at": at, "updated_at": at, "attempt": 1}


def job_progress(step: JobProgress, at: str) -> dict[str, Any]:
    """The fields that change when a job comes to its next step."""
    shown = {"progress": step.model_dump(mode="json", exclude={"id", "attempt"}), "updated_at": at}
    return shown if step.attempt is None else {**shown, "attempt": step.attempt}


def job_end(end: JobEnd, *, at: str) -> dict[str, Any]:
    """The fields that change when a job ends."""
    return {
        "state": end.state.value,
        "reason_code": end.reason_code.value,
        "exit_code": end.exit_code,
        "summary": end.summary,
        "result": end.result,
        "finished_at": at,
        "updated_at": at,
    }
