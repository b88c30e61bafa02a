"""For tests: one stack in a temporary folder, and a Temporal that skips time.

A stack takes about a second to start, so share one:

    @pytest_asyncio.fixture(scope="session")
    async def stack() -> AsyncIterator[EmbeddedStack]:
        async with running_stack() as stack:
            yield stack
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment

from conman.config import Settings
from conman.embedded.cache import Cache
from conman.embedded.errors import Progress
from conman.embedded.stack import EmbeddedStack
from conman.embedded.temporal import find_test_server


def say(line: str) -> None:
    """Progress for tests: pytest shows it when one fails."""
    print(line, flush=True)


@asynccontextmanager
async def running_stack(data: Path | None = None, *, progress: Progress = say, **settings: Any) -> AsyncIterator[EmbeddedStack]:
    """A started stack on free ports, in `data` or in a folder that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="conman-test-", ignore_cleanup_errors=True) as folder:
        stack = EmbeddedStack(Settings(data=data or Path(folder), **settings), progress, usual_ports=False)
        async with stack:
            yield stack


async def time_skipping_environment(*, progress: Progress = say, **options: Any) -> WorkflowEnvironment:
    """A Temporal whose clock jumps to the next timer; `options` go to `WorkflowEnvironment.start_time_skipping`.

    Use with `async with`. It ends with this process. Raises `EmbeddedError` if the server can't be had.
    """
    server = await find_test_server(Cache(), progress)
    return await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(server), **options)
