"""The guard of one suite run: it starts the command within its limits and leaves no process behind (`spec.md` 9).

The runner starts it as a program of its own, `python -I -S guard.py STATUS_FD`, and keeps the write end of its
standard input:

- The first line there is the order, one JSON object: `argv`, `cwd`, `env`, `cpu_seconds`, `memory_bytes`,
  `kill_grace_seconds`, and `stdin`: what the command reads from its own standard input, null for nothing.
- A later line `stop` asks for the end: SIGTERM to the command's group, then, after the grace, SIGKILL.
- The end of that input means that the worker is gone, also by `kill -9`: SIGKILL at once.

Why a program and not a `preexec_fn` of the worker: Python code between fork and exec is safe only in a process with
one thread. This process has one; the worker has many. Why it stays: the parent-death signal reaches a direct
child only, so somebody has to outlive the worker for the grandchildren. As the subreaper the guard becomes the
parent of every orphan below it, in whatever process group or session, and it ends when it has no child left.

`STATUS_FD` gets one JSON line: `{"exit": code}` (negative: minus the signal), or `{"error", "errno"}` when the
command could not be started. Standard library only, since it runs isolated and has to start fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

POLL_SECONDS = 0.02
"""How often the guard looks for what is left when no signal tells it, seconds."""

LIFELINE = 0
"""The file descriptor of the orders and of the worker's life."""


def main(status_fd: int) -> None:
    """Read the order, run the command, report, and end when nothing of it is left."""
    _control(PR_SET_CHILD_SUBREAPER, 1)
    _control(PR_SET_PDEATHSIG, signal.SIGTERM)
    guard = Guard(status_fd)
    order = guard.read_order()
    if order is not None:
        guard.run(order)


