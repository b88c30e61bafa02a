"""Text of people's own, made fit to stand among somebody else's words."""

from __future__ import annotations

import unicodedata

_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NO_TEXT = ("Cc", "Zl", "Zp", "Cs")


def plain_line(text: str) -> str:
    """The text in one line: no control characters, nothing that reverses its direction, white space as single spaces."""
    kept = "".join(" " if unicodedata.category(c) in _NO_TEXT else c for c in text if c not in _BIDI_CONTROLS)
    return " ".join(kept.split())


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis, at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
