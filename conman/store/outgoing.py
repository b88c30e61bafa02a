"""The one-document write: a guarded change of what a workflow owns, with everything that leaves the document.

`durability.md` 3 and 4; docs/adr/0004-one-document-per-write.md. A crash between the write and the delivery leaves entries in
`outgoing`; a repeat of the same command, or the sweep, delivers them. Their ids make a second delivery change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pymongo import ReturnDocument, UpdateOne

from conman.domain.decision import REMEMBERED_COMMANDS, Actor, Event, Remembered
from conman.domain.ids import derived_uuid7
from conman.domain.messages import EndDeployment
from conman.domain.outgoing import audit_entry
from conman.domain.release import Release, ReleaseState, deployed_state
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.store import locks
from conman.store.database import WITH_OUTGOING, Database, Document

TERMINAL_JOB_STATES = ["succeeded", "failed", "canceled"]


@dataclass(frozen=True, slots=True)
class Written:
    """What a guarded write found: it was `saved`, was there already (`repeat`), or another command was first (`ahead`)."""

    status: Literal["saved", "repeat", "ahead", "missing"]
    document: Document | None = None


async def write_owned(
    db: Database,
    collection: str,
    entity_id: str,
    *,
    owned: Document,
    expected_version: int,
    command_id: str,
    outgoing: list[Document],
    at: str,
    mirrored: Document | None = None,
    unset: list[str] | None = None,
) -> Written:
    """Set the owned sub-document and push `outgoing`, if it is still at `expected_version` and the command is new.

    `mirrored` are top-level fields kept beside for indexes (such as `open_slot`), `unset` those that go.
    """
    change: dict[str, Any] = {"$set": {"owned": owned, "updated_at": at, **(mirrored or {})}}
    if outgoing:
        change["$push"] = {"outgoing": {"$each": outgoing}}
    if unset:
        change["$unset"] = dict.fromkeys(unset, "")
    document = await db[collection].find_one_and_update(
        {"_id": entity_id, "owned.version": expected_version, "owned.commands.id": {"$ne": command_id}},
        change,
        return_document=ReturnDocument.AFTER,
    )
    if document is not None:
        return Written("saved", document)
    document = await db[collection].find_one({"_id": entity_id})
    if document is None:
        return Written("missing")
    if any(entry["id"] == command_id for entry in document["owned"]["commands"]):
        return Written("repeat", document)
    return Written("ahead", document)


async def deliver(db: Database, collection: str, document: Document) -> int:
    """Put a document's outgoing entries where they belong, then take them off. Returns how many there were."""
    entries: list[Document] = document.get("outgoing") or []
    if not entries:
        return 0
    audit = [
        UpdateOne({"_id": entry["id"]}, {"$setOnInsert": entry["doc"]}, upsert=True)
        for entry in entries
        if entry["kind"] == "audit"
    ]
    if audit:
        await db["audit"].bulk_write(audit, ordered=False)
    fault_point("deliver.audited")
    for entry in entries:
        if entry["kind"] == "record":
            kept = entry["doc"]
            await db[entry["collection"]].update_one({"_id": kept["_id"]}, {"$setOnInsert": kept}, upsert=True)
    notices = [
        UpdateOne({"_id": entry["id"]}, {"$setOnInsert": entry["doc"]}, upsert=True)
        for entry in entries
        if entry["kind"] == "notice"
    ]
    if notices:
        await db["notifications"].bulk_write(notices, ordered=False)
    for entry in entries:
        if entry["kind"] == "deployment_ended":
            await _end_deployment(db, entry)
    jobs: list[UpdateOne] = []
    for entry in entries:
        if entry["kind"] == "job":
            jobs.append(UpdateOne({"_id": entry["doc"]["_id"]}, {"$setOnInsert": entry["doc"]}, upsert=True))
        elif entry["kind"] == "job_start":
            jobs.append(UpdateOne({"_id": entry["job_id"], "state": "queued"}, {"$set": entry["doc"], "$inc": {"version": 1}}))
        elif entry["kind"] in ("job_progress", "job_end"):
            jobs.append(
                UpdateOne(
                    {"_id": entry["job_id"], "state": {"$nin": TERMINAL_JOB_STATES}},
                    {"$set": entry["doc"], "$inc": {"version": 1}},
                )
            )
    if jobs:
        await db["jobs"].bulk_write(jobs, ordered=True)
    fault_point("deliver.put")
    await db[collection].update_one(
        {"_id": document["_id"]}, {"$pull": {"outgoing": {"id": {"$in": [entry["id"] for entry in entries]}}}}
    )
    return len(entries)


