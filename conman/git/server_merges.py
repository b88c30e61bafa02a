"""The calls of OperationService that merge, rebase, squash and revert: in memory, and never half."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import pygit2

from conman.git.adapter import Conflict, Signature
from conman.git.checks import is_ref_name
from conman.git.local_merge import rebase, trial_merge
from conman.git.local_read import contains
from conman.git.local_refs import list_refs, ref_value
from conman.git.local_threeway import merge_trees
from conman.git.local_write import write_commit
from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_branches import BranchCalls, expected, required_old
from conman.git.server_call import Refused, checked_revision, invalid, resolved_commit, stale, text
from conman.git.server_messages import user_signature
from conman.git.server_refs import BRANCHES, branch_ref, place


@dataclass(frozen=True, slots=True)
class Target:
    """Where the result of a merge goes: the ref, and where it has to be until then (None: nowhere)."""

    ref: str
    old: str | None


class MergeCalls(BranchCalls):
    """Merges, rebases, squashes and reverts. ABORTED is a conflict, and its text names the paths."""

    async def UserMergeToRef(self, request: pb.UserMergeToRefRequest, context: object) -> pb.UserMergeToRefResponse:
        """Merge a revision into another (always with a commit), and set a ref, which may be a third, to the result."""
        parent = checked_revision(text("first_parent_ref", request.first_parent_ref or request.branch))
        source, message = checked_revision(request.source_sha), text("message", request.message)
        ref, author = target_ref(request.target_ref), user_signature(request)

        def work(operation: str, repository: pygit2.Repository) -> str:
            target = _target(repository, ref, request.expected_old_oid)
            ours, theirs = _merge_source(repository, parent), _merge_source(repository, source)
            sha = _merge(operation, repository, ours, theirs, (ours.id, theirs.id), author, author, message)
            place(operation, repository, target.ref, target.old, sha)
            return sha

        sha = await self._ground.on("user_merge_to_ref", request.repository, work)
        return pb.UserMergeToRefResponse(commit_id=sha)

    async def UserMergeBranch(
        self, request_iterator: AsyncIterator[pb.UserMergeBranchRequest], context: object
    ) -> AsyncIterator[pb.UserMergeBranchResponse]:
        """Merge a commit into a branch in two steps: the commit is made and shown, and applied when the caller says so."""
        request = await anext(request_iterator, None)
        if request is None:
            raise invalid("no request")
        ref, commit_id, author = branch_ref(request.branch), checked_revision(request.commit_id), user_signature(request)
        message, squash = text("message", request.message), request.squash
        if not message:
            raise invalid("empty message")

        def make(operation: str, repository: pygit2.Repository) -> tuple[str, str]:
            old = required_old(repository, ref, request.expected_old_oid)
            ours, theirs = _merge_source(repository, old), _merge_source(repository, commit_id)
            parents = (ours.id,) if squash else (ours.id, theirs.id)
            return old, _merge(operation, repository, ours, theirs, parents, author, author, message)

        old, sha = await self._ground.on("user_merge_branch", request.repository, make)
        yield pb.UserMergeBranchResponse(commit_id=sha)
        second = await anext(request_iterator, None)
        if second is None or not second.apply:
            raise stale("merge aborted by client")
        await self._ground.on("user_merge_branch", request.repository, place, ref, old, sha)
        yield pb.UserMergeBranchResponse(branch_update=pb.OperationBranchUpdate(commit_id=sha))

    async def UserRebaseToRef(self, request: pb.UserRebaseToRefRequest, context: object) -> pb.UserRebaseToRefResponse:
        """Replay the commits of a revision on another, keeping their authors, and set a ref to the result."""
        onto = checked_revision(text("first_parent_ref", request.first_parent_ref))
        source, ref, committer = checked_revision(request.source_sha), target_ref(request.target_ref), user_signature(request)

        def work(operation: str, repository: pygit2.Repository) -> str:
            target = _target(repository, ref, request.expected_old_oid)
            base, head = _merge_source(repository, onto), _merge_source(repository, source)
            outcome = rebase(operation, repository, str(head.id), str(base.id), committer)
            if outcome.sha is None and not outcome.conflicts:
                raise stale("the commits to rebase hold a merge")
            if outcome.sha is None:
                raise _conflict(outcome.conflicts)
            place(operation, repository, target.ref, target.old, outcome.sha)
            return outcome.sha

        sha = await self._ground.on("user_rebase_to_ref", request.repository, work)
        return pb.UserRebaseToRefResponse(commit_id=sha)

    async def UserSquash(self, request: pb.UserSquashRequest, context: object) -> pb.UserSquashResponse:
        """One commit on `start_sha` with all that `end_sha` brings; no ref is moved, so the caller has to set one to it."""
        start, end = checked_revision(request.start_sha), checked_revision(request.end_sha)
        author, committer = user_signature(request, user=request.author), user_signature(request)
        message = text("commit_message", request.commit_message)
        if not message:
            raise invalid("empty commit message")
        ended = message if message.endswith("\n") else message + "\n"

        def work(operation: str, repository: pygit2.Repository) -> str:
            ours, theirs = _merge_source(repository, start), _merge_source(repository, end)
            return _merge(operation, repository, ours, theirs, (ours.id,), author, committer, ended)

        return pb.UserSquashResponse(squash_sha=await self._ground.on("user_squash", request.repository, work))

    async def UserRevert(self, request: pb.UserRevertRequest, context: object) -> pb.UserRevertResponse:
        """Commit the inverse of a commit (of a merge: against its first parent) on a branch, or on the start of a new one."""
        ref, author = branch_ref(request.branch_name), user_signature(request)
        start = branch_ref(request.start_branch_name) if request.start_branch_name else ref
        undone, message = checked_revision(request.commit.id), text("message", request.message)
        if request.HasField("start_repository") and request.start_repository != request.repository:
            raise other_repository()
        if not message:
            raise invalid("empty message")

        def work(operation: str, repository: pygit2.Repository) -> pb.UserRevertResponse:
            target = _target(repository, ref, request.expected_old_oid)
            created = not list_refs(repository, BRANCHES)
            onto, commit = _merge_source(repository, start), _merge_source(repository, undone)
            base = commit.parents[0].tree if commit.parent_ids else _empty_tree(repository)
            tried = merge_trees(repository, commit.tree, onto.tree, base)
            if tried.tree_id is None:
                raise _conflict(tried.conflicts)
            if tried.tree_id == str(onto.tree_id):
                empty = pb.UserRevertResponse.EMPTY
                return pb.UserRevertResponse(create_tree_error="nothing is left to revert", create_tree_error_code=empty)
            sha = str(onto.id)
            if not request.dry_run:
                tree = pygit2.Oid(hex=tried.tree_id)
                sha = write_commit(operation, repository, tree, [onto.id], author, message, author)
                _check_forward(repository, target, onto)
                place(operation, repository, target.ref, target.old, sha)
            update = pb.OperationBranchUpdate(commit_id=sha, branch_created=target.old is None, repo_created=created)
            return pb.UserRevertResponse(branch_update=update)

        return await self._ground.on("user_revert", request.repository, work)


def target_ref(name: bytes) -> str:
    """The full name of the ref to set. Raises `Refused` for any other name."""
    ref = text("target_ref", name)
    if not is_ref_name(ref):
        raise invalid(f"{ref!r} is not a full ref name")
    return ref


def other_repository() -> Refused:
    """The refusal to fetch from a second repository in the course of a call."""
    return Refused(grpc.StatusCode.UNIMPLEMENTED, "start_repository has to be the repository itself")


def _target(repository: pygit2.Repository, ref: str, expected_old: str) -> Target:
    present = ref_value(repository, ref)
    if not expected_old:
        return Target(ref, present)
    old = expected(expected_old)
    if old != present:
        # Said now, before a merge is computed in vain; the move itself compares again.
        raise stale(f"could not update {ref}: it is not at {expected_old}; look again and repeat")
    return Target(ref, old)


def _merge_source(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    commit = resolved_commit(repository, revision)
    if commit is None:
        raise invalid(f"revision {revision!r} does not exist")
    return commit


def _merge(
    operation: str,
    repository: pygit2.Repository,
    ours: pygit2.Commit,
    theirs: pygit2.Commit,
    parents: Sequence[pygit2.Oid],
    author: Signature,
    committer: Signature,
    message: str,
) -> str:
    """A commit of the merged tree, which no ref reaches yet. Raises `Refused` with ABORTED for a conflict."""
    tried = trial_merge(operation, repository, str(ours.id), str(theirs.id))
    if tried.tree_id is None:
        raise _conflict(tried.conflicts)
    return write_commit(operation, repository, pygit2.Oid(hex=tried.tree_id), parents, author, message, committer)


def _conflict(conflicts: Sequence[Conflict]) -> Refused:
    return Refused(grpc.StatusCode.ABORTED, f"conflict in {', '.join(conflict.path for conflict in conflicts)}")


def _check_forward(repository: pygit2.Repository, target: Target, onto: pygit2.Commit) -> None:
    """A branch that exists may only move to what contains it."""
    present = None if target.old is None else resolved_commit(repository, target.old)
    if present is not None and not contains(repository, onto, present):
        raise stale("branch diverged")


def _empty_tree(repository: pygit2.Repository) -> pygit2.Tree:
    return repository[repository.TreeBuilder().write()].peel(pygit2.Tree)
