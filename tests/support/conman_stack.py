"""One `conman up` as a real child process, people who are logged in, and an app to act on.

The fixture `stack` starts it once per session, whoever imports the fixture:

    from tests.support.conman_stack import stack  # noqa: F401

Tests that need an `up` of their own (to kill it, to fill it) use `running_stack`. The stack's suite is `suite.py`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from conman.store.database import Database, connect
from tests.support.plain_http import NO_TLS
from tests.support.waiting import until

PASSWORD = "a password for tests 1"
ROLES = ("user", "reviewer", "config_manager", "app_admin")
ENDED = ("succeeded", "failed", "canceled")
DEADLINE_SECONDS = 60.0
"""The longest that anything is waited for: nothing is expected to take this long, it makes a hang a failure."""
AT_ONCE = 6
"""Flows that a fixture of many has under way: with more at once the last of them wait longer than a command may."""
FIRST_START_SECONDS = 1800.0
"""A first start on a machine fetches or builds the servers."""
STOP_SECONDS = 60.0
UNLIMITED = {f"CONMAN_RATE_LIMIT_{bucket}": "1000000" for bucket in ("AUTH", "FILES", "READS", "WRITES")}
"""Tests ask more in a minute than people may; those of the limits themselves set their own."""
SUITE = Path(__file__).with_name("suite.py")
COMMANDS = f"""
[refusing]
kind = "msuite"
argv = [{sys.executable!r}, "-c", "print('refused by name'); raise SystemExit(1)"]

[ping]
kind = "health"
argv = ["true"]

[elsewhere]
kind = "target"
argv = ["true"]
"""
"""What members may choose by name beside the default suite."""


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


async def wait_for(look: Callable[[], Awaitable[Any]], what: str, deadline: float = DEADLINE_SECONDS) -> Any:
    """The first true answer, within `deadline` seconds."""
    return await until(what, look, deadline)


def last(path: str) -> str:
    """The id at the end of a record's path."""
    return path.rpartition("/")[2]


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
        """The data of a reply that must be a success; None where it has no body."""
        reply = await self.send(method, path, **more)
        assert reply.status_code < 300, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json()["data"] if reply.status_code != 204 else None

    async def get(self, path: str, **more: Any) -> Any:
        return await self.ok("GET", path, **more)

    async def listed(self, path: str, **params: Any) -> tuple[list[Any], dict[str, int]]:
        """A page's records and its pagination."""
        reply = await self.send("GET", path, params=params)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert set(body) == {"data", "pagination"}
        assert set(body["pagination"]) == {"page", "limit", "total"}
        return body["data"], body["pagination"]

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
    db: Database

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

    async def set(self, **settings: Any) -> None:
        """Change settings."""
        version = (await self.stack.admin.get(self.path))["version"]
        await self.stack.admin.ok("PATCH", f"{self.path}/settings", json={**settings, "version": version})

    async def join(self, role: str, person: Person | None = None) -> Person:
        """One more member."""
        person = person or await self.stack.person(role.replace("_", "-"))
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
        body = {"workspace_id": last(workspace), "title": f"change {number}"}
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
        made = await self.max.post(f"{self.path}/releases", {"changeset_ids": [last(path) for path in changesets]})
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
        body = {"release_id": last(release)}
        reply = await self.max.post(f"{self.path}/environments/{environment_id}/{verb}", body)
        await self.job(reply["job"]["id"])
        return await self.max.get(f"{self.path}/deployments/{reply['deployment']['id']}")

    async def audit(self, **query: str) -> list[dict[str, Any]]:
        return await self.eve.get(f"{self.path}/audit", params={"limit": 100, **query})


async def make_world(stack: Stack, **settings: Any) -> World:
    """A fresh app with a member of each role, and a stranger."""
    name = f"app-{uuid.uuid4().hex[:10]}"
    body = {"name": name, "repo_path": f"tests/{name}.git", "create_repository": True}
    app, stranger = await asyncio.gather(stack.admin.post("/apps", body), stack.person("stranger"))
    world = World(stack, app, f"/apps/{app['id']}", {}, stranger)
    joined = await asyncio.gather(*(world.join(role) for role in ROLES))
    world.members.update(zip(ROLES, joined, strict=True))
    if settings:
        await world.set(**settings)
    return world


@asynccontextmanager
async def running_stack(folder: Path, *, msuite: str | None = None, **variables: str) -> AsyncIterator[Stack]:
    """`conman up` as a child on free ports, with its data below `folder`; it never outlives the block.

    `msuite` is the whole stack's suite in place of `suite.py`; `variables` are more of its `CONMAN_*` settings.
    """
    ready_file = folder / "ready.json"
    commands = folder / "commands.toml"
    commands.write_text(COMMANDS, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_") or name == "CONMAN_CACHE"}
    environment |= (
        {"CONMAN_LOG_FORMAT": "json", "CONMAN_MSUITE_COMMAND": msuite or f"{sys.executable} {SUITE}"}
        | {"CONMAN_COMMANDS_FILE": str(commands)}
        | UNLIMITED
        | variables
    )
    command = ["up", "--data", str(folder / "data"), "--port", "0", "--ready-file", str(ready_file)]
    with (folder / "up.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "conman", *command),
            env=environment,
            cwd=folder,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
        try:
            async with _connected(folder, await _ready(child, ready_file)) as stack:
                yield stack
        finally:
            await _stop(child)


async def _ready(child: asyncio.subprocess.Process, ready_file: Path) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        assert child.returncode is None, _text(ready_file.with_name("up.log"))
        found = _text(ready_file)
        return json.loads(found) if found else None

    return await wait_for(look, f"the stack of {ready_file.parent}", deadline=FIRST_START_SECONDS)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


@asynccontextmanager
async def _connected(folder: Path, ready: dict[str, Any]) -> AsyncIterator[Stack]:
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    mongo = connect(ready["mongo_uri"])
    try:
        async with httpx.AsyncClient(
            base_url=f"{ready['api_url']}/api", timeout=60, limits=limits, trust_env=False, verify=NO_TLS
        ) as client:
            stack = Stack(ready["api_url"], folder / "data", client, Person(client, "", "", {}), ready, mongo["conman"])
            stack.admin = await stack.log_in(ready["admin_email"], password=ready["admin_password"])
            yield stack
    finally:
        await mongo.close()


async def _stop(child: asyncio.subprocess.Process) -> None:
    """Ask it to stop; what does not stop is killed, and takes along what it started."""
    if child.returncode is None:
        child.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(child.wait(), STOP_SECONDS)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@pytest_asyncio.fixture(scope="package")
async def stack() -> AsyncIterator[Stack]:
    """The one stack of a folder's tests in this process; it ends with them, since it costs a tenth of a core while it rests."""
    with tempfile.TemporaryDirectory(prefix="conman-stack-", ignore_cleanup_errors=True) as folder:
        async with running_stack(Path(folder)) as made:
            yield made
