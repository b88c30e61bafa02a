"""Jobs and their logs (`spec.md` 9)."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, ReturnDocument
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.services.call import Call, record
from conman.services.platform import Platform
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
    if job["state"] in ENDED:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A job that is {job['state']} can't become canceled.",
            {"from": job["state"], "to": "canceled"},
        )
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
    try:
        await platform.commands.client.get_workflow_handle(options.job_workflow(job["_id"])).cancel()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise DomainError(
            ErrorCode.CONFLICT, "The job is not running in a process of its own: cancel what it works for."
        ) from error
    if asked is not None:
        await deliver(platform.db, "jobs", asked)
