"""Workspaces: a user's branch, with pending edits kept beside it in Git (`spec.md` 7).

A workspace has two refs: its branch, and a private one that holds the pending edits and is never behind the branch. A save moves
the private ref only; a submit moves both in one transaction. So a save that races a submit either is in it, or stays pending on
top of it: nothing is lost and nothing is half in.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from conman.domain.app import BRANCHES, check_branch_name, pending_ref, submit_ref, workspace_branch
from conman.domain.decision import Actor, Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.outgoing import audit_entry
from conman.domain.times import format_time, milliseconds, parse_time
from conman.git.adapter import ChangeStatus, Commit, Conflict, RefUpdate, Signature, StaleRef
from conman.services.apps import integration_head
from conman.services.call import Call, record
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document
from conman.store.outgoing import deliver

TRIES = 20
"""How often a write goes on after losing a race for a ref before it gives up."""

COMMAND_TRAILER = "Conman-Command"
USER_TRAILER = "Conman-User"
TIME_TRAILER = "Conman-At"
"""The save's time in milliseconds; Git keeps whole seconds."""
SUBMIT_TRAILER = "Conman-Submit"


def sync_ref(workspace_id: str) -> str:
    """Where a sync makes its commits before the workspace's branch moves to them."""
    return f"refs/conman/syncs/{workspace_id}"


def author_of(call: Call) -> Signature:
    """The caller as the author of a commit made by this call."""
    return Signature(call.user["name"], call.user["email"], parse_time(call.at))


async def baseline(platform: Platform, app: Document) -> tuple[str, str, str]:
    """What a new workspace starts from: type, value and commit (`spec.md` 1)."""
    if app["settings"]["baseline_mode"] == "canonical_env_release":
        canonical = await records.find(platform.db, "environments", app["settings"]["canonical_env_id"])
        release_id = canonical["owned"].get("current_release_id") if canonical else None
        if release_id is not None:
            release = await records.get(platform.db, "releases", release_id)
            return "release", release["owned"]["tag"], release["owned"]["published_sha"]
    return "integration", app["integration_branch"], await integration_head(platform, app)


async def default_workspace(platform: Platform, call: Call, app: Document) -> tuple[Document, bool]:
    """The caller's default workspace, made on first use; and whether this call made it."""
    slot = f"{app['_id']}:{call.user_id}"
    there = await platform.db["workspaces"].find_one({"default_slot": slot})
    if there is not None:
        return await _with_branch(platform, app, there), there["_id"] == call.derived_id("workspace")
    suffix = 0
    while True:
        name = workspace_branch(call.user["email"], app["name"], suffix)
        suffix += 1
        try:
            return await _insert(platform, call, app, name, title=None, slot=slot), True
        except _BranchTaken:
            there = await platform.db["workspaces"].find_one({"default_slot": slot})
            if there is not None:
                return await _with_branch(platform, app, there), False


async def extra_workspace(
    platform: Platform, call: Call, app: Document, *, title: str | None, branch_name: str | None
) -> Document:
    """One more workspace. Raises `conflict` when the branch name is taken."""
    if branch_name is not None:
        check_branch_name(branch_name)
    suffix = 1
    while True:
        name = branch_name or workspace_branch(call.user["email"], app["name"], suffix)
        suffix += 1
        try:
            return await _insert(platform, call, app, name, title=title, slot=None)
        except _BranchTaken as error:
            if branch_name is not None:
                raise DomainError(ErrorCode.CONFLICT, f"The branch {branch_name} exists already: choose another name.") from error


class _BranchTaken(Exception):
    """Another workspace, or a branch made outside Conman, has the name."""


async def _insert(platform: Platform, call: Call, app: Document, branch: str, *, title: str | None, slot: str | None) -> Document:
    workspace_id = call.derived_id("workspace")
    there = await records.find(platform.db, "workspaces", workspace_id)
    if there is not None:
        return await _with_branch(platform, app, there)
    if await platform.git.resolve(app["repo_path"], BRANCHES + branch) is not None:
        raise _BranchTaken
    ref_type, ref_value, base = await baseline(platform, app)
    event = Event(
        "workspace",
        workspace_id,
        "created",
        after={
            "owner_user_id": call.user_id,
            "branch_name": branch,
            "is_default": slot is not None,
            "base_sha": base,
            "title": title,
        },
    )
    document: Document = {
        "_id": workspace_id,
        "app_id": app["_id"],
        "owner_user_id": call.user_id,
        "branch_name": branch,
        "title": title,
        "is_default": slot is not None,
        "commit_mode": None,
        "base_ref_type": ref_type,
        "base_ref_value": ref_value,
        "start_sha": base,
        "audited_sha": base,
        "hotpatch": False,
        "ready": False,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "outgoing": call.audit(event, app_id=app["_id"]),
    }
    if slot is not None:
        document["default_slot"] = slot
    try:
        made, _ = await records.insert_once(platform.db, "workspaces", document)
    except DuplicateKeyError as error:
        raise _BranchTaken from error
    return await _with_branch(platform, app, made)


