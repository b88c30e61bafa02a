"""What today's gitaly-rs does differently, so that all that a client does about it is tested.

Read in its source and observed by running it: calls that say OK, change nothing and answer nothing; conflicts, lost races and
missing revisions that are INTERNAL; commits and refs that are told by their ids alone; lenient changes to files, with the
present as their time. What it does is no less true to the repository: nothing is lost, and a ref moves by comparison.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import grpc
import pygit2

from conman.git.adapter import ChangeRefused, GitError, RefUpdate, Signature, WriteFile
from conman.git.checks import MODE_TREE, is_dot_git, is_ref_name, is_sha
from conman.git.local_merge import trial_merge
from conman.git.local_read import contains
from conman.git.local_refs import list_refs, move_refs, ref_value
from conman.git.local_write import TreeEdit, write_commit
from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_blobs import BlobService, check_revision_paths, describe
from conman.git.server_branches import BranchCalls
from conman.git.server_call import ZERO_SHA, Refused, checked_revision, invalid, resolved_commit, stale, text
from conman.git.server_commits import CommitService, rev_list
from conman.git.server_diffs import DiffService
from conman.git.server_files import Action, first_header, gathered
from conman.git.server_process import git_output
from conman.git.server_refs import BRANCHES, TAGS, RefService
from conman.git.server_repository import RepositoryService
from conman.git.server_smart import SmartHTTPService


def internal(message: str) -> Refused:
    """The refusal of what gitaly-rs has no status of its own for."""
    return Refused(grpc.StatusCode.INTERNAL, message)


class GitalyRsRepositories(RepositoryService):
    """`WriteRef` and `FindMergeBase` say OK and do nothing."""

    async def FindMergeBase(self, request: pb.FindMergeBaseRequest, context: object) -> pb.FindMergeBaseResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.FindMergeBaseResponse()

    async def WriteRef(self, request: pb.WriteRefRequest, context: object) -> pb.WriteRefResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.WriteRefResponse()


class GitalyRsRefs(RefService):
    """Listings tell ids alone; a ref that is not where it was expected is INTERNAL."""

    async def FindLocalBranches(
        self, request: pb.FindLocalBranchesRequest, context: object
    ) -> AsyncIterator[pb.FindLocalBranchesResponse]:
        """All branches in one message."""
        found = await self._ground.on("find_local_branches", request.repository, _listed, BRANCHES)
        branches = [pb.Branch(name=name.encode(), target_commit=pb.GitCommit(id=sha)) for name, sha in found.items()]
        yield pb.FindLocalBranchesResponse(local_branches=branches)

    async def FindAllTags(self, request: pb.FindAllTagsRequest, context: object) -> AsyncIterator[pb.FindAllTagsResponse]:
        """All tags in one message, with their full names."""
        found = await self._ground.on("find_all_tags", request.repository, _listed, TAGS)
        yield pb.FindAllTagsResponse(tags=[pb.Tag(name=name.encode(), id=sha) for name, sha in found.items()])

    async def UpdateReferences(
        self, request_iterator: AsyncIterator[pb.UpdateReferencesRequest], context: object
    ) -> pb.UpdateReferencesResponse:
        """Move several refs, all or none; without an old value a ref must not exist."""
        repository: pb.Repository | None = None
        updates: list[RefUpdate] = []
        async for request in request_iterator:
            if repository is None and request.HasField("repository"):
                repository = request.repository
            updates.extend(_ref_update(update) for update in request.updates)
        if repository is None:
            raise invalid("repository is required")
        await self._ground.on("update_references", repository, _moved, updates)
        return pb.UpdateReferencesResponse()

    async def DeleteRefs(self, request: pb.DeleteRefsRequest, context: object) -> pb.DeleteRefsResponse:
        """As on GitLab's, but for the status of what goes wrong."""
        try:
            return await super().DeleteRefs(request, context)
        except Refused as error:
            raise internal(error.message) if error.code is grpc.StatusCode.ABORTED else error from error


