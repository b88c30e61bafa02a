"""Comparing two commits in the local adapter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pygit2
from pygit2.enums import DeltaStatus, DiffFind, DiffOption

from conman.git.adapter import ChangedPath, ChangeStatus, FileDiff
from conman.git.checks import shown
from conman.git.local_repo import find_commit

RENAME_SIMILARITY = 50
"""Percent of common content from which a deleted and an added file are one that moved (git's default)."""
RENAME_LIMIT = 1000
"""Files on either side up to which similar content is searched for (git's default); above, only equal content counts."""

_MOVE_THEN_MODES = re.compile(rb"(similarity index .*\nrename from .*\nrename to .*\n)(old mode .*\nnew mode [^\n]*\n)")
_STATUS = {
    DeltaStatus.ADDED: ChangeStatus.ADDED,
    DeltaStatus.DELETED: ChangeStatus.DELETED,
    DeltaStatus.MODIFIED: ChangeStatus.MODIFIED,
    DeltaStatus.RENAMED: ChangeStatus.RENAMED,
    DeltaStatus.TYPECHANGE: ChangeStatus.TYPE_CHANGED,
}


@dataclass(frozen=True, slots=True)
class _Delta:
    """One difference, and where to find its patch."""

    of: pygit2.DiffDelta
    within: pygit2.Diff
    index: int

    @property
    def path(self) -> bytes:
        side = self.of.old_file if self.of.status == DeltaStatus.DELETED else self.of.new_file
        return side.raw_path


def changed_paths(operation: str, repository: pygit2.Repository, base: str, head: str, renames: bool) -> list[ChangedPath]:
    """Paths that differ, sorted by the bytes of the path."""
    old = find_commit(operation, repository, base).tree
    return changed_between(old, find_commit(operation, repository, head).tree, renames)


def changed_between(old: pygit2.Tree, new: pygit2.Tree, renames: bool) -> list[ChangedPath]:
    """Paths that differ between two trees, sorted by the bytes of the path."""
    return [_changed(delta) for delta in _compare(old, new, renames, context=0)]


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
    old = find_commit(operation, repository, base).tree
    return diff_between(old, find_commit(operation, repository, head).tree, paths, renames, context)


def diff_between(old: pygit2.Tree, new: pygit2.Tree, paths: Sequence[str] | None, renames: bool, context: int) -> list[FileDiff]:
    """Unified patches between two trees, sorted by the bytes of the path; only those of `paths` are computed."""
    wanted = None if paths is None else {path.encode("utf-8", "surrogateescape") for path in paths}
    found: list[FileDiff] = []
    for delta in _compare(old, new, renames, context):
        if wanted is not None and wanted.isdisjoint((delta.of.old_file.raw_path, delta.path)):
            continue
        changes_type = delta.of.status == DeltaStatus.TYPECHANGE
        patches = _type_change(old, new, delta.path, context) if changes_type else [delta.within[delta.index]]
        found.append(_file_diff(delta, [patch for patch in patches if patch is not None]))
    return found


def _compare(old: pygit2.Tree, new: pygit2.Tree, renames: bool, context: int) -> list[_Delta]:
    """The differences, sorted by the bytes of the path."""
    deltas = _deltas(old.diff_to_tree(new, DiffOption.INCLUDE_TYPECHANGE, context, 0))
    if renames:
        added = {delta.path for delta in deltas if delta.of.status == DeltaStatus.ADDED}
        deleted = {delta.path for delta in deltas if delta.of.status == DeltaStatus.DELETED}
        moved = [
            delta
            for delta in (_moved(old, new, context) if added and deleted else [])
            # The library also takes a file for moved whose target was there before with another type; git does not.
            if delta.path in added and delta.of.old_file.raw_path in deleted
        ]
        settled = {delta.path for delta in moved} | {delta.of.old_file.raw_path for delta in moved}
        deltas = [delta for delta in deltas if delta.path not in settled] + moved
    return sorted(deltas, key=lambda delta: delta.path)


def _moved(old: pygit2.Tree, new: pygit2.Tree, context: int) -> list[_Delta]:
    compared = old.diff_to_tree(new, DiffOption.INCLUDE_TYPECHANGE, context, 0)
    compared.find_similar(DiffFind.FIND_RENAMES, rename_threshold=RENAME_SIMILARITY, rename_limit=RENAME_LIMIT)
    return [delta for delta in _deltas(compared) if delta.of.status == DeltaStatus.RENAMED]


def _deltas(compared: pygit2.Diff) -> list[_Delta]:
    return [_Delta(delta, compared, index) for index, delta in enumerate(compared.deltas)]


def _type_change(old: pygit2.Tree, new: pygit2.Tree, path: bytes, context: int) -> list[pygit2.Patch | None]:
    """Git prints a change of type as the deletion of one file and the addition of another."""
    compared = old.diff_to_tree(new, DiffOption.NORMAL, context, 0)
    return [compared[index] for index, delta in enumerate(compared.deltas) if delta.new_file.raw_path == path]


def _changed(delta: _Delta) -> ChangedPath:
    status = _STATUS[delta.of.status]
    old = None if status is ChangeStatus.ADDED else delta.of.old_file
    new = None if status is ChangeStatus.DELETED else delta.of.new_file
    return ChangedPath(
        path=shown(delta.path),
        old_path=shown(delta.of.old_file.raw_path) if status is ChangeStatus.RENAMED else None,
        status=status,
        old_blob_id=None if old is None else str(old.id),
        new_blob_id=None if new is None else str(new.id),
        old_mode=None if old is None else int(old.mode),
        new_mode=None if new is None else int(new.mode),
    )


def _file_diff(delta: _Delta, patches: Sequence[pygit2.Patch]) -> FileDiff:
    if any(patch.delta.is_binary for patch in patches):
        return FileDiff(_changed(delta), 0, 0, binary=True, patch="")
    additions = sum(patch.line_stats[1] for patch in patches)
    deletions = sum(patch.line_stats[2] for patch in patches)
    text = b"".join(_as_git_prints(patch.data) for patch in patches)
    return FileDiff(_changed(delta), additions, deletions, binary=False, patch=shown(text))


def _as_git_prints(patch: bytes) -> bytes:
    """The library's patch with its head as git has it.

    Git prints modes before a move, no file names where no lines follow (an empty file), and a tab after names with spaces.
    """
    head, names, rest = patch.partition(b"\n--- ")
    head = _MOVE_THEN_MODES.sub(rb"\2\1", head)
    if not names or b"\n@@ " not in rest:
        return head if not names else head + b"\n"
    old, _, rest = rest.partition(b"\n+++ ")
    new, _, lines = rest.partition(b"\n")
    return head + b"\n--- %s\n+++ %s\n%s" % (_name_in_patch(old), _name_in_patch(new), lines)


def _name_in_patch(name: bytes) -> bytes:
    return name + b"\t" if b" " in name else name
