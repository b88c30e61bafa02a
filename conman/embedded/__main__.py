"""`python -m conman.embedded`: find, fetch or build every local server now, so that nothing later waits for it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from conman.embedded.cache import Cache
from conman.embedded.errors import EmbeddedError
from conman.embedded.mongo import find_mongo
from conman.embedded.temporal import find_temporal, find_test_server
from conman.leaving import run_to_exit


def _say(line: str) -> None:
    print(line, flush=True)


async def prepare() -> None:
    """Have all servers in the cache. Raises `EmbeddedError` with one line that says what is missing."""
    cache = Cache()
    with tempfile.TemporaryDirectory(prefix="conman-prepare-") as folder:
        await find_mongo(Path(folder), cache, _say)
    await find_temporal(cache, _say)
    await find_test_server(cache, _say)


def main() -> int:
    """The exit code: 0 when all servers are there."""
    try:
        asyncio.run(prepare())
    except EmbeddedError as error:
        print(f"conman: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_to_exit(lambda: sys.exit(main()))
