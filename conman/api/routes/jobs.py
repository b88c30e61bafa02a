"""Jobs and their logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from conman.api.access import Caller, capability, is_still_admitted
from conman.api.body import Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.errors import invalid
from conman.domain.jobs import JobState, JobType
from conman.domain.roles import Capability
from conman.services import jobs
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/jobs", tags=["jobs"])
_C = Capability
LARGEST_SEQ = 10**15
POLL_SECONDS = 0.3
"""How often a log stream looks for new lines."""


async def _job(caller: Caller, job_id: str) -> Document:
    return await records.get(caller.platform.db, "jobs", job_id, app_id=caller.of_app["_id"], what="job")


@router.get("")
async def list_jobs(
    page: int = PageNumber,
    limit: int = PageLimit,
    type_: str | None = Query(None, alias="type", max_length=64),
    state: str | None = Query(None, max_length=200),
    entity_id: str | None = Query(None, max_length=64),
    caller: Caller = capability(_C.JOB_READ),
) -> dict[str, Any]:
    """The app's jobs."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    if type_ is not None:
        if type_ not in {kind.value for kind in JobType}:
            raise invalid("type", f"{type_!r} is no type of job")
        query["job_type"] = type_
    if state is not None:
        states = [part.strip() for part in state.split(",") if part.strip()]
        for one in states:
            if one not in {known.value for known in JobState}:
                raise invalid("state", f"{one!r} is no state of a job")
        query["state"] = {"$in": states}
    if entity_id is not None:
        query["entity_id"] = entity_id
    found = await records.page(caller.platform.db, "jobs", query, number=page, limit=limit)
    return listed([jobs.job_record(row) for row in found.items], found)


@router.get("/{j}")
async def show_job(j: str, caller: Caller = capability(_C.JOB_READ)) -> dict[str, Any]:
    """One job."""
    return data({"job": jobs.job_record(await _job(caller, j))})


@router.get("/{j}/logs")
async def show_logs(
    j: str,
    after: int = Query(0, ge=0, le=LARGEST_SEQ),
    attempt: int | None = Query(None, ge=1, le=1000),
    caller: Caller = capability(_C.JOB_READ),
) -> dict[str, Any]:
    """Log lines after a sequence number."""
    return data(await jobs.log_lines(caller.platform, await _job(caller, j), after=after, attempt=attempt))


@router.get("/{j}/logs/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream_logs(
    j: str, request: Request, after: int = Query(0, ge=0, le=LARGEST_SEQ), caller: Caller = capability(_C.JOB_READ)
) -> StreamingResponse:
    """Log lines as server-sent events until the job or the caller's access ends; the event id is the line's `seq`."""
    await _job(caller, j)

    async def events() -> AsyncIterator[str]:
        seen = after
        while await is_still_admitted(request, _C.JOB_READ):
            part = await jobs.log_lines(caller.platform, await _job(caller, j), after=seen, attempt=None)
            for line in part["lines"]:
                yield f"id: {line['seq']}\nevent: line\ndata: {json.dumps(line)}\n\n"
            seen = part["next"]
            if part["ended"]:
                yield "event: ended\ndata: {}\n\n"
                return
            if not part["lines"]:
                yield ": waiting\n\n"
                await asyncio.sleep(POLL_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.post("/{j}/retry", status_code=202)
async def retry_job(
    j: str, caller: Caller = capability(_C.GATE_RETRY_OWN, _C.GATE_RETRY_ANY), _: Empty = body(Empty)
) -> dict[str, Any]:
    """Run a gate again that ended without a verdict, as a new job."""
    found = await _job(caller, j)
    caller.require_own(await jobs.author_of(caller.platform, found), _C.GATE_RETRY_OWN)
    return data({"job": jobs.job_record(await jobs.retry(caller.platform, caller.call, found))})


@router.post("/{j}/cancel", status_code=202)
async def cancel_job(
    j: str, caller: Caller = capability(_C.GATE_CANCEL_OWN, _C.JOB_CANCEL_ANY), _: Empty = body(Empty)
) -> dict[str, Any]:
    """Cancel a gate of one's own changeset, or any job."""
    found = await _job(caller, j)
    caller.require_own(await jobs.author_of(caller.platform, found), _C.GATE_CANCEL_OWN)
    await jobs.cancel(caller.platform, caller.call, found)
    return data({"job": jobs.job_record(await _job(caller, j))})
