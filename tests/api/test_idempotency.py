"""Every mutating route with an `Idempotency-Key`: repeats get the same answer and change nothing (`api.md` 1)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.api.api_routes import MUTATING
from tests.support.conman_stack import PASSWORD, Person, World, assert_error, b64, last, make_world, wait_for


@dataclass
class Request:
    """A request that can be carried out once, and another body of the same route, where there is a sound one."""

    person: Person
    method: str
    path: str
    body: dict[str, Any]
    other: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    audited: bool = True
    in_steps: bool = False
    """Repeats at the same moment share the work: one may record what the other began."""


Scenario = Callable[[World], Awaitable[Request]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(route: str) -> Callable[[Scenario], Scenario]:
    def named(prepare: Scenario) -> Scenario:
        SCENARIOS[route] = prepare
        return prepare

    return named


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@scenario("POST /users")
async def a_user(world: World) -> Request:
    body = {"email": f"{fresh('new')}@example.com", "name": "new", "password": PASSWORD}
    return Request(world.stack.admin, "POST", "/users", body, {**body, "name": "other"}, status=201)


@scenario("PATCH /users/{user}")
async def flags_of_a_user(world: World) -> Request:
    person = await world.stack.person("flagged")
    return Request(world.stack.admin, "PATCH", f"/users/{person.id}", {"disabled": True}, {"disabled": False})


@scenario("PATCH /me")
async def a_new_password(world: World) -> Request:
    body = {"name": "renamed", "password": {"current": PASSWORD, "new": f"{PASSWORD} and more"}}
    return Request(await world.stack.person("changing"), "PATCH", "/me", body, {"name": "other"})


@scenario("PATCH /me/notification-preferences")
async def no_mails(world: World) -> Request:
    body = {"email_enabled": False}
    return Request(await world.stack.person("quiet"), "PATCH", "/me/notification-preferences", body, {"email_enabled": True})


@scenario("POST /apps")
async def an_app(world: World) -> Request:
    name = fresh("idempotent")
    body = {"name": name, "repo_path": f"tests/{name}.git", "create_repository": True}
    return Request(world.stack.admin, "POST", "/apps", body, {**body, "create_repository": False}, status=201, in_steps=True)


@scenario("POST /apps/{app}/members")
async def a_member(world: World) -> Request:
    body = {"user_id": (await world.stack.person("new")).id, "role": "user"}
    return Request(world.eve, "POST", f"{world.path}/members", body, {**body, "role": "reviewer"}, status=201)


@scenario("POST /apps/{app}/runtime-profiles")
async def a_profile(world: World) -> Request:
    body = {"name": fresh("profile"), "secrets": {"TOKEN": "a token"}}
    return Request(world.eve, "POST", f"{world.path}/runtime-profiles", body, {**body, "secrets": {}}, status=201)


async def _profile(world: World) -> str:
    made = await world.eve.post(f"{world.path}/runtime-profiles", {"name": "one", "secrets": {"TOKEN": "a token"}})
    return f"{world.path}/runtime-profiles/{made['id']}"


@scenario("PATCH /apps/{app}/runtime-profiles/{p}")
async def a_changed_profile(world: World) -> Request:
    body = {"secrets": {"TOKEN": "another token"}, "version": 1}
    return Request(world.eve, "PATCH", await _profile(world), body, {**body, "secrets": {"TOKEN": None}})


@scenario("DELETE /apps/{app}/runtime-profiles/{p}")
async def a_deleted_profile(world: World) -> Request:
    return Request(world.eve, "DELETE", await _profile(world), {}, status=204)


@scenario("POST /apps/{app}/runtime-profiles/{p}/revert")
async def a_revert(world: World) -> Request:
    path = await _profile(world)
    await world.eve.ok("PATCH", path, json={"name": "two", "version": 1})
    return Request(world.eve, "POST", f"{path}/revert", {"revision_number": 1}, {"revision_number": 2})


@scenario("POST /apps/{app}/runtime-profiles/{p}/rotate-key")
async def a_rotation(world: World) -> Request:
    return Request(world.eve, "POST", f"{await _profile(world)}/rotate-key", {})


@scenario("POST /apps/{app}/workspaces")
async def a_workspace(world: World) -> Request:
    return Request(await world.join("user"), "POST", f"{world.path}/workspaces", {}, {"title": "extra"}, status=201)


@scenario("PUT /apps/{app}/workspaces/{ws}/files")
async def a_save(world: World) -> Request:
    body = {"path": "a.json", "content": b64("{}")}
    return Request(world.ann, "PUT", f"{await world.workspace()}/files", body, {**body, "content": b64("[]")})


@scenario("DELETE /apps/{app}/workspaces/{ws}/files")
async def a_file_gone(world: World) -> Request:
    workspace = await world.workspace()
    await world.save(workspace, "a.json", "{}")
    return Request(world.ann, "DELETE", f"{workspace}/files", {"path": "a.json"}, {"path": "b.json"}, status=204)


@scenario("PATCH /apps/{app}/workspaces/{ws}")
async def a_renamed_workspace(world: World) -> Request:
    return Request(world.ann, "PATCH", await world.workspace(), {"title": "another"}, {"title": "yet another"})


@scenario("DELETE /apps/{app}/workspaces/{ws}")
async def a_deleted_workspace(world: World) -> Request:
    return Request(world.ann, "DELETE", await world.workspace(), {}, status=204)


async def _edited(world: World) -> str:
    workspace = await world.workspace()
    await world.save(workspace, "a.json", "{}")
    return workspace


@scenario("POST /apps/{app}/workspaces/{ws}/files/batch")
async def a_batch(world: World) -> Request:
    body = {"changes": [{"action": "write", "path": "b.json", "content": b64("{}")}, {"action": "delete", "path": "a.json"}]}
    path = f"{await _edited(world)}/files/batch"
    return Request(world.ann, "POST", path, body, {"changes": body["changes"][:1]})


@scenario("POST /apps/{app}/workspaces/{ws}/checkpoints")
async def a_checkpoint(world: World) -> Request:
    path = f"{await _edited(world)}/checkpoints"
    return Request(world.ann, "POST", path, {"message": "so far"}, {"message": "other"}, status=201)


@scenario("POST /apps/{app}/workspaces/{ws}/reset")
async def a_reset(world: World) -> Request:
    return Request(world.ann, "POST", f"{await _edited(world)}/reset", {})


@scenario("POST /apps/{app}/workspaces/{ws}/sync-integration")
async def a_sync(world: World) -> Request:
    return Request(world.ann, "POST", f"{await _edited(world)}/sync-integration", {}, {"strategy": "merge"})


@scenario("POST /apps/{app}/changesets")
async def a_changeset(world: World) -> Request:
    body = {"workspace_id": last(await world.workspace()), "title": "one"}
    return Request(world.ann, "POST", f"{world.path}/changesets", body, {**body, "title": "two"}, status=201)


@scenario("PATCH /apps/{app}/changesets/{cs}")
async def a_title(world: World) -> Request:
    return Request(world.ann, "PATCH", await world.changeset(), {"title": "another"}, {"title": "yet another"})


@scenario("DELETE /apps/{app}/changesets/{cs}")
async def a_withdrawal(world: World) -> Request:
    return Request(world.ann, "DELETE", await world.changeset(), {}, status=204)


@scenario("POST /apps/{app}/changesets/{cs}/submit")
async def a_submit(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.changeset()}/submit", {})


@scenario("POST /apps/{app}/changesets/{cs}/resubmit")
async def a_resubmit(world: World) -> Request:
    changeset = await world.submitted()
    workspace = (await world.ann.get(changeset))["workspace_id"]
    await world.save(f"{world.path}/workspaces/{workspace}", "more.json", "{}")
    return Request(world.ann, "POST", f"{changeset}/resubmit", {})


@scenario("POST /apps/{app}/changesets/{cs}/review")
async def a_review(world: World) -> Request:
    path = f"{await world.submitted()}/review"
    return Request(world.rob, "POST", path, {"action": "approve"}, {"action": "reject"})


@scenario("POST /apps/{app}/changesets/{cs}/queue")
async def an_entry(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.approved()}/queue", {})


@scenario("POST /apps/{app}/changesets/{cs}/move-to-draft")
async def a_return(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.queued()}/move-to-draft", {})


@scenario("POST /apps/{app}/changesets/{cs}/revalidate")
async def a_revalidation(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.queued()}/revalidate", {}, status=202, audited=False)


@scenario("POST /apps/{app}/queue/reorder")
async def an_order(world: World) -> Request:
    await world.queued()
    await world.queued()
    queue = await world.ann.get(f"{world.path}/queue")
    ids = [item["changeset_id"] for item in queue["items"]]
    headers = {"If-Match": str(queue["version"])}
    body = {"ordered_changeset_ids": ids[::-1]}
    return Request(world.max, "POST", f"{world.path}/queue/reorder", body, {"ordered_changeset_ids": ids}, headers)


@scenario("POST /apps/{app}/releases")
async def a_release(world: World) -> Request:
    body = {"changeset_ids": [last(await world.queued())]}
    return Request(world.max, "POST", f"{world.path}/releases", body, {"changeset_ids": []}, status=201)


@scenario("DELETE /apps/{app}/releases/{r}")
async def a_drop(world: World) -> Request:
    return Request(world.max, "DELETE", await world.release(await world.queued()), {}, status=204)


@scenario("POST /apps/{app}/releases/{r}/changesets")
async def an_edit(world: World) -> Request:
    one, two = last(await world.queued()), await world.queued()
    path = f"{await world.release(two)}/changesets"
    return Request(world.max, "POST", path, {"add": [one], "remove": [last(two)]}, {"changeset_ids": []})


@scenario("POST /apps/{app}/releases/{r}/reorder")
async def a_merge_order(world: World) -> Request:
    one, two = await world.queued(), await world.queued()
    body = {"ordered_changeset_ids": [last(two), last(one)]}
    other = {"ordered_changeset_ids": [last(one), last(two)]}
    return Request(world.max, "POST", f"{await world.release(one, two)}/reorder", body, other)


@scenario("POST /apps/{app}/releases/{r}/assemble")
async def an_assembly(world: World) -> Request:
    path = f"{await world.release(await world.queued())}/assemble"
    return Request(world.max, "POST", path, {}, status=202, audited=False)


@scenario("POST /apps/{app}/releases/{r}/publish")
async def a_publish(world: World) -> Request:
    own = await make_world(world.stack)
    return Request(own.max, "POST", f"{await own.validated(await own.queued())}/publish", {})


async def _deployable(world: World) -> tuple[World, str, list[str]]:
    own = await make_world(world.stack)
    release = await own.published()
    return own, release, [row["id"] for row in await own.environments()]


@scenario("POST /apps/{app}/environments/{env}/deploy")
async def a_deploy(world: World) -> Request:
    own, release, environments = await _deployable(world)
    body = {"release_id": last(release)}
    path = f"{own.path}/environments/{environments[0]}/deploy"
    return Request(own.max, "POST", path, body, {**body, "skip_stage": True}, status=202)


@scenario("POST /apps/{app}/environments/{env}/promote")
async def a_promotion(world: World) -> Request:
    own, release, environments = await _deployable(world)
    await own.deployed(environments[0], release)
    body = {"release_id": last(release)}
    path = f"{own.path}/environments/{environments[1]}/promote"
    return Request(own.max, "POST", path, body, {**body, "skip_stage": True}, status=202)


async def _waiting(world: World) -> tuple[World, str]:
    own, release, environments = await _deployable(world)
    body = {"release_id": last(release), "skip_stage": True}
    made = await own.max.post(f"{own.path}/environments/{environments[-1]}/deploy", body)
    return own, f"{own.path}/deployments/{made['deployment']['id']}"


@scenario("POST /apps/{app}/deployments/{d}/approve")
async def an_approval(world: World) -> Request:
    own, deployment = await _waiting(world)
    return Request(own.rob, "POST", f"{deployment}/approve", {})


@scenario("POST /apps/{app}/deployments/{d}/cancel")
async def a_cancel(world: World) -> Request:
    own, deployment = await _waiting(world)
    return Request(own.max, "POST", f"{deployment}/cancel", {})


@scenario("POST /apps/{app}/jobs/{j}/cancel")
async def a_canceled_gate(world: World) -> Request:
    held = world.stack.data / fresh("held")
    held.touch()
    reply = await world.ann.post(f"{await world.changeset({'slow.flag': str(held)})}/submit")
    path = f"{world.path}/jobs/{reply['job']['id']}"

    async def runs() -> bool:
        return (await world.ann.get(path))["job"]["state"] == "running"

    await wait_for(runs, "the gate to run")
    return Request(world.ann, "POST", f"{path}/cancel", {}, status=202)


def test_every_mutating_route_has_a_scenario() -> None:
    ignoring = [route for route in MUTATING if route.path.startswith("/auth/") or route.path.endswith("/reveal")]
    assert set(SCENARIOS) == {str(route) for route in MUTATING if route not in ignoring}


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
)


def ids_of(value: Any) -> list[Any]:
    """What of an answer names things, and so must be the same each time; states go on changing."""
    if isinstance(value, list):
        return [part for item in value for part in ids_of(item)]
    if not isinstance(value, dict):
        return []
    named = [(name, json.dumps(part)) for name, part in value.items() if name in IDS]
    return named + [part for item in value.values() for part in ids_of(item)]


async def repeat(request: Request, key: str, body: dict[str, Any], request_id: str) -> httpx.Response:
    headers = {**request.headers, "Idempotency-Key": key, "X-Request-Id": request_id}
    return await request.person.send(request.method, request.path, json=body, headers=headers)


@pytest.mark.parametrize("route", SCENARIOS)
async def test_a_repeat_with_the_same_key_gets_the_same_answer_and_one_effect(world: World, route: str) -> None:
    request = await SCENARIOS[route](world)
    key = uuid.uuid4().hex
    asked = [uuid.uuid4().hex for _ in range(4)]
    replies = list(await asyncio.gather(*(repeat(request, key, request.body, one) for one in asked[:3])))
    replies.append(await repeat(request, key, request.body, asked[3]))
    assert [reply.status_code for reply in replies] == [request.status] * 4, [reply.text for reply in replies]
    if request.status != 204:
        answers = [ids_of(reply.json()["data"]) for reply in replies]
        assert answers == answers[:1] * 4
        assert answers[0]
    if request.audited:
        found = world.stack.db["audit"].find({"context.request_id": {"$in": asked}, "action": {"$ne": "logged_in"}})
        events = await found.to_list()
        by = {event["context"]["request_id"] for event in events}
        assert by <= set(asked[:3]) if request.in_steps else len(by) == 1
        assert len({(event["entity_id"], event["action"]) for event in events}) == len(events)
    if request.other is not None:
        refused = assert_error(await repeat(request, key, request.other, uuid.uuid4().hex), 409, "conflict")
        assert "Idempotency-Key" in refused["message"]


async def test_twenty_repeats_at_once_make_one_app_in_the_repository_that_they_made(world: World) -> None:
    name = fresh("app")
    body = {"name": name, "repo_path": f"twenty/{name}.git", "create_repository": True}
    request = Request(world.stack.admin, "POST", "/apps", body)
    key = uuid.uuid4().hex
    replies = await asyncio.gather(*(repeat(request, key, body, uuid.uuid4().hex) for _ in range(20)))
    assert [reply.status_code for reply in replies] == [201] * 20, [reply.text for reply in replies]
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
