"""Who may look at a temp env's files: the app's members, by a cookie of its host or by their token (`spec.md` 13).

The cookie stands for the session from which its holder opened the temp env: it ends with that, and is worth nothing once they are
no member. It is signed with a key of its own, so that neither is it a token of the API nor a token a cookie. The link that sets
it can be used once, within two minutes; only its hash is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import jwt
from pymongo.errors import DuplicateKeyError

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.roles import Capability, Role, allows
from conman.domain.temp_env import SERVED, TempEnv, TempEnvState
from conman.domain.times import later, milliseconds
from conman.domain.tokens import TokenPurpose, make_token, token_hash
from conman.services.accounts import epoch_of
from conman.services.call import Call
from conman.services.clock import now
from conman.services.platform import Platform
from conman.services.sessions import account_of
from conman.store import memberships, records
from conman.store.database import Document

LINKS: Final = "temp_env_links"
"""{_id: the token's hash, temp_env_id, user_id, session_id, session_ends, epoch, expires_at, used_at?}"""
LINK_LASTS = timedelta(minutes=2)
OPEN_PATH: Final = "/.conman/open"
"""Where a link leads on the temp env's host; no file of the repository is served below it."""
_DERIVED_FOR = b"conman temp env cookies v1"
_ALGORITHM = "HS256"
_CLAIMS = ["exp", "sub", "session", "epoch", "temp_env"]


@dataclass(frozen=True, slots=True)
class Pass:
    """A cookie's value, and for how many seconds it is good at most: as long as the session from which it comes."""

    value: str
    seconds: int


def check_open(state: TempEnv) -> None:
    """Raises `grace_ended` for a temp env that is over, `conflict` for one that is not served yet, or never was."""
    if state.state in SERVED:
        return
    if state.state is TempEnvState.PROVISIONING:
        raise DomainError(
            ErrorCode.CONFLICT, "It is being provisioned: open it when its job has ended.", {"job_id": state.job_id}
        )
    if state.active_since is None:
        raise DomainError(
            ErrorCode.CONFLICT, "It could not be provisioned: look at its job, then recreate it.", {"job_id": state.job_id}
        )
    raise DomainError(
        ErrorCode.GRACE_ENDED, "Its grace has ended: recreate it from what it recorded.", {"state": state.state.value}
    )


async def make_link(platform: Platform, call: Call, document: Document, *, session_id: str, session_ends: str) -> str:
    """A link that opens the temp env once for the caller. A repeat gets the same one, used or not."""
    state = TempEnv.model_validate(document["owned"])
    check_open(state)
    token = make_token(platform.secret, TokenPurpose.TEMP_ENV_LINK, call.derived_id("link"), 1)
    link = {
        "_id": token_hash(token),
        "temp_env_id": document["_id"],
        "user_id": call.user_id,
        "session_id": session_id,
        "session_ends": session_ends,
        "epoch": epoch_of(call.user),
        "expires_at": later(call.at, LINK_LASTS),
    }
    try:
        await platform.db[LINKS].insert_one(link)
    except DuplicateKeyError:
        if await records.find(platform.db, LINKS, link["_id"]) is None:
            raise
    return f"{state.url}{OPEN_PATH}?token={token}"


async def redeem(platform: Platform, app: Document, temp_env_id: str, token: str) -> Pass:
    """The cookie for a link's token, which is used up by this.

    Raises `token_invalid` for one that nobody knows here, `token_expired` for one that was used or is too old, `unauthorized`
    when the session that made it has ended, `forbidden` when its holder is no member any more.
    """
    at, of_link = now(), {"_id": token_hash(token), "temp_env_id": temp_env_id}
    usable = {**of_link, "used_at": {"$exists": False}, "expires_at": {"$gt": at}}
    link = await platform.db[LINKS].find_one_and_update(usable, {"$set": {"used_at": at}})
    if link is None:
        if await platform.db[LINKS].find_one(of_link, {"_id": 1}) is None:
            raise DomainError(
                ErrorCode.TOKEN_INVALID, "This link opens nothing here: open the temporary environment in Conman again."
            )
        raise DomainError(
            ErrorCode.TOKEN_EXPIRED, "This link was used, or is too old: open the temporary environment in Conman again."
        )
    user = await account_of(platform, link["user_id"], link["session_id"], link["epoch"])
    if user is None:
        raise _unauthorized()
    await check_member(platform, app, user)
    seconds = (milliseconds(link["session_ends"]) - milliseconds(at)) // 1000
    claims = {
        "exp": milliseconds(link["session_ends"]) // 1000,
        "sub": link["user_id"],
        "session": link["session_id"],
        "epoch": link["epoch"],
        "temp_env": temp_env_id,
    }
    return Pass(jwt.encode(claims, _key(platform), algorithm=_ALGORITHM), max(1, seconds))


async def holder_of(platform: Platform, temp_env_id: str, cookie: str) -> Document:
    """The account that a cookie of this temp env's host stands for.

    Raises `unauthorized` for one of another host, or whose session has ended.
    """
    try:
        claims = jwt.decode(cookie, _key(platform), algorithms=[_ALGORITHM], options={"require": _CLAIMS})
    except jwt.InvalidTokenError as error:
        raise _unauthorized() from error
    user = await account_of(platform, claims["sub"], claims["session"], claims["epoch"])
    if user is None or claims["temp_env"] != temp_env_id:
        raise _unauthorized()
    return user


async def check_member(platform: Platform, app: Document, user: Document) -> None:
    """Raises `forbidden` for who may not look at the app's temp envs now (`spec.md` 5: access ends at once)."""
    member = await memberships.of_app(platform.db, app, user["_id"])
    if not allows(Role(member["role"]) if member is not None else None, Capability.TEMP_ENV_OPEN):
        raise DomainError(ErrorCode.FORBIDDEN, "You are not a member of this app: ask one of its admins for an invite.")


def _key(platform: Platform) -> bytes:
    return hmac.digest(platform.secret.encode(), _DERIVED_FOR, hashlib.sha256)


def _unauthorized() -> DomainError:
    return DomainError(
        ErrorCode.UNAUTHORIZED,
        "Open this temporary environment in Conman, which gives you a link, or send your token as `Authorization: Bearer …`.",
    )
