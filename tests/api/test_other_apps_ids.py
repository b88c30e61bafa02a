"""An id of another app in a body or a query tells and does no more than one that nothing has (`api.md` 1).

Ids in paths are walked by `test_role_matrix.py`. What a field or a query holds is told by its name; a new name that looks like
one of an id fails here until it has its kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.api.api_routes import OF_APPS, Route, sample, sound_body
from tests.api.own_things import NOWHERE, Things, app_things, kinds_of, things_of
from tests.support.conman_stack import World, assert_error, last

ID_NAME = re.compile(r"(^|_)ids?$|^(owner|author|after|from|to|add|remove|against)$")
KINDS_OF_NAMES = {
    "workspace_id": "workspaces",
    "source_id": "changesets",
    "changeset_ids": "changesets",
    "ordered_changeset_ids": "changesets",
    "add": "changesets",
    "remove": "changesets",
    "parent_comment_id": "comments",
    "deployment_id": "deployments",
    "release_id": "releases",
    "from_release_id": "releases",
    "against": "releases",
    "environment_id": "environments",
    "environment_ids": "environments",
    "canonical_env_id": "environments",
    "id": "environments",
    "runtime_profile_id": "runtime-profiles",
    "target_environment_id": "environments",
    "target_profile_id": "runtime-profiles",
    "default_base_profile_id": "runtime-profiles",
    "base_profile_id": "runtime-profiles",
    "from": "runtime-profiles",
    "to": "runtime-profiles",
    "entity_id": "changesets",
    "actor_user_id": "users",
    "user_id": "users",
    "owner": "users",
    "author": "users",
    "after": "events",
    "blob_id": "blobs",
    "expected_blob_id": "blobs",
}
NO_IDS = {
    "GET /apps/{app}/audit from": "a time",
    "GET /apps/{app}/audit to": "a time",
    "GET /apps/{app}/jobs/{j}/logs after": "the number of a line",
    "GET /apps/{app}/jobs/{j}/logs/stream after": "the number of a line",
    "GET /apps/{app}/events after": "the number of an event, in the app's own order",
    "POST /apps/{app}/workspaces/{ws}/files/batch to": "a path",
    "PATCH /apps/{app}/environments from": "a time",
    "PATCH /apps/{app}/environments to": "a time",
    "GET /apps/{app}/changesets/{cs}/diff against": "the number of a revision",
    "POST /apps/{app}/members user_id": "accounts are of no app",
}


def _properties(schema: dict[str, Any]) -> Iterator[str]:
    """The names of all fields of a body, at any depth."""
    for model in (schema, *schema.get("$defs", {}).values()):
        yield from model.get("properties", {})


FIELDS = [
    (route, name)
    for route in OF_APPS
    if route.model is not None
    for name in dict.fromkeys(_properties(route.model.model_json_schema()))
    if ID_NAME.search(name) and f"{route} {name}" not in NO_IDS
]
QUERIES = [(route, name) for route in OF_APPS for name in route.query if ID_NAME.search(name) and f"{route} {name}" not in NO_IDS]


def test_every_name_that_looks_like_one_of_an_id_has_a_kind() -> None:
    assert {name for _, name in (*FIELDS, *QUERIES)} <= set(KINDS_OF_NAMES)


@pytest_asyncio.fixture(scope="module")
async def ours(world: World) -> Things:
    return await things_of(world, world.stack.admin) | await app_things(world)


@pytest_asyncio.fixture(scope="module")
async def theirs(other_app: World) -> Things:
    """Another app's things of each kind; the changeset is queued, so that nothing but its app speaks against a release."""
    things = await app_things(other_app)
    queued = last(await other_app.queued({"secret.json": '{"of": "the other app"}'}))
    changeset = await other_app.ann.get(f"{other_app.path}/changesets/{queued}")
    file = await other_app.ann.get(
        f"{other_app.path}/workspaces/{changeset['workspace_id']}/files", params={"path": "secret.json"}
    )
    comment = await other_app.ann.post(f"{other_app.path}/changesets/{queued}/comments", {"body": "of the other app"})
    events = await other_app.audit()
    return things | {
        "changesets": queued,
        "comments": comment["id"],
        "workspaces": changeset["workspace_id"],
        "users": other_app.ann.id,
        "blobs": file["blob_id"],
        "events": events[0]["id"],
    }


