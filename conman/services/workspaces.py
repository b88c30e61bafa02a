"""Workspaces: how they are made, shown and edited (`spec.md` 7).

A workspace's record is made first, unready, so that its name is taken by one request only; its refs follow in one transaction,
and then the record says that it is ready, with its audit event. Whoever comes across an unready one finishes it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from conman.domain.app import (
    BRANCHES,
    check_branch_name,
    free_branch,
    in_the_way,
    journal_ref,
    pending_ref,
    scratch_ref,
    workspace_branch,
)
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.workspace import BaseRef, JournalEntry, MoveKind
from conman.faults import fault_point
from conman.git.adapter import GitError, RefUpdate
from conman.services.apps import integration_head
from conman.services.call import Call, has_happened, record
from conman.services.checkpoints import commit_mode
from conman.services.platform import Platform
from conman.services.workspace_refs import TRIES, Scratch, Standing, clerk, look, still_there
from conman.store import records
from conman.store.database import Document
from conman.store.outgoing import deliver


@dataclass(frozen=True, slots=True)
class Start:
    """What a workspace starts from: a release or the integration branch, and the commit that it is now."""

    type: str
    value: str
    sha: str
    hotpatch: bool = False
    from_release_id: str | None = None


async def _canonical_release(platform: Platform, app: Document) -> str | None:
    canonical = await records.find(platform.db, "environments", app["settings"]["canonical_env_id"])
    return canonical["owned"].get("current_release_id") if canonical else None


async def _start_at_release(platform: Platform, release_id: str, *, hotpatch: bool) -> Start:
    release = await records.get(platform.db, "releases", release_id, what="release")
    return Start("release", release["owned"]["tag"], release["owned"]["published_sha"], hotpatch, release_id)


async def baseline(platform: Platform, app: Document, *, hotpatch: bool = False) -> Start:
    """What a new workspace starts from, and a reset goes back to (`spec.md` 1).

    A hotpatch starts from what the canonical environment runs, whatever the app's baseline is.
    """
    if hotpatch or app["settings"]["baseline_mode"] == "canonical_env_release":
        release_id = await _canonical_release(platform, app)
        if release_id is not None:
            return await _start_at_release(platform, release_id, hotpatch=hotpatch)
    return Start("integration", app["integration_branch"], await integration_head(platform, app), hotpatch)


async def _start_from(platform: Platform, app: Document, release_id: str) -> Start:
    """The start of a workspace from a published release (`spec.md` 3, hotpatch). Raises `not_found` or `conflict`."""
    release = await records.get(platform.db, "releases", release_id, app_id=app["_id"], what="release")
    if release["owned"].get("published_sha") is None:
        state = release["owned"]["state"]
        raise DomainError(
            ErrorCode.CONFLICT,
            f"The release is not published yet ({state}): a workspace can only start from a published one.",
            {"release_id": release_id, "state": state},
        )
    hotpatch = await _canonical_release(platform, app) == release_id
    return await _start_at_release(platform, release_id, hotpatch=hotpatch)


# -- Making


class _BranchTakenError(Exception):
    """Another workspace, or a branch made outside Conman, has the name or one that Git can't hold beside it."""


async def default_workspace(platform: Platform, call: Call, app: Document) -> tuple[Document, bool]:
    """The caller's default workspace, made on first use; and whether this call made it."""
    slot = f"{app['_id']}:{call.user_id}"
    for _ in range(TRIES):
        there = await platform.db["workspaces"].find_one({"default_slot": slot})
        if there is None:
            start = await baseline(platform, app)
            there = await _make(platform, call, app, chosen=None, title=None, slot=slot, start=start)
        with suppress(_BranchTakenError):  # its making had been cut short, and its name has gone meanwhile: make another
            return await opened(platform, app, there), there["_id"] == call.derived_id("workspace")
    raise _names_keep_going()


def _names_keep_going() -> DomainError:
    return DomainError(ErrorCode.CONFLICT, "The names of branches keep being taken by others: try again.")


async def extra_workspace(
    platform: Platform, call: Call, app: Document, *, title: str | None, branch_name: str | None, from_release_id: str | None
) -> Document:
    """One more workspace. Raises `conflict` when the branch name is taken or the release is not published."""
    if branch_name is not None:
        check_branch_name(branch_name)
    there = await records.find(platform.db, "workspaces", call.derived_id("workspace"))
    if there is not None:
        with suppress(_BranchTakenError):
            return await opened(platform, app, there)
    start = await (baseline(platform, app) if from_release_id is None else _start_from(platform, app, from_release_id))
    return await _make(platform, call, app, chosen=branch_name, title=title, slot=None, start=start)


