"""The trees and blobs of remote repositories that were looked at, kept on this machine under their own names.

It is a cache and nothing else: whatever is in it can be fetched again, so nothing is flushed to the disk, and a store that
can't be read, or is from before the machine's last start, is thrown away and filled anew. A name says what the content is,
so nothing in it is ever out of date; whether the remote repository (still) has an object is not answered here.

A tree is written after all the folders in it: one that is there can be walked to its leaves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pygit2
from pygit2.enums import RepositoryOpenFlag

from conman.git.adapter import GitError
from conman.git.checks import MODE_TREE
from conman.git.local_repo import translated

_Result = TypeVar("_Result")

MARGIN = 10
"""How much a cache may grow, as a part of its limit, before it is measured again; it is then shrunk by as much below."""
MOST_SIZES = 200_000
"""Sizes that are remembered for a repository: about 30 MB."""
_PRIVATE = ".conman-"
_BOOT = "conman-boot"
"""The file that says under which start of the machine a store was made: a loss of power may have torn what was not flushed,
and libgit2 (1.9, tried) reads a loose object that is cut short for ever."""
_THIS_PROCESS = uuid.uuid4().hex


class StoreDamaged(Exception):
    """A store can't be read: an object is missing or torn, or somebody deleted it. It is to be thrown away and filled anew."""


class WrongObject(Exception):
    """What was received is not the object that it was said to be."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a tree."""

    name: bytes
    mode: int
    id: str


def tree_bytes(items: Iterable[Item]) -> bytes:
    """A tree object of these entries, in git's order: as if the names of folders ended with a slash."""
    ordered = sorted(items, key=lambda item: item.name + b"/" if item.mode == MODE_TREE else item.name)
    return b"".join(b"%o %s\0%s" % (item.mode, item.name, bytes.fromhex(item.id)) for item in ordered)


def object_id(kind: str, data: bytes) -> str:
    """The name that git gives to an object."""
    return hashlib.sha1(_header(kind, len(data)) + data, usedforsecurity=False).hexdigest()


class ObjectStore:
    """A bare repository that holds trees and blobs of one remote repository. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.grown = 0
        """Bytes written here since the cache was last measured."""
        self.sizes: dict[str, int] = {}
        """Sizes of blobs that were asked for, whether they are here or not."""

    def remember(self, sizes: Mapping[str, int]) -> None:
        """Keep sizes of blobs in memory."""
        if len(self.sizes) + len(sizes) > MOST_SIZES:
            self.sizes = {}
        self.sizes.update(sizes)

    def read(self, operation: str, work: Callable[[pygit2.Repository], _Result]) -> _Result:
        """Run `work` on the repository, opened for this call. Raises `StoreDamaged`, or else only `GitError`."""
        try:
            repository = pygit2.Repository(str(self.path), RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH)
            with translated(operation):
                return work(repository)
        except (pygit2.GitError, KeyError) as error:
            raise StoreDamaged(str(error)) from error
        except GitError as error:
            # What the library says about an object, translated; a refusal of our own rules has no such cause.
            if isinstance(error.__cause__, (pygit2.GitError, KeyError)):
                raise StoreDamaged(str(error)) from error
            raise

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of `ids` that are not here."""
        objects = self.path / "objects"
        return [one for one in dict.fromkeys(ids) if not (objects / one[:2] / one[2:]).exists()]

    def write(self, kind: str, data: bytes, expected: str | None = None) -> str:
        """Keep an object; its name. Raises `WrongObject` when that is not `expected`."""
        with self.writer(kind, len(data), expected) as writing:
            writing.add(data)
        return writing.id

    def write_all(self, blobs: Mapping[str, bytes]) -> None:
        """Keep blobs under the names that they were said to have. Raises `WrongObject`."""
        for one, data in blobs.items():
            self.write("blob", data, one)

    @contextmanager
    def writer(self, kind: str, size: int, expected: str | None = None) -> Iterator[ObjectWriter]:
        """Write an object piece by piece; it is there, whole, when the block ends well, else not at all."""
        objects = self.path / "objects"
        try:
            writing = ObjectWriter(objects, kind, size)
            try:
                yield writing
                self.grown += writing.finish(expected)
            finally:
                writing.discard()
        except FileNotFoundError as error:
            raise StoreDamaged(str(error)) from error


