"""The calls of OperationService that make, move and delete branches and tags."""

from __future__ import annotations

import grpc
import pygit2

from conman.git.adapter import RefUpdate, StaleRef
from conman.git.checks import checked_message, is_ref_name, is_sha
from conman.git.local_read import contains
from conman.git.local_refs import move_refs, ref_value
from conman.git.local_write import library_signature
from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import ZERO_SHA, Ground, Refused, checked_revision, invalid, resolved_commit, stale, text
from conman.git.server_messages import author_message, commit_message, tag_message, user_signature
from conman.git.server_refs import TAGS, branch_ref, forced, place


class BranchCalls(rpc.OperationServiceServicer):
    """Branches and tags, as people make, move and delete them."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def UserCreateBranch(self, request: pb.UserCreateBranchRequest, context: object) -> pb.UserCreateBranchResponse:
        """Make a branch at a revision. ALREADY_EXISTS; FAILED_PRECONDITION when there is no such revision."""
        ref, start = branch_ref(request.branch_name), checked_revision(text("start_point", request.start_point))
        check_user(request.user)

        def work(operation: str, repository: pygit2.Repository) -> pb.Branch:
            commit = _start(repository, start)
            create(operation, repository, ref, str(commit.id))
            return pb.Branch(name=request.branch_name, target_commit=commit_message(commit))

        branch = await self._ground.on("user_create_branch", request.repository, work)
        return pb.UserCreateBranchResponse(branch=branch)

    async def UserUpdateBranch(self, request: pb.UserUpdateBranchRequest, context: object) -> pb.UserUpdateBranchResponse:
        """Move a branch from one commit to another."""
        ref = branch_ref(request.branch_name)
        check_user(request.user)
        old, new = (expected(text("revision", value)) for value in (request.oldrev, request.newrev))
        await self._ground.on("user_update_branch", request.repository, place, ref, old, new)
        return pb.UserUpdateBranchResponse()

    async def UserDeleteBranch(self, request: pb.UserDeleteBranchRequest, context: object) -> pb.UserDeleteBranchResponse:
        """Delete a branch, wherever it is or only where it is expected. FAILED_PRECONDITION when it does not exist."""
        ref = branch_ref(request.branch_name)
        check_user(request.user)
        old = expected(request.expected_old_oid) if request.expected_old_oid else None

        def work(operation: str, repository: pygit2.Repository) -> None:
            if ref_value(repository, ref) is None:
                raise stale(f"branch not found: {ref}")
            if old is not None:
                place(operation, repository, ref, old, None)
            else:
                forced(operation, repository, [RefUpdate(ref, None, None)], {ref})

        await self._ground.on("user_delete_branch", request.repository, work)
        return pb.UserDeleteBranchResponse()

    async def UserFFBranch(self, request: pb.UserFFBranchRequest, context: object) -> pb.UserFFBranchResponse:
        """Move a branch forward to a commit that contains it. FAILED_PRECONDITION when it does not."""
        ref = branch_ref(request.branch)
        check_user(request.user)
        commit_id = checked_revision(request.commit_id)

        def work(operation: str, repository: pygit2.Repository) -> str:
            old = required_old(repository, ref, request.expected_old_oid)
            target, present = resolved_commit(repository, commit_id), resolved_commit(repository, old)
            if target is None:
                raise invalid(f"commit {commit_id!r} does not exist")
            if present is None or not contains(repository, target, present):
                raise stale("not fast forward")
            place(operation, repository, ref, old, str(target.id))
            return str(target.id)

        sha = await self._ground.on("user_ff_branch", request.repository, work)
        return pb.UserFFBranchResponse(branch_update=pb.OperationBranchUpdate(commit_id=sha))

    async def UserCreateTag(self, request: pb.UserCreateTagRequest, context: object) -> pb.UserCreateTagResponse:
        """Make a tag at a revision: annotated when there is a message. ALREADY_EXISTS; FAILED_PRECONDITION as for a branch."""
        name = text("tag_name", request.tag_name)
        if not is_ref_name(TAGS + name):
            raise invalid(f"{name!r} is not the name of a tag")
        target, tagger = checked_revision(text("target_revision", request.target_revision)), user_signature(request)

        def work(operation: str, repository: pygit2.Repository) -> pb.Tag:
            commit = _start(repository, target)
            held = commit.id
            if request.message:
                message = checked_message(operation, text("message", request.message))
                held = _annotated(repository, commit, name, library_signature(operation, tagger), message)
            create(operation, repository, TAGS + name, str(held))
            return tag_message(repository, request.tag_name, held)

        return pb.UserCreateTagResponse(tag=await self._ground.on("user_create_tag", request.repository, work))


def check_user(user: pb.User) -> None:
    """Refuse a request that does not say who asks."""
    if not user.name or not user.email:
        raise invalid("a user needs a name and an email")


def create(operation: str, repository: pygit2.Repository, ref: str, sha: str) -> None:
    """Make a ref. Raises `Refused` with ALREADY_EXISTS."""
    try:
        move_refs(operation, repository, [RefUpdate(ref, None, sha)])
    except StaleRef as error:
        raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"{ref} exists already") from error


def expected(sha: str) -> str | None:
    """The value that a request gives for a ref: None for the sha of zeros. Raises `Refused` for what is no sha."""
    if not is_sha(sha):
        raise invalid(f"{sha!r} is not a sha")
    return None if sha == ZERO_SHA else sha


def required_old(repository: pygit2.Repository, ref: str, expected_old: str) -> str:
    """Where a branch is to be moved from: the expected value, else where it is. NOT_FOUND when it does not exist."""
    if expected_old:
        old = expected(expected_old)
        if old is not None:
            return old
    present = ref_value(repository, ref)
    if present is None:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"{ref} does not exist")
    return present


def _start(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    commit = resolved_commit(repository, revision)
    if commit is None:
        raise stale(f"revision {revision!r} not found")
    return commit


def _annotated(
    repository: pygit2.Repository, commit: pygit2.Commit, name: str, tagger: pygit2.Signature, message: bytes
) -> pygit2.Oid:
    """Write a tag object that no ref reaches yet; the library's own call makes the ref too, without a comparison."""
    zone = author_message(tagger).timezone.decode()
    head = f"object {commit.id}\ntype commit\ntag {name}\ntagger {tagger.name} <{tagger.email}> {tagger.time} {zone}\n\n"
    ended = message if message.endswith(b"\n") else message + b"\n"
    return repository.odb.write(pygit2.enums.ObjectType.TAG, head.encode() + ended)
