"""The session's stack, and one world per module."""

from __future__ import annotations

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("tests.support.conman_stack", "tests.api.audited")

from tests.support.conman_stack import Stack, World, make_world, stack  # noqa: E402

__all__ = ["stack"]


@pytest_asyncio.fixture(scope="module")
async def world(stack: Stack) -> World:
    return await make_world(stack)


@pytest_asyncio.fixture(scope="module")
async def other_app(stack: Stack) -> World:
    """An app to which nobody of `world` belongs."""
    return await make_world(stack)


@pytest_asyncio.fixture
async def own(stack: Stack) -> World:
    """An app of the test's own, where nothing else is queued."""
    return await make_world(stack)
