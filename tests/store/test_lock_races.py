"""Processes that race for an environment: exactly one holder, ever (`spec.md` 12, `durability.md` 15).

The races of two API processes over HTTP are in `tests/faults/test_deployment_races.py`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from conman.store import locks
from conman.store.database import Database
from tests.store.test_locks import AT, deployment

RACER = Path(__file__).with_name("lock_racer.py")
PROCESSES = 2
TRIES = 3
"""Deployments that each process tries to place at once: two processes alone seldom meet in the same millisecond."""
ROUNDS = 100


class Racer:
    """A process of its own, which does what a line tells it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hears(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return json.loads(await self.process.stdout.readline())

    async def tries(self, wanted: list[dict[str, str]]) -> list[dict[str, Any]]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"at": AT, "tries": wanted}).encode() + b"\n")
        return await self.hears()


@asynccontextmanager
async def racing(mongo_uri: str, db: Database) -> AsyncIterator[list[Racer]]:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, str(RACER), mongo_uri, db.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(PROCESSES)
    ]
    try:
        racers = [Racer(process) for process in processes]
        assert [await racer.hears() for racer in racers] == ["ready"] * PROCESSES
        yield racers
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def race(db: Database, racers: list[Racer], wanted: list[list[dict[str, str]]]) -> dict[str, dict[str, int]]:
    """All try at once; the deployments that won, with their fences. Who lost names one that holds what it wanted."""
    for one in (one for tries in wanted for places in tries for one in places.values()):
        await db["deployments"].update_one({"_id": one}, {"$set": {"owned": {"state": "pending"}}}, upsert=True)
    answers = await asyncio.gather(*(racer.tries(tries) for racer, tries in zip(racers, wanted, strict=True)))
    pairs = [pair for tries, told in zip(wanted, answers, strict=True) for pair in zip(tries, told, strict=True)]
    won = {next(iter(places.values())): told["fences"] for places, told in pairs if told["holder"] is None}
    assert all(told["holder"] in won for _, told in pairs if told["holder"] is not None), pairs
    held = await locks.read(db, "app")
    assert {e["holder"]["deployment_id"] for e in held.values() if e["holder"] is not None} == set(won)
    return won


async def test_of_two_processes_that_race_a_hundred_times_exactly_one_holds_the_environment(mongo_uri: str, db: Database) -> None:
    async with racing(mongo_uri, db) as racers:
        for number in range(1, ROUNDS + 1):
            wanted = [[{"env": f"{number}-{process}-{n}"} for n in range(TRIES)] for process in range(PROCESSES)]
            won = await race(db, racers, wanted)
            assert list(won.values()) == [{"env": number}], "one wins, and raises the fence by one"
            again = await asyncio.gather(*(racer.tries(tries) for racer, tries in zip(racers, wanted, strict=True)))
            repeats = [told["fences"] for answer in again for told in answer if told["holder"] is None]
            assert repeats == [{"env": number}], "a repeat finds its own lock and no other one"
            await locks.release(db, "app", "env", next(iter(won)), AT)


async def test_of_groups_and_singles_that_race_no_two_hold_the_same_environment(mongo_uri: str, db: Database) -> None:
    async with racing(mongo_uri, db) as racers:
        fences = {"a": 0, "b": 0}
        for number in range(30):
            both, turned, single = (f"{number}-{name}" for name in ("both", "turned", "single"))
            wanted = [[{"a": both, "b": both}, {"b": single}], [{"b": turned, "a": turned}]]
            won = await race(db, racers, wanted)
            taken = [environment for fenced in won.values() for environment in fenced]
            assert len(taken) == len(set(taken))
            assert set(won) in ({both}, {turned}, {single}), "all of its locks, or none"
            for deployment_id, fenced in won.items():
                for environment, fence in fenced.items():
                    fences[environment] += 1
                    assert fence == fences[environment]
                    await locks.release(db, "app", environment, deployment_id, AT)


async def test_of_two_that_take_a_lock_over_at_once_exactly_one_gets_it(db: Database) -> None:
    await deployment(db, "old", "pending")
    await locks.take(db, "app", {"env": "old"}, AT)
    for one in ("new", "newer"):
        await deployment(db, one, "pending")
    taken = await asyncio.gather(*(locks.take(db, "app", {"env": one}, AT, over=["old"]) for one in ("new", "newer")))
    assert sorted(one.holder is None for one in taken) == [False, True]
    assert [one.superseded for one in taken if one.holder is None] == [{"env": "old"}]
