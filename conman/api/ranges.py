"""Parts of a reply's body: one byte range, as RFC 9110 section 14 has it."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
_LONGEST_NUMBER = 18


class UnsatisfiableRangeError(Exception):
    """The range lies beyond the end."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and end (not included) of the bytes that a `Range` header asks for; None: the whole.

    What can't be read, other units and several ranges at once ask for the whole, as a server may choose. Raises
    `UnsatisfiableRangeError` for a range of which there is no byte.
    """
    found = _ONE_RANGE.fullmatch(header) if header is not None else None
    if found is None or max(len(found[1]), len(found[2])) > _LONGEST_NUMBER:
        return None
    first, last = found[1], found[2]
    if first:
        start, end = int(first), int(last) + 1 if last else size
        if end <= start and last:
            return None
    elif last:
        start, end = max(0, size - int(last)), size
        if int(last) == 0:
            raise UnsatisfiableRangeError
    else:
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return start, min(end, size)


def matches(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names the version that there is."""
    if header is None:
        return False
    given = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in given or etag in given
