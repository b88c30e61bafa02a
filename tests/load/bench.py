"""`make bench`: latencies as ratios to the bare thing that they stand on, measured in one run."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pygit2
from pymongo import AsyncMongoClient
from rich.console import Console
from temporalio import activity, workflow
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.load import bench_git
from tests.load.bench_repository import make

PASSWORD = "a password for the bench"
TERMINAL = ("succeeded", "failed", "canceled")
console = Console()


@activity.defn
async def touch(value: int) -> int:
    """The bare activity."""
    return value + 1


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


@dataclass
class Sample:
    """Times of one thing in milliseconds."""

    name: str
    times: list[float]

    def at(self, share: float) -> float:
        """The time below which `share` of the samples are."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.times)


async def sample(name: str, count: int, work: Callable[[int], Awaitable[Any]], at_once: int = 1) -> Sample:
    """Run `work` `count` times, `at_once` side by side."""
    times: list[float] = []
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            started = time.perf_counter()
            await work(number)
            times.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(one(number) for number in range(count)))
    console.print(f"  measured {name} ({count} times)", highlight=False)
    return Sample(name, times)


class Api:
    """One person's client."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url + "/api", timeout=120, limits=httpx.Limits(max_connections=100))
        self.headers: dict[str, str] = {}

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """The `data` of a reply; anything but success ends the bench."""
        reply = await self.client.request(method, path, headers=self.headers, **more)
        if reply.status_code >= 300:
            raise SystemExit(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply.json()["data"]

    async def login(self, email: str, password: str) -> None:
        """Use this account from now on."""
        session = await self.call("POST", "/auth/login", json={"email": email, "password": password})
        self.headers = {"Authorization": f"Bearer {session['token']}"}


class Bench:
    """The stack under test, with one app, an author, a reviewer and a manager."""

    def __init__(self, ready: dict[str, Any], data: Path) -> None:
        self.ready = ready
        self.data = data
        self.admin, self.ann, self.rob, self.max = (Api(ready["api_url"]) for _ in range(4))
        self.path = ""
        self.repo = Path()

    async def prepare(self, files: int) -> None:
        """An app on a repository with `files` files."""
        self.repo = self.data / "repositories" / "bench.git"
        repository = pygit2.init_repository(str(self.repo), bare=True)
        index = pygit2.Index()
        for number in range(files):
            blob = repository.create_blob(json.dumps({"name": f"file {number}", "value": number}).encode())
            index.add(pygit2.IndexEntry(f"entities/group{number % 20}/file{number}.json", blob, pygit2.enums.FileMode.BLOB))
        me = pygit2.Signature("bench", "bench@example.com")
        repository.create_commit("refs/heads/main", me, me, "start", index.write_tree(repository), [])
        await self.admin.login(self.ready["admin_email"], self.ready["admin_password"])
        app = await self.admin.call("POST", "/apps", json={"name": "bench", "repo_path": "bench.git"})
        self.path = f"/apps/{app['id']}"
        for person, name, role in ((self.ann, "ann", "user"), (self.rob, "rob", "reviewer"), (self.max, "max", "config_manager")):
            email = f"{name}@bench.example.com"
            await self.admin.call("POST", "/users", json={"email": email, "name": name, "password": PASSWORD})
            await self.admin.call("POST", f"{self.path}/members", json={"email": email, "role": role})
            await person.login(email, PASSWORD)

    async def workspace(self) -> str:
        """A fresh workspace's path."""
        made = await self.ann.call("POST", f"{self.path}/workspaces", json={"title": "bench"})
        return f"{self.path}/workspaces/{made['id']}"

    async def large(self) -> list[bench_git.Row]:
        """The rows for an app on a repository of 10,000 files and 5,000 commits."""
        large = await asyncio.to_thread(make, self.repo.parent, "large.git", 10_000, 5_000)
        app = await self.admin.call("POST", "/apps", json={"name": "large", "repo_path": large.name})
        email = "ann@bench.example.com"
        await self.admin.call("POST", f"/apps/{app['id']}/members", json={"email": email, "role": "user"})
        made = await self.ann.call("POST", f"/apps/{app['id']}/workspaces", json={"title": "bench"})
        workspace = f"/apps/{app['id']}/workspaces/{made['id']}"
        await self.save(workspace, large.file(0), "{}")
        return await bench_git.over_http(large, self.ann, workspace)

    async def save(self, workspace: str, path: str, text: str) -> None:
        """Save one file."""
        content = base64.b64encode(text.encode()).decode()
        await self.ann.call("PUT", f"{workspace}/files", json={"path": path, "content": content})

    async def changeset(self, path: str) -> str:
        """A draft with one changed file; its path."""
        workspace = await self.workspace()
        await self.save(workspace, path, json.dumps({"changed": str(uuid.uuid4())}))
        body = {"workspace_id": workspace.rpartition("/")[2], "title": f"change {path}"}
        made = await self.ann.call("POST", f"{self.path}/changesets", json=body)
        return f"{self.path}/changesets/{made['id']}"

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's end."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            job = (await self.ann.call("GET", f"{self.path}/jobs/{job_id}"))["job"]
            if job["state"] in TERMINAL:
                return job
            await asyncio.sleep(0.01)
        raise SystemExit(f"job {job_id} does not end")

    async def submitted(self, changeset: str) -> None:
        """Submit and wait for the verdict."""
        reply = await self.ann.call("POST", f"{changeset}/submit", json={})
        job = await self.ended(reply["job"]["id"])
        if job["state"] != "succeeded":
            raise SystemExit(f"the no-op gate ended with {job['reason_code']}")

    async def queued(self, changeset: str) -> str:
        """Approve and queue what was submitted; its id."""
        await self.rob.call("POST", f"{changeset}/review", json={"action": "approve"})
        await self.ann.call("POST", f"{changeset}/queue", json={})
        return changeset.rpartition("/")[2]


