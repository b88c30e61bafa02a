"""Disabling an account leaves no app without an app_admin who can log in (`spec.md` 5).

An account and the apps that it administers are several records. So a disabling first has each app count the account's owner no
more, under the guard that holds an app's last app_admin (`store/memberships.py`). Meanwhile the record that decides whose account
is disabled (`services/platform_admins.py`) names the disabling with a number; the write that carries it out takes the name off,
and is refused without it. So a disabling that was given up, by its request or by upkeep after a crash, can't be carried out.
docs/adr/0011-members-in-one-order.md
"""

from __future__ import annotations

from datetime import timedelta

from conman.domain.membership import LostVotes, MemberChange, last_admin, restore, suspend
from conman.domain.roles import Role
from conman.domain.times import later
from conman.faults import fault_point
from conman.services.call import Call
from conman.store import memberships, records
from conman.store.database import Database, Document
from conman.store.memberships import ADMINS, PLATFORM

CUT_SHORT_AFTER = timedelta(minutes=1)
"""A disabling that is still under way after this long was cut short, and is given up."""


async def reserve(db: Database, user: Document, at: str) -> int:
    """Have every app count somebody as an app_admin no more, since their account is about to be disabled; the disabling's number.

    Raises `conflict` for the last app_admin of an app; then all apps count them as before.
    """
    user_id = user["_id"]
    of_apps = db["apps"].find({"admin_ids": user_id, "ready": True, "archived": False}, {"name": 1, "admin_ids": 1})
    alone = [app["name"] async for app in of_apps if app["admin_ids"] == [user_id]]
    if alone:  # told at once and for all apps; the guard below holds it
        raise last_admin(user["email"], alone)
    number = await _begin(db, user_id, at)
    mine = [{"admin_ids": user_id}, {f"suspended_admins.{user_id}": {"$exists": True}}, {"member_change.user_id": user_id}]
    for app in await db["apps"].find({"$or": mine}).to_list():
        if not await _suspend(db, app, user_id, number):
            await give_up(db, user_id, number)
            raise last_admin(user["email"], [app["name"]])
        fault_point("disabling.suspended")
    return number


def under_way(user_id: str) -> str:
    """The field of the record that names a disabling under way."""
    return f"disabling.{user_id}"


def lost_votes(call: Call, user: Document) -> list[Document]:
    """What an account that is being disabled keeps of the votes that count no more (`services/votes.py`)."""
    lost = LostVotes(id=call.derived_id("lost-votes", user["_id"]), user_id=user["_id"], at=call.at, actor=call.actor)
    return [lost.model_dump(mode="json")]


async def _begin(db: Database, user_id: str, at: str) -> int:
    """Name the disabling on the record; two requests that disable the same account share one."""
    while True:
        admins = await records.get(db, PLATFORM, ADMINS)
        there = (admins.get("disabling") or {}).get(user_id)
        if there is not None:
            return there["number"]
        number = (admins.get("disablings") or 0) + 1
        named = {"disablings": number, under_way(user_id): {"number": number, "since": at}}
        won = await db[PLATFORM].update_one({"_id": ADMINS, "disablings": admins.get("disablings")}, {"$set": named})
        if won.matched_count:
            return number


async def _suspend(db: Database, app: Document, user_id: str, number: int) -> bool:
    """Have an app count somebody as an app_admin no more; False when they are its last one."""
    while True:
        change = MemberChange.model_validate(app["member_change"]) if app.get("member_change") else None
        joining = change is not None and change.user_id == user_id and change.role is Role.APP_ADMIN
        admins = memberships.admins_of(app)
        left = suspend(admins, user_id, number, joining=joining, needed=app["ready"] and not app["archived"])
        if left is None:
            return False
        if left == admins or await memberships.write(db, app, left) is not None:
            return True
        app = await records.get(db, "apps", app["_id"], what="app")


async def give_up(db: Database, user_id: str, number: int) -> None:
    """End a disabling that was not carried out; one that was stays so."""
    name = under_way(user_id)
    await db[PLATFORM].update_one({"_id": ADMINS, f"{name}.number": number}, {"$unset": {name: ""}})
    await count_again(db, user_id)


async def count_again(db: Database, user_id: str) -> None:
    """Have the apps count somebody as an app_admin again, unless their account is disabled or about to be."""
    for found in await db["apps"].find({f"suspended_admins.{user_id}": {"$exists": True}}).to_list():
        app = found
        while user_id in memberships.admins_of(app).suspended:
            # Asked after the app was read: a disabling that begins later changes the app before it is carried out.
            if await memberships.disabled_by(db, user_id) is not None:
                return
            written = await memberships.write(db, app, restore(memberships.admins_of(app), user_id))
            app = written or await records.get(db, "apps", app["_id"], what="app")


async def give_up_cut_short(db: Database, at: str) -> int:
    """Give up the disablings that a crash cut short, and finish what followed from others; returns how many were given up."""
    admins = await records.find(db, PLATFORM, ADMINS) or {}
    named: Document = admins.get("disabling") or {}
    cut_short = [user_id for user_id, one in named.items() if later(one["since"], CUT_SHORT_AFTER) < at]
    for user_id in cut_short:
        await give_up(db, user_id, named[user_id]["number"])
    rows = db["apps"].find({"suspended_admins": {"$exists": True, "$ne": {}}}, {"suspended_admins": 1})
    for user_id in sorted({user_id async for app in rows for user_id in app["suspended_admins"]}):
        await count_again(db, user_id)
    return len(cut_short)
