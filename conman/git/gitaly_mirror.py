"""Local mirrors of a server's repositories, on disk: where they are, who may touch them when, and how much room they take.

A mirror is a cache: all of it can be fetched again, nothing in it is flushed, and any of it may be found damaged or gone.
Each has a folder with `current`, a link to its present generation. A generation is a bare repository without refs that holds
packs only: objects come into it a whole pack at a time, so that one that is there has all that it reaches. A mirror that is
damaged, or whose repository was replaced, is built anew as another generation beside the old one, and the link moves.

Whoever reads a generation holds its `readers` lock shared, whoever deletes it holds it alone; whoever fetches holds the
mirror's `lock`. All are `flock`s, which the kernel frees when their holder dies. Readers never wait for a fetch.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pygit2
from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.pack import load_pack_index
from pygit2.enums import RepositoryOpenFlag

from conman.git.adapter import GitError
from conman.git.checks import is_sha
from conman.git.local_repo import translated

_CURRENT, _LOCK, _READERS, _TIPS = "current", "lock", "readers", "tips"
_GENERATION, _SCRATCH = "generation-", "scratch-"
MAX_PACKS = 64
"""Small packs of one generation, from which on they are put into one."""
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_LEAST_FREE_BYTES = 16 * 1024 * 1024


class Mirror:
    """One repository's mirror. All methods but `exclusive` block on the disk, and raise what the system and the library raise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> str | None:
        """The name of the present generation, None when there is none."""
        try:
            name = (self.folder / _CURRENT).readlink().name
        except OSError:
            return None
        return name if name.startswith(_GENERATION) else None

    @contextmanager
    def reading(self) -> Iterator[Path | None]:
        """The present generation, kept from deletion inside the block; None when there is none that could be opened."""
        descriptor, path = self._hold()
        try:
            yield path
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _hold(self) -> tuple[int | None, Path | None]:
        while (name := self.current()) is not None:
            path = self.folder / name
            try:
                descriptor = os.open(path / _READERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                if self.current() == name:
                    break
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                os.utime(descriptor)
                if self.current() == name:
                    return descriptor, path if (path / "HEAD").is_file() and (path / "objects" / "pack").is_dir() else None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        return None, None

    @asynccontextmanager
    async def exclusive(self, operation: str, patience: float) -> AsyncIterator[None]:
        """Be the only one, of all processes, to fetch or build. Raises `GitError` after `patience` seconds."""
        with translated(operation):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + patience
            pause = _FIRST_PAUSE
            while not _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if loop.time() >= deadline:
                    raise GitError(operation, "another process keeps the local mirror locked", safe_to_repeat=True)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            yield
        finally:
            os.close(descriptor)

    def begin(self) -> Path:
        """Make an empty generation that nobody sees yet."""
        path = self.folder / f"{_GENERATION}{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        try:
            pygit2.init_repository(str(path), bare=True)
            (path / _READERS).touch()
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return path

    def publish(self, generation: Path) -> None:
        """Make a generation the present one, and delete the others."""
        link = self.folder / f"{_SCRATCH}{uuid.uuid4().hex}"
        link.symlink_to(generation.name)
        link.rename(self.folder / _CURRENT)
        self.sweep()

    def discard(self) -> None:
        """Have no generation; what is still read is deleted later."""
        (self.folder / _CURRENT).unlink(missing_ok=True)
        self.sweep()

    def sweep(self) -> None:
        """Delete the generations and scratch folders that nobody uses, such as a dead process left."""
        kept = self.current()
        with suppress(FileNotFoundError):
            for path in list(self.folder.iterdir()):
                if path.name.startswith((_GENERATION, _SCRATCH)) and path.name != kept:
                    _delete_unused(path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder beside the generations, deleted after the block."""
        path = self.folder / f"{_SCRATCH}{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        descriptor = os.open(path / _READERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)

    def check_room(self, operation: str) -> None:
        """Raise `GitError` when the disk is as good as full: libgit2 fails there without saying why."""
        free = shutil.disk_usage(self.folder).free
        if free < _LEAST_FREE_BYTES:
            message = f"{os.strerror(errno.ENOSPC)}: only {free // 1024} KiB are free for the local mirror"
            raise GitError(operation, message, safe_to_repeat=True)

    def adopt(self, generation: str, packs: Path, tips: Iterable[str]) -> None:
        """Take over the packs in a folder that were made on top of a generation, if that is still the present one."""
        with self.reading() as path:
            if path is not None and path.name == generation:
                write_tips(path, set(tips))
                _move_packs(packs, path / "objects" / "pack")


def open_generation(path: Path) -> pygit2.Repository:
    """Open a generation for one call in one thread."""
    return pygit2.Repository(str(path), RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH)


def read_tips(generation: Path) -> list[str]:
    """The shas that the server's refs had when the generation was last brought up to date; nothing when that was lost."""
    try:
        lines = (generation / _TIPS).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return []
    return [line for line in lines if is_sha(line)]


def write_tips(generation: Path, tips: Iterable[str]) -> None:
    """Note what the server's refs have, now that the generation has all of it."""
    made = generation / f"{_TIPS}-{uuid.uuid4().hex}"
    try:
        made.write_text("\n".join(sorted(tips)) + "\n", encoding="ascii")
        made.rename(generation / _TIPS)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def is_crowded(generation: Path) -> bool:
    """Whether a generation has so many packs that they are better put together."""
    return sum(path.suffix == ".idx" for path in (generation / "objects" / "pack").iterdir()) > MAX_PACKS


def consolidate(generation: Path, scratch: Path) -> None:
    """Put all packs of a generation but the largest into one, since each look for an object goes through all.

    Only who holds the mirror alone may do so. Readers are not disturbed: the new pack is there before the old ones go, and the
    library looks for packs anew before it calls an object missing.
    """
    folder = generation / "objects" / "pack"
    indexes = sorted(folder.glob("*.idx"), key=lambda path: path.stat().st_size)[:-1]
    builder = pygit2.PackBuilder(open_generation(generation))
    builder.set_threads(1)
    for path in indexes:
        index = load_pack_index(path, DEFAULT_OBJECT_FORMAT)
        for name, _, _ in index.iterentries():
            builder.add(pygit2.Oid(name))
        index.close()
    builder.write(str(scratch))
    _move_packs(scratch, folder)
    for path in indexes:
        path.unlink()
        path.with_suffix(".pack").unlink(missing_ok=True)


def _move_packs(source: Path, folder: Path) -> None:
    """Move packs, each before the index that makes it count."""
    for index in list(source.glob("*.idx")):
        pack = index.with_suffix(".pack")
        pack.rename(folder / pack.name)
        index.rename(folder / index.name)


class MirrorStore:
    """All mirrors of one server below a folder that several servers and processes may share."""

    def __init__(self, root: Path, max_bytes: int, server: str) -> None:
        self.root = root
        self._max_bytes = max_bytes
        self._server = server

    def mirror(self, storage: str, repo: str) -> Mirror:
        """The mirror of a repository, which need not exist yet."""
        name = "\0".join((self._server, storage, repo)).encode()
        return Mirror(self.root / hashlib.sha256(name).hexdigest()[:40])

    def make_room(self, kept: Mirror) -> None:
        """Delete the longest unused mirrors until all together are within bounds; `kept`, and what is being read, stays."""
        found: list[tuple[float, int, Mirror]] = []
        for folder in self.root.iterdir():
            mirror = Mirror(folder)
            name = mirror.current()
            if name is not None:
                with suppress(FileNotFoundError):
                    found.append(((folder / name / _READERS).stat().st_mtime, _size(folder), mirror))
        total = sum(size for _, size, _ in found)
        for _, size, mirror in sorted(found, key=lambda item: item[0]):
            if total <= self._max_bytes:
                break
            if mirror.folder != kept.folder:
                mirror.discard()
                total -= size


def _size(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(path) / name).lstat().st_size
    return total


def _delete_unused(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        descriptor = os.open(path / _READERS, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        if _locked(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True
