"""Lines in the in-memory adapter: differences, similarity, and the merge of three versions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pygit2
from pygit2.enums import DiffOption

_BINARY_SEARCHED = 8000
"""Bytes at a file's start in which a NUL makes it binary, as in git."""
_LONGEST_RUN = 80
"""Bytes of a line that count as one piece of content when files are compared for similarity."""


@dataclass(frozen=True, slots=True)
class _Hunk:
    """Lines `start` to `end` of the base become `lines`; `start` == `end` is an insertion before line `start`."""

    start: int
    end: int
    lines: tuple[bytes, ...]


def is_binary(data: bytes) -> bool:
    """Whether git takes the content for binary."""
    return b"\0" in data[:_BINARY_SEARCHED]


def split_lines(data: bytes) -> list[bytes]:
    """Lines with their ends; only a line feed ends one."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def unified(old: bytes, new: bytes, context: int) -> tuple[int, int, bytes]:
    """Lines added, lines deleted, and the hunks of the unified diff."""
    patch = pygit2.Patch.create_from(old, new, flag=DiffOption.FORCE_TEXT, context_lines=context)
    _, additions, deletions = patch.line_stats
    start = patch.data.find(b"\n@@ ")
    return additions, deletions, patch.data[start + 1 :] if start >= 0 else b""


def similarity(one: bytes, two: bytes) -> int:
    """Percent of content that two files have in common, by their lines; 0 when either has none."""
    pieces, others = _pieces(one), _pieces(two)
    if not pieces or not others:
        return 0
    return 200 * (pieces & others).total() // (pieces.total() + others.total())


def merge_lines(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """The three versions merged, None when both sides changed the same or touching lines differently."""
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if is_binary(base) or is_binary(ours) or is_binary(theirs):
        return None
    lines = split_lines(base)
    changes = sorted(
        [(hunk, 0) for hunk in _hunks(base, ours)] + [(hunk, 1) for hunk in _hunks(base, theirs)],
        key=lambda change: (change[0].start, change[0].end),
    )
    merged: list[bytes] = []
    done = 0
    while changes:
        start, end = changes[0][0].start, changes[0][0].end
        sides: tuple[list[_Hunk], list[_Hunk]] = ([], [])
        while changes and changes[0][0].start <= end:
            hunk, side = changes.pop(0)
            sides[side].append(hunk)
            end = max(end, hunk.end)
        merged += lines[done:start]
        results = [_applied(lines, start, end, hunks) for hunks in sides if hunks]
        if len(results) == 2 and results[0] != results[1]:
            return None
        merged += results[0]
        done = end
    return b"".join(merged + lines[done:])


def _pieces(data: bytes) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for line in data.replace(b"\0", b"\n").split(b"\n"):
        text = line.strip()
        found.update(text[start : start + _LONGEST_RUN] for start in range(0, len(text), _LONGEST_RUN))
    return found


def _hunks(old: bytes, new: bytes) -> list[_Hunk]:
    patch = pygit2.Patch.create_from(old, new, flag=DiffOption.FORCE_TEXT, context_lines=0)
    lines = split_lines(new)
    found: list[_Hunk] = []
    for hunk in patch.hunks:
        # A hunk without old (or new) lines names the line before it, one with lines its first line, counted from 1.
        start = hunk.old_start - (1 if hunk.old_lines else 0)
        first = hunk.new_start - (1 if hunk.new_lines else 0)
        found.append(_Hunk(start, start + hunk.old_lines, tuple(lines[first : first + hunk.new_lines])))
    return found


def _applied(lines: list[bytes], start: int, end: int, hunks: list[_Hunk]) -> list[bytes]:
    """The base's lines `start` to `end` with one side's hunks applied."""
    result: list[bytes] = []
    for hunk in hunks:
        result += lines[start : hunk.start]
        result += hunk.lines
        start = hunk.end
    return result + lines[start:end]
