"""The audit of a workspace's files and moves, derived from Git (docs/adr/0005 and 0007).

Git is the truth for files: each save is a commit on the pending ref, each move of the branch an entry of the journal. Their audit
events have ids that come from those commits, so whoever comes next writes what a crash left out, and twice changes nothing.
"""

from __future__ import annotations

from typing import Any

from pymongo import ReturnDocument

from conman.domain.app import journal_ref, pending_ref
from conman.domain.decision import Actor, Event
from conman.domain.ids import derived_uuid7
from conman.domain.outgoing import audit_entry
from conman.domain.times import format_time, milliseconds
from conman.domain.workspace import SAVE_TRAILER, TIME_TRAILER, USER_TRAILER, JournalEntry, journal_entry, moves_of
from conman.git.adapter import ChangedPath, ChangeStatus, Commit, GitAdapter
from conman.services.call import Call
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document
from conman.store.outgoing import deliver

REMEMBERED_MOVES = 100
"""How far back a journal is searched for a command that is repeated."""


async def record_history(
    platform: Platform, app: Document, workspace_id: str, call: Call | None = None, *, known: tuple[str | None, str] | None = None
) -> Document:
    """Bring the audit up to the pending ref and the journal; the workspace's record as it is then.

    `known` are the journal and the pending ref as the caller has just left them, which spares reading them again.
    """
    repo = app["repo_path"]
    while True:  # whoever was first wrote the same events, so that each turn has less to write
        workspace = await records.get(platform.db, "workspaces", workspace_id, what="workspace")
        await deliver(platform.db, "workspaces", workspace)
        if known is not None:
            journal, pending = known
        else:
            journal = await platform.git.resolve(repo, journal_ref(workspace_id))
            pending = await platform.git.resolve(repo, pending_ref(workspace_id))
        seen = {"audited_sha": workspace["audited_sha"], "journaled_sha": workspace.get("journaled_sha")}
        now_at = {"audited_sha": pending or seen["audited_sha"], "journaled_sha": journal or seen["journaled_sha"]}
        if seen == now_at:
            return workspace
        moves = await _moves(platform.git, repo, journal, exclude=seen["journaled_sha"])
        # A move is made only once all saves before it are recorded, so that only those after the last one can be new.
        audited = moves[-1][1].after if moves else seen["audited_sha"]
        saves = await platform.git.log(repo, pending, exclude=audited, first_parent=True) if pending else []
        if known is not None and not moves and not saves:
            return workspace  # somebody else has recorded this already, and what came after it
        entries: list[Document] = []
        for sha, move in moves:
            entries += _entries_of_move(app, sha, move, call)
        others: list[str] = []
        for commit in reversed(saves):
            entries += await _entries_of_save(platform.git, app, workspace_id, commit, call)
            command = dict(commit.trailers).get(SAVE_TRAILER)
            if command is not None and (call is None or command != call.command_id):
                others.append(command)
        if others:  # whoever saved these and died finds on a repeat that they are kept, even when a submit has taken them
            await platform.db["idempotency"].update_many({"command": {"$in": others}}, {"$set": {"saved": True}})
        base = next((move.base for _, move in reversed(moves) if move.base is not None), None)
        based = {"base_ref_type": base.type, "base_ref_value": base.value} if base is not None else {}
        written = await platform.db["workspaces"].find_one_and_update(
            {"_id": workspace_id, **seen},
            {"$set": {**now_at, **based}, "$push": {"outgoing": {"$each": entries}}},
            return_document=ReturnDocument.AFTER,
        )
        if written is not None:
            await deliver(platform.db, "workspaces", written)
            return written


async def _moves(git: GitAdapter, repo: str, journal: str | None, *, exclude: str | None) -> list[tuple[str, JournalEntry]]:
    """The journal's entries after `exclude`, oldest first."""
    found: list[tuple[str, JournalEntry]] = []
    if journal is not None and journal != exclude:
        for commit in await git.log(repo, journal, exclude=exclude, first_parent=True, limit=REMEMBERED_MOVES):
            entry = journal_entry(commit.trailers)
            if entry is None:
                break
            found.append((commit.sha, entry))
    return found[::-1]


async def move_by(platform: Platform, app: Document, workspace_id: str, call: Call) -> JournalEntry | None:
    """The move that an earlier request with this call's `Idempotency-Key` made (`durability.md` 19)."""
    if not call.keyed:
        return None
    journal = await platform.git.resolve(app["repo_path"], journal_ref(workspace_id))
    moves = await _moves(platform.git, app["repo_path"], journal, exclude=None)
    return next((move for _, move in reversed(moves) if move.command_id == call.command_id), None)


def _actor(command_id: str | None, user_id: str | None, call: Call | None) -> Actor:
    return call.actor if call is not None and command_id == call.command_id else Actor(user_id=user_id)


def _entries_of_move(app: Document, sha: str, move: JournalEntry, call: Call | None) -> list[Document]:
    actor = _actor(move.command_id, move.user_id, call)
    return [
        audit_entry(
            derived_uuid7(milliseconds(move.at), "move", sha, str(number), order=number),
            event.event(),
            app_id=app["_id"],
            actor=actor,
            at=move.at,
        )
        for number, event in enumerate(move.events)
    ]


async def _entries_of_save(
    git: GitAdapter, app: Document, workspace_id: str, commit: Commit, call: Call | None
) -> list[Document]:
    trailers = dict(commit.trailers)
    if SAVE_TRAILER not in trailers:
        return []
    actor = _actor(trailers[SAVE_TRAILER], trailers.get(USER_TRAILER), call)
    at = trailers.get(TIME_TRAILER) or format_time(commit.author.when)
    changed = await git.changed_paths(app["repo_path"], commit.parents[0], commit.sha)
    return [
        audit_entry(
            derived_uuid7(milliseconds(at), "file", commit.sha, str(number), order=number),
            event,
            app_id=app["_id"],
            actor=actor,
            at=at,
        )
        for number, event in enumerate(_file_events(workspace_id, commit, changed))
    ]


def _file_events(workspace_id: str, commit: Commit, changed: list[ChangedPath]) -> list[Event]:
    """One event per path that a save changed; a file that it moved is one event about two paths."""

    def side(path: str, blob_id: str | None) -> dict[str, Any] | None:
        return {"workspace_id": workspace_id, "path": path, "blob_id": blob_id} if blob_id is not None else None

    by_path = {row.path: row for row in changed}
    moved = {
        to: by_path[source]
        for source, to in moves_of(commit.trailers)
        if source in by_path
        and to in by_path
        and by_path[source].status is ChangeStatus.DELETED
        and by_path[to].status is ChangeStatus.ADDED
    }
    gone = {source.path for source in moved.values()}
    events: list[Event] = []
    for row in changed:
        if row.path in gone:
            continue
        before = side(row.path, row.old_blob_id)
        action = "deleted" if row.status is ChangeStatus.DELETED else "written"
        if row.path in moved:
            source = moved[row.path]
            before, action = side(source.path, source.old_blob_id), "moved"
        after = side(row.path, row.new_blob_id)
        noted = {**after, "commit_sha": commit.sha} if after else None
        events.append(Event("file", workspace_id, action, before=before, after=noted, git_sha=commit.sha))
    return events
