"""The calls of BlobService: contents, by id or by revision and path."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pygit2

from conman.git.checks import is_sha
from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import Ground, checked_revision, chunks, invalid, resolved_commit
from conman.git.server_commits import Found, look, tree_path

OBJECT_TYPE = {pb.TreeEntry.BLOB: pb.BLOB, pb.TreeEntry.TREE: pb.TREE, pb.TreeEntry.COMMIT: pb.COMMIT}


class BlobService(rpc.BlobServiceServicer):
    """Files' contents. `limit` is the number of bytes to send of each: negative for all, 0 for none."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def GetBlob(self, request: pb.GetBlobRequest, context: object) -> AsyncIterator[pb.GetBlobResponse]:
        """A blob's content in chunks; an empty answer when there is no such blob."""
        if not is_sha(request.oid):
            raise invalid(f"{request.oid!r} is not a sha")

        def work(_: str, repository: pygit2.Repository) -> pygit2.Blob | None:
            found = repository.get(request.oid)
            return found if isinstance(found, pygit2.Blob) else None

        blob = await self._ground.on("get_blob", request.repository, work)
        if blob is None:
            yield pb.GetBlobResponse()
            return
        answer = pb.GetBlobResponse(oid=request.oid, size=blob.size)
        content = blob.data if request.limit else b""
        for chunk in chunks(content if request.limit < 0 else content[: request.limit]):
            answer.data = chunk
            yield answer
            answer = pb.GetBlobResponse()

    async def GetBlobs(self, request: pb.GetBlobsRequest, context: object) -> AsyncIterator[pb.GetBlobsResponse]:
        """The contents at revisions and paths, in order, each in chunks: what the first message of one says holds for all.

        Where nothing is, the one message has neither id nor content.
        """
        check_revision_paths(request)
        for wanted in request.revision_paths:
            found = await self._ground.on("get_blobs", request.repository, self.find, wanted, request.limit)
            answer = pb.GetBlobsResponse(revision=wanted.revision, path=wanted.path)
            if found is None:
                yield answer
                continue
            describe(answer, found)
            for chunk in chunks(found.data):
                answer.data = chunk
                yield answer
                answer = pb.GetBlobsResponse()

    def find(self, _: str, repository: pygit2.Repository, wanted: pb.GetBlobsRequest.RevisionPath, limit: int) -> Found | None:
        """What is at a revision and path, None when nothing is."""
        commit = resolved_commit(repository, wanted.revision)
        return None if commit is None else look(repository, commit, tree_path(wanted.path), limit)


def check_revision_paths(request: pb.GetBlobsRequest) -> None:
    """Refuse a request without revision paths, or with a malformed one."""
    if not request.revision_paths:
        raise invalid("no revision paths given")
    for wanted in request.revision_paths:
        checked_revision(wanted.revision)
        tree_path(wanted.path)


def describe(answer: pb.GetBlobsResponse, found: Found) -> None:
    """Fill in what an object is."""
    answer.oid, answer.mode, answer.size = found.id, found.mode, found.size
    answer.type = OBJECT_TYPE[found.type]
    answer.is_submodule = found.type == pb.TreeEntry.COMMIT
