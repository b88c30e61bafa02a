"""Commits that no operation of the server can express: built here, pushed as a pack, with the target compared and swapped."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pygit2

from conman.git.adapter import GitError, RefUpdate
from conman.git.gitaly_channel import GitalyChannel, GitalyError, Landed
from conman.git.gitaly_ops_commits import NewCommit
from conman.git.gitaly_ops_refs import LOCK_PATIENCE, looked
from conman.git.gitaly_ops_session import Session
from conman.git.gitaly_smart import SmartClient

_LOST_RACE = ("lock", "atomic", "transaction", "failed to update ref")
"""How git words a push that another move was in the way of; it may be made again when the ref is where it was."""
_PAUSE = 0.02


class PushRefused(GitError):
    """The server does not take a commit that none of its operations can express (`reason` says what of it)."""

    def __init__(self, operation: str, refusal: str, reason: str) -> None:
        message = f"the server refuses the push ({refusal}), and no operation of it can express {reason}"
        super().__init__(operation, message, safe_to_repeat=False)


class Pusher:
    """Pushes to one server."""

    def __init__(self, channel: GitalyChannel) -> None:
        self._smart = SmartClient(channel)
        self._capabilities: frozenset[bytes] | None = None

    async def push(
        self, session: Session, move: RefUpdate, commits: Sequence[NewCommit], known_tree: str | None, reason: str
    ) -> None:
        """Write commits, each on the one before, and move a ref to the last.

        `known_tree` is a tree that the server has, the nearest to the first commit's; `reason` is what the operations can't
        express. Raises `StaleRef`, and `PushRefused` when the server does not take the push.
        """
        if self._capabilities is None:
            self._capabilities = (await self._smart.refs_to_push(session.operation, session.repo)).capabilities
        capabilities = self._capabilities
        with tempfile.TemporaryDirectory(prefix="conman-push-") as folder:
            pack = await session.run(lambda repository: _write_pack(session, repository, commits, known_tree, Path(folder)))

            async def attempt() -> str | None:
                moved = await self._smart.push(session.operation, session.repo, [move], capabilities, pack)
                return moved.get(move.ref, "the server says nothing of it")

            async def look() -> Landed[str | None] | None:
                return await _looked(session, move)

            deadline = time.monotonic() + LOCK_PATIENCE
            try:
                while (refusal := await session.channel.settle(attempt, look)) is not None:
                    if await _looked(session, move) is not None:
                        return
                    if time.monotonic() >= deadline or not any(word in refusal for word in _LOST_RACE):
                        raise PushRefused(session.operation, refusal, reason)
                    await asyncio.sleep(_PAUSE)
            except GitalyError as error:
                if error.transient:
                    raise
                raise PushRefused(session.operation, str(error), reason) from error


async def _looked(session: Session, move: RefUpdate) -> Landed[str | None] | None:
    return None if await looked(session, [move]) is None else Landed(None)


def _write_pack(
    session: Session, repository: pygit2.Repository, commits: Sequence[NewCommit], known_tree: str | None, folder: Path
) -> Path:
    ids: dict[str, None] = {}
    before = known_tree
    for commit in commits:
        ids[session.store.write("commit", commit.raw)] = None
        ids.update(dict.fromkeys(_new_objects(repository, commit.tree, before)))
        before = commit.tree

    def add(builder: pygit2.PackBuilder) -> None:
        for one in ids:
            builder.add(pygit2.Oid(hex=one))

    repository.pack(folder, add, n_threads=1)
    return next(folder.glob("*.pack"))


def _new_objects(repository: pygit2.Repository, tree: str, known: str | None) -> Iterator[str]:
    """Objects of a tree that a known one does not have at the same path.

    What is not in the store was never made here, so that the server has it: a file that moved, for one.
    """
    if tree == known or tree not in repository:
        return
    there = {} if known is None or known not in repository else {item.raw_name: item for item in _tree(repository, known)}
    yield tree
    for item in _tree(repository, tree):
        other = there.get(item.raw_name)
        if other is not None and other.id == item.id:
            continue
        if isinstance(item, pygit2.Tree):
            yield from _new_objects(repository, str(item.id), str(other.id) if isinstance(other, pygit2.Tree) else None)
        elif isinstance(item, pygit2.Blob) and item.id in repository:
            yield str(item.id)


def _tree(repository: pygit2.Repository, sha: str) -> pygit2.Tree:
    return repository[sha].peel(pygit2.Tree)