class GitalyRsCommits(CommitService):
    """Commits are told by their ids alone, listings come in one message, and a recursive one has no folders."""

    async def FindCommit(self, request: pb.FindCommitRequest, context: object) -> pb.FindCommitResponse:
        """The commit's id."""
        found = await super().FindCommit(request, context)
        return pb.FindCommitResponse(commit=pb.GitCommit(id=found.commit.id)) if found.HasField("commit") else found

    async def ListCommits(self, request: pb.ListCommitsRequest, context: object) -> AsyncIterator[pb.ListCommitsResponse]:
        """The ids of commits."""
        arguments = rev_list(request)
        folder = await self._ground.folder("list_commits", request.repository)
        shas = (await git_output(self._ground, folder, "rev-list", *arguments)).decode().split()
        if request.HasField("pagination_params"):
            shas = shas[: max(request.pagination_params.limit, 0)]
        yield pb.ListCommitsResponse(commits=[pb.GitCommit(id=sha) for sha in shas])

    async def CommitIsAncestor(self, request: pb.CommitIsAncestorRequest, context: object) -> pb.CommitIsAncestorResponse:
        """Whether the child contains the ancestor; INTERNAL when one of them does not exist."""
        ends = [request.ancestor_id, request.child_id]

        def work(_: str, repository: pygit2.Repository) -> bool:
            ancestor, child = (_resolved(repository, end) for end in ends)
            return contains(repository, child, ancestor)

        return pb.CommitIsAncestorResponse(value=await self._ground.on("commit_is_ancestor", request.repository, work))

    async def GetTreeEntries(
        self, request: pb.GetTreeEntriesRequest, context: object
    ) -> AsyncIterator[pb.GetTreeEntriesResponse]:
        """The entries below a folder; "." is refused, and a limit of 0 or less lists nothing."""
        if request.path == b".":
            raise invalid("path contains disallowed path components")
        entries = await self._ground.on("get_tree_entries", request.repository, self.entries, request)
        shown = [entry for entry in entries if not request.recursive or entry.type != pb.TreeEntry.TREE]
        for entry in shown:
            entry.ClearField("flat_path")
        cursor = None
        if request.HasField("pagination_params"):
            token, limit = request.pagination_params.page_token.encode(), max(request.pagination_params.limit, 0)
            paths = [entry.path for entry in shown]
            if token and token not in paths:
                raise invalid("page_token does not match any entry")
            rest = shown[paths.index(token) + 1 :] if token else shown
            shown = rest[:limit]
            cursor = pb.PaginationCursor(next_cursor=shown[-1].path.decode("utf-8", "replace")) if len(rest) > limit > 0 else None
        yield pb.GetTreeEntriesResponse(entries=shown, pagination_cursor=cursor)


class GitalyRsBlobs(BlobService):
    """Each content in one message; one path without an object fails the whole request."""

    async def GetBlobs(self, request: pb.GetBlobsRequest, context: object) -> AsyncIterator[pb.GetBlobsResponse]:
        """The contents at revisions and paths."""
        check_revision_paths(request)
        answers: list[pb.GetBlobsResponse] = []
        for wanted in request.revision_paths:
            found = await self._ground.on("get_blobs", request.repository, self.find, wanted, request.limit)
            if found is None:
                raise internal(f"git command failed: no object at {wanted.revision}:{wanted.path!r}")
            answer = pb.GetBlobsResponse(revision=wanted.revision, path=wanted.path, data=found.data)
            describe(answer, found)
            answers.append(answer)
        for answer in answers:
            yield answer


class GitalyRsDiffs(DiffService):
    """Patches with short ids."""

    raw_diff_options: Sequence[str] = ()


class GitalyRsSmartHTTP(SmartHTTPService):
    """An advertisement has no line before it that names the service."""

    def announcement(self, service: str) -> bytes:
        """Nothing."""
        return b""


