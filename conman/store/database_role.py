"""What Conman's user of a production MongoDB needs, and what it should not be able to do: change the audit (`spec.md` 14).

MongoDB grants by collection and takes nothing back, so a role that may not change two collections names all the others.
docs/mongodb-roles.md, docs/adr/0037-the-audit-is-only-added-to.md
"""

from __future__ import annotations

from typing import Any

from pymongo.errors import OperationFailure

from conman.store.database import INDEXES, Database

ROLE = "conman"

APPEND_ONLY = ("audit", "audit_seals")
"""Events and their seals: added, and never changed or removed."""

WITHOUT_INDEX = (
    "audit_unsealed",
    "installations",
    "platform",
    "profile_overrides",
    "temp_env_numbers",
    "temp_orphans",
    "upgrades",
    "upkeep_marks",
    "workers",
)
"""The collections that are found by id alone, and so stand in no list of indexes."""

COLLECTIONS = tuple(sorted({index.collection for index in INDEXES} | {*WITHOUT_INDEX, *APPEND_ONLY}))

_ADDING = ("find", "insert", "createCollection", "createIndex", "listIndexes")
_CHANGING = ("update", "remove", "dropIndex")

DESTRUCTIVE = (
    "anyAction",
    "update",
    "remove",
    "dropCollection",
    "dropDatabase",
    "renameCollectionSameDB",
    "convertToCapped",
    "collMod",
)
"""Actions by which an event could be changed or lost, in the order in which they are told."""


def role_of(database: str) -> dict[str, Any]:
    """The argument of `db.createRole`."""
    privileges = [
        {
            "resource": {"db": database, "collection": collection},
            "actions": [*_ADDING, *(() if collection in APPEND_ONLY else _CHANGING)],
        }
        for collection in COLLECTIONS
    ]
    return {"role": ROLE, "privileges": privileges, "roles": []}


def may_harm(auth_info: dict[str, Any], database: str) -> list[str]:
    """By which actions the present user could change or lose events: of what `connectionStatus` says with `showPrivileges`."""
    granted: set[str] = set()
    for privilege in auth_info.get("authenticatedUserPrivileges", []):
        if any(_covers(privilege["resource"], database, collection) for collection in APPEND_ONLY):
            granted |= set(privilege["actions"])
    return [action for action in DESTRUCTIVE if action in granted]


def _covers(resource: dict[str, Any], database: str, collection: str) -> bool:
    """Whether a privilege's resource includes the collection: an empty name stands for all of them."""
    if resource.get("anyResource"):
        return True
    if "db" not in resource:
        return False
    return resource["db"] in ("", database) and resource["collection"] in ("", collection)


async def audit_protection(db: Database) -> tuple[bool, str]:
    """Whether the database itself keeps the audit from being changed, and in words what is so. Raises `PyMongoError`."""
    try:
        status = await db.command({"connectionStatus": 1, "showPrivileges": True})
    except OperationFailure:
        return False, "this database has no users: whoever reaches it may change the audit"
    info: dict[str, Any] = status["authInfo"]
    users = [user["user"] for user in info.get("authenticatedUsers", [])]
    if not users:
        return False, "no user is logged in to this database: whoever reaches it may change the audit"
    actions = may_harm(info, db.name)
    if actions:
        return False, f"{users[0]} may {', '.join(actions)} there: give it the role of `conman audit role` alone"
    return True, f"{users[0]} may only add to it"
