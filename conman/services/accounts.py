"""Accounts: how one is made, found and shown (`spec.md` 5)."""

from __future__ import annotations

from typing import Any

from email_validator import EmailNotValidError, validate_email
from pymongo.errors import DuplicateKeyError

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.services.call import Call, record
from conman.services.passwords import check_password, hash_password
from conman.store import records
from conman.store.database import Database, Document

_INSIDE = (".local", ".localhost", ".internal", ".example")


def clean_email(text: str) -> str:
    """The address in the one form in which it is kept and looked up. Raises `validation_error`."""
    try:
        # Reserved domains such as .local and .test are names that operators do use inside.
        checked = validate_email(text.strip(), check_deliverability=False, test_environment=True)
        return checked.normalized.lower()
    except EmailNotValidError as error:
        if text.count("@") == 1 and text.strip().lower().endswith(_INSIDE):
            return text.strip().lower()
        raise invalid("email", str(error)) from error


def user_record(user: Document) -> dict[str, Any]:
    """A user as `api.md` 4 shows it; never a hash."""
    return record(user, "email", "name", "is_platform_admin", "disabled")


def epoch_of(user: Document) -> int:
    """The `session_epoch` that a session of this account must have; an account without the field has not ended any yet."""
    return user.get("session_epoch", 0)


def at_epoch(user: Document) -> Document:
    """The query that finds the account as long as its password and its sessions are those that `user` was read with."""
    epoch: Any = user.get("session_epoch", {"$exists": False})
    return {"_id": user["_id"], "disabled": False, "session_epoch": epoch}


async def create_user(
    db: Database,
    call: Call,
    *,
    email: str,
    name: str,
    password: str | None,
    via: str,
    notices: list[Document] | None = None,
) -> Document:
    """Make an account; `notices` leave with it. Without a password nobody can log in until one was set by a mailed token.

    Raises `validation_error`, or `conflict` when the email has an account.
    """
    email = clean_email(email)
    if password is not None:
        check_password(password, email)
    user_id = call.derived_id("user", email)
    event = Event("user", user_id, "created", after={"email": email, "name": name, "is_platform_admin": False, "via": via})
    document = {
        "_id": user_id,
        "email": email,
        "name": name,
        "password_hash": None if password is None else await hash_password(password),
        "is_platform_admin": False,
        "disabled": False,
        "email_enabled": True,
        "session_epoch": 0,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.actor.user_id,
        "version": 1,
        "outgoing": [*call.audit(event, app_id=None), *(notices or [])],
    }
    try:
        made, _ = await records.insert_once(db, "users", document)
    except DuplicateKeyError as error:
        raise DomainError(ErrorCode.CONFLICT, f"{email} has an account already.") from error
    return made
