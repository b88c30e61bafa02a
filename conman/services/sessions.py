"""Sessions: login, the token and what it is good for, logout (`spec.md` 5).

A token names the account, itself (`jti`) and the account's `session_epoch`. Raising the epoch, in the write that resets or
changes a password or disables the account, ends all its sessions at once; a change of password keeps the one that asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.times import format_time
from conman.services import failed_logins
from conman.services.accounts import at_epoch, clean_email, epoch_of
from conman.services.call import Call
from conman.services.clock import new_id
from conman.services.failed_logins import Attempt
from conman.services.passwords import password_matches
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document

_EPOCH = "epoch"


@dataclass(frozen=True, slots=True)
class Session:
    """A login: the token is shown once and not kept."""

    token: str
    expires_at: str
    user: Document


@dataclass(frozen=True, slots=True)
class Login:
    """Whose token it is, and which."""

    user: Document
    session_id: str
    expires_at: str


async def log_in(platform: Platform, call: Call, email: str, password: str) -> Session:
    """A session of `session_hours`.

    Raises `invalid_credentials` alike, and after the same work, for a wrong password, an email that nobody has or that is none,
    and an account that is disabled or has no password; `rate_limited` during the email's cool-down.
    """
    try:
        email = clean_email(email)
        user = await platform.db["users"].find_one({"email": email})
    except DomainError:
        email, user = email.strip().lower(), None
    return await open_session(platform, call, await check_credentials(platform, call, email, user, password))


async def check_credentials(platform: Platform, call: Call, email: str, user: Document | None, password: str) -> Document:
    """The account, when this is its password. The one look at a password: counted, audited, and as long whoever it is.

    Raises as `log_in`.
    """
    attempt = Attempt(email, user["_id"] if user else None)
    await failed_logins.refuse_while_cooling(platform.db, call, attempt)
    matches = await password_matches(user["password_hash"] if user else None, password)
    if user is None:
        await failed_logins.note_failure(platform.db, call, attempt, "unknown_email")
    elif user["disabled"]:
        await failed_logins.note_failure(platform.db, call, attempt, "disabled")
    elif not matches:
        await failed_logins.note_failure(platform.db, call, attempt, "wrong_password")
    else:
        await failed_logins.forget(platform.db, call, attempt)
        return user
    raise wrong_credentials()


def wrong_credentials() -> DomainError:
    """The one refusal of a login, whatever was wrong with it."""
    return DomainError(ErrorCode.INVALID_CREDENTIALS, "Email or password is wrong.")


async def open_session(platform: Platform, call: Call, user: Document) -> Session:
    """A session for somebody who has proved to be `user`, as this record has them.

    Raises `invalid_credentials` when the account was disabled, or its sessions were ended, since the record was read.
    """
    issued = datetime.now(UTC)
    expires = issued + timedelta(hours=platform.settings.session_hours)
    session_id = new_id(call.at)
    claims = {"sub": user["_id"], "jti": session_id, "iat": issued, "exp": expires, _EPOCH: epoch_of(user)}
    token = jwt.encode(claims, platform.secret, algorithm="HS256")
    event = Event("user", user["_id"], "logged_in", after={"expires_at": format_time(expires), "session_id": session_id})
    actor = call.actor.model_copy(update={"user_id": user["_id"]})
    entries = Call(call.derived_id("session"), call.at, actor, user).audit(event, app_id=None)
    there = await records.write_where(platform.db, "users", at_epoch(user), {}, outgoing=entries)
    if there is None:
        raise wrong_credentials()
    return Session(token, format_time(expires), there)


async def who(platform: Platform, token: str) -> Login:
    """Whose token it is. Raises `unauthorized` for one that is none, has expired, or whose session has ended."""
    refused = DomainError(ErrorCode.UNAUTHORIZED, "Log in: the token is missing, expired or revoked.")
    try:
        claims = jwt.decode(token, platform.secret, algorithms=["HS256"], options={"require": ["exp", "sub", "jti"]})
    except jwt.InvalidTokenError as error:
        raise refused from error
    user = await account_of(platform, claims["sub"], claims["jti"], claims.get(_EPOCH, 0))
    if user is None:
        raise refused
    return Login(user, claims["jti"], format_time(datetime.fromtimestamp(claims["exp"], UTC)))


async def account_of(platform: Platform, user_id: str, session_id: str, epoch: int) -> Document | None:
    """The account of a session that began at this epoch of it; None: the session was revoked, or ended with others of it."""
    revoked, user = await asyncio.gather(
        platform.db["revoked_sessions"].find_one({"_id": session_id}, {"_id": 1}),
        platform.db["users"].find_one({"_id": user_id}),
    )
    if revoked is not None or user is None or user["disabled"]:
        return None
    return user if epoch == epoch_of(user) or user.get("kept_session") == session_id else None


async def log_out(platform: Platform, call: Call, session_id: str, expires_at: str) -> None:
    """Revoke a session until it would have ended by itself; a repeat changes nothing."""
    event = Event("user", call.user_id, "logged_out", after={"session_id": session_id})
    revoked = {
        "_id": session_id,
        "at": call.at,
        "user_id": call.user_id,
        "expires_at": expires_at,
        "outgoing": call.audit(event, app_id=None),
    }
    await records.insert_once(platform.db, "revoked_sessions", revoked)
