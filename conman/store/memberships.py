"""Memberships as they are now: whoever reads them first finishes the change that the app's record names (`spec.md` 5).

The app's record decides who is a member and counts as an app_admin (`conman/domain/membership.py`); a membership follows. A
change is finished by its request, by upkeep, or by the next reader, whoever comes first: so nobody is a member for a moment
longer than the record says. All that they do is repeatable, however late.
"""

from __future__ import annotations

from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from conman.domain.membership import Admins, MemberChange, promote
from conman.domain.roles import Role
from conman.faults import fault_point
from conman.store import records
from conman.store.database import Database, Document

PLATFORM = "platform"
ADMINS = "admins"
"""The record, with its collection, that decides whose account is disabled (`services/platform_admins.py`)."""


async def of_app(db: Database, app: Document, user_id: str) -> Document | None:
    """Somebody's membership in an app; None: they are no member."""
    await settle(db, app)
    return await db["memberships"].find_one({"app_id": app["_id"], "user_id": user_id})


async def of_user(db: Database, user_id: str) -> list[Document]:
    """Somebody's memberships in all apps."""
    async for app in db["apps"].find({"member_change.user_id": user_id}):
        await settle(db, app)
    return await db["memberships"].find({"user_id": user_id}).to_list()


async def role_now(db: Database, app_id: str, user_id: str) -> Role | None:
    """The role that somebody holds in an app; None: they are no member, or their account is disabled."""
    app = await records.find(db, "apps", app_id)
    user = await records.find(db, "users", user_id)
    if app is None or user is None or user["disabled"]:
        return None
    member = await of_app(db, app, user_id)
    return Role(member["role"]) if member is not None else None


def admins_of(app: Document) -> Admins:
    """The app_admins that the app's record keeps."""
    return Admins(app["admin_ids"], app.get("suspended_admins") or {})


async def disabled_by(db: Database, user_id: str) -> int | None:
    """The number of the disabling by which an account is disabled, or about to be; None: it is not."""
    # In this order: a disabling stands on the record until the account shows it.
    record = await records.find(db, PLATFORM, ADMINS) or {}
    user = await records.find(db, "users", user_id)
    under_way = (record.get("disabling") or {}).get(user_id)
    change = record.get("change") or {}
    if under_way is not None:
        return under_way["number"]
    about_to_be = change.get("user_id") == user_id and change["fields"].get("disabled") is True
    return record.get("disablings") or 0 if about_to_be or (user is not None and user["disabled"]) else None


async def write(
    db: Database, app: Document, admins: Admins, *, set_fields: Document | None = None, push: Document | None = None
) -> Document | None:
    """The one guarded write of an app's members: None when they have changed since `app` was read."""
    change: dict[str, Any] = {
        "$set": {"admin_ids": list(admins.counting), "suspended_admins": dict(admins.suspended), **(set_fields or {})},
        "$inc": {"members_version": 1},
    }
    if push:
        change["$push"] = push
    return await db["apps"].find_one_and_update(
        {"_id": app["_id"], "members_version": app.get("members_version")}, change, return_document=ReturnDocument.AFTER
    )


async def settle(db: Database, app: Document) -> Document:
    """Finish the change of members that the app's record names; the record as it is without one."""
    while app.get("member_change") is not None:
        change = MemberChange.model_validate(app["member_change"])
        await _show(db, app["_id"], change)
        fault_point("members.shown")
        admins = admins_of(app)
        if change.role is Role.APP_ADMIN:
            # Read after the change was recorded: a disabling that is not seen here sees the change, and suspends them there.
            admins = promote(admins, change.user_id, await disabled_by(db, change.user_id))
        written = await write(db, app, admins, set_fields={"member_change": None})
        app = written or await records.get(db, "apps", app["_id"], what="app")
    return app


async def settle_all(db: Database) -> int:
    """Finish what crashes cut short in all apps; returns in how many there was a change."""
    apps = await db["apps"].find({"member_change.user_id": {"$exists": True}}).to_list()
    for app in apps:
        await settle(db, app)
    return len(apps)


async def _show(db: Database, app_id: str, change: MemberChange) -> None:
    """Let the membership show a change. A membership that has ended keeps its id, so that nothing late makes it again."""
    if change.joins:
        document = {
            "_id": change.membership_id,
            "app_id": app_id,
            "user_id": change.user_id,
            "member_slot": f"{app_id}:{change.user_id}",
            "role": change.role.value if change.role is not None else None,
            "change_number": change.number,
            "created_at": change.at,
            "updated_at": change.at,
            "created_by": change.created_by,
            "version": 1,
        }
        try:
            await db["memberships"].insert_one(document)
        except DuplicateKeyError:
            if await records.find(db, "memberships", change.membership_id) is None:
                raise
        return
    update: dict[str, Any] = {"$inc": {"version": 1}}
    shown: Document = {"change_number": change.number, "updated_at": change.at}
    if change.role is not None:
        update["$set"] = {**shown, "role": change.role.value}
    else:
        former = {"app_id": app_id, "user_id": change.user_id}
        update["$set"] = {**shown, "former": former}
        update["$unset"] = {"app_id": "", "user_id": "", "member_slot": ""}
    earlier = {"_id": change.membership_id, "change_number": {"$not": {"$gte": change.number}}}
    await db["memberships"].update_one(earlier, update)
