"""Activities that look for drift (`spec.md` 12): one look at an environment, and the round through all of them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.domain.deploy_messages import (
    DriftCheckStart,
    DriftPlace,
    DriftPlaces,
    DriftQuestion,
    DriftReply,
    DriftRound,
)
from conman.domain.drift import DriftItem, drift, told
from conman.domain.drift_record import Look
from conman.domain.environment import EnvironmentDefinition
from conman.domain.errors import DomainError
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.outgoing import job_start
from conman.domain.target import Observation, Place
from conman.faults import fault_point
from conman.services import drift as drifts
from conman.services.applied import Expected, expected
from conman.services.clock import now
from conman.services.secrets import Secrets
from conman.services.vault import Vault, VaultError
from conman.store import feed, records
from conman.store.database import Database, Document
from conman.targets.base import TargetError
from conman.targets.registry import place_of

Observe = Callable[[Place, bytes], Awaitable[Observation]]
"""What is in a place, secrets as digests under the key. Raises `TargetError`."""

PLACES_PER_PAGE = 100
"""How many environments one run of a round looks at: it bounds its history."""

DIGEST_KEY_BYTES = 32


class DriftActivities:
    """Bound to the records, the master keys, and the way to targets."""

    def __init__(self, db: Database, vault: Vault, observe: Observe) -> None:
        self.db = db
        self.secrets = Secrets(db, vault)
        self.observe = observe

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.check_drift]

    @activity.defn
    async def check_drift(self, question: DriftQuestion) -> DriftReply:
        """Observe, compare, and write down what was found; a second run looks again and tells nothing twice.

        The key of the digests of secrets is made for this look, and is nowhere when it ends.
        """
        async with heartbeating():
            await self._show_attempt(question)
            return await self._look(question)

    async def _show_attempt(self, question: DriftQuestion) -> None:
        if question.job_id is not None:
            attempt = {"$set": {"attempt": question.attempt, "updated_at": question.at}, "$inc": {"version": 1}}
            await self.db["jobs"].update_one({"_id": question.job_id, "state": JobState.RUNNING.value}, attempt)
            await feed.tell_jobs(self.db, [question.job_id])

    async def _look(self, question: DriftQuestion) -> DriftReply:
        db, environment_id = self.db, question.environment_id
        before = await drifts.standing(db, question.app_id, environment_id)
        app = await records.get(db, "apps", question.app_id, what="app")
        environment = await records.get(db, "environments", environment_id, app_id=app["_id"], what="environment")
        listed = next((one for one in app["environments"] if one["id"] == environment_id), None)
        if listed is None or before.is_running:
            return _overtaken(question)
        known = drifts.record_of(environment)
        cleared = [one for one in (question.cleared_revision_id, known.cleared_revision_id) if one is not None]
        key = secrets.token_bytes(DIGEST_KEY_BYTES)
        place = place_of(app, EnvironmentDefinition.model_validate(listed))
        try:
            should = await expected(self.secrets, app, environment, question, key, cleared)
            seen = await self.observe(place, key) if should.applied is not None else Observation()
        except TargetError as error:
            return await self._nobody_could_look(app, question, before, error.reason, error.message)
        except VaultError as error:
            return await self._nobody_could_look(app, question, before, ReasonCode.INFRASTRUCTURE, str(error))
        except DomainError as error:
            return await self._nobody_could_look(app, question, before, ReasonCode.RUNNER_ERROR, error.message)
        fault_point("drift.observed")
        after = await drifts.standing(db, app["_id"], environment_id)
        if not drifts.holds(before, after, question.deployment_id):
            return _overtaken(question)
        report = _report(should, seen, coming=question.deployment_id is not None)
        written = await drifts.note(
            db,
            app,
            Look(
                environment_id=environment_id,
                at=question.at,
                deployment_id=should.deployment_id,
                deployment=should.deployment,
                revision_number=should.revision_number,
                report=_report(should, seen, coming=False),
                cleared_revision_id=question.cleared_revision_id,
                job_id=question.job_id,
                is_told=question.deployment_id is not None and bool(report),
            ),
        )
        if written is None:
            return _overtaken(question)
        return DriftReply(
            report=report,
            emergency_revision_id=should.emergency.revision_id if should.emergency is not None else None,
            checked_at=question.at,
            first_seen_at=written.first_seen_at,
            last_clean_at=written.last_clean_at,
        )

    async def _nobody_could_look(
        self, app: Document, question: DriftQuestion, before: drifts.Standing, reason: ReasonCode, problem: str
    ) -> DriftReply:
        after = await drifts.standing(self.db, app["_id"], question.environment_id)
        if not drifts.holds(before, after, question.deployment_id):
            return _overtaken(question)
        seen = Look(
            environment_id=question.environment_id,
            at=question.at,
            deployment_id=before.deployment_id,
            deployment=None,
            revision_number=None,
            report=[],
            problem=problem,
        )
        await drifts.note(self.db, app, seen)
        return DriftReply(checked_at=question.at, problem=problem, reason_code=reason)


class DriftRecordActivities:
    """Bound to the records alone: what jobs and rounds ask of them."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.begin_drift_check, self.drift_places]

    @activity.defn
    async def begin_drift_check(self, start: DriftCheckStart) -> bool:
        """The job runs from now on; False when it has ended, or ran in another history, which is lost (`durability.md` 20)."""
        run_id = activity.info().workflow_run_id
        begun = await self.db["jobs"].find_one_and_update(
            {"_id": start.job_id, "state": JobState.QUEUED.value},
            {"$set": {**job_start(now()), "run_id": run_id}, "$inc": {"version": 1}},
        )
        await feed.tell_jobs(self.db, [start.job_id])
        fault_point("drift.begun")
        running = {"_id": start.job_id, "state": JobState.RUNNING.value, "run_id": run_id}
        return begun is not None or await self.db["jobs"].find_one(running, {"_id": 1}) is not None

    @activity.defn
    async def drift_places(self, page: DriftRound) -> DriftPlaces:
        """The next environments of apps that are not archived in which something is deployed, in the order of their ids."""
        something = [{f"owned.{name}": {"$ne": None}} for name in ("applied_deployment_id", "current_deployment_id")]
        query = {"_id": {"$gt": page.after}, "archived": False, "$or": something}
        rows = await self.db["environments"].find(query, {"app_id": 1}).sort("_id").limit(PLACES_PER_PAGE).to_list()
        app_ids = sorted({row["app_id"] for row in rows})
        open_apps = {row["_id"] async for row in self.db["apps"].find({"_id": {"$in": app_ids}, "archived": False}, {"_id": 1})}
        places = [DriftPlace(app_id=row["app_id"], environment_id=row["_id"]) for row in rows if row["app_id"] in open_apps]
        return DriftPlaces(places=places, last=rows[-1]["_id"] if len(rows) == PLACES_PER_PAGE else None)


def _report(should: Expected, seen: Observation, *, coming: bool) -> list[DriftItem]:
    """What differs, as it may be told; with `coming`, but for what the asking deployment sets to what is there already."""
    found = told(drift(should.applied, seen, should.coming if coming else None), should.secrets)
    return [*found, should.emergency.item] if should.emergency is not None else found


def _overtaken(question: DriftQuestion) -> DriftReply:
    return DriftReply(checked_at=question.at, overtaken=True)
