"""Accounts and sessions (`spec.md` 5)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from email_validator import EmailNotValidError, validate_email
from pymongo.errors import DuplicateKeyError

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.times import format_time
from conman.services.call import Call, record, system_call
from conman.services.clock import new_id
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Database, Document

_HASHER = PasswordHasher(memory_cost=19456, time_cost=2, parallelism=1)
_NOBODY = _HASHER.hash("nobody has this password")
PASSWORD_SHORTEST = 12
PASSWORD_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Session:
    """A login: the token is shown once and not kept."""

    token: str
    expires_at: str
    user: Document


def clean_email(text: str) -> str:
    """The address in the one form in which it is kept and looked up. Raises `validation_error`."""
    try:
        # Reserved domains such as .local and .test are names that operators do use inside.
        checked = validate_email(text.strip(), check_deliverability=False, test_environment=True)
        return checked.normalized.lower()
    except EmailNotValidError as error:
        if text.count("@") == 1 and text.strip().lower().endswith((".local", ".localhost", ".internal", ".example")):
            return text.strip().lower()
        raise invalid("email", str(error)) from error


def check_password(password: str, email: str) -> None:
    """The rule of `spec.md` 5. Raises `validation_error`."""
    if not PASSWORD_SHORTEST <= len(password) <= PASSWORD_LONGEST:
        raise invalid("password", f"needs {PASSWORD_SHORTEST} to {PASSWORD_LONGEST} characters")
    if password.lower() == email.lower():
        raise invalid("password", "must not be the email")


async def hash_password(password: str) -> str:
    """Argon2id, off the event loop."""
    return await asyncio.to_thread(_HASHER.hash, password)


async def password_matches(stored: str | None, password: str) -> bool:
    """Whether it is the password; takes alike with and without an account."""

    def verify() -> bool:
        try:
            return _HASHER.verify(stored or _NOBODY, password)
        except (VerificationError, InvalidHashError):
            return False

    return await asyncio.to_thread(verify) and stored is not None


def user_record(user: Document) -> dict[str, Any]:
    """A user as `api.md` 4 shows it; never a hash."""
    return record(user, "email", "name", "is_platform_admin", "disabled")


async def create_user(
    db: Database, call: Call, *, email: str, name: str, password: str, is_platform_admin: bool = False, via: str
) -> Document:
    """Make an account. Raises `validation_error`, or `conflict` when the email has one."""
    email = clean_email(email)
    check_password(password, email)
    user_id = call.derived_id("user", email)
    event = Event(
        "user",
        user_id,
        "created",
        after={"email": email, "name": name, "is_platform_admin": is_platform_admin, "via": via},
    )
    document = {
        "_id": user_id,
        "email": email,
        "name": name,
        "password_hash": await hash_password(password),
        "is_platform_admin": is_platform_admin,
        "disabled": False,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.actor.user_id,
        "version": 1,
        "outgoing": call.audit(event, app_id=None),
    }
    try:
        made, _ = await records.insert_once(db, "users", document)
    except DuplicateKeyError as error:
        raise DomainError(ErrorCode.CONFLICT, f"{email} has an account already.") from error
    return made


async def ensure_platform_admin(platform: Platform) -> Document | None:
    """Make the first platform admin from the settings, when there is none yet (`spec.md` 15)."""
    settings = platform.settings
    if settings.admin_email is None or settings.admin_password is None:
        return None
    if await platform.db["users"].find_one({"is_platform_admin": True}) is not None:
        return None
    try:
        return await create_user(
            platform.db,
            system_call("first-start"),
            email=settings.admin_email,
            name="Platform admin",
            password=settings.admin_password.get_secret_value(),
            is_platform_admin=True,
            via="first_start",
        )
    except DomainError as error:
        if error.code is ErrorCode.CONFLICT:
            return None  # another process was first
        raise


async def log_in(platform: Platform, call: Call, email: str, password: str) -> Session:
    """A session of `session_hours`. Raises `invalid_credentials`, alike for an unknown email and a wrong password."""
    try:
        user = await platform.db["users"].find_one({"email": clean_email(email)})
    except DomainError:
        user = None
    matches = await password_matches(user["password_hash"] if user else None, password)
    if user is None or not matches or user["disabled"]:
        raise DomainError(ErrorCode.INVALID_CREDENTIALS, "Email or password is wrong.")
    expires = datetime.now(UTC) + timedelta(hours=platform.settings.session_hours)
    session_id = new_id(call.at)
    claims = {"sub": user["_id"], "jti": session_id, "iat": datetime.now(UTC), "exp": expires}
    token = jwt.encode(claims, platform.secret, algorithm="HS256")
    event = Event("user", user["_id"], "logged_in", after={"expires_at": format_time(expires), "session_id": session_id})
    by = Call(call.command_id, call.at, call.actor.model_copy(update={"user_id": user["_id"]}), user)
    await records.update_part(platform.db, "users", user["_id"], set_fields={}, at=call.at, outgoing=by.audit(event, app_id=None))
    return Session(token, format_time(expires), user)


async def who(platform: Platform, token: str) -> tuple[Document, str]:
    """The user and session of a token. Raises `unauthorized`."""
    refused = DomainError(ErrorCode.UNAUTHORIZED, "Log in: the token is missing, expired or revoked.")
    try:
        claims = jwt.decode(token, platform.secret, algorithms=["HS256"], options={"require": ["exp", "sub", "jti"]})
    except jwt.InvalidTokenError as error:
        raise refused from error
    if await platform.db["revoked_sessions"].find_one({"_id": claims["jti"]}) is not None:
        raise refused
    user = await platform.db["users"].find_one({"_id": claims["sub"]})
    if user is None or user["disabled"]:
        raise refused
    return user, claims["jti"]


async def log_out(platform: Platform, call: Call, session_id: str) -> None:
    """Revoke this session; a repeat changes nothing."""
    await platform.db["revoked_sessions"].update_one({"_id": session_id}, {"$setOnInsert": {"at": call.at}}, upsert=True)
    event = Event("user", call.user_id, "logged_out", after={"session_id": session_id})
    await records.update_part(
        platform.db, "users", call.user_id, set_fields={}, at=call.at, outgoing=call.audit(event, app_id=None)
    )


async def create_platform_admin(db: Database, *, email: str, name: str, password: str) -> str:
    """Make a platform admin, or make an existing account one; a sentence on what was done."""
    call = system_call("command-line")
    there = await db["users"].find_one({"email": clean_email(email)})
    if there is None:
        made = await create_user(db, call, email=email, name=name, password=password, is_platform_admin=True, via="command_line")
        return f"{made['email']} is a platform admin now."
    if there["is_platform_admin"]:
        return f"{there['email']} is a platform admin already."
    event = Event("user", there["_id"], "updated", before={"is_platform_admin": False}, after={"is_platform_admin": True})
    await records.update_part(
        db,
        "users",
        there["_id"],
        set_fields={"is_platform_admin": True},
        at=call.at,
        outgoing=call.audit(event, app_id=None),
        expected_version=there["version"],
    )
    return f"{there['email']} had an account and is a platform admin now."