def record_to_keep(collection: str, document: Document) -> Document:
    """A record of another collection that is never changed again, as an outgoing entry of the document that it is about."""
    return {"id": document["_id"], "kind": "record", "collection": collection, "doc": document}


def deployment_ended(end: EndDeployment) -> Document:
    """What must still be shown and freed once a deployment's record says that it has ended, before its job ends."""
    entry_id = derived_uuid7(milliseconds(end.persist.at), f"deployments:{end.deployment_id}", "ended")
    named = {name: getattr(end, name) for name in ("app_id", "environment_id", "release_id", "deployment_id")}
    return {"id": entry_id, "kind": "deployment_ended", "at": end.persist.at, **named}


async def _end_deployment(db: Database, entry: Document) -> None:
    await _release_shows(db, entry)
    fault_point("end.release")
    await locks.release(db, entry["app_id"], entry["environment_id"], entry["deployment_id"], entry["at"])
    fault_point("end.unlocked")


async def _release_shows(db: Database, entry: Document) -> None:
    """A release's state is computed from its deployments (`spec.md` 3), under its version guard."""
    release_id, command_id = entry["release_id"], f"deployed:{entry['deployment_id']}"
    while True:
        document = await db["releases"].find_one({"_id": release_id})
        if document is None:
            return
        release = Release.model_validate(document["owned"])
        app = await db["apps"].find_one({"_id": entry["app_id"]}, {"environment_ids": 1})
        environments: list[str] = app["environment_ids"] if app is not None else []
        succeeded = db["deployments"].find({"release_id": release_id, "owned.state": "succeeded"})
        state = deployed_state(environments, [row["owned"]["environment_id"] async for row in succeeded])
        settled = release.state in (state, ReleaseState.ROLLED_BACK)
        if settled or release.remembered(command_id) is not None:
            await deliver(db, "releases", document)
            return
        written = await write_owned(
            db,
            "releases",
            release_id,
            owned=_moved(release, command_id, state).model_dump(mode="json"),
            expected_version=release.version,
            command_id=command_id,
            outgoing=[_deployment_state_changed(entry, release.state, state)],
            at=entry["at"],
        )
        if written.status != "ahead":
            if written.document is not None:
                await deliver(db, "releases", written.document)
            return


def _moved(release: Release, command_id: str, state: ReleaseState) -> Release:
    commands = [*release.commands, Remembered(id=command_id)][-REMEMBERED_COMMANDS:]
    return release.model_copy(update={"state": state, "version": release.version + 1, "commands": commands})


def _deployment_state_changed(entry: Document, before: ReleaseState, after: ReleaseState) -> Document:
    event = Event(
        "release",
        entry["release_id"],
        "deployment_state_changed",
        before={"state": before.value},
        after={
            "state": after.value,
            "deployment_id": entry["deployment_id"],
            "environment_id": entry["environment_id"],
        },
    )
    event_id = derived_uuid7(milliseconds(entry["at"]), f"releases:{entry['release_id']}", "deployed", entry["deployment_id"])
    return audit_entry(event_id, event, app_id=entry["app_id"], actor=Actor(), at=entry["at"])


async def sweep(db: Database, limit: int = 200) -> int:
    """Deliver what crashes left behind, at most `limit` documents a collection. Returns how many entries were delivered."""
    delivered = 0
    for collection in WITH_OUTGOING:
        async for document in db[collection].find({"outgoing.id": {"$exists": True}}).limit(limit):
            delivered += await deliver(db, collection, document)
    return delivered
