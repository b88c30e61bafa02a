"""Comparing two sets of files in the in-memory adapter."""

from __future__ import annotations

import re
from dataclasses import replace

from conman.git.adapter import ChangedPath, ChangeStatus, FileDiff
from conman.git.checks import MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, shown
from conman.git.memory_objects import Files, Leaf, ObjectStore
from conman.git.memory_text import is_binary, similarity, unified

_SIMILAR = 50
"""Percent from which two files are one that moved."""
_TO_QUOTE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_ESCAPES = {b'"': b'\\"', b"\\": b"\\\\", b"\a": b"\\a", b"\b": b"\\b", b"\t": b"\\t", b"\n": b"\\n"}
_ESCAPES |= {b"\v": b"\\v", b"\f": b"\\f", b"\r": b"\\r"}
_REGULAR = (MODE_FILE, MODE_EXECUTABLE)


def changed(store: ObjectStore, old: Files, new: Files, *, renames: bool) -> list[tuple[bytes, bytes | None, ChangedPath]]:
    """The path, the former path when moved, and the change, sorted by path."""
    moved = moves(store, old, new) if renames else {}
    sources = {target: source for source, target in moved.items()}
    found: list[tuple[bytes, bytes | None, ChangedPath]] = []
    for path in sorted(old.keys() | new.keys()):
        if path in moved and path not in new:
            continue
        before = old.get(sources.get(path, path))
        after = new.get(path)
        if before != after or path in sources:
            found.append((path, sources.get(path), _change(path, sources.get(path), before, after)))
    return found


def file_diff(store: ObjectStore, path: bytes, old_path: bytes | None, change: ChangedPath, context: int) -> FileDiff:
    """A change with its patch in git's format."""
    old = _content(store, change.old_blob_id, change.old_mode)
    new = _content(store, change.new_blob_id, change.new_mode)
    if is_binary(old) or is_binary(new):
        return FileDiff(change, 0, 0, binary=True, patch="")
    if change.status is ChangeStatus.TYPE_CHANGED:
        # Git prints the deletion of one file and the addition of another.
        gone = replace(change, status=ChangeStatus.DELETED, new_blob_id=None, new_mode=None)
        come = replace(change, status=ChangeStatus.ADDED, old_blob_id=None, old_mode=None)
        first, second = (file_diff(store, path, None, part, context) for part in (gone, come))
        return FileDiff(change, second.additions, first.deletions, binary=False, patch=first.patch + second.patch)
    additions, deletions, hunks = unified(old, new, context)
    return FileDiff(change, additions, deletions, binary=False, patch=shown(_header(path, old_path, change, old, new) + hunks))


def moves(store: ObjectStore, old: Files, new: Files, *, for_merge: bool = False) -> dict[bytes, bytes]:
    """Where regular files that are gone went: former path → path. Equal content first, then the most similar.

    For a merge, empty files don't count: all of them are alike.
    """
    gone = {path: leaf for path, leaf in old.items() if path not in new and leaf.mode in _REGULAR}
    come = {path: leaf for path, leaf in new.items() if path not in old and leaf.mode in _REGULAR}
    if for_merge:
        gone = {path: leaf for path, leaf in gone.items() if store.blob(leaf.sha)}
    scores: list[tuple[int, bytes, bytes]] = []
    for target, after in come.items():
        for source, before in gone.items():
            equal = before.sha == after.sha
            score = 100 if equal else similarity(store.blob(before.sha), store.blob(after.sha))
            if score >= _SIMILAR:
                scores.append((-score - equal, target, source))
    found: dict[bytes, bytes] = {}
    taken: set[bytes] = set()
    for _, target, source in sorted(scores):
        if source not in found and target not in taken:
            found[source] = target
            taken.add(target)
    return found


def _change(path: bytes, old_path: bytes | None, before: Leaf | None, after: Leaf | None) -> ChangedPath:
    if before is None:
        status = ChangeStatus.ADDED
    elif after is None:
        status = ChangeStatus.DELETED
    elif old_path is not None:
        status = ChangeStatus.RENAMED
    elif before.mode != after.mode and not {before.mode, after.mode} <= set(_REGULAR):
        status = ChangeStatus.TYPE_CHANGED
    else:
        status = ChangeStatus.MODIFIED
    return ChangedPath(
        path=shown(path),
        old_path=None if old_path is None else shown(old_path),
        status=status,
        old_blob_id=None if before is None else before.sha,
        new_blob_id=None if after is None else after.sha,
        old_mode=None if before is None else before.mode,
        new_mode=None if after is None else after.mode,
    )


def _content(store: ObjectStore, blob_id: str | None, mode: int | None) -> bytes:
    if blob_id is None:
        return b""
    return f"Subproject commit {blob_id}\n".encode() if mode == MODE_SUBMODULE else store.blob(blob_id)


def _header(path: bytes, old_path: bytes | None, change: ChangedPath, old: bytes, new: bytes) -> bytes:
    before = _quoted(b"a/" + (old_path or path))
    after = _quoted(b"b/" + path)
    lines = [b"diff --git %s %s" % (before, after)]
    if change.old_mode is None:
        lines.append(b"new file mode %o" % (change.new_mode or 0))
    elif change.new_mode is None:
        lines.append(b"deleted file mode %o" % change.old_mode)
    elif change.old_mode != change.new_mode:
        lines += [b"old mode %o" % change.old_mode, b"new mode %o" % change.new_mode]
    if old_path is not None:
        percent = 100 if change.old_blob_id == change.new_blob_id else similarity(old, new)
        lines.append(b"similarity index %d%%" % percent)
        lines += [b"rename from " + _quoted(old_path), b"rename to " + _quoted(path)]
    if change.old_blob_id != change.new_blob_id:
        ids = [(blob_id or "0" * 40)[:7].encode() for blob_id in (change.old_blob_id, change.new_blob_id)]
        same_mode = change.old_mode == change.new_mode
        lines.append(b"index %s..%s" % (ids[0], ids[1]) + (b" %o" % (change.new_mode or 0) if same_mode else b""))
        if old != new:
            lines.append(b"--- " + (b"/dev/null" if change.old_mode is None else before + _tab(before)))
            lines.append(b"+++ " + (b"/dev/null" if change.new_mode is None else after + _tab(after)))
    return b"\n".join(lines) + b"\n"


def _tab(name: bytes) -> bytes:
    """What git ends a name with in a patch."""
    return b"\t" if b" " in name else b""


def _quoted(path: bytes) -> bytes:
    """A path as git prints it: in quotes, with C's escapes, when it has control characters, quotes or anything but ASCII."""
    if not _TO_QUOTE.search(path):
        return path
    return b'"%s"' % _TO_QUOTE.sub(lambda match: _ESCAPES.get(match[0]) or b"\\%03o" % match[0][0], path)
