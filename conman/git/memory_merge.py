"""Three-way merges in the in-memory adapter; the rules are those of `local_threeway`, the code is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from conman.git.adapter import Conflict, ConflictKind
from conman.git.checks import MODE_EXECUTABLE, MODE_FILE, conflict_kind, shown
from conman.git.memory_diff import moves
from conman.git.memory_objects import Files, Leaf, ObjectStore
from conman.git.memory_text import is_binary, merge_lines

_Side = TypeVar("_Side", Leaf, Leaf | None)
_REGULAR = (MODE_FILE, MODE_EXECUTABLE)


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge's outcome: the files when there are no conflicts."""

    files: Files
    conflicts: tuple[Conflict, ...]


def merge_files(store: ObjectStore, base: Files, ours: Files, theirs: Files) -> Merged:
    """Merge two sets of files that come from `base`."""
    merging = _Merge(store, base, ours, theirs)
    for path in base.keys() | ours.keys() | theirs.keys():
        merging.merge_path(path)
    merging.refuse_files_in_the_place_of_folders()
    merging.follow_moves()
    conflicts = tuple(merging.conflicts[path] for path in sorted(merging.conflicts))
    return Merged(merging.result, conflicts)


class _Merge:
    def __init__(self, store: ObjectStore, base: Files, ours: Files, theirs: Files) -> None:
        self._store = store
        self._base = base
        self._ours = ours
        self._theirs = theirs
        self._folders = _folders(ours) | _folders(theirs)
        self.result: Files = {}
        self.conflicts: dict[bytes, Conflict] = {}

    def merge_path(self, path: bytes) -> None:
        """The plain three-way rule for one path."""
        base, ours, theirs = self._base.get(path), self._ours.get(path), self._theirs.get(path)
        if ours == theirs or theirs == base:
            self._take(path, ours)
        elif ours == base:
            self._take(path, theirs)
        else:
            merged = self._merge_leaves(base, ours, theirs) if ours is not None and theirs is not None else None
            if merged is None:
                self._refuse(path, self._kind(path, base, ours, theirs), base, ours, theirs)
            else:
                self._take(path, merged)

    def refuse_files_in_the_place_of_folders(self) -> None:
        """A file that a side put where the merge still has a folder."""
        present = self.result.keys() | self.conflicts.keys()
        for path in sorted(present & _folders_of(present)):
            if path not in self.conflicts:
                self._refuse(path, ConflictKind.TYPE, *self._versions(path))

    def follow_moves(self) -> None:
        """See `local_threeway`."""
        of_ours = moves(self._store, self._base, self._ours, for_merge=True)
        of_theirs = moves(self._store, self._base, self._theirs, for_merge=True)
        for source in sorted(of_ours.keys() | of_theirs.keys()):
            to_ours, to_theirs = of_ours.get(source), of_theirs.get(source)
            if to_ours is not None and to_theirs is not None:
                self._moved_by_both(source, to_ours, to_theirs)
            elif to_ours is not None:
                self._moved_by_one(source, to_ours, self._ours, self._theirs)
            elif to_theirs is not None:
                self._moved_by_one(source, to_theirs, self._theirs, self._ours)

    def _moved_by_one(self, source: bytes, target: bytes, mover: Files, other: Files) -> None:
        base, moved, changed = self._base[source], mover[target], other.get(source)
        if changed == base or other.get(target) != self._base.get(target) or target in self.conflicts:
            return
        if changed is None:
            self._refuse(target, ConflictKind.RENAME, base, *self._in_order(mover, moved, None))
        elif source in self.conflicts and _type(changed) == _type(base):
            merged = self._merge_leaves(base, *self._in_order(mover, moved, changed))
            if merged is None:
                self._refuse(source, ConflictKind.RENAME, base, *self._in_order(mover, None, changed))
                self._refuse(target, ConflictKind.RENAME, base, *self._in_order(mover, moved, changed))
            else:
                del self.conflicts[source]
                self._take(target, merged)

    def _moved_by_both(self, source: bytes, to_ours: bytes, to_theirs: bytes) -> None:
        base = self._base[source]
        if to_ours == to_theirs:
            ours, theirs = self._ours[to_ours], self._theirs[to_ours]
            merged = self._merge_leaves(base, ours, theirs)
            if merged is None:
                self._refuse(to_ours, ConflictKind.CONTENT, base, ours, theirs)
            elif ours != theirs:
                self.conflicts.pop(to_ours, None)
                self._take(to_ours, merged)
            return
        if to_ours not in self.conflicts:
            self._refuse(to_ours, ConflictKind.RENAME, base, self._ours[to_ours], None)
        if to_theirs not in self.conflicts:
            self._refuse(to_theirs, ConflictKind.RENAME, base, None, self._theirs[to_theirs])

    def _in_order(self, mover: Files, moved: _Side, other: _Side) -> tuple[_Side, _Side]:
        """What the mover has and what the other side has, as ours and theirs."""
        return (moved, other) if mover is self._ours else (other, moved)

    def _merge_leaves(self, base: Leaf | None, ours: Leaf, theirs: Leaf) -> Leaf | None:
        """Two versions of a path merged, None when they conflict."""
        if ours == theirs:
            return ours
        if ours.mode not in _REGULAR or theirs.mode not in _REGULAR:
            # Links and submodules have no lines.
            return None
        if base is not None and base.mode not in _REGULAR:
            # Both sides put a file in the place of something else: git merges them as if both had added it.
            base = None
        if base is None and ours.mode != theirs.mode:
            return None
        contents = [self._store.blob(leaf.sha) for leaf in (ours, theirs)]
        if base is None and any(map(is_binary, contents)):
            # Without a base even an empty file counts as a change.
            return None
        text = merge_lines(
            b"" if base is None else self._store.blob(base.sha), self._store.blob(ours.sha), self._store.blob(theirs.sha)
        )
        if text is None:
            return None
        mode = theirs.mode if base is not None and ours.mode == base.mode else ours.mode
        return Leaf(mode, self._store.put("blob", text))

    def _versions(self, path: bytes) -> tuple[Leaf | None, Leaf | None, Leaf | None]:
        return self._base.get(path), self._ours.get(path), self._theirs.get(path)

    def _kind(self, path: bytes, base: Leaf | None, ours: Leaf | None, theirs: Leaf | None) -> ConflictKind:
        modes = [None if leaf is None else leaf.mode for leaf in (base, ours, theirs)]
        return conflict_kind(*modes, folder=path in self._folders)

    def _take(self, path: bytes, leaf: Leaf | None) -> None:
        if leaf is not None:
            self.result[path] = leaf

    def _refuse(self, path: bytes, kind: ConflictKind, base: Leaf | None, ours: Leaf | None, theirs: Leaf | None) -> None:
        ids = [None if leaf is None else leaf.sha for leaf in (base, ours, theirs)]
        self.conflicts[path] = Conflict(shown(path), kind, *ids)


def _type(leaf: Leaf) -> int:
    return MODE_FILE if leaf.mode in _REGULAR else leaf.mode


def _folders(files: Files) -> set[bytes]:
    return _folders_of(files.keys())


def _folders_of(paths) -> set[bytes]:
    found: set[bytes] = set()
    for path in paths:
        parts = path.split(b"/")
        found.update(b"/".join(parts[:length]) for length in range(1, len(parts)))
    return found
