"""Commands on changesets: the Git work and the facts that each needs, and the sending of it (`durability.md` 1)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from conman.domain.app import revision_ref
from conman.domain.changeset import Changeset, Move, target
from conman.domain.changeset_commands import LeaveCommand, QueueCommand, RequestReviewCommand, ReviewCommand, SubmitCommand
from conman.domain.changeset_queue import QueueFacts, check_revalidate
from conman.domain.changeset_review import ReviewFacts
from conman.domain.changeset_submit import SubmitFacts
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.membership import may_review
from conman.domain.messages import RevalidateCommand
from conman.domain.queue import Queue
from conman.faults import fault_point
from conman.git.adapter import RefUpdate, StaleRef
from conman.services.apps import integration_head
from conman.services.call import Call, keep, recall
from conman.services.changesets import owned, required_approvals
from conman.services.conflicts import conflicts_between
from conman.services.overrides import to_freeze
from conman.services.patches import is_rebase, patch_id
from conman.services.platform import Platform
from conman.services.sync import conflict_paths, head_for_submit
from conman.services.votes import ineligible, take_back_ineligible
from conman.store import memberships, records
from conman.store.database import Document
from conman.store.outgoing import deliver
from conman.workflows.client import EntityWorkflow


def workflow_of(platform: Platform, document: Document) -> EntityWorkflow:
    """The workflow that owns a changeset's state."""
    return platform.commands.changeset_start(document["app_id"], document["_id"], document["title"])


async def submit(platform: Platform, call: Call, app: Document, document: Document, *, again: bool) -> dict[str, Any]:
    """Commit what is pending, bring the branch up to date, freeze it, and ask the workflow (`spec.md` 3, first rule).

    Raises `invalid_transition`, `out_of_date` when a sync has conflicts, or `conflict` when there is nothing to submit.
    """
    state = owned(document)
    done = state.remembered(call.command_id)
    if done is not None:  # its Git work must not be done again: newer edits are not part of this submit
        await deliver(platform.db, "changesets", document)  # the job that the answer names may still be on its way
        return dict(done.result)
    target(state.state, Move.RESUBMIT if again else Move.SUBMIT)
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
    patch, same_as = await _rebased(platform, app, state, base, head)
    with suppress(StaleRef):  # the ref's name holds the sha: when it is there already, it has this very value
        await platform.git.update_refs(repo, [RefUpdate(revision_ref(document["_id"], head), None, head)])
    fault_point("submit.frozen")
    present = await records.get(platform.db, "changesets", document["_id"], what="changeset")
    frozen_overrides = await to_freeze(platform, app, present)
    facts = SubmitFacts(
        head_sha=head,
        base_sha=base,
        integration_sha=integration,
        changed_files=len(changed),
        overrides=frozen_overrides,
        job_id=call.derived_id("job"),
        at=call.at,
        required_approvals=required_approvals(app, state, frozen_overrides),
        patch_id=patch,
        same_patch_as=same_as,
        ineligible_user_ids=[] if same_as is None else await ineligible(platform.db, state.app_id, state.standing()),
    )
    command = SubmitCommand(
        id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), facts=facts, again=again
    )
    result = await platform.commands.send(workflow_of(platform, document), "submit", command)
    return dict(result)


async def _rebased(platform: Platform, app: Document, state: Changeset, base: str, head: str) -> tuple[str | None, int | None]:
    """The name of the change, and the number of the present revision where that makes the same one (`carry_votes`)."""
    if app["settings"]["carry_votes"] != "identical_patch":
        return None, None
    repo = app["repo_path"]
    patch = await patch_id(platform.git, repo, base, head)
    if not state.revisions or not state.standing():
        return patch, None
    before = state.revisions[-1]
    known = before.patch_id or await patch_id(platform.git, repo, before.base_sha, before.head_sha)
    same = patch == known and await is_rebase(platform.git, repo, before.head_sha, base, head)
    return patch, before.revision_number if same else None


async def review(
    platform: Platform,
    call: Call,
    app: Document,
    document: Document,
    *,
    action: Literal["approve", "request_changes", "reject"],
    comment: str | None,
) -> str:
    """One reviewer's word on the present revision; the id of the review."""
    state = owned(document)
    facts = ReviewFacts(
        review_id=call.derived_id("review"),
        action=action,
        comment=comment,
        at=call.at,
        required_approvals=required_approvals(app, state),
        revision_number=state.current_revision,
    )
    command = ReviewCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), facts=facts)
    result = await platform.commands.send(workflow_of(platform, document), "review", command)
    return str(result["review_id"])


async def request_review(platform: Platform, call: Call, document: Document, reviewer_user_id: str) -> None:
    """Ask a member who may review to do so; they are told.

    Raises `validation_error` for somebody who may not, `invalid_transition` where nothing can be reviewed.
    """
    state = owned(document)
    if state.remembered(call.command_id) is None:
        if not may_review(await memberships.role_now(platform.db, document["app_id"], reviewer_user_id)):
            raise invalid("user_id", "must be a member of the app who is a reviewer or higher")
        command = RequestReviewCommand(
            id=call.command_id,
            actor=call.actor,
            not_after=platform.commands.not_after(),
            reviewer_user_id=reviewer_user_id,
            at=call.at,
        )
        await platform.commands.send(workflow_of(platform, document), "request_review", command)


async def enqueue(platform: Platform, call: Call, app: Document, document: Document) -> None:
    """Put an approved changeset into the queue, by the gate that holds for it; back when the queue shows it.

    Only votes of those who may review now count: without them an approval may be none, and this `invalid_transition`.
    """
    await take_back_ineligible(platform, document)
    state = owned(document)
    head = await integration_head(platform, app)
    clean_merge = state.hotpatch or app["settings"]["queue_gate"] == "clean_merge"
    conflicts = []
    if clean_merge and state.head_sha is not None:
        conflicts = conflict_paths(await conflicts_between(platform.git, app["repo_path"], head, state.head_sha))
    facts = QueueFacts(
        integration_sha=head,
        up_to_date=state.base_sha == head,
        at=call.at,
        gate="clean_merge" if clean_merge else "up_to_date",
        head_sha=state.head_sha,
        conflicts=conflicts,
    )
    command = QueueCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), facts=facts)
    await platform.commands.send(workflow_of(platform, document), "queue", command)


async def revalidate(platform: Platform, call: Call, document: Document) -> str:
    """Judge what the queue lists again on the present integration head; the id of the job.

    Raises `invalid_transition`, unless a repeat finds that the queue has done it.
    """
    earlier = await recall(platform.db, call)
    if earlier is not None:
        return str(earlier["job_id"])
    queue = await records.get(platform.db, "queues", document["app_id"], what="queue")
    if Queue.model_validate(queue["owned"]).remembered(call.command_id) is None:
        check_revalidate(owned(document))
    command = RevalidateCommand(
        id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), changeset_id=document["_id"]
    )
    result = await platform.commands.send(platform.commands.queue_start(document["app_id"]), "revalidate", command)
    # The queue remembers its latest commands only: after a sweep a repeat would be another revalidation.
    await keep(platform.db, call, {"job_id": result["job_id"]})
    return str(result["job_id"])


async def leave(platform: Platform, call: Call, document: Document, move: Move) -> None:
    """Return to draft, or withdraw."""
    command = LeaveCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after(), move=move)
    await platform.commands.send(workflow_of(platform, document), "leave", command)
