"""The members of an app and their roles (`spec.md` 2 and 5)."""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.outgoing import audit_entry
from conman.domain.roles import Role
from conman.services.accounts import clean_email
from conman.services.call import Call, record
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document


async def add_member(platform: Platform, call: Call, app: Document, *, user: Document, role: Role, via: str) -> Document:
    """Make somebody a member. Raises `conflict` when they are one already."""
    membership_id = call.derived_id("membership", user["_id"])
    event = Event(
        "membership",
        membership_id,
        "added",
        after={"user_id": user["_id"], "role": role.value, "email": user["email"], "via": via},
    )
    entry_id = call.derived_id("audit-membership", user["_id"])
    entry = audit_entry(entry_id, event, app_id=app["_id"], actor=call.actor, at=call.at)
    document = {
        "_id": membership_id,
        "app_id": app["_id"],
        "user_id": user["_id"],
        "role": role.value,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "outgoing": [entry],
    }
    try:
        made, _ = await records.insert_once(platform.db, "memberships", document)
    except DuplicateKeyError as error:
        raise DomainError(ErrorCode.CONFLICT, f"{user['email']} is a member already: change the role instead.") from error
    if role is Role.APP_ADMIN:
        await platform.db["apps"].update_one({"_id": app["_id"]}, {"$addToSet": {"admin_ids": user["_id"]}})
    return made


async def find_user(platform: Platform, *, user_id: str | None, email: str | None) -> Document:
    """The account that a request names by one of the two. Raises `validation_error`."""
    if (user_id is None) == (email is None):
        raise invalid("user_id", "give either user_id or email")
    query = {"_id": user_id} if user_id is not None else {"email": clean_email(email or "")}
    user = await platform.db["users"].find_one(query)
    if user is None:
        raise invalid("user_id" if user_id is not None else "email", "there is no such account")
    return user


def member_record(membership: Document, user: Document | None) -> dict[str, Any]:
    """A membership with who it is."""
    return record(membership, "user_id", "role", email=user["email"] if user else None, name=user["name"] if user else None)
