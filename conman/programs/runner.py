"""Runs one suite command and tells how it ended (`spec.md` 9, `durability.md` 16).

The command runs below a guard (`conman.programs.guard`), in a process group and session away from the
worker's. Whatever happens (a normal end, a timeout, a cancel, an exception here, `kill -9` of the worker) no
process of it stays behind.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from conman.domain.jobs import ReasonCode
from conman.domain.redaction import Redactor
from conman.programs import guard
from conman.programs.runner_output import LineSink, OnLine, OutputLine, Stream

__all__ = ["CommandSpec", "OnLine", "OutputLine", "RunResult", "Stream", "run_command"]

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
"""The variables of the worker that a command gets when `CommandSpec.env` does not set them; no others."""

GUARD_MARGIN_SECONDS = 10.0
"""How much longer than the grace the guard may take to end everything before the runner does it, seconds."""

SILENCE_SECONDS = 5.0
"""How long an output pipe that somebody still holds may stay silent after the command's end, seconds."""

FULL_DISK_BYTES = 1_048_576
"""A failed command whose folder has less free space than this failed for want of it, bytes."""

NOT_STARTED = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.E2BIG,
        errno.EINVAL,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ETXTBSY,
    }
)
"""Start errors that the command itself is to blame for; all others are the machine's."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """What to run, with which limits.

    `argv` is no shell line; the program is looked up in `env`'s PATH or relative to `cwd`. `env` is all that the
    command sees, besides `INHERITED`. `cpu_seconds` and `memory_bytes` (address space) hold for each process of
    it. `timeout_seconds` is wall time from the start. `output_bytes` is what is kept of both streams together.
    After a timeout or cancel the group has `kill_grace_seconds` between SIGTERM and SIGKILL. Each value of
    `redact` is replaced in the output; a value so short that it occurs by chance (`1`) blanks that too.
    `stdin` is what the command reads from its standard input, None for nothing.
    Raises `ValueError` for an empty `argv`, or a limit that is not positive (the grace may be 0).
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    timeout_seconds: float
    cpu_seconds: int
    memory_bytes: int
    output_bytes: int
    kill_grace_seconds: float = 5.0
    redact: Sequence[str] = field(default=(), repr=False)
    stdin: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs at least the name of a program")
        limits = (self.timeout_seconds, self.cpu_seconds, self.memory_bytes, self.output_bytes)
        if min(limits) <= 0 or self.kill_grace_seconds < 0:
            raise ValueError("every limit of a command is above 0")


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended.

    One of `exit_code` and `signal` is set when it ran. `reason` is ok, tests_failed, timeout (wall or CPU time),
    canceled, runner_error or infrastructure; `message` says in a sentence what the last four mean (it is also
    the last line of the output), and is empty for the first two. `lines` counts what `on_line` was given.
    Times are UTC.
    """

    exit_code: int | None
    signal: int | None
    reason: ReasonCode
    message: str
    started_at: datetime
    finished_at: datetime
    duration_seconds: float
    output_truncated: bool
    lines: int


async def run_command(
    spec: CommandSpec, on_line: OnLine, cancel: asyncio.Event, *, on_answer: Callable[[bytes], None] | None = None
) -> RunResult:
    """Run the command to its end, its timeout, or until `cancel` is set.

    Every way out leaves no process of it. `on_line` is called with one line at a time. While it waits, a command
    that goes on writing waits too; timeout and cancel still end the command, but this call returns only after
    all lines are handed on: `on_line` needs a deadline of its own. What it raises ends the command and is
    raised here; the same holds for a cancellation of this coroutine. All other failures are results.

    With `on_answer` the standard output is no log but an answer to Conman: its bytes go there as they come, unscrubbed and
    uncounted. What it raises ends the command as well.
    """
    run = _Run(spec, LineSink(on_line, Redactor(spec.redact), spec.output_bytes), on_answer)
    if cancel.is_set():
        return run.result(None, ReasonCode.CANCELED, "It was canceled before it started.")
    try:
        await run.start()
    except OSError as error:
        return run.result(None, ReasonCode.INFRASTRUCTURE, f"The guard could not be started: {error.strerror}.")
    try:
        asked = await run.watch(cancel)
        await run.drain()
    finally:
        await asyncio.shield(run.clean_up())
    code = run.report.get("exit")
    reason, message = _judge(spec, asked, run.report)
    if message:
        await run.sink.note(message)
    return run.result(code, reason, message)


class _Run:
    """One guard, with the tasks that read from it."""

    def __init__(self, spec: CommandSpec, sink: LineSink, on_answer: Callable[[bytes], None] | None) -> None:
        self.spec = spec
        self.sink = sink
        self.on_answer = on_answer
        self.started_at = datetime.now(UTC)
        self.clock = time.monotonic()
        self.report: dict[str, Any] = {}

    async def start(self) -> None:
        """Start the guard and give it its order. Raises `OSError` when it can't be started."""
        with ExitStack() as theirs, ExitStack() as ours:
            pipes = [os.pipe() for _ in range(3)]
            for read, write in pipes:
                ours.callback(os.close, read)
                theirs.callback(os.close, write)
            (report, report_to), (out, out_to), (err, err_to) = pipes
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-X", "utf8", guard.__file__, str(report_to)),
                stdin=asyncio.subprocess.PIPE,
                stdout=out_to,
                stderr=err_to,
                cwd="/",
                env={},
                start_new_session=True,
                pass_fds=(report_to,),
            )
            ours.pop_all()
        self.ended = asyncio.create_task(self._read_report(report))
        self.pumps = [
            asyncio.create_task(self._pump(out, Stream.STDOUT)),
            asyncio.create_task(self._pump(err, Stream.STDERR)),
        ]
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        order = {
            "argv": list(self.spec.argv),
            "cwd": str(self.spec.cwd),
            "env": {**inherited, **self.spec.env},
            "cpu_seconds": self.spec.cpu_seconds,
            "memory_bytes": self.spec.memory_bytes,
            "kill_grace_seconds": self.spec.kill_grace_seconds,
            "stdin": self.spec.stdin,
        }
        self._tell(json.dumps(order))

    async def watch(self, cancel: asyncio.Event) -> ReasonCode | None:
        """Wait for the end; why the runner asked for it, if it did. Raises what `on_line` raises."""
        canceled = asyncio.create_task(cancel.wait())
        timer = asyncio.create_task(asyncio.sleep(self.spec.timeout_seconds))
        reading = set(self.pumps)
        try:
            while True:
                await asyncio.wait({self.ended, canceled, timer, *reading}, return_when=asyncio.FIRST_COMPLETED)
                if self.ended.done():
                    return None
                for pump in [pump for pump in reading if pump.done()]:
                    pump.result()
                    reading.discard(pump)
                if canceled.done() or timer.done():
                    asked = ReasonCode.CANCELED if canceled.done() else ReasonCode.TIMEOUT
                    break
        finally:
            canceled.cancel()
            timer.cancel()
        self._tell("stop")
        await asyncio.wait({self.ended}, timeout=self.spec.kill_grace_seconds + GUARD_MARGIN_SECONDS)
        return asked

    async def drain(self) -> None:
        """Read what is left of the output; give up a pipe that stays open and silent.

        Raises what `on_line` raises.
        """
        await self._end_guard()
        reading = set(self.pumps)
        while reading:
            before = self.sink.received
            done, reading = await asyncio.wait(reading, timeout=SILENCE_SECONDS)
            for pump in done:
                pump.result()
            if not done and not self.sink.busy and self.sink.received == before:
                break
        for pump, stream in zip(self.pumps, (Stream.STDOUT, Stream.STDERR), strict=True):
            pump.cancel()
            await self.sink.finish(stream)

    async def clean_up(self) -> None:
        """End the guard, and all below it, if it is not at its end; free what this run holds."""
        await self._end_guard()
        for pump in self.pumps:
            pump.cancel()
        await asyncio.gather(*self.pumps, self.ended, return_exceptions=True)
        await self.process.wait()

    def result(self, code: int | None, reason: ReasonCode, message: str) -> RunResult:
        """The result with what was counted so far; a negative code is a signal."""
        return RunResult(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            reason=reason,
            message=message,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            duration_seconds=time.monotonic() - self.clock,
            output_truncated=self.sink.truncated,
            lines=self.sink.lines,
        )

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def _read_report(self, descriptor: int) -> None:
        """Read the guard's report; the end of that pipe is the guard's end."""
        async with _reading(descriptor) as reader:
            report = await reader.read()
        if report:
            self.report = json.loads(report)

    async def _pump(self, descriptor: int, stream: Stream) -> None:
        async with _reading(descriptor) as reader:
            while data := await reader.read(65_536):
                if stream is Stream.STDOUT and self.on_answer is not None:
                    self.on_answer(data)
                else:
                    await self.sink.feed(stream, data)
        await self.sink.finish(stream)

    async def _end_guard(self) -> None:
        """Have the guard end: by the end of its input, and by force when that does not help or it died by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait({self.ended}, timeout=GUARD_MARGIN_SECONDS)
        if not self.report:
            _kill_session(self.process.pid)
            await asyncio.wait({self.ended}, timeout=GUARD_MARGIN_SECONDS)


def _judge(spec: CommandSpec, asked: ReasonCode | None, status: Mapping[str, Any]) -> tuple[ReasonCode, str]:
    """Why it ended so, with a sentence: what the runner asked for comes first, then what the guard reported."""
    code = status.get("exit")
    if asked is ReasonCode.CANCELED:
        return asked, "It was canceled."
    if asked is ReasonCode.TIMEOUT:
        return asked, f"It took longer than {spec.timeout_seconds:g} s of wall time."
    if "error" in status:
        blamed = status["errno"] in NOT_STARTED
        return (ReasonCode.RUNNER_ERROR if blamed else ReasonCode.INFRASTRUCTURE), (
            f"The command could not be started: {status['error']}."
        )
    if code is None:
        return ReasonCode.INFRASTRUCTURE, "The command's guard was killed."
    if code == 0:
        return ReasonCode.OK, ""
    if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return ReasonCode.TIMEOUT, f"It used more than {spec.cpu_seconds} s of CPU time."
    if code == -signal.SIGKILL:
        return ReasonCode.INFRASTRUCTURE, "The command was killed from outside, perhaps for want of memory."
    if _disk_is_full(spec.cwd):
        return ReasonCode.INFRASTRUCTURE, "The command failed and the disk that it ran on is full."
    return ReasonCode.TESTS_FAILED, ""


def _disk_is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < FULL_DISK_BYTES
    except FileNotFoundError:
        return False  # The command removed its own folder: that is no sign of a full disk.


@asynccontextmanager
async def _reading(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """The read end of a pipe as a stream; closed at the end."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        yield reader
    finally:
        transport.close()


def _kill_session(leader: int) -> None:
    """SIGKILL to the guard's session and to everything below it, for a guard that can't do it any more."""
    doomed: set[int] = set()
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):  # It ended, or is another's.
            if os.getsid(pid) == leader:
                doomed.add(pid)
                doomed.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    for pid in sorted(doomed):
        with suppress(ProcessLookupError):  # It ended by itself.
            os.kill(pid, signal.SIGKILL)
