"""Temp envs over HTTP: how they are made, who reaches their files under their own hosts, and how they end (`spec.md` 13)."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from conman.domain.times import milliseconds
from tests.support.conman_stack import Person, World, assert_error, last, make_world, wait_for
from tests.support.plain_http import NO_TLS

FILES: dict[str, str | bytes] = {
    "index.html": "<h1>shop</h1>",
    "entities/order.json": '{"pending": true}',
    "docs/index.html": "<h1>docs</h1>",
    "pages/main.css": "body {}",
    "queues/main.yaml": "a: 1\n",
    "LICENSE": "free",
    "assets/logo.png": b"\x89PNG\r\n\x1a\n\0",
    "sp ace/ä?#.txt": "odd",
    "deploy/secret.txt": "blocked",
}


@dataclass
class Site:
    """The host of a temp env, on the port of the API."""

    world: World
    url: str

    async def send(self, path: str, method: str = "GET", person: Person | None = None, **headers: str) -> httpx.Response:
        """A request without following redirects or keeping cookies."""
        known = person.headers if person is not None else {}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
            host = {"Host": urlsplit(self.url).netloc}
            return await client.request(method, f"{self.world.stack.url}{path}", headers={**host, **known, **names})

    async def text(self, path: str, person: Person, **headers: str) -> str:
        reply = await self.send(path, person=person, **headers)
        assert reply.status_code == 200, reply.text
        return reply.text


async def made(world: World, kind: str, source: str, person: Person | None = None, **more: Any) -> dict[str, Any]:
    """A temp env whose job has ended."""
    reply = await (person or world.ann).post(f"{world.path}/temp-envs", {"kind": kind, "source_id": last(source), **more})
    assert (reply["temp_env"]["state"], reply["job"]["job_type"]) == ("provisioning", "temp_env_provision")
    assert reply["job"]["id"] == reply["temp_env"]["job_id"]
    job = await world.job(reply["job"]["id"])
    assert job["state"] == "succeeded", job
    return await shown(world, reply["temp_env"]["id"])


async def shown(world: World, temp_env_id: str) -> dict[str, Any]:
    return await world.ann.get(f"{world.path}/temp-envs/{temp_env_id}")


async def deleted(world: World, temp_env_id: str) -> dict[str, Any]:
    reply = await world.ann.ok("DELETE", f"{world.path}/temp-envs/{temp_env_id}")
    assert (reply["temp_env"]["id"], reply["job"]["job_type"]) == (temp_env_id, "temp_env_expire")
    assert (await world.job(reply["job"]["id"]))["state"] == "succeeded"
    return await shown(world, temp_env_id)


async def opened(world: World, temp_env: dict[str, Any], person: Person) -> tuple[str, str]:
    """The path of a link that opens it for a person, and the cookie that it gives."""
    link = urlsplit((await person.post(f"{world.path}/temp-envs/{temp_env['id']}/open"))["url"])
    path = f"{link.path}?{link.query}"
    reply = await Site(world, temp_env["url"]).send(path)
    assert (reply.status_code, reply.headers["location"]) == (303, "/"), reply.text
    cookie = reply.headers["set-cookie"]
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "domain" not in cookie.lower()
    return path, cookie.partition(";")[0]


@pytest_asyncio.fixture(scope="module")
async def world(stack: Any) -> World:
    """An app of this module's own: its settings are changed here."""
    return await make_world(stack, blocked_paths=["deploy/**"])


@pytest_asyncio.fixture(scope="module")
async def workspace(world: World) -> str:
    path = await world.workspace()
    for name, content in FILES.items():
        if not name.startswith("deploy/"):
            await world.save(path, name, content)
    await world.set(blocked_paths=[])
    await world.save(path, "deploy/secret.txt", FILES["deploy/secret.txt"])
    await world.set(blocked_paths=["deploy/**"])
    return path


@pytest_asyncio.fixture(scope="module")
async def temp_env(world: World, workspace: str) -> dict[str, Any]:
    return await made(world, "workspace", workspace)


@pytest.fixture
def site(world: World, temp_env: dict[str, Any]) -> Site:
    return Site(world, temp_env["url"])


# -- Making


