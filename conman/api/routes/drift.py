"""Drift of environments: looking for it on demand, and taking it over."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from conman.api.access import Caller, capability
from conman.api.body import Body, Empty, body
from conman.api.routes import data
from conman.domain.roles import Capability
from conman.services import changeset_records, drift, drift_fix, environments
from conman.services.jobs import job_record

router = APIRouter(prefix="/apps/{app}", tags=["environments"])
_C = Capability


class DriftFix(Body):
    """Whose report to take over: that of a deployment which the drift blocks, else that of the last look."""

    deployment_id: str | None = Field(default=None, max_length=64)


@router.post("/environments/{env}/drift-check", status_code=202)
async def check_drift(
    env: str, caller: Caller = capability(_C.ENVIRONMENT_DRIFT_CHECK), _: Empty = body(Empty)
) -> dict[str, Any]:
    """Look whether the environment is as it was left; the job's result has the report."""
    environment = await environments.find(caller.platform, caller.of_app, env)
    job = await drift.start_check(caller.platform, caller.call, caller.of_app, environment)
    return data({"job": job_record(job)})


@router.post("/environments/{env}/create-drift-fix-changeset", status_code=201)
async def create_drift_fix(
    env: str, caller: Caller = capability(_C.ENVIRONMENT_DRIFT_FIX), wanted: DriftFix = body(DriftFix)
) -> dict[str, Any]:
    """A draft on a workspace of its own whose overrides take over what was observed."""
    environment = await environments.find(caller.platform, caller.of_app, env)
    made = await drift_fix.create(caller.platform, caller.call, caller.of_app, environment, wanted.deployment_id)
    return data({"changeset": await changeset_records.shown(caller.platform, caller.of_app, made["_id"])})
