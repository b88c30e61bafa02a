"""Changesets, revisions and reviews as `api.md` 4 shows them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from conman.domain.changeset import Changeset
from conman.domain.changeset_waits import Blocker, Surroundings, blockers
from conman.domain.errors import not_found
from conman.domain.queue import Queue
from conman.services.apps import integration_head
from conman.services.call import record
from conman.services.changesets import owned, required_approvals
from conman.services.override_contents import shown_overrides
from conman.services.overrides import overrides_in_force
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document


@dataclass(frozen=True, slots=True)
class Place:
    """Where the queue lists a changeset, from 1, and what it knows of it."""

    position: int
    status: str
    job_id: str | None
    reserved_by: str | None


_PLACE = ("changeset_id", "status", "job_id", "reserved_by")


async def places_in_queue(platform: Platform, app_id: str) -> dict[str, Place]:
    """Each queued changeset's place: of a long queue only what changesets show is read."""
    wanted = {f"owned.entries.{name}": 1 for name in _PLACE}
    document = await platform.db["queues"].find_one({"_id": app_id}, wanted)
    if document is None:
        raise not_found("queue")
    return {
        entry["changeset_id"]: Place(number, entry["status"], entry.get("job_id"), entry.get("reserved_by"))
        for number, entry in enumerate(document["owned"].get("entries", []), start=1)
    }


async def queue_of(platform: Platform, app_id: str) -> Queue:
    """The queue's present record."""
    document = await records.get(platform.db, "queues", app_id, what="queue")
    return Queue.model_validate(document["owned"])


def changeset_record(app: Document, document: Document, *, integration_sha: str, place: Place | None) -> dict[str, Any]:
    """A changeset as `api.md` 4 shows it; what the queue knows of it is read from the queue."""
    state = owned(document)
    release_id = state.release_id or (place.reserved_by if place else None)
    found = blockers_of(app, state, integration_sha=integration_sha, place=place)
    return record(
        document,
        "title",
        "description",
        workspace_id=state.workspace_id,
        author_user_id=state.author_user_id,
        state=state.state.value,
        base_sha=state.base_sha,
        head_sha=state.head_sha,
        current_revision=state.current_revision,
        approval_count=state.approval_count,
        required_approval_count=required_approvals(app, state, overrides_in_force(document)),
        up_to_date=state.base_sha == integration_sha,
        hotpatch=state.hotpatch,
        gate=state.gate.model_dump(mode="json", exclude={"fresh"}) if state.gate else None,
        queue_position=place.position if place else None,
        queued_at=state.queued_at,
        last_revalidation_status=place.status if place else state.last_revalidation_status,
        last_revalidation_job_id=place.job_id if place else state.last_revalidation_job_id,
        conflicts=state.conflicts,
        release_id=release_id,
        waiting_for=found[0].message if found else None,
        blockers=[blocker.record() for blocker in found],
    )


def blockers_of(app: Document, state: Changeset, *, integration_sha: str, place: Place | None) -> list[Blocker]:
    """What it waits for, with what the app, the branch and the queue say now."""
    present = state.model_copy(update={"required_approvals": required_approvals(app, state)})
    strict = app["settings"]["queue_gate"] == "up_to_date" and not state.hotpatch
    around = Surroundings(
        behind=strict and state.base_sha != integration_sha, release_id=place.reserved_by if place is not None else None
    )
    return blockers(present, around)


async def shown(platform: Platform, app: Document, changeset_id: str) -> dict[str, Any]:
    """The present record of one changeset."""
    document = await records.get(platform.db, "changesets", changeset_id, app_id=app["_id"], what="changeset")
    return (await shown_all(platform, app, [document]))[0]


async def shown_all(platform: Platform, app: Document, documents: list[Document]) -> list[dict[str, Any]]:
    """Changesets that have been read, as they stand before the integration branch and in the queue."""
    # The queue after the changesets: what a command has moved there and shows in its record is found.
    head, places = await asyncio.gather(integration_head(platform, app), places_in_queue(platform, app["_id"]))
    return [changeset_record(app, row, integration_sha=head, place=places.get(row["_id"])) for row in documents]


async def revision_records(platform: Platform, document: Document) -> list[dict[str, Any]]:
    """The revisions, oldest first, with their overrides as they were given, secrets masked."""
    revisions = owned(document).revisions
    overrides = await shown_overrides(platform.db, *(revision.overrides for revision in revisions))
    return [
        {
            "id": f"{document['_id']}:{revision.revision_number}",
            "app_id": document["app_id"],
            "updated_at": revision.created_at,
            "version": 1,
            "changeset_id": document["_id"],
            **revision.model_dump(mode="json"),
            "overrides": given,
        }
        for revision, given in zip(revisions, overrides, strict=True)
    ]


def review_records(document: Document) -> list[dict[str, Any]]:
    """The votes, oldest first; `carried_to` is the later revision that one stands for too (`carry_votes`)."""
    state = owned(document)
    counted = {vote.id for vote in state.counted()}
    return [
        {
            "id": vote.id,
            "app_id": document["app_id"],
            "changeset_id": document["_id"],
            "reviewer_user_id": vote.reviewer_user_id,
            "action": vote.action,
            "comment": vote.comment,
            "revision_number": vote.revision_number,
            "carried_to": vote.carried_to,
            "void": vote.id not in counted,
            "created_at": vote.at,
            "updated_at": vote.at,
            "version": 1,
            "created_by": vote.reviewer_user_id,
        }
        for vote in state.votes
    ]
