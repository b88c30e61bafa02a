"""Keeping mirrors up to date with their server, and mending them: what a reader gets is as fresh and whole as it asked for."""

from __future__ import annotations

import asyncio
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import pygit2
import structlog
from dulwich.errors import ApplyDeltaError, ChecksumMismatch, ObjectFormatException
from dulwich.object_store import DiskObjectStore
from dulwich.pack import PackData, UnresolvedDeltas

from conman.git.adapter import GitError, RepositoryMissing
from conman.git.gitaly_channel import GitalyChannel, GitalyError
from conman.git.gitaly_mirror import (
    Mirror,
    MirrorStore,
    consolidate,
    is_crowded,
    open_generation,
    read_tips,
    write_tips,
)
from conman.git.gitaly_smart import NotOurRef, SmartClient
from conman.git.library import run_in

_Result = TypeVar("_Result")
log = structlog.get_logger(__name__)

_LOOKS = 3
"""How often refs are looked at again when what they held is gone by the time it is fetched."""
_WRITE_BYTES = 1024 * 1024
_PACK_HEADER = struct.Struct(">4sII")
_BAD_PACK = (
    ApplyDeltaError,
    AssertionError,
    ChecksumMismatch,
    ObjectFormatException,
    UnresolvedDeltas,
    LookupError,
    ValueError,
    zlib.error,
)
"""What dulwich raises for a pack that is damaged, or that builds on objects that are not there."""


class _BadPack(GitError):
    """A pack can't be used. Raised while a mirror is brought up to date, which is then built anew."""


