"""Many changesets are queued and five releases published in quick succession, while workers die: each ends as its files say.

The 150 of `make thorough` take about two and a half minutes on a quiet machine, most of it to get into the queue.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import faults_invariants as invariants
import pytest
from faults_app import App
from faults_invariants import CONFLICTED, FAILED, PUBLISHED, QUEUED, RELEASED, git
from faults_processes import until
from temporalio.client import Client

from tests.support.sizes import size

QUEUED_AT_FIRST = size(14, 150)
RELEASES = 5
MEMBERS = 2
AT_ONCE = 8
"""Changesets that are brought into the queue at once."""
STORM_SECONDS = 240.0

SUITE = """#!/bin/sh
# Two files that quarrel can't stand together; each is fine alone.
test "$(find . -name '*.quarrel' | wc -l)" -lt 2
"""


@dataclass
class Storm:
    """The changesets by what becomes of them."""

    released: list[list[str]] = field(default_factory=lambda: [[] for _ in range(RELEASES)])
    clashing: list[str] = field(default_factory=list[str])
    quarreling: list[str] = field(default_factory=list[str])
    fine: list[str] = field(default_factory=list[str])


def plan() -> list[tuple[str, str, str, int]]:
    """Kind, path, content and release of each changeset, in the order in which they are made."""
    members = [("released", f"entities/r{number}.json", str(number), number // MEMBERS) for number in range(RELEASES * MEMBERS)]
    members[2] = ("released", "first.quarrel", "x", 1)  # what quarrels is judged on three later heads too
    members[6] = ("released", "entities/shared.json", '"released"', 3)
    clashing = [("clashing", "entities/shared.json", f'"clash {number}"', 0) for number in range(4)]
    quarreling = [("quarreling", f"later{number}.quarrel", "x", 0) for number in range(3)]
    others = QUEUED_AT_FIRST - len(members) - len(clashing) - len(quarreling)
    return [*members, *clashing, *quarreling, *(("fine", f"entities/f{number}.json", str(number), 0) for number in range(others))]


async def queued(app: App, path: str, content: str) -> str:
    """A changeset with one file, brought into the queue."""
    workspace = await app.ann.post(f"{app.path}/workspaces", {"title": path})
    body = {"path": path, "content": base64.b64encode(content.encode()).decode()}
    await app.ann.put(f"{app.path}/workspaces/{workspace['id']}/files", body)
    made = await app.ann.post(f"{app.path}/changesets", {"workspace_id": workspace["id"], "title": path}, key=uuid4().hex)
    await app.job_ends((await app.submit(made["id"]))["job"]["id"])
    await app.approve(made["id"])
    await app.enqueue(made["id"])
    return made["id"]


async def all_queued(app: App) -> Storm:
    storm, slots = Storm(), asyncio.Semaphore(AT_ONCE)

    async def bring(kind: str, path: str, content: str, release: int) -> None:
        async with slots:
            changeset = await queued(app, path, content)
        (storm.released[release] if kind == "released" else getattr(storm, kind)).append(changeset)

    await asyncio.gather(*(bring(*one) for one in plan()))
    return storm


async def some_are_judged(app: App, epoch: int) -> None:
    async def judged() -> bool:
        queue = await app.queue()
        return queue["epoch"] > epoch or (queue["epoch"] == epoch and queue["progress"]["done"] > 0)

    await until(f"the first verdicts of epoch {epoch}", judged)


async def is_made(app: App, number: int) -> bool:
    return len(app.releases) == number


async def published(app: App, members: list[str]) -> str:
    release = await app.validated(members)
    await app.publish(release)
    return release


@pytest.mark.timeout(1200)
async def test_every_changeset_ends_with_the_verdict_of_the_last_head(app: App) -> None:
    app.cell.suite.write_text(SUITE, encoding="utf-8")
    worker = await app.cell.worker()
    storm = await all_queued(app)
    releases = [await published(app, storm.released[0])]
    await some_are_judged(app, 1)
    releases.append(await published(app, storm.released[1]))
    await some_are_judged(app, 2)
    await worker.kill()  # in the middle of suites and of their verdicts
    worker = await app.cell.worker()
    releases.append(await published(app, storm.released[2]))
    fourth = asyncio.create_task(published(app, storm.released[3]))
    try:
        await until("the fourth release to be made", partial(is_made, app, 4))
        await worker.kill()  # in the middle of its assembly, and of the sweep of the third
        worker = await app.cell.worker()
        releases.append(await fourth)
    finally:
        fourth.cancel()
    releases.append(await published(app, storm.released[4]))

    async def all_verdicts_are_in() -> bool:
        queue = await app.queue()
        return queue["epoch"] == RELEASES and queue["progress"]["done"] == queue["progress"]["total"]

    await until("all verdicts on the last head", all_verdicts_are_in, STORM_SECONDS)
    await the_end_is_as_the_files_say(app, storm, releases)


async def the_end_is_as_the_files_say(app: App, storm: Storm, releases: list[str]) -> None:
    changesets: dict[str, tuple[str, ...]] = {}
    released = [one for members in storm.released for one in members]
    kinds = ((storm.fine, QUEUED), (storm.quarreling, FAILED), (storm.clashing, CONFLICTED), (released, RELEASED))
    for found, events in kinds:
        changesets |= dict.fromkeys(found, events)
    await invariants.check(app, changesets=changesets, releases=dict.fromkeys(releases, PUBLISHED))
    head = (await git(app, "rev-parse", "main")).strip()
    queue = await app.db["queues"].find_one({"_id": app.id})
    assert queue is not None
    listed = {entry["changeset_id"]: (entry["status"], entry["judged_sha"]) for entry in queue["owned"]["entries"]}
    assert listed == dict.fromkeys(storm.fine, ("valid", head)) | dict.fromkeys(storm.quarreling, ("failed", head))
    verdicts = app.db["audit"].find({"app_id": app.id, "action": "revalidated"})
    judged = Counter([(row["entity_id"], row["after"]["integration_sha"]) async for row in verdicts])
    assert max(judged.values()) == 1, "no changeset is judged twice on one head"
    await nothing_runs_on(app)


async def nothing_runs_on(app: App) -> None:
    """Of all processes only those of records that live on are left."""
    client = await Client.connect(app.cell.world.stack.temporal_address, namespace=app.cell.name)

    async def others() -> bool:
        running = Counter([row.workflow_type async for row in client.list_workflows("ExecutionStatus = 'Running'")])
        return not [kind for kind in running if kind not in ("queue", "changeset", "upkeep")]

    await until("gates, sweeps and assemblies to be over", others)
