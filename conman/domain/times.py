"""Times as Conman keeps and shows them: RFC 3339 UTC text with milliseconds and `Z` (`api.md` 1).

The fixed width makes text order equal time order, so that records can be sorted and compared without parsing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})")


def format_time(at: datetime) -> str:
    """`2026-01-31T09:30:00.000Z` for an aware datetime. Raises `ValueError` for a naive one."""
    if at.tzinfo is None:
        raise ValueError("a time needs its zone")
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_time(text: str) -> datetime:
    """The aware datetime of RFC 3339 text. Raises `ValueError` for anything else, or text without a zone."""
    if _RFC_3339.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a time; write it like 2026-01-31T09:30:00Z, with its zone")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is before the first or after the last year in UTC") from error


def milliseconds(text: str) -> int:
    """Whole milliseconds since 1970 of RFC 3339 text."""
    return (parse_time(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def later(text: str, delta: timedelta) -> str:
    """The time `delta` after `text`."""
    return format_time(parse_time(text) + delta)


def utc_day(text: str) -> str:
    """`2026.01.31`, the UTC day of a time as release tags name it (`spec.md` 11)."""
    return parse_time(text).strftime("%Y.%m.%d")
