"""Two time-skipping servers per session; each test has workers, task queues and ids of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest_asyncio
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from workflow_world import World, running_world

from conman.embedded.testing import time_skipping_environment
from conman.workflows import options

_numbers = count(1)


@asynccontextmanager
async def _server() -> AsyncIterator[WorkflowEnvironment]:
    async with await time_skipping_environment(data_converter=pydantic_data_converter) as env:
        keywords = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in options.SEARCH_ATTRIBUTES}
        request = AddSearchAttributesRequest(namespace=env.client.namespace, search_attributes=keywords)
        await env.client.operator_service.add_search_attributes(request)
        yield env


@pytest_asyncio.fixture(scope="session")
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with _server() as env:
        yield env


@pytest_asyncio.fixture(scope="session")
async def skipping_env() -> AsyncIterator[WorkflowEnvironment]:
    """A server whose clock jumps: it does so only while nothing is under way there, so every test ends all that it started."""
    async with _server() as env:
        yield env


@pytest_asyncio.fixture
async def world(env: WorkflowEnvironment) -> AsyncIterator[World]:
    async with running_world(env, next(_numbers)) as world:
        yield world


@pytest_asyncio.fixture
async def skipping_world(skipping_env: WorkflowEnvironment) -> AsyncIterator[World]:
    """For tests that wait for the result of all that they start: there time skips to the next timer."""
    async with running_world(skipping_env, next(_numbers)) as world:
        yield world
