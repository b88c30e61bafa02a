"""The hold of an app: no new publish and no new deployment while it stands (`spec.md` 12).

It stands in the app's lock document: so one write decides between it and a deployment that takes a lock. A release records its
intent to publish and then reads it (`activities/calls.py`): one that has read before is under way, and finishes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from temporalio.service import RPCError

from conman.domain.decision import Actor, Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.hold import Hold, app_on_hold, check_hold
from conman.domain.ids import derived_uuid7
from conman.domain.outgoing import audit_entry
from conman.domain.times import format_time, milliseconds, parse_time
from conman.faults import fault_point
from conman.services import deploy_commands
from conman.services.call import Call, has_happened, keep, recall
from conman.services.clock import now
from conman.services.platform import Platform
from conman.store import locks, records
from conman.store.database import Database, Document
from conman.workflows.client import Commands

log = structlog.get_logger(__name__)

TELLING_SECONDS = 5.0
"""How long lifting a hold waits for those who are told; upkeep tells the rest."""


async def find(db: Database, app_id: str, at: str) -> Hold | None:
    """The hold that stands now; one whose time is over is taken off on the way."""
    hold = await locks.hold_of(db, app_id)
    if hold is None or hold.stands(at):
        return hold
    await _expire(db, app_id, hold)
    return None


async def refuse(db: Database, app_id: str) -> DomainError | None:
    """The refusal of a publish in an app that is on hold, None when it is not."""
    hold = await find(db, app_id, now())
    return app_on_hold(hold) if hold is not None else None


async def hold(
    platform: Platform, call: Call, app: Document, *, reason: str, until: str | None, version: int | None
) -> dict[str, Any]:
    """Hold the app, or put another hold in the place of the one that stands. A repeat with the same key finds its own.

    Raises `validation_error`, and `stale_write` when `version` is not the one of the hold that stands.
    """
    db, app_id = platform.db, app["_id"]
    end = _time(until)
    while True:
        present = await find(db, app_id, now())
        if await has_happened(db, call, await locks.document_of(db, app_id)):
            answer = await recall(db, call) or {}
            return _record(app_id, _made(call, reason, end, answer.get("version", 1)))
        check_hold(reason, end, call.at)
        if version is not None and (present is None or present.version != version):
            raise records.stale(present.version if present is not None else 0)
        made = _made(call, reason, end, present.version + 1 if present is not None else 1)
        # Kept before the write: a repeat that finds this hold in the audit finds its number too.
        await keep(db, call, {"version": made.version})
        event = Event("app", app_id, "held", before=_audited(present) if present is not None else None, after=_audited(made))
        if await _write(db, app_id, made, present, call.audit(event, app_id=app_id)):
            fault_point("hold.written")
            return _record(app_id, made)


async def lift(platform: Platform, call: Call, app: Document, *, version: int | None) -> None:
    """Lift the hold, and have what waits for it look again. A repeat with the same key finds it done.

    Raises `not_found` when no hold stands, and `stale_write`.
    """
    db, app_id = platform.db, app["_id"]
    while True:
        present = await find(db, app_id, now())
        # Read after the hold: a repeat that does not find it any more finds that it was lifted.
        if await has_happened(db, call, await locks.document_of(db, app_id)):
            return
        if present is None:
            raise DomainError(ErrorCode.NOT_FOUND, "The app is not on hold: there is nothing to lift.")
        if version is not None and present.version != version:
            raise records.stale(present.version)
        event = Event("app", app_id, "released_from_hold", before=_audited(present), after={"cause": "lifted"})
        if await _write(db, app_id, None, present, call.audit(event, app_id=app_id)):
            break
    fault_point("hold.lifted")
    try:
        async with asyncio.timeout(TELLING_SECONDS):
            await _tell(db, platform.commands, app_id, present.id)
    except (TimeoutError, RPCError) as error:
        log.warning("lifted_hold_left_to_upkeep", app_id=app_id, error=str(error))


def _time(until: str | None) -> str | None:
    if until is None:
        return None
    try:
        return format_time(parse_time(until))
    except ValueError as error:
        raise invalid("until", str(error)) from error


def _made(call: Call, reason: str, until: str | None, version: int) -> Hold:
    return Hold(id=call.derived_id("hold"), reason=reason, until=until, by=call.user_id, at=call.at, version=version)


def _audited(hold: Hold) -> dict[str, Any]:
    return {"reason": hold.reason, "until": hold.until}


async def _write(db: Database, app_id: str, after: Hold | None, before: Hold | None, outgoing: list[Document]) -> bool:
    """One write with its audit; False when the hold is another one by now.

    That one was taken off is kept as `lifted`, until those who wait for that know.
    """
    query = {"_id": app_id, "hold.id": before.id if before is not None else None}
    kept: Document = {"hold": after.model_dump(mode="json") if after is not None else None}
    if after is None and before is not None:
        kept["lifted"] = before.id
    return await records.write_where(db, "locks", query, {"$set": kept, "$inc": {"revision": 1}}, outgoing=outgoing) is not None


async def _expire(db: Database, app_id: str, hold: Hold) -> None:
    """Take off a hold whose time is over: audited once, whoever comes first."""
    event = Event("app", app_id, "released_from_hold", before=_audited(hold), after={"cause": "expired"})
    at = hold.until or hold.at
    event_id = derived_uuid7(milliseconds(at), "hold", hold.id, "expired")
    entry = audit_entry(event_id, event, app_id=app_id, actor=Actor(), at=at)
    await _write(db, app_id, None, hold, [entry])


async def _tell(db: Database, commands: Commands, app_id: str, hold_id: str) -> None:
    """Have what waits for the end of a hold look again."""
    await deploy_commands.look_again(db, commands, app_id)
    await db["locks"].update_one({"_id": app_id, "lifted": hold_id}, {"$unset": {"lifted": ""}})


async def settle_all(db: Database, commands: Commands, at: str) -> None:
    """Take off holds whose time is over, and tell those who wait for the end of one and could not be told."""
    for document in await db["locks"].find({"hold.until": {"$lte": at}}, {"_id": 1}).to_list():
        await find(db, document["_id"], at)
    for document in await db["locks"].find({"lifted": {"$exists": True}}, {"lifted": 1}).to_list():
        await _tell(db, commands, document["_id"], document["lifted"])


def hold_record(app_id: str, hold: Hold | None) -> dict[str, Any] | None:
    """The hold as it is shown; None where none stands."""
    return _record(app_id, hold) if hold is not None else None


def _record(app_id: str, hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "app_id": app_id,
        "created_at": hold.at,
        "updated_at": hold.at,
        "created_by": hold.by,
        "version": hold.version,
        "reason": hold.reason,
        "until": hold.until,
    }