def _path(route: Route, world: World, ours: Things) -> str:
    return route.at(world.app["id"], {name: ours[kind] for name, kind in kinds_of(route.path)})


def _with(body: Any, name: str, value: str) -> Any:
    """The body with a value in each field of this name, a list where there is one, and without other ids that nothing has."""
    if isinstance(body, list):
        return [_with(part, name, value) for part in body]
    if not isinstance(body, dict):
        return body
    made: dict[str, Any] = {}
    for key, part in body.items():
        if key == name:
            made[key] = [value] if isinstance(part, list) else value
        elif part != NOWHERE:
            made[key] = _with(part, name, value)
    return made


def _without_ids(text: str, *ids: str) -> str:
    for one in ids:
        text = text.replace(one, "ID")
    return re.sub(r'"request_id":"[^"]*"', "", text)


def body_with(route: Route, name: str, value: str) -> dict[str, Any]:
    assert route.model is not None
    body = _with(sample(route), name, value)
    properties = route.model.model_json_schema()["properties"]
    if value not in str(body):
        assert name in properties, f"add {name} to the sound body of {route}"
        is_list = any(option.get("type") == "array" for option in properties[name].get("anyOf", [properties[name]]))
        body[name] = [value] if is_list else value
    return body


async def _sent(world: World, route: Route, path: str, body: dict[str, Any]) -> httpx.Response:
    """The reply to a body of the present version, where the route wants one."""
    reply = await world.stack.admin.send(route.method, path, json=body)
    if reply.status_code == 409 and reply.json()["error"]["code"] == "stale_write" and "version" in body:
        body = body | reply.json()["error"]["details"]
        reply = await world.stack.admin.send(route.method, path, json=body)
    return reply


@pytest.mark.parametrize(("route", "name"), FIELDS, ids=[f"{route} {name}" for route, name in FIELDS])
async def test_another_apps_id_in_a_body_is_answered_as_one_that_nothing_has(
    world: World, ours: Things, theirs: Things, route: Route, name: str
) -> None:
    foreign = theirs[KINDS_OF_NAMES[name]]
    unknown = "0" * 40 if KINDS_OF_NAMES[name] == "blobs" else NOWHERE
    path = _path(route, world, ours)
    replies = [await _sent(world, route, path, body_with(route, name, value)) for value in (foreign, unknown)]
    assert replies[0].status_code in (400, 404, 409), replies[0].text
    assert_error(replies[0], replies[0].status_code, replies[0].json()["error"]["code"])
    texts = [_without_ids(reply.text, foreign, unknown) for reply in replies]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(("route", "name"), QUERIES, ids=[f"{route} {name}" for route, name in QUERIES])
async def test_another_apps_id_in_a_query_finds_nothing_of_that_app(
    world: World, other_app: World, ours: Things, theirs: Things, route: Route, name: str
) -> None:
    foreign = theirs[KINDS_OF_NAMES[name]]
    body = {"json": sound_body(route)} if route.model is not None else {}
    reply = await world.stack.admin.send(
        route.method,
        _path(route, world, ours),
        params={name: foreign, **({"path": "secret.json"} if name == "blob_id" else {})},
        **body,
    )
    assert reply.status_code in (200, 400, 404, 409), reply.text
    told = reply.text.replace(foreign, "")
    for secret in (*theirs.values(), other_app.app["id"], other_app.app["name"], "the other app", other_app.ann.email):
        assert len(secret) < 10 or secret not in told
