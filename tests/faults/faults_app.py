"""The main job over HTTP on an app of its own: what a person does, with the patience of one who repeats what went unanswered."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from faults_processes import SECONDS, Cell, until
from pymongo.asynchronous.database import AsyncDatabase

from conman.store.database import connect
from tests.support.plain_http import NO_TLS

Document = dict[str, Any]
ENDED = ("succeeded", "failed", "canceled")


class Refused(AssertionError):
    """An answer that is neither a success nor worth a repeat."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.request.method} {response.request.url}: {response.status_code} {response.text}")
        self.status = response.status_code
        self.code = response.json()["error"]["code"]


class Person:
    """Somebody logged in. A command is sent again under the same `Idempotency-Key` until it is answered."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str) -> Any:
        return await self._ask("GET", path, None, None)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        return await self._ask("POST", path, body or {}, key or uuid4().hex)

    async def put(self, path: str, body: Any) -> Any:
        return await self._ask("PUT", path, body, uuid4().hex)

    async def patch(self, path: str, body: Any) -> Any:
        return await self._ask("PATCH", path, body, uuid4().hex)

    async def once(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        """One try, whatever comes of it. Raises `httpx.TransportError` where the API dies meanwhile."""
        more = {"Idempotency-Key": key} if key else {}
        return await self.client.post(path, json=body or {}, headers=self.headers | more)

    async def _ask(self, method: str, path: str, body: Any, key: str | None) -> Any:
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                response = await self.client.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                problem = repr(error)
            else:
                if response.status_code < 300:
                    return response.json()["data"]
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise Refused(response)
                problem = response.text
            assert time.monotonic() < deadline, f"{method} {path} stays unanswered: {problem}"
            await asyncio.sleep(0.1)


@dataclass
class App:
    """An app with its repository; what was done to it is kept, so that the end can be compared with it."""

    cell: Cell
    db: AsyncDatabase[Document]
    admin: Person
    ann: Person
    rob: Person
    max: Person
    id: str
    name: str
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    environments: list[Document] = field(default_factory=list)
    changesets: list[str] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)
    deployments: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/apps/{self.id}"

    @property
    def repo_path(self) -> str:
        return f"team/{self.name}.git"

    @property
    def repository(self) -> Path:
        return self.cell.data / "repositories" / self.repo_path

    def hold(self, scope: str) -> Path:
        """Let gates of a scope wait; they go on when the file is gone."""
        path = self.cell.holds / f"{self.name}-{scope}"
        path.touch()
        return path

    # What people do, one step each.

    async def draft(self, folder: str = "entities") -> str:
        """A changeset with one new file, not submitted."""
        number = next(self.numbers)
        workspace = await self.ann.post(f"{self.path}/workspaces", {"title": f"w{number}"})
        content = base64.b64encode(b'{"number": %d}\n' % number).decode()
        await self.ann.put(
            f"{self.path}/workspaces/{workspace['id']}/files", {"path": f"{folder}/e{number}.json", "content": content}
        )
        made = await self.ann.post(
            f"{self.path}/changesets", {"workspace_id": workspace["id"], "title": f"change {number}"}, key=uuid4().hex
        )
        self.changesets.append(made["id"])
        return made["id"]

    async def submit(self, changeset: str, *, key: str | None = None) -> Any:
        return await self.ann.post(f"{self.path}/changesets/{changeset}/submit", key=key)

    async def approve(self, changeset: str) -> Any:
        return await self.rob.post(f"{self.path}/changesets/{changeset}/review", {"action": "approve"})

    async def enqueue(self, changeset: str) -> Any:
        return await self.ann.post(f"{self.path}/changesets/{changeset}/queue")

    async def queued(self, folder: str = "entities") -> str:
        """A changeset brought into the queue."""
        changeset = await self.draft(folder)
        job = (await self.submit(changeset))["job"]["id"]
        await self.job_ends(job)
        await self.approve(changeset)
        await self.enqueue(changeset)
        return changeset

    async def release(self, changesets: Sequence[str]) -> str:
        made = await self.max.post(f"{self.path}/releases", {"changeset_ids": list(changesets)})
        self.releases.append(made["id"])
        return made["id"]

    async def assemble(self, release: str) -> Any:
        return await self.max.post(f"{self.path}/releases/{release}/assemble")

    async def publish(self, release: str) -> Any:
        return await self.max.post(f"{self.path}/releases/{release}/publish")

    async def validated(self, changesets: Sequence[str]) -> str:
        """A release that waits to be published."""
        release = await self.release(changesets)
        await self.assemble(release)
        await self.release_is(release, "validated")
        return release

    async def published(self, *folders: str) -> str:
        """A release with one changeset, or one for a new file in each of these folders, published."""
        release = await self.validated([await self.queued(folder) for folder in folders or ("entities",)])
        await self.publish(release)
        return release

    def deploy_path(self, environment: int = 0) -> str:
        return f"{self.path}/environments/{self.environments[environment]['id']}/{'promote' if environment else 'deploy'}"

    async def deploy(self, release: str, environment: int = 0, *, key: str | None = None, **more: Any) -> Any:
        made = await self.max.post(self.deploy_path(environment), {"release_id": release, **more}, key=key)
        self.deployments.append(made["deployment"]["id"])
        return made

    async def environment_is(self, number: int, **fields: Any) -> None:
        """Have the app's admin define one of its environments otherwise."""
        shown = await self.admin.get(f"{self.path}/environments")
        listed = [{"id": row["id"], "name": row["name"], "is_canonical": row["is_canonical"]} for row in shown]
        listed[number] |= fields
        version = (await self.admin.get(self.path))["version"]
        await self.admin.patch(f"{self.path}/environments", {"environments": listed, "version": version})

    async def profile_is(self, number: int, **fields: Any) -> None:
        """Have the app's admin change the profile of one of its environments."""
        path = f"{self.path}/runtime-profiles/{self.environments[number]['runtime_profile_id']}"
        await self.admin.patch(path, {**fields, "version": (await self.admin.get(path))["version"]})

    # What people see.

    async def job(self, job_id: str) -> Document:
        return (await self.max.get(f"{self.path}/jobs/{job_id}"))["job"]

    async def job_ends(self, job_id: str, state: str = "succeeded") -> Document:
        async def ended() -> Document | None:
            found = await self.job(job_id)
            return found if found["state"] in ENDED else None

        found = await until(f"job {job_id} to end", ended)
        assert found["state"] == state, found
        return found

    async def gate_runs(self, job_id: str, attempt: int = 1) -> None:
        """Wait until the suite of a job has printed something."""

        async def printed() -> bool:
            log = await self.max.get(f"{self.path}/jobs/{job_id}/logs?attempt={attempt}")
            return any("checking" in line["text"] for line in log["lines"])

        await until(f"the suite of job {job_id}", printed)

    async def deployment_is(self, deployment: str, state: str, phase: str | None = None) -> Document:
        """Wait until a deployment is in this state, and phase."""

        async def reached() -> Document | None:
            found = await self.deployment(deployment)
            assert found["state"] == state or found["state"] not in ENDED, found
            return found if found["state"] == state and phase in (None, found["phase"]) else None

        return await until(f"deployment {deployment} to be {state}, {phase or 'any phase'}", reached)

    async def release_is(self, release: str, state: str) -> Document:
        async def reached() -> Document | None:
            found = await self.shown_release(release)
            assert found["state"] == state or found["failure"] is None, found
            return found if found["state"] == state else None

        return await until(f"release {release} to become {state}", reached)

    async def shown_release(self, release: str) -> Document:
        return await self.max.get(f"{self.path}/releases/{release}")

    async def deployment(self, deployment: str) -> Document:
        return await self.max.get(f"{self.path}/deployments/{deployment}")

    async def queue(self) -> Document:
        return await self.max.get(f"{self.path}/queue")


