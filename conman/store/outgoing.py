"""The one-document write: a guarded change of what a workflow owns, with everything that leaves the document.

`durability.md` 3 and 4; docs/adr/0004-one-document-per-write.md. A crash between the write and the delivery leaves entries in
`outgoing`; a repeat of the same command, or the sweep, delivers them. Their ids make a second delivery change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pymongo import ReturnDocument, UpdateOne

from conman.domain.decision import REMEMBERED_COMMANDS, Actor, Event, Remembered
from conman.domain.deployment import RollbackMode
from conman.domain.feed import Standing, told_of_write
from conman.domain.ids import derived_uuid7
from conman.domain.messages import EndDeployment
from conman.domain.outgoing import audit_entry
from conman.domain.release import Release, ReleaseState, deployed_state
from conman.domain.rollback import environments_left, rolled_back
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.store import audit, feed, locks, webhook_feed
from conman.store.database import WITH_OUTGOING, Database, Document

TERMINAL_JOB_STATES = ["succeeded", "failed", "canceled"]


@dataclass(frozen=True, slots=True)
class Written:
    """What a guarded write found: it was `saved`, was there already (`repeat`), or another command was first (`ahead`).

    `document` is whole, but of what was saved only its id and what leaves it: the writer knows the rest.
    """

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
        projection={"outgoing": 1},
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


async def deliver(db: Database, collection: str, document: Document, standing: Standing | None = None) -> int:
    """Put a document's outgoing entries where they belong, then take them off. Returns how many there were.

    `standing` is how the document stands by the write that is delivered: the app's feed tells it.
    """
    entries: list[Document] = document.get("outgoing") or []
    audited = [entry["doc"] for entry in entries if entry["kind"] == "audit"]
    told = told_of_write(audited, standing)
    if not entries:
        await feed.tell(db, told)
        return 0
    # Side by side, so that who waits for a command does not wait for its app's feed.
    await asyncio.gather(audit.append(db, audited), *([feed.tell(db, told)] if told else ()))
    fault_point("deliver.audited")
    await webhook_feed.keep_deliveries(db, audited)
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
        changed = [entry["job_id"] for entry in entries if entry["kind"] in ("job_start", "job_progress", "job_end")]
        made = [entry["doc"] for entry in entries if entry["kind"] == "job" and entry["doc"]["_id"] not in changed]
        await feed.tell_jobs(db, changed, made=made)
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
    """What the deployment's end means for its release, and for the one from which it took the environment (`spec.md` 3)."""
    release_id: str | None = entry["release_id"]
    if release_id is not None:
        await _recount(db, entry, release_id, f"deployed:{entry['deployment_id']}")
    deployment = await db["deployments"].find_one({"_id": entry["deployment_id"]}, {"owned.state": 1, "owned.rollback": 1})
    rollback = (deployment["owned"].get("rollback") if deployment is not None else None) or {}
    replaced: str | None = rollback.get("replaced_release_id")
    if replaced is not None and deployment is not None and deployment["owned"]["state"] == "succeeded":
        await _recount(db, entry, replaced, f"replaced:{entry['deployment_id']}", taken=True)


async def _recount(db: Database, entry: Document, release_id: str, command_id: str, *, taken: bool = False) -> None:
    """A release's state is computed from its deployments. `taken`: it lost an environment; with the last it is rolled back."""

    async def decide(release: Release) -> tuple[Release, Document] | None:
        if release.state is ReleaseState.ROLLED_BACK:
            return None
        app = await db["apps"].find_one({"_id": entry["app_id"]}, {"environment_ids": 1})
        environments: list[str] = app["environment_ids"] if app is not None else []
        left = await _environments_left(db, entry["app_id"], release_id)
        if taken and not any(environment in left for environment in environments):
            place = {"environment_id": entry["environment_id"], "deployment_id": entry["deployment_id"]}
            after, event = rolled_back(release_id, release, RollbackMode.REDEPLOY_PRIOR_TAG, **place)
            return after, release_entry(entry["app_id"], release_id, event, entry["at"], "rolled-back", entry["deployment_id"])
        state = deployed_state(environments, left)
        if release.state is state:
            return None
        return release.model_copy(update={"state": state}), _deployment_state_changed(entry, release_id, release.state, state)

    await change_release(db, release_id, command_id, entry["at"], decide)


async def _environments_left(db: Database, app_id: str, release_id: str) -> list[str]:
    """Where the release has succeeded, and no return to an earlier one took the environment from it since."""
    place = {"owned.environment_id": 1, "owned.fence": 1}
    succeeded = db["deployments"].find({"release_id": release_id, "owned.state": "succeeded"}, place)
    lost = {"app_id": app_id, "owned.rollback.replaced_release_id": release_id, "owned.state": "succeeded"}
    return environments_left(
        [(row["owned"]["environment_id"], row["owned"]["fence"]) async for row in succeeded],
        [(row["owned"]["environment_id"], row["owned"]["fence"]) async for row in db["deployments"].find(lost, place)],
    )


async def change_release(
    db: Database,
    release_id: str,
    command_id: str,
    at: str,
    decide: Callable[[Release], Awaitable[tuple[Release, Document] | None]],
) -> None:
    """Change a release whose own process has ended, with the audit entry of the change, under its version guard; once."""
    while True:
        document = await db["releases"].find_one({"_id": release_id})
        if document is None:
            return
        release = Release.model_validate(document["owned"])
        change = await decide(release) if release.remembered(command_id) is None else None
        if change is None:
            await deliver(db, "releases", document)
            return
        after, entry = change
        commands = [*release.commands, Remembered(id=command_id)][-REMEMBERED_COMMANDS:]
        written = await write_owned(
            db,
            "releases",
            release_id,
            owned=after.model_copy(update={"version": release.version + 1, "commands": commands}).model_dump(mode="json"),
            expected_version=release.version,
            command_id=command_id,
            outgoing=[entry],
            at=at,
        )
        if written.status != "ahead":
            if written.document is not None:
                await deliver(db, "releases", written.document)
            return


def release_entry(app_id: str, release_id: str, event: Event, at: str, *parts: str, actor: Actor | None = None) -> Document:
    """An audit event of a release as an outgoing entry; `parts` tell it from others of the same time."""
    event_id = derived_uuid7(milliseconds(at), f"releases:{release_id}", *parts)
    return audit_entry(event_id, event, app_id=app_id, actor=actor or Actor(), at=at)


def _deployment_state_changed(entry: Document, release_id: str, before: ReleaseState, after: ReleaseState) -> Document:
    event = Event(
        "release",
        release_id,
        "deployment_state_changed",
        before={"state": before.value},
        after={
            "state": after.value,
            "deployment_id": entry["deployment_id"],
            "environment_id": entry["environment_id"],
        },
    )
    return release_entry(entry["app_id"], release_id, event, entry["at"], "deployed", entry["deployment_id"])


async def sweep(db: Database, limit: int = 200) -> int:
    """Deliver what crashes left behind, at most `limit` documents a collection. Returns how many entries were delivered."""
    delivered = 0
    for collection in WITH_OUTGOING:
        async for document in db[collection].find({"outgoing.id": {"$exists": True}}).limit(limit):
            delivered += await deliver(db, collection, document)
    return delivered
