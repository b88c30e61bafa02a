"""The environments' locks and fences: one document per app, one guarded write (`durability.md` 15)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from conman.domain.times import later
from conman.store.database import Database, Document

ORPHAN_AFTER = timedelta(minutes=1)
"""A holder without a record counts as free after this long."""


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


async def _is_free(db: Database, holder: Document, at: str) -> bool:
    """Whether a holder counts as gone: its deployment has ended, or never came to be."""
    deployment = await db["deployments"].find_one({"_id": holder["deployment_id"]}, {"owned.state": 1})
    if deployment is None:
        return later(holder["since"], ORPHAN_AFTER) < at
    return deployment["owned"]["state"] in ("succeeded", "failed", "canceled")


async def take(db: Database, app_id: str, wanted: dict[str, str], at: str) -> Taken:
    """Take the locks of all environments in `wanted` (environment id → deployment id), or none.

    A repeat by the same deployments finds its own locks and fences. `concurrent` says whether another deployment of the app
    is `running`.
    """
    while True:
        document = await db["locks"].find_one({"_id": app_id})
        if document is None:
            with suppress(DuplicateKeyError):  # another request made it first, and the loop reads that one
                await db["locks"].insert_one({"_id": app_id, "revision": 0, "environments": {}})
            continue
        entries: dict[str, Document] = document["environments"]
        changes: Document = {}
        fences: dict[str, int] = {}
        for environment_id, deployment_id in wanted.items():
            entry = entries.get(environment_id, {"fence": 0, "holder": None})
            holder = entry["holder"]
            if holder is not None and holder["deployment_id"] == deployment_id:
                fences[environment_id] = entry["fence"]
                continue
            if holder is not None and not await _is_free(db, holder, at):
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
        won = await db["locks"].find_one_and_update(
            {"_id": app_id, "revision": document["revision"]}, {"$set": changes, "$inc": {"revision": 1}}
        )
        if won is not None:
            return Taken(fences, concurrent=running)


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
