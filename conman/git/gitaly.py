"""The Git port on a Gitaly server, in the mode that the server can do: see `gitaly_pack` and `gitaly_ops`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import grpc

from conman.git.adapter import GitAdapter, GitError, GitHealth
from conman.git.gitaly_channel import GitalyChannel, GitalyError, GitalyOptions, Kind
from conman.git.gitaly_ops import GitalyOperations
from conman.git.gitaly_pack import PackGit, PackOptions
from conman.git.gitaly_smart import SmartClient
from conman.git.proto import gitaly_pb2
from conman.settings.git import GitalyMode

_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])

_PROBED_REPOSITORY = "conman-probe.git"
"""Whether it exists does not matter: a call that a server does not have is refused before its repository is looked for."""
_UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """The folder of what is kept of a server's repositories, about how many bytes of it, and the threads that work on it."""

    folder: Path
    max_bytes: int
    threads: int = 8


@dataclass(slots=True)
class _Probe:
    """What has been learned of the server; None: not yet. `operations` needs a repository with a branch to be learned."""

    packs: bool | None = None
    operations: bool | None = None
    locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = field(default_factory=WeakKeyDictionary)

    @property
    def mode(self) -> GitalyMode | None:
        """What follows: operations where they are real, packs where they are not but packs are given out."""
        if self.packs is False or self.operations:
            return GitalyMode.OPERATIONS
        return None if self.operations is None else GitalyMode.PACK

    def lock(self) -> asyncio.Lock:
        return self.locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def _forwarded(method: _Method) -> _Method:
    """The method of the adapter for the mode that the server can do."""

    @wraps(method)
    async def call(self: GitalyGit, repo: str, *args: Any, **kwargs: Any) -> Any:
        chosen = await self.chosen(method.__name__, repo)
        return await getattr(chosen, method.__name__)(repo, *args, **kwargs)

    return cast(_Method, call)


class GitalyGit:
    """`GitAdapter` on one storage of a Gitaly server.

    With `GitalyMode.AUTO` the server is asked what it can do at the first call that needs to know, and the answer is kept
    for as long as the adapter lives. The questions change nothing on the server. While all that was seen is repositories
    without a branch, packs are used: both modes work on the same repositories.
    """

    def __init__(self, options: GitalyOptions, mode: GitalyMode, cache: CacheOptions) -> None:
        self._channel = GitalyChannel(options)
        self._configured = mode
        self._probe = _Probe()
        self._smart = SmartClient(self._channel)
        self._pack = PackGit(self._channel, PackOptions(cache.folder / "packs", cache.max_bytes, cache.threads))
        self._operations = GitalyOperations(
            self._channel, cache.folder / "objects", cache_bytes=cache.max_bytes, threads=cache.threads
        )

    async def close(self) -> None:
        """End the calls to the server, and wait for what runs in threads; later calls raise `GitError`."""
        await self._channel.close()
        await asyncio.to_thread(self._pack.close)
        await asyncio.to_thread(self._operations.close)

    repository_exists = _forwarded(GitAdapter.repository_exists)
    create_repository = _forwarded(GitAdapter.create_repository)
    remove_repository = _forwarded(GitAdapter.remove_repository)
    resolve = _forwarded(GitAdapter.resolve)
    list_refs = _forwarded(GitAdapter.list_refs)
    update_refs = _forwarded(GitAdapter.update_refs)
    commit = _forwarded(GitAdapter.commit)
    log = _forwarded(GitAdapter.log)
    merge_base = _forwarded(GitAdapter.merge_base)
    is_ancestor = _forwarded(GitAdapter.is_ancestor)
    list_tree = _forwarded(GitAdapter.list_tree)
    entry = _forwarded(GitAdapter.entry)
    read_file = _forwarded(GitAdapter.read_file)
    read_blob = _forwarded(GitAdapter.read_blob)
    changed_paths = _forwarded(GitAdapter.changed_paths)
    diff = _forwarded(GitAdapter.diff)
    commit_files = _forwarded(GitAdapter.commit_files)
    commit_tree_of = _forwarded(GitAdapter.commit_tree_of)
    trial_merge = _forwarded(GitAdapter.trial_merge)
    trial_merges = _forwarded(GitAdapter.trial_merges)
    merge = _forwarded(GitAdapter.merge)
    rebase = _forwarded(GitAdapter.rebase)
    revert = _forwarded(GitAdapter.revert)
    trial_revert = _forwarded(GitAdapter.trial_revert)
    export = _forwarded(GitAdapter.export)

    async def health(self) -> GitHealth:
        """See `GitAdapter`: the address, the mode, and what the server was found to do."""
        await self._smart.exists("health", _PROBED_REPOSITORY)
        mode = self._mode()
        details = {"address": self._channel.options.address, "storage": self._channel.options.storage}
        if self._configured is GitalyMode.AUTO:
            details["packs"] = _seen(self._probe.packs)
            details["operations"] = _seen(self._probe.operations)
        return GitHealth("gitaly", _UNDECIDED if mode is None else mode.value, details)

    async def chosen(self, operation: str, repo: str) -> GitAdapter:
        """The adapter of the mode to use for a call; asks the server what it can do when that is not known."""
        if self._mode() is None:
            async with self._probe.lock():
                if self._mode() is None:
                    await self._ask(operation, repo)
        return self._operations if self._mode() is GitalyMode.OPERATIONS else self._pack

    def _mode(self) -> GitalyMode | None:
        return self._probe.mode if self._configured is GitalyMode.AUTO else self._configured

    async def _ask(self, operation: str, repo: str) -> None:
        if self._probe.packs is None:
            self._probe.packs = await self._gives_packs(operation)
        if not self._probe.packs:
            return
        try:
            refs = (await self._smart.refs(operation, repo)).refs
        except GitalyError as error:
            if error.transient:
                raise
            return
        except GitError:
            # No such repository: the call itself will say so.
            return
        tip = next((sha for name, sha in refs.items() if name.startswith("refs/heads/")), None)
        if tip is not None:
            self._probe.operations = await self._merges(operation, repo, tip)

    async def _gives_packs(self, operation: str) -> bool:
        """Whether the server has PostUploadPack: GitLab's has left it."""
        request = gitaly_pb2.PostUploadPackRequest(repository=self._channel.repository(_PROBED_REPOSITORY))
        method = self._channel.stubs.smart_http.PostUploadPack

        async def once() -> bool:
            try:
                async with self._channel.stream(operation, method, iter([request]), kind=Kind.SHORT) as messages:
                    async for _ in messages:
                        pass
            except GitalyError as error:
                if error.transient or error.code is grpc.StatusCode.UNAUTHENTICATED:
                    raise
                return error.code is not grpc.StatusCode.UNIMPLEMENTED
            return True

        return await self._channel.repeated(once)

    async def _merges(self, operation: str, repo: str, tip: str) -> bool:
        """Whether the server's operations are real: where they are stubs, a commit's merge base with itself is empty."""
        revisions = [tip.encode(), tip.encode()]
        request = gitaly_pb2.FindMergeBaseRequest(repository=self._channel.repository(repo), revisions=revisions)
        try:
            reply = await self._channel.read(operation, self._channel.stubs.repository.FindMergeBase, request)
        except GitalyError as error:
            if error.code is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return False
        return reply.base == tip


def _seen(answer: bool | None) -> str:
    return "not asked yet" if answer is None else "yes" if answer else "no"
