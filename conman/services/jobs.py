"""Jobs and their logs (`spec.md` 9)."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, ReturnDocument
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.services.call import Call, has_happened, record
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document
from conman.store.outgoing import deliver
from conman.workflows import options

FIELDS = (
    "job_type",
    "state",
    "reason_code",
    "entity_type",
    "entity_id",
    "attempt",
    "max_attempts",
    "queued_at",
    "started_at",
    "finished_at",
    "exit_code",
    "summary",
    "progress",
    "result",
)
ENDED = ("succeeded", "failed", "canceled")
LINES_PER_REPLY = 2000


def job_record(job: Document) -> dict[str, Any]:
    """A job as `api.md` 4 shows it."""
    return record(job, *FIELDS)


async def log_lines(platform: Platform, job: Document, *, after: int, attempt: int | None) -> dict[str, Any]:
    """Lines with `seq` above `after` of one attempt (the latest by default); `next` is where to go on, `ended` whether to."""
    wanted = attempt or max(job["attempt"], 1)
    query = {"job_id": job["_id"], "attempt": wanted, "last_seq": {"$gt": after}}
    lines: list[Document] = []
    async for chunk in platform.db["job_logs"].find(query).sort([("first_seq", ASCENDING)]):
        lines += [line for line in chunk["lines"] if line["seq"] > after]
        if len(lines) >= LINES_PER_REPLY:
            break
    lines = lines[:LINES_PER_REPLY]
    over = job["state"] in ENDED or wanted < job["attempt"]
    return {"lines": lines, "next": lines[-1]["seq"] if lines else after, "ended": over and len(lines) < LINES_PER_REPLY}


async def cancel(platform: Platform, call: Call, job: Document) -> None:
    """Stop a gate or an assembly; its verdict is `canceled`. Raises `invalid_transition` when it has ended."""
    if await has_happened(platform.db, call, job) and job["state"] in ENDED:
        return
    if job["state"] in ENDED:
        raise _ended(job)
    handle = platform.commands.client.get_workflow_handle(options.job_workflow(job["_id"]))
    try:
        found = await handle.describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise _no_process() from error
    if found.status is not WorkflowExecutionStatus.RUNNING:
        raise _no_process()
    event = Event(
        "job",
        job["_id"],
        "canceled",
        before={"state": job["state"]},
        after={"state": "canceled", "job_type": job["job_type"]},
    )
    asked = await platform.db["jobs"].find_one_and_update(
        {"_id": job["_id"], "state": {"$nin": list(ENDED)}},
        {"$push": {"outgoing": {"$each": call.audit(event, app_id=job["app_id"])}}},
        return_document=ReturnDocument.AFTER,
    )
    if asked is None:
        raise _ended(await records.get(platform.db, "jobs", job["_id"], what="job"))
    await handle.cancel()
    await deliver(platform.db, "jobs", asked)


def _ended(job: Document) -> DomainError:
    return DomainError(
        ErrorCode.INVALID_TRANSITION,
        f"A job that is {job['state']} can't become canceled.",
        {"from": job["state"], "to": "canceled"},
    )


def _no_process() -> DomainError:
    return DomainError(ErrorCode.CONFLICT, "The job is not running in a process of its own: cancel what it works for.")
