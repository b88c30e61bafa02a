"""From a submit to a published release, and what a publish makes of those that stay in the queue."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from tests.load.bench_bare import BareTemporal, bare_merges
from tests.load.bench_stack import PATIENCE_SECONDS, App, Draft
from tests.load.report import Limit, Row, row, sample, say, timed

SWEEP_AT_ONCE = 4
"""The default of an app's `revalidation_concurrency`: as many bare no-op workflows run beside a sweep."""


@dataclass(frozen=True)
class Published:
    """One release: milliseconds of its assembly, its publish, the bare merges, and the sweep of `swept` changesets after it."""

    members: int
    assembled: float
    published: float
    merges: float
    swept: int
    sweep: float

    @property
    def released(self) -> float:
        """Assembly and publish."""
        return self.assembled + self.published


async def verdicts(app: App, count: int) -> tuple[float, list[Draft]]:
    """The median from submit to verdict, one after the other; the drafts, which are not queued."""
    drafts = await app.drafts(count)
    found = await sample("submit to verdict of a no-op suite", count, lambda number: drafts[number].judged())
    return found.p50, drafts


async def release(app: App, members: int) -> Published:
    """Assemble and publish the first `members` of the queue, and wait until all others are judged again."""
    manager = app.stack.max
    chosen, app.queue = app.queue[:members], app.queue[members:]
    ids = [path.rpartition("/")[2] for path in chosen]
    made = await manager.call("POST", f"{app.path}/releases", json={"changeset_ids": ids})
    path = f"{app.path}/releases/{made['id']}"
    started = time.perf_counter()
    assembly = await manager.call("POST", f"{path}/assemble", json={})
    await app.ended(assembly["job"]["id"])
    assembled = (time.perf_counter() - started) * 1000
    candidate = await manager.call("GET", path)
    published = await timed(_publish(app, path))
    sweep = await timed(_swept(app, candidate["candidate_sha"]))
    rows = await asyncio.gather(*(manager.call("GET", one) for one in chosen))
    heads = [one["head_sha"] for one in rows]
    merges = await asyncio.to_thread(bare_merges, app.repo, candidate["base_sha"], heads)
    say(f"published {members}, judged {len(app.queue)} again")
    return Published(members, assembled, published, merges, len(app.queue), sweep)


async def _publish(app: App, path: str) -> None:
    """Published when its record says so, which is as a rule the reply's."""
    present = (await app.stack.max.call("POST", f"{path}/publish", json={}))["release"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while present["state"] != "published":
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} is not published: {present}")
        await asyncio.sleep(0.01)
        present = await app.stack.max.call("GET", path)


async def _swept(app: App, integration_sha: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        queue: dict[str, Any] = await app.stack.max.call("GET", f"{app.path}/queue")
        statuses = [item["status"] for item in queue["items"]]
        if queue["integration_sha"] == integration_sha and "running" not in statuses:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"the sweep does not end: {queue['progress']}")
        await asyncio.sleep(0.05)
    if len(statuses) != len(app.queue) or set(statuses) - {"valid"}:
        raise SystemExit(f"{len(app.queue)} should be valid in the queue, which says {sorted(set(statuses))} of {len(statuses)}")


def released_row(found: Published, where: str, limit: Limit | None = None) -> Row:
    """Assembly and publish, beside bare merges."""
    what = f"assemble and publish {found.members} changesets, {where}"
    return row(what, found.released, {f"{found.members} pygit2 merges": found.merges}, limit)


async def sweep_row(found: Published, bare: BareTemporal, where: str, limit: Limit | None = None) -> Row:
    """The sweep, beside as many bare no-op workflows."""
    bare_time = await bare.no_ops_at_once(found.swept, SWEEP_AT_ONCE)
    return row(f"{found.swept} revalidated after a publish, {where}", found.sweep, {"no-op workflows": bare_time}, limit)


async def budgets(app: App, bare: BareTemporal) -> list[Row]:
    """The rows with limits: releases of ten from queues of 50 and 150."""
    no_op = (await bare.no_ops(20)).p50
    median, drafts = await verdicts(app, 10)
    for draft in drafts:
        await draft.queued()
    rows = [row("submit to verdict of a no-op suite, p50", median, {"no-op workflow": no_op}, Limit(450))]
    for length, limit in ((50, Limit(10_000)), (150, Limit(60_000))):
        await app.fill(length)
        found = await release(app, 10)
        where = f"{length} queued"
        rows.append(released_row(found, where, Limit(1000)))
        rows.append(await sweep_row(found, bare, where, limit))
    return rows
