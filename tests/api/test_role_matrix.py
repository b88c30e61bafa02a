"""Every route by every caller on whose thing it is, against `contract.py` (`api.md` 1 and 2).

An allowed mutation is shown to be allowed without being made: it carries a field that no body has, and a key that is none, so
that it ends at the body (400), which comes after login, membership, capability and the ids of the path.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.api.api_routes import ROUTES, Route
from tests.api.contract import NOT_SERVED_YET, ROLES, SERVED, Rule, nameless
from tests.api.own_things import KINDS, NOWHERE, Things, app_things, kinds_of, things_of
from tests.support.conman_stack import Person, World, assert_error

UNMADE = {"json": {"no": "field of any body"}, "headers": {"Idempotency-Key": "no key"}}
OUTSIDERS = ("nobody", "stranger", "platform")
CALLERS = (*OUTSIDERS, *ROLES)
REFUSED: list[str] = []
"""The ids of the refused requests, to be looked for in the audit."""
OURS, OTHERS = "own", "others'"


def test_every_route_that_is_served_is_of_the_contract_and_the_other_way_round() -> None:
    assert {nameless(str(route)) for route in ROUTES} == set(SERVED)


def test_a_route_is_served_or_not_yet() -> None:
    assert not set(SERVED) & set(NOT_SERVED_YET)


def test_every_id_of_a_path_has_a_thing_to_stand_for_it() -> None:
    assert {kind for route in ROUTES for _, kind in kinds_of(route.path)} <= set(KINDS)


def rule(route: Route) -> Rule:
    return SERVED[nameless(str(route))]


@dataclass(frozen=True)
class Case:
    """One request: who calls what, and whose things the path names. `strange` is the id that is not of this app, if one is."""

    route: Route
    caller: str
    whose: str
    strange: str | None = None

    def __str__(self) -> str:
        return self.strange or self.whose


def cases_of(route: Route, caller: str) -> Iterator[Case]:
    names = [name for name, kind in kinds_of(route.path) if kind != "secrets"]  # the name of a secret is no id
    for whose in (OURS, OTHERS) if names else (OURS,):
        yield Case(route, caller, whose)
    for name in names:
        yield Case(route, caller, OURS, f"an unknown {name}")
        if route.of_app:
            yield Case(route, caller, OURS, f"another app's {name}")
    if route.of_app:
        yield Case(route, caller, OURS, "an unknown app")
        yield Case(route, caller, OURS, "another app")


def expected(case: Case) -> tuple[int, str] | None:
    """The refusal by the contract; None: the caller may."""
    least = rule(case.route).least
    if least == "anyone":
        return None
    if case.caller == "nobody":
        return (401, "unauthorized")
    if least == "platform" and case.caller != "platform":
        return (403, "forbidden")
    if case.route.of_app:
        if case.strange == "an unknown app":
            return (404, "not_found")
        if case.caller in OUTSIDERS or case.strange == "another app":
            return (403, "forbidden")
        if ROLES.index(case.caller) < ROLES.index(least):
            return (403, "forbidden")
    if case.strange is not None:
        return (404, "not_found")
    if case.route.of_app and not rule(case.route).admits(case.caller, is_own=case.whose == OURS):
        return (403, "forbidden")
    return None


@dataclass
class Field:
    """Everybody who calls, and what the paths name: each caller's own things, others', and another app's."""

    world: World
    callers: dict[str, Person]
    own: dict[str, Things]
    others: Things
    theirs: Things
    other_app_id: str

    def path(self, case: Case) -> str:
        things = self.others if case.whose == OTHERS else self.own[case.caller]
        ids = {name: things[kind] for name, kind in kinds_of(case.route.path)}
        app_id = self.world.app["id"]
        if case.strange == "an unknown app":
            app_id = NOWHERE
        elif case.strange == "another app":
            app_id = self.other_app_id
        elif case.strange is not None:
            name = case.strange.rpartition(" ")[2]
            kind = dict(kinds_of(case.route.path))[name]
            ids[name] = NOWHERE if case.strange.startswith("an unknown") else self.theirs[kind]
        return re.sub(r"\{(\w+)\}", lambda found: {**ids, "app": app_id}[found[1]], case.route.path)


