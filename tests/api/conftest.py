"""One stack for the folder, one world per module."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from api_world import Stack, World, make_world, running_stack


@pytest_asyncio.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="conman-api-", ignore_cleanup_errors=True) as folder:
        async with running_stack(Path(folder)) as made:
            yield made


@pytest_asyncio.fixture(scope="module")
async def world(stack: Stack) -> World:
    return await make_world(stack)
