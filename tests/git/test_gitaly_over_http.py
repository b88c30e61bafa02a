"""What people are told when the Git server fails: the application over HTTP, with a Gitaly server behind a proxy of calls."""

from __future__ import annotations

import base64
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
import pytest_asyncio
from fault_harness import CACHE_BYTES, MODES, PATIENT
from fault_proxy import DONE_DOWN, DOWN, CallProxy, call_proxy, failing

from conman.api.app import create_api, prepare
from conman.config import Settings, generate_secret
from conman.git.gitaly import CacheOptions, GitalyGit
from conman.git.server import ServerOptions, serve
from conman.services.platform import Platform
from conman.services.vault import Vault
from conman.settings.git import GitalyMode
from conman.store.database import connect
from conman.workflows.client import Commands

EMAIL, PASSWORD = "ann@example.org", "a password for tests 1"
MASTER_KEYS = f"main:{base64.b64encode(bytes(32)).decode()}"
FILE = {"path": "conf/a.json", "content": base64.b64encode(b"{}\n").decode(), "message": "save it"}
SAVING = {"pack": "PostReceivePack", "operations": "UserCommitFiles"}


@dataclass
class Served:
    """A client that is logged in, an app and a workspace of it, and the proxy before the Git server."""

    http: httpx.AsyncClient
    proxy: CallProxy
    mode: str
    workspace: str

    async def fails(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The `git_error` that a request must be answered with."""
        reply = await self.http.request(method, path, **more)
        assert reply.status_code == 502, reply.text
        error = reply.json()["error"]
        assert set(error) == {"code", "message", "request_id", "details"}
        assert error["code"] == "git_error"
        assert error["details"]["operation"] in error["message"]
        return error

    async def ok(self, method: str, path: str, **more: Any) -> Any:
        reply = await self.http.request(method, path, **more)
        assert reply.status_code < 300, reply.text
        return reply.json()["data"]


@pytest_asyncio.fixture(params=list(MODES))
async def served(request: pytest.FixtureRequest, mongo_uri: str, tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings.model_validate(
        {
            "data": tmp_path,
            "secret": generate_secret(),
            "master_keys": MASTER_KEYS,
            "admin_email": EMAIL,
            "admin_password": PASSWORD,
        }
    )
    options = ServerOptions(flavour=MODES[request.param], stop_seconds=0)
    client = connect(mongo_uri)
    database = f"test_{uuid.uuid4().hex[:12]}"
    async with serve(tmp_path / "storage", options) as server, call_proxy(server) as proxy:
        cache = CacheOptions(tmp_path / "cache", CACHE_BYTES, 4)
        git = GitalyGit(replace(PATIENT, address=proxy.address, attempts=3), GitalyMode(request.param), cache)
        keyring = Vault.of(MASTER_KEYS)
        platform = Platform(settings, client[database], git, cast("Commands", None), keyring)
        await prepare(platform)
        transport = httpx.ASGITransport(create_api(platform))
        async with httpx.AsyncClient(transport=transport, base_url="http://conman/api") as http:
            login = await http.post("/auth/login", json={"email": EMAIL, "password": PASSWORD})
            http.headers["authorization"] = f"Bearer {login.json()['data']['token']}"
            made = Served(http, proxy, request.param, "")
            app = await made.ok("POST", "/apps", json={"name": "shop", "repo_path": "shop.git", "create_repository": True})
            workspace = await made.ok("POST", f"/apps/{app['id']}/workspaces", json={"title": "work"})
            made.workspace = f"/apps/{app['id']}/workspaces/{workspace['id']}"
            yield made
        await git.close()
    await client.drop_database(database)
    await client.close()


async def test_a_server_that_is_away_fails_a_read_which_can_be_repeated(served: Served) -> None:
    served.proxy.all_calls(DOWN)
    error = await served.fails("GET", f"{served.workspace}/files")
    assert error["details"]["safe_to_repeat"] is True
    assert "can be repeated" in error["message"]
    served.proxy.calm()
    assert await served.ok("GET", f"{served.workspace}/files") is not None


async def test_a_server_that_is_away_fails_a_save_of_which_nothing_is_there(served: Served) -> None:
    served.proxy.all_calls(DOWN)
    error = await served.fails("PUT", f"{served.workspace}/files", json=FILE)
    assert error["details"]["safe_to_repeat"] is True
    assert "Idempotency-Key" in error["message"]
    served.proxy.calm()
    reply = await served.http.get(f"{served.workspace}/files/raw", params={"path": FILE["path"]})
    assert reply.status_code == 404


async def test_a_failure_that_does_not_pass_says_to_read_before_repeating(served: Served) -> None:
    for method in ("InfoRefsUploadPack", "InfoRefsReceivePack", "FindCommit", "ListRefs"):
        served.proxy.fault(method, failing(grpc.StatusCode.PERMISSION_DENIED), until=None)
    error = await served.fails("PUT", f"{served.workspace}/files", json=FILE)
    assert error["details"]["safe_to_repeat"] is False
    assert "read" in error["message"]


async def test_a_save_whose_outcome_is_unknown_is_done_once_when_it_is_repeated_with_its_key(served: Served) -> None:
    method = SAVING[served.mode]
    served.proxy.calm()
    first = await served.ok("PUT", f"{served.workspace}/files", json=FILE)
    writes, edits, failures = served.proxy.count(method), first["pending_edits"], 0
    for number in range(1, writes + 1):
        change = {**FILE, "path": f"conf/{number}.json"}
        keyed = {"Idempotency-Key": uuid.uuid4().hex}
        served.proxy.calm()
        # This write is done, and then the server is away.
        served.proxy.fault(method, DONE_DOWN, call=number)
        reply = await served.http.put(f"{served.workspace}/files", json=change, headers=keyed)
        if reply.status_code != 200:
            failures += 1
            assert reply.status_code == 502, reply.text
            assert reply.json()["error"]["details"]["safe_to_repeat"] is True
        served.proxy.calm()
        saved = await served.ok("PUT", f"{served.workspace}/files", json=change, headers=keyed)
        assert saved["pending_edits"] == edits + number
        assert await served.ok("PUT", f"{served.workspace}/files", json=change, headers=keyed) == saved
    assert failures > 0
    listed = await served.ok("GET", f"{served.workspace}/files", params={"path": "conf", "recursive": True})
    assert [row["path"] for row in listed] == sorted(["conf/a.json", *(f"conf/{number}.json" for number in range(1, writes + 1))])
