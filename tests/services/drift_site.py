"""The environment QA of the desk's app, as looks at it and healings of it see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities.drift import DriftActivities
from conman.domain.deploy_messages import DriftQuestion, DriftReply
from conman.domain.deployment import Deployment, DeploymentState
from conman.domain.drift_record import DriftRecord
from conman.domain.heal import HealLimits
from conman.domain.target import Observation, Place, secret_digest
from conman.services import drift
from conman.services.clock import new_id, now
from conman.services.heals import heal
from conman.store.database import Document
from conman.store.outgoing import sweep
from conman.targets.base import TargetError
from tests.services.desk import Desk

PIN = "12345678"
"""The secret that every profile of the desk has."""
OTHER_PIN = "a pin that nobody may see"
LIMITS = HealLimits(most=2, window=timedelta(hours=6), pause=timedelta(0))


@dataclass
class Site:
    """The environment QA, what is seen there, and looks at it."""

    desk: Desk
    env_vars: dict[str, str] = field(default_factory=lambda: {"MODE": "old"})
    secrets: dict[str, str] = field(default_factory=lambda: {"PIN": PIN})
    base_url: str | None = None
    files: str = "c0ffee"
    meanwhile: Callable[[], Awaitable[Any]] | None = None
    fails: TargetError | None = None
    places: list[Place] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.desk.environments["QA"]

    async def observe(self, place: Place, key: bytes) -> Observation:
        self.places.append(place)
        self.keys.append(key)
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.fails is not None:
            raise self.fails
        return Observation(
            env_vars=self.env_vars,
            secrets={name: secret_digest(key, value) for name, value in self.secrets.items()},
            base_url=self.base_url,
            observes_base_url=True,
            database={},
            files=self.files,
        )

    async def look(self, **fields: Any) -> DriftReply:
        platform = self.desk.platform
        work = DriftActivities(platform.db, platform.vault, self.observe)
        question = DriftQuestion(app_id=self.desk.app["_id"], environment_id=self.id, at=fields.pop("at", now()), **fields)
        return await ActivityEnvironment().run(work.check_drift, question)

    async def release(self, *given: dict[str, Any], sha: str = "c0ffee") -> str:
        made, kept = new_id(), []
        changeset = await self.desk.changeset()
        if given:
            kept = (await self.desk.put(changeset, *given))["overrides"]
        member = {"changeset_id": changeset, "head_sha": "h", "base_sha": "b", "revision_number": 1, "overrides": kept}
        owned = {"members": [member], "published_sha": sha, "published_at": now(), "reverts_release_id": None, "tag": "r1"}
        await self.desk.platform.db["releases"].insert_one({"_id": made, "app_id": self.desk.app["_id"], "owned": owned})
        return made

    async def deployment(self, release: str, state: DeploymentState = DeploymentState.SUCCEEDED, **owned: Any) -> str:
        made = new_id()
        known = {"app_id": self.desk.app["_id"], "environment_id": self.id, "release_id": release, "state": state}
        deployment = Deployment(**known, requested_at=now(), job_id=new_id(), fence=1, **owned)
        document: Document = {"_id": made, "app_id": self.desk.app["_id"], "release_id": release, "created_at": now()}
        await self.desk.platform.db["deployments"].insert_one({**document, "owned": deployment.model_dump(mode="json")})
        return made

    async def deployed(self, release: str, revision_id: str | None = None, **owned: Any) -> str:
        """As if a deployment of this release had ended well, with the profile as it is now or as it was."""
        revision_id = revision_id or (await self.profile())["revision_id"]
        made = await self.deployment(release, profile_revision_id=revision_id, **owned)
        shown = {
            "current_release_id": release,
            "current_deployment_id": made,
            "applied_profile_revision_id": revision_id,
            "deployed_at": now(),
        }
        change = {"$set": {f"owned.{name}": value for name, value in shown.items()}}
        await self.desk.platform.db["environments"].update_one({"_id": self.id}, change)
        return made

    async def profile(self) -> Document:
        found = await self.desk.platform.db["profiles"].find_one({"_id": self.desk.profiles["QA"]})
        assert found is not None
        return found

    async def document(self) -> Document:
        found = await self.desk.platform.db["environments"].find_one({"_id": self.id})
        assert found is not None
        return found

    async def record(self) -> DriftRecord:
        return drift.record_of(await self.document())

    async def audit(self) -> list[Document]:
        await sweep(self.desk.platform.db)
        query = {"action": {"$in": ["drift_detected", "drift_cleared", "healed"]}}
        return await self.desk.platform.db["audit"].find(query).sort("_id", 1).to_list()

    async def notices(self) -> list[str]:
        rows = self.desk.platform.db["notifications"].find({}).sort("_id", 1)
        return [row["notice"]["kind"] async for row in rows]

    async def policy(self, policy: str) -> None:
        app = self.desk.app
        for listed in app["environments"]:
            listed["drift_policy"] = policy
        await self.desk.platform.db["apps"].update_one({"_id": app["_id"]}, {"$set": {"environments": app["environments"]}})

    async def heal(self, limits: HealLimits = LIMITS) -> Document | None:
        return await heal(self.desk.platform.db, self.desk.app["_id"], self.id, now(), limits)


@pytest.fixture
async def site(desk: Desk) -> Site:
    """QA, whose record has what an app's making gives it."""
    made = Site(desk)
    change = {"created_at": now(), "runtime_profile_id": desk.profiles["QA"]}
    await desk.platform.db["environments"].update_one({"_id": made.id}, {"$set": change})
    await desk.platform.db["apps"].update_one({"_id": desk.app["_id"]}, {"$set": {"archived": False}})
    return made
