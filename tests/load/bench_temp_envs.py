"""Temp envs that sleep: what ten thousand of them cost the worker while nothing happens, and while they are used.

Alone: `python -m tests.load.bench_temp_envs [--count N] [--seconds S]`; a quarter of an hour for ten thousand. CPU and memory of
worker and Temporal server are read without any, with a tenth, with all, and with all of them in use: the worker's must stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from conman.config import Settings
from conman.domain.temp_env import TempEnv, TempEnvKind, TempEnvState
from conman.leaving import run_to_exit
from conman.services.clock import new_id, now
from conman.services.platform import Platform, make_platform
from conman.services.temp_env_use import touch
from tests.load.bench_stack import Stack, each, running, stack_of
from tests.load.report import Row, console, say, table

COUNT = 10_000
SECONDS = 120.0
"""Two rounds of upkeep are in it."""
AT_ONCE = 32
USES_A_SECOND = 200
_MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """What a process took: per cent of one core, and memory at the end in MiB."""

    cpu: float
    memory: float


class Watched:
    """The worker and the Temporal server of the stack, by their command lines."""

    def __init__(self) -> None:
        below = psutil.Process().children(recursive=True)
        self.worker = _one(below, lambda line: line[-3:] == ["-m", "conman", "worker"])
        self.server = _one(below, lambda line: "temporal" in Path(line[0]).name)

    async def cost(self, seconds: float) -> tuple[Cost, Cost]:
        """What both take in so many seconds."""
        both = (self.worker, self.server)
        before, began = [_cpu(process) for process in both], time.monotonic()
        await asyncio.sleep(seconds)
        passed = time.monotonic() - began
        worker, server = (
            Cost((_cpu(process) - spent) / passed * 100, process.memory_info().rss / _MIB)
            for process, spent in zip(both, before, strict=True)
        )
        return worker, server


def _one(processes: list[psutil.Process], is_it: Any) -> psutil.Process:
    found = [process for process in processes if (line := process.cmdline()) and is_it(line)]
    if len(found) != 1:
        raise SystemExit(f"one process was looked for, {len(found)} were found")
    return found[0]


def _cpu(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return spent.user + spent.system


class Sleepers:
    """Temp envs of one workspace, active since just now, each with its process."""

    def __init__(self, platform: Platform, app_id: str, workspace_id: str) -> None:
        self.platform = platform
        self.app_id = app_id
        self.workspace_id = workspace_id
        self.ids: list[str] = []

    async def grow(self, count: int) -> None:
        """Make so many of them, and wait until all sleep."""
        made = [self._document(len(self.ids) + number) for number in range(count - len(self.ids))]
        for start in range(0, len(made), 500):
            await self.platform.db["temp_envs"].insert_many(made[start : start + 500])
        commands = self.platform.commands
        started = time.monotonic()
        await each(made, lambda temp: commands.start(commands.temp_env_start(self.app_id, temp["_id"])), AT_ONCE)
        self.ids += [temp["_id"] for temp in made]
        await self._asleep()
        say(f"{count} temp envs sleep, after {time.monotonic() - started:.0f} s")

    async def _asleep(self) -> None:
        """The server knows the state of each, and the last ones have had the time to look when they were used."""
        query = "WorkflowType = 'temp-env' AND ConmanState = 'active'"
        async with asyncio.timeout(1800):
            while (await self.platform.commands.client.count_workflows(query)).count < len(self.ids):  # noqa: ASYNC110
                await asyncio.sleep(1)
        await asyncio.sleep(5)

    def _document(self, number: int) -> dict[str, Any]:
        at, temp_id = now(), new_id()
        temp = TempEnv(
            kind=TempEnvKind.WORKSPACE,
            source_id=self.workspace_id,
            state=TempEnvState.ACTIVE,
            created_at=at,
            created_by=new_id(),
            base_profile_id=new_id(),
            head_sha="0" * 40,
            label=f"bench-{number}",
            url=f"http://bench-{number}.localhost",
            branch=f"conman/temp/bench-{number}",
            job_id=new_id(),
            active_since=at,
        )
        # Without its slot: that of one source is one.
        record = {"_id": temp_id, "app_id": self.app_id, "created_at": at, "updated_at": at, "version": 1, "label": temp.label}
        return {**record, "owned": temp.model_dump(mode="json"), "outgoing": []}

    async def used(self, seconds: float) -> None:
        """Use them one after another, so many times a second."""
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            await touch(self.platform.db, self.ids[number % len(self.ids)], now())
            number += 1
            await asyncio.sleep(1 / USES_A_SECOND)


async def budgets(stack: Stack, count: int = COUNT, seconds: float = SECONDS) -> list[Row]:
    """The rows of the table."""
    app = await stack.app("temp-envs", 10)
    ann = app.author(0)
    workspace = (await app.workspace(ann)).rpartition("/")[2]
    settings = Settings(mongo_uri=stack.ready["mongo_uri"], temporal_address=stack.ready["temporal_address"])
    platform = await make_platform(settings)
    watched = Watched()
    try:
        sleepers = Sleepers(platform, app.path.rpartition("/")[2], workspace)
        costs = {"none": await watched.cost(seconds)}
        for number in (max(1, count // 10), count):
            await sleepers.grow(number)
            costs[f"{number:,} asleep"] = await watched.cost(seconds)
        using = asyncio.create_task(sleepers.used(seconds))
        costs[f"{count:,}, {USES_A_SECOND} uses a second"] = await watched.cost(seconds)
        await using
    finally:
        await platform.close()
    rows: list[Row] = []
    for position, who in enumerate(("worker", "Temporal server")):
        first = costs["none"][position]
        for what, both in costs.items():
            cost = both[position]
            beside = f"with none {first.cpu:.1f} %, {first.memory:.0f} MiB" if what != "none" else ""
            rows.append(Row(f"{who}, temp envs: {what}", f"{cost.cpu:.1f} % of a core, {cost.memory:.0f} MiB", beside, ""))
    return rows


async def _measure(ready: dict[str, Any], data: Path, count: int, seconds: float) -> list[Row]:
    stack = await stack_of(ready, data)
    try:
        return await budgets(stack, count, seconds)
    finally:
        await stack.close()


def main() -> None:
    """Start a stack, measure, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="how many sleep in the end")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each cost is read")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conman-bench-") as name:
        folder = Path(name)
        with running(folder) as ready:
            rows = asyncio.run(_measure(ready, folder / "data", given.count, given.seconds))
    console.print(table("Temp envs that sleep", rows))


if __name__ == "__main__":
    run_to_exit(main)
