"""Migrations that ran in an environment."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from conman.api.access import Caller, capability
from conman.api.routes import PageLimit, PageNumber, listed
from conman.domain.roles import Capability
from conman.services import environments, migrations

router = APIRouter(prefix="/apps/{app}/environments/{env}/migrations", tags=["environments"])


@router.get("")
async def list_migrations(
    env: str, page: int = PageNumber, limit: int = PageLimit, caller: Caller = capability(Capability.ENVIRONMENT_READ)
) -> dict[str, Any]:
    """The recorded executions, newest first."""
    environment = await environments.find(caller.platform, caller.of_app, env)
    found = await migrations.page(caller.platform, environment, page, limit)
    return listed([migrations.execution_record(row) for row in found.items], found)
