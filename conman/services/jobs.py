"""Jobs and their logs (`spec.md` 9)."""

from __future__ import annotations

import asyncio
from typing import Any

from pymongo import ASCENDING, ReturnDocument
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.changeset_commands import RetryCommand
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode
from conman.domain.messages import RevalidateCommand
from conman.domain.queue import RetriedJob
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
START_SECONDS = 3.0
"""How long a cancel waits for the process of a job that was queued just now."""


async def author_of(platform: Platform, job: Document) -> str:
    """A gate is the author's whose changeset it judges; no other job is anybody's own."""
    if job["entity_type"] != "changeset":
        return ""
    changeset = await records.get(platform.db, "changesets", job["entity_id"], what="changeset")
    return changeset["owned"]["author_user_id"]


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
    handle = await _process(platform, job)
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


async def _process(platform: Platform, job: Document) -> WorkflowHandle[Any, Any]:
    """The job's process; that of a queued job may be about to start. Raises `conflict` when there is none."""
    handle = platform.commands.client.get_workflow_handle(options.job_workflow(job["_id"]))
    patience = START_SECONDS if job["state"] == JobState.QUEUED.value else 0.0
    until = asyncio.get_running_loop().time() + patience
    while True:
        try:
            found = await handle.describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if asyncio.get_running_loop().time() >= until:
                raise _no_process() from error
        else:
            if found.status is WorkflowExecutionStatus.RUNNING:
                return handle
            raise _no_process()
        await asyncio.sleep(0.1)


_RETRY_INSTEAD = {
    JobType.MSUITE_MERGE: "assemble the release again",
    JobType.RELEASE_ASSEMBLE: "assemble the release again",
    JobType.MSUITE_DEPLOY: "deploy again",
    JobType.DEPLOY_RELEASE: "deploy again",
    JobType.RUNTIME_PROFILE_DRIFT_CHECK: "check for drift again",
    JobType.TEMP_ENV_PROVISION: "recreate the temporary environment",
    JobType.TEMP_ENV_EXPIRE: "delete the temporary environment",
}


async def retry(platform: Platform, call: Call, job: Document) -> Document:
    """Run a changeset's gate again that ended without a verdict, or its latest revalidation: the new job (`spec.md` 3 and 10).

    Raises `invalid_transition` for one that runs or has a verdict, `conflict` for what is no longer current, or is no such gate.
    """
    kind = JobType(job["job_type"])
    if kind in _RETRY_INSTEAD:
        raise DomainError(ErrorCode.CONFLICT, f"A job of type {kind.value} is not retried: {_RETRY_INSTEAD[kind]}.")
    commands, changeset_id = platform.commands, job["entity_id"]
    changeset = await records.get(platform.db, "changesets", changeset_id, what="changeset")
    said = {"id": call.command_id, "actor": call.actor, "not_after": commands.not_after()}
    if kind is JobType.MSUITE_SUBMIT:
        again = RetryCommand(**said, job_id=job["_id"], new_job_id=call.derived_id("job"))
        start = commands.changeset_start(job["app_id"], changeset_id, changeset["title"])
        result = await commands.send(start, "retry", again)
    else:
        if job["state"] not in ENDED:
            raise DomainError(
                ErrorCode.INVALID_TRANSITION,
                f"A revalidation that is {job['state']} can't become queued again: wait for its end, or cancel it first.",
                {"from": job["state"], "to": JobState.QUEUED.value},
            )
        retried = RetriedJob(job_id=job["_id"], state=JobState(job["state"]), reason_code=ReasonCode(job["reason_code"]))
        revalidate = RevalidateCommand(**said, changeset_id=changeset_id, retried=retried)
        result = await commands.send(commands.queue_start(job["app_id"]), "revalidate", revalidate)
    return await records.get(platform.db, "jobs", result["job_id"], what="job")


def _ended(job: Document) -> DomainError:
    return DomainError(
        ErrorCode.INVALID_TRANSITION,
        f"A job that is {job['state']} can't become canceled.",
        {"from": job["state"], "to": "canceled"},
    )


def _no_process() -> DomainError:
    return DomainError(ErrorCode.CONFLICT, "The job is not running in a process of its own: cancel what it works for.")
