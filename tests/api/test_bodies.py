"""Every route that takes a body refuses an unsound one, and says where (`api.md` 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.api.api_routes import MUTATING, WITH_BODY, Route, sound_body
from tests.api.own_things import Things, all_things, path_of
from tests.api.turns import turn
from tests.support.conman_stack import World, assert_error

WRONG: dict[str, Any] = {"string": 7, "array": "text", "boolean": "yes", "integer": "1", "object": []}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


UNSOUND: dict[str, bytes] = {
    "not JSON": b"{",
    "not an object": b"[]",
    "not UTF-8": b'{"a": "\xff"}',
    "an unknown field": b'{"no_such_field": 1}',
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice, deep inside": b'{"a": [{"b": 1, "b": 2}]}',
    "no JSON number": b'{"a": NaN}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "a number of ten thousand digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "33 levels": f'{{"a": {nested(32)}}}'.encode(),
    "100,000 levels": nested(100_000).encode(),
}


def fields(route: Route) -> Iterator[tuple[str, str, bool]]:
    """Name, JSON type and necessity of each field of a route's body."""
    assert route.model is not None
    schema = route.model.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        kinds = [option.get("type", "object") for option in field.get("anyOf", [field])]  # a `$ref` is an object
        yield name, next(kind for kind in kinds if kind != "null"), name in schema.get("required", [])


EACH_FIELD = [(route, name, kind) for route in WITH_BODY for name, kind, _ in fields(route)]
REQUIRED = [(route, name) for route in WITH_BODY for name, _, required in fields(route) if required]


@pytest_asyncio.fixture(scope="module")
async def things(world: World) -> Things:
    return await all_things(world)


async def refused(world: World, things: Things, route: Route, raw: bytes) -> list[dict[str, str]]:
    """The details of the refusal; the platform admin made the app, so that no role stands in the way."""
    admin = world.stack.admin
    headers = {"Content-Type": "application/json"}
    reply = await admin.send(route.method, path_of(route, world, things), content=raw, headers=headers)
    details = assert_error(reply, 400, "validation_error")["details"]
    assert details
    assert all(set(item) == {"field", "message"} and all(item.values()) for item in details)
    return details


@pytest.mark.parametrize(("number", "route"), list(enumerate(WITH_BODY)), ids=map(str, WITH_BODY))
async def test_an_unsound_body_is_400(world: World, things: Things, number: int, route: Route) -> None:
    """All routes read bodies in one way, so the ways to be unsound take turns over them."""
    for name in turn(list(UNSOUND), number, 3):
        await refused(world, things, route, UNSOUND[name])


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
async def test_an_unknown_field_is_refused_by_its_name(world: World, things: Things, route: Route) -> None:
    details = await refused(world, things, route, json.dumps({**sound_body(route), "colour": "red"}).encode())
    assert [item["field"] for item in details] == ["colour"]


@pytest.mark.parametrize(("route", "name", "kind"), EACH_FIELD, ids=[f"{route} {name}" for route, name, _ in EACH_FIELD])
async def test_a_wrong_type_is_refused_by_its_field(world: World, things: Things, route: Route, name: str, kind: str) -> None:
    details = await refused(world, things, route, json.dumps({**sound_body(route), name: WRONG[kind]}).encode())
    assert {item["field"] for item in details} == {name}


@pytest.mark.parametrize(("route", "name"), REQUIRED, ids=[f"{route} {name}" for route, name in REQUIRED])
async def test_a_missing_field_is_refused_by_its_name(world: World, things: Things, route: Route, name: str) -> None:
    body = {key: value for key, value in sound_body(route).items() if key != name}
    details = await refused(world, things, route, json.dumps(body).encode())
    assert [item["field"] for item in details] == [name]


async def test_32_levels_are_read_and_33_are_not(world: World, things: Things) -> None:
    route = next(route for route in WITH_BODY if str(route) == "POST /apps/{app}/changesets")
    sound = json.dumps(sound_body(route))[:-1]
    read = await refused(world, things, route, f'{sound}, "a": {nested(31)}}}'.encode())
    assert [item["field"] for item in read] == ["a"]
    deeper = await refused(world, things, route, f'{sound}, "a": {nested(32)}}}'.encode())
    assert [item["field"] for item in deeper] == ["body"]
    assert "deeper than 32" in deeper[0]["message"]


@pytest.mark.parametrize("route", [route for route in WITH_BODY if route in MUTATING], ids=str)
async def test_a_body_of_another_media_type_is_415(world: World, things: Things, route: Route) -> None:
    headers = {"Content-Type": "text/plain"}
    reply = await world.stack.admin.send(route.method, path_of(route, world, things), content=b"{}", headers=headers)
    assert_error(reply, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        {"title": "", "workspace_id": "z"},
        {"title": "x" * 201, "workspace_id": "z"},
        {"title": None, "workspace_id": "z"},
        {"title": "x", "workspace_id": "z" * 65},
        {"title": "x", "workspace_id": "z", "description": "x" * 20_001},
    ],
    ids=["an empty title", "a long title", "no title", "a long id", "a long description"],
)
async def test_text_outside_its_bounds_is_400(world: World, body: dict[str, Any]) -> None:
    assert_error(await world.ann.send("POST", f"{world.path}/changesets", json=body), 400, "validation_error")


async def test_a_body_over_the_cap_is_413(world: World) -> None:
    reply = await world.ann.send("POST", f"{world.path}/changesets", content=b" " * (10 * 1024 * 1024 + 1))
    assert_error(reply, 413, "payload_too_large")


async def test_a_file_route_takes_what_the_apps_file_limit_needs_and_no_more(own: World) -> None:
    workspace = await own.workspace()
    cap = 10 * 1024 * 1024
    padding = f'{{"path": "a", "content": "", "message": "{"x" * 100}"}}'.encode()
    for size, status, code in ((cap, 400, "validation_error"), (cap + 1, 413, "payload_too_large")):
        raw = padding + b" " * (size - len(padding) - 1) + (b" " if size > cap else b"x")
        reply = await own.ann.send("PUT", f"{workspace}/files", content=raw, headers={"Content-Type": "application/json"})
        assert_error(reply, status, code)
    await own.set(file_size_limit_bytes=12 * 1024 * 1024)
    await own.save(workspace, "large.bin", b"\0" * (12 * 1024 * 1024))
    reply = await own.ann.send("PUT", f"{workspace}/files", content=b" " * (17 * 1024 * 1024))
    assert_error(reply, 413, "payload_too_large")
