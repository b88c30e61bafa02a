"""The Git port on bare repositories of this machine, in process, by libgit2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pygit2

from conman.git import local_refs
from conman.git.adapter import CommitOutcome, GitHealth, RefUpdate
from conman.git.library import LibraryGit, Work
from conman.git.local_repo import Storage

_Result = TypeVar("_Result")


class LocalGit(LibraryGit):
    """`GitAdapter` on the bare repositories below `root`; see `LibraryGit` for `threads`."""

    def __init__(self, root: Path, threads: int) -> None:
        super().__init__(threads)
        self._storage = Storage(root)
        self._storage.sweep()

    def close(self) -> None:
        """Wait for the running calls; later ones raise `GitError`."""
        self._pool.shutdown()

    async def repository_exists(self, repo: str) -> bool:
        """See `GitAdapter`."""
        return await self._run("repository_exists", lambda: self._storage.exists("repository_exists", repo))

    async def create_repository(self, repo: str, default_branch: str) -> None:
        """See `GitAdapter`."""
        await self._run("create_repository", lambda: self._storage.create("create_repository", repo, default_branch))

    async def remove_repository(self, repo: str) -> None:
        """See `GitAdapter`."""
        await self._run("remove_repository", lambda: self._storage.remove("remove_repository", repo))

    async def list_refs(self, repo: str, prefix: str) -> dict[str, str]:
        """See `GitAdapter`."""
        return await self._on("list_refs", repo, lambda repository: local_refs.list_refs(repository, prefix))

    async def update_refs(self, repo: str, updates: Sequence[RefUpdate]) -> None:
        """See `GitAdapter`."""
        wanted = tuple(updates)
        await self._on("update_refs", repo, lambda repository: local_refs.move_refs("update_refs", repository, wanted))

    async def health(self) -> GitHealth:
        """See `GitAdapter`."""
        await self._run("health", lambda: self._storage.check("health"))
        return GitHealth("local", "local", {"repositories": str(self._storage.root)})

    async def _read(self, operation: str, repo: str, revisions: Sequence[str | None], work: Work[_Result]) -> _Result:
        return await self._on(operation, repo, lambda repository: work(operation, repository, str))

    async def _make(
        self,
        operation: str,
        repo: str,
        ref: str,
        expected_old: str | None,
        revisions: Sequence[str | None],
        work: Work[CommitOutcome],
    ) -> CommitOutcome:
        def made_and_placed(repository: pygit2.Repository) -> CommitOutcome:
            outcome = work(operation, repository, str)
            if outcome.sha is not None:
                local_refs.place(operation, repository, ref, expected_old, outcome.sha)
            return outcome

        return await self._on(operation, repo, made_and_placed)

    async def _on(self, operation: str, repo: str, work: Callable[[pygit2.Repository], _Result]) -> _Result:
        return await self._run(operation, lambda: work(self._storage.open(operation, repo)))