async def _with_branch(platform: Platform, app: Document, workspace: Document) -> Document:
    """Make the two refs of a workspace whose making was cut short."""
    if workspace["ready"]:
        return workspace
    repo, start = app["repo_path"], workspace["start_sha"]
    branch, pending = BRANCHES + workspace["branch_name"], pending_ref(workspace["_id"])
    if await platform.git.resolve(repo, pending) is None:
        try:
            await platform.git.update_refs(repo, [RefUpdate(branch, None, start), RefUpdate(pending, None, start)])
        except StaleRef:
            if await platform.git.resolve(repo, pending) is None:
                raise
    ready = await platform.db["workspaces"].find_one_and_update(
        {"_id": workspace["_id"]}, {"$set": {"ready": True}}, return_document=ReturnDocument.AFTER
    )
    return ready or workspace


class Tips:
    """Where a workspace's two refs are: `head` of the branch, `pending` with the edits on top."""

    __slots__ = ("head", "pending")

    def __init__(self, head: str, pending: str) -> None:
        self.head = head
        self.pending = pending


async def tips(platform: Platform, app: Document, workspace: Document) -> Tips:
    """Read both refs. Raises `conflict` when the branch was deleted outside Conman."""
    repo = app["repo_path"]
    head = await platform.git.resolve(repo, BRANCHES + workspace["branch_name"])
    pending = await platform.git.resolve(repo, pending_ref(workspace["_id"]))
    if head is None or pending is None:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"The branch {workspace['branch_name']} was deleted outside Conman: reset the workspace to go on.",
            {"branch_name": workspace["branch_name"]},
        )
    return Tips(head, pending)


async def workspace_record(platform: Platform, app: Document, workspace: Document) -> dict[str, Any]:
    """A workspace as `api.md` 4 shows it, with Git's present truth."""
    at = await tips(platform, app, workspace)
    head = await integration_head(platform, app)
    base = await platform.git.merge_base(app["repo_path"], at.head, head)
    return record(
        workspace,
        "owner_user_id",
        "branch_name",
        "title",
        "is_default",
        "base_ref_type",
        "base_ref_value",
        "hotpatch",
        commit_mode=workspace["commit_mode"] or app["settings"]["commit_mode_default"],
        base_sha=base,
        head_sha=at.head,
        pending_edits=await pending_edits(platform, app, at),
        integration_sha=head,
        behind=base != head,
    )


async def pending_edits(platform: Platform, app: Document, at: Tips) -> int:
    """How many paths have edits that no submit has taken yet."""
    if at.head == at.pending:
        return 0
    return len(await platform.git.changed_paths(app["repo_path"], at.head, at.pending))


async def record_edits(platform: Platform, app: Document, workspace_id: str, call: Call | None = None) -> None:
    """Bring the audit up to the pending ref: one event per path and commit, with ids that come from the commit.

    Git is the truth for files, so a save that crashed after its commit is found here by whoever comes next.
    """
    repo = app["repo_path"]
    for _ in range(TRIES):
        workspace = await records.get(platform.db, "workspaces", workspace_id)
        await deliver(platform.db, "workspaces", workspace)
        tip = await platform.git.resolve(repo, pending_ref(workspace_id))
        seen = workspace["audited_sha"]
        if tip is None or tip == seen:
            return
        entries: list[Document] = []
        for commit in reversed(await platform.git.log(repo, tip, exclude=seen, first_parent=True)):
            entries += await _events_of(platform, app, workspace_id, commit, call)
        written = await platform.db["workspaces"].find_one_and_update(
            {"_id": workspace_id, "audited_sha": seen},
            {"$set": {"audited_sha": tip}, "$push": {"outgoing": {"$each": entries}}},
            return_document=ReturnDocument.AFTER,
        )
        if written is not None:
            await deliver(platform.db, "workspaces", written)


