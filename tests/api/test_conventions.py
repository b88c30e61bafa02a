"""What holds for every route (`api.md` 1)."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest

from tests.support.conman_stack import PASSWORD, World, assert_error, b64


async def test_an_unknown_route_is_404_before_login_is_asked(world: World) -> None:
    assert_error(await world.stack.client.get("/nowhere"), 404, "not_found")


async def test_a_wrong_method_is_405_and_names_the_right_ones(world: World) -> None:
    reply = await world.stack.client.put("/auth/login", json={})
    assert_error(reply, 405, "method_not_allowed")
    assert "POST" in reply.headers["allow"]


async def test_health_names_every_component_and_needs_no_login(world: World) -> None:
    found = (await world.stack.client.get("/health")).json()
    assert found["status"] == "ok"
    assert set(found["components"]) == {"mongo", "temporal", "git", "worker"}
    assert found["components"]["git"] == {"status": "ok", "backend": "local", "mode": "local"}
    assert (await world.stack.client.get("/health/live")).json()["status"] == "ok"


async def test_the_api_docs_work_without_the_internet(world: World) -> None:
    page = (await world.stack.client.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    assert (await world.stack.client.get("/docs-assets/swagger-ui-bundle.js")).status_code == 200
    document = (await world.stack.client.get("/openapi.json")).json()
    assert "/api/apps/{app}/changesets/{cs}/submit" in document["paths"]


@pytest.mark.parametrize("given", ["abcdefgh", "A.b_c-1234", "x" * 128])
async def test_a_good_request_id_is_taken_and_echoed(world: World, given: str) -> None:
    reply = await world.stack.client.get("/health/live", headers={"X-Request-Id": given})
    assert reply.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["short12", "x" * 129, "with space", "semi;colon", ""])
async def test_a_bad_request_id_is_replaced(world: World, given: str) -> None:
    reply = await world.stack.client.get("/health/live", headers={"X-Request-Id": given})
    assert uuid.UUID(reply.headers["x-request-id"]).version == 7


async def test_the_request_id_stands_in_the_audit(world: World) -> None:
    request_id = f"audit-{uuid.uuid4().hex}"
    workspace = await world.workspace()
    body = {"path": "entities/audited.json", "content": b64("{}")}
    await world.ann.ok("PUT", f"{workspace}/files", json=body, headers={"X-Request-Id": request_id})
    events = await world.audit(entity_type="file", entity_id=workspace.rpartition("/")[2])
    assert [event["context"]["request_id"] for event in events] == [request_id]
    assert events[0]["actor_user_id"] == world.ann.id


BAD_BODIES: list[tuple[str, bytes]] = [
    ("not JSON", b"{"),
    ("not an object", b"[]"),
    ("not UTF-8", b'{"title": "\xff"}'),
    ("unknown field", b'{"title": "x", "workspace_id": "y", "color": "red"}'),
    ("missing field", b'{"title": "x"}'),
    ("wrong type", b'{"title": 7, "workspace_id": "y"}'),
    ("null", b'{"title": null, "workspace_id": "y"}'),
    ("duplicate key", b'{"title": "x", "title": "y", "workspace_id": "z"}'),
    ("no JSON number", b'{"title": NaN, "workspace_id": "z"}'),
    ("deep", b'{"title": ' + b"[" * 40 + b"]" * 40 + b', "workspace_id": "z"}'),
    ("very deep", b"[" * 100_000),
    ("too long", b'{"title": "' + b"x" * 201 + b'", "workspace_id": "z"}'),
    ("empty title", b'{"title": "", "workspace_id": "z"}'),
]


@pytest.mark.parametrize("raw", [raw for _, raw in BAD_BODIES], ids=[name for name, _ in BAD_BODIES])
async def test_a_bad_body_is_400_and_names_the_field(world: World, raw: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    error = assert_error(
        await world.ann.send("POST", f"{world.path}/changesets", content=raw, headers=headers), 400, "validation_error"
    )
    assert all(set(item) == {"field", "message"} for item in error["details"])
    assert error["details"]


async def test_a_body_of_another_media_type_is_415(world: World) -> None:
    headers = {"Content-Type": "text/plain"}
    reply = await world.ann.send("POST", f"{world.path}/changesets", content=b"{}", headers=headers)
    assert_error(reply, 415, "unsupported_media_type")


async def test_a_body_over_the_cap_is_413(world: World) -> None:
    reply = await world.ann.send("POST", f"{world.path}/changesets", content=b" " * (10 * 1024 * 1024 + 1))
    assert_error(reply, 413, "payload_too_large")


async def test_a_chunked_body_over_the_cap_is_413(world: World) -> None:
    async def chunks():
        for _ in range(11):
            yield b" " * (1024 * 1024)

    try:
        reply = await world.ann.send("POST", f"{world.path}/changesets", content=chunks())
    except httpx.WriteError:
        return  # the server hung up while the rest was still being sent
    assert_error(reply, 413, "payload_too_large")


async def test_login_is_asked_before_the_body_is_read(world: World) -> None:
    reply = await world.stack.client.post(f"{world.path}/changesets", content=b"{")
    assert_error(reply, 401, "unauthorized")


@pytest.mark.parametrize("query", ["page=0", "limit=0", "limit=101", "page=x", "page=-1"])
async def test_a_page_out_of_range_is_400(world: World, query: str) -> None:
    assert_error(await world.ann.send("GET", f"{world.path}/changesets?{query}"), 400, "validation_error")


async def test_lists_page_newest_first_and_count_all(world: World) -> None:
    made = [await world.changeset() for _ in range(3)]
    first = (await world.ann.send("GET", f"{world.path}/changesets?limit=2")).json()
    second = (await world.ann.send("GET", f"{world.path}/changesets?limit=2&page=2")).json()
    ids = [path.rpartition("/")[2] for path in made[::-1]]
    assert [row["id"] for row in first["data"]] == ids[:2]
    assert second["data"][0]["id"] == ids[2]
    assert first["pagination"] == {"page": 1, "limit": 2, "total": second["pagination"]["total"]}


async def test_a_wrong_password_and_an_unknown_email_answer_alike(world: World) -> None:
    person = await world.stack.person("alike")  # one, and an unknown email, that nobody else has failed to log in with
    known = await world.stack.client.post("/auth/login", json={"email": person.email, "password": "wrong password 1"})
    unknown = await world.stack.client.post("/auth/login", json={"email": f"no-{person.email}", "password": PASSWORD})
    one = assert_error(known, 401, "invalid_credentials")
    two = assert_error(unknown, 401, "invalid_credentials")
    assert one["message"] == two["message"]


async def test_a_logged_out_token_is_refused(world: World) -> None:
    person = await world.stack.log_in(world.rob.email)
    await person.post("/auth/logout")
    assert_error(await person.send("GET", "/me"), 401, "unauthorized")
    await world.rob.get("/me")


async def test_a_forged_token_is_refused(world: World) -> None:
    forged = {"Authorization": world.ann.headers["Authorization"][:-3] + "abc"}
    assert_error(await world.stack.client.get("/me", headers=forged), 401, "unauthorized")


async def test_records_of_users_never_show_a_hash(world: World) -> None:
    me = await world.ann.get("/me")
    assert not [name for name in me if "password" in name or "hash" in name]
    assert [row["app_id"] for row in me["memberships"]] == [world.app["id"]]


async def test_the_same_key_gives_one_effect_under_concurrent_repeats(world: World) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"title": "asked for often"}
    replies = await asyncio.gather(
        *(world.ann.send("POST", f"{world.path}/workspaces", json=body, headers=key) for _ in range(20))
    )
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.json()["data"]["id"] for reply in replies}) == 1


async def test_the_same_key_with_another_body_is_a_conflict(world: World) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    await world.ann.post(f"{world.path}/workspaces", {"title": "one"}, headers=key)
    reply = await world.ann.send("POST", f"{world.path}/workspaces", json={"title": "two"}, headers=key)
    assert_error(reply, 409, "conflict")


async def test_the_same_key_of_another_person_is_another_request(world: World) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    one = await world.ann.post(f"{world.path}/workspaces", {"title": "mine"}, headers=key)
    two = await world.rob.post(f"{world.path}/workspaces", {"title": "mine"}, headers=key)
    assert one["id"] != two["id"]
