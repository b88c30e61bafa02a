"""What no client of good will sends, to every route: in bodies, queries, paths and headers (`api.md` 1).

Each is answered by the envelope of a refusal, or as what it happens to be; none is a failure, and what was refused has changed
nothing. Routes share their ways of reading what is sent, so odd values take turns over them; what models of bodies refuse
by themselves is tried whole, without a server.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from pydantic import ValidationError

from tests.api.api_routes import GUARDED, ROUTES, WITH_BODY, Route, sample, sound_body
from tests.api.own_things import Things, all_things, kinds_of, path_of
from tests.api.turns import turn
from tests.support.conman_stack import Person, World, assert_error

OPERATORS: list[Any] = [{"$gt": ""}, {"$ne": None}, {"$where": "1"}, {"$regex": ".*"}, ["a list"]]
ODD_TEXT = {
    "a NUL": "a\0b",
    "right to left": "\u202eabc\u202c \u0627\u0644\u0639",
    "combining marks": "a" + "\u0301" * 50,
    "an emoji": "\U0001f469\u200d\U0001f4bb",
    "a noncharacter": "a\uffffb",
    "line ends": "a\r\nb\u2028c",
    "an operator": "$where",
    "a dotted name": "a.b.$c",
    "a mebibyte": "x" * 1024 * 1024,
}
ODD_NUMBERS = ["1e999", "-1e999", "-0", "9223372036854775808", "-9223372036854775809", "1e400", "0.1", "1" + "0" * 400]
ODD_IDS = [
    '{"$gt":""}',
    "$ne",
    "[$ne]",
    "\0",
    "../..",
    "%2e%2e",
    "a" * 5000,
    "\u202e",
    "\U0001f469",
    "' or 1=1 --",
    " ",
    "null",
]


@dataclass
class Target:
    """An app to spoil, the person who may do everything in it, and what its paths name."""

    world: World
    person: Person
    things: Things
    refused: list[str] = field(default_factory=list)

    def path(self, route: Route, **ids: str) -> str:
        things = self.things | {kind: ids[name] for name, kind in kinds_of(route.path) if name in ids}
        if "cs" in ids:
            things["reviewed"] = ids["cs"]
        path = path_of(route, self.world, things)
        return path.replace(self.world.app["id"], ids["app"], 1) if "app" in ids else path

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A reply that is no failure; the ids of refused requests are kept, to be looked for in the audit."""
        request_id = uuid.uuid4().hex
        headers = {"X-Request-Id": request_id, **more.pop("headers", {})}
        request = self.person.client.build_request(method, path, headers={**self.person.headers, **headers}, **more)
        reply = await self.person.client.send(request, stream=True)
        try:
            if 200 <= reply.status_code < 400:
                return reply
            await reply.aread()
        finally:
            await reply.aclose()
        no_model = path.endswith("/chat") and reply.status_code == 503  # the stack has none to chat with
        assert reply.status_code < 500 or no_model, f"{method} {path[:300]}: {reply.text}"
        assert_error(reply, reply.status_code, reply.json()["error"]["code"])
        assert len(reply.content) < 20_000, "a refusal repeats what was sent"
        self.refused.append(reply.headers["x-request-id"])
        return reply


@pytest_asyncio.fixture(scope="module")
async def target(world: World) -> Target:
    """The platform admin made the app and what is in it, so that nothing but the input stands in the way."""
    return Target(world, world.stack.admin, await all_things(world))


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a body something stands that has no parts."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from leaves(part, (*path, name))
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from leaves(part, (*path, number))
    else:
        yield path


