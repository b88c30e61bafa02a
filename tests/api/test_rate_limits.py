"""Limits per minute over HTTP, on a stack of its own with small ones and two API processes (`api.md` 1)."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from conman.domain.rate_limit import WINDOW_SECONDS
from conman.embedded.ports import lease
from tests.support.conman_stack import PASSWORD, Person, Stack, assert_error, b64, make_world, running_stack, wait_for
from tests.support.plain_http import NO_TLS

AUTH, FILES, READS, WRITES = 10, 6, 12, 4
PROXY = "127.0.0.1"
ROOM = 20.0
"""A test of exact counts begins with at least so many seconds of a minute before it."""
SMALL = {
    "CONMAN_RATE_LIMIT_AUTH": str(AUTH),
    "CONMAN_RATE_LIMIT_FILES": str(FILES),
    "CONMAN_RATE_LIMIT_READS": str(READS),
    "CONMAN_RATE_LIMIT_WRITES": str(WRITES),
    "CONMAN_TRUSTED_PROXIES": PROXY,
}


@asynccontextmanager
async def another_api(data: Path, **variables: str) -> AsyncIterator[str]:
    """One more API process on the running stack; the base of its URLs."""
    port = lease([], "127.0.0.1")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_")} | variables
    command = [sys.executable, "-m", "conman", "api", "--data", str(data), "--port", str(port.port)]
    with (data / f"api-{port.port}.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(*command, env=environment, cwd=data, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port.port}/api"
        try:
            async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:

                async def live() -> bool:
                    assert child.returncode is None, log.name
                    try:
                        return (await client.get(f"{url}/health/live")).status_code == 200
                    except httpx.TransportError:
                        return False

                await wait_for(live, "the other API")
            yield url
        finally:
            if child.returncode is None:
                child.terminate()
            await child.wait()
            port.release()


@dataclass
class Two:
    """Two API processes with small limits on one stack, and somebody logged in at both."""

    stack: Stack
    one: httpx.AsyncClient
    other: httpx.AsyncClient
    files: str

    async def somebody(self) -> list[Person]:
        """A fresh member of the app, at both processes."""
        made = await self.stack.person("limited")
        app = self.files.split("/workspaces")[0]
        await self.stack.admin.post(f"{app}/members", {"user_id": made.id, "role": "app_admin"})
        return [Person(client, made.id, made.email, made.headers) for client in (self.one, self.other)]


@pytest_asyncio.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    folder = tmp_path_factory.mktemp("limits")
    async with (
        running_stack(folder) as stack,
        another_api(stack.data, **SMALL) as one,
        another_api(stack.data, **SMALL) as other,
        httpx.AsyncClient(base_url=one, trust_env=False, timeout=60, verify=NO_TLS) as here,
        httpx.AsyncClient(base_url=other, trust_env=False, timeout=60, verify=NO_TLS) as there,
    ):
        world = await make_world(stack)
        workspace = await world.workspace(world.eve)
        await world.save(workspace, "a.json", "{}", world.eve)
        yield Two(stack, here, there, f"{workspace}/files")


async def begin() -> None:
    """Wait for a minute that has room for the whole test, so that no window ends in it."""
    left = WINDOW_SECONDS - time.time() % WINDOW_SECONDS
    if left < ROOM:
        await asyncio.sleep(left)


def standing(reply: httpx.Response) -> tuple[int, int]:
    return int(reply.headers["x-ratelimit-limit"]), int(reply.headers["x-ratelimit-remaining"])


async def test_reads_fall_by_one_to_429_and_the_headers_say_so(two: Two) -> None:
    person, _ = await two.somebody()
    await begin()
    replies = [await person.send("GET", "/me") for _ in range(READS)]
    assert [standing(reply) for reply in replies] == [(READS, left) for left in range(READS - 1, -1, -1)]
    reply = await person.send("GET", "/me")
    assert_error(reply, 429, "rate_limited")
    assert standing(reply) == (READS, 0)
    assert 0 < int(reply.headers["retry-after"]) <= WINDOW_SECONDS
    assert int(reply.headers["x-ratelimit-reset"]) % WINDOW_SECONDS == 0


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [("GET", "/me", READS), ("PATCH", "/me", WRITES), ("GET", "files", FILES), ("PUT", "files", FILES)],
)
async def test_two_processes_serve_one_allowance_of_a_user(two: Two, method: str, path: str, limit: int) -> None:
    both = await two.somebody()
    await begin()
    path = two.files if path == "files" else path
    body = {"PATCH": {"name": "x"}, "PUT": {"path": "a.json", "content": b64("{}")}}.get(method)
    more = {"json": body} if body is not None else {"params": {"path": "a.json"}} if path == two.files else {}
    replies = [await both[number % 2].send(method, path, **more) for number in range(limit + 2)]
    assert [reply.status_code for reply in replies] == [200] * limit + [429] * 2, [reply.text for reply in replies]


async def test_requests_at_once_are_never_served_beyond_the_allowance(two: Two) -> None:
    """They may be served less: the embedded database tells a counter as the writes beside this one have left it."""
    both = await two.somebody()
    await begin()
    replies = await asyncio.gather(*(both[number % 2].send("PATCH", "/me", json={}) for number in range(5 * WRITES)))
    found = Counter(reply.status_code for reply in replies)
    assert found[200] <= WRITES
    assert found[200] + found[429] == 5 * WRITES, [reply.text for reply in replies]
    assert_error(await both[0].send("PATCH", "/me", json={}), 429, "rate_limited")


async def test_buckets_are_counted_apart_and_so_are_users(two: Two) -> None:
    person, _ = await two.somebody()
    other, _ = await two.somebody()
    await begin()
    for _ in range(WRITES):
        assert (await person.send("PATCH", "/me", json={})).status_code == 200
    assert_error(await person.send("PATCH", "/me", json={}), 429, "rate_limited")
    assert (await person.send("GET", "/me")).status_code == 200
    assert (await other.send("PATCH", "/me", json={})).status_code == 200


async def test_a_refusal_carries_the_headers_too_and_counts(two: Two) -> None:
    person, _ = await two.somebody()
    await begin()
    replies = [
        await person.send("GET", "/users"),
        await person.send("GET", "/apps/nowhere"),
        await person.send("GET", "/me", params={"page": "x"}),
    ]
    assert [reply.status_code for reply in replies][:2] == [403, 404]
    assert [standing(reply)[1] for reply in replies] == [READS - 1, READS - 2, READS - 3]


async def test_a_limit_comes_after_login_and_before_role_body_and_state(two: Two) -> None:
    person, _ = await two.somebody()
    await begin()
    for _ in range(WRITES):
        await person.send("PATCH", "/me", json={})
    assert_error(await two.one.patch("/me", json={}), 401, "unauthorized")
    assert_error(await person.send("POST", "/users", json={"no": "such body"}), 429, "rate_limited")
    assert_error(await person.send("POST", "/nowhere", json={}), 404, "not_found")


async def test_auth_routes_are_counted_by_address_before_anything_else(two: Two) -> None:
    """The peer is a trusted proxy here: the address is what it forwards, whatever its client says before it."""
    await begin()

    async def ask(number: int) -> int:
        client = (two.one, two.other)[number % 2]
        headers = {"X-Forwarded-For": f"203.0.113.{number}, 198.51.100.7"}
        path = ("/auth/login", "/auth/forgot-password", "/auth/logout")[number % 3]
        return (await client.post(path, json={"email": "nobody@example.com"}, headers=headers)).status_code

    found = [await ask(number) for number in range(2 * AUTH)]
    assert [status == 429 for status in found] == [False] * AUTH + [True] * AUTH
    elsewhere = await two.one.post("/auth/login", json={}, headers={"X-Forwarded-For": "198.51.100.8"})
    assert_error(elsewhere, 400, "validation_error")
    assert standing(elsewhere) == (AUTH, AUTH - 1)


async def test_without_a_trusted_proxy_nobody_chooses_their_address(two: Two) -> None:
    async with (
        another_api(two.stack.data, CONMAN_RATE_LIMIT_AUTH="3") as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=NO_TLS) as client,
    ):
        await begin()
        replies = [
            await client.post("/auth/login", json={}, headers={"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(4)
        ]
    assert replies[-1].status_code == 429


async def test_health_and_docs_are_not_limited(two: Two) -> None:
    for path in ("/health", "/health/live", "/openapi.json", "/docs"):
        for _ in range(READS + 2):
            reply = await two.one.get(path)
            assert reply.status_code == 200, path
            assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


async def test_a_reply_of_the_stack_without_small_limits_has_the_headers_of_its_own(two: Two) -> None:
    person = await two.stack.person("free")
    assert standing(await person.send("GET", "/me"))[0] == 1_000_000
    login = await two.stack.client.post("/auth/login", json={"email": person.email, "password": PASSWORD})
    assert standing(login)[0] == 1_000_000
