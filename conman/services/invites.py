"""Invites: somebody is asked by mail to join an app with a role (`spec.md` 5).

An invite is the app's, not its maker's: it stands when who made it has gone, and the app's admins see it and may revoke it. The
mailed token is good for 7 days and one use; one pending invite per app and email is held by a unique index.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import structlog
from pymongo.errors import DuplicateKeyError

from conman.domain.decision import Actor, Event
from conman.domain.errors import DomainError, ErrorCode, not_found
from conman.domain.ids import derived_uuid7
from conman.domain.notification import Notice, NoticeKind, TokenRef, notice_entry
from conman.domain.outgoing import audit_entry
from conman.domain.roles import Role
from conman.domain.times import later, milliseconds
from conman.domain.tokens import TokenPurpose, make_token, token_hash
from conman.faults import fault_point
from conman.services import members
from conman.services.accounts import clean_email, create_user
from conman.services.call import Call, has_happened, record
from conman.services.clock import now
from conman.services.notices import start_notices
from conman.services.platform import Platform
from conman.services.sessions import Session, check_credentials, open_session
from conman.store import memberships, records
from conman.store.database import Database, Document

log = structlog.get_logger(__name__)

COLLECTION: Final = "invites"
LIFE: Final = timedelta(days=7)


class InviteState(StrEnum):
    """What has become of an invite; an expired one may be sent again."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    REVOKED = "revoked"


OPEN: Final = [InviteState.PENDING.value, InviteState.EXPIRED.value]
"""What an admin may still send again or revoke, and what the list shows."""


def invite_record(invite: Document) -> dict[str, Any]:
    """An invite, without its token or the token's hash."""
    is_old = invite["state"] == InviteState.PENDING and invite["expires_at"] <= now()
    return record(invite, "email", "role", "expires_at", state=InviteState.EXPIRED.value if is_old else invite["state"])


async def find(platform: Platform, app: Document, invite_id: str) -> Document:
    """An invite of the app. Raises `not_found`, also for one that was revoked."""
    found = await records.get(platform.db, COLLECTION, invite_id, app_id=app["_id"], what="invite")
    if found["state"] == InviteState.REVOKED:
        raise not_found("invite")
    return found


def _shown(invite: Document) -> Document:
    return {name: invite[name] for name in ("email", "role", "expires_at", "token_number")}


def _slot(app_id: str, email: str) -> str:
    return f"{app_id}:{email}"


def _issued(platform: Platform, call: Call, app: Document, invite_id: str, email: str, number: int) -> tuple[Document, Document]:
    """The fields of a fresh token, and the notice that carries it."""
    token = make_token(platform.secret, TokenPurpose.INVITE, invite_id, number)
    fields = {
        "state": InviteState.PENDING.value,
        "pending_slot": _slot(app["_id"], email),
        "token_number": number,
        "token_hash": token_hash(token),
        "expires_at": later(call.at, LIFE),
    }
    notice = Notice(
        kind=NoticeKind.INVITE,
        at=call.at,
        app_id=app["_id"],
        entity_type="invite",
        entity_id=invite_id,
        actor_user_id=call.user_id,
        emails=[email],
        token=TokenRef(purpose=TokenPurpose.INVITE, record_id=invite_id, number=number),
    )
    return fields, notice_entry(call.derived_id("notice", invite_id), notice)


async def create(platform: Platform, call: Call, app: Document, *, email: str, role: Role) -> Document:
    """Invite somebody. Raises `conflict` when they are a member, or have a pending invite to this app."""
    email = clean_email(email)
    invite_id = call.derived_id("invite", email)
    there = await records.find(platform.db, COLLECTION, invite_id)
    if there is None:
        await _refuse_member(platform, app, email)
        fields, notice = _issued(platform, call, app, invite_id, email, 1)
        invite: Document = {
            "_id": invite_id,
            "app_id": app["_id"],
            "email": email,
            "role": role.value,
            **fields,
            "created_at": call.at,
            "updated_at": call.at,
            "created_by": call.user_id,
            "version": 1,
        }
        event = Event("invite", invite_id, "created", after=_shown(invite))
        invite["outgoing"] = [*call.audit(event, app_id=app["_id"]), notice]
        there = await _insert(platform.db, invite)
    await start_notices(platform, call.derived_id("notice", invite_id))
    return there


async def _insert(db: Database, invite: Document) -> Document:
    """Take the place of the pending invite to this email; one that is too old gives way. Raises `conflict`."""
    while True:
        try:
            made, _ = await records.insert_once(db, COLLECTION, invite)
            return made
        except DuplicateKeyError:
            holder = await db[COLLECTION].find_one({"pending_slot": invite["pending_slot"]})
            if holder is not None and not await _expire(db, holder, invite["created_at"]):
                raise _has_one(invite["email"], holder) from None


def _has_one(email: str, holder: Document) -> DomainError:
    message = f"{email} has a pending invite to this app: send that one again, or revoke it first."
    return DomainError(ErrorCode.CONFLICT, message, {"invite_id": holder["_id"]})


