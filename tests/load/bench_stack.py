"""The stack under test, its people, and an app of theirs to act on, all over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pygit2

from tests.load.report import say
from tests.support.plain_http import NO_TLS
from tests.support.waiting import side_by_side

PASSWORD = "a password for the bench"
ENDED = ("succeeded", "failed", "canceled")
AUTHORS = 50
MAKERS = 8
"""Changesets that are made side by side: enough to keep two cores busy, few enough to hold up nobody."""
PATIENCE_SECONDS = 600.0
"""What takes longer is taken for hanging, which ends the bench."""


class Person:
    """Somebody logged in, with a connection of their own: fifty people in one client wait for its pool, not for the API."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=f"{url}/api", timeout=120, verify=NO_TLS, trust_env=False)
        self.headers: dict[str, str] = {}

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """The `data` of a reply; anything but success ends the bench."""
        reply = await self.client.request(method, path, headers=self.headers, **more)
        if reply.status_code >= 300:
            raise SystemExit(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply.json()["data"]

    async def log_in(self, email: str, password: str) -> None:
        """Use this account from now on."""
        session = await self.call("POST", "/auth/login", json={"email": email, "password": password})
        self.headers = {"Authorization": f"Bearer {session['token']}"}


@dataclass(frozen=True)
class Stack:
    """A running `conman up` and who uses it."""

    ready: dict[str, Any]
    data: Path
    admin: Person
    authors: list[Person]
    rob: Person
    max: Person

    async def app(self, name: str, files: int) -> App:
        """An app on a fresh repository with `files` files, with all people in their roles."""
        repo = self.data / "repositories" / f"{name}.git"
        await asyncio.to_thread(_fill, repo, files)
        return await self.adopted(repo, files)

    async def adopted(self, repo: Path, files: int) -> App:
        """An app on a repository that is there, with all people in their roles."""
        made = await self.admin.call("POST", "/apps", json={"name": repo.stem, "repo_path": repo.name})
        app = App(self, f"/apps/{made['id']}", repo, files)
        roles = [(f"author{number}", "user") for number in range(AUTHORS)] + [("rob", "reviewer"), ("max", "config_manager")]
        await app.join(*roles)
        return app

    async def close(self) -> None:
        """Hang up."""
        await asyncio.gather(*(person.client.aclose() for person in (self.admin, self.rob, self.max, *self.authors)))


def _fill(repo: Path, files: int) -> None:
    repository = pygit2.init_repository(str(repo), bare=True)
    index = pygit2.Index()
    for number in range(files):
        blob = repository.create_blob(json.dumps({"name": f"file {number}", "value": number}).encode())
        index.add(pygit2.IndexEntry(file_of(number, files), blob, pygit2.enums.FileMode.BLOB))
    me = pygit2.Signature("bench", "bench@example.com")
    repository.create_commit("refs/heads/main", me, me, "start", index.write_tree(repository), [])


def file_of(number: int, files: int) -> str:
    """The path of a file of a repository; from `files` on, of one that is not there yet."""
    return f"entities/group{number % max(20, files // 50):03}/file{number:05}.json"


async def stack_of(ready: dict[str, Any], data: Path) -> Stack:
    """The stack's people, made and logged in."""
    admin, rob, manager, *authors = (Person(ready["api_url"]) for _ in range(AUTHORS + 3))
    await admin.log_in(ready["admin_email"], ready["admin_password"])

    async def enter(person: Person, name: str) -> None:
        await admin.call("POST", "/users", json={"email": _email(name), "name": name, "password": PASSWORD})
        await person.log_in(_email(name), PASSWORD)

    people = [(rob, "rob"), (manager, "max"), *((author, f"author{number}") for number, author in enumerate(authors))]
    await each(people, lambda entry: enter(*entry))
    say(f"{len(people)} people are logged in")
    return Stack(ready, data, admin, authors, rob, manager)


def _email(name: str) -> str:
    return f"{name}@bench.example.com"


async def each(items: list[Any], work: Callable[[Any], Awaitable[Any]], at_once: int = MAKERS) -> list[Any]:
    """`work` on every item, `at_once` side by side; the results in order."""
    return await side_by_side(items, work, at_once)


class App:
    """One app. Changesets are numbered; each adds or changes a file of its own, by the next author."""

    def __init__(self, stack: Stack, path: str, repo: Path, files: int) -> None:
        self.stack = stack
        self.path = path
        self.repo = repo
        self.files = files
        self.made = 0
        self.queue: list[str] = []
        """Paths of the changesets that were queued and not published."""

    async def join(self, *people: tuple[str, str]) -> None:
        """Members by name, with their roles."""

        async def add(entry: tuple[str, str]) -> None:
            name, role = entry
            await self.stack.admin.call("POST", f"{self.path}/members", json={"email": _email(name), "role": role})

        await each(list(people), add)

    def author(self, number: int) -> Person:
        """Whose changeset the `number`th is."""
        return self.stack.authors[number % len(self.stack.authors)]

    async def workspace(self, author: Person) -> str:
        """A fresh workspace's path."""
        made = await author.call("POST", f"{self.path}/workspaces", json={"title": "bench"})
        return f"{self.path}/workspaces/{made['id']}"

    async def save(self, author: Person, workspace: str, path: str, text: str) -> None:
        """Save one file."""
        content = base64.b64encode(text.encode()).decode()
        await author.call("PUT", f"{workspace}/files", json={"path": path, "content": content})

    async def draft(self) -> Draft:
        """A draft with one changed file."""
        number, self.made = self.made, self.made + 1
        author, path = self.author(number), file_of(number, self.files)
        workspace = await self.workspace(author)
        await self.save(author, workspace, path, json.dumps({"changed": str(uuid.uuid4())}))
        body = {"workspace_id": workspace.rpartition("/")[2], "title": f"change {path}"}
        made = await author.call("POST", f"{self.path}/changesets", json=body)
        return Draft(self, author, f"{self.path}/changesets/{made['id']}")

    async def drafts(self, count: int) -> list[Draft]:
        """So many drafts, made side by side."""
        return await each([None] * count, lambda _: self.draft())

    async def fill(self, length: int) -> None:
        """Bring the queue to this length."""

        async def one(_: Any) -> str:
            draft = await self.draft()
            await draft.judged(poll_seconds=0.1)
            await draft.queued()
            if (len(self.queue)) % 50 == 0:
                say(f"{len(self.queue)} of {length} queued")
            return draft.path

        started = time.perf_counter()
        await each([None] * (length - len(self.queue)), one)
        say(f"{length} are queued, after {time.perf_counter() - started:.0f} s")

    async def ended(self, job_id: str, poll_seconds: float = 0.01) -> None:
        """Wait for a job's end, which must be a success."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            job = (await self.stack.max.call("GET", f"{self.path}/jobs/{job_id}"))["job"]
            if job["state"] in ENDED:
                if job["state"] != "succeeded":
                    raise SystemExit(f"the {job['job_type']} job {job_id} ended with {job['reason_code']}")
                return
            await asyncio.sleep(poll_seconds)
        raise SystemExit(f"job {job_id} does not end")


@dataclass(frozen=True)
class Draft:
    """A changeset under way, and its author."""

    app: App
    author: Person
    path: str

    @property
    def id(self) -> str:
        """Its id."""
        return self.path.rpartition("/")[2]

    async def submitted(self) -> str:
        """Submit; the id of the gate's job."""
        return (await self.author.call("POST", f"{self.path}/submit", json={}))["job"]["id"]

    async def judged(self, poll_seconds: float = 0.01) -> None:
        """Submit and wait for the verdict."""
        await self.app.ended(await self.submitted(), poll_seconds)

    async def queued(self) -> None:
        """Approve and queue what was submitted."""
        await self.app.stack.rob.call("POST", f"{self.path}/review", json={"action": "approve"})
        await self.author.call("POST", f"{self.path}/queue", json={})
        self.app.queue.append(self.path)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, Any]]:
    """`conman up` with a suite that does nothing and without limits of requests; what it says when it is ready."""
    ready_file, log_file = folder / "ready.json", folder / "up.log"
    limits = {f"CONMAN_RATE_LIMIT_{bucket}": "1000000" for bucket in ("AUTH", "FILES", "READS", "WRITES")}
    # A suite whose result is known already would not be run: that is not what is measured here.
    suite = {"CONMAN_MSUITE_COMMAND": "true", "CONMAN_SUITE_REUSE_HOURS": "0"}
    environment = {**os.environ, **limits, **suite, "CONMAN_LOG_LEVEL": "warning"}
    up = ["up", "--data", str(folder / "data"), "--port", "0", "--ready-file", str(ready_file)]
    with log_file.open("w") as log:
        child = subprocess.Popen([sys.executable, "-m", "conman", *up], env=environment, stdout=subprocess.DEVNULL, stderr=log)
        try:
            deadline = time.monotonic() + 1800
            while not ready_file.exists():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the stack did not start:\n" + log_file.read_text())
                time.sleep(0.1)
            yield json.loads(ready_file.read_text())
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            child.wait(60)
