"""The lines of a unified patch, with their numbers in both versions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")


@dataclass(frozen=True, slots=True)
class PatchLine:
    """One line of a hunk. `old` and `new` are its numbers, from 1, in the versions that have it; `text` is without the sign."""

    old: int | None
    new: int | None
    text: str

    @property
    def sign(self) -> str:
        """`+`, `-`, or a blank for a line that both versions have."""
        if self.old is None:
            return "+"
        return "-" if self.new is None else " "


def hunks(patch: str) -> Iterator[tuple[str, list[PatchLine]]]:
    """The header and the lines of each hunk.

    A hunk ends with the counts of its header, so that a changed line which looks like a header (`--- a`) stays a line.
    """
    lines = iter(patch.split("\n"))
    for line in lines:
        match = _HUNK.match(line)
        if match is None:
            continue
        old, new = int(match[1]), int(match[3])
        old_end = old + (1 if match[2] is None else int(match[2]))
        new_end = new + (1 if match[4] is None else int(match[4]))
        found: list[PatchLine] = []
        while (old < old_end or new < new_end) and (text := next(lines, None)) is not None:
            sign = text[:1]
            if sign == "\\":  # "\ No newline at end of file"
                continue
            has_old, has_new = sign != "+", sign != "-"
            found.append(PatchLine(old if has_old else None, new if has_new else None, text[1:]))
            old, new = old + has_old, new + has_new
        yield match[0], found


def added_lines(patch: str) -> frozenset[int]:
    """The numbers of the lines that the new version got."""
    return frozenset(line.new for _, lines in hunks(patch) for line in lines if line.old is None and line.new is not None)