async def workspace_at_head(platform: Platform, call: Call, app: Document, *, title: str) -> Document:
    """One more workspace, at the integration head whatever the app's baseline is; a repeat finds the same."""
    there = await records.find(platform.db, "workspaces", call.derived_id("workspace"))
    if there is not None:
        with suppress(_BranchTakenError):
            return await opened(platform, app, there)
    start = Start("integration", app["integration_branch"], await integration_head(platform, app))
    return await _make(platform, call, app, chosen=None, title=title, slot=None, start=start)


async def _make(
    platform: Platform, call: Call, app: Document, *, chosen: str | None, title: str | None, slot: str | None, start: Start
) -> Document:
    """Take a branch name and make the workspace: a name that was chosen, or one that is free."""
    for _ in range(TRIES):
        taken = await _taken_names(platform, app)
        if chosen is not None:
            name, obstacle = chosen, in_the_way(chosen, taken)
            if obstacle is not None:
                raise _taken(chosen, obstacle)
        else:
            name = free_branch(workspace_branch(call.user["email"], app["name"], 0 if slot else 1), taken)
        try:
            made, _ = await records.insert_once(
                platform.db, "workspaces", _document(call, app, name, title=title, slot=slot, start=start)
            )
            fault_point("workspace.inserted")
            return await opened(platform, app, made)
        except (DuplicateKeyError, _BranchTakenError):
            there = await platform.db["workspaces"].find_one({"default_slot": slot}) if slot is not None else None
            if there is not None:
                return there
    raise _names_keep_going()


async def _taken_names(platform: Platform, app: Document) -> set[str]:
    """The names of all branches, and of workspaces whose branch is being made."""
    refs = await platform.git.list_refs(app["repo_path"], BRANCHES)
    rows = platform.db["workspaces"].find({"app_id": app["_id"], "ready": False}, {"branch_name": 1})
    return {ref.removeprefix(BRANCHES) for ref in refs} | {row["branch_name"] async for row in rows}


def _taken(name: str, obstacle: str) -> DomainError:
    why = "exists already" if name == obstacle else f"can't be made beside {obstacle}"
    return DomainError(
        ErrorCode.CONFLICT, f"The branch {name} {why}: choose another name.", {"branch_name": name, "in_the_way": obstacle}
    )


def _document(call: Call, app: Document, branch: str, *, title: str | None, slot: str | None, start: Start) -> Document:
    workspace_id = call.derived_id("workspace")
    after = {
        "owner_user_id": call.user_id,
        "branch_name": branch,
        "is_default": slot is not None,
        "base_sha": start.sha,
        "title": title,
        "base_ref_type": start.type,
        "base_ref_value": start.value,
        "hotpatch": start.hotpatch,
        "from_release_id": start.from_release_id,
    }
    document: Document = {
        "_id": workspace_id,
        "app_id": app["_id"],
        "owner_user_id": call.user_id,
        "branch_name": branch,
        "title": title,
        "is_default": slot is not None,
        "commit_mode": None,
        "base_ref_type": start.type,
        "base_ref_value": start.value,
        "start_sha": start.sha,
        "audited_sha": start.sha,
        "journaled_sha": None,
        "hotpatch": start.hotpatch,
        "ready": False,
        "announcement": call.audit(Event("workspace", workspace_id, "created", after=after), app_id=app["_id"]),
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "outgoing": [],
    }
    if slot is not None:
        document["default_slot"] = slot
    return document


