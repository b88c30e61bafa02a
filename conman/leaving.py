"""How programs end: by their own exit code, and when their event loop stands still."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAILED = 1
INTERRUPTED = 130
STUCK_SECONDS = 60.0
"""So long an event loop may stand still: far longer than any call that holds the interpreter, and than the heartbeats' timeouts
(`workflows/options.py`), after which Temporal has given its activities to others."""
_LOOKS = 4


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


@contextmanager
def leaving_when_stuck(seconds: float = STUCK_SECONDS) -> Iterator[None]:
    """End this process, with the stacks of all threads on standard error, when its running loop stands still for so long.

    Nothing on the loop can notice that, and whoever supervises the process sees it alive. Its work is durable: it goes on when
    the process is started again, or in another one. The watch needs neither the loop nor the interpreter's lock. Exit code 1.
    """
    loop = asyncio.get_running_loop()

    def look() -> asyncio.TimerHandle:
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
        return loop.call_later(seconds / _LOOKS, look_again)

    def look_again() -> None:
        nonlocal timer
        timer = look()

    timer = look()
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()
