"""A running Git server with a client's stubs beside it, and repositories to call about in few words."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pygit2
from pygit2.enums import Option

from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server import ServerOptions, serve
from conman.git.server_call import ServerFlavour
from conman.git.server_process import environment

NAME = "team/app.git"
MAIN = "refs/heads/main"
ZERO = "0" * 40
MISSING = "1234567890" * 4
PATIENCE = 30.0
SECONDS = 1_714_557_600
ANN = pb.User(gl_id="user-1", name=b"Ann Example", email=b"ann@example.org", timezone="Etc/GMT-2")
REPOSITORY = pb.Repository(storage_name="default", relative_path=NAME)

# A flush to the disk for each object would take most of the time of the tests, and none of them takes the power away.
pygit2.option(Option.ENABLE_FSYNC_GITDIR, False)


@dataclass
class Calls:
    """The stubs of a client that is connected to a server, and the server's storage root."""

    root: Path
    address: str
    channel: grpc.aio.Channel

    @property
    def repositories(self) -> Any:
        return rpc.RepositoryServiceStub(self.channel)

    @property
    def refs(self) -> Any:
        return rpc.RefServiceStub(self.channel)

    @property
    def commits(self) -> Any:
        return rpc.CommitServiceStub(self.channel)

    @property
    def blobs(self) -> Any:
        return rpc.BlobServiceStub(self.channel)

    @property
    def diffs(self) -> Any:
        return rpc.DiffServiceStub(self.channel)

    @property
    def operations(self) -> Any:
        return rpc.OperationServiceStub(self.channel)

    @property
    def smart(self) -> Any:
        return rpc.SmartHTTPServiceStub(self.channel)

    @property
    def folder(self) -> Path:
        return self.root / NAME

    def open(self) -> pygit2.Repository:
        return pygit2.Repository(str(self.folder))

    def ref(self, name: str) -> str | None:
        found = self.open().references.get(name)
        return None if found is None else str(found.target)

    def put(self, files: Mapping[str, bytes | tuple[int, bytes]], parents: Sequence[str] = (), *, ref: str | None = None) -> str:
        """A commit of exactly these files (with a mode, or plain), made behind the server's back; on `ref` when given."""
        repository = self.open()
        index = pygit2.Index()
        for path, given in files.items():
            mode, data = given if isinstance(given, tuple) else (0o100644, given)
            index.add(pygit2.IndexEntry(path, repository.create_blob(data), pygit2.enums.FileMode(mode)))
        tree = index.write_tree(repository)
        when = SECONDS + 60 * len(list(repository.references))
        who = pygit2.Signature("Bob Beispiel", "bob@example.org", when, -330)
        ids = [pygit2.Oid(hex=parent) for parent in parents]
        sha = str(repository.create_commit(None, who, who, f"change {sorted(files)}\n\nMore words.\n", tree, ids))
        repository.references.create(ref or f"refs/made/{sha}", sha, force=True)
        return sha

    def files(self, revision: str) -> dict[str, bytes]:
        """Path → content of a commit, as `git` lists it."""
        listed = git(self.folder, "ls-tree", "-r", "-z", "--name-only", revision).decode().split("\0")
        return {path: git(self.folder, "cat-file", "blob", f"{revision}:{path}") for path in listed if path}

    def fsck(self) -> None:
        git(self.folder, "fsck", "--strict", "--no-dangling")


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    """What a command of `git` writes; it must succeed."""
    return subprocess.run(["git", *arguments], cwd=folder, env=environment(), input=stdin, capture_output=True, check=True).stdout


@asynccontextmanager
async def calling(root: Path, options: ServerOptions | None = None) -> AsyncIterator[Calls]:
    """A server on `root` and a client of it."""
    async with serve(root, options) as address, connected(address) as channel:
        yield Calls(root, address, channel)


@asynccontextmanager
async def calling_with_repository(root: Path, flavour: ServerFlavour = ServerFlavour.FULL) -> AsyncIterator[Calls]:
    """`calling`, with an empty repository made."""
    async with calling(root, replace(ServerOptions(), flavour=flavour)) as calls:
        await calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=REPOSITORY, default_branch=b"main"))
        yield calls


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


async def everything(stream: AsyncIterable[Any]) -> list[Any]:
    """All messages of a stream."""
    return [message async for message in stream]


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status and the text that a call must be refused with."""
    try:
        if isinstance(call, AsyncIterable):
            answer: Any = await everything(call)
        else:
            answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"was not refused: {answer}")


async def code(call: Any) -> grpc.StatusCode:
    """The status that a call must be refused with."""
    return (await refusal(call))[0]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def git_processes() -> list[psutil.Process]:
    """The `git` that this process, and so the server in it, has running."""
    found: list[psutil.Process] = []
    for child in psutil.Process(os.getpid()).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.is_running() and "git" in child.name():
                found.append(child)
    return found
