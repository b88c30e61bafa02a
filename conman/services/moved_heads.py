"""Integration branches that somebody moved outside Conman: their queues are told, and judge what they list on the new head.

A publish tells the queue itself; a push past Conman is seen only by looking. A publish that is under way has moved the branch, or
is about to, and will tell the queue which members leave it: what is seen meanwhile is left to it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import structlog
from pymongo import ASCENDING

from conman.domain.app import BRANCHES
from conman.domain.errors import ConmanError
from conman.domain.messages import IntegrationMovedCommand
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError
from conman.services import overtaken
from conman.store.database import Database, Document
from conman.workflows.client import Commands

log = structlog.get_logger(__name__)

APPS_AT_ONCE = 8
"""How many repositories are asked at a time."""
PAGE = 500
"""Apps read at once."""
ROUND_SECONDS = 30.0
"""How long a round goes on to look: with the last look's own deadlines far within the two minutes that upkeep's step has."""


async def tell_queues(db: Database, git: GitAdapter, commands: Commands, *, seconds: float = ROUND_SECONDS) -> int:
    """Look at the integration branch of each app that is not archived; returns how many queues were told of another head.

    No look begins after `seconds`: a Git server that does not answer must not hold up what else upkeep does. Apps come in
    another order each time, so that each has its turn.
    """
    apps = [app async for app in _apps(db)]
    random.shuffle(apps)
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds

    async def look() -> int:
        told = 0
        while apps and loop.time() < ends:
            told += await _tell_queue(db, git, commands, apps.pop())
        return told

    told = sum(await asyncio.gather(*(look() for _ in range(APPS_AT_ONCE))))
    if apps:
        log.warning("integration_branches_not_looked_at", apps=len(apps))
    return told


async def _apps(db: Database) -> AsyncIterator[Document]:
    # Of an app that is about to be archived, or to move to another branch, whoever does that tells the queue.
    open_apps = {"archived": False, "ready": True, "closing": {"$exists": False}}
    after = ""
    while True:
        found = db["apps"].find({**open_apps, "_id": {"$gt": after}}, {"repo_path": 1, "integration_branch": 1})
        page = await found.sort([("_id", ASCENDING)]).limit(PAGE).to_list()
        for app in page:
            yield app
        if len(page) < PAGE:
            return
        after = page[-1]["_id"]


async def _tell_queue(db: Database, git: GitAdapter, commands: Commands, app: Document) -> bool:
    """Whether the queue of an app took a head that it did not know. One broken repository must not hide the others."""
    # In this order: a publish that moved the branch before it was asked is either under way still, or the queue has been told.
    queue = await db["queues"].find_one({"_id": app["_id"]}, {"owned.integration_sha": 1, "owned.epoch": 1})
    try:
        head = await git.resolve(app["repo_path"], BRANCHES + app["integration_branch"])
    except GitError as error:
        log.warning("integration_branch_not_seen", app_id=app["_id"], error=str(error))
        return False
    if head is None:
        log.warning("integration_branch_missing", app_id=app["_id"], branch=app["integration_branch"])
    if queue is None or head is None or head == queue["owned"]["integration_sha"] or await _is_publishing(db, app["_id"]):
        return False
    known = queue["owned"]
    command = IntegrationMovedCommand(
        id=f"moved:{known['epoch']}:{head}", not_after=commands.not_after(), old_sha=known["integration_sha"], new_sha=head
    )
    try:
        answer = await commands.send(commands.queue_start(app["_id"]), "integration_moved", command)
    except ConmanError as error:  # the next round looks again
        log.warning("queue_not_told", app_id=app["_id"], error=error.message)
        return False
    fault_point("moved.told")
    if not answer.get("moved"):
        return False
    log.warning("integration_branch_moved_outside", app_id=app["_id"], old=known["integration_sha"], new=head)
    await overtaken.look_again(db, commands, {"app_id": app["_id"]}, not_on=head)
    return True


async def _is_publishing(db: Database, app_id: str) -> bool:
    under_way = [{"owned.publishing": {"$ne": None}}, {"owned.told": False}]
    return await db["releases"].find_one({"app_id": app_id, "$or": under_way}, {"_id": 1}) is not None
