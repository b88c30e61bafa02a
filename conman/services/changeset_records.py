"""Changesets, revisions and reviews as `api.md` 4 shows them."""

from __future__ import annotations

from typing import Any

from conman.domain.changeset import Changeset
from conman.domain.changeset_waits import Blocker, Surroundings, blockers
from conman.domain.queue import Entry, Queue
from conman.services.apps import integration_head
from conman.services.call import record
from conman.services.changesets import owned, required_approvals
from conman.services.override_contents import shown_overrides
from conman.services.overrides import overrides_in_force
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document


async def queue_of(platform: Platform, app_id: str) -> Queue:
    """The queue's present record."""
    document = await records.get(platform.db, "queues", app_id, what="queue")
    return Queue.model_validate(document["owned"])


def changeset_record(app: Document, document: Document, *, integration_sha: str, queue: Queue) -> dict[str, Any]:
    """A changeset as `api.md` 4 shows it; what the queue knows of it is read from the queue."""
    state = owned(document)
    entry = queue.entry(document["_id"])
    positions = {item.changeset_id: number for number, item in enumerate(queue.entries, start=1)}
    release_id = state.release_id or (entry.reserved_by if entry else None)
    found = blockers_of(app, state, integration_sha=integration_sha, entry=entry)
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
        queue_position=positions.get(document["_id"]),
        queued_at=state.queued_at,
        last_revalidation_status=entry.status.value if entry else state.last_revalidation_status,
        last_revalidation_job_id=entry.job_id if entry else state.last_revalidation_job_id,
        conflicts=state.conflicts,
        release_id=release_id,
        waiting_for=found[0].message if found else None,
        blockers=[blocker.record() for blocker in found],
    )


def blockers_of(app: Document, state: Changeset, *, integration_sha: str, entry: Entry | None) -> list[Blocker]:
    """What it waits for, with what the app, the branch and the queue say now."""
    present = state.model_copy(update={"required_approvals": required_approvals(app, state)})
    strict = app["settings"]["queue_gate"] == "up_to_date" and not state.hotpatch
    around = Surroundings(
        behind=strict and state.base_sha != integration_sha, release_id=entry.reserved_by if entry is not None else None
    )
    return blockers(present, around)


async def shown(platform: Platform, app: Document, changeset_id: str) -> dict[str, Any]:
    """The present record of one changeset."""
    document = await records.get(platform.db, "changesets", changeset_id, app_id=app["_id"], what="changeset")
    head = await integration_head(platform, app)
    return changeset_record(app, document, integration_sha=head, queue=await queue_of(platform, app["_id"]))


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
