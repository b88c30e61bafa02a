"""Turning pending edits into commits on the branch (`spec.md` 7).

Submit, resubmit, sync, checkpoint and a temp env's creation do it. A checkpoint may be made in both commit modes: in
`manual_checkpoint` it stays a commit of its own, in `submit_commit` the next submit folds it, with all else since the last one,
into a single commit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from conman.domain.app import CommitMode
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.workspace import (
    JournalEntry,
    MoveEvent,
    MoveKind,
    commit_message,
    fold_onto,
    line_commit,
    move_event,
)
from conman.services.apps import integration_head
from conman.services.call import Call, keep, recall
from conman.services.platform import Platform
from conman.services.workspace_history import move_by
from conman.services.workspace_refs import Scratch, Tips, attempts, author_of, move
from conman.store.database import Document

NAMED_PATHS = 1000
"""How many paths an audit event names; `path_count` says how many there are."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The head that a branch would have with what was pending, and the audit events of that commit."""

    head: str
    events: list[MoveEvent] = field(default_factory=list[MoveEvent])


def commit_mode(app: Document, workspace: Document) -> CommitMode:
    """The workspace's mode: its own, or the app's default."""
    return CommitMode(workspace["commit_mode"] or app["settings"]["commit_mode_default"])


async def commit_of_pending(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    at: Tips,
    making: Scratch,
    *,
    title: str,
    submitted: Collection[str] | None = None,
) -> Committed:
    """Make, beside the branch, the one commit of what is pending; the present head when that changes nothing.

    `submitted` is given by a submit: the heads of the changeset's revisions. In `submit_commit` mode the commit then takes the
    place of all that were made since the last submit.
    """
    git, repo = platform.git, app["repo_path"]
    onto = at.head
    if submitted is not None and commit_mode(app, workspace) is CommitMode.SUBMIT_COMMIT:
        base = await git.merge_base(repo, at.head, await integration_head(platform, app))
        line = await git.log(repo, at.head, exclude=base, first_parent=True)
        onto = fold_onto([line_commit(row.sha, row.parents, row.trailers) for row in line], submitted) or at.head
    if onto == at.head == at.pending:
        return Committed(at.head)
    if await _same_files(platform, repo, onto, at.pending):
        made = onto
    else:
        message = commit_message(title, command_id=call.command_id, user_id=call.user_id, submit=submitted is not None)
        made = await making.commit_tree_of(at.pending, [onto], author_of(call), message)
    if made == at.head:
        return Committed(at.head)
    paths = [row.path for row in await git.changed_paths(repo, at.head, at.pending)] if at.head != at.pending else []
    after: dict[str, Any] = {"workspace_id": workspace["_id"], "head_sha": made, "message": title}
    event = Event(
        "file",
        workspace["_id"],
        "checkpoint",
        before={"workspace_id": workspace["_id"], "head_sha": at.head},
        after={**after, "paths": paths[:NAMED_PATHS], "path_count": len(paths)},
        git_sha=made,
    )
    return Committed(made, [move_event(event)])


async def _same_files(platform: Platform, repo: str, one: str, two: str) -> bool:
    return (await platform.git.commit(repo, one)).tree_id == (await platform.git.commit(repo, two)).tree_id


def entry_of(
    call: Call, kind: MoveKind, after: str, events: list[MoveEvent], answer: dict[str, Any] | None = None
) -> JournalEntry:
    """The journal's entry of a move that this call makes."""
    return JournalEntry(
        kind=kind,
        command_id=call.command_id,
        user_id=call.user_id,
        at=call.at,
        after=after,
        events=events,
        answer=answer or {},
    )


async def checkpoint(platform: Platform, call: Call, app: Document, workspace: Document, message: str | None) -> str:
    """Make a commit of what is pending; its sha. Raises `conflict` when nothing is."""
    kept = await recall(platform.db, call)
    if kept is not None:
        return str(kept["commit_sha"])
    made = await _commit(platform, call, app, workspace, title=message or "Checkpoint")
    if made.before == made.head:
        raise DomainError(ErrorCode.CONFLICT, "Nothing is pending: save a change first, then make a checkpoint of it.")
    await keep(platform.db, call, {"commit_sha": made.head})
    return made.head


async def commit_pending(platform: Platform, call: Call, app: Document, workspace: Document, *, title: str) -> str:
    """The branch's head with all that was pending committed on it; a repeat finds what the first one made."""
    return (await _commit(platform, call, app, workspace, title=title)).head


@dataclass(frozen=True, slots=True)
class _Moved:
    """A branch's head, and where it was before this call (None: an earlier run of it has moved it)."""

    head: str
    before: str | None


async def _commit(platform: Platform, call: Call, app: Document, workspace: Document, *, title: str) -> _Moved:
    async def attempt(at: Tips, making: Scratch) -> _Moved:
        done = await move_by(platform, app, workspace["_id"], call)
        if done is not None:
            return _Moved(done.after, None)
        made = await commit_of_pending(platform, call, app, workspace, at, making, title=title)
        if made.head != at.head:
            entry = entry_of(call, MoveKind.COMMITTED, made.head, made.events)
            await move(platform, call, app, workspace, at, making, entry)
        return _Moved(made.head, at.head)

    return await attempts(platform, call, app, workspace, attempt)
