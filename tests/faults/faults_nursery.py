"""Starts `conman` processes by forking from one that has imported everything: an import costs two seconds of CPU each time.

Run as a program. A line on standard input is an order, `{"env", "arguments", "log"}`; a line on standard output is either the
answer to it, `{"pid"}`, or the end of a child, `{"pid", "code"}`. Children die with this process, and it with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import uvicorn  # noqa: F401
import uvloop  # noqa: F401

import conman.api.app
import conman.cli
import conman.doctor
import conman.worker
from conman import faults

PR_SET_PDEATHSIG = 1


def main() -> None:
    gc.freeze()
    signal.signal(signal.SIGCHLD, _report_ends)
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # its answer comes before its end
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _be_conman(order)
        _say({"pid": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _report_ends(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _be_conman(order: dict[str, Any]) -> NoReturn:
    """Never returns: the loop above is the parent's."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["env"])
        faults.arm(faults.parse(os.environ.get(faults.VARIABLE, "")))
        conman.cli.main(order["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - a forked child must never return
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
