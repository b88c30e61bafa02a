"""What a call asks a Gitaly server of one repository: commits, listings and contents, as the server has them now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import grpc

from conman.git.adapter import ObjectMissing, RepositoryMissing
from conman.git.checks import is_ref_name, is_sha
from conman.git.gitaly_channel import GitalyChannel, GitalyError
from conman.git.gitaly_objects import object_id
from conman.git.proto import gitaly_pb2 as pb

_Result = TypeVar("_Result")
_One = TypeVar("_One")

Place = tuple[str, bytes]
"""Where a blob is found: a commit and a path in it."""

BLOBS_AT_A_TIME = 500
"""Files that one call asks for: with paths of the usual length, a request of 50 KB."""
ROOT = b"."
"""How a listing is told the root (GitLab's Gitaly refuses an empty path)."""
ALL_BYTES = -1
_NO_SUCH_THING = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


class Remote:
    """One call of the port, and the repository of the server that it is about."""

    def __init__(self, operation: str, repo: str, channel: GitalyChannel) -> None:
        self.operation = operation
        self.repo = repo
        self.channel = channel

    @property
    def address(self) -> pb.Repository:
        """The server's name of the repository."""
        return self.channel.repository(self.repo)

    async def exists(self) -> bool:
        """Whether the server has the repository."""
        request = pb.RepositoryExistsRequest(repository=self.address)
        method = self.channel.stubs.repository.RepositoryExists
        return (await self.channel.read(self.operation, method, request)).exists

    async def require(self) -> None:
        """Raises `RepositoryMissing` when the server does not have the repository."""
        if not await self.exists():
            raise RepositoryMissing(self.operation, self.repo)

    async def has_object(self, sha: str) -> bool:
        """Whether the server has a blob or a tree of that name."""
        request = pb.GetBlobRequest(repository=self.address, oid=sha, limit=0)
        replies = await self.unless_missing(
            lambda: self.channel.read_all(self.operation, self.channel.stubs.blobs.GetBlob, request)
        )
        if replies and replies[0].oid:
            return True
        return await self.unless_missing(lambda: self.listing(sha, ROOT, recursive=False)) is not None

    async def find(self, revision: str) -> pb.GitCommit | None:
        """The commit of a sha or a full ref name, tags peeled; None when there is none."""
        if not is_sha(revision) and not is_ref_name(revision):
            return None
        request = pb.FindCommitRequest(repository=self.address, revision=revision.encode())
        try:
            reply = await self.channel.read(self.operation, self.channel.stubs.commits.FindCommit, request)
        except GitalyError as error:
            if error.code is grpc.StatusCode.NOT_FOUND and await self.exists():
                return None
            raise
        return reply.commit if reply.HasField("commit") and reply.commit.id else None

    async def commits(self, *revisions: str) -> list[pb.GitCommit]:
        """The commits of shas or full ref names, in the order given. Raises `ObjectMissing` for the first that is none."""
        found = await asyncio.gather(*(self.find(revision) for revision in revisions))
        there: list[pb.GitCommit] = []
        for revision, commit in zip(revisions, found, strict=True):
            if commit is None:
                raise ObjectMissing(self.operation, f"commit {revision!r}")
            there.append(commit)
        return there

    async def read_blob(self, blob_id: str) -> bytes:
        """A blob's bytes from the server. Raises `ObjectMissing`."""

        async def once() -> bytes | None:
            async with self.blob(blob_id) as messages:
                pieces = [message async for message in messages]
            if pieces and not pieces[0].oid:
                return None
            return self.whole(blob_id, b"".join(piece.data for piece in pieces))

        data = await self.unless_missing(lambda: self.channel.repeated(once))
        if data is None:
            raise ObjectMissing(self.operation, f"blob {blob_id!r}")
        return data

    def whole(self, blob_id: str, data: bytes) -> bytes:
        """The bytes that came for a blob. Raises `GitalyError` when its name says that they are not all, or others."""
        if object_id("blob", data) != blob_id:
            raise GitalyError(self.operation, grpc.StatusCode.OK, f"{len(data)} bytes that came are not the blob {blob_id}")
        return data

    async def sizes(self, wanted: Mapping[str, Place]) -> dict[str, int]:
        """The sizes of blobs; their content stays on the server."""
        found: dict[str, int] = {}
        for batch in batches(list(wanted.values()), BLOBS_AT_A_TIME):
            for message in await self.channel.read_all(
                self.operation, self.channel.stubs.blobs.GetBlobs, self.blobs_request(batch, 0)
            ):
                if message.oid:
                    found[message.oid] = message.size
        for one in wanted.keys() - found.keys():
            found[one] = len(await self.read_blob(one))
        return found

    async def listing(self, commit: str, path: bytes, *, recursive: bool) -> list[pb.TreeEntry]:
        """The entries of a folder, with whole paths; `recursive`, all that is below it (folders are listed by some servers)."""
        request = pb.GetTreeEntriesRequest(
            repository=self.address, revision=commit.encode(), path=path, recursive=recursive, skip_flat_paths=True
        )
        replies = await self.channel.read_all(self.operation, self.channel.stubs.commits.GetTreeEntries, request)
        return [entry for reply in replies for entry in reply.entries]

    async def unless_missing(self, once: Callable[[], Awaitable[_Result]]) -> _Result | None:
        """What `once` answers, None when the server says that it does not have what was asked for."""
        try:
            return await once()
        except GitalyError as error:
            if error.code not in _NO_SUCH_THING:
                raise
            return None

    def blob(self, blob_id: str) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """A blob's bytes as they arrive; the first message has its id, or none when there is no such blob."""
        request = pb.GetBlobRequest(repository=self.address, oid=blob_id, limit=ALL_BYTES)
        return self.channel.stream(self.operation, self.channel.stubs.blobs.GetBlob, request)

    def blobs_request(self, places: Iterable[Place], limit: int) -> pb.GetBlobsRequest:
        """The request for files, up to `limit` bytes of each."""
        asked = [pb.GetBlobsRequest.RevisionPath(revision=commit, path=path) for commit, path in places]
        return pb.GetBlobsRequest(repository=self.address, revision_paths=asked, limit=limit)


def batches(items: Sequence[_One], most: int) -> Iterator[Sequence[_One]]:
    """The items in parts of at most `most`."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
