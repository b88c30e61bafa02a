"""Votes of who may review no more (`spec.md` 5): removed from an app, demoted below reviewer, or disabled.

The write that ends somebody's say records it beside (`lost_votes` of the app, or of the account). The changesets are told by
their workflows, over and over until none counts such a vote, and until no vote can arrive any more that was sent before: the
request tells them at once, as far as workers answer, and upkeep goes on. docs/adr/0012-votes-of-who-may-review-no-more.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

import structlog

from conman.domain.changeset import Changeset, Vote
from conman.domain.changeset_commands import TakeBackCommand
from conman.domain.changeset_review import VOTES_COUNT_IN
from conman.domain.decision import Actor
from conman.domain.errors import ConmanError
from conman.domain.membership import LostVotes, may_review
from conman.domain.times import later
from conman.faults import fault_point
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.store import memberships
from conman.store.database import Database, Document
from conman.workflows.client import Commands

log = structlog.get_logger(__name__)

Owner = Literal["apps", "users"]
"""Where lost votes are recorded: those of one app in the app, those in all apps in the account."""

AT_ONCE_SECONDS = 5.0
"""How long a request waits for changesets to take their loss; what has not answered by then is left to upkeep."""
AT_ONCE = 16
"""Changesets that are told at a time."""
CLOCKS_APART = timedelta(seconds=30)
"""How far apart the clocks of two servers are at most."""


async def take_back_soon(platform: Platform, owner: Owner, document: Document) -> None:
    """Take back what the record says is lost, as far as it goes soon; never fails, since upkeep goes on."""
    if not document.get("lost_votes"):
        return
    try:
        async with asyncio.timeout(AT_ONCE_SECONDS):
            await take_back(platform.db, platform.commands, owner, document)
    except TimeoutError:
        log.warning("votes_left_to_upkeep", record=document["_id"])


async def take_back_all(db: Database, commands: Commands) -> int:
    """One round over all records with lost votes; returns how many changesets were looked at."""
    told = 0
    for owner in ("apps", "users"):
        for document in await db[owner].find({"lost_votes.id": {"$exists": True}}).to_list():
            told += await take_back(db, commands, owner, document)
    return told


async def take_back(db: Database, commands: Commands, owner: Owner, document: Document) -> int:
    """Tell each changeset that counts a lost vote; returns how many were looked at. What does not answer is told again later.

    A record of lost votes is removed by a round that began when no command could still be under way that was sent before.
    """
    told = 0
    for entry in list(document.get("lost_votes") or []):
        lost = LostVotes.model_validate(entry)
        began = now()
        rows = await _with_votes_of(db, lost.user_id, {"app_id": document["_id"]} if owner == "apps" else {})
        slots = asyncio.Semaphore(AT_ONCE)
        taken = await asyncio.gather(*(_take_back_one(db, commands, lost, row, slots) for row in rows), return_exceptions=True)
        failed = [error for error in taken if isinstance(error, BaseException)]
        told += len(taken) - len(failed)
        if failed:
            unexpected = [error for error in failed if not isinstance(error, ConmanError)]
            if unexpected:
                raise unexpected[0]
            log.warning("votes_left_to_upkeep", record=document["_id"], error=str(failed[0]))
        elif began > later(lost.at, timedelta(seconds=commands.timeout_seconds) + CLOCKS_APART):
            await db[owner].update_one({"_id": document["_id"]}, {"$pull": {"lost_votes": {"id": lost.id}}})
    return told


async def _take_back_one(db: Database, commands: Commands, lost: LostVotes, row: Document, slots: asyncio.Semaphore) -> None:
    async with slots:
        until = lost.at if may_review(await memberships.role_now(db, row["app_id"], lost.user_id)) else None
        votes = [vote for vote in Changeset.model_validate(row["owned"]).standing() if vote.reviewer_user_id == lost.user_id]
        if any(until is None or vote.at <= until for vote in votes):
            await _tell(commands, row, lost.user_id, lost.actor, until)


async def _with_votes_of(db: Database, user_id: str, where: Document) -> list[Document]:
    query: dict[str, Any] = {
        **where,
        "owned.state": {"$in": [state.value for state in VOTES_COUNT_IN]},
        "owned.votes.reviewer_user_id": user_id,
    }
    return await db["changesets"].find(query).to_list()


async def take_back_ineligible(platform: Platform, document: Document) -> None:
    """Take back every vote on a changeset whose owner may review no more, before somebody relies on its approval."""
    state = Changeset.model_validate(document["owned"])
    for user_id in await ineligible(platform.db, document["app_id"], state.counted()):
        await _tell(platform.commands, document, user_id, Actor(), None)


async def ineligible(db: Database, app_id: str, votes: Iterable[Vote]) -> list[str]:
    """Those who gave the votes and may review no more."""
    voters = dict.fromkeys(vote.reviewer_user_id for vote in votes)
    return [user_id for user_id in voters if not may_review(await memberships.role_now(db, app_id, user_id))]


async def _tell(commands: Commands, row: Document, user_id: str, actor: Actor, until: str | None) -> None:
    command = TakeBackCommand(
        id=f"take-back:{new_id(now())}", actor=actor, not_after=commands.not_after(), reviewer_user_id=user_id, until=until
    )
    await commands.send(commands.changeset_start(row["app_id"], row["_id"], row["title"]), "take_back", command)
    fault_point("votes.told")
