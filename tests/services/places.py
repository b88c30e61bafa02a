"""An environment with a profile, a release and the operator's programs, as targets and migrations see it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.testing import ActivityEnvironment

from conman.activities.migrations import MigrationActivities
from conman.activities.targets import TargetActivities
from conman.config import Settings
from conman.domain.app import BRANCHES
from conman.domain.deploy_messages import MigrateReply, MigrateRequest
from conman.domain.messages import SwitchReply, SwitchRequest
from conman.domain.target import Health, Observation, Place
from conman.git.adapter import WriteFile
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.services.secrets import Secrets, seal
from conman.services.vault import Vault
from conman.settings.programs import read_commands
from conman.settings.vault import generate_keyring
from conman.store.database import Document
from conman.targets.registry import Targets
from tests.services.shop import OUTSIDER, REPO, Shop

ENVIRONMENT = "qa"
TOKEN = "the token of the environment"
KEY = b"k" * 32


@dataclass
class Site:
    """One environment of an app; every program is a Python file of the test."""

    shop: Shop
    platform: Platform
    folder: Path
    profile: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    profile_id: str = field(default_factory=new_id)
    keyring: str = field(default_factory=generate_keyring, repr=False)
    fence: int = 0

    @property
    def db(self) -> Any:
        return self.platform.db

    @property
    def settings(self) -> Settings:
        commands = self.folder / "commands.toml"
        commands.write_text("\n".join(self.commands.values()))
        return Settings(data=self.folder, commands_file=read_commands(commands), **self.limits)

    @property
    def home(self) -> Path:
        return self.folder / "environments" / self.shop.app["_id"] / ENVIRONMENT

    @property
    def scratch(self) -> list[Path]:
        return sorted((self.folder / "scratch").glob("*"))

    def program(self, name: str, kind: str, code: str) -> None:
        """The operator's program of this name."""
        file = self.folder / f"{name}.py"
        file.write_text(f"import json, os, signal, sys, time\n{code}")
        argv = json.dumps([sys.executable, str(file)])
        self.commands[name] = f'[{name}]\nkind = "{kind}"\nargv = {argv}\n'

    async def define(self, **environment: Any) -> None:
        """The app's list as an admin changes it."""
        self.environment.update(environment)
        listed = {"id": ENVIRONMENT, "name": "QA", "runtime_profile_id": self.profile_id, **self.environment}
        await self.db["apps"].update_one(
            {"_id": self.shop.app["_id"]}, {"$set": {**self.shop.app, "environments": [listed]}}, upsert=True
        )

    async def revise(self, **content: Any) -> str:
        """A new revision of the profile: its id. A secret is given as its value."""
        self.profile.update(content)
        values: dict[str, str] = self.profile.get("secrets", {})
        refs = await seal(self.secrets, self.profile_id, values, {key: new_id() for key in values})
        whole = {"name": "QA", **self.profile, "secrets": {key: ref.model_dump() for key, ref in refs.items()}}
        revision: Document = {"_id": new_id(), "profile_id": self.profile_id, "app_id": self.shop.app["_id"], "content": whole}
        number = await self.db["profile_revisions"].count_documents({"profile_id": self.profile_id}) + 1
        await self.db["profile_revisions"].insert_one({**revision, "revision_number": number})
        return revision["_id"]

    @property
    def secrets(self) -> Secrets:
        return Secrets(self.db, Vault.of(self.keyring))

    async def commit(self, files: Mapping[str, str]) -> str:
        """A release's commit with these files."""
        main = await self.platform.git.resolve(REPO, f"{BRANCHES}main")
        return await self.platform.git.commit_files(
            REPO,
            ref=f"{BRANCHES}main",
            expected_old=main,
            parent=main,
            changes=[WriteFile(path, text.encode()) for path, text in files.items()],
            author=OUTSIDER,
            message="a release\n",
        )

    async def ask(self, commit_sha: str, revision_id: str, *, at: str | None = None) -> SwitchRequest:
        """A deployment that holds the environment: its record, its job and its fence."""
        deployment_id, job_id, release_id, app_id = new_id(), new_id(), new_id(), self.shop.app["_id"]
        self.fence += 1
        holder = {"deployment_id": deployment_id, "state": "running", "since": now()}
        entry = {f"environments.{ENVIRONMENT}": {"fence": self.fence, "holder": holder}}
        await self.db["locks"].update_one({"_id": app_id}, {"$set": entry}, upsert=True)
        owned = {"job_id": job_id, "requested_at": at or now(), "state": "running"}
        await self.db["deployments"].insert_one({"_id": deployment_id, "app_id": app_id, "owned": owned})
        await self.db["jobs"].insert_one({"_id": job_id, "app_id": app_id, "attempt": 1, "state": "running"})
        await self.db["releases"].insert_one({"_id": release_id, "app_id": app_id, "owned": {"published_sha": commit_sha}})
        return SwitchRequest(
            app_id=app_id,
            environment_id=ENVIRONMENT,
            deployment_id=deployment_id,
            release_id=release_id,
            tag=f"r{self.fence}",
            commit_sha=commit_sha,
            profile_id=self.profile_id,
            profile_revision_id=revision_id,
            fence=self.fence,
        )

    async def switch(self, request: SwitchRequest) -> SwitchReply:
        return await ActivityEnvironment().run(self._targets().switch_environment, request)

    async def verify(self, request: SwitchRequest) -> Health:
        return await ActivityEnvironment().run(self._targets().verify_environment, request)

    def _targets(self) -> TargetActivities:
        return TargetActivities(self.settings, self.db, self.platform.git, Vault.of(self.keyring))

    async def migrate(self, request: SwitchRequest) -> MigrateReply:
        activities = MigrationActivities(self.settings, self.db, self.platform.git, Vault.of(self.keyring))
        job_id = (await self.db["deployments"].find_one({"_id": request.deployment_id}))["owned"]["job_id"]
        wanted = MigrateRequest(**request.model_dump(), job_id=job_id)
        return await ActivityEnvironment().run(activities.run_migrations, wanted)

    async def shown(self, request: SwitchRequest) -> None:
        """The environment's record, as the end of the deployment leaves it."""
        owned = {
            "current_release_id": request.release_id,
            "current_deployment_id": request.deployment_id,
            "applied_profile_revision_id": request.profile_revision_id,
            "deployed_at": now(),
        }
        await self.db["environments"].update_one(
            {"_id": ENVIRONMENT}, {"$set": {"owned": owned, "app_id": request.app_id}}, upsert=True
        )

    async def observe(self) -> Observation:
        targets = Targets(self.settings, self.db, self.platform.git, Vault.of(self.keyring))
        target = self.environment.get("deploy_target", "directory")
        place = Place(app_id=self.shop.app["_id"], app="shop", environment_id=ENVIRONMENT, environment="QA", target=target)
        return await targets.observe(place, KEY)

    async def log(self, request: SwitchRequest) -> str:
        """The log of the deployment's job, its lines in their order."""
        job_id = (await self.db["deployments"].find_one({"_id": request.deployment_id}))["owned"]["job_id"]
        chunks = await self.db["job_logs"].find({"job_id": job_id}).sort("first_seq", 1).to_list()
        lines = [line for chunk in chunks for line in chunk["lines"]]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1)), "one numbering over all activities"
        return "\n".join(line["text"] for line in lines)


def is_running(pid_file: Path) -> bool:
    """Whether the process that wrote its id there is still alive."""
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True
