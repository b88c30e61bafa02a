"""Runs a command that must not outlive the process that started it: `guard.py PARENT_PID COMMAND…`.

A file of its own that imports nothing of Conman's, run with `python -I -S`, so that it costs a few milliseconds. On
Linux the kernel kills the command when its parent dies (`PR_SET_PDEATHSIG`; the mark survives the exec). Elsewhere
this process stays between the two, watches the parent, and passes signals on.

It is a program and not a `preexec_fn`, because Python code between fork and exec can deadlock in a process that has
threads, and every process with a Temporal client has.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.2
_NOT_FOUND = 127


def command(argv: Sequence[str], *, parent: int | None = None) -> list[str]:
    """`argv` under guard: it dies with `parent`, which must be the process that starts it (by default this one)."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(parent or os.getpid()), *argv]


def _die_with_parent(parent: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the mark was set
        os.kill(os.getpid(), signal.SIGKILL)


def _stay_and_watch(parent: int, argv: list[str]) -> int:
    child = subprocess.Popen(argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(_WATCH_SECONDS)
    return child.returncode


def main(arguments: list[str]) -> int:
    """Run the command; returns only where the parent has to be watched from here."""
    parent, argv = int(arguments[0]), arguments[1:]
    if sys.platform == "linux" and os.environ.get("CONMAN_GUARD") != "watch":
        _die_with_parent(parent)
        try:
            os.execvp(argv[0], argv)
        except OSError as error:
            print(f"{argv[0]} can't be run: {error.strerror}", file=sys.stderr)
            return _NOT_FOUND
    return _stay_and_watch(parent, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
