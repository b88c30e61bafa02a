"""The Git port composed from the functions on libgit2 (`local_*.py`), wherever a repository is opened and its refs are kept."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pygit2

from conman.git import local_diff, local_export, local_merge, local_read, local_write
from conman.git.adapter import (
    ChangedPath,
    Commit,
    CommitOutcome,
    FileChange,
    FileContent,
    FileDiff,
    GitError,
    Signature,
    TreeEntry,
    TrialMerge,
)
from conman.git.local_repo import find_commit, peeled_commit, translated

_Result = TypeVar("_Result")

At = Callable[[str], str]
"""What a revision that the caller named is in the repository that was opened: a full ref name may be the sha it holds."""
Work = Callable[[str, pygit2.Repository, At], _Result]
"""What to do on an opened repository: the operation's name, the repository, and what its revisions are there."""


class LibraryGit(ABC):
    """`GitAdapter` but for repositories and refs as such: those, and where a repository is opened, are for the subclass.

    At most `threads` calls run at a time, each in a thread of the adapter's own; further ones wait for their turn. A
    cancelled call is not stopped: it ends by itself, and its effect is that of a call whose answer was lost.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="git")

    @abstractmethod
    async def _read(self, operation: str, repo: str, revisions: Sequence[str | None], work: Work[_Result]) -> _Result:
        """Run `work`, which writes nothing, in a thread on the repository; `revisions` are all that it asks `At` for."""

    @abstractmethod
    async def _make(
        self,
        operation: str,
        repo: str,
        ref: str,
        expected_old: str | None,
        revisions: Sequence[str | None],
        work: Work[CommitOutcome],
    ) -> CommitOutcome:
        """Run `work`, which makes a commit, and move `ref` to it; an outcome without a commit moves nothing.

        Raises `StaleRef`, unless `ref` is at that commit already.
        """

    async def resolve(self, repo: str, revision: str) -> str | None:
        """See `GitAdapter`."""

        def work(_: str, repository: pygit2.Repository, at: At) -> str | None:
            commit = peeled_commit(repository, at(revision))
            return None if commit is None else str(commit.id)

        return await self._read("resolve", repo, [revision], work)

    async def commit(self, repo: str, sha: str) -> Commit:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> Commit:
            return local_read.commit_metadata(find_commit(operation, repository, at(sha)))

        return await self._read("commit", repo, [sha], work)

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

        def work(operation: str, repository: pygit2.Repository, at: At) -> list[Commit]:
            hidden = None if exclude is None else at(exclude)
            return local_read.log(operation, repository, at(head), hidden, first_parent, limit)

        return await self._read("log", repo, [head, exclude], work)

    async def merge_base(self, repo: str, one: str, two: str) -> str | None:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> str | None:
            return local_read.merge_base(operation, repository, at(one), at(two))

        return await self._read("merge_base", repo, [one, two], work)

    async def is_ancestor(self, repo: str, ancestor: str, descendant: str) -> bool:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> bool:
            younger = find_commit(operation, repository, at(descendant))
            return local_read.contains(repository, younger, find_commit(operation, repository, at(ancestor)))

        return await self._read("is_ancestor", repo, [ancestor, descendant], work)

    async def list_tree(self, repo: str, commit: str, path: str = "", *, recursive: bool = False) -> list[TreeEntry]:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> list[TreeEntry]:
            return local_read.list_tree(operation, repository, at(commit), path, recursive)

        return await self._read("list_tree", repo, [commit], work)

    async def entry(self, repo: str, commit: str, path: str) -> TreeEntry | None:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> TreeEntry | None:
            return local_read.entry(operation, repository, at(commit), path)

        return await self._read("entry", repo, [commit], work)

    async def read_file(self, repo: str, commit: str, path: str) -> FileContent | None:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> FileContent | None:
            return local_read.read_file(operation, repository, at(commit), path)

        return await self._read("read_file", repo, [commit], work)

    async def read_blob(self, repo: str, blob_id: str) -> bytes:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> bytes:
            return local_read.read_blob(operation, repository, at(blob_id))

        return await self._read("read_blob", repo, [blob_id], work)

    async def changed_paths(self, repo: str, base: str, head: str, *, renames: bool = False) -> list[ChangedPath]:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> list[ChangedPath]:
            return local_diff.changed_paths(operation, repository, at(base), at(head), renames)

        return await self._read("changed_paths", repo, [base, head], work)

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

        def work(operation: str, repository: pygit2.Repository, at: At) -> list[FileDiff]:
            return local_diff.diff(operation, repository, at(base), at(head), paths, renames, context)

        return await self._read("diff", repo, [base, head], work)

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

        def work(operation: str, repository: pygit2.Repository, at: At) -> CommitOutcome:
            base = None if parent is None else at(parent)
            sha = local_write.commit_files(operation, repository, base, changes, author, message, committer or author)
            return CommitOutcome(sha)

        return _made(await self._make("commit_files", repo, ref, expected_old, [parent], work))

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

        def work(operation: str, repository: pygit2.Repository, at: At) -> CommitOutcome:
            tree = find_commit(operation, repository, at(tree_of)).tree_id
            ids = [find_commit(operation, repository, at(parent)).id for parent in parents]
            return CommitOutcome(local_write.write_commit(operation, repository, tree, ids, author, message, committer or author))

        return _made(await self._make("commit_tree_of", repo, ref, expected_old, [tree_of, *parents], work))

    async def trial_merge(self, repo: str, ours: str, theirs: str) -> TrialMerge:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> TrialMerge:
            return local_merge.trial_merge(operation, repository, at(ours), at(theirs))

        return await self._read("trial_merge", repo, [ours, theirs], work)

    async def trial_merges(self, repo: str, base: str, heads: Sequence[str]) -> list[TrialMerge]:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> list[TrialMerge]:
            return local_merge.trial_merges(operation, repository, at(base), [at(head) for head in heads])

        return await self._read("trial_merges", repo, [base, *heads], work)

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

        def work(operation: str, repository: pygit2.Repository, at: At) -> CommitOutcome:
            return local_merge.merge(operation, repository, at(ours), at(theirs), author, message)

        return await self._make("merge", repo, ref, expected_old, [ours, theirs], work)

    async def rebase(
        self, repo: str, *, ref: str, expected_old: str | None, head: str, onto: str, committer: Signature
    ) -> CommitOutcome:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> CommitOutcome:
            return local_merge.rebase(operation, repository, at(head), at(onto), committer)

        return await self._make("rebase", repo, ref, expected_old, [head, onto], work)

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

        def work(operation: str, repository: pygit2.Repository, at: At) -> CommitOutcome:
            return local_merge.revert(operation, repository, at(onto), at(base), at(head), author, message)

        return await self._make("revert", repo, ref, expected_old, [onto, base, head], work)

    async def trial_revert(self, repo: str, onto: str, base: str, head: str) -> TrialMerge:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> TrialMerge:
            return local_merge.trial_revert(operation, repository, at(onto), at(base), at(head))

        return await self._read("trial_revert", repo, [onto, base, head], work)

    async def export(self, repo: str, commit: str, destination: Path) -> int:
        """See `GitAdapter`."""

        def work(operation: str, repository: pygit2.Repository, at: At) -> int:
            return local_export.export(operation, repository, at(commit), destination)

        return await self._read("export", repo, [commit], work)

    async def _run(self, operation: str, work: Callable[[], _Result]) -> _Result:
        """Run `work` in a thread; only `GitError` leaves it."""
        return await run_in(self._pool, operation, work)


async def run_in(pool: ThreadPoolExecutor, operation: str, work: Callable[[], _Result]) -> _Result:
    """Run `work` in a thread of the pool; only `GitError` leaves it, by `local_repo.TRANSLATED`."""

    def translating() -> _Result:
        with translated(operation):
            return work()

    try:
        running = pool.submit(translating)
    except RuntimeError as error:
        raise GitError(operation, "the adapter is closed", safe_to_repeat=True) from error
    return await asyncio.wrap_future(running)


def _made(outcome: CommitOutcome) -> str:
    if outcome.sha is None:
        raise AssertionError("a commit of files or of a tree has no conflicts")
    return outcome.sha