class ObjectWriter:
    """An object on its way into a store, in git's format of loose objects; a place in memory is needed for one piece only."""

    def __init__(self, objects: Path, kind: str, size: int) -> None:
        self._objects = objects
        self._size = size
        self._got = 0
        self._path = objects / f"{_PRIVATE}{uuid.uuid4().hex}"
        self._file = self._path.open("xb")
        self._digest = hashlib.sha1(usedforsecurity=False)
        # The fastest level: what is written here is read again at once, and the disk is not the limit.
        self._compressor = zlib.compressobj(1)
        self.id = ""
        self._write(_header(kind, size))

    def add(self, piece: bytes) -> None:
        """The next bytes of the content."""
        self._got += len(piece)
        self._write(piece)

    def finish(self, expected: str | None) -> int:
        """Give the object its name; how many bytes it takes on the disk. Raises `WrongObject`."""
        self._file.write(self._compressor.flush())
        written = self._file.tell()
        self._file.close()
        self.id = self._digest.hexdigest()
        if self._got != self._size or expected not in (None, self.id):
            raise WrongObject(f"{self._got} of {self._size} bytes of {expected or 'an object'} have the name {self.id}")
        folder = self._objects / self.id[:2]
        with suppress(FileExistsError):
            folder.mkdir()
        self._path.replace(folder / self.id[2:])
        return written

    def discard(self) -> None:
        """Close and delete what has no name yet."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(self._compressor.compress(data))


class ObjectCache:
    """The stores of all remote repositories below a folder, which several processes may share; at most about `limit` bytes.

    When it grows over the limit, the stores that were not used for longest go first, never one that is in use here.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._users: Counter[str] = Counter()
        self._stores: dict[str, ObjectStore] = {}
        self._measured = False

    def take(self, repo: str) -> ObjectStore:
        """The store of a remote repository, made when there is none; `give_back` it."""
        name = hashlib.sha256(repo.encode("utf-8", "surrogatepass")).hexdigest()
        path = self._root / name
        with self._lock:
            self._users[name] += 1
            store = self._stores.setdefault(name, ObjectStore(path))
        if not _is_trusted(path):
            self.rebuild(store)
        return store

    def give_back(self, store: ObjectStore) -> None:
        """End one use of a store, and keep the cache within its limit."""
        with self._lock:
            self._users[store.path.name] -= 1
            grown = sum(one.grown for one in self._stores.values())
            measure = not self._measured or grown > self._limit // MARGIN
            if measure:
                self._measured = True
                for one in self._stores.values():
                    one.grown = 0
        with suppress(FileNotFoundError):
            os.utime(store.path)
        if measure:
            self._shrink()

    def rebuild(self, store: ObjectStore) -> None:
        """Throw a store away and make an empty one in its place."""
        self._remove(store.path)
        self._make(store.path)

    def check(self, operation: str) -> None:
        """Raise `GitError` when the folder can't be written to."""
        with translated(operation):
            self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise GitError(operation, "the folder of the local store of objects can't be written to", safe_to_repeat=True)

    def make_room(self) -> None:
        """Throw all stores away that nobody here uses: the disk is full."""
        for path in self._root.iterdir():
            with self._lock:
                busy = self._users[path.name] > 0
            if not busy:
                self._remove(path)

    def forget(self, repo: str) -> None:
        """Throw the store of a remote repository away."""
        self._remove(self._root / hashlib.sha256(repo.encode("utf-8", "surrogatepass")).hexdigest())

    def _make(self, path: Path) -> None:
        """Make it under a private name, then rename it: nobody sees one that is half made."""
        making = self._root / f"{_PRIVATE}{uuid.uuid4().hex}"
        self._root.mkdir(parents=True, exist_ok=True)
        pygit2.init_repository(str(making), bare=True)
        (making / _BOOT).write_text(boot_id())
        try:
            making.rename(path)
        except OSError:
            # Somebody else made it meanwhile, or a torn one is in the way: a folder can't be renamed over a full one.
            if not _is_trusted(path):
                self._remove(path)
                making.rename(path)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _remove(self, path: Path) -> None:
        removed = self._root / f"{_PRIVATE}{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            path.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)

    def _shrink(self) -> None:
        if not self._root.is_dir():
            return
        sizes: dict[Path, int] = {}
        used: dict[Path, float] = {}
        for path in self._root.iterdir():
            with suppress(FileNotFoundError, NotADirectoryError):
                used[path] = path.stat().st_mtime
                sizes[path] = _size_of(path)
        total = sum(sizes.values())
        if total <= self._limit:
            return
        for path in sorted(sizes, key=lambda path: used[path]):
            with self._lock:
                busy = self._users[path.name] > 0
            if not busy:
                self._remove(path)
                total -= sizes[path]
            if total <= self._limit - self._limit // MARGIN:
                return


def boot_id() -> str:
    """What is another one after each start of the machine; of each process, where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _THIS_PROCESS


def _is_trusted(path: Path) -> bool:
    try:
        return (path / "HEAD").is_file() and (path / _BOOT).read_text() == boot_id()
    except FileNotFoundError:
        return False


def _header(kind: str, size: int) -> bytes:
    return b"%s %d\0" % (kind.encode(), size)


def _size_of(folder: Path) -> int:
    """Bytes of the files below a folder; those that go meanwhile don't count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total
