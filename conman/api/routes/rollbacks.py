"""Rollbacks of an environment."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, body
from conman.api.routes import data
from conman.domain.deployment import RollbackMode
from conman.domain.roles import Capability
from conman.services import rollbacks
from conman.services.deployments import deployment_record
from conman.services.jobs import job_record
from conman.services.releases import release_record
from conman.store import records

router = APIRouter(prefix="/apps/{app}/environments/{env}", tags=["deployments"])
_C = Capability


class RollBack(Body):
    """`revert_and_release` undoes the release by a new one; `redeploy_prior_tag` returns to it, with the profile it had here."""

    release_id: str = Field(max_length=64)
    mode: Literal["revert_and_release", "redeploy_prior_tag"]


@router.post("/rollback", status_code=202)
async def roll_back(
    env: str, caller: Caller = capability(_C.DEPLOYMENT_ROLL_BACK), wanted: RollBack = body(RollBack)
) -> dict[str, Any]:
    """Roll the environment back. `release` is the new one that undoes the other, null where none is made (yet)."""
    db, app = caller.platform.db, caller.of_app
    environment = await records.get(db, "environments", env, app_id=app["_id"], what="environment")
    made = await rollbacks.roll_back(caller.platform, caller.call, app, environment, wanted.release_id, RollbackMode(wanted.mode))
    deployment = await records.get(db, "deployments", made["_id"], what="deployment")
    release = await rollbacks.release_of(caller.platform, made)
    job = await records.get(db, "jobs", made["owned"]["job_id"], what="job")
    return data(
        {
            "deployment": deployment_record(deployment),
            "release": release_record(release) if release is not None else None,
            "job": job_record(job),
        }
    )
