"""The bare things that Conman stands on, on the same servers: Temporal without Conman, pygit2 without Conman."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pygit2
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.load.report import Sample, sample, timed


@activity.defn
async def touch(value: int) -> int:
    """The bare activity."""
    return value + 1


@activity.defn
async def run_true() -> None:
    """The bare suite: one process that does nothing."""
    child = await asyncio.create_subprocess_exec("true")
    await child.wait()


@workflow.defn
class Bare:
    """A workflow whose update runs one activity."""

    @workflow.run
    async def run(self) -> None:
        """Wait for updates."""
        await workflow.wait_condition(lambda: False)

    @workflow.update
    async def change(self, value: int) -> int:
        """One activity."""
        return await workflow.execute_activity(touch, value, start_to_close_timeout=timedelta(seconds=3))


@workflow.defn
class NoOp:
    """A workflow that runs the bare suite and ends."""

    @workflow.run
    async def run(self) -> None:
        """One activity."""
        await workflow.execute_activity(run_true, start_to_close_timeout=timedelta(seconds=60))


@dataclass(frozen=True)
class BareTemporal:
    """A worker of this process on the stack's own Temporal."""

    client: Client
    queue: str

    async def updates(self, count: int) -> Sample:
        """Updates of one workflow, one after the other."""
        handle = await self.client.start_workflow(Bare.run, id=f"{self.queue}-{uuid.uuid4()}", task_queue=self.queue)
        await handle.execute_update(Bare.change, 0)
        found = await sample("bare updates with one activity", count, lambda n: handle.execute_update(Bare.change, n))
        await handle.terminate()
        return found

    async def _no_op(self) -> None:
        await self.client.execute_workflow(NoOp.run, id=f"{self.queue}-{uuid.uuid4()}", task_queue=self.queue)

    async def no_ops(self, count: int) -> Sample:
        """Workflows that run `true`, one after the other."""
        return await sample("bare no-op workflows", count, lambda _: self._no_op())

    async def no_ops_at_once(self, count: int, at_once: int) -> float:
        """Milliseconds until so many have ended, `at_once` side by side as in a sweep."""
        return await timed(sample(f"bare no-op workflows, {at_once} at once", count, lambda _: self._no_op(), at_once))


@asynccontextmanager
async def bare_temporal(address: str) -> AsyncIterator[BareTemporal]:
    """The worker runs as long as the block."""
    client = await Client.connect(address)
    queue = f"bench-{uuid.uuid4()}"
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[Bare, NoOp],
        activities=[touch, run_true],
        workflow_runner=UnsandboxedWorkflowRunner(),
        build_id="bench",
    )
    async with worker:
        yield BareTemporal(client, queue)


_ME = pygit2.Signature("bench", "bench@example.com")


def bare_commit(repo: Path, base: str, path: str) -> float:
    """The median of commits that change one file."""
    repository = pygit2.Repository(str(repo))
    times: list[float] = []
    for number in range(50):
        started = time.perf_counter()
        index = pygit2.Index()
        index.read_tree(repository[base].peel(pygit2.Tree))
        index.add(pygit2.IndexEntry(path, repository.create_blob(b"%d" % number), pygit2.enums.FileMode.BLOB))
        repository.create_commit(None, _ME, _ME, "bare", index.write_tree(repository), [pygit2.Oid(hex=base)])
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def bare_merges(repo: Path, base: str, heads: list[str]) -> float:
    """Milliseconds for merge commits of the heads, one on the other."""
    repository = pygit2.Repository(str(repo))
    started = time.perf_counter()
    ours = pygit2.Oid(hex=base)
    for head in heads:
        theirs = pygit2.Oid(hex=head)
        tree = repository.merge_commits(ours, theirs).write_tree(repository)
        ours = repository.create_commit(None, _ME, _ME, "bare merge", tree, [ours, theirs])
    return (time.perf_counter() - started) * 1000