async def _events_of(platform: Platform, app: Document, workspace_id: str, commit: Commit, call: Call | None) -> list[Document]:
    trailers = dict(commit.trailers)
    if COMMAND_TRAILER not in trailers:
        return []
    mine = call is not None and trailers[COMMAND_TRAILER] == call.command_id
    actor = call.actor if call is not None and mine else Actor(user_id=trailers.get(USER_TRAILER))
    at = trailers.get(TIME_TRAILER) or format_time(commit.author.when)
    entries: list[Document] = []
    for number, changed in enumerate(await platform.git.changed_paths(app["repo_path"], commit.parents[0], commit.sha)):

        def side(blob_id: str | None, path: str = changed.path) -> dict[str, Any] | None:
            if blob_id is None:
                return None
            return {"workspace_id": workspace_id, "path": path, "blob_id": blob_id}

        after = side(changed.new_blob_id)
        event = Event(
            "file",
            workspace_id,
            "deleted" if changed.status is ChangeStatus.DELETED else "written",
            before=side(changed.old_blob_id),
            after={**after, "commit_sha": commit.sha} if after else None,
            git_sha=commit.sha,
        )
        entry_id = derived_uuid7(milliseconds(at), "file", commit.sha, str(number), order=number)
        entries.append(audit_entry(entry_id, event, app_id=app["_id"], actor=actor, at=at))
    return entries


async def commit_pending(platform: Platform, call: Call, app: Document, workspace: Document, message: str) -> str:
    """Turn what is pending into one commit on the branch; the branch's head, unchanged when nothing is pending.

    A save that arrives meanwhile makes the transaction fail, and it is tried again with that save in it.
    """
    repo = app["repo_path"]
    branch, pending = BRANCHES + workspace["branch_name"], pending_ref(workspace["_id"])
    for _ in range(TRIES):
        await record_edits(platform, app, workspace["_id"], call)
        at = await tips(platform, app, workspace)
        if at.pending == at.head:
            return at.head
        making = submit_ref(workspace["_id"])
        try:
            made = await platform.git.commit_tree_of(
                repo,
                ref=making,
                expected_old=await platform.git.resolve(repo, making),
                tree_of=at.pending,
                parents=[at.head],
                author=author_of(call),
                message=f"{message}\n\n{SUBMIT_TRAILER}: {call.command_id}\n{USER_TRAILER}: {call.user_id}\n",
            )
            await platform.git.update_refs(repo, [RefUpdate(branch, at.head, made), RefUpdate(pending, at.pending, made)])
        except StaleRef:
            continue
        return made
    raise DomainError(ErrorCode.STALE_WRITE, "The workspace keeps changing: stop editing for a moment, then submit again.")


async def sync(platform: Platform, call: Call, app: Document, workspace: Document) -> list[Conflict]:
    """Bring a branch without pending edits onto the integration head; the conflicts, and nothing moved, where that fails.

    Rebase first; where the rebase conflicts or can't be made, merge (`spec.md` 7).
    """
    repo = app["repo_path"]
    branch, pending = BRANCHES + workspace["branch_name"], pending_ref(workspace["_id"])
    making = sync_ref(workspace["_id"])
    for _ in range(TRIES):
        at = await tips(platform, app, workspace)
        onto = await integration_head(platform, app)
        if await platform.git.is_ancestor(repo, onto, at.head):
            return []
        try:
            old = await platform.git.resolve(repo, making)
            made = await platform.git.rebase(
                repo, ref=making, expected_old=old, head=at.head, onto=onto, committer=author_of(call)
            )
            if made.sha is None:
                made = await platform.git.merge(
                    repo,
                    ref=making,
                    expected_old=old,
                    ours=at.head,
                    theirs=onto,
                    author=author_of(call),
                    message=f"Sync with {app['integration_branch']}\n",
                )
            if made.sha is None:
                return list(made.conflicts)
            await platform.git.update_refs(repo, [RefUpdate(branch, at.head, made.sha), RefUpdate(pending, at.head, made.sha)])
        except StaleRef:
            continue
        return []
    raise DomainError(ErrorCode.STALE_WRITE, "The workspace keeps changing: stop editing for a moment, then try again.")


def conflict_paths(conflicts: list[Conflict]) -> list[dict[str, Any]]:
    """Conflicts as a reply shows them."""
    return [{**asdict(conflict), "kind": conflict.kind.value} for conflict in conflicts]
