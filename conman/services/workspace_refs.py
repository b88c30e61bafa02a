"""The three refs of a workspace: how they are read, and how they move together (docs/adr/0005 and 0007).

Correctness comes from compare-and-swap alone: whoever loses a race for a ref starts again from what the winner left. Taking turns
within a process only keeps the number of such starts small.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from conman.domain.app import BRANCHES, journal_ref, pending_ref, scratch_ref
from conman.domain.errors import DomainError, ErrorCode, not_found
from conman.domain.times import parse_time
from conman.domain.workspace import JournalEntry, Trouble, told, trouble_of
from conman.faults import fault_point
from conman.git.adapter import CommitOutcome, FileChange, GitAdapter, GitError, RefUpdate, Signature, StaleRef
from conman.services.call import Call
from conman.services.conflicts import Merged, merge_under
from conman.services.platform import Platform
from conman.services.workspace_history import record_history
from conman.store import records
from conman.store.database import Document

TRIES = 20
"""How often a write goes on after losing a race for a ref before it gives up."""

ResultT = TypeVar("ResultT")


def author_of(call: Call) -> Signature:
    """The caller as the author of a commit made by this call."""
    return Signature(call.user["name"], call.user["email"], parse_time(call.at))


def clerk(at: str) -> Signature:
    """Conman as the author of what nobody wrote: journal entries."""
    return Signature("Conman", "conman@localhost", parse_time(at))


@dataclass(frozen=True, slots=True)
class Standing:
    """A workspace's refs as they are: branch, pending edits, journal; and where Conman left the branch (`known`)."""

    head: str | None
    pending: str | None
    journal: str | None
    known: str | None
    trouble: Trouble | None

    @property
    def shown(self) -> str | None:
        """The commit whose files the owner sees: the pending edits, kept whatever was done to the branch."""
        return self.pending or self.known or self.head


@dataclass(frozen=True, slots=True)
class Tips:
    """The refs of a workspace that nobody touched outside Conman: `pending` has the edits on top of the branch's `head`."""

    head: str
    pending: str
    journal: str | None


async def look(platform: Platform, app: Document, workspace: Document) -> Standing:
    """Read the refs, whatever was done to them.

    They can't be read at once, so that a move on its way looks like one made outside. A compare-and-swap of the journal with
    itself waits for that move to end, or finishes it for a process that died; what is still there then was made outside.
    """
    repo = app["repo_path"]
    before: Standing | None = None
    for _ in range(TRIES):
        seen = await _read(platform.git, repo, workspace)
        if seen.trouble is None or seen == before:
            return seen
        before = seen
        if seen.journal is not None:
            with suppress(StaleRef):
                await platform.git.update_refs(repo, [RefUpdate(journal_ref(workspace["_id"]), seen.journal, seen.journal)])
    raise _busy()


async def _read(git: GitAdapter, repo: str, workspace: Document) -> Standing:
    # A move swaps journal, branch and pending in this order; read in another one, what is newer is never judged by what is older.
    head = await git.resolve(repo, BRANCHES + workspace["branch_name"])
    pending = await git.resolve(repo, pending_ref(workspace["_id"]))
    journal = await git.resolve(repo, journal_ref(workspace["_id"]))
    known = (await git.commit(repo, journal)).parents[-1] if journal is not None else None
    contained = head is not None and pending is not None and (head == pending or await git.is_ancestor(repo, head, pending))
    trouble = trouble_of(head=head, known=known, pending=pending, contained=contained)
    return Standing(head, pending, journal, known, trouble)


async def tips(platform: Platform, app: Document, workspace: Document) -> Tips:
    """The refs, for whoever builds on them.

    Raises `conflict` when the branch was deleted or moved outside Conman, `not_found` when the workspace was deleted.
    """
    seen = await look(platform, app, workspace)
    if seen.trouble is not None or seen.head is None or seen.pending is None:
        await still_there(platform, workspace["_id"])
        raise DomainError(
            ErrorCode.CONFLICT,
            told(seen.trouble or Trouble.DELETED, workspace["branch_name"]),
            {"branch_name": workspace["branch_name"], "expected_sha": seen.known, "actual_sha": seen.head},
        )
    return Tips(seen.head, seen.pending, seen.journal)


async def still_there(platform: Platform, workspace_id: str) -> Document:
    """The workspace's present record. Raises `not_found` when it is gone, or going."""
    found = await records.get(platform.db, "workspaces", workspace_id, what="workspace")
    if found.get("deleting"):
        raise not_found("workspace")
    return found


def _busy() -> DomainError:
    return DomainError(ErrorCode.STALE_WRITE, "The workspace keeps changing: stop editing for a moment, then try again.")