async def test_a_new_one_is_shown_as_the_contract_says(world: World, workspace: str, temp_env: dict[str, Any]) -> None:
    head = (await world.ann.get(workspace))["head_sha"]
    assert (await world.ann.get(workspace))["pending_edits"] == 0
    expected = {
        "app_id": world.app["id"],
        "created_by": world.ann.id,
        "kind": "workspace",
        "source_id": last(workspace),
        "state": "active",
        "head_sha": head,
        "extended_until": None,
        "grace_until": None,
        "db_name": None,
        "base_profile_id": (await world.environments())[0]["runtime_profile_id"],
    }
    assert {name: temp_env[name] for name in expected} == expected
    host = urlsplit(temp_env["url"]).hostname or ""
    assert re.fullmatch(rf"{world.app['name']}-workspace-[a-z]{{3,9}}-[a-z]{{3,9}}\.localhost", host)
    assert temp_env["branch"] == f"conman/temp/{host.partition('.')[0]}"
    idle = milliseconds(temp_env["expires_at"]) - milliseconds(temp_env["last_activity_at"])
    assert idle == 24 * 3_600_000
    profile = await world.ann.get(f"{world.path}/runtime-profiles/{temp_env['runtime_profile_id']}")
    assert profile["kind"] == "temp_workspace"
    assert [event["action"] for event in await world.audit(entity_id=temp_env["id"])] == ["provisioned", "created"]
    assert {"id": temp_env["id"]}.items() <= (await world.ann.get(f"{world.path}/temp-envs", params={"state": "active,expired"}))[
        -1
    ].items()
    assert await world.ann.get(f"{world.path}/temp-envs", params={"state": "failed"}) == []


async def test_a_source_has_one_live_temp_env_and_its_workspace_stays(
    world: World, workspace: str, temp_env: dict[str, Any]
) -> None:
    body = {"kind": "workspace", "source_id": last(workspace)}
    refused = assert_error(await world.ann.send("POST", f"{world.path}/temp-envs", json=body), 409, "conflict")
    assert refused["details"] == {"temp_env_id": temp_env["id"]}
    refused = assert_error(await world.ann.send("DELETE", workspace), 409, "conflict")
    assert refused["details"] == {"temp_env_id": temp_env["id"]}


async def test_only_a_profile_for_environments_of_this_app_can_be_the_base(world: World, temp_env: dict[str, Any]) -> None:
    workspace = await world.workspace()
    for profile in (temp_env["runtime_profile_id"], str(uuid.UUID(int=0))):
        body = {"kind": "workspace", "source_id": last(workspace), "base_profile_id": profile}
        refused = assert_error(await world.ann.send("POST", f"{world.path}/temp-envs", json=body), 400, "validation_error")
        assert refused["details"][0]["field"] == "base_profile_id"


async def test_what_is_anothers_is_for_a_config_manager(world: World) -> None:
    body = {"kind": "workspace", "source_id": last(await world.workspace())}
    assert_error(await world.rob.send("POST", f"{world.path}/temp-envs", json=body), 403, "forbidden")
    reply = await world.max.post(f"{world.path}/temp-envs", body)
    await world.job(reply["job"]["id"])
    path = f"{world.path}/temp-envs/{reply['temp_env']['id']}"
    assert_error(await world.rob.send("POST", f"{path}/extend", json={"seconds": 7200}), 403, "forbidden")
    extended = await world.ann.post(f"{path}/extend", {"seconds": 7200})
    assert milliseconds(extended["extended_until"]) - milliseconds(extended["updated_at"]) == 7_200_000
    assert_error(await world.ann.send("POST", f"{path}/extend", json={"seconds": 3599}), 400, "validation_error")
    assert_error(await world.ann.send("POST", f"{path}/undo-expire", json={}), 409, "invalid_transition")
    assert_error(await world.ann.send("POST", f"{path}/recreate", json={}), 409, "invalid_transition")


# -- Serving


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("entities/order.json", "application/json; charset=utf-8"),
        ("pages/main.css", "text/css; charset=utf-8"),
        ("queues/main.yaml", "application/yaml; charset=utf-8"),
        ("LICENSE", "text/plain; charset=utf-8"),
        ("assets/logo.png", "image/png"),
    ],
)
async def test_members_get_its_files_with_their_types(world: World, site: Site, path: str, content_type: str) -> None:
    reply = await site.send(f"/{path}", person=world.rob)
    assert (reply.status_code, reply.headers["content-type"]) == (200, content_type)
    content = FILES[path]
    assert reply.content == (content if isinstance(content, bytes) else content.encode())
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "private, no-cache"
    head = await site.send(f"/{path}", "HEAD", person=world.rob)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(reply.content)))
    same = await site.send(f"/{path}", person=world.rob, If_None_Match=reply.headers["etag"])
    assert (same.status_code, same.content) == (304, b"")
    part = await site.send(f"/{path}", person=world.rob, Range="bytes=1-2")
    assert (part.status_code, part.content) == (206, reply.content[1:3])
    whole = await site.send(f"/{path}", "HEAD", person=world.rob, Range="bytes=1-2")
    assert (whole.status_code, whole.headers["content-length"]) == (200, str(len(reply.content)))


