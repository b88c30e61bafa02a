"""The Git port on a Gitaly server in pack mode: local mirrors are read and built upon, what is made there is pushed.

This is for gitaly-rs, whose operations are stubs, and for whatever serves Git's own protocol. A push compares and swaps all
of its refs or none. A look at a ref asks the server; an object that is named by its sha is read from the mirror if it is there.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pygit2

from conman.git import local_export
from conman.git.adapter import CommitOutcome, GitError, GitHealth, ObjectMissing, RefUpdate, StaleRef
from conman.git.checks import checked_repo, checked_updates, is_ref_name, is_sha, ref_parents
from conman.git.gitaly_channel import GitalyChannel, Kind, Landed
from conman.git.gitaly_mirror import MirrorStore
from conman.git.gitaly_refresh import Mirrors
from conman.git.gitaly_send import overlaid, write_pack
from conman.git.gitaly_smart import Advertisement
from conman.git.library import At, LibraryGit, Work

_Result = TypeVar("_Result")
_HEALTH_REPOSITORY = "conman-health.git"
"""Whether it exists does not matter: a server that can answer is healthy."""


@dataclass(frozen=True, slots=True)
class PackOptions:
    """`mirrors` is the folder of the cache, which other processes may share, and `max_bytes` about how much it may hold."""

    mirrors: Path
    max_bytes: int
    threads: int = 8


class PackGit(LibraryGit):
    """`GitAdapter` on one storage of a server; the channel is the caller's to close."""

    def __init__(self, channel: GitalyChannel, options: PackOptions) -> None:
        super().__init__(options.threads)
        self._channel = channel
        store = MirrorStore(options.mirrors, options.max_bytes, channel.target)
        self._mirrors = Mirrors(channel, store, self._pool)
        self._smart = self._mirrors.smart

    def close(self) -> None:
        """Wait for what runs in threads; later calls raise `GitError`."""
        self._pool.shutdown()

    async def repository_exists(self, repo: str) -> bool:
        """See `GitAdapter`."""
        return await self._smart.exists("repository_exists", checked_repo("repository_exists", repo))

    async def create_repository(self, repo: str, default_branch: str) -> None:
        """See `GitAdapter`."""
        operation = "create_repository"
        names = checked_repo(operation, repo).split("/")
        if not is_ref_name(f"refs/heads/{default_branch}"):
            raise GitError(operation, f"{default_branch!r} is not a branch name", safe_to_repeat=False)
        above = ["/".join(names[:length]) for length in range(1, len(names))]
        if any(await asyncio.gather(*(self._smart.exists(operation, path) for path in above))):
            raise GitError(operation, f"{repo!r} is inside another repository", safe_to_repeat=False)
        await self._smart.create(operation, repo, default_branch)
        # What a repository that was here before has left.
        await self._mirrors.forget(operation, repo)

    async def remove_repository(self, repo: str) -> None:
        """See `GitAdapter`."""
        operation = "remove_repository"
        await self._smart.remove(operation, checked_repo(operation, repo))
        await self._mirrors.forget(operation, repo)

    async def list_refs(self, repo: str, prefix: str) -> dict[str, str]:
        """See `GitAdapter`."""
        refs = await self._refs("list_refs", repo)
        return {name: sha for name, sha in refs.items() if name.startswith(prefix)}

    async def update_refs(self, repo: str, updates: Sequence[RefUpdate]) -> None:
        """See `GitAdapter`."""
        operation, wanted = "update_refs", tuple(updates)
        checked_updates(operation, wanted)
        advertised = await self._smart.refs_to_push(operation, checked_repo(operation, repo))
        if not wanted:
            return
        new = sorted({update.new for update in wanted if update.new is not None})
        mirror = self._mirrors.mirror(repo)

        def packed(repository: pygit2.Repository, scratch: Path) -> Path | None:
            for update in wanted:
                if update.new is not None:
                    _check_target(operation, repository, update.ref, update.new)
            check_moves(operation, wanted, advertised.refs)
            return write_pack(repository, new, advertised.refs.values(), scratch) if new else None

        with mirror.scratch() as scratch:
            pack, generation = await self._mirrors.use(
                operation, repo, new, lambda repository: (packed(repository, _fresh(scratch)), _generation(repository))
            )
            await self._push(_Push(operation, repo, wanted, advertised, pack, generation))

    async def health(self) -> GitHealth:
        """See `GitAdapter`."""
        await self._smart.exists("health", _HEALTH_REPOSITORY)
        return GitHealth("gitaly", "pack", {"address": self._channel.options.address, "mirrors": str(self._mirrors.root)})

    async def export(self, repo: str, commit: str, destination: Path) -> int:
        """See `GitAdapter`."""
        tries = 0

        def work(operation: str, repository: pygit2.Repository, at: At) -> int:
            nonlocal tries
            tries += 1
            if tries > 1:
                # The mirror was found damaged in the middle, and is a new one: what was written so far is written again.
                _empty(destination)
            return local_export.export(operation, repository, at(commit), destination)

        return await self._read("export", repo, [commit], work)

    async def _refs(self, operation: str, repo: str) -> dict[str, str]:
        return await self._mirrors.refs(operation, checked_repo(operation, repo))

    async def _read(self, operation: str, repo: str, revisions: Sequence[str | None], work: Work[_Result]) -> _Result:
        checked_repo(operation, repo)
        asked = [revision for revision in revisions if revision is not None]
        refs = {} if all(map(is_sha, asked)) else await self._refs(operation, repo)
        return await self._on_scratch(operation, repo, asked, refs, work)

    async def _on_scratch(
        self, operation: str, repo: str, revisions: Sequence[str], refs: dict[str, str], work: Work[_Result]
    ) -> _Result:
        """Run `work` on the mirror; what it writes (a merge's trees) is dropped after."""
        needs = [sha for sha in (refs.get(revision, revision) for revision in revisions) if is_sha(sha)]
        mirror = self._mirrors.mirror(repo)

        def aside(repository: pygit2.Repository) -> _Result:
            with mirror.scratch() as scratch:
                return work(operation, overlaid(repository, scratch), lambda revision: refs.get(revision, revision))

        return await self._mirrors.use(operation, repo, needs, aside)

    async def _make(
        self,
        operation: str,
        repo: str,
        ref: str,
        expected_old: str | None,
        revisions: Sequence[str | None],
        work: Work[CommitOutcome],
    ) -> CommitOutcome:
        advertised = await self._smart.refs_to_push(operation, checked_repo(operation, repo))
        refs = advertised.refs
        needs = [refs.get(revision, revision) for revision in revisions if revision is not None]
        mirror = self._mirrors.mirror(repo)

        def made(repository: pygit2.Repository, scratch: Path) -> tuple[CommitOutcome, RefUpdate | None, Path | None]:
            outcome = work(operation, overlaid(repository, scratch), lambda revision: refs.get(revision, revision))
            sha = outcome.sha
            if sha is None:
                return outcome, None, None
            move = RefUpdate(ref, expected_old, sha)
            checked_updates(operation, [move])
            if refs.get(ref) == sha:
                # A repeat of what was done already.
                return outcome, None, None
            check_moves(operation, [move], refs)
            return outcome, move, write_pack(repository, [sha], refs.values(), scratch)

        with mirror.scratch() as scratch:
            (outcome, move, pack), generation = await self._mirrors.use(
                operation,
                repo,
                [sha for sha in needs if is_sha(sha)],
                lambda repository: (made(repository, _fresh(scratch)), _generation(repository)),
            )
            if move is not None:
                try:
                    await self._push(_Push(operation, repo, (move,), advertised, pack, generation))
                except StaleRef:
                    if (await self._smart.refs(operation, repo)).refs.get(ref) != move.new:
                        raise
        return outcome

    async def _push(self, push: _Push) -> None:
        """Move the refs on the server, or find out what became of it when the answer is lost."""
        moves = [move for move in push.updates if move.old is not None or move.new is not None]
        if not moves:
            return

        async def look() -> Landed[None] | None:
            refs = (await self._smart.refs(push.operation, push.repo)).refs
            if await self._landed(push, refs):
                return Landed(None)
            check_moves(push.operation, push.updates, refs)
            return None

        async def attempt() -> None:
            for pause in [*self._channel.pauses(), None]:
                answer = await self._smart.push(push.operation, push.repo, moves, push.advertised.capabilities, push.pack)
                refusals = [f"{ref}: {reason}" for ref, reason in answer.items() if reason is not None]
                if not refusals and len(answer) == len(moves):
                    return
                check_moves(push.operation, push.updates, (await self._smart.refs(push.operation, push.repo)).refs)
                if pause is None:
                    text = "; ".join(refusals) or "the server reports on other refs than were pushed"
                    raise GitError(push.operation, f"the server refuses the push: {text}", safe_to_repeat=True)
                # Nobody moved them: another push holds a ref's lock at this moment, and may yet let go of it.
                await asyncio.sleep(pause)

        await self._channel.settle(attempt, look, kind=Kind.TRANSFER)
        refs = dict(push.advertised.refs)
        for move in moves:
            if move.new is None:
                refs.pop(move.ref, None)
            else:
                refs[move.ref] = move.new
        await self._mirrors.follow(push.operation, push.repo, dict(sorted(refs.items())), push.generation, push.pack)

    async def _landed(self, push: _Push, refs: dict[str, str]) -> bool:
        """Whether all refs are where the push would put them, or further on from there."""
        changed = [update for update in push.updates if update.new != update.old]
        if not changed or any(update.new is None and update.ref in refs for update in changed):
            return False
        moved_on = [(update, refs.get(update.ref)) for update in changed if refs.get(update.ref) != update.new]
        if any(there is None or there == update.old for update, there in moved_on):
            return False

        def contain(repository: pygit2.Repository) -> bool:
            return all(_contains(repository, there, update.new) for update, there in moved_on)

        return not moved_on or await self._mirrors.use(push.operation, push.repo, [there or "" for _, there in moved_on], contain)


