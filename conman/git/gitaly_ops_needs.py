"""Which blobs a comparison, a merge or an export of trees will read: known from the trees alone, they come in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pygit2
from pygit2.enums import DeltaStatus, DiffOption

from conman.git.checks import MODE_SUBMODULE
from conman.git.local_diff import RENAME_LIMIT


class Side(StrEnum):
    """Which of the trees given has a blob."""

    OLD = "old"
    """The base of a merge, or what is compared from."""
    NEW = "new"
    """What is compared to, or the side of a merge that the result is written on."""
    OTHER = "other"
    """The side of a merge whose changes come in."""


Needs = dict[str, tuple[Side, bytes]]
"""Blob → the tree that has it, and its path there."""


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    path: bytes


@dataclass(frozen=True, slots=True)
class _Change:
    """One path that differs; a side without a file there, or with a submodule, has None."""

    status: DeltaStatus
    path: bytes
    old: _File | None
    new: _File | None


def to_compare(old: pygit2.Tree, new: pygit2.Tree, *, renames: bool, paths: Sequence[str] | None, patches: bool) -> Needs:
    """The blobs that a comparison reads: those that moves are searched in, and those that patches are made of."""
    wanted = None if paths is None else {path.encode("utf-8", "surrogateescape") for path in paths}
    changes = list(_changes(old, new))
    needs: Needs = {}
    for change in changes:
        if patches and (wanted is None or change.path in wanted):
            _add(needs, Side.OLD, change.old)
            _add(needs, Side.NEW, change.new)
    if renames:
        _add_searched(needs, changes, Side.NEW)
    return needs


def to_merge(base: pygit2.Tree, ours: pygit2.Tree, theirs: pygit2.Tree, *, everything: bool = False) -> Needs:
    """The blobs that a merge reads or writes into a tree; with `everything`, all of those that differ.

    Content is merged where both sides changed a path, or one moved what the other changed; moves are searched in what a side
    deleted and added; and what only their side changed goes into the tree, whose writer asks for each file.
    """
    ours_changes, theirs_changes = list(_changes(base, ours)), list(_changes(base, theirs))
    by_us, by_them = ({change.path for change in changes} for changes in (ours_changes, theirs_changes))
    needs: Needs = {}
    for change in theirs_changes:
        _add(needs, Side.OTHER, change.new)
        if everything or change.path in by_us:
            _add(needs, Side.OLD, change.old)
    for change in ours_changes:
        if everything or change.path in by_them:
            _add(needs, Side.NEW, change.new)
            _add(needs, Side.OLD, change.old)
    _add_searched(needs, ours_changes, Side.NEW)
    _add_searched(needs, theirs_changes, Side.OTHER)
    if everything or not all(map(_is_utf8, by_us | by_them)):
        # A tree with such a name is written whole.
        for side, tree in ((Side.NEW, ours), (Side.OTHER, theirs)):
            needs = {**of_tree(tree, side), **needs}
    return needs


def of_tree(tree: pygit2.Tree, side: Side = Side.NEW) -> Needs:
    """All blobs of a tree."""
    needs: Needs = {}
    pending = [(b"", tree)]
    while pending:
        prefix, folder = pending.pop()
        for item in folder:
            path = prefix + (item.raw_name or b"")
            if isinstance(item, pygit2.Tree):
                pending.append((path + b"/", item))
            elif int(item.filemode) != MODE_SUBMODULE:
                needs[str(item.id)] = (side, path)
    return needs


def _add_searched(needs: Needs, changes: Sequence[_Change], new_side: Side) -> None:
    """What a search for moves reads: all that was deleted and added, unless that is so much that only equal files count."""
    added = [change.new for change in changes if change.status in (DeltaStatus.ADDED, DeltaStatus.TYPECHANGE)]
    deleted = [change.old for change in changes if change.status in (DeltaStatus.DELETED, DeltaStatus.TYPECHANGE)]
    if added and deleted and max(len(added), len(deleted)) <= RENAME_LIMIT:
        for file in added:
            _add(needs, new_side, file)
        for file in deleted:
            _add(needs, Side.OLD, file)


def _add(needs: Needs, side: Side, file: _File | None) -> None:
    if file is not None:
        needs.setdefault(file.id, (side, file.path))


def _changes(old: pygit2.Tree, new: pygit2.Tree) -> Iterator[_Change]:
    for delta in old.diff_to_tree(new, DiffOption.INCLUDE_TYPECHANGE, 0, 0).deltas:
        before = None if delta.status == DeltaStatus.ADDED else _file(delta.old_file)
        after = None if delta.status == DeltaStatus.DELETED else _file(delta.new_file)
        side = delta.old_file if delta.status == DeltaStatus.DELETED else delta.new_file
        yield _Change(delta.status, side.raw_path, before, after)


def _file(file: pygit2.DiffFile) -> _File | None:
    return None if int(file.mode) == MODE_SUBMODULE else _File(str(file.id), file.raw_path)


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