async def bare_updates(address: str, count: int) -> Sample:
    """The bare Temporal update with one activity, on a worker in this process."""
    client = await Client.connect(address)
    queue = f"bench-{uuid.uuid4()}"
    async with Worker(
        client, task_queue=queue, workflows=[Bare], activities=[touch], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        start = WithStartWorkflowOperation(
            Bare.run, id=queue, task_queue=queue, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING
        )
        await client.execute_update_with_start_workflow(Bare.change, 0, start_workflow_operation=start)
        handle = client.get_workflow_handle_for(Bare.run, queue)
        found = await sample("bare update with one activity", count, lambda n: handle.execute_update(Bare.change, n))
        await handle.terminate()
    return found


def bare_git(repo: Path, heads: list[str], base: str) -> tuple[list[float], list[float]]:
    """Bare pygit2: one commit of one changed file, and merges of the heads one after the other."""
    repository = pygit2.Repository(str(repo))
    me = pygit2.Signature("bench", "bench@example.com")
    commits: list[float] = []
    for number in range(50):
        started = time.perf_counter()
        index = pygit2.Index()
        index.read_tree(repository[base].tree)
        index.add(
            pygit2.IndexEntry("entities/group0/file0.json", repository.create_blob(b"%d" % number), pygit2.enums.FileMode.BLOB)
        )
        repository.create_commit(None, me, me, "bare", index.write_tree(repository), [base])
        commits.append((time.perf_counter() - started) * 1000)
    started = time.perf_counter()
    ours = pygit2.Oid(hex=base)
    for head in heads:
        merged = repository.merge_commits(ours, pygit2.Oid(hex=head))
        ours = repository.create_commit(None, me, me, "bare merge", merged.write_tree(repository), [ours, pygit2.Oid(hex=head)])
    return commits, [(time.perf_counter() - started) * 1000]


async def measure(ready: dict[str, Any], data: Path) -> list[tuple[str, str, str, str]]:
    """All rows of the table."""
    bench = Bench(ready, data)
    await bench.prepare(200)
    rows: list[tuple[str, str, str, str]] = []

    def row(what: str, ours: float, beside: str, bare: float | None, limit: str) -> None:
        ratio = f"{ours / bare:.1f}x" if bare else ""
        rows.append((what, f"{ours:.1f} ms", f"{beside} {bare:.1f} ms = {ratio}" if bare else beside, limit))

    changeset = await bench.changeset("entities/group1/file1.json")
    await bench.submitted(changeset)
    review = {"action": "request_changes", "comment": "bench"}
    bare_one = await bare_updates(ready["temporal_address"], 100)
    command = await sample(
        "commands with one state change", 100, lambda _: bench.rob.call("POST", f"{changeset}/review", json=review)
    )
    bare_two = await bare_updates(ready["temporal_address"], 100)
    bare = Sample("bare", [*bare_one.times, *bare_two.times])
    row("command with one state change, p50", command.p50, "bare update with one activity", bare.p50, "<= 2x")

    many = await bench.changeset("entities/group2/file2.json")
    await bench.submitted(many)
    burst = await sample(
        "40 commands at once on one entity", 40, lambda _: bench.rob.call("POST", f"{many}/review", json=review), 40
    )
    row("40 commands at once on one entity, slowest", max(burst.times), "", None, "all succeed")

    mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(ready["mongo_uri"])
    changeset_id = changeset.rpartition("/")[2]
    bare_read = await sample("bare PyMongo reads", 300, lambda _: mongo["conman"]["changesets"].find_one({"_id": changeset_id}))
    read = await sample("reads", 300, lambda _: bench.ann.call("GET", changeset))
    crowd = await sample("reads, 50 at once", 1000, lambda _: bench.ann.call("GET", changeset), 50)
    await mongo.close()
    row("read of a changeset, p50", read.p50, "bare PyMongo find_one", bare_read.p50, "")
    row("read of a changeset, p99 at 50 concurrent", crowd.at(0.99), "", None, "<= 500 ms")

    workspace = await bench.workspace()
    saves = await sample("file writes", 100, lambda n: bench.save(workspace, "entities/group0/file0.json", f'{{"n": {n}}}'))
    drafts = [await bench.changeset(f"entities/group{number + 3}/file{number + 3}.json") for number in range(10)]
    verdicts = await sample("submit to verdict of a no-op gate", 10, lambda n: bench.submitted(drafts[n]))
    ids = [await bench.queued(draft) for draft in drafts]
    rows_of = [await bench.ann.call("GET", draft) for draft in drafts]
    commits, merges = await asyncio.to_thread(bare_git, bench.repo, [one["head_sha"] for one in rows_of], rows_of[0]["base_sha"])
    row("file write (one commit, 200 files), p50", saves.p50, "bare pygit2 commit", statistics.median(commits), "<= 20 ms")
    row("submit to verdict of a no-op gate, p50", verdicts.p50, "", None, "<= 450 ms")

    release = await bench.max.call("POST", f"{bench.path}/releases", json={"changeset_ids": ids})
    path = f"{bench.path}/releases/{release['id']}"
    started = time.perf_counter()
    assembly = await bench.max.call("POST", f"{path}/assemble", json={})
    await bench.ended(assembly["job"]["id"])
    assembled = (time.perf_counter() - started) * 1000
    started = time.perf_counter()
    await bench.max.call("POST", f"{path}/publish", json={})
    published = (time.perf_counter() - started) * 1000
    row("assemble 10 changesets (merges and a no-op gate)", assembled, "10 bare pygit2 merges", merges[0], "")
    row("assemble and publish 10 changesets", assembled + published, "", None, "<= 1 s")
    return [*rows, *await bench.large()]


def main() -> None:
    """Start a stack, measure, print, stop."""
    with tempfile.TemporaryDirectory(prefix="conman-bench-") as folder:
        data = Path(folder)
        ready_file = data / "ready.json"
        limits = {f"CONMAN_RATE_LIMIT_{bucket}": "1000000" for bucket in ("AUTH", "FILES", "READS", "WRITES")}
        environment = {**os.environ, **limits, "CONMAN_MSUITE_COMMAND": "true", "CONMAN_LOG_LEVEL": "warning"}
        command = [
            sys.executable,
            "-m",
            "conman",
            "up",
            "--data",
            str(data / "data"),
            "--port",
            "0",
            "--ready-file",
            str(ready_file),
        ]
        log = (data / "up.log").open("w")
        up = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        try:
            deadline = time.monotonic() + 1800
            while not ready_file.exists():
                if up.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the stack did not start:\n" + (data / "up.log").read_text())
                time.sleep(0.1)
            rows = asyncio.run(measure(json.loads(ready_file.read_text()), data / "data"))
            (data / "git").mkdir()
            rows += asyncio.run(bench_git.measure(data / "git"))
        finally:
            if up.poll() is None:
                up.send_signal(signal.SIGTERM)
            up.wait(60)
    console.print(bench_git.table("Side by side, in one run", rows))


if __name__ == "__main__":
    main()
