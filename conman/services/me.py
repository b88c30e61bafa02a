"""What people do about their own account (`api.md` 3, `/me`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.services.accounts import at_epoch, epoch_of, user_record
from conman.services.call import Call, has_happened, record
from conman.services.passwords import check_password, hash_password
from conman.services.platform import Platform
from conman.services.sessions import check_credentials, wrong_credentials
from conman.store import memberships, records
from conman.store.database import Document


@dataclass(frozen=True, slots=True)
class NewPassword:
    """A password in place of the present one."""

    current: str
    new: str


async def me_record(platform: Platform, user: Document) -> dict[str, Any]:
    """The user with the apps that they belong to: role and name of each."""
    rows = await memberships.of_user(platform.db, user["_id"])
    apps = platform.db["apps"].find({"_id": {"$in": [row["app_id"] for row in rows]}}, {"name": 1})
    names = {app["_id"]: app["name"] async for app in apps}
    shown = [record(row, "role", app_name=names.get(row["app_id"])) for row in rows]
    return {**user_record(user), "memberships": shown}


async def change_me(
    platform: Platform,
    call: Call,
    session_id: str,
    *,
    name: str | None,
    password: NewPassword | None,
    expected_version: int | None,
) -> Document:
    """Change one's name, one's password, or both in one write. A new password ends all one's sessions but this one.

    Raises `validation_error`, `stale_write`, `invalid_credentials` when `current` is not the password, and `rate_limited` as a
    login does: it counts as one.
    """
    user = call.user
    if await has_happened(platform.db, call, user):
        return user
    if password is not None:
        check_password(password.new, user["email"], field="password.new")
    if expected_version is not None and expected_version != user["version"]:
        raise records.stale(user["version"])
    events: list[Event] = []
    fields: Document = {}
    if name is not None and name != user["name"]:
        events.append(Event("user", user["_id"], "updated", before={"name": user["name"]}, after={"name": name}))
        fields["name"] = name
    if password is not None:
        await check_credentials(platform, call, user["email"], user, password.current)
        events.append(Event("user", user["_id"], "password_changed", after={"sessions_revoked": True}))
        fields["password_hash"] = await hash_password(password.new)
        fields |= {"session_epoch": epoch_of(user) + 1, "kept_session": session_id}
    if not events:
        return user
    return await _write(platform, call, user, fields, events, expected_version)


async def _write(
    platform: Platform, call: Call, user: Document, fields: Document, events: list[Event], expected_version: int | None
) -> Document:
    guard = at_epoch(user) if expected_version is None else {**at_epoch(user), "version": expected_version}
    change = {"$set": {**fields, "updated_at": call.at}, "$inc": {"version": 1}}
    changed = await records.write_where(platform.db, "users", guard, change, outgoing=call.audit(*events, app_id=None))
    if changed is not None:
        return changed
    there = await records.get(platform.db, "users", user["_id"], what="user")
    if await has_happened(platform.db, call, there):  # a repeat that ran beside this one was first
        return there
    if there["disabled"] or epoch_of(there) != epoch_of(user):
        if "password_hash" in fields:
            raise wrong_credentials()
        raise DomainError(ErrorCode.UNAUTHORIZED, "Your session was ended: log in again.")
    raise records.stale(there["version"])


def preferences_record(user: Document) -> dict[str, Any]:
    """Which mails somebody gets, beside those about their account that always go."""
    return {"id": user["_id"], "email_enabled": _email_enabled(user)}


def _email_enabled(user: Document) -> bool:
    return user.get("email_enabled", True)


async def change_preferences(platform: Platform, call: Call, *, email_enabled: bool) -> Document:
    """Switch email on or off; the account. What is so already changes nothing."""
    user = call.user
    before = {"email_enabled": _email_enabled(user)}
    if before["email_enabled"] == email_enabled or await has_happened(platform.db, call, user):
        return user
    event = Event("notification_preference", user["_id"], "updated", before=before, after={"email_enabled": email_enabled})
    guard = {"_id": user["_id"], "email_enabled": user.get("email_enabled", {"$exists": False})}
    change = {"$set": {"email_enabled": email_enabled}}
    changed = await records.write_where(platform.db, "users", guard, change, outgoing=call.audit(event, app_id=None))
    return changed or await records.get(platform.db, "users", user["_id"], what="user")