async def test_a_folder_shows_its_page_and_is_never_listed(world: World, site: Site) -> None:
    assert await site.text("/", world.rob) == FILES["index.html"]
    assert await site.text("/docs/", world.rob) == FILES["docs/index.html"]
    moved = await site.send("/docs", person=world.rob)
    assert (moved.status_code, moved.headers["location"]) == (308, "/docs/")
    assert (await site.send("/docs?page=2", person=world.rob)).headers["location"] == "/docs/?page=2"
    for path in ("/entities", "/entities/", "/LICENSE/"):
        assert_error(await site.send(path, person=world.rob), 404, "not_found")


async def test_a_name_with_signs_of_urls_in_it_is_found(world: World, site: Site) -> None:
    assert await site.text("/sp%20ace/%C3%A4%3F%23.txt", world.rob) == "odd"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.json",
        "/.git/config",
        "/.git/HEAD",
        "/docs/../.git/config",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%252e%252e/etc/passwd",
        "//etc/passwd",
        "/deploy/secret.txt",
        "/profile.env",
        "/profile.json",
        "/api/health",
        "/api/me",
        "/api/docs",
    ],
)
async def test_nothing_else_is_there_neither_outside_nor_blocked_nor_the_api(world: World, site: Site, path: str) -> None:
    assert_error(await site.send(path, person=world.rob), 404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_files_are_only_read(world: World, site: Site, method: str) -> None:
    reply = await site.send("/index.html", method, person=world.rob)
    assert_error(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD"


async def test_it_is_for_members_and_says_so_to_a_browser_and_to_a_program(world: World, site: Site) -> None:
    assert_error(await site.send("/"), 401, "unauthorized")
    assert_error(await site.send("/", person=world.stranger), 403, "forbidden")
    assert_error(await site.send("/", Authorization="Bearer none"), 401, "unauthorized")
    page = await site.send("/", Accept="text/html,*/*")
    assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "Open this temporary environment in Conman" in page.text
    assert "shop" not in page.text


@pytest.mark.parametrize("host", ["none-workspace-calm-lake.localhost", "a.b.localhost", "api.localhost", "conman.localhost:80"])
async def test_below_the_domain_there_are_only_temp_envs(world: World, host: str) -> None:
    for path in ("/", "/api/health"):
        assert_error(await Site(world, f"http://{host}").send(path, person=world.rob), 404, "not_found")


async def test_other_hosts_are_the_apis_own(world: World) -> None:
    for host in ("localhost", "conman.example.com", "127.0.0.1:80", "[::1]:80"):
        assert (await Site(world, f"http://{host}").send("/api/health/live")).status_code == 200


async def test_a_use_of_its_host_or_of_its_record_moves_its_deadline(world: World, site: Site, temp_env: dict[str, Any]) -> None:
    record = world.stack.db["temp_envs"]
    path = f"{world.path}/temp-envs/{temp_env['id']}"
    used_long_ago = {"$set": {"last_activity_at": "2020-01-01T00:00:00.000Z"}}

    async def moves(method: str) -> bool:
        if method == "visit":
            await site.send("/", person=world.rob)
        elif method == "open":
            await world.rob.post(f"{path}/open")
        else:
            await world.rob.get(path)
        found = await record.find_one({"_id": temp_env["id"]})
        return found is not None and found["last_activity_at"] > "2020-01-01T00:00:00.000Z"

    for method in ("visit", "show", "open"):
        await record.update_one({"_id": temp_env["id"]}, used_long_ago)
        await wait_for(partial(moves, method), "a use that comes a second after the last one")
    await record.update_one({"_id": temp_env["id"]}, used_long_ago)
    assert (await site.send("/", person=world.stranger)).status_code == 403
    assert (await record.find_one({"_id": temp_env["id"]}) or {})["last_activity_at"] == "2020-01-01T00:00:00.000Z"
    await wait_for(partial(moves, "visit"), "a use")


# -- Opening it in a browser


async def test_a_link_opens_it_once_and_its_cookie_is_good_there_alone(
    world: World, site: Site, temp_env: dict[str, Any]
) -> None:
    path, cookie = await opened(world, temp_env, world.rob)
    assert (await site.send("/index.html", Cookie=cookie)).text == FILES["index.html"]
    assert_error(await site.send(path), 410, "token_expired")
    assert_error(await site.send(path.partition("?")[0] + "?token=none"), 400, "token_invalid")
    other = await made(world, "workspace", await world.workspace())
    assert_error(await Site(world, other["url"]).send("/", Cookie=cookie), 401, "unauthorized")
    unused = (await world.rob.post(f"{world.path}/temp-envs/{other['id']}/open"))["url"].partition("?")[2]
    assert_error(await site.send(f"/.conman/open?{unused}"), 400, "token_invalid")
    token = cookie.partition("=")[2]
    for headers in ({"Cookie": cookie}, {"Authorization": f"Bearer {token}"}):
        reply = await world.stack.client.get(f"/apps/{world.app['id']}", headers=headers)
        assert_error(reply, 401, "unauthorized")
    assert token not in json.dumps(await world.stack.db["temp_env_links"].find().to_list())


async def test_a_link_that_is_too_old_opens_nothing(world: World, site: Site, temp_env: dict[str, Any]) -> None:
    link = urlsplit((await world.rob.post(f"{world.path}/temp-envs/{temp_env['id']}/open"))["url"])
    old = {"$set": {"expires_at": "2020-01-01T00:00:00.000Z"}}
    await world.stack.db["temp_env_links"].update_many({"user_id": world.rob.id, "used_at": {"$exists": False}}, old)
    assert_error(await site.send(f"{link.path}?{link.query}"), 410, "token_expired")


async def test_access_ends_at_once_with_the_session_the_membership_or_the_account(
    world: World, site: Site, temp_env: dict[str, Any]
) -> None:
    person = await world.join("user")
    ends = [
        (lambda: person.post("/auth/logout"), "unauthorized"),
        (lambda: world.eve.ok("DELETE", f"{world.path}/members/{person.id}"), "forbidden"),
        (lambda: world.stack.admin.ok("PATCH", f"/users/{person.id}", json={"disabled": True}), "unauthorized"),
    ]
    for end, code in ends:
        _, cookie = await opened(world, temp_env, person)
        assert (await site.send("/", Cookie=cookie)).status_code == 200
        await end()
        assert_error(await site.send("/", Cookie=cookie), 401 if code == "unauthorized" else 403, code)
        if code == "unauthorized" and not (await world.stack.db["users"].find_one({"_id": person.id}) or {})["disabled"]:
            person = await world.stack.log_in(person.email, person.id)
        elif code == "forbidden":
            await world.join("user", person)


# -- Settings


async def test_a_public_one_is_for_everybody_and_still_no_api(own: World) -> None:
    await own.set(temp_env_access="public", temp_url_domain="temp.example.com")
    workspace = await own.workspace()
    await own.save(workspace, "index.html", "<h1>open</h1>")
    temp_env = await made(own, "workspace", workspace)
    assert urlsplit(temp_env["url"]).hostname == f"{temp_env['branch'].rpartition('/')[2]}.temp.example.com"
    site = Site(own, temp_env["url"])
    reply = await site.send("/", Cookie="conman_temp_env=none", Authorization="Bearer none")
    assert (reply.text, reply.headers["cache-control"]) == ("<h1>open</h1>", "no-cache")
    assert_error(await site.send("/api/health"), 404, "not_found")
    nobodys, the_apis = Site(own, "http://none-workspace-calm-lake.temp.example.com"), Site(own, "http://conman.temp.example.com")
    assert_error(await nobodys.send("/api/health/live"), 404, "not_found")
    assert (await the_apis.send("/api/health/live")).status_code == 200  # an app's domain takes no host of the API


# -- Its end


async def test_one_that_is_over_is_gone_for_its_visitors_and_can_be_made_again(own: World) -> None:
    workspace = await own.workspace()
    await own.save(workspace, "entities/a.json", '{"recorded": 1}')
    first = await made(own, "workspace", workspace)
    site, path = Site(own, first["url"]), f"{own.path}/temp-envs/{first['id']}"
    states = own.stack.db["temp_envs"]
    for state, status, code in (
        ("provisioning", 503, "unavailable"),
        ("failed", 404, "not_found"),
        ("expired", 410, "grace_ended"),
    ):
        await states.update_one({"_id": first["id"]}, {"$set": {"owned.state": state}})
        reply = await site.send("/entities/a.json", person=own.ann)
        assert_error(reply, status, code)
        assert ("retry-after" in reply.headers) == (status == 503)
    assert_error(await own.ann.send("POST", f"{path}/open", json={}), 410, "grace_ended")
    await states.update_one({"_id": first["id"]}, {"$set": {"owned.state": "active"}})
    ended = await deleted(own, first["id"])
    assert (ended["state"], ended["expires_at"]) == ("deleted", ended["expires_at"])
    assert_error(await site.send("/entities/a.json", person=own.ann), 410, "grace_ended")
    assert_error(await own.ann.send("DELETE", path, json={}), 409, "invalid_transition")
    assert_error(await own.ann.send("POST", f"{path}/undo-expire", json={}), 410, "grace_ended")
    assert_error(await own.ann.send("POST", f"{path}/extend", json={"seconds": 3600}), 409, "invalid_transition")
    await own.save(workspace, "entities/a.json", '{"recorded": 2}')
    await own.ann.post(f"{workspace}/reset")
    reply = await own.ann.send("POST", f"{path}/recreate", json={})
    assert reply.status_code == 201
    again = reply.json()["data"]
    assert (await own.job(again["job"]["id"]))["state"] == "succeeded"
    second = await shown(own, again["temp_env"]["id"])
    same = ("kind", "source_id", "base_profile_id", "head_sha")
    assert [second[name] for name in same] == [first[name] for name in same]
    assert (second["recreated_from"], second["url"] == first["url"]) == (first["id"], False)
    assert await Site(own, second["url"]).text("/entities/a.json", own.ann) == '{"recorded": 1}'
    assert [event["action"] for event in await own.audit(entity_id=second["id"])] == ["provisioned", "recreated"]
    await deleted(own, second["id"])
    await own.ann.ok("DELETE", workspace)
    assert_error(await own.ann.send("POST", f"{path}/recreate", json={}), 409, "conflict")


async def test_a_changesets_is_of_its_current_revision_and_there_is_none_of_an_ended_one(own: World) -> None:
    changeset = await own.submitted({"entities/a.json": '{"revision": 1}'})
    workspace = f"{own.path}/workspaces/{(await own.ann.get(changeset))['workspace_id']}"
    await own.save(workspace, "entities/a.json", '{"revision": "to be"}')
    temp_env = await made(own, "changeset", changeset)
    assert temp_env["head_sha"] == (await own.ann.get(changeset))["head_sha"]
    assert await Site(own, temp_env["url"]).text("/entities/a.json", own.rob) == '{"revision": 1}'
    assert (await own.ann.get(workspace))["pending_edits"] == 1
    profile = await own.ann.get(f"{own.path}/runtime-profiles/{temp_env['runtime_profile_id']}")
    assert profile["kind"] == "temp_changeset"
    await own.ann.ok("DELETE", changeset)
    path = f"{own.path}/temp-envs/{temp_env['id']}"
    assert_error(await own.ann.send("POST", f"{path}/extend", json={"seconds": 3600}), 409, "conflict")
    await deleted(own, temp_env["id"])
    for refused in (
        ("POST", f"{path}/recreate", {}),
        ("POST", f"{own.path}/temp-envs", {"kind": "changeset", "source_id": last(changeset)}),
    ):
        assert_error(await own.ann.send(refused[0], refused[1], json=refused[2]), 409, "conflict")


async def test_those_of_an_archived_app_end(own: World) -> None:
    temp_env = await made(own, "workspace", await own.workspace())
    await own.eve.ok("DELETE", own.path)

    async def over() -> bool:
        return (await shown(own, temp_env["id"]))["state"] == "deleted"

    await wait_for(over, "the clean-up")
    (event,) = [event for event in await own.audit(entity_id=own.app["id"]) if event["action"] == "archived"]
    assert event["after"]["ended_temp_env_ids"] == [temp_env["id"]]
    assert_error(await Site(own, temp_env["url"]).send("/", person=own.ann), 410, "grace_ended")