@dataclass(slots=True)
class _Flights:
    """The looks at one repository's refs that are under way: callers share one that began after they asked."""

    running: asyncio.Task[dict[str, str]] | None = None
    waiting: asyncio.Task[dict[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class _Absent:
    """Why work could not begin: these objects are not in the mirror; None: there is no mirror."""

    shas: list[str] | None


@dataclass(frozen=True, slots=True)
class _Done:
    value: object = field(default=None)


class Mirrors:
    """The mirrors of one server's storage, each brought up to date when it is asked for."""

    def __init__(self, channel: GitalyChannel, store: MirrorStore, pool: ThreadPoolExecutor) -> None:
        self._channel = channel
        self._store = store
        self.root = store.root
        self._pool = pool
        self.smart = SmartClient(channel)
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flights]] = WeakKeyDictionary()
        self._seen: dict[str, tuple[str | None, dict[str, str]]] = {}
        self._blamed: set[tuple[str | None, str]] = set()

    def mirror(self, repo: str) -> Mirror:
        """The mirror of a repository."""
        return self._store.mirror(self._channel.options.storage, repo)

    async def run(self, operation: str, work: Callable[[], _Result]) -> _Result:
        """Run what blocks in a thread; only `GitError` leaves it."""
        return await run_in(self._pool, operation, work)

    async def refs(self, operation: str, repo: str) -> dict[str, str]:
        """The server's refs now, name → sha; the mirror then has all that they reach. Raises `RepositoryMissing`."""
        loop = asyncio.get_running_loop()
        flights = self._flights.setdefault(loop, {}).setdefault(repo, _Flights())
        if flights.waiting is not None:
            task = flights.waiting
        elif flights.running is None or flights.running.done():
            flights.running = task = loop.create_task(self._refresh(operation, repo))
            task.add_done_callback(_retrieve)
        else:
            flights.waiting = task = loop.create_task(self._refresh_after(operation, repo, flights))
            task.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(task)
        except GitError as error:
            raise _as_of(operation, repo, error) from error

    async def use(self, operation: str, repo: str, needs: Iterable[str], work: Callable[[pygit2.Repository], _Result]) -> _Result:
        """Run `work` in a thread on the mirror, with the objects that it needs where the server has them.

        A mirror that turns out to be damaged is built anew, and the work done again.
        """
        shas = sorted(set(needs))
        outcome = await self._attempt(operation, repo, shas, work)
        if isinstance(outcome, _Absent):
            # The mirror may be another than it was when the refs were last seen.
            self._seen.pop(repo, None)
            await self.refs(operation, repo)
            outcome = await self._attempt(operation, repo, shas, work)
        if isinstance(outcome, _Absent):
            await self._bring_exactly(operation, repo, outcome.shas or [])
            outcome = await self._attempt(operation, repo, (), work)
        if isinstance(outcome, _Absent):
            raise GitError(operation, "the local mirror was deleted while it was used", safe_to_repeat=True)
        return outcome.value  # type: ignore[return-value]

    async def follow(self, operation: str, repo: str, refs: dict[str, str], generation: str, pack: Path | None) -> None:
        """Take over what was pushed from a generation, so that the next look finds everything here."""
        mirror = self.mirror(repo)
        try:
            if pack is not None:
                await self.run(operation, lambda: mirror.adopt(generation, pack.parent, refs.values()))
                if await self.run(operation, lambda: _is_crowded(mirror)):
                    async with mirror.exclusive(operation, self._channel.options.transfer_seconds):
                        await self.run(operation, lambda: self._tidy(mirror))
            self._seen[repo] = (generation, refs)
        except GitError as error:
            # The push is done, whatever becomes of the cache: the next to use the mirror gets a new one.
            log.warning("mirror_dropped", repo=repo, error=str(error))
            await self.forget(operation, repo)

    async def forget(self, operation: str, repo: str) -> None:
        """Delete the mirror of a repository that is gone."""
        self._seen.pop(repo, None)
        await self.run(operation, self.mirror(repo).discard)

    async def _refresh_after(self, operation: str, repo: str, flights: _Flights) -> dict[str, str]:
        running = flights.running
        if running is not None:
            await asyncio.wait([running])
        flights.running, flights.waiting = flights.waiting, None
        return await self._refresh(operation, repo)

    async def _refresh(self, operation: str, repo: str) -> dict[str, str]:
        mirror = self.mirror(repo)
        for look in range(_LOOKS):
            try:
                refs = (await self.smart.refs(operation, repo)).refs
            except RepositoryMissing:
                await self.forget(operation, repo)
                raise
            if self._seen.get(repo) == (mirror.current(), refs):
                return refs
            try:
                await self._bring(operation, repo, mirror, set(refs.values()))
            except NotOurRef:
                if look == _LOOKS - 1:
                    raise
                continue
            self._seen[repo] = (mirror.current(), refs)
            return refs
        raise AssertionError("unreachable")

    async def _bring(self, operation: str, repo: str, mirror: Mirror, tips: set[str]) -> None:
        """Have all that `tips` reach in the mirror."""
        if await self.run(operation, lambda: _absent_tips(mirror, tips)) == []:
            return
        async with mirror.exclusive(operation, self._channel.options.transfer_seconds):
            # Another process may have fetched the same meanwhile.
            absent = await self.run(operation, lambda: _absent_tips(mirror, tips))
            if absent == []:
                return
            if absent is None or not await self._extend(operation, repo, mirror, absent, tips):
                await self._build(operation, repo, mirror, tips)
            await self.run(operation, lambda: self._tidy(mirror))

    async def _extend(self, operation: str, repo: str, mirror: Mirror, absent: Sequence[str], tips: set[str]) -> bool:
        """Fetch what is absent into the present generation; False when that can't be: it is damaged, or of another repository."""
        with mirror.reading() as generation:
            if generation is None:
                return False
            haves = await self.run(operation, lambda: _present(generation, [*tips, *read_tips(generation)]))
            try:
                common = await self._fetch(operation, repo, generation, absent, haves)
            except _BadPack:
                return False
            if haves and not common:
                return False
            return await self.run(operation, lambda: _absent_tips(mirror, tips)) == []

    async def _build(self, operation: str, repo: str, mirror: Mirror, tips: set[str]) -> None:
        """Fetch everything into a new generation, and make it the present one."""
        generation = await self.run(operation, mirror.begin)
        try:
            if tips:
                await self._fetch(operation, repo, generation, sorted(tips), [])
            await self.run(operation, lambda: write_tips(generation, tips))
            await self.run(operation, lambda: mirror.publish(generation))
        except BaseException:
            if mirror.current() != generation.name:
                shutil.rmtree(generation, ignore_errors=True)
            raise

    async def _bring_exactly(self, operation: str, repo: str, shas: Sequence[str]) -> None:
        """Fetch objects that no ref reaches, where the server has them."""
        mirror = self.mirror(repo)
        async with mirror.exclusive(operation, self._channel.options.transfer_seconds):
            with mirror.reading() as generation:
                if generation is None:
                    return
                haves = await self.run(operation, lambda: _present(generation, read_tips(generation)))
                for sha in shas:
                    with suppress(NotOurRef):
                        await self._fetch(operation, repo, generation, [sha], haves)

    async def _fetch(self, operation: str, repo: str, generation: Path, wants: Sequence[str], haves: Sequence[str]) -> bool:
        """Fetch a pack into a generation; whether the server knows any of `haves`. Raises `_BadPack`."""

        async def once() -> bool:
            store = await self.run(operation, lambda: DiskObjectStore(generation / "objects"))
            try:
                file, commit, abort = await self.run(operation, store.add_pack)
                waiting = bytearray()

                async def sink(data: bytes) -> None:
                    waiting.extend(data)
                    if len(waiting) >= _WRITE_BYTES:
                        await self.run(operation, lambda: file.write(waiting))
                        waiting.clear()

                def finish() -> None:
                    file.write(waiting)
                    file.flush()
                    file.seek(0)
                    _, _, objects = _PACK_HEADER.unpack(file.read(_PACK_HEADER.size))
                    if not objects:
                        abort()
                        return
                    with PackData("received", store.object_format, file=file) as received:
                        received.check()
                    file.seek(0, 2)
                    commit()

                try:
                    common = await self.smart.fetch(operation, repo, wants, haves, sink)
                    await self.run(operation, lambda: _checked(operation, finish))
                except BaseException:
                    with suppress(OSError):
                        abort()
                    raise
                return common
            finally:
                await self.run(operation, store.close)

        return await self._channel.repeated(once)

    async def _attempt(
        self, operation: str, repo: str, shas: Sequence[str], work: Callable[[pygit2.Repository], _Result]
    ) -> _Done | _Absent:
        mirror = self.mirror(repo)
        used: str | None = None

        def on_mirror() -> _Done | _Absent:
            nonlocal used
            with mirror.reading() as generation:
                if generation is None:
                    return _Absent(None)
                used = generation.name
                repository = open_generation(generation)
                absent = [sha for sha in shas if not _whole(repository, sha)]
                return _Absent(absent) if absent else _Done(work(repository))

        try:
            return await self.run(operation, on_mirror)
        except GitError as error:
            if not _looks_damaged(error) or (used, str(error)) in self._blamed:
                raise
        await self.run(operation, lambda: mirror.check_room(operation))
        await self._rebuild(operation, repo, mirror, used)
        try:
            return await self.run(operation, on_mirror)
        except GitError as error:
            # The server's repository itself is so: building the mirror again and again would not mend it.
            self._blamed.add((used, str(error)))
            raise

    async def _rebuild(self, operation: str, repo: str, mirror: Mirror, damaged: str | None) -> None:
        self._seen.pop(repo, None)
        refs = (await self.smart.refs(operation, repo)).refs
        async with mirror.exclusive(operation, self._channel.options.transfer_seconds):
            if mirror.current() == damaged:
                await self._build(operation, repo, mirror, set(refs.values()))

    def _tidy(self, mirror: Mirror) -> None:
        """Keep what has grown within bounds; for who holds the mirror alone."""
        with mirror.reading() as generation, mirror.scratch() as scratch:
            if generation is not None and is_crowded(generation):
                consolidate(generation, scratch)
        self._store.make_room(mirror)


