"""The adapters under test (`HARNESSES`), and a repository to write to in few words (`Repo`)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Protocol

import pygit2
from pygit2.enums import Option

from conman.git.adapter import DeleteFile, FileChange, GitAdapter, Signature, WriteFile
from conman.git.gitaly_channel import GitalyChannel, GitalyOptions
from conman.git.gitaly_ops import GitalyOperations
from conman.git.gitaly_pack import PackGit, PackOptions
from conman.git.local import LocalGit
from conman.git.memory import MemoryGit
from conman.git.server import ServerOptions, serve
from conman.git.server_call import ServerFlavour

MAIN = "refs/heads/main"
ANN = Signature("Ann Example", "ann@example.org", datetime(2024, 5, 1, 12, 0, tzinfo=timezone(timedelta(hours=2))))
BOB = Signature("Bob Beispiel", "bob@example.org", datetime(2024, 5, 2, 9, 30, tzinfo=UTC))
MISSING = "1234567890" * 4
"""A sha of nothing."""

# A flush to the disk for each object would take most of the time of the tests, and none of them takes the power away.
pygit2.option(Option.ENABLE_FSYNC_GITDIR, False)

FILE, EXECUTABLE, SYMLINK, SUBMODULE, TREE = 0o100644, 0o100755, 0o120000, 0o160000, 0o040000


class Harness(Protocol):
    """An adapter, and a way behind its back for what the port can't make."""

    git: GitAdapter

    def put(self, repo: str, kind: str, data: bytes) -> str:
        """Store an object as it is; its sha."""
        ...

    def set_ref(self, repo: str, ref: str, sha: str) -> None:
        """Set a ref without any check."""
        ...


class MemoryHarness:
    def __init__(self) -> None:
        self.git = MemoryGit()

    def put(self, repo: str, kind: str, data: bytes) -> str:
        return self.git.objects(repo).put(kind, data)

    def set_ref(self, repo: str, ref: str, sha: str) -> None:
        self.git.refs(repo)[ref] = sha


class BehindTheBack:
    """Repositories on the disk, written to past every adapter."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, repo: str, kind: str, data: bytes) -> str:
        kinds = {"blob": pygit2.GIT_OBJECT_BLOB, "tree": pygit2.GIT_OBJECT_TREE}
        kinds |= {"commit": pygit2.GIT_OBJECT_COMMIT, "tag": pygit2.GIT_OBJECT_TAG}
        return str(pygit2.Repository(str(self.root / repo)).odb.write(kinds[kind], data))

    def set_ref(self, repo: str, ref: str, sha: str) -> None:
        pygit2.Repository(str(self.root / repo)).references.create(ref, sha, force=True)


class LocalHarness(BehindTheBack):
    def __init__(self, root: Path) -> None:
        root.mkdir()
        super().__init__(root)
        self.git: GitAdapter = LocalGit(root, threads=4)


@asynccontextmanager
async def memory(root: Path) -> AsyncIterator[Harness]:
    yield MemoryHarness()


@asynccontextmanager
async def local(root: Path) -> AsyncIterator[Harness]:
    harness = LocalHarness(root / "storage")
    yield harness
    harness.git.close()


class ServedHarness(BehindTheBack):
    """An adapter to a server of ours; objects and refs are put straight into the server's repositories."""

    def __init__(self, git: GitAdapter, root: Path) -> None:
        super().__init__(root)
        self.git: GitAdapter = git


@asynccontextmanager
async def operations(root: Path) -> AsyncIterator[Harness]:
    async with serve(root / "storage") as address:
        channel = GitalyChannel(GitalyOptions(address))
        git = GitalyOperations(channel, root / "objects", cache_bytes=2**30, threads=4)
        yield ServedHarness(git, root / "storage")
        git.close()
        await channel.close()


@asynccontextmanager
async def pack(root: Path) -> AsyncIterator[Harness]:
    async with serve(root / "storage", ServerOptions(flavour=ServerFlavour.GITALY_RS)) as address:
        channel = GitalyChannel(GitalyOptions(address))
        git = PackGit(channel, PackOptions(root / "mirrors", max_bytes=2**30, threads=4))
        yield ServedHarness(git, root / "storage")
        git.close()
        await channel.close()


HARNESSES: dict[str, Callable[[Path], AbstractAsyncContextManager[Harness]]] = {
    "memory": memory,
    "local": local,
    "operations": operations,
    "pack": pack,
}
"""Every adapter by name; each test of the contract runs on each."""


@dataclass
class Repo:
    """A repository, with short forms of what most tests do first. Each commit is a minute later than the one before."""

    harness: Harness
    name: str
    minutes: count[int]

    @property
    def git(self) -> GitAdapter:
        return self.harness.git

    async def commit(
        self,
        changes: Mapping[str, bytes | None] | list[FileChange],
        parent: str | None = None,
        *,
        ref: str | None = None,
        message: str = "a change\n",
    ) -> str:
        """Write files (None deletes) on top of `parent` on a branch of its own, or on `ref` that holds `parent`."""
        if isinstance(changes, Mapping):
            changes = [DeleteFile(path) if data is None else WriteFile(path, data) for path, data in changes.items()]
        number = next(self.minutes)
        author = Signature(ANN.name, ANN.email, ANN.when + timedelta(minutes=number))
        old = await self.git.resolve(self.name, ref) if ref is not None else None
        return await self.git.commit_files(
            self.name,
            ref=ref or f"refs/heads/made/{number}",
            expected_old=old,
            parent=parent,
            changes=changes,
            author=author,
            message=message,
        )

    async def read(self, commit: str, path: str) -> bytes | None:
        content = await self.git.read_file(self.name, commit, path)
        return None if content is None else content.data

    async def files(self, commit: str) -> dict[str, bytes]:
        """All files and links with their contents."""
        entries = await self.git.list_tree(self.name, commit, recursive=True)
        return {entry.path: await self.git.read_blob(self.name, entry.blob_id) for entry in entries if entry.size is not None}

    def plant(self, files: Mapping[str, tuple[int, bytes]], parents: tuple[str, ...] = (), ref: str | None = None) -> str:
        """A commit of exactly these files (mode and content; a submodule's content is the sha it names)."""
        tree = plant_tree(self.harness, self.name, files)
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        person = f"Ann <ann@example.org> {1714557600 + 60 * next(self.minutes)} +0200"
        lines += [f"author {person}", f"committer {person}", "", "planted", ""]
        sha = self.harness.put(self.name, "commit", "\n".join(lines).encode())
        if ref is not None:
            self.harness.set_ref(self.name, ref, sha)
        return sha


def plant_tree(harness: Harness, repo: str, files: Mapping[str, tuple[int, bytes]]) -> str:
    """A tree of exactly these files, written as raw objects; its sha."""
    entries: dict[bytes, tuple[int, str]] = {}
    below: dict[str, dict[str, tuple[int, bytes]]] = {}
    for path, (mode, data) in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            below.setdefault(name, {})[rest] = (mode, data)
        else:
            sha = data.decode() if mode == SUBMODULE else harness.put(repo, "blob", data)
            entries[name.encode("utf-8", "surrogateescape")] = (mode, sha)
    for name, inner in below.items():
        entries[name.encode("utf-8", "surrogateescape")] = (TREE, plant_tree(harness, repo, inner))
    order = sorted(entries, key=lambda name: name + b"/" if entries[name][0] == TREE else name)
    raw = b"".join(b"%o %s\0%s" % (entries[name][0], name, bytes.fromhex(entries[name][1])) for name in order)
    return harness.put(repo, "tree", raw)


def blob_id(data: bytes) -> str:
    """The name that git gives to a blob."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()