# -- Taking turns

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, asyncio.Lock]] = WeakKeyDictionary()


def turn(workspace_id: str) -> asyncio.Lock:
    """Who holds it writes to this workspace; the others of this process wait, first come first served."""
    locks = _turns.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    found = locks.get(workspace_id)
    if found is None:
        found = locks[workspace_id] = asyncio.Lock()
    return found


# -- Moving


class Scratch:
    """A private ref on which one request makes its commits; it goes when the refs move, or else when the request ends."""

    def __init__(self, git: GitAdapter, repo: str, ref: str) -> None:
        self._git = git
        self._repo = repo
        self._ref = ref
        self._at: str | None = None

    async def __aenter__(self) -> Self:
        """Take over what a repeat, or a crash, left there."""
        self._at = await self._git.resolve(self._repo, self._ref)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove it. What can't be removed now holds a few objects until the workspace is deleted; that is no failure."""
        if self._at is not None:
            with suppress(GitError):
                await self._git.update_refs(self._repo, [RefUpdate(self._ref, self._at, None)])

    async def again(self) -> None:
        """Where it is now, after a race for it was lost to a repeat of the same request."""
        self._at = await self._git.resolve(self._repo, self._ref)

    async def commit_files(self, parent: str, changes: Sequence[FileChange], author: Signature, message: str) -> str:
        """See `GitAdapter.commit_files`."""
        made = await self._git.commit_files(
            self._repo,
            ref=self._ref,
            expected_old=self._at,
            parent=parent,
            changes=changes,
            author=author,
            message=message,
        )
        self._at = made
        return made

    async def commit_tree_of(self, tree_of: str, parents: Sequence[str], author: Signature, message: str) -> str:
        """See `GitAdapter.commit_tree_of`."""
        made = await self._git.commit_tree_of(
            self._repo,
            ref=self._ref,
            expected_old=self._at,
            tree_of=tree_of,
            parents=parents,
            author=author,
            message=message,
        )
        self._at = made
        return made

    async def rebase(self, head: str, onto: str, committer: Signature) -> CommitOutcome:
        """See `GitAdapter.rebase`."""
        made = await self._git.rebase(self._repo, ref=self._ref, expected_old=self._at, head=head, onto=onto, committer=committer)
        self._at = made.sha or self._at
        return made

    async def merge(self, ours: str, theirs: str, author: Signature, message: str) -> Merged:
        """See `merge_under`."""
        made = await merge_under(
            self._git,
            self._repo,
            ref=self._ref,
            expected_old=self._at,
            ours=ours,
            theirs=theirs,
            author=author,
            message=message,
        )
        self._at = made.sha or self._at
        return made

    async def move(self, *updates: RefUpdate) -> None:
        """Move other refs to what was made here, and remove this one, all or none. Raises `StaleRef`."""
        mine = [RefUpdate(self._ref, self._at, None)] if self._at is not None else []
        await self._git.update_refs(self._repo, [*updates, *mine])
        self._at = None


def scratch(platform: Platform, app: Document, workspace_id: str, call: Call) -> Scratch:
    """The scratch ref of one request."""
    name = hashlib.sha256(call.command_id.encode()).hexdigest()[:16]
    return Scratch(platform.git, app["repo_path"], scratch_ref(workspace_id, name))


async def move(
    platform: Platform, call: Call, app: Document, workspace: Document, at: Standing | Tips, making: Scratch, entry: JournalEntry
) -> None:
    """Move branch and pending edits to `entry.after`, with the entry in the journal: all or none. Raises `StaleRef`.

    All saves up to `at.pending` must have been recorded (`record_history` after `at` was read): the move may leave them behind.
    """
    parents = [entry.after] if at.journal is None else [at.journal, entry.after]
    made = await making.commit_tree_of(entry.after, parents, clerk(entry.at), entry.message())
    await making.move(
        RefUpdate(journal_ref(workspace["_id"]), at.journal, made),
        RefUpdate(BRANCHES + workspace["branch_name"], at.head, entry.after),
        RefUpdate(pending_ref(workspace["_id"]), at.pending, entry.after),
    )
    fault_point("workspace.moved")
    await record_history(platform, app, workspace["_id"], call)


async def attempts(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    attempt: Callable[[Tips, Scratch], Awaitable[ResultT]],
) -> ResultT:
    """What `attempt` answers once it loses no race: each time with fresh tips whose saves are all recorded."""
    async with turn(workspace["_id"]), scratch(platform, app, workspace["_id"], call) as making:
        for _ in range(TRIES):
            at = await tips(platform, app, workspace)
            await record_history(platform, app, workspace["_id"], call)
            try:
                return await attempt(at, making)
            except StaleRef:
                await making.again()
    raise _busy()
