"""Activities run in the test's own process, where a fault point raises instead of killing; and what they leave, to compare."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from faults_app import App, Document
from temporalio.testing import ActivityEnvironment

from conman.activities.calls import CallActivities
from conman.activities.composing import ComposeActivities
from conman.activities.deploying import DeployingActivities
from conman.activities.deployments import DeploymentActivities
from conman.activities.drift import DriftRecordActivities
from conman.activities.gates import GateActivities
from conman.activities.git import GitActivities
from conman.activities.publishing import PublishActivities
from conman.activities.reconcile import ReconcileActivities
from conman.activities.store import StoreActivities
from conman.activities.targets import TargetActivities
from conman.domain.changeset import Changeset
from conman.domain.changeset_submit import SubmitFacts, decide_submit
from conman.domain.decision import Actor, Decision, Owned, Remembered
from conman.domain.deploy_ending import Ending, decide_end
from conman.domain.deployment import Deployment, DeploymentState, Kind, Move, Phase
from conman.domain.ids import random_uuid7
from conman.domain.jobs import ReasonCode
from conman.domain.messages import EndDeployment, PersistRequest
from conman.domain.outgoing import outgoing_entries
from conman.domain.release import Member, Release
from conman.domain.times import milliseconds
from conman.services.clock import now
from conman.services.platform import Platform, make_platform
from conman.store import locks
from conman.worker import make_workers
from conman.workflows.options import Queue
from tests.support.crashes import crash_at

REST_SECONDS = 30.0
"""How long what runs beside an activity may take to come to rest."""

WITHOUT_MEANING = {"workers", "idempotency", "sessions"}
"""Collections that say nothing of the app."""


def fresh_id() -> str:
    return random_uuid7(milliseconds(now()))


@dataclass
class Direct:
    """The activities of an app, its records and its repository, without a worker."""

    app: App
    platform: Platform
    released: Release
    queued: list[str]
    """Changesets that wait in the queue."""

    def __post_init__(self) -> None:
        settings, db, git = self.platform.settings, self.platform.db, self.platform.git
        self.db = db
        self.git = git
        self.repo = self.app.repo_path
        self.store = StoreActivities(db)
        self.on_git = GitActivities(db, git)
        self.composing = ComposeActivities(db, git)
        self.publishing = PublishActivities(db, git)
        self.targets = TargetActivities(settings, db, git, self.platform.vault)
        self.gates = GateActivities(settings, db, git, self.platform.vault)
        self.calls = CallActivities(self.platform.commands.client, db)
        self.deploying = DeployingActivities(db)
        self.deployments = DeploymentActivities(db)
        self.drift_records = DriftRecordActivities(db)
        self.reconcile = ReconcileActivities(db, self.platform.commands, self.platform, self.platform.git)

    def activities(self) -> list[str]:
        """The names of all that a worker registers."""
        workers = make_workers(self.platform, set(Queue))
        return [activity.__name__ for worker in workers for activity in worker.config()["activities"]]

    async def run(self, activity: Any, *arguments: Any) -> Any:
        return await ActivityEnvironment().run(activity, *arguments)

    async def twice(self, activity: Any, *arguments: Any, crash: str | None = None) -> Any:
        """Crash where told, run it as Temporal would again, and once more: the last run must change nothing and say the same.

        A worker of the test may be at its upkeep beside it: then the last run is judged once that has come to rest.
        """
        if crash is not None:
            with crash_at(crash):
                await self.run(activity, *arguments)
        first = await self.run(activity, *arguments)
        until = time.monotonic() + REST_SECONDS
        while True:
            before = await self.everything()
            second = await self.run(activity, *arguments)
            after = await self.everything()
            if after == before or time.monotonic() > until:
                break
        assert after == before
        return first, second

    async def everything(self) -> dict[str, Any]:
        """All records and refs."""
        names = sorted(set(await self.db.list_collection_names()) - WITHOUT_MEANING)
        found: dict[str, Any] = {}
        for name in names:
            rows = await self.db[name].find({}).to_list()
            found[name] = sorted(rows, key=lambda row: str(row["_id"]))
        found["refs"] = await self.git.list_refs(self.repo, "refs/")
        return found

    # Requests, as workflows make them.

    def persist(self, collection: str, entity_id: str, before: Owned, decision: Decision[Any]) -> PersistRequest:
        command_id = f"direct:{entity_id}"
        after = decision.owned.model_copy(update={"version": before.version + 1, "commands": [Remembered(id=command_id)]})
        at = now()
        return PersistRequest(
            collection=collection,
            entity_id=entity_id,
            expected_version=before.version,
            command_id=command_id,
            owned=after.model_dump(mode="json"),
            outgoing=outgoing_entries(
                decision,
                app_id=self.app.id,
                entity=f"{collection}:{entity_id}",
                version=after.version,
                actor=Actor(),
                at=at,
                workflow_id="direct",
            ),
            at=at,
        )

    async def submission(self) -> PersistRequest:
        """The write of a submit, on a draft of its own: an audit event and a job go out."""
        changeset = await self.app.draft()
        row = await self.db["changesets"].find_one({"_id": changeset})
        assert row is not None
        before = Changeset.model_validate(row["owned"])
        sha = self.released.published_sha or ""
        facts = SubmitFacts(
            head_sha=sha,
            base_sha=sha,
            integration_sha=sha,
            changed_files=1,
            job_id=fresh_id(),
            at=now(),
            required_approvals=1,
        )
        return self.persist("changesets", changeset, before, decide_submit(changeset, before, facts, None, again=False))

    async def deployment(self, state: DeploymentState = DeploymentState.PENDING) -> tuple[str, Deployment]:
        """A deployment of the published release, with the lock of its environment."""
        environment, deployment = self.app.environments[0]["id"], fresh_id()
        at = now()
        taken = await locks.take(self.db, self.app.id, {environment: deployment}, at)
        assert taken.holder is None, taken
        release = await self.db["releases"].find_one({"owned.tag": self.released.tag})
        assert release is not None
        owned = Deployment(
            app_id=self.app.id,
            environment_id=environment,
            release_id=release["_id"],
            kind=Kind.DEPLOY,
            state=state,
            phase=Phase.VERIFY if state is DeploymentState.RUNNING else Phase.LOCK,
            requested_by="direct",
            requested_at=at,
            job_id=fresh_id(),
            fence=taken.fences[environment],
        )
        await self.db["jobs"].insert_one({"_id": owned.job_id, "app_id": self.app.id, "state": "running", "version": 1})
        await self.db["deployments"].insert_one(
            {
                "_id": deployment,
                "app_id": self.app.id,
                "release_id": release["_id"],
                "owned": owned.model_dump(mode="json"),
                "outgoing": [],
            }
        )
        return deployment, owned

    async def ending(self) -> EndDeployment:
        """The success of a deployment."""
        deployment, before = await self.deployment(DeploymentState.RUNNING)
        ending = Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK, folder="current")
        decision = decide_end(deployment, before, ending)
        return EndDeployment(
            persist=self.persist("deployments", deployment, before, decision),
            app_id=self.app.id,
            environment_id=before.environment_id,
            release_id=before.release_id,
            deployment_id=deployment,
            ending=ending,
            requested_by=before.requested_by,
        )

    async def draft_release(self) -> str:
        """The record of a release that has no tag yet."""
        at, release = now(), fresh_id()
        owned = Release(app_id=self.app.id).model_dump(mode="json")
        await self.db["releases"].insert_one({"_id": release, "app_id": self.app.id, "created_at": at, "owned": owned})
        return release

    async def members(self) -> list[Member]:
        """The queued changesets as a release holds them."""
        queue = await self.db["queues"].find_one({"_id": self.app.id})
        assert queue is not None
        return [Member.model_validate(entry) for entry in queue["owned"]["entries"]]

    async def row(self, collection: str, record: str) -> Document:
        found = await self.db[collection].find_one({"_id": record})
        assert found is not None
        return found


@asynccontextmanager
async def direct_on(app: App) -> AsyncIterator[Direct]:
    """An app with a published release and two changesets in its queue; its worker is gone."""
    worker = await app.cell.worker()
    release = await app.published()
    queued = [await app.queued(), await app.queued()]
    await worker.kill()
    platform = await make_platform(app.cell.settings())
    try:
        row = await platform.db["releases"].find_one({"_id": release})
        assert row is not None
        yield Direct(app, platform, Release.model_validate(row["owned"]), queued)
    finally:
        await platform.close()
