"""An app with a repository and a base profile whose database is on the embedded server, and the activities of its temp envs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities.temp_envs import TempEnvActivities, TempEnvRecordActivities
from conman.config import Settings
from conman.domain.temp_env import TempEnv, TempEnvKind, TempEnvState, temp_branch, temp_database
from conman.domain.temp_env_messages import TempEnvRef, UseQuestion, UseReply
from conman.git.adapter import Signature, WriteFile
from conman.git.memory import MemoryGit
from conman.services import temp_profiles
from conman.services.clock import new_id, now
from conman.services.secrets import unseal
from conman.store.database import Document
from conman.store.outgoing import sweep
from tests.services.desk import ANN, Desk, text
from tests.support.crashes import crash_at


@dataclass
class TempSite:
    """Temp envs of one app."""

    desk: Desk
    git: MemoryGit
    uri: str
    settings: Settings
    base_name: str = field(default_factory=lambda: f"base_{uuid.uuid4().hex[:12]}")
    made: list[str] = field(default_factory=list[str])

    @property
    def db(self) -> Any:
        return self.desk.platform.db

    @property
    def client(self) -> Any:
        return self.db.client

    @property
    def base_id(self) -> str:
        return self.desk.profiles["QA"]

    @property
    def repo(self) -> str:
        return self.desk.app["repo_path"]

    def activities(self, **settings: Any) -> TempEnvActivities:
        return TempEnvActivities(self.settings.model_copy(update=settings), self.db, self.git, self.desk.platform.vault)

    async def run(self, name: str, ref: TempEnvRef, **settings: Any) -> Any:
        return await ActivityEnvironment().run(getattr(self.activities(**settings), name), ref)

    async def died(self, crash: str, name: str, ref: TempEnvRef) -> None:
        with crash_at(crash):
            await self.run(name, ref)

    async def sweep(self) -> dict[str, int]:
        return await ActivityEnvironment().run(self.activities().sweep_temp_orphans)

    async def use(self, ref: TempEnvRef) -> UseReply:
        question = UseQuestion(app_id=ref.app_id, temp_env_id=ref.temp_env_id)
        return await ActivityEnvironment().run(TempEnvRecordActivities(self.db).temp_env_use, question)

    async def head(self) -> str:
        sha = await self.git.resolve(self.repo, "refs/heads/main")
        assert sha is not None
        return sha

    async def temp_env(self, kind: TempEnvKind = TempEnvKind.WORKSPACE, source_id: str | None = None, **owned: Any) -> TempEnvRef:
        """A record as the front door makes it, with its job."""
        temp_env_id, job_id, label = new_id(), new_id(), f"shop-{kind.value}-{uuid.uuid4().hex[:6]}-otter"
        self.made.append(temp_env_id)
        state = TempEnv(
            kind=kind,
            source_id=source_id or new_id(),
            created_at=now(),
            created_by=ANN["_id"],
            base_profile_id=self.base_id,
            head_sha=await self.head(),
            label=label,
            url=f"https://{label}.example.com",
            branch=temp_branch(label),
            job_id=job_id,
        ).model_copy(update=owned)
        document = {"_id": temp_env_id, "app_id": self.desk.app["_id"], "label": label, "last_activity_at": now(), "outgoing": []}
        await self.db["temp_envs"].insert_one({**document, "owned": state.model_dump(mode="json"), "live_slot": temp_env_id})
        await self.db["jobs"].insert_one({"_id": job_id, "state": "running", "version": 1, "progress": None})
        return TempEnvRef(app_id=self.desk.app["_id"], temp_env_id=temp_env_id, job_id=job_id)

    async def provisioned(self, kind: TempEnvKind = TempEnvKind.WORKSPACE, source_id: str | None = None) -> TempEnvRef:
        """One that is active."""
        ref = await self.temp_env(kind, source_id)
        await self.run("provision_branch", ref)
        profile = await self.run("provision_profile", ref)
        database = await self.run("provision_database", ref)
        await self.becomes(ref, TempEnvState.ACTIVE, db_name=database.db_name, runtime_profile_id=profile.runtime_profile_id)
        return ref

    async def becomes(self, ref: TempEnvRef, state: TempEnvState, **owned: Any) -> None:
        fields = {f"owned.{name}": value for name, value in {"state": state.value, **owned}.items()}
        await self.db["temp_envs"].update_one({"_id": ref.temp_env_id}, {"$set": fields})

    async def temp(self, ref: TempEnvRef) -> TempEnv:
        found = await self.db["temp_envs"].find_one({"_id": ref.temp_env_id})
        return TempEnv.model_validate(found["owned"])

    async def profile(self, ref: TempEnvRef) -> Document:
        found = await self.db["profiles"].find_one({"_id": temp_profiles.derived_id(ref.temp_env_id, await self.temp(ref))})
        assert found is not None
        return found

    async def secret(self, profile: Document, key: str) -> str:
        content = temp_profiles.Profile.model_validate(profile["content"])
        return (await unseal(self.desk.platform, profile["_id"], {key: content.secrets[key]}))[key]

    async def audit(self, entity_id: str) -> list[str]:
        await sweep(self.db)
        return [row["action"] async for row in self.db["audit"].find({"entity_id": entity_id}).sort("_id", 1)]

    async def branches(self) -> list[str]:
        return [ref.removeprefix("refs/heads/") for ref in await self.git.list_refs(self.repo, "refs/heads/conman/temp/")]

    async def databases(self) -> list[str]:
        """The clones that tests of this site made and that are there."""
        names = {temp_database(one) for one in self.made}
        return sorted(names & set(await self.client.list_database_names()))

    async def an_hour_later(self) -> None:
        """As if all orphans had been seen for an hour."""
        await self.db["temp_orphans"].update_many({}, {"$set": {"first_seen_at": "2020-01-01T00:00:00.000Z"}})


@pytest.fixture
async def site(desk: Desk, mongo_uri: str, tmp_path: Path) -> AsyncIterator[TempSite]:
    git = MemoryGit()
    repo = desk.app["repo_path"]
    await git.create_repository(repo, "main")
    await git.commit_files(
        repo,
        ref="refs/heads/main",
        expected_old=None,
        parent=None,
        changes=[WriteFile("index.html", b"hello")],
        author=Signature("Ann", "ann@example.com", datetime(2026, 1, 1, tzinfo=UTC)),
        message="first\n",
    )
    desk.platform.git = git
    await desk.platform.db["apps"].update_one({"_id": desk.app["_id"]}, {"$set": {"archived": False}})
    made = TempSite(desk, git, mongo_uri, Settings(data=tmp_path))
    host = mongo_uri.removeprefix("mongodb://").partition("/")[0]
    await desk.edit(
        "QA",
        env_vars={"MODE": text("base"), "REGION": text("eu")},
        secrets={"DB": f"mongodb://{host}/{made.base_name}?directConnection=true"},
        database={"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "existing"},
        lifecycle={"ttl_idle_hours": 5, "grace_hours": 2, "auto_cleanup": True},
    )
    await made.client[made.base_name]["goods"].insert_many([{"_id": number, "sku": f"s{number}"} for number in range(20)])
    await made.client[made.base_name]["goods"].create_index("sku", unique=True)
    yield made
    for name in [made.base_name, *await made.databases()]:
        await made.client.drop_database(name)
