"""Child processes that are watched: started, found healthy, started again when they die, stopped, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from conman.embedded import guard
from conman.embedded.errors import EmbeddedError, NotReady, Progress

_HEALTH_POLL_SECONDS = 0.05
_HEALTH_CALL_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.1
_LAST_BACKOFF_SECONDS = 10.0
_STEADY_SECONDS = 30.0
_KILL_SECONDS = 10.0
_LOG_LIMIT_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True)
class ProcessSpec:
    """What to run, and how to tell that it works."""

    name: str
    command: Sequence[str]
    log: Path
    healthy: Callable[[], Awaitable[object]] | None = None
    """Returns when the process does its work and raises `NotReady` until then; None: being alive is enough."""
    env: Mapping[str, str] | None = None
    start_seconds: float = 60.0
    """From the start to the first healthy answer."""
    stop_seconds: float = 10.0
    """From SIGTERM to SIGKILL."""


class ProcessGroup:
    """One process group for all children of one stack.

    It is not the group of the process that makes it: Ctrl-C in a terminal must reach that one only, which then stops
    its children in their order, instead of hitting all at once.
    """

    def __init__(self) -> None:
        self._id: int | None = None

    def spawn(self, command: Sequence[str], *, env: Mapping[str, str] | None, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in the group, both outputs appended to `log`. Raises `OSError`.

        It dies with the thread that calls this, so that thread must live as long as the stack.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _LOG_LIMIT_BYTES:
                log.replace(log.with_suffix(log.suffix + ".1"))
        with log.open("ab") as output:

            def start(group: int) -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    guard.command(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(env) if env is not None else None,
                    process_group=group,
                )

            if self._id is not None:
                with contextlib.suppress(PermissionError, ProcessLookupError):  # its last member has gone: a new group
                    return start(self._id)
            process = start(0)
        self._id = process.pid
        return process

    def sweep(self) -> None:
        """Kill what the children left behind in the group; for the end, when all of them have stopped."""
        group, self._id = self._id, None
        if group is None:
            return
        session = os.getsid(0)
        # Looked up one by one: once the group is empty its number may belong to a stranger, in another session.
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) == group and os.getsid(pid) == session:
                    os.kill(pid, signal.SIGKILL)


class _Running:
    """One life of a process; its death is an event in the loop."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.ended = asyncio.Event()
        self.since = time.monotonic()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            process.wait()
            with contextlib.suppress(RuntimeError):  # the loop was closed first: nobody asks any more
                loop.call_soon_threadsafe(self.ended.set)

        # A thread and not the loop's child watcher: it works on every loop, and in loops off the main thread.
        threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()

    def how(self) -> str:
        """How it ended, for a person."""
        code = self.process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


class ManagedProcess:
    """A child process under supervision: `start`, then it runs until `stop`, through any number of deaths."""

    def __init__(self, spec: ProcessSpec, group: ProcessGroup, progress: Progress) -> None:
        self.spec = spec
        self.restarts = 0
        self._group = group
        self._progress = progress
        self._running: _Running | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the present life, None while there is none."""
        running = self._running
        return running.process.pid if running and not running.ended.is_set() else None

    async def start(self) -> None:
        """Start it and wait until it is healthy. Raises `EmbeddedError`; then, and if cancelled, it doesn't run."""
        try:
            await self._live()
        except BaseException:
            await self._end()
            raise
        self._watcher = asyncio.create_task(self._watch(), name=f"watch-{self.spec.name}")

    async def stop(self, *, at_once: bool = False) -> None:
        """Stop it: SIGTERM, a bounded wait, SIGKILL (or that right away). Does nothing if it doesn't run."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        await self._end(at_once=at_once)

    def kill(self) -> None:
        """Kill the present life without waiting; a `stop` that waits goes on, else the watcher starts another."""
        if self._running is not None and not self._running.ended.is_set():
            self._running.process.kill()

    async def _live(self) -> None:
        """One start up to the first healthy answer."""
        spec = self.spec
        try:
            process = self._group.spawn(spec.command, env=spec.env, log=spec.log)
        except OSError as error:
            raise EmbeddedError(f"{spec.name} can't be started: {error}") from error
        running = self._running = _Running(process)
        if spec.healthy is None:
            return
        deadline = running.since + spec.start_seconds
        while True:
            try:
                async with asyncio.timeout(_HEALTH_CALL_SECONDS):
                    await spec.healthy()
            except (NotReady, TimeoutError) as error:
                reason = str(error) or "no answer"
            else:
                if not running.ended.is_set():  # else it was another server that answered
                    return
                reason = "another program answers in its place"
            if running.ended.is_set():
                raise EmbeddedError(f"{spec.name} ended while starting ({running.how()}): {tail(spec.log)}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{spec.name} is not ready after {spec.start_seconds:.0f} s: {reason}; see {spec.log}")
            await asyncio.sleep(_HEALTH_POLL_SECONDS)

    async def _watch(self) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            running = self._running
            if running is None:
                return
            await running.ended.wait()
            if time.monotonic() - running.since > _STEADY_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            self._progress(f"{self.spec.name} died ({running.how()}); starting it again in {backoff:.1f} s")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF_SECONDS)
            self.restarts += 1
            try:
                await self._live()
            except EmbeddedError as error:
                self._progress(str(error))
                await self._end(at_once=True)
            else:
                self._progress(f"{self.spec.name} is back")

    async def _end(self, *, at_once: bool = False) -> None:
        """End the present life, with what it started itself."""
        running = self._running
        if running is None or running.ended.is_set():
            return
        process = running.process
        family = _descendants(process.pid)
        if not at_once:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.spec.stop_seconds):
                    await running.ended.wait()
        if not running.ended.is_set():
            if not at_once:
                self._progress(f"{self.spec.name} did not stop in {self.spec.stop_seconds:.0f} s; killing it")
            family += _descendants(process.pid)
            process.kill()
            async with asyncio.timeout(_KILL_SECONDS):
                await running.ended.wait()
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # psutil compares start times, so a reused id is safe
                child.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def tail(log: Path, lines: int = 3, limit: int = 500) -> str:
    """The end of a log as one line, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError as error:
        return f"its log can't be read: {error}"
    last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(last)[-limit:] or f"it printed nothing; see {log}"
