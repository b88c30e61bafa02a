"""The members of an app and their roles (`spec.md` 2 and 5): who joins, changes, and goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.membership import Admins, LostVotes, MemberChange, last_admin, loses_votes, without
from conman.domain.outgoing import audit_entry
from conman.domain.roles import Role
from conman.faults import fault_point
from conman.services.accounts import clean_email
from conman.services.call import Call, has_happened, record
from conman.services.platform import Platform
from conman.services.votes import take_back_soon
from conman.store import memberships, records
from conman.store.database import Database, Document
from conman.store.outgoing import deliver


@dataclass(frozen=True, slots=True)
class _Planned:
    """A change to be recorded with all that goes into the same write; `admins` is who counts as an app_admin after it."""

    change: MemberChange
    admins: Admins
    entries: list[Document]
    lost: LostVotes | None = None


async def add_member(platform: Platform, call: Call, app: Document, *, user: Document, role: Role, via: str) -> Document:
    """Make somebody a member; a repeat finds the first one. Raises `conflict` when they are one already."""
    return await join(platform.db, call, app, user=user, role=role, via=via, created_by=call.user_id)


async def join(
    db: Database, call: Call, app: Document, *, user: Document, role: Role, via: str, created_by: str | None
) -> Document:
    """As `add_member`, let in by `created_by`."""
    membership_id = call.derived_id("membership", user["_id"])
    event = Event(
        "membership",
        membership_id,
        "added",
        after={"user_id": user["_id"], "role": role.value, "email": user["email"], "via": via},
    )
    entry_id = call.derived_id("audit-membership", user["_id"])

    def plan(now: Document, member: Document | None) -> _Planned:
        if member is not None:
            raise DomainError(ErrorCode.CONFLICT, f"{user['email']} is a member already: change the role instead.")
        change = MemberChange(
            number=_next_number(now),
            membership_id=membership_id,
            user_id=user["_id"],
            role=role,
            joins=True,
            at=call.at,
            created_by=created_by,
        )
        entry = audit_entry(entry_id, event, app_id=app["_id"], actor=call.actor, at=call.at)
        return _Planned(change, memberships.admins_of(now), [entry])

    async def is_made(_: Document) -> bool:
        return await records.find(db, "memberships", membership_id) is not None

    await _change(db, app, user["_id"], plan, is_made)
    made = await records.get(db, "memberships", membership_id, what="member")
    return {**made, **made.get("former", {})}  # a repeat shows also one that has ended since


async def change_role(
    platform: Platform, call: Call, app: Document, user: Document, role: Role, *, version: int | None
) -> Document:
    """Give a member another role. Raises `not_found`, `stale_write`, or `conflict` for the last app_admin."""

    def change(now: Document, member: Document | None) -> _Planned | None:
        member = _standing(member, version)
        before = Role(member["role"])
        if before is role:
            return None
        event = Event("membership", member["_id"], "role_changed", before=_shown(user, before), after=_shown(user, role))
        return _planned(call, now, user, member, role, event)

    changed = await _change(platform.db, app, user["_id"], change, lambda now: has_happened(platform.db, call, now))
    await take_back_soon(platform, "apps", changed)
    return await member_of(platform, app, user["_id"])


async def remove_member(platform: Platform, call: Call, app: Document, user: Document, *, version: int | None) -> None:
    """End a membership: access ends at once, what the member made stays (`spec.md` 5).

    Raises `not_found`, `stale_write`, or `conflict` for the last app_admin.
    """

    def remove(now: Document, member: Document | None) -> _Planned:
        member = _standing(member, version)
        event = Event("membership", member["_id"], "removed", before=_shown(user, Role(member["role"])))
        return _planned(call, now, user, member, None, event)

    changed = await _change(platform.db, app, user["_id"], remove, lambda now: has_happened(platform.db, call, now))
    await take_back_soon(platform, "apps", changed)


def _standing(member: Document | None, version: int | None) -> Document:
    if member is None:
        raise not_found("member")
    if version is not None and member["version"] != version:
        raise records.stale(member["version"])
    return member


def _shown(user: Document, role: Role) -> Document:
    return {"user_id": user["_id"], "role": role.value, "email": user["email"]}


def _next_number(app: Document) -> int:
    return (app.get("members_version") or 0) + 1


def _planned(call: Call, app: Document, user: Document, member: Document, role: Role | None, event: Event) -> _Planned:
    """Another role for a member, or none. Raises `conflict` when no app_admin would be left."""
    # Who becomes an app_admin counts once the membership shows it.
    admins = memberships.admins_of(app)
    after = admins if role is Role.APP_ADMIN else without(admins, user["_id"])
    if after is None:
        raise last_admin(user["email"], [app["name"]])
    lost = None
    if loses_votes(Role(member["role"]), role):
        lost = LostVotes(id=call.derived_id("lost-votes"), user_id=user["_id"], at=call.at, actor=call.actor)
    number = _next_number(app)
    change = MemberChange(number=number, membership_id=member["_id"], user_id=user["_id"], role=role, at=call.at)
    return _Planned(change, after, call.audit(event, app_id=app["_id"]), lost)


async def _change(
    db: Database,
    app: Document,
    user_id: str,
    decide: Callable[[Document, Document | None], _Planned | None],
    has_been: Callable[[Document], Awaitable[bool]],
) -> Document:
    """Record one change of an app's members and let the membership show it; the app's record.

    `has_been` tells for the app's record whether an earlier run of the same request made the change.
    """
    now = await memberships.settle(db, await records.get(db, "apps", app["_id"], what="app"))
    while not await has_been(now):
        try:
            planned = decide(now, await memberships.of_app(db, now, user_id))
        except DomainError:
            # A repeat at the same moment may have made the change since the app's record was read.
            now = await memberships.settle(db, await records.get(db, "apps", app["_id"], what="app"))
            if await has_been(now):
                break
            raise
        if planned is None:
            break
        push: Document = {"outgoing": {"$each": planned.entries}}
        if planned.lost is not None:
            push["lost_votes"] = planned.lost.model_dump(mode="json")
        named = {"member_change": planned.change.model_dump(mode="json")}
        recorded = await memberships.write(db, now, planned.admins, set_fields=named, push=push)
        if recorded is not None:
            fault_point("members.recorded")
            now = await memberships.settle(db, recorded)
            break
        now = await memberships.settle(db, await records.get(db, "apps", app["_id"], what="app"))
    await deliver(db, "apps", now)
    return now


async def member_of(platform: Platform, app: Document, user_id: str) -> Document:
    """Somebody's membership. Raises `not_found`."""
    member = await memberships.of_app(platform.db, app, user_id)
    if member is None:
        raise not_found("member")
    return member


async def account_of(platform: Platform, user_id: str) -> Document:
    """The account of somebody who is or was a member. Raises `not_found`."""
    return await records.get(platform.db, "users", user_id, what="member")


async def find_user(platform: Platform, *, user_id: str | None, email: str | None) -> Document:
    """The account that a request names by one of the two. Raises `validation_error`."""
    if (user_id is None) == (email is None):
        raise invalid("user_id", "give either user_id or email")
    query = {"_id": user_id} if user_id is not None else {"email": clean_email(email or "")}
    user = await platform.db["users"].find_one(query)
    if user is None:
        raise invalid("user_id" if user_id is not None else "email", "there is no such account")
    return user


def parse_role(text: str) -> Role:
    """The role of a request. Raises `validation_error`."""
    if text not in {role.value for role in Role}:
        raise invalid("role", f"is none of {', '.join(role.value for role in Role)}")
    return Role(text)


def member_record(membership: Document, user: Document | None) -> dict[str, Any]:
    """A membership with who it is."""
    return record(membership, "user_id", "role", email=user["email"] if user else None, name=user["name"] if user else None)