@dataclass(frozen=True, slots=True)
class _Push:
    """Refs to move, what the server said before, and the pack, made on top of a generation of the mirror, that goes with them."""

    operation: str
    repo: str
    updates: Sequence[RefUpdate]
    advertised: Advertisement
    pack: Path | None
    generation: str


def check_moves(operation: str, updates: Sequence[RefUpdate], refs: Mapping[str, str]) -> None:
    """Raise what a backend says when refs that are so can't be moved so: `StaleRef`, or `GitError` for a name in the way."""
    for update in updates:
        if refs.get(update.ref) != update.old:
            raise StaleRef(operation, update.ref)
    created = [update.ref for update in updates if update.old is None and update.new is not None]
    for ref in created:
        for parent in ref_parents(ref):
            if parent in created or parent in refs:
                raise GitError(operation, f"{parent} is in the way of {ref}", safe_to_repeat=False)
        if any(name.startswith(f"{ref}/") for name in refs):
            raise GitError(operation, f"refs below {ref} are in its way", safe_to_repeat=False)


def _check_target(operation: str, repository: pygit2.Repository, ref: str, new: str) -> None:
    target = repository.get(new)
    if target is None:
        raise ObjectMissing(operation, f"object {new}")
    if ref.startswith("refs/heads/") and not isinstance(target, pygit2.Commit):
        raise GitError(operation, f"{ref} can only hold a commit", safe_to_repeat=False)


def _contains(repository: pygit2.Repository, descendant: str | None, ancestor: str | None) -> bool:
    heads = [repository.get(sha) for sha in (descendant, ancestor) if sha is not None]
    if len(heads) != 2 or not all(isinstance(head, pygit2.Commit) for head in heads):
        return False
    return repository.descendant_of(str(descendant), str(ancestor))


def _generation(repository: pygit2.Repository) -> str:
    return Path(str(repository.path)).name


def _fresh(scratch: Path) -> Path:
    """An empty folder in the scratch folder, for each time that the work is done."""
    return Path(tempfile.mkdtemp(dir=scratch))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