@pytest_asyncio.fixture(scope="module")
async def field(world: World, other_app: World) -> Field:
    platform = await world.stack.person("platform")
    await world.stack.db["users"].update_one({"_id": platform.id}, {"$set": {"is_platform_admin": True}})
    callers = {**world.members, "stranger": world.stranger, "platform": platform}
    callers["nobody"] = Person(world.stack.client, "", "", {})
    bob = await world.join("user")
    ours, theirs, others, of_theirs, *own = await asyncio.gather(
        app_things(world),
        app_things(other_app),
        things_of(world, bob),
        things_of(other_app, other_app.ann),
        *(things_of(world, world.members[role]) for role in ROLES),
    )
    by_caller = dict.fromkeys(OUTSIDERS, others) | dict(zip(ROLES, own, strict=True))
    own_things = {caller: things | ours for caller, things in by_caller.items()}
    return Field(world, callers, own_things, others | ours, of_theirs | theirs, other_app.app["id"])


async def _status(person: Person, case: Case, path: str) -> tuple[int, str]:
    """Status and code, without reading a stream to its end."""
    if case.route.method == "GET":
        request = person.client.build_request("GET", path, headers=person.headers)
    else:
        request = person.client.build_request(
            case.route.method, path, json=UNMADE["json"], headers={**person.headers, **UNMADE["headers"]}
        )
    reply = await person.client.send(request, stream=True)
    try:
        if reply.status_code < 400:
            return reply.status_code, ""
        await reply.aread()
        REFUSED.append(reply.headers["x-request-id"])
        return reply.status_code, assert_error(reply, reply.status_code, reply.json()["error"]["code"])["code"]
    finally:
        await reply.aclose()


async def _found(field: Field, case: Case) -> tuple[int, str] | None:
    """The refusal; None where the caller was admitted."""
    person = field.callers[case.caller]
    if case.route.path == "/auth/logout" and person.email:
        person = await field.world.stack.log_in(person.email)  # what it ends is a session of its own
    status, code = await _status(person, case, field.path(case))
    if case.route.method == "GET":
        admitted = status == 200 or (status, code) == (400, "validation_error")
    elif rule(case.route).least == "anyone" or case.route.path.startswith("/auth/"):
        admitted = status not in (401, 403, 404)
    else:
        admitted = (status, code) == (400, "validation_error")
    return None if admitted else (status, code)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_a_caller_is_admitted_exactly_where_the_contract_says(field: Field, route: Route, caller: str) -> None:
    cases = list(cases_of(route, caller))
    found = await asyncio.gather(*(_found(field, case) for case in cases))
    wanted = {str(case): expected(case) for case in cases}
    assert dict(zip(wanted, found, strict=True)) == wanted


async def test_the_walk_has_changed_nothing(field: Field) -> None:
    """Else a case could have been decided by what another one did."""
    world, app_id = field.world, field.world.app["id"]
    for role in ROLES:
        things = field.own[role]
        shown = await world.members[role].get(f"{world.path}/changesets/{things['changesets']}")
        assert (shown["state"], shown["version"]) == (things["state"], int(things["version"]))
        assert (await world.members[role].get(f"{world.path}/workspaces/{things['workspaces']}"))["pending_edits"] == 0
    assert len(await world.stack.db["memberships"].find({"app_id": app_id}).to_list()) == len(ROLES) + 2
    refused = set(REFUSED)
    assert refused
    told = {"action": {"$nin": ["login_failed", "locked_out"]}}
    async for event in world.stack.db["audit"].find(told, {"context.request_id": 1}):
        assert event["context"]["request_id"] not in refused, event


async def test_only_the_app_admin_lists_other_peoples_workspaces(field: Field) -> None:
    world = field.world
    listing = f"{world.path}/workspaces"
    for role in ("user", "reviewer", "config_manager"):
        person = world.members[role]
        other = next(one for one in world.members.values() if one is not person)
        assert_error(await person.send("GET", listing, params={"owner": other.id}), 403, "forbidden")
        assert {row["owner_user_id"] for row in await person.get(listing, params={"limit": 100})} == {person.id}
    shown = await world.eve.get(listing, params={"owner": world.ann.id, "limit": 100})
    assert field.own["user"]["workspaces"] in [row["id"] for row in shown]
    assert {row["owner_user_id"] for row in shown} == {world.ann.id}


async def test_a_member_who_is_removed_in_the_store_is_refused_at_once(world: World) -> None:
    person = await world.join("app_admin")
    await person.get(world.path)
    await world.stack.db["memberships"].delete_one({"app_id": world.app["id"], "user_id": person.id})
    assert_error(await person.send("GET", world.path), 403, "forbidden")


async def test_a_disabled_account_is_refused_at_once(world: World) -> None:
    person = await world.join("user")
    await world.stack.db["users"].update_one({"_id": person.id}, {"$set": {"disabled": True}})
    assert_error(await person.send("GET", world.path), 401, "unauthorized")
