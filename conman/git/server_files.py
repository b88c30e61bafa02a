"""The call of OperationService that commits changes to files: a stream of a header, then each action with its content."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pygit2

from conman.git.adapter import ChangeRefused, DeleteFile, MoveFile, Signature, WriteFile
from conman.git.checks import MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, MODE_SYMLINK, MODE_TREE
from conman.git.local_refs import list_refs, ref_value
from conman.git.local_write import TreeEdit, write_commit
from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_branches import expected
from conman.git.server_call import Ground, Refused, invalid, resolved_commit, stale, text
from conman.git.server_merges import other_repository
from conman.git.server_messages import user_signature
from conman.git.server_refs import BRANCHES, branch_ref, place

MAX_CONTENT_BYTES = 512 * 1024 * 1024
"""Content of one request, which is held in memory until it is whole."""
KEEP_FILE = ".gitkeep"
"""What CREATE_DIR puts into a folder, since Git keeps no empty ones."""

_Header = pb.UserCommitFilesActionHeader


@dataclass(slots=True)
class Action:
    """One change of a request, its content gathered from the stream."""

    header: pb.UserCommitFilesActionHeader
    parts: list[bytes] = field(default_factory=list)

    def content(self) -> bytes:
        """The content. Raises `Refused` when it says that it is Base64, and is not."""
        data = b"".join(self.parts)
        if not self.header.base64_content:
            return data
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise invalid(f"{self.header.file_path!r}: the content is not Base64") from error


@dataclass(frozen=True, slots=True)
class Head:
    """Where a commit goes and what it is made on."""

    ref: str
    old: str | None
    """Where the ref has to be until then; None: it must not exist."""
    parent: str | None
    """None: a first commit."""
    exists: bool


class FileCalls(rpc.OperationServiceServicer):
    """Commits of changes to files."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def UserCommitFiles(
        self, request_iterator: AsyncIterator[pb.UserCommitFilesRequest], context: object
    ) -> pb.UserCommitFilesResponse:
        """Apply actions in order, commit, and move a branch: all or none.

        FAILED_PRECONDITION when the branch is not where it has to be: at `expected_old_oid`, else (unless forced) at the
        commit that it starts from. ALREADY_EXISTS and NOT_FOUND speak of files.
        """
        header = await first_header(request_iterator)
        ref, committer = branch_ref(header.branch_name), user_signature(header)
        author = _author(header, committer)
        message = text("commit_message", header.commit_message)
        if not message:
            raise invalid("empty commit message")
        if header.HasField("start_repository") and header.start_repository != header.repository:
            raise other_repository()
        actions = await gathered(request_iterator)

        def work(operation: str, repository: pygit2.Repository) -> pb.OperationBranchUpdate:
            had_branches = bool(list_refs(repository, BRANCHES))
            head = _head(repository, ref, header)
            base = None if head.parent is None else resolved_commit(repository, head.parent)
            edit = TreeEdit(operation, repository, None if base is None else base.tree)
            for action in actions:
                _apply(edit, action)
            parents = [] if base is None else [base.id]
            sha = write_commit(operation, repository, edit.write(), parents, author, message, committer)
            place(operation, repository, ref, head.old, sha)
            return pb.OperationBranchUpdate(commit_id=sha, repo_created=not had_branches, branch_created=not head.exists)

        update = await self._ground.on("user_commit_files", header.repository, work)
        return pb.UserCommitFilesResponse(branch_update=update)


async def first_header(requests: AsyncIterator[pb.UserCommitFilesRequest]) -> pb.UserCommitFilesRequestHeader:
    """The header that a stream begins with."""
    first = await anext(requests, None)
    if first is None or not first.HasField("header"):
        raise invalid("the first message has to be the header")
    return first.header


