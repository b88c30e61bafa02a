"""Jobs and their logs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from conman.api.access import Caller, capability
from conman.api.body import Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.api.streams import ACCESS_SECONDS, EventStream, frame, stream
from conman.domain.errors import invalid
from conman.domain.jobs import JobState, JobType
from conman.domain.roles import Capability
from conman.services import job_logs, jobs
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}/jobs", tags=["jobs"])
_C = Capability
LARGEST_SEQ = 10**15
LARGEST_ATTEMPT = 1000


async def _job(caller: Caller, job_id: str) -> Document:
    return await records.get(caller.platform.db, "jobs", job_id, app_id=caller.of_app["_id"], what="job")


@router.get("")
async def list_jobs(
    page: int = PageNumber,
    limit: int = PageLimit,
    type_: str | None = Query(None, alias="type", max_length=64),
    state: list[str] | None = Query(None, max_length=20),
    entity_id: str | None = Query(None, max_length=64),
    caller: Caller = capability(_C.JOB_READ),
) -> dict[str, Any]:
    """The app's jobs, newest first; `state` takes several, with commas between them or repeated."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    if type_ is not None:
        if type_ not in {kind.value for kind in JobType}:
            raise invalid("type", f"{type_!r} is no type of job")
        query["job_type"] = type_
    if state is not None:
        states = [part.strip() for each in state for part in each.split(",")]
        for one in states:
            if one not in {known.value for known in JobState}:
                raise invalid("state", f"{one[:40]!r} is no state of a job")
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
    attempt: int | None = Query(None, ge=1, le=LARGEST_ATTEMPT),
    caller: Caller = capability(_C.JOB_READ),
) -> dict[str, Any]:
    """Log lines after a sequence number, of the latest attempt or of the one that is named. Lines count per attempt."""
    return data(await job_logs.log_lines(caller.platform.db, await _job(caller, j), after=after, attempt=attempt))


@router.get("/{j}/logs/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream_logs(
    j: str,
    request: Request,
    after: str | None = Query(None, pattern=job_logs.CURSOR_PATTERN),
    attempt: int | None = Query(None, ge=1, le=LARGEST_ATTEMPT),
    last_event_id: str | None = Header(None, alias="Last-Event-ID", pattern=job_logs.CURSOR_PATTERN),
    caller: Caller = capability(_C.JOB_READ),
) -> EventStream:
    """Log lines as server-sent events until the job or the caller's access ends.

    Events: `line` (a line, as the log shows it), `attempt` (`{attempt}`: the suite runs again, and lines count from 1 again),
    `ended` (`{attempt, state, reason_code}`: no line follows; close the stream). An event's id is `attempt:seq`; a client that
    sends the last one it saw back, as `Last-Event-ID` or `after`, goes on behind it. With `attempt`, that attempt alone.
    """
    job = await _job(caller, j)
    at = job_logs.start_of(job, after=after, last_event_id=last_event_id, attempt=attempt)
    feeds: job_logs.LogFeeds = request.app.state.log_feeds
    news = job_logs.follow(feeds, j, at, only=attempt is not None, patience=ACCESS_SECONDS)
    return stream(request, caller, _C.JOB_READ, news, _frames)


def _frames(news: job_logs.News) -> str:
    match news:
        case job_logs.Lines(attempt, lines):
            return "".join(frame("line", line, job_logs.Cursor(attempt, line["seq"])) for line in lines)
        case job_logs.NextAttempt(attempt):
            return frame("attempt", {"attempt": attempt}, job_logs.Cursor(attempt, 0))
        case job_logs.Ended(attempt, job):
            return frame("ended", {"attempt": attempt, "state": job["state"], "reason_code": job["reason_code"]})
        case job_logs.Silence():
            return ""


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
