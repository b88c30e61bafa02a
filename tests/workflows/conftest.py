"""Time-skipping servers; each test has workers, task queues and ids of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import count

import pytest_asyncio
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.testing import WorkflowEnvironment
from workflow_world import World, running_world

from conman.embedded.cache import Cache
from conman.embedded.temporal import find_temporal
from conman.embedded.testing import say, time_skipping_environment
from conman.workflows import options
from conman.workflows.codec import KeyringCodec, data_converter

_numbers = count(1)


@asynccontextmanager
async def _server() -> AsyncIterator[WorkflowEnvironment]:
    async with await time_skipping_environment(data_converter=data_converter(KeyringCodec({}))) as env:
        keywords = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in options.SEARCH_ATTRIBUTES}
        request = AddSearchAttributesRequest(namespace=env.client.namespace, search_attributes=keywords)
        await env.client.operator_service.add_search_attributes(request)
        yield env


@pytest_asyncio.fixture(scope="session")
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with _server() as env:
        yield env


@pytest_asyncio.fixture(scope="session")
async def dev_server() -> AsyncIterator[WorkflowEnvironment]:
    """The server that `conman up` runs, for what the one that skips time does not do as a real one does."""
    binary = await find_temporal(Cache(), say)
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(binary), search_attributes=options.SEARCH_ATTRIBUTES, dev_server_log_level="error"
    ) as env:
        yield env


class SkippingServer:
    """A server whose clock jumps, shared by tests for as long as it does.

    It jumps only while nothing is under way there, and an activity that outlives its workflow (one that was canceled while it
    ran) stays under way for good: the clock has stopped then, and the next test needs another server.
    """

    PATIENCE_SECONDS = 3.0
    """A clock that jumps does so in milliseconds; a wrong guess costs a start of a server, never a test."""

    def __init__(self) -> None:
        self._started = AsyncExitStack()
        self._env: WorkflowEnvironment | None = None

    async def env(self) -> WorkflowEnvironment:
        if self._env is None:
            self._env = await self._started.enter_async_context(_server())
        return self._env

    async def look(self) -> None:
        """Give the server up when its clock no longer jumps."""
        if self._env is None:
            return
        try:
            async with asyncio.timeout(self.PATIENCE_SECONDS):
                await self._env.sleep(timedelta(hours=1))
        except TimeoutError:
            await self.close()

    async def close(self) -> None:
        self._env = None
        await self._started.aclose()


@pytest_asyncio.fixture(scope="session")
async def skipping_server() -> AsyncIterator[SkippingServer]:
    server = SkippingServer()
    yield server
    await server.close()


@pytest_asyncio.fixture
async def world(env: WorkflowEnvironment) -> AsyncIterator[World]:
    async with running_world(env, next(_numbers)) as world:
        yield world


@pytest_asyncio.fixture
async def skipping_world(skipping_server: SkippingServer) -> AsyncIterator[World]:
    """For tests that wait for the result of all that they start: there time skips to the next timer."""
    async with running_world(await skipping_server.env(), next(_numbers)) as world:
        yield world
    await skipping_server.look()