def _absent_tips(mirror: Mirror, tips: set[str]) -> list[str] | None:
    """Which tips the mirror lacks; None when it must be built: there is none, or it is of a repository that was emptied."""
    with mirror.reading() as generation:
        if generation is None:
            return None
        known = read_tips(generation)
        if known and not tips:
            return None
        try:
            present = set(_present(generation, tips))
        except pygit2.GitError:
            return None
        absent = sorted(tips - present)
        if not absent and set(known) != tips:
            write_tips(generation, tips)
        return absent


def _is_crowded(mirror: Mirror) -> bool:
    with mirror.reading() as generation:
        return generation is not None and is_crowded(generation)


def _present(generation: Path, shas: Iterable[str]) -> list[str]:
    repository = open_generation(generation)
    return [sha for sha in dict.fromkeys(shas) if sha in repository]


def _whole(repository: pygit2.Repository, sha: str) -> bool:
    """Whether an object is there, and what an annotated tag points to as well."""
    while sha in repository:
        found = repository.get(sha)
        if not isinstance(found, pygit2.Tag):
            return True
        sha = str(found.target)
    return False


def _looks_damaged(error: GitError) -> bool:
    """Whether it was the library that failed, on what it found in the mirror: not the system, not an argument."""
    cause = error.__cause__
    if isinstance(cause, ValueError):
        return False
    return isinstance(cause, (pygit2.GitError, LookupError)) or (isinstance(cause, OSError) and cause.errno is None)


def _retrieve(task: asyncio.Task[dict[str, str]]) -> None:
    """Whoever asked may be gone when the look fails; without this, the event loop would report the failure as unnoticed."""
    if not task.cancelled():
        task.exception()


def _checked(operation: str, finish: Callable[[], None]) -> None:
    try:
        finish()
    except (*_BAD_PACK, struct.error) as error:
        raise _BadPack(operation, f"the fetched pack can't be used: {error!r}", safe_to_repeat=True) from error


def _as_of(operation: str, repo: str, error: GitError) -> GitError:
    """The failure of a look that several callers shared, in the name of one of them."""
    if isinstance(error, RepositoryMissing):
        return RepositoryMissing(operation, repo)
    if isinstance(error, GitalyError):
        return GitalyError(operation, error.code, error.details)
    text = str(error).removeprefix(f"{error.operation}: ")
    return GitError(operation, text, safe_to_repeat=error.safe_to_repeat)
