"""Deployments and promotions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Query
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import PageLimit, PageNumber, data, listed
from conman.domain.deployment import Kind
from conman.domain.roles import Capability, Role
from conman.services import deploy_commands, deployments
from conman.services.deployments import Asked
from conman.services.jobs import job_record
from conman.store import records
from conman.store.database import Document

router = APIRouter(prefix="/apps/{app}", tags=["deployments"])
_C = Capability


class Deploy(Body):
    """What to put where. `skip_stage` passes stage order and `override_freeze` a freeze; either needs two approvals.

    `not_before` is RFC 3339, at most seven days ahead. With `wait` it queues behind the environment's lock.
    """

    release_id: str = Field(max_length=64)
    skip_stage: bool = False
    override_freeze: bool = False
    not_before: str | None = Field(default=None, max_length=64)
    wait: bool = False


class DeployTogether(Body):
    """What to put into several environments, in their stage order: all of them or none."""

    release_id: str = Field(max_length=64)
    environment_ids: list[str] = Field(min_length=1, max_length=50)
    skip_stage: bool = False
    override_freeze: bool = False
    not_before: str | None = Field(default=None, max_length=64)


class Revalidate(Body):
    """`overwrite`: deploy over what was touched, once the gate passes."""

    overwrite: bool = False


def _asked(wanted: Deploy | DeployTogether, kind: Kind, *, wait: bool) -> Asked:
    return Asked(
        release_id=wanted.release_id,
        kind=kind,
        skip_stage=wanted.skip_stage,
        override_freeze=wanted.override_freeze,
        not_before=wanted.not_before,
        wait=wait,
    )


async def _deploy(caller: Caller, environment_id: str, wanted: Deploy, kind: Kind) -> dict[str, Any]:
    asked = _asked(wanted, kind, wait=wanted.wait)
    made = await deployments.deploy(caller.platform, caller.call, caller.of_app, [environment_id], asked)
    shown, jobs = await _shown(caller, made)
    return data({"deployment": shown[0], "job": jobs[0]})


async def _shown(caller: Caller, made: Sequence[Document]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    present = [await _deployment(caller, row["_id"]) for row in made]
    jobs = [await records.get(caller.platform.db, "jobs", row["owned"]["job_id"], what="job") for row in present]
    return [deployments.deployment_record(row) for row in present], [job_record(job) for job in jobs]


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


@router.post("/deployments", status_code=202)
async def deploy_together(
    caller: Caller = capability(_C.DEPLOYMENT_DEPLOY), wanted: DeployTogether = body(DeployTogether)
) -> dict[str, Any]:
    """Deploy a published release to several environments: all their locks or none, one approval for the whole."""
    asked = _asked(wanted, Kind.DEPLOY, wait=False)
    made = await deployments.deploy(caller.platform, caller.call, caller.of_app, wanted.environment_ids, asked)
    shown, jobs = await _shown(caller, made)
    return data({"deployments": shown, "jobs": jobs})


@router.get("/deployments")
async def list_deployments(
    page: int = PageNumber,
    limit: int = PageLimit,
    environment_id: str | None = Query(None, max_length=64),
    state: str | None = Query(None, max_length=200),
    caller: Caller = capability(_C.DEPLOYMENT_READ),
) -> dict[str, Any]:
    """The app's deployments; those of one environment are its history."""
    query: dict[str, Any] = {"app_id": caller.of_app["_id"]}
    if environment_id is not None:
        query["owned.environment_id"] = environment_id
    states = deployments.parse_states(state)
    if states is not None:
        query["owned.state"] = {"$in": states}
    found = await records.page(caller.platform.db, "deployments", query, number=page, limit=limit)
    return listed([deployments.deployment_record(row) for row in found.items], found)


@router.get("/deployments/{d}")
async def show_deployment(d: str, caller: Caller = capability(_C.DEPLOYMENT_READ)) -> dict[str, Any]:
    """One deployment."""
    return data(deployments.deployment_record(await _deployment(caller, d)))


@router.post("/deployments/{d}/approve")
async def approve(d: str, caller: Caller = capability(_C.DEPLOYMENT_APPROVE), _: Empty = body(Empty)) -> dict[str, Any]:
    """Approve a deployment that asks for it, and those of the same request."""
    found = await _deployment(caller, d)
    await deploy_commands.approve(caller.platform, caller.call, found, caller.role or Role.USER)
    return await show_deployment(d, caller)


@router.post("/deployments/{d}/revalidate", status_code=202)
async def revalidate(
    d: str, caller: Caller = capability(_C.DEPLOYMENT_REVALIDATE), wanted: Revalidate = body(Revalidate)
) -> dict[str, Any]:
    """Have a deployment that drift blocks look again; with `overwrite` it goes over what was touched."""
    found = await _deployment(caller, d)
    await deploy_commands.revalidate(caller.platform, caller.call, found, overwrite=wanted.overwrite)
    return await show_deployment(d, caller)


@router.post("/deployments/{d}/cancel")
async def cancel(d: str, caller: Caller = capability(_C.DEPLOYMENT_CANCEL), _: Empty = body(Empty)) -> dict[str, Any]:
    """Stop a deployment that has not switched yet, and those of the same request."""
    found = await _deployment(caller, d)
    await deploy_commands.cancel(caller.platform, caller.call, found)
    return await show_deployment(d, caller)
