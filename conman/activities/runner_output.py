"""A suite's output on its way to the job's log: cut into lines, scrubbed of secrets, capped (`spec.md` 6 and 9)."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast
from urllib.parse import quote, quote_plus

LINE_BYTES = 8192
"""The longest line that is kept in one piece, bytes; a longer one comes in several."""

MASK = b"****"

SHORTEST_SECRET_LINE = 6
"""Of a secret with several lines, each line of at least so many characters is scrubbed by itself too. And only a text of at least
so many bytes is looked for in base64, where a shorter one would be found by chance."""

_URL_SAFE = str.maketrans("+/", "-_")

TRUNCATED = "output truncated: the limit of {} bytes is reached, the command goes on"


class Stream(StrEnum):
    """Where a line comes from; `system` is Conman itself."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line of output. `seq` counts from 1 over all streams, `at` is UTC, `text` has no line end."""

    seq: int
    at: datetime
    stream: Stream
    text: str


OnLine = Callable[[OutputLine], Awaitable[None]]
"""Takes the lines one at a time, in the order of `seq`; the command waits when it is slow."""


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


class LineSink:
    """Takes the bytes of both streams and hands lines on, until the cap is reached.

    A line is handed on when its end has come. Of a line longer than `LINE_BYTES` pieces go earlier, except for as
    many bytes as the longest secret has: a value is whole when it is looked for, however its bytes came.
    """

    def __init__(self, on_line: OnLine, redactor: Redactor, cap_bytes: int) -> None:
        self._on_line = on_line
        self._redactor = redactor
        self._cap = cap_bytes
        self._kept = 0
        self._pending = {Stream.STDOUT: b"", Stream.STDERR: b""}
        self._lock = asyncio.Lock()
        self.lines = 0
        self.truncated = False
        self.received = 0
        self.busy = False

    async def feed(self, stream: Stream, data: bytes) -> None:
        """Take bytes as they came. Raises what `on_line` raises."""
        self.received += len(data)
        if self.truncated:
            return
        *ended, rest = (self._pending[stream] + data).split(b"\n")
        for line in ended:
            await self._hand_on(stream, self._redactor.scrub(line.removesuffix(b"\r")))
        room = LINE_BYTES + self._redactor.longest
        if len(rest) > room:
            rest = self._redactor.scrub(rest)
        while len(rest) > room:
            cut = _cut(rest)
            await self._put(stream, rest[:cut])
            rest = rest[cut:]
        self._pending[stream] = rest

    async def finish(self, stream: Stream) -> None:
        """Hand on a last line that has no end. Raises what `on_line` raises."""
        rest, self._pending[stream] = self._pending[stream], b""
        if rest:
            await self._hand_on(stream, self._redactor.scrub(rest.removesuffix(b"\r")))

    async def note(self, text: str) -> None:
        """Add a line of Conman's own; it does not count for the cap. Raises what `on_line` raises."""
        async with self._lock:
            await self._deliver(Stream.SYSTEM, text)

    async def _hand_on(self, stream: Stream, line: bytes) -> None:
        while len(line) > LINE_BYTES:
            cut = _cut(line)
            await self._put(stream, line[:cut])
            line = line[cut:]
        await self._put(stream, line)

    async def _put(self, stream: Stream, line: bytes) -> None:
        async with self._lock:
            if self.truncated:
                return
            if self._kept + len(line) + 1 > self._cap:
                self.truncated = True
                self._pending = dict.fromkeys(self._pending, b"")
                await self._deliver(Stream.SYSTEM, TRUNCATED.format(self._cap))
                return
            self._kept += len(line) + 1
            await self._deliver(stream, line.decode(errors="replace"))

    async def _deliver(self, stream: Stream, text: str) -> None:
        self.lines += 1
        self.busy = True
        try:
            await self._on_line(OutputLine(self.lines, datetime.now(UTC), stream, text))
        finally:
            self.busy = False


def _cut(line: bytes) -> int:
    """Where to cut a long line: at `LINE_BYTES`, or a little before it so that no character is torn apart."""
    for cut in range(LINE_BYTES, LINE_BYTES - 4, -1):
        if line[cut] & 0xC0 != 0x80:
            return cut
    return LINE_BYTES
