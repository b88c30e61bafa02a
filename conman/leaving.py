"""How a program that has used Temporal's SDK ends."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable

FAILED = 1
INTERRUPTED = 130


def run_to_exit(work: Callable[[], object]) -> None:
    """Run `work` as all of this process, which then ends by its exit code without the interpreter being taken down.

    Threads of the SDK outlive its clients and workers. One of them that comes back to an interpreter in the middle of being
    taken down aborts the process: exit code 134 and a core dump in place of what the program did
    (github.com/temporalio/sdk-python/issues/300; 2 of 75 replays on a busy machine). All else is as at any exit: threads
    are waited for, what was registered with `atexit` since runs, logs and standard streams are flushed. A success that could
    not be printed whole is none.
    """
    code = 0

    def leave() -> None:
        logging.shutdown()
        unsaid = False
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # its reader is gone, its disk is full, or it is closed
                unsaid = True
        os._exit(code or (FAILED if unsaid else 0))

    # What is registered first runs last.
    atexit.register(leave)
    try:
        work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED if end.code else 0
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    except BaseException:
        code = FAILED
        raise
