"""Single commands, reads and edits, and many of them at once."""

from __future__ import annotations

import asyncio
from typing import Any

from pymongo import AsyncMongoClient

from tests.load.bench_bare import BareTemporal, bare_commit
from tests.load.bench_stack import AUTHORS, App, Draft, each, file_of
from tests.load.report import Limit, Row, Sample, row, sample, say, timed

REVIEW = {"action": "request_changes", "comment": "bench"}
EDITS = 5


async def budgets(app: App, bare: BareTemporal) -> list[Row]:
    """All rows of this module."""
    return [*await _commands(app, bare), *await _reads(app), *await _edits(app), await _submits(app)]


async def _commands(app: App, bare: BareTemporal) -> list[Row]:
    # Votes stay in a changeset's record: on several, it is as large as one that people review.
    drafts = await app.drafts(11)
    await each(drafts, Draft.judged)
    *several, one = drafts
    rob = app.stack.rob

    async def review(draft: Draft) -> None:
        await rob.call("POST", f"{draft.path}/review", json=REVIEW)

    before = await bare.updates(100)
    commands = await sample("commands with one state change", 100, lambda number: review(several[number % len(several)]))
    after = await bare.updates(100)
    burst = await sample("commands at once on one changeset", 40, lambda _: review(one), 40)
    name = "update with one activity"
    beside = {name: Sample(name, [*before.times, *after.times]).p50}
    return [
        row("command with one state change, p50", commands.p50, beside, Limit(2, name)),
        row("40 commands at once on one changeset, slowest", max(burst.times)),
    ]


async def _reads(app: App) -> list[Row]:
    draft = await app.draft()
    mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(app.stack.ready["mongo_uri"])
    changesets = mongo["conman"]["changesets"]
    bare = await sample("bare PyMongo reads", 300, lambda _: changesets.find_one({"_id": draft.id}))
    await mongo.close()
    reads = await sample("reads", 300, lambda _: draft.author.call("GET", draft.path))
    times: list[float] = []

    async def reader(number: int) -> None:
        person = app.author(number)
        times.extend([await timed(person.call("GET", draft.path)) for _ in range(20)])

    await asyncio.gather(*(reader(number) for number in range(50)))
    say(f"measured reads by 50 people at once ({len(times)} times)")
    return [
        row("read of a changeset, p50", reads.p50, {"PyMongo find_one": bare.p50}),
        row("read of a changeset, p99 at 50 concurrent", Sample("crowd", times).at(0.99), limit=Limit(500)),
    ]


async def _edits(app: App) -> list[Row]:
    ann = app.author(0)
    workspace = await app.workspace(ann)
    path = file_of(0, app.files)
    saves = await sample("file writes", 100, lambda number: app.save(ann, workspace, path, f'{{"n": {number}}}'))
    head = (await app.stack.max.call("GET", f"{app.path}/queue"))["integration_sha"]
    bare = await asyncio.to_thread(bare_commit, app.repo, head, path)
    workspaces = await each(app.stack.authors, app.workspace)
    times: list[float] = []

    async def edits(number: int) -> None:
        author, own = app.author(number), workspaces[number]
        for edit in range(EDITS):
            times.append(await timed(app.save(author, own, file_of(number, app.files), f'{{"n": {edit}}}')))

    await asyncio.gather(*(edits(number) for number in range(AUTHORS)))
    say(f"measured edits by {AUTHORS} people at once ({len(times)} times)")
    what = f"file write (one commit, {app.files} files), p50"
    return [
        row(what, saves.p50, {"pygit2 commit": bare}, Limit(20)),
        row(f"{AUTHORS} people with {EDITS} edits each, slowest edit", max(times), limit=Limit(2000)),
    ]


async def _submits(app: App) -> Row:
    drafts = await app.drafts(AUTHORS)
    jobs: list[str] = []

    async def submit(draft: Draft) -> None:
        jobs.append(await draft.submitted())

    found = await sample("submits at once", len(drafts), lambda number: submit(drafts[number]), len(drafts))
    await each(jobs, lambda job: app.ended(job, 0.1))
    return row(f"{len(drafts)} submits at once, slowest acceptance", max(found.times), limit=Limit(1000))
