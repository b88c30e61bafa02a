"""Going back to the baseline, and deleting a workspace (`spec.md` 7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from conman.domain.app import BRANCHES, journal_ref, pending_ref, scratch_ref
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.temp_env import TempEnvKind
from conman.domain.times import later
from conman.domain.workspace import BaseRef, JournalEntry, MoveKind, move_event
from conman.faults import fault_point
from conman.git.adapter import RefUpdate, StaleRef
from conman.services.apps import integration_head
from conman.services.call import Call, has_happened
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.services.temp_env_use import COLLECTION as TEMP_ENVS
from conman.services.workspace_history import move_by, record_history
from conman.services.workspace_refs import TRIES, Standing, look, move, scratch, still_there, turn
from conman.services.workspaces import Start, baseline, pending_edits
from conman.store import records
from conman.store.database import Database, Document

ABANDONED_AFTER: Final = timedelta(minutes=10)
"""When a deletion that has not gone on has died with its process: each of its steps takes seconds."""


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
    """Delete a workspace with its refs.

    Raises `conflict` for the default one, and while a changeset is open on it or a temp env of it is live.

    The workspace's places among the open changesets and the live temp envs are taken first, for ever: the unique indexes that
    hold one of each per workspace decide which of a deletion and a new one comes first.
    """
    if workspace["is_default"]:
        raise DomainError(ErrorCode.CONFLICT, "The default workspace can't be deleted: reset it to start afresh.")
    await _take_places(platform, call, workspace)
    fault_point("workspace.closed")
    await record_history(platform, app, workspace["_id"], call)
    seen = await look(platform, app, workspace)
    await _still_closed(platform.db, workspace["_id"])
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a workspace has room for one: the collection, and the value of the field that a unique index is on."""

    collection: str
    field: str
    slot: str
    taken: str
    """What to do while another one has it."""
    named: str


def _places(workspace_id: str) -> tuple[_Place, _Place]:
    live = f"{TempEnvKind.WORKSPACE.value}:{workspace_id}"
    taken = "The workspace has a live temporary environment: delete that first."
    open_one = "The workspace has an open changeset: finish or withdraw it first."
    return (
        _Place(TEMP_ENVS, "live_slot", live, taken, "temp_env_id"),
        _Place("changesets", "open_slot", workspace_id, open_one, "changeset_id"),
    )


async def _take_places(platform: Platform, call: Call, workspace: Document) -> None:
    """Take both places, or neither. Raises `conflict` naming who has one.

    Each deletion leaves its mark on a place, also on one that another has taken; one that is refused gives back what has its mark
    still, since nobody else counts on that. It goes on when it has both at one moment: the second place has its mark still after
    it has come by the first one again.
    """
    mark = new_id(call.at)
    temp_envs, changesets = _places(workspace["_id"])
    while True:
        await _take(platform.db, temp_envs, mark, call.at)
        try:
            await _take(platform.db, changesets, mark, call.at)
        except DomainError:
            await _give_back(platform.db, temp_envs, mark)
            raise
        try:  # another deletion, which was refused, may have given it back meanwhile
            await _take(platform.db, temp_envs, mark, call.at)
        except DomainError:
            await _give_back(platform.db, changesets, mark)
            raise
        if await platform.db[changesets.collection].find_one({changesets.field: changesets.slot, "by": mark}, {"_id": 1}):
            return


async def _still_closed(db: Database, workspace_id: str) -> None:
    """Raises `conflict` when it took so long that its places were given back as those of a deletion that had died.

    Whichever deletion holds them now: it has found nothing open there.
    """
    for place in _places(workspace_id):
        if await db[place.collection].find_one({"_id": _held(place)}, {"_id": 1}) is None:
            raise DomainError(
                ErrorCode.CONFLICT, "The deletion took too long, and the workspace is in use again: delete it again."
            )


async def give_back_abandoned(db: Database, workspace_id: str) -> bool:
    """Give back the places that a deletion took which died before it was settled: the workspace is of use again then."""
    workspace = await records.find(db, "workspaces", workspace_id)
    if workspace is None or workspace.get("deleting", False):
        return False
    dead = {"taken_at": {"$lt": later(now(), -ABANDONED_AFTER)}}
    gone = [await db[place.collection].delete_one({"_id": _held(place), **dead}) for place in _places(workspace_id)]
    return any(result.deleted_count for result in gone)


def _held(place: _Place) -> str:
    return f"deleted:{place.slot.rpartition(':')[2]}"


async def _take(db: Database, place: _Place, mark: str, at: str) -> None:
    """Take a place, or mark it where a deletion has it already. Raises `conflict` where a changeset or temp env has it."""
    rows = db[place.collection]
    while True:
        taken = {"by": mark, "taken_at": now()}
        if (await rows.update_one({"_id": _held(place)}, {"$set": taken})).matched_count:
            return
        try:
            await rows.insert_one({"_id": _held(place), place.field: place.slot, "created_at": at, **taken})
        except DuplicateKeyError as error:
            holder = await rows.find_one({place.field: place.slot}, {"_id": 1})
            if holder is not None and holder["_id"] != _held(place):
                raise DomainError(ErrorCode.CONFLICT, place.taken, {place.named: holder["_id"]}) from error
        else:
            return


async def _give_back(db: Database, place: _Place, mark: str) -> None:
    await db[place.collection].delete_one({"_id": _held(place), "by": mark})


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
