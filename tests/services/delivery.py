"""An app with published releases and people of every role, as those who deploy see it; workflows only take note."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from conman.domain.release import Release
from conman.git.adapter import Signature, WriteFile
from conman.services import deployments, environments, plans
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.deployments import Asked
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Document
from tests.services.registry import EVE, Registry

AUTHOR = Signature("Ann", "ann@example.com", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
ROLES = ("user", "reviewer", "config_manager", "app_admin")


@dataclass
class Delivery:
    """The app, its environments in stage order, and one published release with a file of its own."""

    registry: Registry
    platform: Platform
    release_id: str = ""
    places: list[str] = field(default_factory=list)
    people: dict[str, str] = field(default_factory=dict)
    numbers: int = 0

    async def prepare(self) -> None:
        self.registry.app_id = (await self.registry.make(self.platform))["_id"]
        db, app = self.platform.db, await self.app()
        await db["users"].insert_one({**EVE, "disabled": False})
        for role in ROLES:
            user = {"_id": new_id(), "name": role, "email": f"{role}@example.com", "disabled": False}
            await db["users"].insert_one(user)
            await db["memberships"].insert_one(
                {
                    "_id": new_id(),
                    "app_id": app["_id"],
                    "user_id": user["_id"],
                    "member_slot": f"{app['_id']}:{role}",
                    "role": role,
                }
            )
            self.people[role] = user["_id"]
        self.places = [row["id"] for row in app["environments"]]
        self.release_id = await self.release()

    async def app(self) -> Document:
        return await self.registry.app(self.platform)

    async def release(self, state: str = "published", **files: str) -> str:
        """A release with one more file."""
        self.numbers += 1
        app = await self.app()
        main = await self.platform.git.resolve(app["repo_path"], "refs/heads/main")
        given = files or {f"e{self.numbers}.json": f'{{"value": {self.numbers}}}'}
        sha = await self.platform.git.commit_files(
            app["repo_path"],
            ref="refs/heads/main",
            expected_old=main,
            parent=main,
            changes=[WriteFile(path, text.encode()) for path, text in given.items()],
            author=AUTHOR,
            message="theirs\n",
        )
        owned = Release(app_id=app["_id"]).model_copy(update={"created": True, "tag": f"r2026.01.31.{self.numbers}"})
        document = owned.model_dump(mode="json") | {"state": state}
        if state != "draft_release":
            document |= {"published_sha": sha, "published_at": now(), "candidate_sha": sha}
        release_id = new_id()
        await self.platform.db["releases"].insert_one({"_id": release_id, "app_id": app["_id"], "owned": document, "version": 1})
        return release_id

    def by(self, role: str = "config_manager", key: str | None = None) -> Call:
        """A request of somebody with this role."""
        call = self.registry.call(key)
        user = {"_id": self.people[role], "name": role, "email": f"{role}@example.com"}
        return Call(call.command_id, call.at, call.actor.model_copy(update={"user_id": user["_id"]}), user, call.keyed)

    async def deploy(self, *numbers: int, call: Call | None = None, **asked: Any) -> list[Document]:
        """Ask for the release (or `release_id`) in the environments of these numbers."""
        wanted = Asked(release_id=asked.pop("release_id", self.release_id), **asked)
        chosen = [self.places[number] for number in numbers]
        return await deployments.deploy(self.platform, call or self.by(), await self.app(), chosen, wanted)

    async def plan(self, number: int, release_id: str = "") -> dict[str, Any]:
        return await plans.plan(self.platform, await self.app(), self.places[number], release_id or self.release_id)

    async def set(self, deployment_id: str, **owned: Any) -> None:
        """Let a deployment's workflow have written this."""
        change = {f"owned.{name}": value for name, value in owned.items()}
        await self.platform.db["deployments"].update_one({"_id": deployment_id}, {"$set": change})

    async def been(self, number: int, state: str = "succeeded", release_id: str = "") -> str:
        """The release was deployed there, and its deployment has ended."""
        deployment_id = new_id()
        release_id = release_id or self.release_id
        owned = {"environment_id": self.places[number], "release_id": release_id, "state": state}
        row = {"_id": deployment_id, "app_id": self.registry.app_id, "release_id": release_id, "owned": owned}
        await self.platform.db["deployments"].insert_one(row)
        return deployment_id

    async def change_environment(self, number: int, **fields: Any) -> None:
        """Change one environment in the app's list."""
        app = await self.app()
        canonical = app["settings"]["canonical_env_id"]
        wanted = [{"id": row["id"], "name": row["name"], "is_canonical": row["id"] == canonical} for row in app["environments"]]
        wanted[number] |= fields
        await environments.replace(self.platform, self.registry.call(), app["_id"], wanted, app["version"])

    async def record(self, deployment_id: str) -> Document:
        return await records.get(self.platform.db, "deployments", deployment_id, what="deployment")

    async def events(self, action: str) -> list[Document]:
        query = {"app_id": self.registry.app_id, "action": action}
        return await self.platform.db["audit"].find(query).sort("_id", 1).to_list()
