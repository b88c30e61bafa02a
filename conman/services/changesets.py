"""Changesets: the Git work and the facts that their commands need (`durability.md` 1), and their records."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from pymongo.errors import DuplicateKeyError

from conman.domain import changeset as rules
from conman.domain.app import revision_ref
from conman.domain.changeset import Changeset, ChangesetState, Move, QueueFacts, ReviewFacts, SubmitFacts
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.queue import Queue
from conman.faults import fault_point
from conman.git.adapter import RefUpdate, StaleRef
from conman.services.apps import integration_head
from conman.services.call import Call, has_happened, record
from conman.services.platform import Platform
from conman.services.sync import conflict_paths, head_for_submit
from conman.services.votes import take_back_ineligible
from conman.store import records
from conman.store.database import Document
from conman.workflows.changeset import LeaveCommand, QueueCommand, ReviewCommand, SubmitCommand
from conman.workflows.client import EntityWorkflow


def owned(document: Document) -> Changeset:
    """What the workflow owns of a changeset's document."""
    return Changeset.model_validate(document["owned"])


async def create(
    platform: Platform, call: Call, app: Document, workspace: Document, *, title: str, description: str | None
) -> Document:
    """A draft on a workspace. Raises `conflict` when the workspace has an open changeset (a unique index holds it)."""
    changeset_id = call.derived_id("changeset")
    state = Changeset(
        app_id=app["_id"],
        author_user_id=call.user_id,
        workspace_id=workspace["_id"],
        title=title,
        hotpatch=workspace["hotpatch"],
        required_approvals=app["settings"]["required_approval_count"],
    )
    event = Event(
        "changeset",
        changeset_id,
        "created",
        after={"workspace_id": workspace["_id"], "author_user_id": call.user_id, "title": title, "state": "draft"},
    )
    document = {
        "_id": changeset_id,
        "app_id": app["_id"],
        "title": title,
        "description": description,
        "open_slot": workspace["_id"],
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "owned": state.model_dump(mode="json"),
        "outgoing": call.audit(event, app_id=app["_id"]),
    }
    try:
        made, _ = await records.insert_once(platform.db, "changesets", document)
    except DuplicateKeyError as error:
        there = await platform.db["changesets"].find_one({"open_slot": workspace["_id"]})
        if there is not None and "owned" not in there:  # a deletion of the workspace has taken its place
            raise not_found("workspace") from error
        raise DomainError(
            ErrorCode.CONFLICT,
            "The workspace has an open changeset: finish or withdraw it first.",
            {"changeset_id": there["_id"] if there else None},
        ) from error
    return made


def _workflow(platform: Platform, document: Document) -> EntityWorkflow:
    return platform.commands.changeset_start(document["app_id"], document["_id"], document["title"])


async def submit(platform: Platform, call: Call, app: Document, document: Document, *, again: bool) -> dict[str, Any]:
    """Commit what is pending, bring the branch up to date, freeze it, and ask the workflow (`spec.md` 3, first rule).

    Raises `invalid_transition`, `out_of_date` when a sync has conflicts, or `conflict` when there is nothing to submit.
    """
    state = owned(document)
    done = state.remembered(call.command_id)
    if done is not None:  # its Git work must not be done again: newer edits are not part of this submit
        return dict(done.result)
    rules.target(state.state, Move.RESUBMIT if again else Move.SUBMIT)
    workspace = await records.get(platform.db, "workspaces", state.workspace_id, what="workspace")
    repo = app["repo_path"]
    frozen = await head_for_submit(
        platform,
        call,
        app,
        workspace,
        title=document["title"],
        submitted={revision.head_sha for revision in state.revisions},
        up_to_date=app["settings"]["queue_gate"] == "up_to_date" and not state.hotpatch,
    )
    if frozen.conflicts:
        raise DomainError(
            ErrorCode.OUT_OF_DATE,
            "The integration branch has changed the same places: sync the workspace and resolve the conflicts, then submit.",
            {"conflicts": conflict_paths(frozen.conflicts)},
        )
    head = frozen.sha
    fault_point("submit.committed")
    integration = await integration_head(platform, app)
    base = await platform.git.merge_base(repo, head, integration)
    if base is None:
        raise DomainError(ErrorCode.CONFLICT, "The workspace shares no history with the integration branch: reset it.")
    changed = await platform.git.changed_paths(repo, base, head)
    with suppress(StaleRef):  # the ref's name holds the sha: when it is there already, it has this very value
        await platform.git.update_refs(repo, [RefUpdate(revision_ref(document["_id"], head), None, head)])
    fault_point("submit.frozen")
    facts = SubmitFacts(
        head_sha=head,
        base_sha=base,
        integration_sha=integration,
        changed_files=len(changed),
        job_id=call.derived_id("job"),
        at=call.at,
        required_approvals=required_approvals(app, state),
    )
    command = SubmitCommand(
        id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), facts=facts, again=again
    )
    result = await platform.commands.send(_workflow(platform, document), "submit", command)
    return dict(result)


def required_approvals(app: Document, state: Changeset) -> int:
    """How many approvals this changeset needs; a hotpatch needs two at least (`spec.md` 3)."""
    count = int(app["settings"]["required_approval_count"])
    return max(count, 2) if state.hotpatch else count


