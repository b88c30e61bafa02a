"""Comparing two commits in the local adapter."""

from __future__ import annotations

from collections.abc import Sequence

import pygit2
from pygit2.enums import DeltaStatus, DiffFind, DiffOption

from conman.git.adapter import ChangedPath, ChangeStatus, FileDiff
from conman.git.checks import shown
from conman.git.local_repo import find_commit

RENAME_SIMILARITY = 50
"""Percent of common content from which a deleted and an added file are one that moved (git's default)."""
RENAME_LIMIT = 1000
"""Files on either side up to which similar content is searched for (git's default); above, only equal content counts."""

_STATUS = {
    DeltaStatus.ADDED: ChangeStatus.ADDED,
    DeltaStatus.DELETED: ChangeStatus.DELETED,
    DeltaStatus.MODIFIED: ChangeStatus.MODIFIED,
    DeltaStatus.RENAMED: ChangeStatus.RENAMED,
    DeltaStatus.TYPECHANGE: ChangeStatus.TYPE_CHANGED,
}


def changed_paths(operation: str, repository: pygit2.Repository, base: str, head: str, renames: bool) -> list[ChangedPath]:
    """Paths that differ, sorted by the bytes of the path."""
    compared = _compare(operation, repository, base, head, renames, context=0)
    deltas = sorted(compared.deltas, key=_sort_key)
    return [_changed(delta) for delta in deltas]


def diff(
    operation: str,
    repository: pygit2.Repository,
    base: str,
    head: str,
    paths: Sequence[str] | None,
    renames: bool,
    context: int,
) -> list[FileDiff]:
    """Unified patches, sorted by the bytes of the path; only those of `paths` are computed."""
    compared = _compare(operation, repository, base, head, renames, context)
    wanted = None if paths is None else {path.encode("utf-8", "surrogateescape") for path in paths}
    found: list[tuple[bytes, FileDiff]] = []
    for index, delta in enumerate(compared.deltas):
        sides = (delta.old_file.raw_path, delta.new_file.raw_path)
        if wanted is None or not wanted.isdisjoint(sides):
            found.append((_sort_key(delta), _file_diff(compared[index], delta)))
    found.sort(key=lambda pair: pair[0])
    return [one for _, one in found]


def _compare(operation: str, repository: pygit2.Repository, base: str, head: str, renames: bool, context: int) -> pygit2.Diff:
    old = find_commit(operation, repository, base).tree
    new = find_commit(operation, repository, head).tree
    compared = old.diff_to_tree(new, DiffOption.INCLUDE_TYPECHANGE, context, 0)
    if renames:
        compared.find_similar(DiffFind.FIND_RENAMES, rename_threshold=RENAME_SIMILARITY, rename_limit=RENAME_LIMIT)
    return compared


def _sort_key(delta: pygit2.DiffDelta) -> bytes:
    side = delta.old_file if delta.status == DeltaStatus.DELETED else delta.new_file
    return side.raw_path


def _changed(delta: pygit2.DiffDelta) -> ChangedPath:
    status = _STATUS[delta.status]
    has_old = status is not ChangeStatus.ADDED
    has_new = status is not ChangeStatus.DELETED
    return ChangedPath(
        path=shown(_sort_key(delta)),
        old_path=shown(delta.old_file.raw_path) if status is ChangeStatus.RENAMED else None,
        status=status,
        old_blob_id=str(delta.old_file.id) if has_old else None,
        new_blob_id=str(delta.new_file.id) if has_new else None,
        old_mode=int(delta.old_file.mode) if has_old else None,
        new_mode=int(delta.new_file.mode) if has_new else None,
    )


def _file_diff(patch: pygit2.Patch | None, delta: pygit2.DiffDelta) -> FileDiff:
    if patch is None:
        return FileDiff(_changed(delta), 0, 0, binary=False, patch="")
    binary = bool(patch.delta.is_binary)
    _, additions, deletions = patch.line_stats
    text = "" if binary else shown(patch.data)
    return FileDiff(_changed(delta), additions, deletions, binary, text)
