"""Audit events: which actions exist, what each holds, and how one is made (`api.md` 4 and 5, `spec.md` 14).

Events are append-only, kept for ever and written with the change that they record. Their `before` and `after` hold
what a reader of the audit needs to see what happened: states, object ids, tags, paths, changed settings. A secret
stands there as its mask or its key, never as its value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, cast

from conman.domain import audit_table_content as content
from conman.domain import audit_table_delivery as delivery
from conman.domain.audit_schema import SHA, TIME, Entry, Record, is_json
from conman.domain.ids import time_of
from conman.domain.times import milliseconds

FIRST_ACTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "app": "created",
        "membership": "added",
        "invite": "created",
        "user": "created",
        "workspace": "created",
        "changeset": "created",
        "comment": "created",
        "release": "created",
        "deployment": "requested",
        "runtime_profile": "created",
        "temp_environment": "created",
    }
)
"""Entity type → the action of a record's beginning: what a back-fill writes for a record that has no event."""

BACKFILLED_AT: Final = "backfilled_at"
"""Field of `after` that marks such an event with the time at which it was written; the other fields are what was true then."""


def _with_backfill(entity_type: str, actions: content.Actions) -> content.Actions:
    action = FIRST_ACTIONS.get(entity_type)
    if action is None:
        return actions
    entry = actions[action]
    after = cast("Record", entry.after)
    marked = Record(after.required, {**after.optional, BACKFILLED_AT: TIME})
    return {**actions, action: replace(entry, after=marked)}


_TABLES: Final[Mapping[str, content.Actions]] = MappingProxyType(
    {
        "app": content.APP,
        "membership": content.MEMBERSHIP,
        "invite": content.INVITE,
        "user": content.USER,
        "workspace": content.WORKSPACE,
        "file": content.FILE,
        "changeset": content.CHANGESET,
        "comment": content.COMMENT,
        "queue": delivery.QUEUE,
        "release": delivery.RELEASE,
        "deployment": delivery.DEPLOYMENT,
        "environment": delivery.ENVIRONMENT,
        "runtime_profile": delivery.RUNTIME_PROFILE,
        "secrets": content.SECRETS,
        "temp_environment": delivery.TEMP_ENVIRONMENT,
        "job": delivery.JOB,
        "notification_preference": content.NOTIFICATION_PREFERENCE,
        "audit": content.AUDIT,
    }
)

ACTIONS: Final[Mapping[str, content.Actions]] = MappingProxyType(
    {entity_type: _with_backfill(entity_type, actions) for entity_type, actions in _TABLES.items()}
)
"""Entity type → action → what `before` and `after` hold: the table of `api.md` 5."""

WITHOUT_APP: Final = frozenset({"invite", "user", "secrets", "notification_preference", "audit"})
"""The entity types whose events may lack an app; of all others `app_id` is required."""


@dataclass(frozen=True, kw_only=True)
class AuditContext:
    """Where a command came from; each part is null where there is none (`api.md` 4)."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    workflow_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One event (`api.md` 4) as it is written; `seq` and `hash` are set when it is sealed.

    `actor_user_id` is null for what Conman did by itself, `app_id` for what belongs to no app.
    """

    id: str
    occurred_at: str
    entity_type: str
    entity_id: str
    action: str
    actor_user_id: str | None = None
    app_id: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    git_sha: str | None = None
    context: AuditContext = field(default_factory=AuditContext)

    def document(self) -> dict[str, Any]:
        """The event as it is kept: its fields by name, the id as `_id`."""
        fields = asdict(self)
        return {"_id": fields.pop("id"), **fields}


def entry_of(entity_type: str, action: str) -> Entry:
    """What the table says of one action. Raises `ValueError` for one that it does not have."""
    actions = ACTIONS.get(entity_type)
    if actions is None:
        raise ValueError(f"audit: no entity type {entity_type!r}; known are {', '.join(ACTIONS)}")
    entry = actions.get(action)
    if entry is None:
        raise ValueError(f"audit: {entity_type} has no action {action!r}; known are {', '.join(actions)}")
    return entry


def make_event(
    *,
    event_id: str,
    occurred_at: str,
    entity_type: str,
    entity_id: str,
    action: str,
    actor_user_id: str | None = None,
    app_id: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    git_sha: str | None = None,
    ip: str | None = None,
    user_agent: str | None = None,
    request_id: str | None = None,
    workflow_id: str | None = None,
) -> AuditEvent:
    """The event of one change, checked against the table of `api.md` 5.

    `event_id` is a UUIDv7 of the event's time (`ids.derived_uuid7`, so that a second run of a step makes the same event) and
    `occurred_at` RFC 3339 text in UTC. `before` and `after` are copied: changing them later does not change the event.
    Raises `ValueError`, which is a mistake in the program, for an unknown action, a wrong shape, a missing
    `app_id`, or an id, time or Git object id that is none.
    """
    entry = entry_of(entity_type, action)
    old, new = _copy(before), _copy(after)
    problems = [
        *_envelope_problems(event_id, occurred_at, entity_type, entity_id, app_id, git_sha),
        *entry.problems(old, new),
    ]
    if problems:
        raise ValueError(f"audit: {entity_type}.{action}: {'; '.join(problems)}")
    return AuditEvent(
        id=event_id,
        occurred_at=occurred_at,
        entity_type=entity_type,
        entity_id=entity_id,
        action=action,
        actor_user_id=actor_user_id,
        app_id=app_id,
        before=old,
        after=new,
        git_sha=git_sha,
        context=AuditContext(ip=ip, user_agent=user_agent, request_id=request_id, workflow_id=workflow_id),
    )


def _envelope_problems(
    event_id: str,
    occurred_at: str,
    entity_type: str,
    entity_id: str,
    app_id: str | None,
    git_sha: str | None,
) -> list[str]:
    problems: list[str] = []
    problems.extend(_id_problems(event_id, occurred_at))
    if not entity_id:
        problems.append("entity_id: is empty")
    if app_id is None and entity_type not in WITHOUT_APP:
        problems.append("app_id: is missing")
    if git_sha is not None:
        problems.extend(SHA.problems(git_sha, "git_sha"))
    return problems


def _id_problems(event_id: str, occurred_at: str) -> list[str]:
    """An id carries the event's time, so that a span of time is a range of ids."""
    problems = list(TIME.problems(occurred_at, "occurred_at"))
    if problems:
        return problems
    try:
        at = time_of(event_id)
    except ValueError:
        return ["event_id: needs a UUIDv7"]
    return [] if at == milliseconds(occurred_at) else ["event_id: is of another time than occurred_at"]


def _copy(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else cast("dict[str, Any]", _plain(value))


def _plain(value: object) -> object:
    """A deep copy in plain JSON types: enum members become their values, sequences lists."""
    if isinstance(value, Enum):
        return cast("object", value.value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in cast("Sequence[object]", value)]
    if not is_json(value):
        raise ValueError(f"audit: {type(value).__name__} is not a JSON value")
    return value