async def _refuse_member(platform: Platform, app: Document, email: str) -> None:
    user = await platform.db["users"].find_one({"email": email})
    if user is not None and await memberships.of_app(platform.db, app, user["_id"]) is not None:
        raise DomainError(ErrorCode.CONFLICT, f"{email} is a member already: change the role instead.")


async def resend(platform: Platform, call: Call, app: Document, invite: Document, *, version: int | None) -> Document:
    """Send a pending or expired invite again, for 7 days more; the token before is void.

    Raises `stale_write`, or `conflict` for one that was accepted, or whose email has another pending one or is a member's now.
    """
    db = platform.db
    while not await has_happened(db, call, invite):
        _refuse_ended(invite)
        await _refuse_member(platform, app, invite["email"])
        fields, notice = _issued(platform, call, app, invite["_id"], invite["email"], invite["token_number"] + 1)
        event = Event("invite", invite["_id"], "resent", before=_token_of(invite), after=_token_of({**invite, **fields}))
        outgoing = [*call.audit(event, app_id=app["_id"]), notice]
        try:
            invite = await records.update_part(
                db,
                COLLECTION,
                invite["_id"],
                set_fields=fields,
                at=call.at,
                outgoing=outgoing,
                expected_version=invite["version"] if version is None else version,
            )
        except DuplicateKeyError:
            holder = await db[COLLECTION].find_one({"pending_slot": fields["pending_slot"]})
            if holder is not None and not await _expire(db, holder, call.at):
                raise _has_one(invite["email"], holder) from None
        except DomainError:
            invite = await find(platform, app, invite["_id"])
            if version is not None and not await has_happened(db, call, invite):
                raise
        else:
            break
    await start_notices(platform, call.derived_id("notice", invite["_id"]))
    return invite


def _token_of(invite: Document) -> Document:
    return {"email": invite["email"], "expires_at": invite["expires_at"], "token_number": invite["token_number"]}


def _refuse_ended(invite: Document) -> None:
    if invite["state"] == InviteState.ACCEPTED:
        raise DomainError(ErrorCode.CONFLICT, f"{invite['email']} has accepted this invite: change or remove the member instead.")
    if invite["state"] == InviteState.REVOKED:
        raise not_found("invite")


async def revoke(platform: Platform, call: Call, app: Document, invite: Document, *, version: int | None) -> None:
    """Make an invite's token good for nothing. Raises `stale_write`, or `conflict` for one that was accepted."""
    db = platform.db
    while not await has_happened(db, call, invite):
        _refuse_ended(invite)
        event = Event("invite", invite["_id"], "revoked", before=_shown(invite))
        try:
            await _revoke(db, invite, call.at, call.audit(event, app_id=app["_id"]), version)
        except DomainError:
            invite = await records.get(db, COLLECTION, invite["_id"], what="invite")
            if version is not None and not await has_happened(db, call, invite):
                raise
        else:
            return


async def _revoke(db: Database, invite: Document, at: str, outgoing: list[Document], version: int | None) -> None:
    await records.update_part(
        db,
        COLLECTION,
        invite["_id"],
        set_fields={"state": InviteState.REVOKED.value},
        unset=["pending_slot", "token_hash"],
        at=at,
        outgoing=outgoing,
        expected_version=invite["version"] if version is None else version,
    )


async def revoke_all(db: Database, app_id: str, *, actor: Actor, at: str) -> list[str]:
    """Revoke what an app that is archived still has pending; the ids. A repeat finds none."""
    revoked: list[str] = []
    for found in await db[COLLECTION].find({"app_id": app_id, "state": InviteState.PENDING.value}).to_list():
        invite = found
        while invite["state"] == InviteState.PENDING:
            event = Event("invite", invite["_id"], "revoked", before=_shown(invite))
            entry_id = derived_uuid7(milliseconds(at), invite["_id"], "revoked")
            try:
                await _revoke(db, invite, at, [audit_entry(entry_id, event, app_id=app_id, actor=actor, at=at)], None)
            except DomainError:  # it was accepted or sent again meanwhile
                invite = await records.get(db, COLLECTION, invite["_id"], what="invite")
                continue
            revoked.append(invite["_id"])
            break
    return revoked


async def _expire(db: Database, invite: Document, at: str) -> bool:
    """Note that an invite is too old, once, whoever sees it first; False while it is pending and good."""
    if invite["state"] != InviteState.PENDING:
        return True
    if invite["expires_at"] > at:
        return False
    number = invite["token_number"]
    event = Event("invite", invite["_id"], "expired", before=_shown(invite))
    entry_id = derived_uuid7(milliseconds(at), invite["_id"], "expired", str(number))
    # The token stays known, so that who comes with it hears that it is too old.
    change = {
        "$set": {"state": InviteState.EXPIRED.value, "updated_at": at},
        "$unset": {"pending_slot": ""},
        "$inc": {"version": 1},
    }
    await records.write_where(
        db,
        COLLECTION,
        {"_id": invite["_id"], "state": InviteState.PENDING.value, "token_number": number},
        change,
        outgoing=[audit_entry(entry_id, event, app_id=invite["app_id"], actor=Actor(), at=at)],
    )
    return True


