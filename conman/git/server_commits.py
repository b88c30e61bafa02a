"""The calls of CommitService: commits, and what their trees hold."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import pygit2

from conman.git.checks import MODE_SUBMODULE, MODE_TREE
from conman.git.local_read import contains, find_object
from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import (
    Ground,
    Refused,
    batches,
    checked_revision,
    chunks,
    invalid,
    path_text,
    required_commit,
    resolved_commit,
    stale,
    text,
)
from conman.git.server_messages import commit_message
from conman.git.server_process import git_output
from conman.git.server_refs import page

_FLAT_PATH_DEPTH = 10
"""How many folders with one folder in each a flat path goes down (Gitaly's number)."""
_PSEUDO_REVISIONS = frozenset(("--all", "--not", "--branches", "--tags"))
_ORDER = {pb.ListCommitsRequest.TOPO: "--topo-order", pb.ListCommitsRequest.DATE: "--date-order"}
_TYPE_RANK = {pb.TreeEntry.TREE: 0, pb.TreeEntry.BLOB: 1, pb.TreeEntry.COMMIT: 2}


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path: its object (None for a submodule's commit, which is elsewhere), and its bytes when it is a blob."""

    id: str
    mode: int
    type: pb.TreeEntry.EntryType
    size: int = 0
    data: bytes = b""


class CommitService(rpc.CommitServiceServicer):
    """Commits and what their trees hold."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def FindCommit(self, request: pb.FindCommitRequest, context: object) -> pb.FindCommitResponse:
        """The commit of a revision; an empty answer when there is none."""
        revision = text("revision", request.revision)

        def work(_: str, repository: pygit2.Repository) -> pb.FindCommitResponse:
            commit = resolved_commit(repository, revision)
            if commit is None:
                return pb.FindCommitResponse()
            return pb.FindCommitResponse(commit=commit_message(commit, with_trailers=request.trailers))

        return await self._ground.on("find_commit", request.repository, work)

    async def ListCommits(self, request: pb.ListCommitsRequest, context: object) -> AsyncIterator[pb.ListCommitsResponse]:
        """Commits that are reachable from the revisions, and not from those that are excluded by `^`, newest first."""
        arguments = rev_list(request)
        folder = await self._ground.folder("list_commits", request.repository)
        await self._ground.on("list_commits", request.repository, _check_revisions, request.revisions)
        shas = (await git_output(self._ground, folder, "rev-list", *arguments)).decode().split()
        token = request.pagination_params.page_token
        if token and token not in shas:
            raise invalid(f"no commit has the page token {token!r}")
        rest = shas[shas.index(token) + 1 :] if token else shas
        limit = request.pagination_params.limit
        shown = rest[:limit] if limit > 0 else rest

        def work(_: str, repository: pygit2.Repository, batch: Sequence[str]) -> list[pb.GitCommit]:
            return [commit_message(repository[sha].peel(pygit2.Commit)) for sha in batch]

        cursor = pb.PaginationCursor(next_cursor=shown[-1]) if len(shown) < len(rest) else None
        for batch in batches(shown):
            commits = await self._ground.on("list_commits", request.repository, work, batch)
            yield pb.ListCommitsResponse(commits=commits, pagination_cursor=cursor)
            cursor = None

    async def CommitIsAncestor(self, request: pb.CommitIsAncestorRequest, context: object) -> pb.CommitIsAncestorResponse:
        """Whether the child contains the ancestor; false when one of them does not exist."""
        ancestor_id, child_id = checked_revision(request.ancestor_id), checked_revision(request.child_id)

        def work(_: str, repository: pygit2.Repository) -> bool:
            ancestor, child = resolved_commit(repository, ancestor_id), resolved_commit(repository, child_id)
            return ancestor is not None and child is not None and contains(repository, child, ancestor)

        return pb.CommitIsAncestorResponse(value=await self._ground.on("commit_is_ancestor", request.repository, work))

    async def TreeEntry(self, request: pb.TreeEntryRequest, context: object) -> AsyncIterator[pb.TreeEntryResponse]:
        """What is at a path, a blob with its content in chunks. NOT_FOUND when nothing is there."""
        if request.limit < 0 or request.max_size < 0:
            raise invalid("limit and max_size can't be negative")
        revision, path = checked_revision(text("revision", request.revision)), tree_path(request.path)

        def work(_: str, repository: pygit2.Repository) -> Found | None:
            commit = required_commit(repository, revision)
            return look(repository, commit, path, request.limit or -1)

        found = await self._ground.on("tree_entry", request.repository, work)
        if found is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"nothing at {request.path!r}")
        if 0 < request.max_size < found.size:
            raise stale(f"the object has {found.size} bytes, more than the {request.max_size} that were asked for")
        kinds = {pb.TreeEntry.BLOB: pb.TreeEntryResponse.BLOB, pb.TreeEntry.TREE: pb.TreeEntryResponse.TREE}
        answer = pb.TreeEntryResponse(
            type=kinds.get(found.type, pb.TreeEntryResponse.COMMIT), oid=found.id, size=found.size, mode=found.mode
        )
        for chunk in chunks(found.data):
            answer.data = chunk
            yield answer
            answer = pb.TreeEntryResponse()

    async def GetTreeEntries(
        self, request: pb.GetTreeEntriesRequest, context: object
    ) -> AsyncIterator[pb.GetTreeEntriesResponse]:
        """The entries below a folder ("" or "." is the root), recursively with the folders among them."""
        entries = await self._ground.on("get_tree_entries", request.repository, self.entries, request)
        shown = page(entries, request, lambda entry: entry.path.decode("utf-8", "replace"))
        more = bool(shown) and shown[-1].path != entries[-1].path
        cursor = pb.PaginationCursor(next_cursor=shown[-1].path.decode("utf-8", "replace")) if more else None
        for batch in batches(shown):
            yield pb.GetTreeEntriesResponse(entries=batch, pagination_cursor=cursor)
            cursor = None

    async def ListFiles(self, request: pb.ListFilesRequest, context: object) -> AsyncIterator[pb.ListFilesResponse]:
        """The paths of all files of a revision (HEAD, when it has none)."""
        revision = text("revision", request.revision) or "HEAD"

        def work(_: str, repository: pygit2.Repository) -> list[bytes]:
            tree = required_commit(repository, revision).tree
            return [path for path, item in walk(b"", tree, recursive=True) if item.filemode != MODE_TREE]

        for batch in batches(await self._ground.on("list_files", request.repository, work)):
            yield pb.ListFilesResponse(paths=batch)

    def entries(self, _: str, repository: pygit2.Repository, request: pb.GetTreeEntriesRequest) -> list[pb.TreeEntry]:
        """The entries that `GetTreeEntries` lists, in the order that is asked for."""
        path = tree_path(request.path)
        commit = required_commit(repository, checked_revision(text("revision", request.revision)))
        folder = find_object(commit.tree, path.split("/") if path else [])
        if not isinstance(folder, pygit2.Tree):
            raise Refused(grpc.StatusCode.NOT_FOUND, f"no folder at {path!r}")
        prefix = f"{path}/".encode("utf-8", "surrogateescape") if path else b""
        found = [_entry(name, item, str(commit.id)) for name, item in walk(prefix, folder, recursive=request.recursive)]
        if request.sort == pb.GetTreeEntriesRequest.TREES_FIRST:
            found.sort(key=lambda entry: _TYPE_RANK[entry.type])
        elif request.sort == pb.GetTreeEntriesRequest.FILESYSTEM:
            found.sort(key=lambda entry: entry.path)
        if not request.recursive and not request.skip_flat_paths:
            for entry in found:
                entry.flat_path = _flat_path(repository, entry)
        return found


def tree_path(path: bytes) -> str:
    """A path to look up below a tree, "" for the root. Raises `Refused` for one that is not relative and plain."""
    plain = path_text(path)
    if plain in ("", "."):
        if path.startswith(b"/"):
            raise invalid("a path is relative")
        return ""
    if "\0" in plain or any(name in ("", ".", "..") for name in plain.split("/")):
        raise invalid(f"{path!r} is not a relative path in plain form")
    return plain


def look(repository: pygit2.Repository, commit: pygit2.Commit, path: str, limit: int) -> Found | None:
    """What a commit has at a path; of a blob at most `limit` bytes, all when it is negative."""
    found = find_object(commit.tree, path.split("/") if path else [])
    if found is None:
        return None
    mode = int(found.filemode or MODE_TREE)
    if isinstance(found, pygit2.Blob):
        data = found.data if limit else b""
        return Found(str(found.id), mode, pb.TreeEntry.BLOB, found.size, data if limit < 0 else data[:limit])
    if mode == MODE_SUBMODULE:
        return Found(str(found.id), mode, pb.TreeEntry.COMMIT)
    return Found(str(found.id), mode, pb.TreeEntry.TREE, repository.odb.read_header(found.id)[1])


def walk(prefix: bytes, tree: pygit2.Tree, *, recursive: bool) -> list[tuple[bytes, pygit2.Object]]:
    """Full path and object of a folder's entries, in the tree's order; recursively, each folder before what is in it."""
    found: list[tuple[bytes, pygit2.Object]] = []
    pending = [(prefix + (item.raw_name or b""), item) for item in reversed(list(tree))]
    while pending:
        path, item = pending.pop()
        found.append((path, item))
        if recursive and isinstance(item, pygit2.Tree):
            pending.extend((path + b"/" + (below.raw_name or b""), below) for below in reversed(list(item)))
    return found


def _entry(path: bytes, item: pygit2.Object, commit: str) -> pb.TreeEntry:
    mode = int(item.filemode or MODE_TREE)
    kind = {MODE_TREE: pb.TreeEntry.TREE, MODE_SUBMODULE: pb.TreeEntry.COMMIT}.get(mode, pb.TreeEntry.BLOB)
    return pb.TreeEntry(oid=str(item.id), path=path, type=kind, mode=mode, commit_oid=commit)


def _flat_path(repository: pygit2.Repository, entry: pb.TreeEntry) -> bytes:
    """Where a folder leads that has but one folder in it, and so on; any other entry's own path."""
    path = entry.path
    below = repository[entry.oid] if entry.type == pb.TreeEntry.TREE else None
    for _ in range(_FLAT_PATH_DEPTH):
        if not isinstance(below, pygit2.Tree) or len(below) != 1:
            break
        only = next(iter(below))
        if not isinstance(only, pygit2.Tree):
            break
        path, below = path + b"/" + (only.raw_name or b""), only
    return path


def _check_revisions(_: str, repository: pygit2.Repository, revisions: Sequence[str]) -> None:
    for revision in revisions:
        for end in _ends(revision):
            required_commit(repository, end)


def _ends(revision: str) -> list[str]:
    """The single revisions in `main`, `^main`, `main..topic` and `main...topic`; none in `--all` and its like."""
    if revision in _PSEUDO_REVISIONS:
        return []
    return [end for end in re.split(r"\.{2,3}", revision.removeprefix("^"), maxsplit=1) if end] or [revision]


def rev_list(request: pb.ListCommitsRequest) -> list[str]:
    """The arguments of `git rev-list` for a request."""
    if not request.revisions:
        raise invalid("no revisions given")
    arguments = [_ORDER[request.order]] if request.order in _ORDER else []
    flags = {"--reverse": request.reverse, "--first-parent": request.first_parent, "--no-walk=unsorted": request.disable_walk}
    arguments += [flag for flag, wanted in flags.items() if wanted]
    if request.max_parents:
        arguments.append(f"--max-parents={request.max_parents}")
    if request.skip:
        arguments.append(f"--skip={request.skip}")
    if request.HasField("after"):
        arguments.append(f"--since=@{request.after.seconds}")
    if request.HasField("before"):
        arguments.append(f"--until=@{request.before.seconds}")
    if request.author:
        arguments.append(f"--author={text('author', request.author)}")
    if request.ignore_case:
        arguments.append("--regexp-ignore-case")
    arguments += [f"--grep={text('commit_message_patterns', pattern)}" for pattern in request.commit_message_patterns]
    for revision in request.revisions:
        for end in _ends(revision):
            checked_revision(end)
        arguments.append(revision)
    paths = [f":(literal){path_text(path)}" for path in request.paths]
    return [*arguments, "--", *paths]
