"""One MongoDB for the folder; a fresh post office for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from conman.embedded.testing import running_stack
from conman.store.database import Database, connect, ensure_indexes


@pytest.fixture(scope="package")
async def mongo_uri() -> AsyncIterator[str]:
    async with running_stack() as stack:
        yield stack.mongo_uri


@pytest.fixture
async def db(mongo_uri: str) -> AsyncIterator[Database]:
    client = connect(mongo_uri)
    name = f"test_{uuid.uuid4().hex[:12]}"
    await ensure_indexes(client[name])
    yield client[name]
    await client.drop_database(name)
    await client.close()
