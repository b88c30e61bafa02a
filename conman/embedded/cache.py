"""The user's cache of what the embedded servers are made of, outside of any project's tree.

An artifact is a folder with a `SHA256SUMS` file inside. It is verified before each use, made under a lock, and moved
into place by one rename, so that nobody ever sees half of one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from conman.embedded.errors import EmbeddedError, Progress

_SUMS = "SHA256SUMS"
_POLL_SECONDS = 0.1
_TELL_EVERY_SECONDS = 10.0

Build = Callable[[Path, Path], Awaitable[None]]
"""Fills the first folder with the artifact; the second is for what is needed on the way only."""


def default_folder() -> Path:
    """`CONMAN_CACHE`, or `~/.cache/conman` (below `XDG_CACHE_HOME` where that is set)."""
    named = os.environ.get("CONMAN_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "conman"


class Cache:
    """Artifacts by name in one folder; safe to use from several processes at once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    async def get(self, name: str, build: Build, progress: Progress) -> Path:
        """The folder of the artifact `name`, built now if it is missing or damaged.

        Of several processes that want the same one, one builds and the others wait, saying so. Raises `EmbeddedError`
        when it can't be built, and what `build` raises; nothing half-made is left in either case.
        """
        final = self.folder / name
        if await asyncio.to_thread(_damage, final) is None:
            return final
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(f"the cache folder {self.folder} can't be made ({error}); set CONMAN_CACHE") from error
        async with self._locked(name, progress):
            damage = await asyncio.to_thread(_damage, final)
            if damage is None:
                return final
            if final.exists():
                progress(f"the cached {name} is damaged ({damage}); making it anew")
            await self._make(name, build)
        return final

    async def _make(self, name: str, build: Build) -> None:
        final = self.folder / name
        for leftover in self.folder.glob(f".{name}.*"):  # of a build that was killed: the lock says nobody is at it
            await asyncio.to_thread(shutil.rmtree, leftover)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.folder))
        try:
            made, work = scratch / "made", scratch / "work"
            made.mkdir()
            work.mkdir()
            await build(made, work)
            await asyncio.to_thread(_write_sums, made)
            if final.exists():
                final.rename(scratch / "damaged")
            made.rename(final)
        finally:
            await asyncio.to_thread(_remove_tree, scratch)

    @asynccontextmanager
    async def _locked(self, name: str, progress: Progress) -> AsyncIterator[None]:
        descriptor = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            started = told = time.monotonic()
            first = True
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    now = time.monotonic()
                    if first or now - told >= _TELL_EVERY_SECONDS:
                        progress(f"another process is making {name}; waiting for it ({now - started:.0f} s)")
                        first, told = False, now
                    await asyncio.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)  # which unlocks


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SUMS)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_sums(folder: Path) -> None:
    lines = [f"{_sum(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    if not lines:
        raise EmbeddedError(f"making {folder.parent.name} gave no files")
    (folder / _SUMS).write_text("".join(lines), encoding="utf-8")


def _damage(folder: Path) -> str | None:
    """What is wrong with an artifact's folder, or None if every file is what was put there."""
    try:
        listed = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return f"{_SUMS} can't be read: {error}"
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in listed)}
    found = {path.relative_to(folder).as_posix() for path in _files(folder)}
    if not expected or found != set(expected):
        changed = sorted(found ^ set(expected))
        return f"{changed[0]} is missing or was added" if changed else f"{_SUMS} is empty"
    for name, digest in expected.items():
        try:
            if _sum(folder / name) != digest:
                return f"{name} has another checksum"
        except OSError as error:
            return f"{name} can't be read: {error}"
    return None


def _remove_tree(folder: Path) -> None:
    """Delete a folder although tools such as Go write some of theirs read-only."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)