async def accept(platform: Platform, call: Call, *, token: str, name: str, password: str) -> Session:
    """Join by the token of a mail, with a new account or the one that the email has, and log in.

    Raises `invite_invalid` for a token that is unknown, void or used, `invite_expired` for one that is too old,
    `validation_error` for a new account's password, `invalid_credentials` or `rate_limited` for an account's.
    """
    db = platform.db
    invite, app = await _of_token(db, token, call.at)
    user, is_new = await _account(platform, call, invite["email"], name, password)
    event = Event(
        "invite",
        invite["_id"],
        "accepted",
        before=_shown(invite),
        after={"user_id": user["_id"], "account_created": is_new},
    )
    actor = call.actor.model_copy(update={"user_id": user["_id"]})
    joining = {"user_id": user["_id"], "actor": actor.model_dump(mode="json"), "at": call.at}
    entry = audit_entry(call.derived_id("accepted"), event, app_id=app["_id"], actor=actor, at=call.at)
    accepted = await records.write_where(
        db,
        COLLECTION,
        {"_id": invite["_id"], "state": InviteState.PENDING.value, "token_hash": token_hash(token)},
        {
            "$set": {"state": InviteState.ACCEPTED.value, "joining": joining, "updated_at": call.at},
            "$unset": {"pending_slot": "", "token_hash": ""},
            "$inc": {"version": 1},
        },
        outgoing=[entry],
    )
    if accepted is None:
        raise _invalid_invite()
    fault_point("invite.accepted")
    await _join(db, accepted)
    return await open_session(platform, call, user)


def _invalid_invite() -> DomainError:
    return DomainError(ErrorCode.INVITE_INVALID, "This invite is not valid or was used: ask an admin of the app for another one.")


async def _of_token(db: Database, token: str, at: str) -> tuple[Document, Document]:
    """The invite of a token, and its app. Raises `invite_invalid` or `invite_expired`."""
    invite = await db[COLLECTION].find_one({"token_hash": token_hash(token)})
    app = await records.find(db, "apps", invite["app_id"]) if invite is not None else None
    if invite is None or app is None or app["archived"]:
        raise _invalid_invite()
    if await _expire(db, invite, at):
        raise DomainError(ErrorCode.INVITE_EXPIRED, "This invite is too old: ask an admin of the app to send it again.")
    return invite, app


async def _account(platform: Platform, call: Call, email: str, name: str, password: str) -> tuple[Document, bool]:
    """The account of an email, whose password this must be, or a new one with it; and whether it is new."""
    user = await platform.db["users"].find_one({"email": email})
    if user is None:
        own = call.actor.model_copy(update={"user_id": call.derived_id("user", email)})
        by_themselves = Call(call.command_id, call.at, own)
        try:
            made = await create_user(platform.db, by_themselves, email=email, name=name, password=password, via="invite")
            return made, True
        except DomainError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
        user = await platform.db["users"].find_one({"email": email})  # another request was first
    return await check_credentials(platform, call, email, user, password), False


async def _join(db: Database, invite: Document) -> None:
    """Make who accepted an invite a member; a repeat, however late, changes nothing. A member's role stays as it is."""
    joining = invite["joining"]
    call = Call(f"invite:{invite['_id']}", joining["at"], Actor.model_validate(joining["actor"]))
    app = await records.get(db, "apps", invite["app_id"], what="app")
    user = await records.get(db, "users", joining["user_id"], what="user")
    try:
        role, by = Role(invite["role"]), invite["created_by"]
        await members.join(db, call, app, user=user, role=role, via="invite", created_by=by)
    except DomainError as error:
        if error.code is not ErrorCode.CONFLICT:
            raise
        log.info("invited_member_was_there_already", invite_id=invite["_id"])
    await db[COLLECTION].update_one({"_id": invite["_id"]}, {"$unset": {"joining": ""}})


async def finish(db: Database, at: str) -> int:
    """Make members of those whose acceptance a crash cut short, and note what has expired, or lost its app; returns how many."""
    joining = await db[COLLECTION].find({"joining.user_id": {"$exists": True}}).to_list()
    for invite in joining:
        await _join(db, invite)
    old = await db[COLLECTION].find({"state": InviteState.PENDING.value, "expires_at": {"$lte": at}}).to_list()
    for invite in old:
        await _expire(db, invite, at)
    revoked = 0
    pending_in = await db[COLLECTION].distinct("app_id", {"state": InviteState.PENDING.value})
    for app in await db["apps"].find({"_id": {"$in": pending_in}, "archived": True}, {"_id": 1}).to_list():
        revoked += len(await revoke_all(db, app["_id"], actor=Actor(), at=at))
    return len(joining) + len(old) + revoked
