"""Notices without their workflow get it, once (`durability.md` 20 and 21)."""

from __future__ import annotations

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.notification import NoticeState
from conman.faults import fault_point
from conman.services.mails import close_notice
from conman.store.database import Database
from conman.workflows import options
from conman.workflows.client import Commands

log = structlog.get_logger(__name__)

_ENDS = {
    WorkflowExecutionStatus.COMPLETED: NoticeState.DONE,
    WorkflowExecutionStatus.CANCELED: NoticeState.CANCELED,
    WorkflowExecutionStatus.TERMINATED: NoticeState.CANCELED,
    WorkflowExecutionStatus.FAILED: NoticeState.CANCELED,
    WorkflowExecutionStatus.TIMED_OUT: NoticeState.CANCELED,
}
"""What an ended workflow means for a notice that does not say so: it is not sent a second time."""


async def start_missing_notices(db: Database, commands: Commands) -> int:
    """Start `notify:{id}` for each pending notice that has none; returns how many.

    A notice whose workflow has ended all the same (its record came out of a backup, or somebody terminated the workflow) is
    closed: what was sent stays sent once.
    """
    started = 0
    pending = db["notifications"].find({"state": NoticeState.PENDING.value}, {"_id": 1}).sort("_id")
    async for row in pending:
        status = await _status(commands.client, options.notify_workflow(row["_id"]))
        if status is None:
            started += await _start(commands, row["_id"])
        elif status in _ENDS and await close_notice(db, row["_id"], _ENDS[status]):
            log.warning("notice_closed_by_its_workflow", notice_id=row["_id"], workflow_status=status.name)
    return started


async def _start(commands: Commands, notice_id: str) -> int:
    try:
        await commands.start_notice(notice_id)
    except WorkflowAlreadyStartedError:  # it ran and ended since we looked
        return 0
    fault_point("missing.notice")
    log.warning("started_missing_workflow", missing=options.notify_workflow(notice_id))
    return 1


async def _status(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    """The status of the last run; None: there is none (any more)."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
