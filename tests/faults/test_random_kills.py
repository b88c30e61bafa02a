"""`kill -9` of the worker at random moments of the whole journey, each from a seed: it ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import faults_invariants as invariants
import pytest
from faults_app import App
from faults_invariants import DEPLOYED, DEPLOYED_ONCE, PROMOTED, RELEASED

from tests.support.sizes import size

JOURNEY_SECONDS = 3.0
"""How long the journey takes when nothing dies, roughly: the first kill is somewhere in it, the second one after the first."""


async def journey(app: App) -> tuple[str, list[str]]:
    """From two edits to a release in two environments."""
    queued = [await app.queued(), await app.queued()]
    release = await app.validated(queued)
    await app.publish(release)
    deployments: list[str] = []
    for environment in (0, 1):
        reply = await app.deploy(release, environment)
        await app.job_ends(reply["job"]["id"])
        deployments.append(reply["deployment"]["id"])
    return release, deployments


async def killed_twice(app: App, *, seed: int) -> None:
    chance = random.Random(seed)
    delays = [chance.uniform(0, JOURNEY_SECONDS), chance.uniform(0, 2 * JOURNEY_SECONDS)]
    worker = await app.cell.worker()
    travelling = asyncio.create_task(journey(app))
    try:
        for delay in delays:
            await asyncio.wait([travelling], timeout=delay)
            await worker.kill()
            worker = await app.cell.worker()
        release, (first, second) = await travelling
    finally:
        travelling.cancel()
    await invariants.check(
        app,
        changesets=dict.fromkeys(app.changesets, RELEASED),
        releases={release: DEPLOYED_ONCE},
        deployments={first: DEPLOYED, second: PROMOTED},
    )


CASES: dict[str, Callable[[App], Awaitable[None]]] = {
    f"seed-{seed}": partial(killed_twice, seed=seed) for seed in range(1, 1 + size(1, 4))
}


@pytest.mark.parametrize("case", CASES)
async def test_the_journey_survives_two_kills(case: str, side_by_side: Callable[[str], Awaitable[None]]) -> None:
    await side_by_side(case)
