"""No secret is in the clear but where it is needed (`spec.md` 6): the whole job is done with planted ones, then all is searched.

Each place that is searched must also show something that is known to be there: a search that sees nothing proves nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bson
import httpx
import pytest_asyncio
from temporalio.client import Client

from tests.support.conman_stack import Stack, World, make_world, running_stack

SUITE = Path(__file__).parents[1] / "support" / "telling_suite.py"
KNOWN = "known-to-be-everywhere-4f1c"


@dataclass
class Plants:
    """Secrets, each with a mark of chance that no encoding of texts changes."""

    marks: dict[str, str] = field(default_factory=dict)

    def plant(self, where: str, shape: str = "key: {} end") -> str:
        self.marks[where] = secrets.token_hex(12)
        return shape.format(self.marks[where])

    def found_in(self, data: bytes) -> list[str]:
        """Where the secrets were planted that stand in the bytes: as they are, in base64, or in hex."""
        return [where for where, mark in self.marks.items() if any(spelled in data for spelled in spellings(mark))]


def spellings(mark: str) -> Iterator[bytes]:
    data = mark.encode()
    yield data
    yield mark.encode("utf-16-le")
    yield data.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        yield encoded[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]


@dataclass
class Run:
    """What the whole job left."""

    plants: Plants
    data: Path
    answers: list[tuple[str, bytes]]
    documents: dict[str, list[bytes]]
    histories: list[bytes]
    revealed: list[str]
    known_job: str


@pytest_asyncio.fixture(scope="module")
async def run(tmp_path_factory: Any) -> AsyncIterator[Run]:
    folder = tmp_path_factory.mktemp("leaks")
    plants = Plants()
    made = Run(plants, folder, [], {}, [], [], "")
    variables = {"CONMAN_LOG_LEVEL": "debug", "CONMAN_GATE_MEMORY_MB": "16384"}
    async with running_stack(folder, msuite=f"{sys.executable} {SUITE}", **variables) as stack:

        async def remember(reply: httpx.Response) -> None:
            await reply.aread()
            if not reply.request.url.path.endswith("/reveal"):
                made.answers.append((f"{reply.request.method} {reply.request.url.path} {reply.status_code}", reply.content))

        stack.client.event_hooks["response"].append(remember)
        world = await make_world(stack)
        await the_whole_job(world, made)
        await read_everything(stack, made)
    yield made


async def the_whole_job(world: World, made: Run) -> None:
    """People give secrets in every way, right and wrong, and a release goes through all gates into two environments."""
    plants = made.plants
    await world.set(env_defaults={"KNOWN": {"type": "string", "value": KNOWN}})
    environments = await world.environments()
    profiles = [f"{world.path}/runtime-profiles/{row['runtime_profile_id']}" for row in environments]
    for path in profiles[:2]:
        await give_secrets(world, plants, path)
    await refused_requests(world, plants, profiles[0])
    await revisions_and_keys(world, made, profiles[0])
    made.known_job = await released_and_deployed(world, environments)
    await give_secrets(world, plants, profiles[0])
    await failing_gates(world)


async def give_secrets(world: World, plants: Plants, path: str) -> None:
    n = len(plants.marks)
    lines = "\n".join(plants.plant(f"line {number} of {n}", "{}") for number in (1, 2))
    given = {
        "TOKEN": plants.plant(f"token {n}"),
        "SPECIAL": plants.plant(f"special {n}", "ä\"ö\\ <{}> & 100% +/= 'quoted'"),
        "PEM": f"-----BEGIN KEY-----\n{lines}\n-----END KEY-----\n",
        "URI": plants.plant(f"uri {n}", "mongodb://user:{}@db.example.com:27017/app?a=b"),
    }
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    version = (await world.eve.get(path))["version"]
    body = {"secrets": given, "version": version}
    first = await world.eve.ok("PATCH", path, json=body, headers=headers)
    again = await world.eve.ok("PATCH", path, json=body, headers=headers)
    assert first["secrets"] == again["secrets"]
    assert set(first["secrets"]) >= set(given)


async def refused_requests(world: World, plants: Plants, path: str) -> None:
    """Bodies that are wrong in every part, each with a secret in it."""
    version = (await world.eve.get(path))["version"]
    bodies: list[dict[str, Any]] = [
        {"secrets": {"A": plants.plant("with a stale version")}, "version": version + 7},
        {"secrets": {"A": plants.plant("without a version")}},
        {"secrets": {"A": [plants.plant("in a list")]}, "version": version},
        {"secrets": {"A": {"type": "string", "value": plants.plant("in an object")}}, "version": version},
        {"secrets": plants.plant("in place of all"), "version": version},
        {"secrets": {"A": plants.plant("beside an unknown field")}, "unknown": 1, "version": version},
        {"secrets": {"not a name": plants.plant("under a bad name")}, "version": version},
        {"secrets": {"A": plants.plant("too long") + "x" * 20_000}, "version": version},
        {"secrets": {"A": plants.plant("with a NUL") + "\0"}, "version": version},
        {"secrets": {"TOKEN": "key:**** end", "A": plants.plant("beside a mask")}, "env_vars": {"A": 1}, "version": version},
        {
            "secrets": {"A": plants.plant("beside a variable")},
            "env_vars": {"A": {"type": "string", "value": "x"}},
            "version": version,
        },
    ]
    for body in bodies:
        for method, where in (("PATCH", path), ("POST", f"{world.path}/runtime-profiles")):
            headers = {"Idempotency-Key": secrets.token_hex(8)}
            reply = await world.eve.send(method, where, json=body, headers=headers)
            assert reply.status_code in (400, 409), (body, reply.text)
    text = '{"secrets": {"A": "' + plants.plant("in what is no JSON") + '"'
    for content in (text, text + '}, "secrets": {}}'):
        headers = {"Content-Type": "application/json"}
        assert (await world.eve.send("PATCH", path, content=content, headers=headers)).status_code == 400
    body = {"secrets": {"A": plants.plant("by somebody who may not")}, "version": version}
    assert (await world.ann.send("PATCH", path, json=body)).status_code == 403


async def revisions_and_keys(world: World, made: Run, path: str) -> None:
    """All that reads, turns back and re-encrypts secrets."""
    eve = world.eve
    for suffix in ("", "/revisions", "/effective", "/diff?from=1&to=2"):
        assert (await eve.send("GET", f"{path}{suffix}")).status_code == 200
    revealed = await eve.post(f"{path}/secrets/TOKEN/reveal")
    made.revealed.append(revealed["value"])
    await eve.post(f"{path}/rotate-key")
    assert (await eve.post(f"{path}/secrets/TOKEN/reveal")) == revealed
    made_new = await eve.post(f"{world.path}/runtime-profiles", {"name": "extra", "secrets": {"K": made.plants.plant("extra")}})
    extra = f"{world.path}/runtime-profiles/{made_new['id']}"
    await eve.ok("PATCH", extra, json={"secrets": {"K": None}, "version": made_new["version"]})
    await eve.post(f"{extra}/revert", {"revision_number": 1})
    await eve.send("DELETE", extra)
    assert (await eve.send("POST", f"{path}/secrets/NONE/reveal", json={})).status_code == 404


async def released_and_deployed(world: World, environments: list[dict[str, Any]]) -> str:
    release = await world.published()
    for number, environment in enumerate(environments[:2]):
        ended = await world.deployed(environment["id"], release, "promote" if number else "deploy")
        assert ended["state"] == "succeeded", ended
        shown = Path(next(row["folder"] for row in await world.environments() if row["id"] == environment["id"]))
        profile = json.loads((shown / "profile" / "profile.json").read_text(encoding="utf-8"))
        assert len(profile["secrets"]) == 4
        shown_of = await world.eve.get(f"{world.path}/runtime-profiles/{environment['runtime_profile_id']}")
        assert shown_of["applied"] == {environment["id"]: shown_of["revision_number"]}
    jobs, _ = await world.eve.listed(f"{world.path}/jobs", type="msuite_deploy")
    return jobs[0]["id"]


async def failing_gates(world: World) -> None:
    """A gate that fails with a secret in its last words."""
    path = await world.submitted({"fail.flag": "fail", "entities/bad.json": "{}"})
    changeset = await world.ann.get(path)
    assert changeset["gate"]["state"] == "failed"
    log = await world.ann.get(f"{world.path}/jobs/{changeset['gate']['job_id']}/logs", params={"limit": 100})
    texts = "\n".join(line["text"] for line in log["lines"])
    assert "it failed with key: ****" not in texts
    assert "it failed with ****" in texts
    assert KNOWN in texts


async def read_everything(stack: Stack, made: Run) -> None:
    """Every document, and every workflow's history as Temporal gives it out."""
    for name in await stack.db.list_collection_names():
        made.documents[name] = [bson.encode(document) async for document in stack.db[name].find()]
    client = await Client.connect(stack.ready["temporal_address"])
    async for execution in client.list_workflows():
        history = await client.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history()
        made.histories.extend(event.SerializeToString() for event in history.events)


