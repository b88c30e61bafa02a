"""The Git port on a Gitaly server by its operations: for servers that give out no packs, as GitLab's Gitaly.

Refs, commits and ancestry are the server's; trees and blobs come into a local store on demand, so that comparisons, merges and
changes of files follow the very rules of every other backend; commits are made by the server's operations where one makes
exactly the commit that is wanted.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc

from conman.git import gitaly_ops_edit, gitaly_ops_merge, gitaly_ops_read, gitaly_ops_refs
from conman.git.adapter import (
    ChangedPath,
    Commit,
    CommitOutcome,
    FileChange,
    FileContent,
    FileDiff,
    GitError,
    GitHealth,
    ObjectMissing,
    RefUpdate,
    RepositoryExists,
    RepositoryMissing,
    Signature,
    TreeEntry,
    TrialMerge,
)
from conman.git.checks import checked_repo, is_ref_name
from conman.git.gitaly_channel import GitalyChannel, GitalyError, Landed
from conman.git.gitaly_objects import ObjectCache, StoreDamaged
from conman.git.gitaly_ops_commits import metadata
from conman.git.gitaly_ops_remote import Remote
from conman.git.gitaly_ops_session import Session
from conman.git.gitaly_ops_write import Maker, Target
from conman.git.library import run_in
from conman.git.proto import gitaly_pb2 as pb

_Result = TypeVar("_Result")

_HEALTH_REPOSITORY = "conman-health.git"
"""Whether it exists does not matter: a server that can answer is healthy."""


class GitalyOperations:
    """`GitAdapter` on one storage of a server.

    `cache` is the folder of the local store of objects, which other processes may share, and `cache_bytes` about how much it
    may hold. What blocks (the disk, libgit2) runs in `threads` threads of the adapter's own. `close` ends the threads; the
    channel is the caller's.
    """

    def __init__(self, channel: GitalyChannel, cache: Path, *, cache_bytes: int, threads: int) -> None:
        self._channel = channel
        self._cache = ObjectCache(cache, cache_bytes)
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="gitaly")
        self._maker = Maker(channel)

    def close(self) -> None:
        """Wait for the running work; later calls that need a thread raise `GitError`."""
        self._threads.shutdown()

    async def repository_exists(self, repo: str) -> bool:
        """See `GitAdapter`."""
        return await self._ask("repository_exists", repo, Remote.exists, missing=False)

    async def create_repository(self, repo: str, default_branch: str) -> None:
        """See `GitAdapter`."""

        async def work(remote: Remote) -> None:
            if not is_ref_name(f"refs/heads/{default_branch}"):
                raise GitError(remote.operation, f"{default_branch!r} is not a branch name", safe_to_repeat=False)
            await self._outside_others(remote)
            request = pb.CreateRepositoryRequest(repository=remote.address, default_branch=default_branch.encode())

            async def attempt() -> None:
                await self._channel.write(remote.operation, self._channel.stubs.repository.CreateRepository, request)

            async def look() -> Landed[None] | None:
                return Landed(None) if await remote.exists() else None

            try:
                await self._channel.settle(attempt, look)
            except GitalyError as error:
                if error.code is grpc.StatusCode.ALREADY_EXISTS:
                    raise RepositoryExists(remote.operation, repo) from error
                raise
            await self._aside(remote.operation, lambda: self._cache.forget(repo))

        await self._ask("create_repository", repo, work, missing=False)

    async def remove_repository(self, repo: str) -> None:
        """See `GitAdapter`."""

        async def work(remote: Remote) -> None:
            request = pb.RemoveRepositoryRequest(repository=remote.address)

            async def attempt() -> None:
                await self._channel.write(remote.operation, self._channel.stubs.repository.RemoveRepository, request)

            async def look() -> Landed[None] | None:
                return None if await remote.exists() else Landed(None)

            await self._channel.settle(attempt, look)
            await self._aside(remote.operation, lambda: self._cache.forget(repo))

        await self._ask("remove_repository", repo, work)

    async def resolve(self, repo: str, revision: str) -> str | None:
        """See `GitAdapter`."""

        async def work(remote: Remote) -> str | None:
            commit = await remote.find(revision)
            if commit is None:
                await remote.require()
            return None if commit is None else commit.id

        return await self._ask("resolve", repo, work)

    async def list_refs(self, repo: str, prefix: str) -> dict[str, str]:
        """See `GitAdapter`."""
        return await self._ask("list_refs", repo, lambda remote: gitaly_ops_refs.list_refs(remote, prefix))

    async def update_refs(self, repo: str, updates: Sequence[RefUpdate]) -> None:
        """See `GitAdapter`."""
        await self._ask("update_refs", repo, lambda remote: gitaly_ops_refs.update_refs(remote, tuple(updates)))

    async def commit(self, repo: str, sha: str) -> Commit:
        """See `GitAdapter`."""

        async def work(remote: Remote) -> Commit:
            return metadata((await remote.commits(sha))[0])

        return await self._ask("commit", repo, work)

    async def log(
        self,
        repo: str,
        head: str,
        *,
        exclude: str | None = None,
        first_parent: bool = False,
        limit: int = 1000,
    ) -> list[Commit]:
        """See `GitAdapter`."""
        return await self._ask("log", repo, lambda remote: gitaly_ops_read.log(remote, head, exclude, first_parent, limit))

    async def merge_base(self, repo: str, one: str, two: str) -> str | None:
        """See `GitAdapter`."""

        async def work(remote: Remote) -> str | None:
            first, second = await remote.commits(one, two)
            return await gitaly_ops_merge.merge_base(remote, first.id, second.id)

        return await self._ask("merge_base", repo, work)

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        """See `GitAdapter`."""

        async def work(remote: Remote) -> bool:
            younger, older = await remote.commits(descendant, ancestor)
            return await gitaly_ops_merge.is_ancestor(remote, older.id, younger.id)

        return await self._ask("is_ancestor", repo, work)

    async def list_tree(self, repo: str, commit: str, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """See `GitAdapter`."""
        return await self._on("list_tree", repo, lambda session: gitaly_ops_read.list_tree(session, commit, path, recursive))

    async def entry(self, repo: str, commit: str, path: str) -> TreeEntry | None:
        """See `GitAdapter`."""
        return await self._ask("entry", repo, lambda remote: gitaly_ops_read.entry(remote, commit, path))

    async def read_file(self, repo: str, commit: str, path: str) -> FileContent | None:
        """See `GitAdapter`."""
        return await self._ask("read_file", repo, lambda remote: gitaly_ops_read.read_file(remote, commit, path))

    async def read_blob(self, repo: str, blob_id: str) -> bytes:
        """See `GitAdapter`."""
        return await self._ask("read_blob", repo, lambda remote: remote.read_blob(blob_id))

    async def changed_paths(self, repo: str, base: str, head: str, *, renames: bool = False) -> list[ChangedPath]:
        """See `GitAdapter`."""
        return await self._on("changed_paths", repo, lambda session: gitaly_ops_read.changed_paths(session, base, head, renames))

    async def diff(
        self,
        repo: str,
        base: str,
        head: str,
        *,
        paths: Sequence[str] | None = None,
        renames: bool = True,
        context: int = 3,
    ) -> list[FileDiff]:
        """See `GitAdapter`."""
        return await self._on("diff", repo, lambda session: gitaly_ops_read.diff(session, base, head, paths, renames, context))

    async def commit_files(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        parent: str | None,
        changes: Sequence[FileChange],
        author: Signature,
        message: str,
        committer: Signature | None = None,
    ) -> str:
        """See `GitAdapter`."""
        target, who = Target(ref, expected_old), committer or author

        async def work(session: Session) -> str:
            return await gitaly_ops_edit.commit_files(session, self._maker, target, parent, changes, author, who, message)

        return await self._on("commit_files", repo, work)

    async def commit_tree_of(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        tree_of: str,
        parents: Sequence[str],
        author: Signature,
        message: str,
        committer: Signature | None = None,
    ) -> str:
        """See `GitAdapter`."""
        target, who = Target(ref, expected_old), committer or author

        async def work(session: Session) -> str:
            return await gitaly_ops_edit.commit_tree_of(session, self._maker, target, tree_of, parents, author, who, message)

        return await self._on("commit_tree_of", repo, work)

    async def trial_merge(self, repo: str, ours: str, theirs: str) -> TrialMerge:
        """See `GitAdapter`."""

        async def work(session: Session) -> TrialMerge:
            return await gitaly_ops_merge.trial_merge(session, *await session.commits(ours, theirs))

        return await self._on("trial_merge", repo, work)

    async def trial_merges(self, repo: str, base: str, heads: Sequence[str]) -> list[TrialMerge]:
        """See `GitAdapter`."""

        async def work(session: Session) -> list[TrialMerge]:
            return await gitaly_ops_merge.trial_merges(session, base, heads)

        return await self._on("trial_merges", repo, work)

    async def merge(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        ours: str,
        theirs: str,
        author: Signature,
        message: str,
    ) -> CommitOutcome:
        """See `GitAdapter`."""

        async def work(session: Session) -> CommitOutcome:
            target = Target(ref, expected_old)
            return await gitaly_ops_edit.merge(session, self._maker, target, ours, theirs, author, message)

        return await self._on("merge", repo, work)

    async def rebase(
        self, repo: str, *, ref: str, expected_old: str | None, head: str, onto: str, committer: Signature
    ) -> CommitOutcome:
        """See `GitAdapter`."""

        async def work(session: Session) -> CommitOutcome:
            return await gitaly_ops_edit.rebase(session, self._maker, Target(ref, expected_old), head, onto, committer)

        return await self._on("rebase", repo, work)

    async def revert(
        self,
        repo: str,
        *,
        ref: str,
        expected_old: str | None,
        onto: str,
        base: str,
        head: str,
        author: Signature,
        message: str,
    ) -> CommitOutcome:
        """See `GitAdapter`."""

        async def work(session: Session) -> CommitOutcome:
            target = Target(ref, expected_old)
            return await gitaly_ops_edit.revert(session, self._maker, target, onto, base, head, author, message)

        return await self._on("revert", repo, work)

    async def trial_revert(self, repo: str, onto: str, base: str, head: str) -> TrialMerge:
        """See `GitAdapter`."""

        async def work(session: Session) -> TrialMerge:
            return await gitaly_ops_merge.trial_revert(session, *await session.commits(onto, base, head))

        return await self._on("trial_revert", repo, work)

    async def export(self, repo: str, commit: str, destination: Path) -> int:
        """See `GitAdapter`."""
        return await self._on("export", repo, lambda session: gitaly_ops_read.export(session, commit, destination))

    async def health(self) -> GitHealth:
        """See `GitAdapter`."""
        await Remote("health", _HEALTH_REPOSITORY, self._channel).exists()
        await self._aside("health", lambda: self._cache.check("health"))
        options = self._channel.options
        return GitHealth("gitaly", "operations", {"address": options.address, "storage": options.storage})

    async def _outside_others(self, remote: Remote) -> None:
        """Raise `GitError` for a repository that would lie inside another."""
        names = remote.repo.split("/")
        above = ["/".join(names[:length]) for length in range(1, len(names))]
        others = [Remote(remote.operation, path, self._channel) for path in above]
        if any(await asyncio.gather(*(other.exists() for other in others))):
            raise GitError(remote.operation, f"{remote.repo!r} is inside another repository", safe_to_repeat=False)

    async def _ask(
        self, operation: str, repo: str, work: Callable[[Remote], Awaitable[_Result]], *, missing: bool = True
    ) -> _Result:
        """Do what the server does alone; with `missing`, a failure for want of the repository says so."""
        remote = Remote(operation, checked_repo(operation, repo), self._channel)
        return await _told(remote, work(remote)) if missing else await work(remote)

    async def _on(self, operation: str, repo: str, work: Callable[[Session], Awaitable[_Result]]) -> _Result:
        """Do what needs the local store; once more with an empty one when it turns out to be damaged."""
        checked_repo(operation, repo)
        store = await self._aside(operation, lambda: self._cache.take(repo))
        try:
            for thorough in (False, True):
                session = Session(operation, repo, self._channel, store, self._threads, thorough=thorough)
                try:
                    return await _told(session, work(session))
                except StoreDamaged as error:
                    damage = error
                    await self._aside(operation, lambda: self._cache.rebuild(store))
                except GitError as error:
                    if _disk_is_full(error):
                        await self._aside(operation, self._cache.make_room)
                    raise
            raise GitError(operation, f"the local store of objects can't be read: {damage}", safe_to_repeat=True) from damage
        finally:
            await self._aside(operation, lambda: self._cache.give_back(store))

    async def _aside(self, operation: str, work: Callable[[], _Result]) -> _Result:
        return await run_in(self._threads, operation, work)


def _disk_is_full(error: GitError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


async def _told(remote: Remote, work: Awaitable[_Result]) -> _Result:
    """What `work` gives. A server's word for something that is missing may mean the whole repository: `RepositoryMissing`."""
    try:
        return await work
    except (GitalyError, ObjectMissing) as error:
        if isinstance(error, GitalyError) and error.transient:
            raise
        if not await remote.exists():
            raise RepositoryMissing(remote.operation, remote.repo) from error
        raise
