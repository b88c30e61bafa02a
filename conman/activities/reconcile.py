"""Records without their workflow get it back, and those that differ from it are compared (`durability.md` 20)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import ceil
from typing import Any

import structlog
from pymongo import ASCENDING
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.activities.heartbeat import heartbeating
from conman.activities.reconcile_notices import start_missing_notices
from conman.activities.reconcile_webhooks import start_missing_webhooks
from conman.activities.resync import resync_all, resync_some
from conman.domain.changeset_reminders import AWAITING_REVIEW, MOST_REMINDERS
from conman.domain.deployment import RollbackMode
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.git.adapter import GitAdapter
from conman.services import app_settings, archive, deploy_commands, holds, jobs, moved_heads, overtaken, votes
from conman.services.clock import now
from conman.services.drift import unfinished_checks
from conman.services.secret_rotation import finish_rotations
from conman.services.secrets import SecretStore
from conman.services.upkeep import finish_and_forget
from conman.store.database import Database, Document
from conman.store.outgoing import sweep
from conman.workflows import options
from conman.workflows.client import Commands, EntityWorkflow

log = structlog.get_logger(__name__)

PAGE = 1000
"""Records read at once."""
SLEEPERS = 500
"""About so many temp envs that sleep are looked at in one round; ten thousand have their turns within twenty minutes."""


class ReconcileActivities:
    """Bound to the records and the way to workflows."""

    def __init__(self, db: Database, commands: Commands, secrets: SecretStore, git: GitAdapter) -> None:
        self.db = db
        self.git = git
        self.commands = commands
        self.secrets = secrets

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.start_missing]

    @activity.defn
    async def start_missing(self) -> int:
        """Start the workflow of each record whose state calls for work and that has none running; returns how many.

        Queues whose integration branch was moved outside Conman are told on the way.
        """
        async with heartbeating():
            started = await start_missing(self.db, self.commands)
            await moved_heads.tell_queues(self.db, self.git, self.commands)
            await resync_some(self.db, self.commands.client)
            await finish_rotations(self.secrets)
            return started


async def reconcile_once(db: Database, commands: Commands, git: GitAdapter) -> dict[str, int]:
    """One round by hand: `{delivered, started, resynced}`."""
    await finish_and_forget(db, now())
    delivered, started = await sweep(db), await start_missing(db, commands, everyone=True)
    await moved_heads.tell_queues(db, git, commands)
    return {"delivered": delivered, "started": started, "resynced": await resync_all(db, commands.client)}


async def start_missing(db: Database, commands: Commands, *, everyone: bool = False) -> int:
    """Start what the records call for and is not running; returns how many.

    Temp envs that sleep are looked at in turns, many minutes apart where there are many, or all at once with `everyone`.
    """
    started = 0
    async for entity in _wanted(db, commands, everyone=everyone):
        if not await is_running(commands.client, entity.workflow_id):
            await commands.start(entity)
            started += 1
            fault_point("missing.started")
            log.warning("started_missing_workflow", missing=entity.workflow_id)
    started += await start_missing_notices(db, commands)
    started += await start_missing_webhooks(db, commands)
    started += await start_lost_sweeps(db, commands)
    async for start in unfinished_checks(db):
        if not await is_running(commands.client, options.job_workflow(start.job_id)):
            await commands.start_drift_check(start)
            started += 1
            log.warning("started_missing_workflow", missing=options.job_workflow(start.job_id))
    await overtaken.find_overtaken(db, commands)
    await app_settings.tell_queues(db, commands)
    await archive.end_all(db, commands)
    await votes.take_back_all(db, commands)
    await jobs.finish_cancels(db, commands)
    await holds.settle_all(db, commands, now())
    await deploy_commands.settle_all(db, commands)
    return started


async def _wanted(db: Database, commands: Commands, *, everyone: bool) -> AsyncIterator[EntityWorkflow]:
    """Never a listing of Temporal's: the records say what must run."""
    async for row in _rows(db, "deployments", {"owned.state": {"$in": ["pending", "running"]}}):
        yield commands.deployment_start(row["app_id"], row["_id"])
    undoing = {"owned.state": "pending", "owned.release_id": None, "owned.rollback.mode": RollbackMode.REVERT_AND_RELEASE.value}
    async for row in _rows(db, "deployments", undoing):
        yield commands.rollback_start(row["app_id"], row["_id"])
    open_release = [{"owned.state": "assembling"}, {"owned.told": False}, {"owned.edit": {"$ne": None}}]
    async for row in _rows(db, "releases", {"$or": [*open_release, {"owned.publishing": {"$ne": None}}]}):
        yield commands.release_start(row["app_id"], row["_id"])
    working = [{"owned.gate.state": {"$in": ["queued", "running"]}}, {"owned.intent": {"$ne": None}}]
    reminding = {"owned.state": {"$in": [*AWAITING_REVIEW]}, "owned.reminders": {"$not": {"$gte": MOST_REMINDERS}}}
    for query in ({"$or": working}, reminding):
        async for row in _rows(db, "changesets", query):
            yield commands.changeset_start(row["app_id"], row["_id"])
    telling = [{"owned.sweep_started": False}, {"owned.sweep": {"$ne": None}}, {"owned.undelivered.0": {"$exists": True}}]
    async for row in _rows(db, "queues", {"$or": telling}):
        yield commands.queue_start(row["app_id"])
    async for row in _temp_envs(db, everyone=everyone):
        yield commands.temp_env_start(row["app_id"], row["_id"])


async def _temp_envs(db: Database, *, everyone: bool) -> AsyncIterator[Document]:
    """Those for which something is done; and of those that sleep a part, so that ten thousand cost each minute what 500 do."""
    ending = {"owned.state": "expired", "owned.expire_job_id": {"$ne": None}}
    async for row in _rows(db, "temp_envs", {"$or": [{"owned.state": {"$in": ["provisioning", "expiring", "failed"]}}, ending]}):
        yield row
    sleep = {"owned.state": {"$in": ["active", "expired"]}, "owned.expire_job_id": None}
    turns = 1 if everyone else max(1, ceil(await db["temp_envs"].count_documents(sleep) / SLEEPERS))
    turn = milliseconds(now()) // 60_000 % turns
    async for row in _rows(db, "temp_envs", sleep):
        if int(row["_id"][-4:], 16) % turns == turn:
            yield row


async def start_lost_sweeps(db: Database, commands: Commands) -> int:
    """Tell queues whose verdicts can't come, since somebody terminated the process of their sweep; returns how many."""
    lost = 0
    async for row in db["queues"].find({"owned.sweep": {"$ne": None}, "owned.sweep_started": True}, {"owned.epoch": 1}):
        app_id, epoch = row["_id"], row["owned"]["epoch"]
        if not await is_running(commands.client, options.revalidation_workflow(app_id, epoch)):
            await commands.client.get_workflow_handle(options.queue_workflow(app_id)).signal("sweep_lost", epoch)
            log.warning("started_lost_sweep", app_id=app_id, epoch=epoch)
            lost += 1
    return lost


async def _rows(db: Database, collection: str, query: Document) -> AsyncIterator[Document]:
    """All that match, a page at a time: a round that saw the first ones only would never come to those behind them."""
    after = ""
    while True:
        page = db[collection].find({"$and": [query, {"_id": {"$gt": after}}]}, {"app_id": 1}).sort([("_id", ASCENDING)])
        rows = await page.limit(PAGE).to_list()
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        after = rows[-1]["_id"]


async def is_running(client: Client, workflow_id: str) -> bool:
    """Whether a workflow of this id is open."""
    try:
        description = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return description.status is WorkflowExecutionStatus.RUNNING