class GitalyRsOperations(BranchCalls):
    """Only UserCreateBranch, UserCreateTag, UserMergeToRef and UserCommitFiles do anything."""

    async def UserUpdateBranch(self, request: pb.UserUpdateBranchRequest, context: object) -> pb.UserUpdateBranchResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.UserUpdateBranchResponse()

    async def UserDeleteBranch(self, request: pb.UserDeleteBranchRequest, context: object) -> pb.UserDeleteBranchResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.UserDeleteBranchResponse()

    async def UserFFBranch(self, request: pb.UserFFBranchRequest, context: object) -> pb.UserFFBranchResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.UserFFBranchResponse()

    async def UserRebaseToRef(self, request: pb.UserRebaseToRefRequest, context: object) -> pb.UserRebaseToRefResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.UserRebaseToRefResponse()

    async def UserSquash(self, request: pb.UserSquashRequest, context: object) -> pb.UserSquashResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.UserSquashResponse()

    async def UserRevert(self, request: pb.UserRevertRequest, context: object) -> pb.UserRevertResponse:
        """A stub."""
        self._ground.name_of(request.repository)
        return pb.UserRevertResponse()

    async def UserMergeBranch(
        self, request_iterator: AsyncIterator[pb.UserMergeBranchRequest], context: object
    ) -> AsyncIterator[pb.UserMergeBranchResponse]:
        """A stub: it reads all there is, and answers once."""
        requests = [request async for request in request_iterator]
        if not requests:
            raise invalid("request stream must contain at least one message")
        self._ground.name_of(requests[0].repository)
        yield pb.UserMergeBranchResponse()

    async def UserCreateBranch(self, request: pb.UserCreateBranchRequest, context: object) -> pb.UserCreateBranchResponse:
        """Make a branch; without a name or a start it does nothing."""
        if not request.branch_name or not request.start_point:
            self._ground.name_of(request.repository)
            return pb.UserCreateBranchResponse()
        ref, start = _branch(request.branch_name), text("start_point", request.start_point)

        def work(operation: str, repository: pygit2.Repository) -> str:
            sha = str(_resolved(repository, start).id)
            if ref_value(repository, ref) is not None:
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"branch {ref} already exists")
            _moved(operation, repository, [RefUpdate(ref, None, sha)])
            return sha

        sha = await self._ground.on("user_create_branch", request.repository, work)
        return pb.UserCreateBranchResponse(branch=pb.Branch(name=request.branch_name, target_commit=pb.GitCommit(id=sha)))

    async def UserCreateTag(self, request: pb.UserCreateTagRequest, context: object) -> pb.UserCreateTagResponse:
        """Make a tag of the present time; what it is made of has to exist, else INTERNAL."""
        now = pb.UserCreateTagRequest()
        now.CopyFrom(request)
        now.ClearField("timestamp")
        now.user.ClearField("timezone")
        try:
            made = await super().UserCreateTag(now, context)
        except Refused as error:
            raise internal(error.message) if error.code is grpc.StatusCode.FAILED_PRECONDITION else error from error
        tag = pb.Tag(name=made.tag.name, id=made.tag.id, message=request.message, message_size=len(request.message))
        tag.target_commit.id = made.tag.target_commit.id
        return pb.UserCreateTagResponse(tag=tag)

    async def UserMergeToRef(self, request: pb.UserMergeToRefRequest, context: object) -> pb.UserMergeToRefResponse:
        """Merge with a commit, but for a source that is contained already: then the answer is what it was merged into."""
        author, message = _now(request.user), text("message", request.message)
        source, ref = request.source_sha.strip(), _branch(request.target_ref)
        if not source:
            raise invalid("source_sha is required")
        parent = text("first_parent_ref", request.first_parent_ref) or ref

        def work(operation: str, repository: pygit2.Repository) -> str:
            theirs, ours = _resolved(repository, source), _resolved(repository, parent)
            old = ref_value(repository, ref)
            if request.expected_old_oid and request.expected_old_oid != (old or ZERO_SHA):
                raise stale("expected_old_oid does not match target_ref")
            sha = str(ours.id)
            if not contains(repository, ours, theirs):
                tried = trial_merge(operation, repository, str(ours.id), str(theirs.id))
                if tried.tree_id is None:
                    raise internal(f"git command failed: git merge --no-ff -m <message> {source}; stderr: ")
                told = message if message.strip() else f"Merge {source} into {parent}"
                tree, parents = pygit2.Oid(hex=tried.tree_id), [ours.id, theirs.id]
                sha = write_commit(operation, repository, tree, parents, author, _cleaned(told), author)
            _moved(operation, repository, [RefUpdate(ref, old, sha)])
            return sha

        sha = await self._ground.on("user_merge_to_ref", request.repository, work)
        return pb.UserMergeToRefResponse(commit_id=sha)

    async def UserCommitFiles(
        self, request_iterator: AsyncIterator[pb.UserCommitFilesRequest], context: object
    ) -> pb.UserCommitFilesResponse:
        """Write and delete files, whatever was there before, and commit; the author is the committer too, and it is now."""
        header = await first_header(request_iterator)
        ref, message = _branch(header.branch_name), text("commit_message", header.commit_message)
        actions = await gathered(request_iterator)
        for action in actions:
            _check_action(action)

        def work(operation: str, repository: pygit2.Repository) -> pb.OperationBranchUpdate:
            old = ref_value(repository, ref)
            base = _parent(repository, header, old)
            if header.expected_old_oid and header.expected_old_oid != (old or ZERO_SHA):
                raise stale(f"expected_old_oid mismatch: expected {header.expected_old_oid}, got {old}")
            edit = TreeEdit(operation, repository, base.tree)
            for action in actions:
                _apply(edit, action)
            tree = edit.write()
            if tree == base.tree_id:
                raise internal("git command failed: git commit --quiet -m <message>; stderr: ")
            author = _now(header.user, header.commit_author_name, header.commit_author_email)
            told = _cleaned(message if message.strip() else "update files")
            sha = write_commit(operation, repository, tree, [base.id], author, told, author)
            _moved(operation, repository, [RefUpdate(ref, old, sha)])
            return pb.OperationBranchUpdate(commit_id=sha, branch_created=old is None)

        update = await self._ground.on("user_commit_files", header.repository, work)
        return pb.UserCommitFilesResponse(branch_update=update)


