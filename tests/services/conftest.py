"""One MongoDB; an app with a repository and a workspace of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from conman.domain.app import AppSettings
from conman.services.clock import new_id
from conman.services.platform import Platform
from conman.services.workspaces import extra_workspace
from conman.store.database import Document, ensure_indexes
from tests.services.desk import desk
from tests.services.people import Office
from tests.services.registry import Registry
from tests.services.shop import REPO, Shop
from tests.support.mongo import db, mongo_uri

__all__ = ["db", "desk", "mongo_uri"]

MadeT = TypeVar("MadeT", Office, Registry)


@pytest.fixture
async def shop(mongo_uri: str, tmp_path: Path) -> AsyncIterator[Shop]:
    app: Document = {
        "_id": new_id(),
        "name": "shop",
        "repo_path": REPO,
        "integration_branch": "main",
        "settings": AppSettings().model_dump(mode="json"),
    }
    made = Shop(mongo_uri, f"test_{uuid.uuid4().hex[:12]}", tmp_path, app)
    async with made.platform() as platform:
        await ensure_indexes(platform.db)
        await platform.git.create_repository(REPO, "main")
        await made.commit_to_main(platform, "base.txt", "one\n")
        made.workspace = await extra_workspace(platform, made.call(), app, title="work", branch_name=None, from_release_id=None)
        yield made
        await platform.db.client.drop_database(made.database)


@asynccontextmanager
async def in_own_database(made: MadeT) -> AsyncIterator[MadeT]:
    """What tests act on, with its database ready, which goes with it."""
    async with made.process() as platform:
        await ensure_indexes(platform.db)
        yield made
        await platform.db.client.drop_database(made.database)


@pytest.fixture
async def office(mongo_uri: str) -> AsyncIterator[Office]:
    async with in_own_database(Office(mongo_uri, f"test_{uuid.uuid4().hex[:12]}")) as made:
        yield made


@pytest.fixture
async def platform(office: Office) -> AsyncIterator[Platform]:
    async with office.process() as made:
        yield made


@pytest.fixture
async def registry(mongo_uri: str) -> AsyncIterator[Registry]:
    async with in_own_database(Registry(mongo_uri, f"test_{uuid.uuid4().hex[:12]}")) as made:
        yield made
