"""Reading the audit: what is asked for, and one page of the events that answer it (`api.md` 3 and 4).

An event's id is a UUIDv7 of the time at which it happened (`domain/audit.py` refuses another one). So a span of time is a range
of ids, and every question is answered in the order of ids, whichever fields it names.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pymongo import ASCENDING, DESCENDING

from conman.domain.audit import ACTIONS, AuditEvent
from conman.domain.errors import invalid
from conman.domain.ids import first_id_of, is_uuid
from conman.domain.times import format_time, milliseconds, parse_time
from conman.services.sealing import seals_of
from conman.store import records
from conman.store.database import Database, Document
from conman.store.records import Page

SHOWN = (*(field.name for field in fields(AuditEvent) if field.name != "id"), "seq", "hash")
"""The fields of an event that readers see (`api.md` 4)."""


FROM_THE_FIRST = "0"
"""Stands for the id before all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """What is asked for; None leaves a field open. `earliest` and `latest` are times, both ends in, as they were sent.

    `after` is the id of the last event seen: the answer goes on from there, oldest first, or begins with the first event
    (`FROM_THE_FIRST`). Without it the newest come first.
    """

    entity_type: str | None = None
    entity_id: str | None = None
    action: str | None = None
    actor_user_id: str | None = None
    earliest: str | None = None
    latest: str | None = None
    after: str | None = None


async def find_events(db: Database, app_id: str | None, wanted: AuditFilter, *, number: int, limit: int) -> Page:
    """One page of an app's events, or with None of those that belong to no app. Raises `validation_error`."""
    direction = DESCENDING if wanted.after is None else ASCENDING
    query = {"app_id": app_id, **_fields(wanted), **_ids(wanted)}
    found = await records.page(db, "audit", query, number=number, limit=limit, sort=[("_id", direction)])
    await show_seals(db, found.items)
    return found


async def show_seals(db: Database, events: list[Document]) -> None:
    """Put beside each event what its seal says: the seals are kept apart from the events."""
    seals = await seals_of(db, [event["_id"] for event in events])
    for event in events:
        seal = seals.get(event["_id"], {})
        event.update({name: seal.get(name) for name in ("seq", "hash", "previous_hash")})


def event_record(event: Document) -> dict[str, Any]:
    """An event as it is shown (`api.md` 4); `seq` and `hash` are null until it is sealed."""
    return {"id": event["_id"], **{name: event.get(name) for name in SHOWN}}


def _fields(wanted: AuditFilter) -> Document:
    """The fields that must be equal. Words that the audit table does not have are refused: they find nothing, ever."""
    if wanted.entity_type is not None and wanted.entity_type not in ACTIONS:
        raise invalid("entity_type", f"is one of {', '.join(ACTIONS)}")
    tables = [ACTIONS[wanted.entity_type]] if wanted.entity_type is not None else list(ACTIONS.values())
    if wanted.action is not None and not any(wanted.action in table for table in tables):
        known = dict.fromkeys(action for table in tables for action in table)
        raise invalid("action", f"is one of {', '.join(known)}")
    if wanted.actor_user_id is not None and not is_uuid(wanted.actor_user_id):
        raise invalid("actor_user_id", "is the id of an account")
    equal = {
        "entity_type": wanted.entity_type,
        "entity_id": wanted.entity_id,
        "action": wanted.action,
        "actor_user_id": wanted.actor_user_id,
    }
    return {name: value for name, value in equal.items() if value is not None}


def _ids(wanted: AuditFilter) -> Document:
    """The range of ids, from `after` and the span of time."""
    bounds: Document = {}
    earliest, latest = _time("from", wanted.earliest), _time("to", wanted.latest)
    if earliest is not None and latest is not None and latest < earliest:
        raise invalid("to", "is before from: give the earlier time first")
    if earliest is not None:
        bounds["$gte"] = first_id_of(max(milliseconds(earliest), 0))
    if latest is not None:
        bounds["$lt"] = first_id_of(max(milliseconds(latest) + 1, 0))
    if wanted.after is not None and wanted.after != FROM_THE_FIRST:
        if not is_uuid(wanted.after):
            raise invalid("after", "is the id of the last event seen, or 0 for the first events")
        bounds["$gt"] = wanted.after
    return {"_id": bounds} if bounds else {}


def _time(field: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return format_time(parse_time(text))
    except ValueError as error:
        raise invalid(field, str(error)) from error
