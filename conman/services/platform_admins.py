"""Who is platform admin and whose account is disabled: one record decides, so that a platform admin always stays (`spec.md` 5).

The record `admins` of the collection `platform` keeps the platform admins who may log in (`durability.md` 3). A change of these
flags is one guarded write there: it numbers the change, and names it with its audit until the account shows it; the next change
comes after, whoever finishes this one: its request, upkeep, or the next request. That no app loses its last app_admin by a
disabling is held by `services/disabling.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from conman.config import SettingsError
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.faults import fault_point
from conman.services import disabling
from conman.services.accounts import clean_email, create_user
from conman.services.call import Call, has_happened, system_call
from conman.services.clock import now
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Database, Document
from conman.store.memberships import ADMINS, PLATFORM

LAST_ADMIN: Final = "is the last platform admin who may log in: make somebody else platform admin first."


@dataclass(frozen=True, slots=True)
class Flags:
    """What an account's flags shall be; None leaves one as it is."""

    is_platform_admin: bool | None = None
    disabled: bool | None = None


async def ensure_record(db: Database) -> Document:
    """The record; a database that was made before there was one gets it from the accounts."""
    there = await db[PLATFORM].find_one({"_id": ADMINS})
    if there is not None:
        return there
    flagged = db["users"].find({"is_platform_admin": True, "disabled": False}, {"_id": 1}).sort("_id", 1)
    made: Document = {"_id": ADMINS, "version": 0, "user_ids": [user["_id"] async for user in flagged], "change": None}
    try:
        await db[PLATFORM].insert_one(made)
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


async def change_flags(db: Database, call: Call, user_id: str, wanted: Flags, *, expected_version: int | None = None) -> Document:
    """Set an account's flags; the account. Disabling ends its sessions at once. What is so already changes nothing.

    Raises `not_found`, `stale_write`, and `conflict` for the last platform admin who may log in, who can be neither demoted nor
    disabled, and for the last app_admin of an app, who can't be disabled.
    """
    reserved: int | None = None
    try:
        while True:
            admins = await settle(db)
            user = await records.get(db, "users", user_id, what="user")
            if await has_happened(db, call, user):
                return user
            if expected_version is not None and expected_version != user["version"]:
                raise records.stale(user["version"])
            change = _change(call, admins, user, wanted)
            if change is None:
                return user
            if change["fields"].get("disabled"):
                reserved = await disabling.reserve(db, user, call.at)
            if await _record(db, admins, change, reserved):
                fault_point("admins.recorded")
                return await _finish(db, change)
    except DomainError:
        if reserved is not None:
            await disabling.give_up(db, user_id, reserved)
        raise


def _change(call: Call, admins: Document, user: Document, wanted: Flags) -> Document | None:
    """What the record will name; None when nothing changes. Raises `conflict`."""
    fields: Document = {}
    events: list[Event] = []
    if wanted.is_platform_admin is not None and wanted.is_platform_admin != user["is_platform_admin"]:
        fields["is_platform_admin"] = wanted.is_platform_admin
        before, after = {"is_platform_admin": user["is_platform_admin"]}, {"is_platform_admin": wanted.is_platform_admin}
        events.append(Event("user", user["_id"], "updated", before=before, after=after))
    if wanted.disabled is not None and wanted.disabled != user["disabled"]:
        fields["disabled"] = wanted.disabled
        before, after = {"disabled": user["disabled"]}, {"disabled": wanted.disabled}
        events.append(Event("user", user["_id"], "disabled" if wanted.disabled else "enabled", before=before, after=after))
    if not events:
        return None
    flags = {**user, **fields}
    user_ids = [one for one in admins["user_ids"] if one != user["_id"]]
    if flags["is_platform_admin"] and not flags["disabled"]:
        user_ids.append(user["_id"])
    if user["_id"] in admins["user_ids"] and not user_ids:
        raise DomainError(ErrorCode.CONFLICT, f"{user['email']} {LAST_ADMIN}")
    return {
        "number": admins["version"] + 1,
        "user_id": user["_id"],
        "fields": fields,
        "user_ids": user_ids,
        "lost_votes": disabling.lost_votes(call, user) if fields.get("disabled") else [],
        "at": call.at,
        "outgoing": call.audit(*events, app_id=None),
    }


async def _record(db: Database, admins: Document, change: Document, reserved: int | None) -> bool:
    """The one guarded write that decides; False when another was first, or the apps took the disabling back meanwhile."""
    guard: Document = {"_id": ADMINS, "version": admins["version"], "change": None}
    update: Document = {"$set": {"version": change["number"], "user_ids": change["user_ids"], "change": change}}
    if reserved is not None:
        name = disabling.under_way(change["user_id"])
        guard[f"{name}.number"] = reserved
        update["$unset"] = {name: ""}
    return (await db[PLATFORM].update_one(guard, update)).matched_count == 1


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
        update["$push"] = {"lost_votes": {"$each": change["lost_votes"]}}
    earlier = {"_id": change["user_id"], "flags_number": {"$not": {"$gte": number}}}
    user = await records.write_where(db, "users", earlier, update, outgoing=change["outgoing"])
    fault_point("admins.shown")
    await db[PLATFORM].update_one({"_id": ADMINS, "change.number": number}, {"$set": {"change": None}})
    if fields.get("disabled") is False:
        await disabling.count_again(db, change["user_id"])
    return user or await records.get(db, "users", change["user_id"], what="user")


async def ensure_platform_admin(platform: Platform) -> None:
    """Make the first platform admin from the settings, when there is none (`spec.md` 15). Raises `SettingsError`."""
    settings = platform.settings
    if (await settle(platform.db))["user_ids"] or settings.admin_email is None or settings.admin_password is None:
        return
    password = settings.admin_password.get_secret_value()
    call = system_call("first-start")
    try:
        await make_platform_admin(platform.db, call, settings.admin_email, "Platform admin", password, via="first_start")
    except DomainError as error:
        raise SettingsError(f"CONMAN_ADMIN_EMAIL, CONMAN_ADMIN_PASSWORD: {error.message}") from error


async def make_platform_admin(db: Database, call: Call, email: str, name: str, password: str, *, via: str) -> str:
    """Make a platform admin, or make an existing account one; a sentence on what was done. Raises `validation_error`."""
    email = clean_email(email)
    user = await db["users"].find_one({"email": email})
    if user is not None and user["is_platform_admin"]:
        return f"{email} is a platform admin already."
    said = f"{email} had an account and is a platform admin now."
    if user is None:
        try:
            user = await create_user(db, call, email=email, name=name, password=password, via=via)
            said = f"{email} is a platform admin now."
        except DomainError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
            return await make_platform_admin(db, call, email, name, password, via=via)  # another process was first
    # A step of its own after the account was made, whoever made it: with ids and a time of its own in the audit.
    second = Call(call.derived_id("platform-admin"), now(), call.actor, call.user)
    await change_flags(db, second, user["_id"], Flags(is_platform_admin=True))
    return said
