"""What the members of an app are told live: its feed (`api.md` 3, `GET A/events`; docs/adr/0034-a-feed-beside-the-records.md).

An event says that a record has changed, and no more of it than every member may read: of an audit event only
the words below, which no secret can be among. Who is told reads the record. Its id is made of what it is about, so that a second
telling is known as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from conman.domain.jobs import JobState


class FeedType(StrEnum):
    """What an event is about."""

    CHANGESET = "changeset"
    QUEUE = "queue"
    RELEASE = "release"
    DEPLOYMENT = "deployment"
    JOB = "job"
    TEMP_ENV = "temp_env"
    ENVIRONMENT = "environment"
    APP = "app"


_AUDITED: Final = {kind.value: kind for kind in FeedType if kind not in (FeedType.JOB, FeedType.TEMP_ENV)} | {
    "temp_environment": FeedType.TEMP_ENV
}
"""The audit's entity types that are told. A job tells of itself: the audit has only what people asked of it."""

_WORDS: Final = ("state", "status", "phase", "environment_id", "release_id", "job_id", "revision_number", "reason_code", "tag")
"""What is told of an audit event's `after`: names, numbers and states."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """Something that has happened to a record of an app; `more` is what is told beside, by the type."""

    id: str
    app_id: str
    at: str
    type: FeedType
    action: str
    entity_id: str
    actor_user_id: str | None = None
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    def document(self) -> dict[str, Any]:
        """How it is kept, its place in the feed aside."""
        told = {"at": self.at, "type": self.type.value, "action": self.action, "entity_id": self.entity_id}
        return {"event_id": self.id, "app_id": self.app_id, **told, "actor_user_id": self.actor_user_id, **self.more}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A collection whose records workflows own: what is told of how one stands. `each_write`: people see each version of it."""

    type: FeedType
    told: tuple[str, ...] = ("state",)
    each_write: bool = False


_KINDS: Final = {
    "changesets": _Kind(FeedType.CHANGESET),
    # Verdicts, and the version that a reorder has to name.
    "queues": _Kind(FeedType.QUEUE, ("epoch", "integration_sha"), each_write=True),
    "releases": _Kind(FeedType.RELEASE, ("state", "tag")),
    # Phases.
    "deployments": _Kind(FeedType.DEPLOYMENT, ("state", "phase", "environment_id", "release_id"), each_write=True),
    "temp_envs": _Kind(FeedType.TEMP_ENV),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a record stands after a write of the part that its workflow owns."""

    collection: str
    entity_id: str
    owned: Mapping[str, Any]
    at: str

    def told(self, kind: _Kind) -> dict[str, Any]:
        """What is told of it beside what the write did."""
        told = {name: self.owned[name] for name in (*kind.told, "version") if name in self.owned}
        if kind.type is FeedType.QUEUE:
            told["progress"] = {"done": self.owned["progress_done"], "total": self.owned["progress_total"]}
        return told


def told_of_write(audited: Sequence[Mapping[str, Any]], standing: Standing | None = None) -> list[FeedEvent]:
    """What is told of a write: its audit events, with how the record stands; without any about it, that it was updated."""
    events = [event for one in audited if (event := told_of_audit(one)) is not None]
    kind = _KINDS.get(standing.collection) if standing is not None else None
    if standing is None or kind is None:
        return events
    more = standing.told(kind)
    about = [event.type is kind.type and event.entity_id == standing.entity_id for event in events]
    events = [replace(one, more={**one.more, **more}) if is_about else one for one, is_about in zip(events, about, strict=True)]
    if kind.each_write and not any(about):
        event_id = f"{standing.collection}:{standing.entity_id}:{standing.owned['version']}"
        app_id = standing.owned["app_id"]
        events.append(FeedEvent(event_id, app_id, standing.at, kind.type, "updated", standing.entity_id, more=more))
    return events


def told_of_audit(audited: Mapping[str, Any]) -> FeedEvent | None:
    """What is told of an audit event; None for one that is no app's, or is about what nobody follows."""
    kind = _AUDITED.get(audited.get("entity_type", ""))
    if kind is None or audited.get("app_id") is None:
        return None
    after: Mapping[str, Any] = audited["after"] or {}
    return FeedEvent(
        id=audited["_id"],
        app_id=audited["app_id"],
        at=audited["occurred_at"],
        type=kind,
        action=audited["action"],
        entity_id=audited["entity_id"],
        actor_user_id=audited["actor_user_id"],
        more={name: after[name] for name in _WORDS if name in after},
    )


_TOLD_OF_JOBS: Final = ("state", "reason_code", "job_type", "attempt", "progress", "version")
JOB_FIELDS: Final = (*_TOLD_OF_JOBS, "updated_at", "created_by", "entity_type", "entity_id")
"""What `told_of_job` looks at beside the job's id and its app's."""


def told_of_job(job: Mapping[str, Any]) -> FeedEvent:
    """What is told of a job as its record shows it, which an earlier version may have kept with less.

    One version of it is told once.
    """
    return FeedEvent(
        id=f"jobs:{job['_id']}:{job['version']}",
        app_id=job["app_id"],
        at=job["updated_at"],
        type=FeedType.JOB,
        action=_job_action(job),
        entity_id=job["_id"],
        actor_user_id=job.get("created_by"),
        more={
            **{name: job.get(name) for name in _TOLD_OF_JOBS},
            "subject": {"type": job.get("entity_type"), "id": job.get("entity_id")},
        },
    )


def _job_action(job: Mapping[str, Any]) -> str:
    match JobState(job["state"]):
        case JobState.QUEUED:
            return "queued"
        case JobState.RUNNING:
            return "started" if job.get("progress") is None else "progressed"
        case _:
            return "ended"
