"""Requests that schemathesis makes from the OpenAPI document, sound and unsound: none fails, and each answer is as described.

`make test` tries the same few of each route every time; `make fuzz EXAMPLES=N` tries N fresh ones.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.api_routes import ROUTES, Route
from tests.api.own_things import Things, app_things, kinds_of, things_of
from tests.support.conman_stack import Stack, World

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FEW = 2
"""Requests of each kind to each route in `make test`."""
PATIENCE_SECONDS = 60
LONGEST_LINE = 60_000
"""Characters: a longer request line is refused by the HTTP parser, before there is a request."""
NEEDS_A_MODEL = "POST /apps/{app}/changesets/{cs}/chat"
"""The stack has none: 503 is its sound answer."""
NEVER_ENDS = "GET /apps/{app}/events"
"""A stream of what happens: `test_events.py` reads it."""
ENDS_WHAT_OTHERS_NEED = ("POST /auth/logout", "DELETE /apps/{app}")
"""Their paths are made up too: the session and the app are needed by what comes after."""

_profile = settings.get_current_profile_name()
search = settings(
    settings.get_profile(_profile),
    max_examples=settings.default.max_examples if _profile == "fuzz" else FEW,
    phases=[Phase.explicit, Phase.generate] + [Phase.shrink] * (_profile == "fuzz"),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest_asyncio.fixture(scope="module")
async def document(stack: Stack) -> dict[str, Any]:
    return (await stack.client.get("/openapi.json")).json()


@pytest_asyncio.fixture(scope="module")
async def things(world: World) -> Things:
    """What paths name; the account and the membership are somebody's who is not needed."""
    own, of_app, other = await asyncio.gather(things_of(world, world.stack.admin), app_things(world), world.join("user"))
    return own | of_app | {"users": other.id, "members": other.id}


def test_the_document_is_a_sound_one(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


def test_the_document_has_every_route_and_no_shape_that_is_never_answered(document: dict[str, Any]) -> None:
    described = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert described == {f"{route.method} /api{route.path}" for route in ROUTES}
    assert "HTTPValidationError" not in str(document)


def test_every_body_is_described_where_it_stands(document: dict[str, Any]) -> None:
    for route in ROUTES:
        described = document["paths"][f"/api{route.path}"][route.method.lower()].get("requestBody")
        assert (described is not None) == (route.model is not None), route
        assert "$ref" not in str(described), route


@pytest_asyncio.fixture(scope="module")
async def described(document: dict[str, Any]) -> BaseSchema:
    return schemathesis.openapi.from_dict(document)


def _kinds(route: Route) -> list[tuple[GenerationMode, bool]]:
    """Sound and unsound requests, to what there is and to what is made up; what has no ids and takes nothing has one kind."""
    has_ids = "{" in route.path
    named = [True, False] if has_ids and str(route) not in ENDS_WHAT_OTHERS_NEED else [False]
    can_be_unsound = has_ids or route.model is not None or route.query or route.method != "GET"
    modes = [GenerationMode.POSITIVE] + [GenerationMode.NEGATIVE] * bool(can_be_unsound)
    return [(mode, there) for mode in modes for there in named]


CASES = [(route, mode, there) for route in ROUTES if str(route) != NEVER_ENDS for mode, there in _kinds(route)]


@pytest.mark.parametrize(
    ("route", "mode", "there"),
    CASES,
    ids=[f"{route} {mode.value} {'there' if there else 'made up'}" for route, mode, there in CASES],
)
def test_no_request_fails_and_each_answer_is_as_described(
    world: World, described: BaseSchema, things: Things, route: Route, mode: GenerationMode, there: bool
) -> None:
    operation = described[f"/api{route.path}"][route.method.lower()]
    ids = {"app": world.app["id"]} | {name: things[kind] for name, kind in kinds_of(route.path)}
    headers = {} if str(route) in ENDS_WHAT_OTHERS_NEED else world.stack.admin.headers
    with requests.Session() as session:
        session.trust_env = False

        @search
        @given(case=operation.as_strategy(generation_mode=mode, path_parameters=ids if there else None))
        def tried(case: schemathesis.Case) -> None:
            reply = case.call(base_url=world.stack.url, session=session, headers=headers, timeout=PATIENCE_SECONDS)
            if "x-request-id" not in reply.headers:
                assert reply.status_code == 400
                assert len(reply.request.url or "") > LONGEST_LINE, "only what HTTP can't carry is answered by the server alone"
                return
            checks = [check for check in CHECKS if check is not not_a_server_error or str(route) != NEEDS_A_MODEL]
            case.validate_response(reply, checks=checks, headers=headers)

        tried()
