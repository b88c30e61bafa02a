"""One MongoDB-protocol server for the folder, a fresh database for each test."""

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
    database = client[name]
    await ensure_indexes(database)
    yield database
    await client.drop_database(name)
    await client.close()
