"""Edits of what is written by lines: entries that have their lines to themselves, and the comments above them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conman.domain.key_merge_rules import Gone, Sources, Within

_BLANKS = re.compile(r"[ \t]*")
_FIRST_BREAK = re.compile(r"[ \t]*\r?\n")
_LAST_BREAKS = re.compile(r"(?:\r?\n[ \t]*)+\Z")
_BLANK_LINE_LAST = re.compile(r"\n[ \t]*\r?\n[ \t]*\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """An entry: `body` is its text, None if it goes; `gap` is what stands before it.

    A gap runs from the end of an entry's last line over blank lines and comments to the next entry's place in its line; the
    first entry's is empty. `fresh`: the entry was not there before, its gap is needed only behind another entry.
    """

    gap: str
    body: str | None
    fresh: bool = False


def line_indent(text: str, at: int) -> str:
    """The blanks that the line of a place begins with."""
    start = text.rfind("\n", 0, at) + 1
    found = _BLANKS.match(text, start, max(start, at))
    return found[0] if found else ""


def shifted(piece: str, old: str, new: str, newline: str) -> str:
    """A piece of source text whose lines were indented by `old`, or by more, for lines indented by `new`."""
    if "\n" not in piece:
        return piece
    lines = piece.replace("\r\n", "\n").split("\n")
    return newline.join([lines[0], *(new + line[len(old) :] if line.startswith(old) else line for line in lines[1:])])


def moved(source: str, start: int, end: int, indent: str, newline: str) -> str:
    """The piece `source[start:end]` for a line with another indent than the one that it begins in."""
    piece = source[start:end]
    return shifted(piece, line_indent(source, start), indent, newline) if "\n" in piece else piece


def newline_of(sources: Sources) -> str:
    """The line end that a file uses, by the first one in ours; theirs decides where ours has none."""
    text = sources.ours if "\n" in sources.ours else sources.theirs
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


class Comments:
    """Which comments come and go with the keys below them: lines are compared without their blanks.

    A comment belongs to a key when it stands directly above it, at the same indent. It comes with an added key if ours has
    no such line, and goes with a removed key if base has the line and theirs has not.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._base: frozenset[str] | None = None
        self._ours: frozenset[str] = frozenset()
        self._theirs: frozenset[str] = frozenset()

    def _read(self) -> None:
        if self._base is None:
            self._base = _comment_lines(self._sources.base)
            self._ours = _comment_lines(self._sources.ours)
            self._theirs = _comment_lines(self._sources.theirs)

    def coming(self, source: str, at: int) -> list[str]:
        """The comments that come with the key which stands at a place of a source, without their indents."""
        start = attached(source, at)
        found = [line.strip() for line in source[start:at].split("\n")[:-1]]
        self._read()
        return [] if any(line in self._ours for line in found) else found

    def staying(self, gap: str) -> str:
        """What stands before a removed key (from a line end to its indent), without the comments that go with it."""
        lines = gap.split("\n")
        self._read()
        gone = self._base or frozenset()
        while len(lines) > 2 and lines[-2].startswith(f"{lines[-1]}#"):
            line = lines[-2].strip()
            if line not in gone or line in self._theirs:
                break
            del lines[-2]
        return "\n".join(lines)

    def above(self, text: str, within: Within) -> str:
        """What stands before a collection, without the comments that go with its first entry."""
        goes = bool(within.outcomes) and isinstance(within.outcomes[0], Gone) and not within.node.flow and within.node.head < 0
        return self.staying(f"\n{text}")[1:] if goes else text


def attached(text: str, at: int) -> int:
    """Where the comment lines begin that belong to the key at a place; the key's line if there are none."""
    start = text.rfind("\n", 0, at) + 1
    indent = text[start:at]
    while not indent.strip(" \t") and start:
        above = text.rfind("\n", 0, start - 1) + 1
        if not text.startswith(f"{indent}#", above):
            break
        start = above
    return start


def _comment_lines(text: str) -> frozenset[str]:
    return frozenset(line.strip() for line in text.split("\n") if line.lstrip().startswith("#"))


def assembled(pieces: Sequence[Piece], between: str, comments: Comments) -> str:
    """The text of entries that stand one below the other; nothing if none is left.

    `between` is the gap for a first entry that is not the first any more.
    """
    out: list[str] = []
    gap, removed = "", False
    for piece in pieces:
        if piece.fresh:
            out += [piece.gap if out else "", piece.body or ""]
            continue
        gap = _closed(comments.staying(gap), piece.gap, bool(out)) if removed else piece.gap
        removed = piece.body is None
        if piece.body is not None:
            out += [gap or (between if out else ""), piece.body]
    if removed and out:
        out.append(_LAST_BREAKS.sub("", comments.staying(gap)))
    return "".join(out)


def _closed(before: str, behind: str, started: bool) -> str:
    """The gap between the neighbours of a removed entry, of the gaps before and behind it."""
    if not before:
        return behind if started else behind.lstrip(" \t\r\n")
    rest = _FIRST_BREAK.sub("", behind, count=1)
    if _BLANK_LINE_LAST.search(before):
        rest = _FIRST_BREAK.sub("", rest, count=1) if _FIRST_BREAK.match(rest) else rest
    return before.rstrip(" \t") + rest