class Guard:
    """One command, from its start to the end of its last descendant."""

    def __init__(self, status_fd: int) -> None:
        self.status_fd = status_fd
        self.received = b""
        self.worker_gone = False
        self.woken, wake = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)

    def read_order(self) -> dict[str, Any] | None:
        """The order; None when the worker is gone before it was complete."""
        while b"\n" not in self.received:
            part = os.read(LIFELINE, 65_536)
            if not part:
                return None
            self.received += part
        line, _, self.received = self.received.partition(b"\n")
        return json.loads(line)

    def run(self, order: dict[str, Any]) -> None:
        """Start the command and stay until it and all its descendants have ended."""
        command = self._start(order)
        if command is None:
            return
        stop_by: float | None = None
        while not self.worker_gone:
            ended = _reap_orphans(command)
            if ended and (stop_by is None or not _living_besides(command)):
                break
            left = None if stop_by is None else stop_by - time.monotonic()
            if left is not None and left <= 0:
                break
            stop = self._wait(left if left is None or not ended else min(left, POLL_SECONDS))
            if stop and stop_by is None:
                stop_by = time.monotonic() + order["kill_grace_seconds"]
                _ask_to_end(command)
        self._report({"exit": _kill_everything(command)})

    def _start(self, order: dict[str, Any]) -> int | None:
        """The process id of the started command; None, reported, when it can't be started.

        The `Popen` is kept and never asked: forgotten or asked, it would reap the command before its time.
        """
        limits = [
            _limit(resource.RLIMIT_CPU, order["cpu_seconds"], over=5),
            _limit(resource.RLIMIT_AS, order["memory_bytes"]),
            _limit(resource.RLIMIT_CORE, 0),
        ]
        guard = os.getpid()

        def prepare() -> None:
            _control(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            for kind, bounds in limits:
                resource.setrlimit(kind, bounds)

        if not Path(order["cwd"]).is_dir():
            self._report({"error": f"no such folder: {order['cwd']}", "errno": errno.EIO})
            return None
        try:
            with _standard_input(order["stdin"]) as standard_input:
                self.process = subprocess.Popen(
                    order["argv"],
                    cwd=order["cwd"],
                    env=order["env"],
                    stdin=standard_input,
                    process_group=0,
                    preexec_fn=prepare,
                )
        except OSError as error:
            self._report({"error": f"{order['argv'][0]}: {error.strerror}", "errno": error.errno})
        except ValueError as error:
            self._report({"error": f"{order['argv'][0]!r}: {error}", "errno": errno.EINVAL})
        else:
            return self.process.pid
        return None

    def _wait(self, timeout: float | None) -> bool:
        """Wait for a signal, a line or the worker's end, at most `timeout` seconds. True: a stop is asked for."""
        ready, _, _ = select.select([self.woken, LIFELINE], [], [], timeout)
        if self.woken in ready:
            numbers = os.read(self.woken, 4096)
            self.worker_gone |= any(number != signal.SIGCHLD for number in numbers)
        if LIFELINE in ready:
            part = os.read(LIFELINE, 4096)
            self.worker_gone |= not part
            self.received += part
        return b"stop\n" in self.received

    def _report(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # The worker is gone: nobody is left to tell.
            os.write(self.status_fd, json.dumps(message).encode() + b"\n")


@contextlib.contextmanager
def _standard_input(text: str | None) -> Iterator[int]:
    """A file without a name that holds the text: a command that reads nothing of it keeps nobody waiting."""
    if text is None:
        yield subprocess.DEVNULL
        return
    import tempfile  # Here, since a gate reads nothing and this takes as long to import as all the rest.

    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file.fileno()


def _control(option: int, value: int) -> None:
    """`prctl(2)`; systems other than Linux have no such call, and there only the process group is ended."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _limit(kind: int, soft: int, over: int = 0) -> tuple[int, tuple[int, int]]:
    """A resource limit, lowered to what this process may set."""
    _, hard = resource.getrlimit(kind)
    ceiling = hard if hard != resource.RLIM_INFINITY else soft + over
    return kind, (min(soft, ceiling), min(soft + over, ceiling))


def _reap_orphans(command: int) -> bool:
    """Reap what has ended, but not the command: its id must stay taken while its group is signalled.

    True: the command has ended.
    """
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return False
        if ended.si_pid == command:
            return True
        os.waitpid(ended.si_pid, 0)


def _descendants() -> dict[int, str]:
    """Process id → state letter of everything below this process, from one look at `/proc`."""
    parents: dict[int, int] = {}
    states: dict[int, str] = {}
    for entry in Path("/proc").iterdir() if sys.platform == "linux" else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # It ended between the listing and the look.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                parents[int(entry.name)], states[int(entry.name)] = int(parent), state
    below = {os.getpid()}
    found: dict[int, str] = {}
    while True:
        more = [pid for pid, parent in parents.items() if parent in below and pid not in found]
        if not more:
            return found
        below.update(more)
        found.update({pid: states[pid] for pid in more})


def _living_besides(command: int) -> bool:
    return any(state not in "ZX" for pid, state in _descendants().items() if pid != command)


def _ask_to_end(command: int) -> None:
    """SIGTERM to the command's group and to the descendants that left it."""
    outside: list[int] = []
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError):  # It ended by itself.
            if os.getpgid(pid) != command:
                outside.append(pid)
    _signal_group(command, signal.SIGTERM)
    for pid in outside:
        _signal(pid, signal.SIGTERM)


def _kill_everything(command: int) -> int:
    """SIGKILL to the group and to every descendant until none is left; the command's exit code."""
    _signal_group(command, signal.SIGKILL)
    _signal(command, signal.SIGKILL)
    _, status = os.waitpid(command, 0)
    while True:
        for pid in _descendants():
            _signal(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # It ended by itself.
        os.kill(pid, number)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # Only zombies are left in it.
        os.killpg(group, number)


def _run() -> NoReturn:
    main(int(sys.argv[1]))
    sys.exit(0)


if __name__ == "__main__":
    _run()
