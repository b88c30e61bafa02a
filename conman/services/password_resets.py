"""Setting a password by a mailed token: asked for by anybody, good for one hour and one use (`spec.md` 5).

Who asks is answered before anything is looked up: the request is recorded the same way for every email, and carried out after
the answer, or by upkeep where the process died. So neither the answer nor its time tells whether an email has an account.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from conman.domain.decision import Actor, Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.notification import Notice, NoticeKind, TokenRef, notice_entry
from conman.domain.outgoing import audit_entry
from conman.domain.times import later, milliseconds
from conman.domain.tokens import TokenPurpose, make_token, token_hash
from conman.faults import fault_point
from conman.services import failed_logins
from conman.services.accounts import at_epoch, clean_email, epoch_of
from conman.services.call import Call
from conman.services.clock import now
from conman.services.passwords import check_password, hash_password
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Database, Document

COLLECTION: Final = "password_resets"
LIFE: Final = timedelta(hours=1)
FIRST_PASSWORD_LIFE: Final = timedelta(days=7)
"""How long a new account without a password may wait for its owner: as long as an invite."""
MOST_OPEN: Final = 5
"""Tokens of one account that are good at a time; more requests send no mail, so that nobody's mailbox can be filled this way."""
LEFT_BEHIND: Final = timedelta(seconds=30)
"""The age at which a request that is still waiting was left by a process that died."""
_TOKEN_NUMBER: Final = 1


def _document(platform: Platform, reset_id: str, at: str, life: timedelta) -> Document:
    token = make_token(platform.secret, TokenPurpose.PASSWORD_RESET, reset_id, _TOKEN_NUMBER)
    return {
        "_id": reset_id,
        "token_number": _TOKEN_NUMBER,
        "token_hash": token_hash(token),
        "created_at": at,
        "expires_at": later(at, life),
    }


def _token_ref(reset_id: str) -> TokenRef:
    return TokenRef(purpose=TokenPurpose.PASSWORD_RESET, record_id=reset_id, number=_TOKEN_NUMBER)


async def ask(platform: Platform, call: Call, email: str) -> Document:
    """Record that somebody asks for a token, whoever they are; `issue` carries it out."""
    try:
        email = clean_email(email)
    except DomainError:
        email = email.strip().lower()
    request = {
        **_document(platform, call.derived_id("password-reset"), call.at, LIFE),
        "asked": {"email": email, "actor": call.actor.model_dump()},
    }
    await platform.db[COLLECTION].insert_one(request)
    return request


async def issue(db: Database, request: Document) -> str | None:
    """Send the token of a recorded request, if its email has an account that may log in; the id of the notice.

    A second run changes nothing.
    """
    user = await db["users"].find_one({"email": request["asked"]["email"], "disabled": False})
    if user is None or await _open_resets(db, user["_id"], request) >= MOST_OPEN:
        await db[COLLECTION].update_one({"_id": request["_id"]}, {"$unset": {"asked": "", "token_hash": ""}})
        return None
    fields = {"user_id": user["_id"], "session_epoch": epoch_of(user)}
    await db[COLLECTION].update_one({"_id": request["_id"], "asked": {"$exists": True}}, {"$set": fields})
    fault_point("reset.recorded")
    at, actor = request["created_at"], Actor.model_validate(request["asked"]["actor"])
    event = Event(
        "user", user["_id"], "password_reset_requested", after={"email": user["email"], "expires_at": request["expires_at"]}
    )
    notice = Notice(
        kind=NoticeKind.PASSWORD_RESET,
        at=at,
        entity_type="user",
        entity_id=user["_id"],
        user_ids=[user["_id"]],
        token=_token_ref(request["_id"]),
    )
    audit_id, notice_id = (derived_uuid7(milliseconds(at), request["_id"], part) for part in ("audit", "notice"))
    entries = [audit_entry(audit_id, event, app_id=None, actor=actor, at=at), notice_entry(notice_id, notice)]
    await records.write_where(db, "users", {"_id": user["_id"], "disabled": False}, {}, outgoing=entries)
    fault_point("reset.issued")
    await db[COLLECTION].update_one({"_id": request["_id"]}, {"$unset": {"asked": ""}})
    return notice_id


async def _open_resets(db: Database, user_id: str, request: Document) -> int:
    opened = {"user_id": user_id, "_id": {"$ne": request["_id"]}, "expires_at": {"$gt": request["created_at"]}}
    return await db[COLLECTION].count_documents({**opened, "token_hash": {"$exists": True}})


async def issue_left_behind(db: Database) -> int:
    """Carry out what processes that died had recorded. Returns how many there were; their mails are upkeep's to send."""
    old = later(now(), -LEFT_BEHIND)
    requests = await db[COLLECTION].find({"asked.email": {"$exists": True}, "created_at": {"$lt": old}}).limit(200).to_list()
    for request in requests:
        await issue(db, request)
    return len(requests)


async def first_password(platform: Platform, call: Call, email: str, name: str) -> Document:
    """The notice that lets the owner of a new account set its first password within 7 days; the account must follow."""
    user_id = call.derived_id("user", email)
    reset = _document(platform, call.derived_id("first-password", email), call.at, FIRST_PASSWORD_LIFE)
    await records.insert_once(platform.db, COLLECTION, {**reset, "user_id": user_id, "session_epoch": 0})
    notice = Notice(
        kind=NoticeKind.ACCOUNT_CREATED,
        at=call.at,
        entity_type="user",
        entity_id=user_id,
        actor_user_id=call.actor.user_id,
        user_ids=[user_id],
        token=_token_ref(reset["_id"]),
        data={"name": name},
    )
    return notice_entry(call.derived_id("account-created", email), notice)


async def reset(platform: Platform, call: Call, token: str, password: str) -> Document:
    """Set the password that a token is good for and end all sessions of the account; the account.

    Raises `token_invalid` for a token that is unknown, was used, or that a later change of the password has voided;
    `token_expired` for one that is too old; `validation_error`.
    """
    check_password(password, "")
    db = platform.db
    invalid_token = DomainError(ErrorCode.TOKEN_INVALID, "This link is not valid or was used: ask for a new one.")
    found = await db[COLLECTION].find_one({"token_hash": token_hash(token), "user_id": {"$exists": True}})
    user = await records.find(db, "users", found["user_id"]) if found is not None else None
    if found is None or user is None or user["disabled"] or found["session_epoch"] != epoch_of(user):
        raise invalid_token
    if found["expires_at"] <= call.at:
        raise DomainError(ErrorCode.TOKEN_EXPIRED, "This link is too old: ask for a new one.")
    check_password(password, user["email"])
    event = Event("user", user["_id"], "password_reset", after={"sessions_revoked": True})
    actor = call.actor.model_copy(update={"user_id": user["_id"]})
    change = {
        "$set": {
            "password_hash": await hash_password(password),
            "session_epoch": epoch_of(user) + 1,
            "kept_session": None,
            "updated_at": call.at,
        },
        "$inc": {"version": 1},
    }
    # The epoch is the guard: of several uses of a token, or of several tokens, one finds it as it was.
    entries = Call(call.command_id, call.at, actor, user).audit(event, app_id=None)
    changed = await records.write_where(db, "users", at_epoch(user), change, outgoing=entries)
    if changed is None:
        raise invalid_token
    fault_point("reset.done")
    await db[COLLECTION].update_many({"user_id": user["_id"]}, {"$unset": {"token_hash": ""}})
    await failed_logins.lift(db, user["email"])
    return changed
