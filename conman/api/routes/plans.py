"""What a deployment would do, and what may be deployed again."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import data
from conman.domain.roles import Capability
from conman.services import environment_records, plans

router = APIRouter(prefix="/apps/{app}/environments/{env}", tags=["deployments"])
_C = Capability


class OfRelease(Body):
    """Which release it is about."""

    release_id: str = Field(max_length=64)


@router.post("/plan")
async def plan(env: str, caller: Caller = capability(_C.DEPLOYMENT_PLAN), wanted: OfRelease = body(OfRelease)) -> dict[str, Any]:
    """What a deployment of the release would do here, and what stands in its way; changes nothing."""
    return data(await plans.plan(caller.platform, caller.of_app, env, wanted.release_id))


@router.post("/clear")
async def clear(
    env: str, caller: Caller = capability(_C.ENVIRONMENT_CLEAR_RELEASE), wanted: OfRelease = body(OfRelease)
) -> dict[str, Any]:
    """Let a release that was marked bad be deployed here again."""
    await environment_records.clear(caller.platform, caller.call, caller.of_app, env, wanted.release_id)
    return data(await environment_records.environment_record(caller.platform, caller.of_app, env))