def _listed(_: str, repository: pygit2.Repository, prefix: str) -> dict[str, str]:
    return list_refs(repository, prefix)


def _moved(operation: str, repository: pygit2.Repository, updates: Sequence[RefUpdate]) -> None:
    """Move refs, all or none; whatever keeps them from moving is INTERNAL."""
    try:
        move_refs(operation, repository, updates)
    except GitError as error:
        raise internal(f"failed to update references: {error}") from error


def _ref_update(update: pb.UpdateReferencesRequest.Update) -> RefUpdate:
    ref = text("updates.reference", update.reference)
    old, new = (text("object id", value) for value in (update.old_object_id, update.new_object_id))
    if not new:
        raise invalid("updates.new_object_id must not be empty")
    if new == ZERO_SHA and old in ("", ZERO_SHA):
        raise internal(f"failed to update references: delete {ref}: zero <old-oid>")
    if not is_ref_name(ref) or not is_sha(new) or (old and not is_sha(old)):
        raise internal(f"failed to update references: invalid line for {ref!r}")
    return RefUpdate(ref, None if old in ("", ZERO_SHA) else old, None if new == ZERO_SHA else new)


def _branch(name: bytes) -> str:
    shown = text("branch_name", name)
    if not shown.strip():
        raise invalid("branch_name is required")
    return shown if shown.startswith("refs/") else BRANCHES + shown


def _resolved(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    commit = resolved_commit(repository, checked_revision(revision))
    if commit is None:
        raise internal(f"failed to resolve {revision}")
    return commit


def _parent(repository: pygit2.Repository, header: pb.UserCommitFilesRequestHeader, old: str | None) -> pygit2.Commit:
    if header.start_sha:
        return _resolved(repository, header.start_sha)
    if header.start_branch_name:
        return _resolved(repository, _branch(header.start_branch_name))
    if old is None:
        raise invalid("could not resolve parent commit from start_sha, start_branch_name, or branch_name")
    return _resolved(repository, old)


def _now(user: pb.User, name: bytes = b"", email: bytes = b"") -> Signature:
    shown_name, shown_email = text("user.name", name or user.name), text("user.email", email or user.email)
    if not shown_name.strip() or not shown_email.strip():
        raise invalid("user.name and user.email are required")
    return Signature(shown_name, shown_email, datetime.fromtimestamp(int(time.time()), UTC))


def _cleaned(message: str) -> str:
    """What `git commit -m` makes of a message: no blank lines around it, and an end of line."""
    return message.strip() + "\n"


def _check_action(action: Action) -> None:
    if action.header.action not in (action.header.CREATE, action.header.UPDATE, action.header.DELETE):
        raise invalid("only CREATE, UPDATE, and DELETE are supported")
    if action.header.base64_content:
        raise invalid("base64_content=true is not supported yet")
    path = text("file_path", action.header.file_path)
    if not path.strip() or path.startswith("/") or any(name in (".", "..") for name in path.split("/")):
        raise invalid("file_path contains disallowed path components")


def _apply(edit: TreeEdit, action: Action) -> None:
    """Write or delete as on a disk, where what was there before is no matter."""
    path = text("file_path", action.header.file_path)
    if any(is_dot_git(name) for name in path.split("/")):
        raise internal(f"failed to write file {path!r}")
    try:
        found = edit.at(path)
        if action.header.action == action.header.DELETE:
            if found is not None:
                edit.put(path, None)
        elif found is not None and found[0] == MODE_TREE:
            raise internal(f"failed to write file {path!r}: is a directory")
        else:
            edit.apply(WriteFile(path, b"".join(action.parts)))
    except ChangeRefused as error:
        raise internal(f"failed to write file {path!r}: {error.reason}") from error
