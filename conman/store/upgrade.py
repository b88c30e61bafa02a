"""What earlier versions kept otherwise, brought into its present form when a process starts.

Every step may be cut short, run again, and run beside other processes that start. Processes of the earlier version have ended
before: an upgrade replaces them all.
"""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from conman.domain.environment import EnvironmentDefinition

_Database = AsyncDatabase[dict[str, Any]]
_EVENTS_AT_ONCE = 1000
_UNAUTHORIZED = 13
_NO_SUCH_INDEX = (26, 27)
"""MongoDB's codes `Unauthorized`, `NamespaceNotFound` and `IndexNotFound`."""

RETIRED: tuple[tuple[str, str], ...] = (
    ("memberships", "app_id_user_id"),
    ("audit", "app_id"),
    ("audit", "entity_id"),
)
"""Collection and name of indexes whose rule another one holds now."""


async def bring_up_to_date(db: _Database) -> None:
    """All steps, before the indexes are made. Raises `PyMongoError`."""
    for collection, name in RETIRED:
        if name in await db[collection].index_information():
            await _drop(db, collection, name)
    await _give_memberships_their_slot(db)
    await _list_environments_in_their_app(db)
    await _have_all_events_wait_for_their_seals(db)


async def _drop(db: _Database, collection: str, name: str) -> None:
    try:
        await db[collection].drop_index(name)
    except OperationFailure as error:
        dropped_by_another_start = error.code in _NO_SUCH_INDEX
        left_to_an_administrator = error.code == _UNAUTHORIZED and collection == "audit"  # docs/mongodb-roles.md
        if not (dropped_by_another_start or left_to_an_administrator):
            raise


async def _give_memberships_their_slot(db: _Database) -> None:
    unslotted = {"member_slot": {"$exists": False}, "user_id": {"$exists": True}}
    async for member in db["memberships"].find(unslotted, {"app_id": 1, "user_id": 1}):
        await db["memberships"].update_one(
            {"_id": member["_id"], **unslotted}, {"$set": {"member_slot": f"{member['app_id']}:{member['user_id']}"}}
        )


async def _list_environments_in_their_app(db: _Database) -> None:
    """The definitions of environments stood in their own records; the list in the app's record is the truth now."""
    unlisted = {"environments": {"$exists": False}}
    async for app in db["apps"].find(unlisted, {"_id": 1}):
        rows = db["environments"].find({"app_id": app["_id"], "archived": False}).sort([("position", ASCENDING)])
        definitions = [
            EnvironmentDefinition(
                id=row["_id"],
                name=row["name"],
                runtime_profile_id=row["runtime_profile_id"],
                deploy_target=row["deploy_target"],
            )
            async for row in rows
        ]
        if definitions:  # an app whose making was cut short has none, and makes room for another one of its name
            await db["apps"].update_one(
                {"_id": app["_id"], **unlisted}, {"$set": {"environments": [one.document() for one in definitions]}}
            )


async def _have_all_events_wait_for_their_seals(db: _Database) -> None:
    """Events were not sealed. That it is done is noted, since it looks through the whole audit."""
    if await db["upgrades"].find_one({"_id": "events wait for their seals"}) is not None:
        return
    after = ""
    while True:
        page = db["audit"].find({"_id": {"$gt": after}}, {"app_id": 1}).sort([("_id", ASCENDING)]).limit(_EVENTS_AT_ONCE)
        rows = await page.to_list()
        if not rows:
            break
        waiting = [UpdateOne({"_id": row["_id"]}, {"$setOnInsert": {"app_id": row["app_id"]}}, upsert=True) for row in rows]
        await db["audit_unsealed"].bulk_write(waiting, ordered=False)
        after = rows[-1]["_id"]
    await db["upgrades"].update_one({"_id": "events wait for their seals"}, {"$set": {"done": True}}, upsert=True)
