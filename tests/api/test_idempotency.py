"""Every mutating route with an `Idempotency-Key`: repeats get the same answer and change nothing (`api.md` 1)."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import httpx
import pytest

from tests.api.api_routes import MUTATING
from tests.api.audited import AUDITED, check_request, events_of, names_of
from tests.api.keyed_requests import SCENARIOS, Request, fresh
from tests.support.conman_stack import PASSWORD, World, assert_error, b64
from tests.support.sizes import size

AT_ONCE = size(8, 20)


def test_every_mutating_route_has_a_scenario() -> None:
    change_nothing = ("/reveal", "/analyze", "/chat")
    ignoring = [route for route in MUTATING if route.path.startswith("/auth/") or route.path.endswith(change_nothing)]
    assert set(SCENARIOS) == {str(route) for route in MUTATING if route not in ignoring}


ASKED: dict[str, list[str]] = {}
"""Route → the ids of its requests."""

IDS = (
    "id",
    "blob_id",
    "commit_sha",
    "job_id",
    "head_sha",
    "revision_number",
    "ordered_changeset_ids",
    "branch_name",
    "tag",
    "title",
    "overrides",
    "url",
)


def ids_of(value: Any) -> list[Any]:
    """What of an answer names things, and so must be the same each time; states go on changing."""
    if isinstance(value, list):
        return [part for item in value for part in ids_of(item)]
    if not isinstance(value, dict):
        return []
    named = [(name, json.dumps(part)) for name, part in value.items() if name in IDS]
    return named + [part for name, item in value.items() if name != "result" for part in ids_of(item)]


async def repeat(request: Request, key: str, body: dict[str, Any], request_id: str) -> httpx.Response:
    headers = {**request.headers, "Idempotency-Key": key, "X-Request-Id": request_id}
    return await request.person.send(request.method, request.path, json=body, headers=headers)


@pytest.mark.parametrize("route", SCENARIOS)
async def test_repeats_at_once_and_one_later_get_the_same_answer_and_have_one_effect(world: World, route: str) -> None:
    request = await SCENARIOS[route](world)
    key = uuid.uuid4().hex
    asked = [uuid.uuid4().hex for _ in range(AT_ONCE + 1)]
    replies = list(await asyncio.gather(*(repeat(request, key, request.body, one) for one in asked[:-1])))
    replies.append(await repeat(request, key, request.body, asked[-1]))
    assert {reply.status_code for reply in replies} == {request.status}, [reply.text for reply in replies]
    if request.status != 204:
        answers = [ids_of(reply.json()["data"]) for reply in replies]
        assert answers == answers[:1] * len(answers)
        assert answers[0]
    events = await events_of(world, asked)
    check_request(route, request, events, replies[0].text)
    by = {event["context"]["request_id"] for event in events}
    assert by <= set(asked[:-1]) if request.in_steps else len(by) <= 1
    ASKED[route] = asked
    if request.other is not None:
        late = uuid.uuid4().hex
        refused = assert_error(await repeat(request, key, request.other, late), 409, "conflict")
        assert "Idempotency-Key" in refused["message"]
        assert await events_of(world, [late]) == []


async def test_what_the_requests_set_going_leaves_no_more_events_in_their_names(world: World) -> None:
    """Minutes later for the first routes; what is done by then because of them is in the names of processes."""
    for route, asked in ASKED.items():
        assert names_of(await events_of(world, asked)) == sorted(AUDITED[route]), route


async def test_repeats_at_once_make_one_app_in_the_repository_that_they_made(world: World) -> None:
    name = fresh("app")
    body = {"name": name, "repo_path": f"twenty/{name}.git", "create_repository": True}
    request = Request(world.stack.admin, "POST", "/apps", body)
    key = uuid.uuid4().hex
    replies = await asyncio.gather(*(repeat(request, key, body, uuid.uuid4().hex) for _ in range(AT_ONCE)))
    assert [reply.status_code for reply in replies] == [201] * AT_ONCE, [reply.text for reply in replies]
    assert len({reply.json()["data"]["id"] for reply in replies}) == 1
    other = {**body, "name": fresh("app")}
    assert_error(await repeat(request, uuid.uuid4().hex, other, uuid.uuid4().hex), 409, "conflict")


async def test_a_repeated_save_does_not_undo_what_was_saved_since(world: World) -> None:
    workspace = await world.workspace()
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"path": "a.json", "content": b64('{"first": 1}')}
    first = await world.ann.ok("PUT", f"{workspace}/files", json=body, headers=key)
    await world.save(workspace, "a.json", '{"second": 2}')
    assert await world.ann.ok("PUT", f"{workspace}/files", json=body, headers=key) == first
    assert (await world.ann.get(f"{workspace}/files", params={"path": "a.json"}))["content"] == '{"second": 2}'


async def test_a_repeated_title_does_not_undo_what_was_written_since(world: World) -> None:
    changeset = await world.changeset()
    key = {"Idempotency-Key": uuid.uuid4().hex}
    await world.ann.ok("PATCH", changeset, json={"title": "first"}, headers=key)
    await world.ann.ok("PATCH", changeset, json={"title": "second"})
    await world.ann.ok("PATCH", changeset, json={"title": "first"}, headers=key)
    assert (await world.ann.get(changeset))["title"] == "second"


async def _refused_now(world: World) -> tuple[Request, str]:
    """A changeset on a workspace that has an open one: refused, until that one is withdrawn."""
    open_one = await world.changeset()
    body = {"workspace_id": (await world.ann.get(open_one))["workspace_id"], "title": "another"}
    return Request(world.ann, "POST", f"{world.path}/changesets", body), open_one


async def test_a_refusal_is_met_again_with_the_same_key_even_when_it_would_succeed_now(world: World) -> None:
    request, in_the_way = await _refused_now(world)
    key = uuid.uuid4().hex
    replies = await asyncio.gather(*(repeat(request, key, request.body, uuid.uuid4().hex) for _ in range(AT_ONCE)))
    first = assert_error(replies[0], 409, "conflict")
    await world.ann.ok("DELETE", in_the_way)
    replies.append(await repeat(request, key, request.body, uuid.uuid4().hex))
    for reply in replies:
        error = assert_error(reply, 409, "conflict")
        assert (error["message"], error.get("details")) == (first["message"], first.get("details"))
    assert (await repeat(request, uuid.uuid4().hex, request.body, uuid.uuid4().hex)).status_code == 201


async def test_a_refusal_is_kept_for_its_own_body_only(world: World) -> None:
    request, _ = await _refused_now(world)
    key = uuid.uuid4().hex
    assert_error(await repeat(request, key, request.body, uuid.uuid4().hex), 409, "conflict")
    other = {**request.body, "title": "yet another"}
    assert "Idempotency-Key" in assert_error(await repeat(request, key, other, uuid.uuid4().hex), 409, "conflict")["message"]


async def test_what_is_anothers_leaves_the_key_unused(world: World) -> None:
    """Who may is no answer of the domain: it is asked again each time."""
    person = await world.join("user")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    path = f"{await world.changeset()}/queue"
    assert_error(await person.send("POST", path, json={}, headers=key), 403, "forbidden")
    await world.eve.ok("PATCH", f"{world.path}/members/{person.id}", json={"role": "config_manager"})
    assert_error(await person.send("POST", path, json={}, headers=key), 409, "invalid_transition")


async def test_a_request_refused_for_its_body_leaves_its_key_unused(world: World) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    path = f"{world.path}/workspaces"
    assert_error(await world.ann.send("POST", path, json={"titel": "x"}, headers=key), 400, "validation_error")
    await world.ann.post(path, {"title": "x"}, headers=key)


async def test_a_request_refused_for_its_role_leaves_its_key_unused(world: World) -> None:
    person = await world.stack.person("later")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    path = f"{world.path}/workspaces"
    assert_error(await person.send("POST", path, json={"title": "x"}, headers=key), 403, "forbidden")
    await world.join("user", person)
    await person.post(path, {"title": "y"}, headers=key)


async def test_the_same_key_of_another_person_is_another_request(world: World) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    one = await world.ann.post(f"{world.path}/workspaces", {"title": "mine"}, headers=key)
    two = await world.rob.post(f"{world.path}/workspaces", {"title": "mine"}, headers=key)
    assert one["id"] != two["id"]


async def test_the_same_key_on_another_path_is_another_request(world: World) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"path": "a.json", "content": b64("{}")}
    for workspace in (await world.workspace(), await world.workspace()):
        await world.ann.ok("PUT", f"{workspace}/files", json=body, headers=key)
        assert (await world.ann.get(workspace))["pending_edits"] == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\tin it"])
async def test_a_key_that_is_none_is_400(world: World, key: str) -> None:
    headers = {"Idempotency-Key": key}
    reply = await world.ann.send("POST", f"{world.path}/workspaces", json={"title": "x"}, headers=headers)
    assert assert_error(reply, 400, "validation_error")["details"][0]["field"] == "Idempotency-Key"


async def test_a_login_ignores_the_key_and_nothing_keeps_its_token(world: World) -> None:
    body, headers = {"email": world.rob.email, "password": PASSWORD}, {"Idempotency-Key": uuid.uuid4().hex}
    replies = [await world.stack.client.post("/auth/login", json=body, headers=headers) for _ in range(2)]
    tokens = [reply.json()["data"]["token"] for reply in replies]
    assert tokens[0] != tokens[1]
    kept = json.dumps(await world.stack.db["idempotency"].find().to_list(), default=str)
    assert not [token for token in tokens if token in kept]
