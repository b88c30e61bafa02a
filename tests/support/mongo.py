"""The embedded database of a pytest process: started once, whoever needs it first; a fresh database for each test.

    from tests.support.mongo import db, mongo_uri

in a folder's `conftest.py` gives its tests both. What a test finds must be its own: the server is shared by all folders.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest_asyncio

from conman.embedded.testing import running_stack
from conman.store.database import Database, connect, ensure_indexes

_shared: str | None = None


@pytest_asyncio.fixture(scope="session")
async def mongo_uri() -> AsyncIterator[str]:
    """The server's address; each further folder that imports this fixture gets the same server."""
    global _shared
    if _shared is not None:
        yield _shared
        return
    async with running_stack() as stack:
        _shared = stack.mongo_uri
        try:
            yield _shared
        finally:
            _shared = None


@pytest_asyncio.fixture
async def db(mongo_uri: str) -> AsyncIterator[Database]:
    client = connect(mongo_uri)
    name = f"test_{uuid.uuid4().hex[:12]}"
    await ensure_indexes(client[name])
    yield client[name]
    await client.drop_database(name)
    await client.close()
