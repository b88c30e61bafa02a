"""How times grow: with the queue, with a release's changesets, with the repository's files; and what sleeping temp envs cost.

Takes about half an hour.
"""

from __future__ import annotations

from tests.load import bench_queue, bench_temp_envs
from tests.load.bench_bare import BareTemporal
from tests.load.bench_stack import App, Stack
from tests.load.report import Row, row, sample, say

QUEUES = (10, 50, 150, 500)
RELEASES = (1, 10, 100)
REPOSITORIES = (100, 1_000, 10_000)
FILES = 200
"""Of repositories whose size is not what grows."""


async def queued(stack: Stack, bare: BareTemporal) -> list[Row]:
    """With the changesets in the queue."""
    app = await stack.app("growing-queue", FILES)
    rows: list[Row] = []
    for length in QUEUES:
        say(f"queue of {length}")
        await app.fill(length)
        where = f"{length} queued"
        looks = await sample("looks at the queue", 20, lambda _: stack.max.call("GET", f"{app.path}/queue"))
        reads = await sample("reads of a queued changeset", 20, lambda _: stack.max.call("GET", app.queue[-1]))
        rows.append(row(f"GET queue, {where}, p50", looks.p50))
        rows.append(row(f"GET changeset, {where}, p50", reads.p50))
        rows += await _all_of_it(app, bare, where, 5)
    return rows


async def members(stack: Stack, _bare: BareTemporal) -> list[Row]:
    """With the changesets in a release, which empties the queue."""
    app = await stack.app("growing-release", FILES)
    rows: list[Row] = []
    for count in RELEASES:
        say(f"release of {count}")
        await app.fill(count)
        found = await bench_queue.release(app, count)
        where = f"{count} in the release"
        rows.append(bench_queue.released_row(found, where))
        rows.append(row(f"publish alone, {where}", found.published))
    return rows


async def files(stack: Stack, bare: BareTemporal) -> list[Row]:
    """With the files of the repository."""
    rows: list[Row] = []
    for count in REPOSITORIES:
        say(f"repository of {count} files")
        app = await stack.app(f"files-{count}", count)
        await app.fill(20)
        rows += await _all_of_it(app, bare, f"{count:,} files", 10)
    return rows


async def temp_envs(stack: Stack, _bare: BareTemporal) -> list[Row]:
    """With the temp envs that sleep."""
    say(f"{bench_temp_envs.COUNT:,} temp envs")
    return await bench_temp_envs.budgets(stack)


async def _all_of_it(app: App, bare: BareTemporal, where: str, members: int) -> list[Row]:
    no_op = (await bare.no_ops(10)).p50
    median, _ = await bench_queue.verdicts(app, 5)
    found = await bench_queue.release(app, members)
    rows = [
        row(f"submit to verdict of a no-op suite, {where}, p50", median, {"no-op workflow": no_op}),
        bench_queue.released_row(found, where),
    ]
    return [*rows, await bench_queue.sweep_row(found, bare, where)] if found.swept else rows


PARTS = (files, members, queued, temp_envs)
"""From the cheapest to the dearest."""
