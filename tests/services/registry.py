"""An app with its default environments, as the services see it; workflows only take note of what they are told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import SecretStr

from conman.config import Settings
from conman.domain.decision import Actor
from conman.domain.errors import DomainError
from conman.domain.mail import Wave
from conman.git.memory import MemoryGit
from conman.services.apps import create_app
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store import records
from conman.store.database import Document, connect
from conman.workflows.client import Commands

ResultT = TypeVar("ResultT")
EVE: Document = {"_id": new_id(), "name": "Eve", "email": "eve@example.com"}


@dataclass
class Workflows:
    """In place of Temporal: what was sent to which workflow, and which ones were started, signaled and canceled."""

    sent: list[tuple[str, str, Any]] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    signaled: list[tuple[str, str]] = field(default_factory=list)
    refusal: DomainError | None = None
    """With which every command is refused."""

    @property
    def client(self) -> Workflows:
        return self

    def not_after(self) -> str:
        return now()

    def queue_start(self, app_id: str) -> str:
        return f"queue:{app_id}"

    def deployment_start(self, app_id: str, deployment_id: str, summary: str = "") -> Started:
        return Started(f"deployment:{deployment_id}")

    async def start(self, entity: Started) -> None:
        self.started.append(entity.workflow_id)

    async def start_notice(self, notice_id: str, _wave: Wave | None = None) -> None:
        self.started.append(f"notify:{notice_id}")

    async def send(self, entity: str | Started, update: str, command: Any) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((entity if isinstance(entity, str) else entity.workflow_id, update, command))
        return {}

    def get_workflow_handle(self, workflow_id: str) -> Handle:
        return Handle(self, workflow_id)


@dataclass
class Started:
    workflow_id: str


@dataclass
class Handle:
    workflows: Workflows
    id: str

    async def signal(self, name: str) -> None:
        self.workflows.signaled.append((self.id, name))

    async def cancel(self) -> None:
        self.workflows.canceled.append(self.id)


@dataclass
class Registry:
    """One database with one app in it."""

    uri: str
    database: str
    workflows: Workflows = field(default_factory=Workflows)
    keyring: str = field(default_factory=generate_keyring)
    app_id: str = ""

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Platform]:
        """Components that share nothing with any other ones but the store; the repository is each one's own."""
        client = connect(self.uri)
        try:
            settings = Settings(secret=SecretStr("s" * 32))
            platform = Platform(settings, client[self.database], MemoryGit(), cast("Commands", self.workflows))
            platform.keyring = Vault.of(self.keyring)
            yield platform
        finally:
            await client.close()

    async def apart(self, work: Callable[[Platform], Awaitable[ResultT]]) -> ResultT:
        """Run `work` in a thread and an event loop of its own, as another process would."""

        async def alone() -> ResultT:
            async with self.process() as platform:
                return await work(platform)

        return await asyncio.to_thread(asyncio.run, alone())

    def call(self, key: str | None = None) -> Call:
        """A request of Eve's; with a key, a repeat of it."""
        command = uuid.uuid5(uuid.NAMESPACE_URL, key).hex if key is not None else new_id()
        at = "2026-01-31T09:30:00.000Z" if key is not None else now()
        return Call(command_id=command, at=at, actor=Actor(user_id=EVE["_id"]), user=EVE, keyed=key is not None)

    async def make(self, platform: Platform, name: str = "shop") -> Document:
        return await create_app(
            platform, self.call(), name=name, repo_path=f"{name}.git", integration_branch="main", create_repository=True
        )

    async def app(self, platform: Platform) -> Document:
        return await records.get(platform.db, "apps", self.app_id, what="app")

    async def audit(self, platform: Platform, action: str) -> list[Document]:
        query = {"app_id": self.app_id, "entity_type": "app", "action": action}
        return await platform.db["audit"].find(query).sort("_id", 1).to_list()

    async def release(self, platform: Platform, **owned: Any) -> str:
        """A release's record in some state."""
        release_id = new_id()
        state = {
            "state": "draft_release",
            "tag": "r2026.01.31.1",
            "created": True,
            "told": True,
            "edit": None,
            "publishing": None,
        }
        await platform.db["releases"].insert_one({"_id": release_id, "app_id": self.app_id, "owned": {**state, **owned}})
        return release_id

    async def deployment(self, platform: Platform, environment_id: str, state: str = "pending") -> str:
        """A deployment's record, without its lock."""
        deployment_id = new_id()
        owned = {"state": state, "environment_id": environment_id, "fence": 1}
        await platform.db["deployments"].insert_one({"_id": deployment_id, "app_id": self.app_id, "owned": owned})
        return deployment_id

    async def job(self, platform: Platform, state: str) -> str:
        """A job's record."""
        job_id = new_id()
        await platform.db["jobs"].insert_one({"_id": job_id, "app_id": self.app_id, "state": state})
        return job_id