async def review(
    platform: Platform,
    call: Call,
    app: Document,
    document: Document,
    *,
    action: Literal["approve", "request_changes", "reject"],
    comment: str | None,
) -> str:
    """One reviewer's word; the id of the review."""
    facts = ReviewFacts(
        review_id=call.derived_id("review"),
        action=action,
        comment=comment,
        at=call.at,
        required_approvals=required_approvals(app, owned(document)),
    )
    command = ReviewCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), facts=facts)
    result = await platform.commands.send(_workflow(platform, document), "review", command)
    return str(result["review_id"])


async def enqueue(platform: Platform, call: Call, app: Document, document: Document) -> None:
    """Put an approved changeset into the queue; back when the queue shows it.

    Only votes of those who may review now count: without them an approval may be none, and this `invalid_transition`.
    """
    await take_back_ineligible(platform, document)
    state = owned(document)
    head = await integration_head(platform, app)
    facts = QueueFacts(integration_sha=head, up_to_date=state.base_sha == head, at=call.at)
    command = QueueCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), facts=facts)
    await platform.commands.send(_workflow(platform, document), "queue", command)


async def leave(platform: Platform, call: Call, document: Document, move: Move) -> None:
    """Return to draft, or withdraw."""
    command = LeaveCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), move=move)
    await platform.commands.send(_workflow(platform, document), "leave", command)


async def revise(
    platform: Platform, call: Call, app: Document, document: Document, *, change: dict[str, Any], version: int | None
) -> Document:
    """Change title or description while it is not at its end."""
    state = owned(document)
    if state.state in rules.TERMINAL:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A changeset that is {state.state.value} can't be edited.",
            {"from": state.state.value, "to": state.state.value},
        )
    expected = version
    while not await has_happened(platform.db, call, document):
        before = {name: document.get(name) for name in change}
        event = Event("changeset", document["_id"], "updated", before=before, after=change)
        if version is None:  # no version was named: what is shown as before must still be what stood there
            expected = document["version"]
        try:
            return await records.update_part(
                platform.db,
                "changesets",
                document["_id"],
                set_fields=change,
                at=call.at,
                outgoing=call.audit(event, app_id=app["_id"]),
                expected_version=expected,
            )
        except DomainError as error:
            document = await records.get(platform.db, "changesets", document["_id"], what="changeset")
            if version is not None and not await has_happened(platform.db, call, document):
                raise error
    return document


async def queue_of(platform: Platform, app_id: str) -> Queue:
    """The queue's present record."""
    document = await records.get(platform.db, "queues", app_id, what="queue")
    return Queue.model_validate(document["owned"])


def changeset_record(app: Document, document: Document, *, integration_sha: str, queue: Queue) -> dict[str, Any]:
    """A changeset as `api.md` 4 shows it; what the queue knows of it is read from the queue."""
    state = owned(document)
    entry = queue.entry(document["_id"])
    positions = {item.changeset_id: number for number, item in enumerate(queue.entries, start=1)}
    waits = rules.waiting_for(state)
    release_id = state.release_id or (entry.reserved_by if entry else None)
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
        required_approval_count=required_approvals(app, state),
        up_to_date=state.base_sha == integration_sha,
        hotpatch=state.hotpatch,
        gate=state.gate.model_dump(mode="json") if state.gate else None,
        queue_position=positions.get(document["_id"]),
        queued_at=state.queued_at,
        last_revalidation_status=entry.status.value if entry else state.last_revalidation_status,
        last_revalidation_job_id=entry.job_id if entry else state.last_revalidation_job_id,
        conflicts=state.conflicts,
        release_id=release_id,
        waiting_for=waits,
        blockers=[],
    )


async def shown(platform: Platform, app: Document, changeset_id: str) -> dict[str, Any]:
    """The present record of one changeset."""
    document = await records.get(platform.db, "changesets", changeset_id, app_id=app["_id"], what="changeset")
    head = await integration_head(platform, app)
    return changeset_record(app, document, integration_sha=head, queue=await queue_of(platform, app["_id"]))


def revision_records(document: Document) -> list[dict[str, Any]]:
    """The revisions, oldest first."""
    return [
        {
            "id": f"{document['_id']}:{revision.revision_number}",
            "app_id": document["app_id"],
            "updated_at": revision.created_at,
            "version": 1,
            "changeset_id": document["_id"],
            **revision.model_dump(mode="json"),
        }
        for revision in owned(document).revisions
    ]


def review_records(document: Document) -> list[dict[str, Any]]:
    """The votes, oldest first."""
    return [
        {
            "id": vote.id,
            "app_id": document["app_id"],
            "changeset_id": document["_id"],
            "reviewer_user_id": vote.reviewer_user_id,
            "action": vote.action,
            "comment": vote.comment,
            "revision_number": vote.revision_number,
            "void": vote.void,
            "created_at": vote.at,
            "updated_at": vote.at,
            "version": 1,
            "created_by": vote.reviewer_user_id,
        }
        for vote in owned(document).votes
    ]


def parse_states(text: str | None) -> list[str] | None:
    """The states of a `?state=a,b` filter. Raises `validation_error` for an unknown one."""
    if text is None:
        return None
    states = [part.strip() for part in text.split(",") if part.strip()]
    known = {state.value for state in ChangesetState}
    for state in states:
        if state not in known:
            raise invalid("state", f"{state!r} is no state; known are {', '.join(sorted(known))}")
    return states
