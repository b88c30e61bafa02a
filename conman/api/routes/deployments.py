"""Deployments and promotions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.deployment import DeploymentState, Kind
from conman.domain.errors import invalid
from conman.domain.roles import Capability
from conman.services import deployments, environments
from conman.services.jobs import job_record
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}", tags=["deployments"])
_C = Capability


class Deploy(Body):
    """What to put where; `skip_stage` passes stage order and needs two approvals."""

    release_id: str = Field(max_length=64)
    skip_stage: bool = False


async def _deploy(caller: Caller, environment_id: str, wanted: Deploy, kind: Kind) -> dict[str, Any]:
    environment = await environments.find(caller.platform, caller.of_app, environment_id)
    made = await deployments.deploy(
        caller.platform,
        caller.call,
        caller.of_app,
        environment,
        release_id=wanted.release_id,
        kind=kind,
        skip_stage=wanted.skip_stage,
    )
    return await _shown(caller, made)


async def _shown(caller: Caller, made: Document) -> dict[str, Any]:
    present = await _deployment(caller, made["_id"])
    job = await records.get(caller.platform.db, "jobs", present["owned"]["job_id"], what="job")
    return data({"deployment": deployments.deployment_record(present), "job": job_record(job)})


async def _deployment(caller: Caller, deployment_id: str) -> Document:
    return await records.get(caller.platform.db, "deployments", deployment_id, app_id=caller.of_app["_id"], what="deployment")


@router.post("/environments/{env}/deploy", status_code=202)
async def deploy(env: str, caller: Caller = capability(_C.DEPLOYMENT_DEPLOY), wanted: Deploy = body(Deploy)) -> dict[str, Any]:
    """Deploy a published release here."""
    return await _deploy(caller, env, wanted, Kind.DEPLOY)


@router.post("/environments/{env}/promote", status_code=202)
async def promote(env: str, caller: Caller = capability(_C.DEPLOYMENT_PROMOTE), wanted: Deploy = body(Deploy)) -> dict[str, Any]:
    """Promote the release that the stage before runs."""
    return await _deploy(caller, env, wanted, Kind.PROMOTE)


@router.get("/deployments")
async def list_deployments(
    page: int = PageNumber,
    limit: int = PageLimit,
    environment_id: str | None = Query(None, max_length=64),
    state: str | None = Query(None, max_length=200),
    caller: Caller = capability(_C.DEPLOYMENT_READ),
) -> dict[str, Any]:
    """The app's deployments."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    if environment_id is not None:
        query["owned.environment_id"] = environment_id
    if state is not None:
        states = [part.strip() for part in state.split(",") if part.strip()]
        for one in states:
            if one not in {known.value for known in DeploymentState}:
                raise invalid("state", f"{one!r} is no state of a deployment")
        query["owned.state"] = {"$in": states}
    found = await records.page(caller.platform.db, "deployments", query, number=page, limit=limit)
    return listed([deployments.deployment_record(row) for row in found.items], found)


@router.get("/deployments/{d}")
async def show_deployment(d: str, caller: Caller = capability(_C.DEPLOYMENT_READ)) -> dict[str, Any]:
    """One deployment."""
    return data(deployments.deployment_record(await _deployment(caller, d)))


@router.post("/deployments/{d}/approve")
async def approve(d: str, caller: Caller = capability(_C.DEPLOYMENT_APPROVE), _: Empty = body(Empty)) -> dict[str, Any]:
    """Approve an exceptional deployment."""
    found = await _deployment(caller, d)
    await deployments.approve(caller.platform, caller.call, found)
    return await show_deployment(d, caller)


@router.post("/deployments/{d}/cancel")
async def cancel(d: str, caller: Caller = capability(_C.DEPLOYMENT_CANCEL), _: Empty = body(Empty)) -> dict[str, Any]:
    """Stop a deployment that has not switched yet."""
    found = await _deployment(caller, d)
    await deployments.cancel(caller.platform, caller.call, found)
    return await show_deployment(d, caller)
