"""A suite's output on its way to the job's log: cut into lines, scrubbed of secrets, capped (`spec.md` 6 and 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from conman.domain.redaction import Redactor

LINE_BYTES = 8192
"""The longest line that is kept in one piece, bytes; a longer one comes in several."""

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
