"""Changesets and the queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, cut, data, listed
from conman.api.versions import IfMatch, Versioned, expected_version, required_version
from conman.domain.changeset import Move
from conman.domain.errors import invalid
from conman.domain.messages import ReorderCommand
from conman.domain.roles import Capability
from conman.services import changeset_moves, changeset_records, changesets, timeline
from conman.services.call import keep, recall
from conman.services.jobs import job_record
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}", tags=["changesets"])
_C = Capability


class NewChangeset(Body):
    """A proposal on a workspace."""

    workspace_id: str = Field(max_length=64)
    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=20_000)


class ChangesetPatch(Versioned):
    """What may be edited while it is not at its end."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=20_000)


class Review(Body):
    """One reviewer's word."""

    action: Literal["approve", "request_changes", "reject"]
    comment: str | None = Field(default=None, max_length=20_000)


class ReviewRequest(Body):
    """Who is asked to review."""

    user_id: str = Field(max_length=64)


class Order(Body):
    """Another order of the queue."""

    ordered_changeset_ids: list[Annotated[str, Field(max_length=64)]] = Field(max_length=10_000)


async def _changeset(caller: Caller, changeset_id: str) -> Document:
    return await records.get(caller.platform.db, "changesets", changeset_id, app_id=caller.of_app["_id"], what="changeset")


async def _own_changeset(caller: Caller, changeset_id: str, own: Capability) -> Document:
    found = await _changeset(caller, changeset_id)
    caller.require_own(found["owned"]["author_user_id"], own)
    return found


async def _shown(caller: Caller, changeset_id: str) -> dict[str, Any]:
    return await changeset_records.shown(caller.platform, caller.of_app, changeset_id)


@router.get("/changesets")
async def list_changesets(
    page: int = PageNumber,
    limit: int = PageLimit,
    state: str | None = Query(None, max_length=200),
    author: str | None = Query(None, max_length=64),
    caller: Caller = capability(_C.CHANGESET_READ),
) -> dict[str, Any]:
    """The app's changesets."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    states = changesets.parse_states(state)
    if states is not None:
        query["owned.state"] = {"$in": states}
    if author is not None:
        query["owned.author_user_id"] = author
    found = await records.page(caller.platform.db, "changesets", query, number=page, limit=limit)
    return listed(await changeset_records.shown_all(caller.platform, caller.of_app, found.items), found)


@router.post("/changesets", status_code=201)
async def create_changeset(
    caller: Caller = capability(_C.CHANGESET_CREATE_OWN), new: NewChangeset = body(NewChangeset)
) -> dict[str, Any]:
    """A draft on one's own workspace."""
    workspace = await records.get(
        caller.platform.db, "workspaces", new.workspace_id, app_id=caller.of_app["_id"], what="workspace"
    )
    caller.require_own(workspace["owner_user_id"], _C.WORKSPACE_EDIT_OWN)
    made = await changesets.create(
        caller.platform, caller.call, caller.of_app, workspace, title=new.title, description=new.description
    )
    return data(await _shown(caller, made["_id"]))


@router.get("/changesets/{cs}")
async def show_changeset(cs: str, caller: Caller = capability(_C.CHANGESET_READ)) -> dict[str, Any]:
    """One changeset."""
    return data(await _shown(caller, cs))


@router.patch("/changesets/{cs}")
async def edit_changeset(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_EDIT_OWN),
    patch: ChangesetPatch = body(ChangesetPatch),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Change title or description."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_EDIT_OWN)
    version = expected_version(if_match, patch.version)
    change = {name: getattr(patch, name) for name in ("title", "description") if name in patch.model_fields_set}
    if "title" in change and change["title"] is None:
        raise invalid("title", "can't be null")
    if change:
        await changesets.revise(caller.platform, caller.call, caller.of_app, found, change=change, version=version)
    return data(await _shown(caller, cs))


@router.delete("/changesets/{cs}", status_code=204)
async def withdraw_changeset(cs: str, caller: Caller = capability(_C.CHANGESET_WITHDRAW_OWN, _C.CHANGESET_WITHDRAW_ANY)) -> None:
    """Withdraw it."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_WITHDRAW_OWN)
    await changeset_moves.leave(caller.platform, caller.call, found, Move.WITHDRAW)


async def _submit(caller: Caller, found: Document, *, again: bool) -> dict[str, Any]:
    result = await changeset_moves.submit(caller.platform, caller.call, caller.of_app, found, again=again)
    job = await records.get(caller.platform.db, "jobs", result["job_id"], what="job")
    present = await _changeset(caller, found["_id"])
    revision = (await changeset_records.revision_records(caller.platform, present))[result["revision_number"] - 1]
    return data(
        {
            "changeset": await _shown(caller, found["_id"]),
            "revision": revision,
            "job": job_record(job),
            "included_profile_overrides": revision["overrides"],
        }
    )


@router.post("/changesets/{cs}/submit")
async def submit_changeset(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_SUBMIT_OWN, _C.CHANGESET_SUBMIT_ANY),
    _: Empty = body(Empty),
) -> dict[str, Any]:
    """Freeze the first revision and start its gate."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_SUBMIT_OWN)
    return await _submit(caller, found, again=False)


