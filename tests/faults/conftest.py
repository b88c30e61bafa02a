"""One pair of servers per session; in each module the cases run side by side, since they mostly wait for timeouts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("faults_processes", "faults_app", "faults_direct", "faults_invariants")

from faults_app import App, running_app  # noqa: E402
from faults_direct import Direct, direct_on  # noqa: E402
from faults_processes import World  # noqa: E402

AT_ONCE = 4
"""Cases that run side by side on two cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kill)


@pytest_asyncio.fixture(scope="session")
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="conman-faults-", ignore_cleanup_errors=True) as folder:
        async with World(Path(folder)) as made:
            yield made


@pytest_asyncio.fixture
async def app(world: World) -> AsyncIterator[App]:
    """A cell with an app, for a test that runs alone."""
    async with world.cell() as cell, running_app(cell) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def direct(world: World) -> AsyncIterator[Direct]:
    """Activities to be called one by one, in a cell with an app."""
    async with world.cell() as cell, running_app(cell) as app, direct_on(app) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def side_by_side(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Wait for one of the module's `CASES`; the first test starts all that were selected, each with an app of its own."""
    slots = asyncio.Semaphore(AT_ONCE)
    cases = request.module.CASES
    chosen = [item.callspec.params["case"] for item in request.session.items if _is_case(item, request.module)]

    async def run(name: str) -> None:
        async with slots, world.cell() as cell, running_app(cell) as app:
            await cases[name](app)

    tasks = {name: asyncio.create_task(run(name)) for name in chosen}

    async def wait(name: str) -> None:
        await tasks[name]

    yield wait
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


def _is_case(item: pytest.Item, module: object) -> bool:
    return getattr(item, "module", None) is module and "case" in getattr(getattr(item, "callspec", None), "params", {})
