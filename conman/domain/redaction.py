"""Known secret values taken out of texts, however programs write them (`spec.md` 6)."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast
from urllib.parse import quote, quote_plus

MASK = b"****"

SHORTEST_SECRET_LINE = 6
"""Of a secret with several lines, each line of at least so many characters is scrubbed by itself too. And only a text of at least
so many bytes is looked for in base64, where a shorter one would be found by chance."""

_URL_SAFE = str.maketrans("+/", "-_")


class Redactor:
    """Replaces secret values by `****`, also as JSON, URLs, shells, HTML and base64 write them (`spec.md` 6)."""

    def __init__(self, values: Sequence[str]) -> None:
        spellings: set[bytes] = set()
        for value in values:
            lines = [line for line in value.splitlines() if len(line) >= SHORTEST_SECRET_LINE]
            for text in (value.strip("\r\n"), *lines):
                spellings.update(spelling.encode(errors="replace") for spelling in _spellings(text))
        ordered = sorted(spellings - {b""}, key=lambda spelling: (-len(spelling), spelling))
        self.longest = len(ordered[0]) if ordered else 0
        self._pattern = re.compile(b"|".join(re.escape(s) for s in ordered)) if ordered else None

    def scrub(self, data: bytes) -> bytes:
        """The same bytes without any of the values."""
        return self._pattern.sub(MASK, data) if self._pattern else data

    def scrub_text(self, text: str) -> str:
        """The same text without any of the values."""
        return self.scrub(text.encode(errors="replace")).decode()

    def scrub_json(self, value: Any) -> Any:
        """The same JSON value without any of the values in its texts and names, and where a number is one of them."""
        match value:
            case str():
                return self.scrub_text(value)
            case list():
                return [self.scrub_json(item) for item in cast("list[Any]", value)]
            case dict():
                return {self.scrub_text(name): self.scrub_json(item) for name, item in cast("dict[str, Any]", value).items()}
            case bool() | None:
                return value
            case _:
                return MASK.decode() if self._pattern and self._pattern.fullmatch(json.dumps(value).encode()) else value


def _spellings(text: str) -> Iterator[str]:
    """How programs write a text that they were given."""
    yield text
    for quoted in (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text)):
        yield quoted[1:-1]
    for apostrophe in ("'\\''", "'\"'\"'"):  # How shells end a quote, write it, and go on.
        yield text.replace("'", apostrophe)
    yield html.escape(text)
    yield html.escape(text, quote=False)
    for safe in ("", "/"):
        yield quote(text, safe=safe, errors="replace")
    yield quote_plus(text, errors="replace")
    yield from _in_base64(text.encode(errors="replace"))


def _in_base64(data: bytes) -> Iterator[str]:
    """The base64 of the bytes, alone and within that of something longer, wherever they begin there."""
    if len(data) < SHORTEST_SECRET_LINE:
        return
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        first = (0, 2, 3)[before]  # Earlier characters also hold bits of what stands before.
        last = (before + len(data)) * 8 // 6  # Later ones also hold bits of what stands after.
        inner = encoded[first:last].decode()
        yield inner
        yield inner.translate(_URL_SAFE)
