"""Fixtures that run a test once per adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from git_harness import HARNESSES, Harness, Repo

from tests.support.mongo import mongo_uri

__all__ = ["mongo_uri"]


@pytest.fixture(params=list(HARNESSES))
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    async with HARNESSES[request.param](tmp_path) as made:
        yield made


@pytest.fixture
async def repo(harness: Harness) -> Repo:
    await harness.git.create_repository("team/app.git", "main")
    return Repo(harness, "team/app.git", count(1))