@router.post("/changesets/{cs}/resubmit")
async def resubmit_changeset(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_RESUBMIT_OWN, _C.CHANGESET_RESUBMIT_ANY),
    _: Empty = body(Empty),
) -> dict[str, Any]:
    """Freeze the next revision; votes are void."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_RESUBMIT_OWN)
    return await _submit(caller, found, again=True)


@router.post("/changesets/{cs}/review")
async def review_changeset(
    cs: str, caller: Caller = capability(_C.CHANGESET_REVIEW_OTHERS), review: Review = body(Review)
) -> dict[str, Any]:
    """Approve, request changes, or reject; never one's own."""
    found = await _changeset(caller, cs)
    review_id = await changeset_moves.review(
        caller.platform, caller.call, caller.of_app, found, action=review.action, comment=review.comment
    )
    present = await _changeset(caller, cs)
    vote = next(row for row in changeset_records.review_records(present) if row["id"] == review_id)
    shown = await changeset_records.shown_all(caller.platform, caller.of_app, [present])
    return data({"review": vote, "changeset": shown[0]})


@router.post("/changesets/{cs}/request-review")
async def request_review(
    cs: str, caller: Caller = capability(_C.CHANGESET_REQUEST_REVIEW_OWN), request: ReviewRequest = body(ReviewRequest)
) -> dict[str, Any]:
    """Ask a reviewer or higher to review it; they are told."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_REQUEST_REVIEW_OWN)
    await changeset_moves.request_review(caller.platform, caller.call, found, request.user_id)
    return data(await _shown(caller, cs))


@router.post("/changesets/{cs}/queue")
async def queue_changeset(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_QUEUE_OWN, _C.CHANGESET_QUEUE_ANY),
    _: Empty = body(Empty),
) -> dict[str, Any]:
    """Put it into the queue."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_QUEUE_OWN)
    await changeset_moves.enqueue(caller.platform, caller.call, caller.of_app, found)
    return data(await _shown(caller, cs))


@router.post("/changesets/{cs}/move-to-draft")
async def move_to_draft(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_TO_DRAFT_OWN, _C.CHANGESET_TO_DRAFT_ANY),
    _: Empty = body(Empty),
) -> dict[str, Any]:
    """Return it to draft."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_TO_DRAFT_OWN)
    await changeset_moves.leave(caller.platform, caller.call, found, Move.MOVE_TO_DRAFT)
    return data(await _shown(caller, cs))


@router.post("/changesets/{cs}/revalidate", status_code=202)
async def revalidate_changeset(
    cs: str,
    caller: Caller = capability(_C.CHANGESET_REVALIDATE_OWN, _C.CHANGESET_REVALIDATE_ANY),
    _: Empty = body(Empty),
) -> dict[str, Any]:
    """Judge a queued changeset again on the present integration head."""
    found = await _own_changeset(caller, cs, _C.CHANGESET_REVALIDATE_OWN)
    job_id = await changeset_moves.revalidate(caller.platform, caller.call, found)
    return data({"job": job_record(await records.get(caller.platform.db, "jobs", job_id, what="job"))})


@router.get("/changesets/{cs}/revisions")
async def list_revisions(
    cs: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.CHANGESET_READ)
) -> dict[str, Any]:
    """What was submitted, newest first."""
    revisions = await changeset_records.revision_records(caller.platform, await _changeset(caller, cs))
    return cut(revisions[::-1], page, limit)


@router.get("/changesets/{cs}/reviews")
async def list_reviews(
    cs: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.CHANGESET_READ)
) -> dict[str, Any]:
    """What reviewers said, newest first."""
    return cut(changeset_records.review_records(await _changeset(caller, cs))[::-1], page, limit)


@router.get("/changesets/{cs}/timeline")
async def show_timeline(
    cs: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(_C.CHANGESET_READ)
) -> dict[str, Any]:
    """What happened, oldest first, and what it waits for now."""
    found = await timeline.timeline(caller.platform, caller.of_app, await _changeset(caller, cs), number=page, limit=limit)
    shown = await _shown(caller, cs)
    waits = {"waiting_for": shown["waiting_for"], "blockers": shown["blockers"]}
    return {**listed([], found), "data": {"events": found.items, **waits}}


@router.get("/queue")
async def show_queue(caller: Caller = capability(_C.QUEUE_READ)) -> dict[str, Any]:
    """The queue in its order, with the progress of the present epoch."""
    queue = await changeset_records.queue_of(caller.platform, caller.of_app["_id"])
    items = [
        {
            "changeset_id": entry.changeset_id,
            "title": entry.title,
            "position": number,
            "queued_at": entry.queued_at,
            "state": entry.state.value,
            "status": entry.status.value,
            "job_id": entry.job_id,
            "release_id": entry.reserved_by,
        }
        for number, entry in enumerate(queue.entries, start=1)
    ]
    return data(
        {
            "version": queue.version,
            "epoch": queue.epoch,
            "integration_sha": queue.integration_sha,
            "progress": {"done": queue.progress_done, "total": queue.progress_total},
            "items": items,
        }
    )


@router.post("/queue/reorder")
async def reorder_queue(
    caller: Caller = capability(_C.QUEUE_REORDER),
    order: Order = body(Order),
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Another order, against the version that was read."""
    version = required_version(if_match, field="If-Match")
    if await recall(caller.platform.db, caller.call) is not None:
        return await show_queue(caller)  # a repeat, which the queue may have forgotten
    commands = caller.platform.commands
    command = ReorderCommand(
        id=caller.call.command_id,
        actor=caller.call.actor,
        not_after=commands.not_after(),
        ordered_changeset_ids=order.ordered_changeset_ids,
        expected_version=version,
    )
    await commands.send(commands.queue_start(caller.of_app["_id"]), "reorder", command)
    await keep(caller.platform.db, caller.call, {"reordered": True})
    return await show_queue(caller)
