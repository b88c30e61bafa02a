"""The Git port on bare repositories of this machine, in process, by libgit2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import pygit2

from conman.git import local_diff, local_export, local_merge, local_read, local_refs, local_write
from conman.git.adapter import (
    ChangedPath,
    Commit,
    CommitOutcome,
    FileChange,
    FileContent,
    FileDiff,
    GitError,
    RefUpdate,
    Signature,
    TreeEntry,
    TrialMerge,
)
from conman.git.local_repo import Storage, find_commit, peeled_commit, translated

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class LocalGit:
    """`GitAdapter` on the bare repositories below `root`.

    At most `threads` calls run at a time, each in a thread of the adapter's own; further ones wait for their turn. A
    cancelled call is not stopped: it ends by itself, and its effect is that of a call whose answer was lost.
    """

    def __init__(self, root: Path, threads: int) -> None:
        self._storage = Storage(root)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="git")
        self._storage.sweep()

    def close(self) -> None:
        """Wait for the running calls; later ones raise `GitError`."""
        self._pool.shutdown()

    async def repository_exists(self, repo: str) -> bool:
        """See `GitAdapter`."""
        return await self._call("repository_exists", self._storage.exists, repo)

    async def create_repository(self, repo: str, default_branch: str) -> None:
        """See `GitAdapter`."""
        await self._call("create_repository", self._storage.create, repo, default_branch)

    async def remove_repository(self, repo: str) -> None:
        """See `GitAdapter`."""
        await self._call("remove_repository", self._storage.remove, repo)

    async def resolve(self, repo: str, revision: str) -> str | None:
        """See `GitAdapter`."""

        def work(_: str, repository: pygit2.Repository) -> str | None:
            commit = peeled_commit(repository, revision)
            return None if commit is None else str(commit.id)

        return await self._on("resolve", repo, work)

    async def list_refs(self, repo: str, prefix: str) -> dict[str, str]:
        """See `GitAdapter`."""

        def work(_: str, repository: pygit2.Repository) -> dict[str, str]:
            return local_refs.list_refs(repository, prefix)

        return await self._on("list_refs", repo, work)

    async def update_refs(self, repo: str, updates: Sequence[RefUpdate]) -> None:
        """See `GitAdapter`."""
        await self._on("update_refs", repo, local_refs.move_refs, tuple(updates))

    async def commit(self, repo: str, sha: str) -> Commit:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository) -> Commit:
            return local_read.commit_metadata(find_commit(operation, repository, sha))

        return await self._on("commit", repo, work)

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
        return await self._on("log", repo, local_read.log, head, exclude, first_parent, limit)

    async def merge_base(self, repo: str, one: str, two: str) -> str | None:
        """See `GitAdapter`."""
        return await self._on("merge_base", repo, local_read.merge_base, one, two)

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository) -> bool:
            younger = find_commit(operation, repository, descendant)
            return local_read.contains(repository, younger, find_commit(operation, repository, ancestor))

        return await self._on("is_ancestor", repo, work)

    async def list_tree(self, repo: str, commit: str, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """See `GitAdapter`."""
        return await self._on("list_tree", repo, local_read.list_tree, commit, path, recursive)

    async def entry(self, repo: str, commit: str, path: str) -> TreeEntry | None:
        """See `GitAdapter`."""
        return await self._on("entry", repo, local_read.entry, commit, path)

    async def read_file(self, repo: str, commit: str, path: str) -> FileContent | None:
        """See `GitAdapter`."""
        return await self._on("read_file", repo, local_read.read_file, commit, path)

    async def read_blob(self, repo: str, blob_id: str) -> bytes:
        """See `GitAdapter`."""
        return await self._on("read_blob", repo, local_read.read_blob, blob_id)

    async def changed_paths(self, repo: str, base: str, head: str, *, renames: bool = False) -> list[ChangedPath]:
        """See `GitAdapter`."""
        return await self._on("changed_paths", repo, local_diff.changed_paths, base, head, renames)

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
        return await self._on("diff", repo, local_diff.diff, base, head, paths, renames, context)

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

        def work(operation: str, repository: pygit2.Repository) -> str:
            sha = local_write.commit_files(operation, repository, parent, changes, author, message, committer or author)
            local_refs.place(operation, repository, ref, expected_old, sha)
            return sha

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

        def work(operation: str, repository: pygit2.Repository) -> str:
            tree = find_commit(operation, repository, tree_of).tree_id
            ids = [find_commit(operation, repository, parent).id for parent in parents]
            sha = local_write.write_commit(operation, repository, tree, ids, author, message, committer or author)
            local_refs.place(operation, repository, ref, expected_old, sha)
            return sha

        return await self._on("commit_tree_of", repo, work)

    async def trial_merge(self, repo: str, ours: str, theirs: str) -> TrialMerge:
        """See `GitAdapter`."""
        return await self._on("trial_merge", repo, local_merge.trial_merge, ours, theirs)

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
        return await self._place("merge", repo, ref, expected_old, local_merge.merge, ours, theirs, author, message)

    async def rebase(
        self, repo: str, *, ref: str, expected_old: str | None, head: str, onto: str, committer: Signature
    ) -> CommitOutcome:
        """See `GitAdapter`."""
        return await self._place("rebase", repo, ref, expected_old, local_merge.rebase, head, onto, committer)

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
        return await self._place("revert", repo, ref, expected_old, local_merge.revert, onto, base, head, author, message)

    async def export(self, repo: str, commit: str, destination: Path) -> int:
        """See `GitAdapter`."""
        return await self._on("export", repo, local_export.export, commit, destination)

    async def health(self) -> None:
        """See `GitAdapter`."""
        await self._call("health", self._storage.check)

    async def _place(
        self,
        operation: str,
        repo: str,
        ref: str,
        expected_old: str | None,
        make: Callable[Concatenate[str, pygit2.Repository, _Arguments], CommitOutcome],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> CommitOutcome:
        """Make a commit and move `ref` to it; an outcome without a commit moves nothing."""

        def work(name: str, repository: pygit2.Repository) -> CommitOutcome:
            outcome = make(name, repository, *args, **kwargs)
            if outcome.sha is not None:
                local_refs.place(name, repository, ref, expected_old, outcome.sha)
            return outcome

        return await self._on(operation, repo, work)

    async def _on(
        self,
        operation: str,
        repo: str,
        work: Callable[Concatenate[str, pygit2.Repository, _Arguments], _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Run `work` in a thread on the repository, opened there."""

        def opened(name: str) -> _Result:
            return work(name, self._storage.open(name, repo), *args, **kwargs)

        return await self._call(operation, opened)

    async def _call(
        self,
        operation: str,
        work: Callable[Concatenate[str, _Arguments], _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Run `work` in a thread; only `GitError` leaves it."""

        def run() -> _Result:
            with translated(operation):
                return work(operation, *args, **kwargs)

        try:
            running = self._pool.submit(run)
        except RuntimeError as error:
            raise GitError(operation, "the adapter is closed", safe_to_repeat=True) from error
        return await asyncio.wrap_future(running)
