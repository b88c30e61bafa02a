"""The calls of RepositoryService."""

from __future__ import annotations

import pygit2

from conman.git.adapter import RefUpdate
from conman.git.checks import is_ref_name, is_sha
from conman.git.local_refs import move_refs
from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import ZERO_SHA, Ground, checked_revision, invalid, required_commit, resolved_commit, text
from conman.git.server_refs import forced

DEFAULT_BRANCH = "main"


class RepositoryService(rpc.RepositoryServiceServicer):
    """Repositories as a whole, and questions and moves that concern one."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def RepositoryExists(self, request: pb.RepositoryExistsRequest, context: object) -> pb.RepositoryExistsResponse:
        """Whether there is a repository at the path."""
        name = self._ground.name_of(request.repository)
        exists = await self._ground.run("repository_exists", self._ground.storage.exists, name)
        return pb.RepositoryExistsResponse(exists=exists)

    async def CreateRepository(self, request: pb.CreateRepositoryRequest, context: object) -> pb.CreateRepositoryResponse:
        """Make an empty bare repository."""
        if request.object_format == pb.OBJECT_FORMAT_SHA256:
            raise invalid("repositories have SHA-1 here")
        name = self._ground.name_of(request.repository)
        branch = text("default_branch", request.default_branch).removeprefix("refs/heads/") or DEFAULT_BRANCH
        await self._ground.run("create_repository", self._ground.storage.create, name, branch)
        return pb.CreateRepositoryResponse()

    async def RemoveRepository(self, request: pb.RemoveRepositoryRequest, context: object) -> pb.RemoveRepositoryResponse:
        """Remove a repository with all that is in it."""
        name = self._ground.name_of(request.repository)
        await self._ground.run("remove_repository", self._ground.storage.remove, name)
        return pb.RemoveRepositoryResponse()

    async def FindMergeBase(self, request: pb.FindMergeBaseRequest, context: object) -> pb.FindMergeBaseResponse:
        """The best common ancestor of the first revision and the others; empty when there is none, or no such revision."""
        revisions = [checked_revision(text("revisions", revision)) for revision in request.revisions]
        if len(revisions) < 2:
            raise invalid("at least 2 revisions are needed")

        def work(_: str, repository: pygit2.Repository) -> str:
            commits = [resolved_commit(repository, revision) for revision in revisions]
            found = [commit.id for commit in commits if commit is not None]
            # The library answers None for unrelated commits, which its type stubs leave out.
            base: pygit2.Oid | None = repository.merge_base_many([*found]) if len(found) == len(commits) else None
            return "" if base is None else str(base)

        return pb.FindMergeBaseResponse(base=await self._ground.on("find_merge_base", request.repository, work))

    async def WriteRef(self, request: pb.WriteRefRequest, context: object) -> pb.WriteRefResponse:
        """Set a ref, or the branch that HEAD names, to a revision; with an old revision only when it is there."""
        ref, revision = text("ref", request.ref), checked_revision(text("revision", request.revision))
        old = text("old_revision", request.old_revision)
        if ref != "HEAD" and not is_ref_name(ref):
            raise invalid(f"{ref!r} is not a full ref name")

        def work(operation: str, repository: pygit2.Repository) -> None:
            if ref == "HEAD":
                if not revision.startswith("refs/heads/") or not is_ref_name(revision):
                    raise invalid("HEAD can only name a branch")
                repository.set_head(revision)
                return
            new = _object(repository, revision)
            if old:
                move_refs(operation, repository, [RefUpdate(ref, _object(repository, old), new)])
            else:
                forced(operation, repository, [RefUpdate(ref, None, new)], {ref})

        await self._ground.on("write_ref", request.repository, work)
        return pb.WriteRefResponse()


def _object(repository: pygit2.Repository, revision: str) -> str | None:
    """The sha that a revision names, None for the one that means "there is none"."""
    if is_sha(revision):
        return None if revision == ZERO_SHA else revision
    return str(required_commit(repository, revision).id)
