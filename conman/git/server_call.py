"""What every call of the Git server shares: the repository that it names, a thread to work in, the status that it ends with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import grpc
import pygit2

from conman.git.adapter import GitError, ObjectMissing, RepositoryExists, RepositoryMissing, StaleRef
from conman.git.checks import is_ref_name, is_sha
from conman.git.local_repo import Storage, peeled_commit, translated
from conman.git.proto import gitaly_pb2 as pb

CHUNK_BYTES = 128 * 1024
"""Content in one message of a stream (what Gitaly sends at once)."""
MAX_ITEMS = 100
"""Commits, refs, paths or entries in one message of a stream; with cut texts, that many stay below a message's limit."""
ZERO_SHA = "0" * 40
"""How the protocol says "there is no such object": a ref that must not exist, or is to be deleted."""

_FORBIDDEN_IN_REVISION = frozenset(" \t\n\r\0:")

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class ServerFlavour(StrEnum):
    """Which server's behaviour the calls have."""

    FULL = "full"
    """Everything works, with the statuses of GitLab's Gitaly."""
    GITALY_RS = "gitaly-rs"
    """As today's gitaly-rs: some calls say OK and do nothing, and conflicts and lost races are INTERNAL."""


class Refused(Exception):
    """A call that ends with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> Refused:
    """The refusal of a malformed request."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def stale(message: str) -> Refused:
    """The refusal of a write whose expected old value, or start, no longer holds."""
    return Refused(grpc.StatusCode.FAILED_PRECONDITION, message)


STATUS: dict[type[GitError], grpc.StatusCode] = {
    RepositoryMissing: grpc.StatusCode.NOT_FOUND,
    RepositoryExists: grpc.StatusCode.ALREADY_EXISTS,
    ObjectMissing: grpc.StatusCode.NOT_FOUND,
    StaleRef: grpc.StatusCode.FAILED_PRECONDITION,
}
"""The status of an error that says what it is. Any other is UNAVAILABLE when the same call may succeed later (a lock that
is held, a disk that is full), else INVALID_ARGUMENT (a malformed name)."""


def status_of(error: GitError) -> grpc.StatusCode:
    """The status that a call ends with for an error of the storage."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return grpc.StatusCode.UNAVAILABLE if error.safe_to_repeat else grpc.StatusCode.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True)
class Ground:
    """The storage that a server serves, and its bounds: threads for work in process, and processes of `git` at a time."""

    storage: Storage
    storage_name: str
    flavour: ServerFlavour
    pool: ThreadPoolExecutor
    processes: asyncio.Semaphore = field(compare=False)

    def name_of(self, repository: pb.Repository) -> str:
        """The path of a repository below the storage root. Raises `Refused` for a storage that is not served."""
        if not repository.storage_name:
            raise invalid("repository.storage_name is empty")
        if not repository.relative_path:
            raise invalid("repository.relative_path is empty")
        if repository.storage_name != self.storage_name:
            # GitLab's calls it a bad argument, gitaly-rs says that it found none.
            missing = self.flavour is ServerFlavour.GITALY_RS
            code = grpc.StatusCode.NOT_FOUND if missing else grpc.StatusCode.INVALID_ARGUMENT
            raise Refused(code, f"storage {repository.storage_name!r} is not served here")
        return repository.relative_path

    async def run(
        self,
        operation: str,
        work: Callable[Concatenate[str, _Arguments], _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Run blocking work in a thread; `GitError` and `Refused` leave it. A cancelled call's work ends by itself."""

        def translating() -> _Result:
            with translated(operation):
                return work(operation, *args, **kwargs)

        return await asyncio.wrap_future(self.pool.submit(translating))

    async def on(
        self,
        operation: str,
        repository: pb.Repository,
        work: Callable[Concatenate[str, pygit2.Repository, _Arguments], _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Run `work` in a thread on a repository, opened there."""
        name = self.name_of(repository)

        def opened(operation: str) -> _Result:
            return work(operation, self.storage.open(operation, name), *args, **kwargs)

        return await self.run(operation, opened)

    async def folder(self, operation: str, repository: pb.Repository) -> Path:
        """The folder of a repository that exists, for the `git` program."""
        return await self.on(operation, repository, lambda _, opened: Path(str(opened.path)))


def text(field_name: str, value: bytes) -> str:
    """A field's bytes as text. Raises `Refused` for what is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"{field_name} is not UTF-8") from error


def path_text(path: bytes) -> str:
    """A path's bytes in the form that looks it up in a tree, whatever its encoding."""
    return path.rstrip(b"/").decode("utf-8", "surrogateescape")


def checked_revision(revision: str) -> str:
    """`revision` itself. Raises `Refused` for one that could be taken for an option, a path or several revisions."""
    if not revision:
        raise invalid("empty revision")
    if revision.startswith(("-", "^")) or ".." in revision or not _FORBIDDEN_IN_REVISION.isdisjoint(revision):
        raise invalid(f"{revision!r} is not a revision")
    return revision


def resolved_commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit | None:
    """The commit of a sha, a ref or any other revision that `git rev-parse` knows; None when there is none."""
    if is_sha(checked_revision(revision)) or is_ref_name(revision):
        return peeled_commit(repository, revision)
    try:
        return repository.revparse_single(revision).peel(pygit2.Commit)
    except (KeyError, pygit2.InvalidSpecError):
        return None


def required_commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    """`resolved_commit`; raises `Refused` with NOT_FOUND when there is none."""
    commit = resolved_commit(repository, revision)
    if commit is None:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"revision {revision!r} not found")
    return commit


def chunks(data: bytes) -> Iterator[bytes]:
    """Content in pieces of at most `CHUNK_BYTES`; one empty piece for none."""
    if not data:
        yield b""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Items in lists of at most `MAX_ITEMS`."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == MAX_ITEMS:
            yield batch
            batch = []
    if batch:
        yield batch