async def opened(platform: Platform, app: Document, workspace: Document) -> Document:
    """Make the refs of a workspace whose making was cut short, and say that it is ready."""
    if workspace["ready"]:
        return workspace
    repo, start = app["repo_path"], workspace["start_sha"]
    pending = pending_ref(workspace["_id"])
    if await platform.git.resolve(repo, pending) is None:
        entry = JournalEntry(
            kind=MoveKind.CREATED,
            command_id=f"workspace:{workspace['_id']}",
            user_id=workspace["owner_user_id"],
            at=workspace["created_at"],
            after=start,
            base=BaseRef(type=workspace["base_ref_type"], value=workspace["base_ref_value"]),
        )
        async with Scratch(platform.git, repo, scratch_ref(workspace["_id"], "open")) as making:
            try:
                made = await making.commit_tree_of(start, [start], clerk(entry.at), entry.message())
                await making.move(
                    RefUpdate(journal_ref(workspace["_id"]), None, made),
                    RefUpdate(BRANCHES + workspace["branch_name"], None, start),
                    RefUpdate(pending, None, start),
                )
            except GitError as error:
                await _check_obstacle(platform, app, workspace, error)
        fault_point("workspace.branched")
    ready = await platform.db["workspaces"].find_one_and_update(
        {"_id": workspace["_id"], "ready": False},
        {
            "$set": {"ready": True},
            "$push": {"outgoing": {"$each": workspace.get("announcement", [])}},
            "$unset": {"announcement": ""},
        },
        return_document=ReturnDocument.AFTER,
    )
    ready = ready or await records.get(platform.db, "workspaces", workspace["_id"], what="workspace")
    await deliver(platform.db, "workspaces", ready)
    return ready


async def _check_obstacle(platform: Platform, app: Document, workspace: Document, error: GitError) -> None:
    """What became of refs that could not be made: somebody else finished them, or the name is taken, or Git failed."""
    if await platform.git.resolve(app["repo_path"], pending_ref(workspace["_id"])) is not None:
        return
    refs = await platform.git.list_refs(app["repo_path"], BRANCHES)
    if in_the_way(workspace["branch_name"], [ref.removeprefix(BRANCHES) for ref in refs]) is None:
        raise error
    await platform.db["workspaces"].delete_one({"_id": workspace["_id"], "ready": False})
    raise _BranchTakenError


async def find(platform: Platform, app: Document, workspace_id: str) -> Document:
    """A workspace of the app. Raises `not_found`, also for one that is being deleted."""
    found = await records.get(platform.db, "workspaces", workspace_id, app_id=app["_id"], what="workspace")
    with suppress(_BranchTakenError):  # its making was cut short and its name has gone: it never came to be
        found = await opened(platform, app, found)
    return await still_there(platform, found["_id"])


# -- Editing


async def revise(
    platform: Platform, call: Call, app: Document, workspace: Document, *, change: dict[str, Any], version: int | None
) -> Document:
    """Change title or commit mode (None: the app's default). Raises `stale_write` when `version` is no longer the record's."""
    expected = version
    while not await has_happened(platform.db, call, workspace):
        before = {name: workspace.get(name) for name in change}
        event = Event("workspace", workspace["_id"], "updated", before=before, after=change)
        if version is None:  # no version was named: what is shown as before must still be what stood there
            expected = workspace["version"]
        try:
            return await records.update_part(
                platform.db,
                "workspaces",
                workspace["_id"],
                set_fields=change,
                at=call.at,
                outgoing=call.audit(event, app_id=app["_id"]),
                expected_version=expected,
            )
        except DomainError as error:
            workspace = await still_there(platform, workspace["_id"])
            if version is not None and not await has_happened(platform.db, call, workspace):
                raise error
    return workspace


# -- Showing


async def workspace_record(platform: Platform, app: Document, workspace: Document) -> dict[str, Any]:
    """A workspace as `api.md` 4 shows it, with Git's present truth.

    Of a branch that was moved outside Conman `head_sha` is where it is now, of one that was deleted null; what is pending is
    counted from where Conman left it.
    """
    seen = await look(platform, app, workspace)
    head = await integration_head(platform, app)
    base = await platform.git.merge_base(app["repo_path"], seen.head, head) if seen.head is not None else None
    return record(
        workspace,
        "owner_user_id",
        "branch_name",
        "title",
        "is_default",
        "base_ref_type",
        "base_ref_value",
        "hotpatch",
        commit_mode=commit_mode(app, workspace).value,
        base_sha=base,
        head_sha=seen.head,
        pending_edits=await pending_edits(platform, app, seen),
        integration_sha=head,
        behind=base != head,
    )


async def pending_edits(platform: Platform, app: Document, seen: Standing) -> int:
    """How many paths have edits that no submit has taken yet."""
    left_at = seen.known or seen.head
    if left_at is None or seen.pending is None or left_at == seen.pending:
        return 0
    return len(await platform.git.changed_paths(app["repo_path"], left_at, seen.pending))
