"""A running stack, people, and an app to act on."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PASSWORD = "a password for tests 1"
ROLES = ("user", "reviewer", "config_manager", "app_admin")
ENDED = ("succeeded", "failed", "canceled")
DEADLINE_SECONDS = 60.0


def assert_error(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The one shape of every refusal (`api.md` 1)."""
    assert reply.status_code == status, f"{reply.request.method} {reply.request.url}: {reply.status_code} {reply.text}"
    body = reply.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) in ({"code", "message", "request_id"}, {"code", "message", "request_id", "details"})
    assert error["code"] == code, error
    assert error["message"]
    assert error["request_id"] == reply.headers["x-request-id"]
    return error


async def wait_for(look: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The first true answer, within the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.03)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@dataclass
class Person:
    """Somebody logged in."""

    client: httpx.AsyncClient
    id: str
    email: str
    headers: dict[str, str]

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **more)

    async def ok(self, method: str, path: str, **more: Any) -> Any:
        reply = await self.send(method, path, **more)
        assert reply.status_code < 300, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json()["data"]

    async def get(self, path: str, **more: Any) -> Any:
        return await self.ok("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return await self.ok("POST", path, json={} if body is None else body, **more)


@dataclass
class Stack:
    """The running stack."""

    url: str
    data: Path
    client: httpx.AsyncClient
    admin: Person
    ready: dict[str, Any]

    async def person(self, name: str) -> Person:
        """A fresh account, logged in."""
        email = f"{name}-{uuid.uuid4().hex[:10]}@example.com"
        body = {"email": email, "name": name, "password": PASSWORD}
        made = await self.admin.post("/users", body)
        return await self.log_in(email, made["id"])

    async def log_in(self, email: str, user_id: str = "", password: str = PASSWORD) -> Person:
        reply = await self.client.post("/auth/login", json={"email": email, "password": password})
        assert reply.status_code == 200, reply.text
        session = reply.json()["data"]
        return Person(self.client, user_id or session["user"]["id"], email, {"Authorization": f"Bearer {session['token']}"})


@dataclass
class World:
    """An app with one member of each role, a stranger, and another app that nobody of them belongs to."""

    stack: Stack
    app: dict[str, Any]
    path: str
    members: dict[str, Person]
    stranger: Person
    numbers: list[int] = field(default_factory=lambda: [0])

    @property
    def ann(self) -> Person:
        return self.members["user"]

    @property
    def rob(self) -> Person:
        return self.members["reviewer"]

    @property
    def max(self) -> Person:
        return self.members["config_manager"]

    @property
    def eve(self) -> Person:
        return self.members["app_admin"]

    def fresh(self) -> int:
        self.numbers[0] += 1
        return self.numbers[0]

    async def join(self, role: str) -> Person:
        """One more member."""
        person = await self.stack.person(role.replace("_", "-"))
        await self.stack.admin.post(f"{self.path}/members", {"user_id": person.id, "role": role})
        return person

    async def workspace(self, person: Person | None = None) -> str:
        """The path of a fresh workspace."""
        made = await (person or self.ann).post(f"{self.path}/workspaces", {"title": f"work {self.fresh()}"})
        return f"{self.path}/workspaces/{made['id']}"

    async def save(self, workspace: str, path: str, text: str | bytes, person: Person | None = None, **more: Any) -> Any:
        return await (person or self.ann).ok("PUT", f"{workspace}/files", json={"path": path, "content": b64(text), **more})

    async def changeset(self, files: dict[str, str] | None = None, person: Person | None = None) -> str:
        """The path of a draft with files of its own."""
        number = self.fresh()
        workspace = await self.workspace(person)
        for path, text in (files or {f"entities/e{number}.json": json.dumps({"value": number})}).items():
            await self.save(workspace, path, text, person)
        body = {"workspace_id": workspace.rpartition("/")[2], "title": f"change {number}"}
        made = await (person or self.ann).post(f"{self.path}/changesets", body)
        return f"{self.path}/changesets/{made['id']}"

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job's end."""

        async def look() -> Any:
            job = (await self.eve.get(f"{self.path}/jobs/{job_id}"))["job"]
            return job if job["state"] in ENDED else None

        return await wait_for(look, f"the end of job {job_id}")

    async def submitted(self, files: dict[str, str] | None = None, person: Person | None = None) -> str:
        """A changeset whose gate has ended; its path."""
        path = await self.changeset(files, person)
        reply = await (person or self.ann).post(f"{path}/submit")
        await self.job(reply["job"]["id"])
        return path

    async def approved(self, files: dict[str, str] | None = None) -> str:
        path = await self.submitted(files)
        await self.rob.post(f"{path}/review", {"action": "approve"})
        return path

    async def queued(self, files: dict[str, str] | None = None) -> str:
        path = await self.approved(files)
        await self.ann.post(f"{path}/queue")
        return path

    async def state(self, path: str) -> str:
        return (await self.eve.get(path))["state"]

    async def release(self, *changesets: str) -> str:
        """The path of a draft release of these changesets."""
        made = await self.max.post(f"{self.path}/releases", {"changeset_ids": [path.rpartition("/")[2] for path in changesets]})
        return f"{self.path}/releases/{made['id']}"

    async def validated(self, *changesets: str) -> str:
        path = await self.release(*changesets)
        reply = await self.max.post(f"{path}/assemble")
        await self.job(reply["job"]["id"])
        assert await self.state(path) == "validated"
        return path

    async def published(self) -> str:
        """The path of a published release of one changeset."""
        path = await self.validated(await self.queued())
        await self.max.post(f"{path}/publish")
        return path

    async def environments(self) -> list[dict[str, Any]]:
        return await self.eve.get(f"{self.path}/environments")

    async def deployed(self, environment_id: str, release: str, verb: str = "deploy") -> dict[str, Any]:
        """A deployment's end."""
        body = {"release_id": release.rpartition("/")[2]}
        reply = await self.max.post(f"{self.path}/environments/{environment_id}/{verb}", body)
        await self.job(reply["job"]["id"])
        return await self.max.get(f"{self.path}/deployments/{reply['deployment']['id']}")

    async def audit(self, **query: str) -> list[dict[str, Any]]:
        return await self.eve.get(f"{self.path}/audit", params={"limit": 100, **query})


async def make_world(stack: Stack) -> World:
    """A fresh app with its people."""
    name = f"app-{uuid.uuid4().hex[:10]}"
    app = await stack.admin.post("/apps", {"name": name, "repo_path": f"tests/{name}.git", "create_repository": True})
    world = World(stack, app, f"/apps/{app['id']}", {}, await stack.person("stranger"))
    for role in ROLES:
        world.members[role] = await world.join(role)
    return world


@asynccontextmanager
async def running_stack(folder: Path) -> AsyncIterator[Stack]:
    """`conman up` as a child on free ports; it never outlives the block."""
    ready_file = folder / "ready.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_") or name == "CONMAN_CACHE"}
    environment["CONMAN_MSUITE_COMMAND"] = f"{sys.executable} {Path(__file__).with_name('suite.py')}"
    command = [
        sys.executable,
        "-m",
        "conman",
        "up",
        "--data",
        str(folder / "data"),
        "--port",
        "0",
        "--ready-file",
        str(ready_file),
    ]
    log = (folder / "up.log").open("w", encoding="utf-8")
    child = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=log
    )
    try:
        deadline = time.monotonic() + 1800  # a first run builds the servers
        while not ready_file.exists():
            assert child.returncode is None, (folder / "up.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "the stack did not get ready"
            await asyncio.sleep(0.05)
        ready = json.loads(ready_file.read_text(encoding="utf-8"))
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=f"{ready['api_url']}/api", timeout=60, limits=limits) as client:
            stack = Stack(ready["api_url"], folder / "data", client, Person(client, "", "", {}), ready)
            stack.admin = await stack.log_in(ready["admin_email"], password=ready["admin_password"])
            yield stack
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), 60)
        finally:
            if child.returncode is None:
                child.kill()
            log.close()