async def gathered(requests: AsyncIterator[pb.UserCommitFilesRequest]) -> list[Action]:
    """The actions of a stream after its header."""
    actions: list[Action] = []
    received = 0
    async for request in requests:
        match request.action.WhichOneof("user_commit_files_action_payload"):
            case "header":
                actions.append(Action(request.action.header))
            case "content" if actions:
                received += len(request.action.content)
                if received > MAX_CONTENT_BYTES:
                    raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {MAX_CONTENT_BYTES} bytes in one commit")
                actions[-1].parts.append(request.action.content)
            case "content":
                raise invalid("content sent before an action")
            case _:
                raise invalid("an action without header or content")
    return actions


def _author(header: pb.UserCommitFilesRequestHeader, committer: Signature) -> Signature:
    if not header.commit_author_name or not header.commit_author_email:
        return committer
    name, email = text("commit_author_name", header.commit_author_name), text("commit_author_email", header.commit_author_email)
    return Signature(name, email, committer.when)


def _head(repository: pygit2.Repository, ref: str, header: pb.UserCommitFilesRequestHeader) -> Head:
    present = ref_value(repository, ref)
    parent = present
    if header.start_sha:
        start = resolved_commit(repository, expected(header.start_sha) or "")
        if start is None:
            raise invalid(f"start_sha {header.start_sha} does not exist")
        parent = str(start.id)
    elif header.start_branch_name and list_refs(repository, BRANCHES):
        start = resolved_commit(repository, branch_ref(header.start_branch_name))
        if start is None:
            raise invalid(f"start branch {header.start_branch_name!r} does not exist")
        parent = str(start.id)
    if header.expected_old_oid:
        old = expected(header.expected_old_oid)
        if old != present:
            raise stale(f"could not update {ref}: it is not at {header.expected_old_oid}; look again and repeat")
    else:
        old = present if present is None or header.force else parent
    return Head(ref, old, parent, exists=present is not None)


def _apply(edit: TreeEdit, action: Action) -> None:
    """One action on the files as the actions before it left them."""
    path = text("file_path", action.header.file_path)
    try:
        match action.header.action:
            case _Header.CREATE:
                _check_free(edit, path)
                edit.apply(WriteFile(path, action.content(), executable=action.header.execute_filemode))
            case _Header.CREATE_DIR:
                _check_free(edit, path)
                edit.apply(WriteFile(f"{path}/{KEEP_FILE}", b""))
            case _Header.UPDATE:
                _present(edit, path)
                edit.apply(WriteFile(path, action.content()))
            case _Header.CHMOD:
                mode, blob = _present(edit, path)
                if mode == MODE_SYMLINK:
                    raise invalid(f"{path} is a link")
                edit.put(path, (MODE_EXECUTABLE if action.header.execute_filemode else MODE_FILE, blob))
            case _Header.DELETE:
                _present(edit, path)
                edit.apply(DeleteFile(path))
            case _Header.MOVE:
                source = text("previous_path", action.header.previous_path)
                _present(edit, source)
                _check_free(edit, path)
                edit.apply(MoveFile(source, path, None if action.header.infer_content else action.content()))
            case unknown:
                raise invalid(f"unknown action {unknown}")
    except ChangeRefused as error:
        raise invalid(f"{error.path}: {error.reason}") from error


def _check_free(edit: TreeEdit, path: str) -> None:
    found = edit.at(path)
    if found is not None:
        kind = "directory" if found[0] == MODE_TREE else "file"
        raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"a {kind} with this name already exists: {path}")


def _present(edit: TreeEdit, path: str) -> tuple[int, pygit2.Oid]:
    """Mode and blob of the file at a path. NOT_FOUND when none is there."""
    mode, blob = edit.at(path) or (MODE_TREE, None)
    if blob is None:
        raise Refused(grpc.StatusCode.NOT_FOUND, f"a file with this name doesn't exist: {path}")
    if mode == MODE_SUBMODULE:
        raise invalid(f"{path} is a submodule")
    return mode, blob
