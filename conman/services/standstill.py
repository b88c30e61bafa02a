"""Bringing an app to a standstill before its record changes in a way that a running publish or deployment must not meet.

Two things race with archiving an app, or moving it to another integration branch: deployments, and releases that assemble or
publish. Deployments are decided by the one write on the app's lock document (`store/locks.py`). For releases each side writes
before it reads: here `closing` is written to the app's record, then the releases are read; a release records its intent, then
reads the app's record (`activities/calls.py`). So one sees the other: a release that has read before goes on, and this side waits
until its record shows what became of it and gives way; one that reads later is refused.

The `closing` of a process that died is undone by upkeep: the app's version is raised with it, so that the write for which it
stood, should it still come, is stale. One with `moved_to` has had its write: the app is on another branch, at that commit, and
nothing is published there before the queue knows. docs/adr/0017-an-app-at-a-standstill.md
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Literal

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.times import later
from conman.faults import fault_point
from conman.services.call import Call
from conman.services.clock import now
from conman.services.platform import Platform
from conman.store import locks, records
from conman.store.database import Database, Document

ABANDONED_AFTER = timedelta(minutes=1)
"""A standstill that began this long ago belongs to a process that died."""

PATIENCE_SECONDS = 10.0
"""How long a release that has recorded its intent is waited for."""

Why = Literal["archive", "integration_branch"]
_SAYING = {"archive": "is being archived", "integration_branch": "is moving to another integration branch"}


def closing_conflict(app: Document) -> DomainError | None:
    """The refusal of what must not begin now in this app, None when it may."""
    if app.get("archived"):
        return DomainError(ErrorCode.CONFLICT, "The app is archived: nothing of it can be changed any more.")
    closing = app.get("closing")
    if closing is None:
        return None
    return DomainError(ErrorCode.CONFLICT, f"The app {_SAYING[closing['why']]}: try again in a moment.")


async def begin(platform: Platform, call: Call, app_id: str, why: Why) -> None:
    """Let no release begin to assemble or publish. Raises `conflict` while another standstill holds, or the app is archived."""
    apps = platform.db["apps"]
    mark = {"by": call.command_id, "at": now(), "why": why}
    while True:
        if (
            await apps.update_one({"_id": app_id, "archived": False, "closing": None}, {"$set": {"closing": mark}})
        ).matched_count:
            fault_point("standstill.begun")
            return
        there = await records.get(platform.db, "apps", app_id, what="app")
        closing = there.get("closing")
        if closing is not None and closing["by"] == call.command_id:
            return
        refused = closing_conflict(there)
        if closing is not None and not there["archived"] and _is_abandoned(closing):
            await abandon(platform.db, app_id, closing["by"])
        elif refused is not None:
            raise refused


async def wait_for_releases(platform: Platform, app_id: str) -> None:
    """Return once no release assembles or publishes, or is about to. Raises `conflict` naming one that does."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    busy = [{"owned.state": "assembling"}, {"owned.publishing": {"$ne": None}}, {"owned.told": False}]
    about = {"owned.edit.kind": {"$in": ["assemble", "publish"]}}
    while True:
        # One query: a release goes from being about to being busy, and must not slip through between two.
        found = await platform.db["releases"].find_one({"app_id": app_id, "$or": [*busy, about]})
        if found is None:
            return
        state = found["owned"]
        is_busy = state["state"] == "assembling" or state.get("publishing") is not None or not state.get("told", True)
        if is_busy or asyncio.get_running_loop().time() > deadline:
            raise DomainError(
                ErrorCode.CONFLICT,
                f"Release {state.get('tag') or found['_id']} assembles or publishes: wait for its end, or cancel it.",
                {"release_id": found["_id"]},
            )
        await asyncio.sleep(0.05)


async def abandon(db: Database, app_id: str, by: str) -> None:
    """Undo a standstill whose write has not come: releases and deployments may begin again, and it can't come any more."""
    undecided = {"_id": app_id, "closing.by": by, "closing.moved_to": None}
    await db["apps"].update_one(undecided, {"$unset": {"closing": ""}, "$inc": {"version": 1}})
    fault_point("standstill.ended")
    await locks.reopen(db, app_id, by=by)


async def abandon_old(db: Database) -> int:
    """Undo what dead processes have left: their standstills, and what they closed in lock documents. Returns how many."""
    undone = 0
    async for app in db["apps"].find({"closing.at": {"$lt": later(now(), -ABANDONED_AFTER)}, "closing.moved_to": None}):
        await abandon(db, app["_id"], app["closing"]["by"])
        undone += 1
    async for document in db["locks"].find({"undecided.0": {"$exists": True}}):
        for mark in document["undecided"]:
            if _is_abandoned(mark):
                await _decide(db, document, mark["by"])
                undone += 1
    return undone


def _is_abandoned(mark: Document | None) -> bool:
    return mark is not None and mark.get("moved_to") is None and later(mark["at"], ABANDONED_AFTER) < now()


async def _decide(db: Database, document: Document, by: str) -> None:
    """What `by` has closed stays closed if the app's record says so too; else it opens, once that record can't say so later."""
    app = await db["apps"].find_one({"_id": document["_id"]})
    if app is None:
        return
    listed = {environment["id"] for environment in app["environments"]}
    closed = {key for key, entry in document["environments"].items() if any(m["by"] == by for m in entry.get("closed", []))}
    whole = any(mark["by"] == by for mark in document.get("closed", []))
    if app["archived"] or (not whole and not closed & listed):
        await locks.settle(db, document["_id"], by=by)
        return
    guard = {"_id": app["_id"], "version": app["version"]}
    if (await db["apps"].update_one(guard, {"$inc": {"version": 1}})).matched_count:
        await locks.reopen(db, document["_id"], by=by)
