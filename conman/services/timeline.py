"""What happened to a changeset, in order: from its audit events, those of its gates, and their runs (`api.md` 3, timeline)."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING

from conman.services.platform import Platform
from conman.store.database import Document
from conman.store.outgoing import TERMINAL_JOB_STATES
from conman.store.records import Page

SHOWN = ("occurred_at", "actor_user_id", "entity_type", "entity_id", "action", "before", "after", "git_sha")
"""What members see of an audit event: not from where it was asked, which is the app admins' to read."""

Moment = tuple[str, str, Document | None]
"""Time and id of an event, by which they are ordered, and the event itself where it is no audit event."""


async def timeline(platform: Platform, app: Document, changeset: Document, *, number: int, limit: int) -> Page:
    """One page of the events, oldest first."""
    jobs = await platform.db["jobs"].find({"app_id": app["_id"], "entity_id": changeset["_id"]}).sort("_id", ASCENDING).to_list()
    runs = [moment for job in jobs for moment in _runs(job)]
    query = {"entity_id": {"$in": [changeset["_id"], *(job["_id"] for job in jobs)]}, "app_id": app["_id"]}
    audited = await platform.db["audit"].count_documents(query)
    until = number * limit
    ids = platform.db["audit"].find(query, {"occurred_at": 1}).sort("_id", ASCENDING).limit(until)
    moments: list[Moment] = [(row["occurred_at"], row["_id"], None) async for row in ids]
    page = sorted([*moments, *runs], key=lambda moment: moment[:2])[until - limit : until]
    return Page(await _events(platform, page), number, limit, audited + len(runs))


def _runs(job: Document) -> list[Moment]:
    """The beginning and the end of a gate's run: what was judged when, and with which outcome."""
    found: list[Moment] = []
    if job["started_at"] is not None:
        found.append(_run(job, "started", job["started_at"], {"state": "running", "attempt": job["attempt"]}))
    if job["state"] in TERMINAL_JOB_STATES and job["finished_at"] is not None:
        found.append(_run(job, "ended", job["finished_at"], {"state": job["state"], "reason_code": job["reason_code"]}))
    return found


def _run(job: Document, action: str, at: str, after: Document) -> Moment:
    event_id = f"{job['_id']}:{action}"
    event: Document = {
        "id": event_id,
        "occurred_at": at,
        "actor_user_id": None,
        "entity_type": "job",
        "entity_id": job["_id"],
        "action": action,
        "before": None,
        "after": {"job_type": job["job_type"], **after},
        "git_sha": None,
    }
    return at, event_id, event


async def _events(platform: Platform, page: list[Moment]) -> list[dict[str, Any]]:
    wanted = [event_id for _, event_id, event in page if event is None]
    rows = {row["_id"]: row async for row in platform.db["audit"].find({"_id": {"$in": wanted}})}
    shown: list[dict[str, Any]] = []
    for _, event_id, event in page:
        shown.append(event or {"id": event_id, **{name: rows[event_id].get(name) for name in SHOWN}})
    return shown
