"""The environments' locks and fences: one document per app, one guarded write (`durability.md` 15)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from conman.domain.times import later
from conman.store.database import Database, Document

ORPHAN_AFTER = timedelta(minutes=1)
"""A holder without a record counts as free after this long."""

_FREE: Document = {"fence": 0, "holder": None}
"""The entry of an environment that was never deployed to."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds an environment: a deployment, `pending` or `running`, since when."""

    environment_id: str
    deployment_id: str
    state: str
    since: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome of a try: the raised fences by environment, or the holder that stood in the way."""

    fences: dict[str, int]
    holder: Holder | None = None
    concurrent: bool = False
    closed: str | None = None
    """The environment in `wanted` that is archived, or the app's id when the app is."""


async def is_free(db: Database, holder: Document, at: str) -> bool:
    """Whether a holder counts as gone: its deployment has ended, or never came to be."""
    deployment = await db["deployments"].find_one({"_id": holder["deployment_id"]}, {"owned.state": 1})
    if deployment is None:
        return later(holder["since"], ORPHAN_AFTER) < at
    return deployment["owned"]["state"] in ("succeeded", "failed", "canceled")


async def take(db: Database, app_id: str, wanted: dict[str, str], at: str) -> Taken:
    """Take the locks of all environments in `wanted` (environment id → deployment id), or none.

    A repeat by the same deployments finds its own locks and fences. `concurrent` says whether another deployment of the app
    is `running`. Nothing is taken in an app or environment that is closed.
    """
    while True:
        document = await _document(db, app_id)
        if document.get("closed"):
            return Taken({}, closed=app_id)
        entries: dict[str, Document] = document["environments"]
        changes: Document = {}
        fences: dict[str, int] = {}
        for environment_id, deployment_id in wanted.items():
            entry = entries.get(environment_id, _FREE)
            if entry.get("closed"):
                return Taken({}, closed=environment_id)
            holder = entry["holder"]
            if holder is not None and holder["deployment_id"] == deployment_id:
                fences[environment_id] = entry["fence"]
                continue
            if holder is not None and not await is_free(db, holder, at):
                return Taken({}, Holder(environment_id, holder["deployment_id"], holder["state"], holder["since"]))
            fences[environment_id] = entry["fence"] + 1
            changes[f"environments.{environment_id}"] = {
                "fence": entry["fence"] + 1,
                "holder": {"deployment_id": deployment_id, "state": "pending", "since": at},
            }
        running = any(
            entry["holder"] is not None and entry["holder"]["state"] == "running" and environment_id not in wanted
            for environment_id, entry in entries.items()
        )
        if not changes:
            return Taken(fences, concurrent=running)
        if await _won(db, document, {"$set": changes}):
            return Taken(fences, concurrent=running)


async def _document(db: Database, app_id: str) -> Document:
    while True:
        document = await db["locks"].find_one({"_id": app_id})
        if document is not None:
            return document
        with suppress(DuplicateKeyError):  # another request made it first, and the loop reads that one
            await db["locks"].insert_one({"_id": app_id, "revision": 0, "environments": {}})


async def close(db: Database, app_id: str, environment_ids: Sequence[str] | None, *, by: str, at: str) -> Holder | None:
    """Let no deployment begin in these environments any more (None: in the whole app), unless one is active there.

    One guarded write decides between this and `take`. Returns the holder that stands in the way; then nothing is closed. What
    several calls have closed stays so until each has reopened it; a repeat by the same call changes nothing. The call's id is
    kept as `undecided` until `settle` or `reopen`, so that upkeep finds what a crash left between this and the app's record.
    """
    while True:
        document = await _document(db, app_id)
        entries: dict[str, Document] = document["environments"]
        for environment_id in entries if environment_ids is None else environment_ids:
            holder = entries.get(environment_id, _FREE)["holder"]
            if holder is not None and not await is_free(db, holder, at):
                return Holder(environment_id, holder["deployment_id"], holder["state"], holder["since"])
        changes: Document = {}
        if environment_ids is None:
            changes["closed"] = _marked(document, by, at)
        for environment_id in environment_ids or ():
            entry = entries.get(environment_id, _FREE)
            changes[f"environments.{environment_id}"] = {**entry, "closed": _marked(entry, by, at)}
        changes["undecided"] = _marked(document, by, at, field="undecided")
        if await _won(db, document, {"$set": changes}):
            return None


def _marked(entry: Document, by: str, at: str, field: str = "closed") -> list[Document]:
    return [*(mark for mark in entry.get(field, []) if mark["by"] != by), {"by": by, "at": at}]


async def settle(db: Database, app_id: str, *, by: str) -> None:
    """What the call `by` has closed stays closed: the app's record says so too."""
    await db["locks"].update_one({"_id": app_id}, {"$pull": {"undecided": {"by": by}}, "$inc": {"revision": 1}})


async def reopen(db: Database, app_id: str, *, by: str) -> None:
    """Undo what the call `by` has closed."""
    while True:
        document = await _document(db, app_id)
        places = {f"environments.{key}.closed": entry.get("closed", []) for key, entry in document["environments"].items()}
        places |= {place: document.get(place, []) for place in ("closed", "undecided")}
        left = {
            place: [mark for mark in marks if mark["by"] != by]
            for place, marks in places.items()
            if any(mark["by"] == by for mark in marks)
        }
        if not left or await _won(db, document, {"$set": left}):
            return


async def _won(db: Database, document: Document, change: Document) -> bool:
    """Whether the write came before any other one since the document was read."""
    guard = {"_id": document["_id"], "revision": document["revision"]}
    return await db["locks"].find_one_and_update(guard, {**change, "$inc": {"revision": 1}}) is not None


async def mark_running(db: Database, app_id: str, environment_id: str, deployment_id: str) -> bool:
    """The holder starts; False when it no longer holds the lock."""
    field = f"environments.{environment_id}.holder"
    document = await db["locks"].find_one_and_update(
        {"_id": app_id, f"{field}.deployment_id": deployment_id},
        {"$set": {f"{field}.state": "running"}, "$inc": {"revision": 1}},
    )
    return document is not None


async def release(db: Database, app_id: str, environment_id: str, deployment_id: str) -> None:
    """Free the lock if this deployment holds it; the fence stays."""
    field = f"environments.{environment_id}.holder"
    await db["locks"].find_one_and_update(
        {"_id": app_id, f"{field}.deployment_id": deployment_id}, {"$set": {field: None}, "$inc": {"revision": 1}}
    )


async def read(db: Database, app_id: str) -> dict[str, Document]:
    """Environment id → `{fence, holder}` of an app."""
    document = await db["locks"].find_one({"_id": app_id})
    return document["environments"] if document is not None else {}


async def current_fence(db: Database, app_id: str, environment_id: str) -> int:
    """The environment's fence: a target refuses a deployment with a lower one."""
    return (await read(db, app_id)).get(environment_id, {"fence": 0})["fence"]
