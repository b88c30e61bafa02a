"""Running the `git` program on a repository for a call: nothing of the machine's settings, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc

from conman.git.server_call import CHUNK_BYTES, Ground, Refused

TERM_SECONDS = 2.0
"""How long `git` has after SIGTERM to remove its temporary files and locks before it is killed."""
FINISH_SECONDS = 10.0
"""How long a push may go on after its call was cancelled: it moves several refs one after another, and is not to be stopped
between two of them. One that is not whole ends at once, as its input does."""
_SHOWN_ERROR_BYTES = 2000

_SETTINGS = {
    # A repository below the storage root is served whoever owns its files, as the in-process calls do.
    "safe.directory": "*",
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    # What was acknowledged survives a loss of power, as with the in-process calls.
    "core.fsync": "committed,loose-object,reference",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "receive.autogc": "false",
    "receive.advertiseAtomic": "true",
    "receive.denyDeletes": "false",
    "receive.denyDeleteCurrent": "ignore",
    "receive.denyNonFastForwards": "false",
    "receive.fsckObjects": "true",
    "uploadpack.allowAnySHA1InWant": "true",
    "uploadpack.allowFilter": "true",
}


def environment(protocol: str = "") -> dict[str, str]:
    """The variables that `git` runs with: no settings of the system or a user, no prompt, plain English messages."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    settings = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1"}
    given = {"GIT_PROTOCOL": protocol} if protocol else {}
    return kept | settings | given | {"HOME": "/nonexistent", "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


class GitProcess:
    """A running `git`: feed it, read it; `running_git` ends it."""

    def __init__(self, process: Process, *, finishes: bool) -> None:
        self._process = process
        self._said = asyncio.ensure_future(_tail(_stream(process.stderr)))
        self._finishes = finishes

    async def write(self, data: bytes) -> None:
        """Hand over input; what it no longer wants to read is dropped."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(ConnectionError):
            stdin.write(data)
            await stdin.drain()

    def close_input(self) -> None:
        """Say that the input is complete."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What it writes, in pieces, to its end. Raises `Refused` with INTERNAL when it failed."""
        stdout = _stream(self._process.stdout)
        while piece := await stdout.read(CHUNK_BYTES):
            yield piece
        code = await self._process.wait()
        if code != 0:
            said = (await self._said).decode("utf-8", "replace").strip()
            raise Refused(grpc.StatusCode.INTERNAL, f"git ended with {code}: {said}")

    async def end(self) -> None:
        """Have it end, with all that it started: by itself when it may, else by SIGTERM, else by SIGKILL."""
        if self._finishes and self._process.returncode is None:
            self.close_input()
            await self._wait(FINISH_SECONDS)
        for number, patience in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, None)):
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                await self._wait(patience)
        self._said.cancel()

    async def _wait(self, patience: float | None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._drained(), patience)

    async def _drained(self) -> None:
        """Wait for the end while its output is thrown away: a full pipe would keep it from ending."""
        stdout = _stream(self._process.stdout)
        while await stdout.read(CHUNK_BYTES):
            pass
        await self._process.wait()


@asynccontextmanager
async def running_git(
    ground: Ground, folder: Path, *arguments: str, protocol: str = "", stdin: bool = False, finishes: bool = False
) -> AsyncIterator[GitProcess]:
    """A process of `git` in a repository; at the end of the block it has ended, and so has all that it started.

    One that `finishes` is told that its input ends, and may then come to an end by itself, before it is stopped.
    """
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    async with ground.processes:
        started = await asyncio.create_subprocess_exec(
            "git",
            *settings,
            *arguments,
            cwd=folder,
            env=environment(protocol),
            stdin=PIPE if stdin else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        process = GitProcess(started, finishes=finishes)
        try:
            yield process
        finally:
            # A cancelled call still waits here for its process: nothing is left running, and nothing unreaped.
            await asyncio.shield(process.end())


async def git_output(ground: Ground, folder: Path, *arguments: str) -> bytes:
    """All that a command of `git` writes. Raises `Refused` with INTERNAL when it failed."""
    async with running_git(ground, folder, *arguments) as process:
        return b"".join([piece async for piece in process.pieces()])


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    assert stream is not None
    return stream


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """The end of what is written to a stream."""
    kept = b""
    while piece := await stream.read(CHUNK_BYTES):
        kept = (kept + piece)[-_SHOWN_ERROR_BYTES:]
    return kept
