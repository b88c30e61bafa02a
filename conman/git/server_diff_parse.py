"""Reading what `git diff --raw --patch -z` prints, and Gitaly's limits on what is sent of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_call import ZERO_SHA

RAW_AND_PATCH = ("-z", "--raw", "--patch", "--full-index", "--abbrev=40")
"""The options of `git diff` for what is read here; with `core.quotePath=false`, so that only few names are quoted."""

_HEAD = b"diff --git "
_NEEDS_QUOTES = re.compile(rb'[\x00-\x1f\x7f"\\]')
_ESCAPES = {7: b"a", 8: b"b", 9: b"t", 10: b"n", 11: b"v", 12: b"f", 13: b"r", 34: b'"', 92: b"\\"}


@dataclass(frozen=True, slots=True)
class RawChange:
    """One line of the raw format: a path that differs, with modes and ids of both sides (zeros where it is not)."""

    old_mode: int
    new_mode: int
    old_id: str
    new_id: str
    letter: str
    """A, C, D, M, R or T."""
    score: int
    """Similarity of a move or copy, percent."""
    old_path: bytes
    path: bytes

    def parts(self) -> list[RawChange]:
        """A change of type as Git prints its patch: a deletion, then an addition; any other as it is."""
        if self.letter != "T":
            return [self]
        deleted = replace(self, new_mode=0, new_id=ZERO_SHA, letter="D")
        return [deleted, replace(self, old_mode=0, old_id=ZERO_SHA, letter="A")]

    @property
    def heading(self) -> bytes:
        """The first line of its patch."""
        return b"%s%s %s\n" % (_HEAD, _quoted(b"a/" + self.old_path), _quoted(b"b/" + self.path))


@dataclass(frozen=True, slots=True)
class FilePatch:
    """A change with the body of its patch: the hunks, or the line that says that a binary file differs."""

    change: RawChange
    body: bytes
    added: int = 0
    removed: int = 0
    binary: bool = False
    collapsed: bool = False
    too_large: bool = False
    overflow: bool = False

    @property
    def lines(self) -> int:
        """Lines of the body but for the hunks' heads, as the limits count them."""
        return sum(not line.startswith(b"@@") for line in self.body.splitlines())


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a comparison is sent. Beyond the safe ones patches are left out, at the others the answer ends."""

    enforce: bool
    collapse: bool
    files: int
    lines: int
    bytes: int
    safe_files: int
    safe_lines: int
    safe_bytes: int
    patch_bytes: int
    patch_bytes_by_extension: dict[str, int]
    all_paths: bool
    """Go on without patches where the answer would end."""

    @classmethod
    def of(cls, request: pb.CommitDiffRequest) -> Limits:
        """The limits of a request."""
        return cls(
            enforce=request.enforce_limits,
            collapse=request.collapse_diffs,
            files=request.max_files,
            lines=request.max_lines,
            bytes=request.max_bytes,
            safe_files=request.safe_max_files,
            safe_lines=request.safe_max_lines,
            safe_bytes=request.safe_max_bytes,
            patch_bytes=request.max_patch_bytes,
            patch_bytes_by_extension=dict(request.max_patch_bytes_for_file_extension),
            all_paths=request.collect_all_paths,
        )

    def patch_limit(self, path: bytes) -> int:
        """How long the patch of a file may be."""
        name = PurePosixPath(path.decode("utf-8", "replace"))
        return self.patch_bytes_by_extension.get(name.suffix or name.name, self.patch_bytes)


def parse_raw(printed: bytes) -> tuple[list[RawChange], bytes]:
    """The changes of the raw format with NUL between its fields, and what is printed after it."""
    changes: list[RawChange] = []
    rest = printed
    while rest.startswith(b":"):
        head, rest = rest.split(b"\0", 1)
        old_mode, new_mode, old_id, new_id, status = head[1:].decode().split(" ")
        old_path, rest = rest.split(b"\0", 1)
        path = old_path
        if status[0] in "CR":
            path, rest = rest.split(b"\0", 1)
        modes = int(old_mode, 8), int(new_mode, 8)
        changes.append(RawChange(*modes, old_id, new_id, status[0], int(status[1:] or 0), old_path, path))
    return changes, rest.removeprefix(b"\0")


def parse_patches(printed: bytes) -> list[FilePatch]:
    """All changes with their patches; one whose patch is left out (white space alone differs) has an empty body."""
    changes, rest = parse_raw(printed)
    sections = list(_sections(rest))
    found: list[FilePatch] = []
    for part in (part for change in changes for part in change.parts()):
        printed_part = bool(sections) and sections[0].startswith(part.heading)
        found.append(_patch(part, sections.pop(0) if printed_part else b""))
    return found


def limited(patches: Sequence[FilePatch], limits: Limits) -> Iterator[FilePatch]:
    """The patches that a caller with limits gets, in Gitaly's way: collapsed, marked too large, or ended by a marker."""
    lines = size = 0
    over = False
    for files, patch in enumerate(patches, start=1):
        sent = replace(patch, body=b"") if over else patch
        lines, size = lines + sent.lines, size + len(sent.body)
        unsafe = files > limits.safe_files or lines > limits.safe_lines or size > limits.safe_bytes
        if limits.collapse and unsafe and sent.body:
            lines, size = lines - sent.lines, size - len(sent.body)
            sent = replace(sent, body=b"", collapsed=True)
        if limits.enforce:
            if len(sent.body) >= limits.patch_limit(patch.change.path) and sent.body:
                lines, size = lines - sent.lines, size - len(sent.body)
                sent = replace(sent, body=b"", too_large=True)
            if files > limits.files or lines >= limits.lines or size >= limits.bytes:
                if not limits.all_paths:
                    yield replace(sent, body=b"", overflow=True)
                    return
                over = True
                sent = replace(sent, body=b"")
        yield sent


def _quoted(name: bytes) -> bytes:
    """A name as Git prints it in a patch: in quotes, with escapes, when there are characters in it that need them."""
    if not _NEEDS_QUOTES.search(name):
        return name
    return b'"%s"' % _NEEDS_QUOTES.sub(lambda found: b"\\" + _ESCAPES.get(found[0][0], b"%03o" % found[0][0]), name)


def _sections(printed: bytes) -> Iterator[bytes]:
    """The patches one by one: no line of a hunk begins as the head of a patch does."""
    start = 0
    while start < len(printed):
        following = printed.find(b"\n" + _HEAD, start)
        end = len(printed) if following < 0 else following + 1
        yield printed[start:end]
        start = end


def _patch(change: RawChange, section: bytes) -> FilePatch:
    at = section.find(b"\n@@ ")
    if at < 0:
        binary = section.find(b"\nBinary files ")
        return FilePatch(change, b"" if binary < 0 else section[binary + 1 :], binary=binary >= 0)
    body = section[at + 1 :]
    lines = body.split(b"\n")
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in (b"+", b"-"))
    return FilePatch(change, body, added, removed)
