"""Healing: a deployment that puts back what was last applied in an environment, by itself (`spec.md` 12, `drift_policy: heal`).

It needs only the environment's lock, and never waits for it. What is in place is judged at the next look: until then nobody knows
whether it holds.
"""

from __future__ import annotations

from pymongo import DESCENDING

from conman.domain.decision import Actor
from conman.domain.deployment import Deployment, Kind
from conman.domain.drift_record import DriftRecord
from conman.domain.environment import EnvironmentDefinition
from conman.domain.heal import Healing, HealLimits, healing
from conman.domain.ids import derived_uuid7
from conman.domain.in_place import in_place
from conman.domain.outgoing import audit_entry
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.services import drift
from conman.services.new_deployments import new_document, requested
from conman.store import locks, records
from conman.store.database import Database, Document

_MOST_EARLIER = 200
"""How many earlier deployments are looked at for healings: more than any limit counts."""


async def heal(db: Database, app_id: str, environment_id: str, at: str, limits: HealLimits) -> Document | None:
    """The deployment that puts back what was last applied there, to be started; None where nothing is to be done, or can be now.

    A repeat for the same look finds its own. Where healing does not hold, that is written down and told.
    """
    app = await records.get(db, "apps", app_id, what="app")
    environment = await records.get(db, "environments", environment_id, app_id=app_id, what="environment")
    listed = next((one for one in app["environments"] if one["id"] == environment_id), None)
    known, there = drift.record_of(environment), in_place(environment["owned"])
    if listed is None or app["archived"] or there is None or not drift.is_of_now(known, environment):
        return None
    deployment_id = _deployment_id(environment_id, known)
    made = await records.find(db, "deployments", deployment_id)
    if made is not None:
        return made
    policy = EnvironmentDefinition.model_validate(listed).drift_policy
    match healing(policy, known, await _healed_at(db, app_id, environment_id), at, limits):
        case Healing.STOP:
            await drift.stop_healing(db, app, environment_id, there.deployment_id, at)
            return None
        case Healing.HEAL:
            return await _put_back(db, environment, known, deployment_id, at)
        case Healing.NOTHING | Healing.WAIT:
            return None


def _deployment_id(environment_id: str, known: DriftRecord) -> str:
    """One for each look that found something."""
    return derived_uuid7(milliseconds(known.checked_at or ""), "heal", environment_id, str(known.version))


async def _healed_at(db: Database, app_id: str, environment_id: str) -> list[str]:
    """When it was healed since a person deployed there last."""
    query = {"app_id": app_id, "owned.environment_id": environment_id}
    fields = {"created_at": 1, "owned.kind": 1, "owned.state": 1}
    found: list[str] = []
    async for row in db["deployments"].find(query, fields).sort([("_id", DESCENDING)]).limit(_MOST_EARLIER):
        if row["owned"]["kind"] == Kind.HEAL.value:
            found.append(row["created_at"])
        elif row["owned"]["state"] == "succeeded":
            break
    return found


async def _put_back(db: Database, environment: Document, known: DriftRecord, deployment_id: str, at: str) -> Document | None:
    """Take the lock, if it is free, and insert the deployment; what was seen must still be in place then."""
    app_id, environment_id = environment["app_id"], environment["_id"]
    taken = await locks.take(db, app_id, {environment_id: deployment_id}, at)
    fence = taken.fences.get(environment_id)
    if fence is None:
        return None
    fault_point("heal.locked")
    present = await records.get(db, "environments", environment_id, what="environment")
    there = in_place(present["owned"])
    if there is None or not drift.is_of_now(known, present):
        await locks.release(db, app_id, environment_id, deployment_id, at)
        return None
    state = Deployment(
        app_id=app_id,
        environment_id=environment_id,
        release_id=there.release_id,
        kind=Kind.HEAL,
        requested_at=at,
        drift_report=known.report,
        profile_revision_id=there.revision_id,
        previous_deployment_id=known.deployment_id,
        job_id=derived_uuid7(milliseconds(at), "heal-job", deployment_id),
        fence=fence,
    )
    made, _ = await records.insert_once(db, "deployments", _document(state, deployment_id, at))
    fault_point("heal.inserted")
    return made


def _document(state: Deployment, deployment_id: str, at: str) -> Document:
    ids = [derived_uuid7(milliseconds(at), "heal", deployment_id, str(number), order=number) for number in range(2)]
    entry = audit_entry(ids[0], requested(deployment_id, state), app_id=state.app_id, actor=Actor(), at=at)
    return new_document(deployment_id, state, audit=[entry], job_entry_id=ids[1])