def put(body: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """The body with another value at this place."""
    made = copy.deepcopy(body)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return made


def places(route: Route) -> list[tuple[str | int, ...]]:
    """Each leaf of the route's sound body, and each field that it leaves out."""
    assert route.model is not None
    body = sample(route)
    absent = [(name,) for name in route.model.model_json_schema().get("properties", {}) if name not in body]
    return [path for path in leaves(body) if path] + absent


PLACES = [(route, place) for route in WITH_BODY for place in places(route)]
each_place = pytest.mark.parametrize(
    ("number", "route", "place"),
    [(number, route, place) for number, (route, place) in enumerate(PLACES)],
    ids=[f"{route} {'.'.join(map(str, place))}" for route, place in PLACES],
)
KEEPS_ITS_SESSION = [route for route in ROUTES if route.path != "/auth/logout"]


TAKES_ANY_JSON = ("env_defaults", "MODE", "value")
"""What it may be depends on the type beside it, which a service checks."""


def test_no_model_of_a_body_takes_an_operator_for_a_value() -> None:
    for route, place in PLACES:
        assert route.model is not None
        if place == TAKES_ANY_JSON:
            continue
        for operator in OPERATORS[:-1]:
            with pytest.raises(ValidationError):
                route.model.model_validate(put(sound_body(route), place, operator))
                pytest.fail(f"{route} {place}: {operator}")


@each_place
async def test_what_is_odd_in_a_body_is_refused_or_taken_for_what_it_is(
    target: Target, number: int, route: Route, place: tuple[str | int, ...]
) -> None:
    for operator in turn(OPERATORS, number, 1):
        reply = await target.send(route.method, target.path(route), json=put(sound_body(route), place, operator))
        if operator != ["a list"]:
            assert reply.status_code == 400, (operator, reply.status_code)
    for name, text in turn(list(ODD_TEXT.items()), number, 2):
        reply = await target.send(route.method, target.path(route), json=put(sound_body(route), place, text))
        if name == "a mebibyte" and place[-1] != "content":  # of a file
            assert reply.status_code in (400, 401, 413), reply.status_code
    for digits in turn(ODD_NUMBERS, number, 2):
        raw = json.dumps(put(sound_body(route), place, "HERE")).replace('"HERE"', digits)
        reply = await target.send(
            route.method, target.path(route), content=raw.encode(), headers={"Content-Type": "application/json"}
        )
        assert reply.status_code == 400 or digits in ("-0", "0.1"), (digits, reply.status_code)


IN_QUERIES = [(route, name) for route in GUARDED for name in route.query]


@pytest.mark.parametrize(
    ("number", "route", "name"),
    [(number, *case) for number, case in enumerate(IN_QUERIES)],
    ids=[f"{route} {name}" for route, name in IN_QUERIES],
)
async def test_a_query_is_never_an_operator(target: Target, number: int, route: Route, name: str) -> None:
    path = target.path(route)
    body = {"json": sound_body(route)} if route.model is not None else {}
    odd = ['{"$gt":""}', "", "\0", "-1", "1e999", "9" * 400, "x" * 9000, "\U0001f469", "..", "true,false", "NaN"]
    queries = [f"{name}={quote(text, safe='')}" for text in odd]
    queries += [f"{name}[$ne]=1", f"{name}=1&{name}=2", f"{name}", f"{name}=%ff%fe", f"{name}=%"]
    await asyncio.gather(*(target.send(route.method, f"{path}?{query}", **body) for query in turn(queries, number, 6)))


@pytest.mark.parametrize("route", KEEPS_ITS_SESSION, ids=str)
async def test_an_unknown_query_says_nothing(target: Target, route: Route) -> None:
    if route.method == "GET":
        plain = await target.send("GET", target.path(route))
        for query in ("colour=red", "$where=1", "app_id[$ne]=1", "&&==&"):
            assert (await target.send("GET", f"{target.path(route)}?{query}")).status_code == plain.status_code


WITH_PATH_IDS = [
    (route, name) for route in ROUTES for name in ["app"] * route.of_app + [name for name, _ in kinds_of(route.path)]
]


@pytest.mark.parametrize(
    ("number", "route", "name"),
    [(number, *case) for number, case in enumerate(WITH_PATH_IDS)],
    ids=[f"{route} {name}" for route, name in WITH_PATH_IDS],
)
async def test_an_odd_id_in_a_path_names_nothing(target: Target, number: int, route: Route, name: str) -> None:
    body = {"json": sound_body(route)} if route.model is not None else {}
    paths = [target.path(route, **{name: quote(odd, safe="")}) for odd in turn(ODD_IDS, number, 4)]
    replies = await asyncio.gather(*(target.send(route.method, path, **body) for path in paths))
    assert {reply.status_code for reply in replies} <= {400, 404, 405}


ODD_HEADERS: dict[str, list[bytes]] = {
    "Authorization": [b"", b"Bearer", b"Basic YTpi", b"Bearer a.b.c", b"Bearer \xff\xfe", b"Bearer " + b"x" * 9000],
    "If-Match": [b"*", b"abc", b"-1", b"1.5", b"1e3", b'"', b"9" * 400, b"\xff", b'W/"7", "8"', b"\xd9\xa7"],
    "Idempotency-Key": [b"", b"a b", b"x" * 256, b"\xff", b"\xe2\x82\xac"],
    "X-Request-Id": [b"short", b"x" * 129, b"\xff" * 10, b"a b c d e f", b"12345678;drop"],
    "Content-Type": [
        b"",
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"\xff",
        b"/;;=",
    ],
    "Content-Encoding": [b"gzip"],
    "Range": [b"bytes=9999999999999999999-", b"bytes=-0", b"lines=1-2", b"bytes=5-1,0-0"],
    "Accept": [b"text/html", b"\xff"],
}


WITH_HEADERS = [route for route in KEEPS_ITS_SESSION if route.method != "DELETE"]


@pytest.mark.parametrize(("number", "route"), list(enumerate(WITH_HEADERS)), ids=map(str, WITH_HEADERS))
async def test_an_odd_header_never_makes_a_request_fail(target: Target, number: int, route: Route) -> None:
    # A body that no route takes, so that only the header is of interest.
    content = {} if route.method == "GET" else {"content": b'{"no": "field of any body"}'}

    async def send(header: str, value: bytes) -> None:
        headers: dict[Any, Any] = {header: value}
        reply = await target.send(route.method, target.path(route), headers=headers, **content)
        if header == "Authorization" and route.access != "public":
            assert reply.status_code == 401, (value[:30], reply.status_code)
        if header == "If-Match" and route.method == "PATCH":
            assert reply.status_code == 400, (value[:30], reply.status_code)

    tried = [(header, value) for header, values in ODD_HEADERS.items() for value in turn(values, number, 1)]
    await asyncio.gather(*(send(header, value) for header, value in tried))


async def test_what_was_refused_has_changed_nothing(target: Target) -> None:
    """Failed logins are told of by design; nothing else that was refused is in any audit."""
    assert target.refused
    events = target.world.stack.db["audit"].find({"action": {"$nin": ["login_failed", "locked_out"]}}, {"context.request_id": 1})
    written = {event["context"]["request_id"] async for event in events}
    assert not written & set(target.refused)


async def test_deep_nesting_far_beyond_the_bound_is_refused_quickly(target: Target) -> None:
    raw = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    for route in WITH_BODY:
        reply = await target.send(route.method, target.path(route), content=raw, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400


async def test_a_conflict_over_numbers_that_no_store_keeps_is_told_and_repeated_alike(own: World) -> None:
    """Files are Git's, and may hold any number; what is kept of an answer under a key must not lose or refuse it."""
    path = "entities/number.json"
    await own.max.post(f"{await own.validated(await own.queued({path: json.dumps({'n': 1})}))}/publish")
    workspace = await own.workspace()
    await own.save(workspace, path, json.dumps({"n": 2**70}))
    await own.max.post(f"{await own.validated(await own.queued({path: json.dumps({'n': 2**80})}))}/publish")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    told = [await own.ann.post(f"{workspace}/sync-integration", {}, headers=key) for _ in range(2)]
    assert told[0]["clean"] is False
    assert told[0]["conflicts"][0]["keys"][0]["ours"] == 2**70
    assert told[0] == told[1]