def test_the_plants_are_seen_where_they_are_meant_to_be(run: Run) -> None:
    """The search works: a reveal gives the secret out, and an environment's profile holds it."""
    (value,) = run.revealed
    assert run.plants.found_in(value.encode()) == ["token 0"]
    deployed = b"".join(path.read_bytes() for path in run.data.glob("data/environments/*/*/deployments/*/profile/profile.json"))
    first, second = 0, 5
    expected = {f"{what} {n}" for n in (first, second) for what in ("token", "special", "uri", "line 1 of", "line 2 of")}
    assert set(run.plants.found_in(deployed)) == expected
    for spelled in spellings(run.plants.marks["token 0"]):
        assert run.plants.found_in(b"x" + spelled + b"x") == ["token 0"]


def test_no_answer_holds_a_secret(run: Run) -> None:
    assert any(KNOWN.encode() in content for _, content in run.answers)
    assert {name: found for name, content in run.answers if (found := run.plants.found_in(content))} == {}


def test_no_document_holds_a_secret(run: Run) -> None:
    assert {"audit", "idempotency", "job_logs", "jobs", "profiles", "profile_revisions", "secret_values"} <= set(run.documents)
    assert any(KNOWN.encode() in document for document in run.documents["job_logs"])
    found = {name: run.plants.found_in(b"\n".join(documents)) for name, documents in run.documents.items()}
    assert {name: where for name, where in found.items() if where} == {}


def test_no_history_holds_a_secret(run: Run) -> None:
    assert any(run.known_job.encode() in event for event in run.histories)
    assert run.plants.found_in(b"\n".join(run.histories)) == []


def test_no_file_holds_a_secret(run: Run) -> None:
    """Databases, logs, mails, keys, repositories, scratch: all but the profiles that environments show."""
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    for path in run.data.rglob("*"):
        rendered = path.parent.name == "profile" and "environments" in path.parts
        if not path.is_file() or path.is_symlink() or rendered:
            continue
        content = path.read_bytes()
        seen.update(part for part in path.relative_to(run.data).parts[:2])
        if run.plants.found_in(content):
            found[str(path.relative_to(run.data))] = run.plants.found_in(content)
        if run.known_job.encode() in content:
            seen.add(f"known in {path.relative_to(run.data).parts[1]}")
    assert found == {}
    assert {"up.log", "data", "logs", "known in temporal", "known in mongo"} <= seen, sorted(seen)
    assert not any((run.data / "data" / "scratch").iterdir())
