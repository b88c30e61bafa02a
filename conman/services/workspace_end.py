"""Going back to the baseline, and deleting a workspace (`spec.md` 7)."""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError

from conman.domain.app import BRANCHES, journal_ref, pending_ref, scratch_ref
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.workspace import BaseRef, JournalEntry, MoveKind, move_event
from conman.faults import fault_point
from conman.git.adapter import RefUpdate, StaleRef
from conman.services.apps import integration_head
from conman.services.call import Call, has_happened
from conman.services.platform import Platform
from conman.services.workspace_history import move_by, record_history
from conman.services.workspace_refs import TRIES, Standing, look, move, scratch, still_there, turn
from conman.services.workspaces import Start, baseline, pending_edits
from conman.store import records
from conman.store.database import Document


async def reset(platform: Platform, call: Call, app: Document, workspace: Document) -> None:
    """Move the branch to the baseline and drop what is pending (`spec.md` 7).

    It also mends a branch that was deleted or moved outside Conman. An open changeset is no obstacle: its revisions are kept by
    refs of their own.
    """
    async with turn(workspace["_id"]), scratch(platform, app, workspace["_id"], call) as making:
        for _ in range(TRIES):
            if await move_by(platform, app, workspace["_id"], call) is not None:
                return
            seen = await look(platform, app, workspace)
            await record_history(platform, app, workspace["_id"], call)
            await still_there(platform, workspace["_id"])  # after the look: a deletion between would have been seen
            start = await baseline(platform, app, hotpatch=workspace["hotpatch"])
            entry = await _reset_entry(platform, call, app, workspace, seen, start)
            try:
                await move(platform, call, app, workspace, seen, making, entry)
            except StaleRef:
                await making.again()
                continue
            return
    raise DomainError(ErrorCode.STALE_WRITE, "The workspace keeps changing: stop editing for a moment, then reset it again.")


async def _reset_entry(
    platform: Platform, call: Call, app: Document, workspace: Document, seen: Standing, start: Start
) -> JournalEntry:
    integration = await integration_head(platform, app)

    async def side(head: str) -> dict[str, Any]:
        return {"head_sha": head, "base_sha": await platform.git.merge_base(app["repo_path"], head, integration)}

    before = await side(seen.head or seen.known or workspace["start_sha"])
    event = Event(
        "workspace",
        workspace["_id"],
        "reset",
        before={**before, "pending_edits": await pending_edits(platform, app, seen), "pending_sha": seen.pending},
        after={**await side(start.sha), "base_ref_type": start.type, "base_ref_value": start.value},
        git_sha=start.sha,
    )
    return JournalEntry(
        kind=MoveKind.RESET,
        command_id=call.command_id,
        user_id=call.user_id,
        at=call.at,
        after=start.sha,
        events=[move_event(event)],
        base=BaseRef(type=start.type, value=start.value),
    )


async def was_deleted_by(platform: Platform, call: Call, workspace_id: str) -> bool:
    """Whether an earlier request with this call's `Idempotency-Key` deleted it: the event may still be on the record."""
    return await has_happened(platform.db, call, await records.find(platform.db, "workspaces", workspace_id) or {})


async def delete(platform: Platform, call: Call, app: Document, workspace: Document) -> None:
    """Delete a workspace with its refs. Raises `conflict` for the default one, or while a changeset is open on it.

    The workspace's place among the open changesets is taken first, for ever: the unique index that holds one open changeset per
    workspace decides which of a deletion and a new changeset comes first.
    """
    if workspace["is_default"]:
        raise DomainError(ErrorCode.CONFLICT, "The default workspace can't be deleted: reset it to start afresh.")
    await _take_place(platform, call, workspace)
    fault_point("workspace.closed")
    await record_history(platform, app, workspace["_id"], call)
    seen = await look(platform, app, workspace)
    event = Event(
        "workspace",
        workspace["_id"],
        "deleted",
        before={
            "owner_user_id": workspace["owner_user_id"],
            "branch_name": workspace["branch_name"],
            "head_sha": seen.head or seen.known or workspace["start_sha"],
            "title": workspace["title"],
            "pending_edits": await pending_edits(platform, app, seen),
        },
    )
    going = await records.update_part(
        platform.db,
        "workspaces",
        workspace["_id"],
        set_fields={"deleting": True},
        at=call.at,
        outgoing=call.audit(event, app_id=app["_id"]),
    )
    fault_point("workspace.deleting")
    await _remove(platform, app, going)


async def _take_place(platform: Platform, call: Call, workspace: Document) -> None:
    slot = workspace["_id"]
    try:
        await platform.db["changesets"].insert_one({"_id": f"deleted:{slot}", "open_slot": slot, "created_at": call.at})
    except DuplicateKeyError as error:
        holder = await platform.db["changesets"].find_one({"open_slot": slot}, {"_id": 1})
        if holder is not None and holder["_id"] == f"deleted:{slot}":
            return  # an earlier request was cut short, and is finished by this one
        raise DomainError(
            ErrorCode.CONFLICT,
            "The workspace has an open changeset: finish or withdraw it first.",
            {"changeset_id": holder["_id"] if holder is not None else None},
        ) from error


async def _remove(platform: Platform, app: Document, workspace: Document) -> None:
    """Remove the refs, then the record. What a save puts there meanwhile goes too."""
    repo, workspace_id = app["repo_path"], workspace["_id"]
    named = [journal_ref(workspace_id), BRANCHES + workspace["branch_name"], pending_ref(workspace_id)]
    async with turn(workspace_id):
        for _ in range(TRIES):
            refs = {ref: await platform.git.resolve(repo, ref) for ref in named}
            refs |= await platform.git.list_refs(repo, scratch_ref(workspace_id, ""))
            try:
                await platform.git.update_refs(repo, [RefUpdate(ref, sha, None) for ref, sha in refs.items() if sha is not None])
            except StaleRef:
                continue
            break
        else:
            raise DomainError(ErrorCode.STALE_WRITE, "Somebody is saving into the workspace: try again.")
    await platform.db["workspaces"].delete_one({"_id": workspace_id, "deleting": True, "outgoing.0": {"$exists": False}})


async def finish_deletions(platform: Platform, app: Document) -> None:
    """Finish the deletions of an app that a crash cut short; their events are written already."""
    async for workspace in platform.db["workspaces"].find({"app_id": app["_id"], "deleting": True}):
        await _remove(platform, app, workspace)
