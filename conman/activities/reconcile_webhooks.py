"""Webhooks with something to tell and no process get it (`durability.md` 20)."""

from __future__ import annotations

import structlog
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.services.clock import now
from conman.store.database import Database
from conman.store.webhook_feed import DELIVERIES, backfill
from conman.workflows import options
from conman.workflows.client import Commands

log = structlog.get_logger(__name__)


async def start_missing_webhooks(db: Database, commands: Commands) -> int:
    """Make the deliveries that were missed when a webhook was new; then start each process that is missing, and say how many."""
    missed = await backfill(db, now())
    if missed:
        log.info("webhook_deliveries_backfilled", deliveries=missed)
    started = 0
    for app_id in await db[DELIVERIES].distinct("open"):
        if not await _is_running(commands, app_id):
            await commands.start_webhook(app_id)
            started += 1
            log.warning("started_missing_workflow", missing=options.webhook_workflow(app_id))
    return started


async def _is_running(commands: Commands, app_id: str) -> bool:
    try:
        described = await commands.client.get_workflow_handle(options.webhook_workflow(app_id)).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return described.status is WorkflowExecutionStatus.RUNNING
