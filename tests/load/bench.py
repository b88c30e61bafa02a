"""`make bench`: what Conman's budgets promise, beside the bare things that it stands on, measured in one run.

`--growth` (`make growth`) prints how times grow instead. Speed is not asserted: the exit code is 0 whatever the numbers are, and
a row over its limit says so.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from conman.leaving import run_to_exit
from tests.load import bench_commands, bench_git, bench_growth, bench_queue, bench_streams
from tests.load.bench_bare import bare_temporal
from tests.load.bench_repository import make
from tests.load.bench_stack import Stack, running, stack_of
from tests.load.report import Row, console, table


async def _large(stack: Stack) -> list[Row]:
    """The rows for an app on a repository of 10,000 files and 5,000 commits."""
    large = await asyncio.to_thread(make, stack.data / "repositories", "large.git", 10_000, 5_000)
    app = await stack.adopted(large.path, large.files)
    ann = app.author(0)
    workspace = await app.workspace(ann)
    await app.save(ann, workspace, large.file(0), "{}")
    return await bench_git.over_http(large, ann, workspace)


async def measure(ready: dict[str, Any], data: Path, rows: list[Row], *, growth: bool) -> None:
    """All rows that need the stack; those that were measured before something failed stay in `rows`."""
    stack = await stack_of(ready, data)
    try:
        async with bare_temporal(ready["temporal_address"]) as bare:
            if growth:
                for part in bench_growth.PARTS:
                    rows += await part(stack, bare)
                return
            rows += await bench_commands.budgets(await stack.app("bench", 200), bare)
            rows += await bench_streams.budgets(await stack.app("streams", 20))
            rows += await bench_queue.budgets(await stack.app("queue", 200), bare)
            rows += await _large(stack)
    finally:
        await stack.close()


def main() -> None:
    """Start a stack, measure, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--growth", action="store_true", help="how times grow, instead of the budgets")
    growth = parser.parse_args().growth
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="conman-bench-") as name:
            folder = Path(name)
            with running(folder) as ready:
                asyncio.run(measure(ready, folder / "data", rows, growth=growth))
            if not growth:
                (folder / "git").mkdir()
                rows += asyncio.run(bench_git.measure(folder / "git"))
    finally:
        if rows:
            console.print(table("How times grow, in one run" if growth else "Side by side, in one run", rows))


if __name__ == "__main__":
    run_to_exit(main)