PASSWORD = "correct horse 12"
ROLES = {"ann": "user", "rob": "reviewer", "max": "config_manager"}


@asynccontextmanager
async def running_app(cell: Cell) -> AsyncIterator[App]:
    """An app with an empty repository, an author, a reviewer and a manager."""
    settings = cell.settings()
    mongo = connect(settings.mongo_uri or "")
    async with httpx.AsyncClient(base_url=f"{cell.url}/api", trust_env=False, timeout=SECONDS, verify=NO_TLS) as client:
        try:
            admin = await _log_in(client, **cell.admin)
            path = {"name": "shop", "repo_path": "team/shop.git", "create_repository": True}
            made = await admin.post("/apps", path)
            people: dict[str, Person] = {}
            for name, role in ROLES.items():
                email = f"{name}@example.com"
                await admin.post("/users", {"email": email, "name": name, "password": PASSWORD})
                await admin.post(f"/apps/{made['id']}/members", {"email": email, "role": role})
                people[name] = await _log_in(client, email, PASSWORD)
            app = App(cell, mongo[settings.mongo_database], admin, **people, id=made["id"], name="shop")
            app.environments = await app.max.get(f"{app.path}/environments")
            yield app
        finally:
            await mongo.close()


async def _log_in(client: httpx.AsyncClient, email: str, password: str) -> Person:
    response = await client.post("/auth/login", json={"email": email, "password": password})
    return Person(client, response.raise_for_status().json()["data"]["token"])
