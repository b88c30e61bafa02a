"""The calls of DiffService, by the `git` program: comparisons of two commits as Git itself prints them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pygit2

from conman.git.proto import gitaly_pb2 as pb
from conman.git.proto import gitaly_pb2_grpc as rpc
from conman.git.server_call import (
    ZERO_SHA,
    Ground,
    batches,
    checked_revision,
    chunks,
    invalid,
    path_text,
    required_commit,
)
from conman.git.server_diff_parse import RAW_AND_PATCH, FilePatch, Limits, RawChange, limited, parse_patches, parse_raw
from conman.git.server_process import git_output, running_git

_FEW_QUOTES = ("-c", "core.quotePath=false")
_PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv")
_COMMIT_DIFF_RENAMES = "--find-renames=30%"
"""Gitaly's own threshold in `CommitDiff`; its other calls have Git's default, 50 %."""
_WHITESPACE = {
    pb.CommitDiffRequest.WHITESPACE_CHANGES_IGNORE: "--ignore-space-change",
    pb.CommitDiffRequest.WHITESPACE_CHANGES_IGNORE_ALL: "--ignore-all-space",
}
_FILTER_LETTER = {
    pb.FindChangedPathsRequest.DIFF_STATUS_ADDED: "A",
    pb.FindChangedPathsRequest.DIFF_STATUS_MODIFIED: "M",
    pb.FindChangedPathsRequest.DIFF_STATUS_DELETED: "D",
    pb.FindChangedPathsRequest.DIFF_STATUS_TYPE_CHANGE: "T",
    pb.FindChangedPathsRequest.DIFF_STATUS_COPIED: "C",
    pb.FindChangedPathsRequest.DIFF_STATUS_RENAMED: "R",
}
_STATUS = {
    "A": pb.ChangedPaths.ADDED,
    "M": pb.ChangedPaths.MODIFIED,
    "D": pb.ChangedPaths.DELETED,
    "T": pb.ChangedPaths.TYPE_CHANGE,
    "C": pb.ChangedPaths.COPIED,
    "R": pb.ChangedPaths.RENAMED,
}
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


class DiffService(rpc.DiffServiceServicer):
    """What differs between two commits."""

    raw_diff_options: Sequence[str] = ("--full-index",)

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def CommitDiff(self, request: pb.CommitDiffRequest, context: object) -> AsyncIterator[pb.CommitDiffResponse]:
        """A patch per path, in chunks, each without its head: from the first `@@` on. A change of type is two patches."""
        folder, left, right = await self._pair("commit_diff", request)
        options = [*RAW_AND_PATCH, _COMMIT_DIFF_RENAMES]
        if request.whitespace_changes in _WHITESPACE:
            options.append(_WHITESPACE[request.whitespace_changes])
        if request.diff_mode == pb.CommitDiffRequest.WORDDIFF:
            options.append("--word-diff=porcelain")
        paths = [f":(literal){path_text(path)}" for path in request.paths]
        printed = await git_output(self._ground, folder, *_FEW_QUOTES, "diff", *_PLAIN, *options, left, right, "--", *paths)
        patches = parse_patches(printed)
        if request.enforce_limits or request.collapse_diffs:
            patches = limited(patches, Limits.of(request))
        for patch in patches:
            for answer in _messages(patch):
                yield answer

    async def RawDiff(self, request: pb.RawDiffRequest, context: object) -> AsyncIterator[pb.RawDiffResponse]:
        """What `git diff` prints for two commits."""
        folder, left, right = await self._pair("raw_diff", request)
        async with running_git(self._ground, folder, "diff", *_PLAIN, *self.raw_diff_options, left, right) as process:
            async for piece in process.pieces():
                yield pb.RawDiffResponse(data=piece)

    async def DiffStats(self, request: pb.DiffStatsRequest, context: object) -> AsyncIterator[pb.DiffStatsResponse]:
        """Lines added and deleted per path; none for binary files."""
        folder, left, right = await self._pair("diff_stats", request)
        printed = await git_output(self._ground, folder, "diff", *_PLAIN, "--numstat", "-z", left, right)
        for batch in batches(_stats(printed)):
            yield pb.DiffStatsResponse(stats=batch)

    async def FindChangedPaths(
        self, request: pb.FindChangedPathsRequest, context: object
    ) -> AsyncIterator[pb.FindChangedPathsResponse]:
        """The paths that differ between two trees, or between a commit and its parents (or the parents given)."""
        folder = await self._ground.folder("find_changed_paths", request.repository)
        options = ["--raw", "-r", "-z", "--no-abbrev", "--find-renames" if request.find_renames else "--no-renames"]
        letters = "".join(_FILTER_LETTER.get(wanted, "") for wanted in request.diff_filters)
        if letters:
            options.append(f"--diff-filter={letters}")
        for wanted in _wanted(request):
            commit, pairs = await self._ground.on("find_changed_paths", request.repository, _pairs, wanted)
            compared: list[list[pb.ChangedPaths]] = []
            for left, right in pairs:
                printed = await git_output(self._ground, folder, "diff-tree", *options, left, right)
                compared.append([_changed(change, commit) for change in parse_raw(printed)[0]])
            all_parents = request.merge_commit_diff_mode == pb.FindChangedPathsRequest.MERGE_COMMIT_DIFF_MODE_ALL_PARENTS
            for batch in batches(_in_all(compared) if all_parents else [path for paths in compared for path in paths]):
                yield pb.FindChangedPathsResponse(paths=batch)

    async def _pair(
        self, operation: str, request: pb.CommitDiffRequest | pb.RawDiffRequest | pb.DiffStatsRequest
    ) -> tuple[Path, str, str]:
        """The folder of a repository, and the two trees to compare. NOT_FOUND for a revision that does not exist."""
        revisions = [checked_revision(revision) for revision in (request.left_commit_id, request.right_commit_id)]

        def work(_: str, repository: pygit2.Repository) -> tuple[Path, str, str]:
            left, right = (_tree(repository, revision) for revision in revisions)
            return Path(str(repository.path)), left, right

        return await self._ground.on(operation, request.repository, work)


def _tree(repository: pygit2.Repository, revision: str) -> str:
    """The tree of a revision, which may be a tree itself (the empty one always is)."""
    if revision == _EMPTY_TREE:
        return str(repository.TreeBuilder().write())
    found = repository.get(revision) if len(revision) == len(ZERO_SHA) else None
    return str(found.id if isinstance(found, pygit2.Tree) else required_commit(repository, revision).tree_id)


def _messages(patch: FilePatch) -> Iterator[pb.CommitDiffResponse]:
    answer = pb.CommitDiffResponse(
        from_path=patch.change.old_path,
        to_path=patch.change.path,
        from_id=patch.change.old_id,
        to_id=patch.change.new_id,
        old_mode=patch.change.old_mode,
        new_mode=patch.change.new_mode,
        binary=patch.binary,
        overflow_marker=patch.overflow,
        collapsed=patch.collapsed,
        too_large=patch.too_large,
        lines_added=patch.added,
        lines_removed=patch.removed,
    )
    if patch.overflow:
        yield pb.CommitDiffResponse(overflow_marker=True, end_of_patch=True)
        return
    pieces = list(chunks(patch.body))
    for number, piece in enumerate(pieces):
        answer.raw_patch_data = piece
        answer.end_of_patch = number == len(pieces) - 1
        yield answer
        answer = pb.CommitDiffResponse()


def _stats(printed: bytes) -> Iterator[pb.DiffStats]:
    fields = iter(printed.split(b"\0"))
    for entry in fields:
        if not entry:
            return
        added, removed, path = entry.split(b"\t", 2)
        old_path = b""
        if not path:
            old_path, path = next(fields), next(fields)
        # Git prints a dash for the lines of a binary file.
        counts = [0 if count == b"-" else int(count) for count in (added, removed)]
        yield pb.DiffStats(path=path, old_path=old_path, additions=counts[0], deletions=counts[1])


def _wanted(request: pb.FindChangedPathsRequest) -> list[pb.FindChangedPathsRequest.Request]:
    """The comparisons that are asked for, in the old form or the new."""
    make = pb.FindChangedPathsRequest.Request
    older = [make(commit_request=make.CommitRequest(commit_revision=commit)) for commit in request.commits]
    wanted = [*older, *request.requests]
    if not wanted:
        raise invalid("no commits and no requests given")
    return wanted


def _pairs(
    _: str, repository: pygit2.Repository, wanted: pb.FindChangedPathsRequest.Request
) -> tuple[str, list[tuple[str, str]]]:
    """The commit that changes are reported for ("" for two trees), and the pairs of trees to compare."""
    match wanted.WhichOneof("type"):
        case "tree_request":
            trees = wanted.tree_request
            left, right = (checked_revision(tree) for tree in (trees.left_tree_revision, trees.right_tree_revision))
            return "", [(_tree(repository, left), _tree(repository, right))]
        case "commit_request":
            commit = required_commit(repository, checked_revision(wanted.commit_request.commit_revision))
            given = [required_commit(repository, revision) for revision in wanted.commit_request.parent_commit_revisions]
            parents = [str(parent.tree_id) for parent in given or commit.parents]
            lefts = parents or [_tree(repository, _EMPTY_TREE)]
            return str(commit.id), [(left, str(commit.tree_id)) for left in lefts]
        case _:
            raise invalid("a request has neither trees nor a commit")


def _in_all(compared: Sequence[list[pb.ChangedPaths]]) -> list[pb.ChangedPaths]:
    """The paths that differ from every parent, as the comparison with the first one has them."""
    common = set.intersection(*({change.path for change in changes} for changes in compared))
    return [change for change in compared[0] if change.path in common]


def _changed(change: RawChange, commit: str) -> pb.ChangedPaths:
    return pb.ChangedPaths(
        path=change.path,
        status=_STATUS[change.letter],
        old_mode=change.old_mode,
        new_mode=change.new_mode,
        old_blob_id=change.old_id,
        new_blob_id=change.new_id,
        old_path=change.old_path if change.letter in "CR" else b"",
        score=change.score,
        commit_id=commit,
    )
