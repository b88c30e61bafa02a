"""Who is platform admin and whose account is disabled: one record decides, so that a platform admin always stays (`spec.md` 5).

The record `admins` of the collection `platform` keeps the platform admins who may log in (`durability.md` 3). A change of these
flags is one guarded write there: it numbers the change, and names it with its audit until the account shows it; the next change
comes after, whoever finishes this one: its request, upkeep, or the next request.
"""

from __future__ import annotations

from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from conman.config import SettingsError
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.faults import fault_point
from conman.services.accounts import clean_email, create_user
from conman.services.call import Call, has_happened, system_call
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Database, Document

COLLECTION: Final = "platform"
ADMINS: Final = "admins"
LAST_ADMIN: Final = "is the last platform admin who may log in: make somebody else platform admin first."


async def ensure_record(db: Database) -> Document:
    """The record; a database that was made before there was one gets it from the accounts."""
    there = await db[COLLECTION].find_one({"_id": ADMINS})
    if there is not None:
        return there
    flagged = db["users"].find({"is_platform_admin": True, "disabled": False}, {"_id": 1}).sort("_id", 1)
    made: Document = {"_id": ADMINS, "version": 0, "user_ids": [user["_id"] async for user in flagged], "change": None}
    try:
        await db[COLLECTION].insert_one(made)
    except DuplicateKeyError:
        return await ensure_record(db)
    return made


async def settle(db: Database) -> Document:
    """The record once no change is open: an open one is finished."""
    admins = await ensure_record(db)
    while admins["change"] is not None:
        await _finish(db, admins["change"])
        admins = await ensure_record(db)
    return admins


async def change_user(
    db: Database,
    call: Call,
    user_id: str,
    *,
    is_platform_admin: bool | None = None,
    disabled: bool | None = None,
    expected_version: int | None = None,
) -> Document:
    """Set an account's flags; the account. Disabling ends its sessions at once. What is so already changes nothing.

    Raises `not_found`, `stale_write`, and `conflict` for the last platform admin who may log in: they can be neither demoted
    nor disabled.
    """
    while True:
        admins = await settle(db)
        user = await records.get(db, "users", user_id, what="user")
        if await has_happened(db, call, user):
            return user
        if expected_version is not None and expected_version != user["version"]:
            raise records.stale(user["version"])
        fields, events = _difference(user, is_platform_admin, disabled)
        if not events:
            return user
        after = {**user, **fields}
        user_ids = [one for one in admins["user_ids"] if one != user_id]
        if after["is_platform_admin"] and not after["disabled"]:
            user_ids.append(user_id)
        if user_id in admins["user_ids"] and not user_ids:
            raise DomainError(ErrorCode.CONFLICT, f"{user['email']} {LAST_ADMIN}")
        number = admins["version"] + 1
        change = {
            "number": number,
            "user_id": user_id,
            "fields": fields,
            "at": call.at,
            "outgoing": call.audit(*events, app_id=None),
        }
        recorded = await db[COLLECTION].find_one_and_update(
            {"_id": ADMINS, "version": admins["version"], "change": None},
            {"$set": {"user_ids": user_ids, "version": number, "change": change}},
            return_document=ReturnDocument.AFTER,
        )
        if recorded is not None:
            fault_point("admins.recorded")
            return await _finish(db, change)


def _difference(user: Document, is_platform_admin: bool | None, disabled: bool | None) -> tuple[Document, list[Event]]:
    fields: Document = {}
    events: list[Event] = []
    if is_platform_admin is not None and is_platform_admin != user["is_platform_admin"]:
        fields["is_platform_admin"] = is_platform_admin
        flags = {"is_platform_admin": user["is_platform_admin"]}, {"is_platform_admin": is_platform_admin}
        events.append(Event("user", user["_id"], "updated", before=flags[0], after=flags[1]))
    if disabled is not None and disabled != user["disabled"]:
        fields["disabled"] = disabled
        action = "disabled" if disabled else "enabled"
        events.append(Event("user", user["_id"], action, before={"disabled": not disabled}, after={"disabled": disabled}))
    return fields, events


async def _finish(db: Database, change: Document) -> Document:
    """Let the account show a recorded change, then take it off the record; the account. All of it repeatable, however late."""
    number, fields = change["number"], change["fields"]
    update: dict[str, Any] = {
        "$set": {**fields, "updated_at": change["at"], "flags_number": number},
        "$inc": {"version": 1},
    }
    if fields.get("disabled"):
        update["$set"]["kept_session"] = None
        update["$inc"]["session_epoch"] = 1
    earlier = {"_id": change["user_id"], "flags_number": {"$not": {"$gte": number}}}
    user = await records.write_where(db, "users", earlier, update, outgoing=change["outgoing"])
    fault_point("admins.shown")
    await db[COLLECTION].update_one({"_id": ADMINS, "change.number": number}, {"$set": {"change": None}})
    return user or await records.get(db, "users", change["user_id"], what="user")


async def ensure_platform_admin(platform: Platform) -> None:
    """Make the first platform admin from the settings, when there is none (`spec.md` 15). Raises `SettingsError`."""
    settings = platform.settings
    if (await settle(platform.db))["user_ids"] or settings.admin_email is None or settings.admin_password is None:
        return
    password = settings.admin_password.get_secret_value()
    try:
        await make_platform_admin(
            platform.db, system_call("first-start"), settings.admin_email, "Platform admin", password, via="first_start"
        )
    except DomainError as error:
        raise SettingsError(f"CONMAN_ADMIN_EMAIL, CONMAN_ADMIN_PASSWORD: {error.message}") from error


async def make_platform_admin(db: Database, call: Call, email: str, name: str, password: str, *, via: str) -> str:
    """Make a platform admin, or make an existing account one; a sentence on what was done. Raises `validation_error`."""
    email = clean_email(email)
    user = await db["users"].find_one({"email": email})
    if user is None:
        try:
            made = await create_user(db, call, email=email, name=name, password=password, via=via)
        except DomainError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
            return await make_platform_admin(db, call, email, name, password, via=via)  # another process was first
        await change_user(db, _second(call), made["_id"], is_platform_admin=True)
        return f"{email} is a platform admin now."
    if user["is_platform_admin"]:
        return f"{email} is a platform admin already."
    await change_user(db, _second(call), user["_id"], is_platform_admin=True)
    return f"{email} had an account and is a platform admin now."


def _second(call: Call) -> Call:
    """The step after the account was made, whose audit has ids of its own."""
    return Call(call.derived_id("platform-admin"), call.at, call.actor, call.user)
