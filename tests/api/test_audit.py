"""The audit over HTTP: what those requests leave that no key repeats, how it is read, and how missing events are made good."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import httpx
import pytest

from conman.domain.audit import FIRST_ACTIONS
from conman.domain.ids import time_of
from conman.domain.times import later, milliseconds
from conman.services.audit_backfill import backfill
from conman.services.clock import now
from tests.api.api_routes import MUTATING, ROUTES
from tests.api.audited import AUDITED, check_events, events_of
from tests.api.keyed_requests import SCENARIOS, fresh
from tests.api.outbox import mailed
from tests.support.conman_stack import PASSWORD, Person, World, assert_error, wait_for

BY_ITSELF = {"app", "queue", "release", "deployment", "environment", "changeset", "audit", "temp_environment", "invite", "user"}
"""What Conman may change by itself, outside of a process: holds that expire, releases that are counted, seals and the like."""


def test_every_mutating_route_says_what_it_leaves_in_the_audit() -> None:
    public = {str(route) for route in ROUTES if route.method not in ("GET", "HEAD") and route.access == "public"}
    assert set(AUDITED) == {str(route) for route in MUTATING} | public
    assert set(SCENARIOS) <= set(AUDITED)


async def _asked(world: World, route: str, path: str, body: dict[str, Any], person: Person | None = None) -> httpx.Response:
    """One request, and a look at what it left."""
    request_id = uuid.uuid4().hex
    headers = {**(person.headers if person else {}), "X-Request-Id": request_id}
    reply = await world.stack.client.request(route.split()[0], path, json=body, headers=headers)
    assert reply.status_code in (200, 204), reply.text

    async def complete() -> bool:
        return len(await events_of(world, [request_id])) >= len(AUDITED[route])

    await wait_for(complete, f"the events of {route}")  # who forgot a password is told in the background
    events = await events_of(world, [request_id])
    actor = person.id if person else events[0]["actor_user_id"] if events else None
    check_events(route, events, actor, f"{path} {body} {reply.text} {person.id if person else ''} {actor}")
    return reply


async def test_a_login_and_what_ends_it(world: World) -> None:
    person = await world.stack.person("in-and-out")
    reply = await _asked(world, "POST /auth/login", "/auth/login", {"email": person.email, "password": PASSWORD})
    person.headers["Authorization"] = f"Bearer {reply.json()['data']['token']}"
    await _asked(world, "POST /auth/logout", "/auth/logout", {}, person)


async def test_a_failed_login_is_told_of_though_it_is_refused(world: World) -> None:
    person, request_id = await world.stack.person("mistyping"), uuid.uuid4().hex
    body = {"email": person.email, "password": "not that one at all"}
    reply = await world.stack.client.post("/auth/login", json=body, headers={"X-Request-Id": request_id})
    assert_error(reply, 401, "invalid_credentials")
    (event,) = await events_of(world, [request_id])
    assert (event["action"], event["entity_id"], event["actor_user_id"]) == ("login_failed", person.id, None)
    assert "not that one" not in str(event)


async def test_a_forgotten_password_and_a_new_one(world: World) -> None:
    person = await world.stack.person("forgetful")
    request_id = uuid.uuid4().hex
    headers = {"X-Request-Id": request_id}
    await world.stack.client.post("/auth/forgot-password", json={"email": person.email}, headers=headers)
    token = await mailed(world.stack, person.email)
    (event,) = await events_of(world, [request_id])
    assert (event["action"], event["entity_id"]) == ("password_reset_requested", person.id)
    body = {"token": token, "password": f"{PASSWORD} and more"}
    reply = await world.stack.client.post("/auth/reset-password", json=body, headers={"X-Request-Id": f"{request_id}-2"})
    assert reply.status_code == 200, reply.text
    (event,) = await events_of(world, [f"{request_id}-2"])
    assert (event["action"], event["entity_id"]) == ("password_reset", person.id)


async def test_an_invite_that_is_accepted(world: World) -> None:
    email = f"{fresh('invited')}@example.com"
    made = await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})
    body = {"token": await mailed(world.stack, email), "name": "New", "password": PASSWORD}
    request_id = uuid.uuid4().hex
    reply = await world.stack.client.post("/auth/accept-invite", json=body, headers={"X-Request-Id": request_id})
    assert reply.status_code == 200, reply.text
    events = await events_of(world, [request_id])
    assert sorted(f"{event['entity_type']}.{event['action']}" for event in events) == sorted(AUDITED["POST /auth/accept-invite"])
    assert made["id"] in {event["entity_id"] for event in events}


async def test_what_asks_a_model_or_reveals_a_secret(world: World) -> None:
    changeset = await world.changeset()
    await _asked(world, "POST /apps/{app}/changesets/{cs}/analyze", f"{changeset}/analyze", {}, world.ann)
    new = {"name": fresh("secret"), "secrets": {"TOKEN": "a secret of the audit"}}
    profile = f"{world.path}/runtime-profiles/{(await world.eve.post(f'{world.path}/runtime-profiles', new))['id']}"
    route = "POST /apps/{app}/runtime-profiles/{p}/secrets/{key}/reveal"
    await _asked(world, route, f"{profile}/secrets/TOKEN/reveal", {}, world.eve)


@pytest.mark.parametrize("query", ["entity_type=nothing", "action=exploded", "actor_user_id=ann", "after=x", "from=now", "to=x"])
async def test_a_question_that_finds_nothing_ever_is_400(world: World, query: str) -> None:
    for person, path in ((world.eve, f"{world.path}/audit"), (world.stack.admin, "/audit")):
        error = assert_error(await person.send("GET", f"{path}?{query}"), 400, "validation_error")
        assert error["details"][0]["field"] == query.partition("=")[0]


async def test_the_events_follow_each_other_from_the_last_one_seen(world: World) -> None:
    path = f"{world.path}/audit"
    newest, pagination = await world.eve.listed(path, limit=100)
    oldest = newest[-1] if pagination["total"] <= 100 else (await world.eve.listed(path, page=pagination["total"]))[0][0]
    seen = [oldest["id"]]
    while page := (await world.eve.listed(path, after=seen[-1], limit=7))[0]:
        seen += [event["id"] for event in page]
    assert seen == sorted(set(seen))
    assert len(seen) >= pagination["total"]


async def test_every_event_so_far_says_who_or_which_process_it_was_and_when(world: World) -> None:
    async for event in world.stack.db["audit"].find():
        context = event["context"]
        named = event["actor_user_id"] or context["request_id"] or context["workflow_id"]
        assert named or event["entity_type"] in BY_ITSELF, event
        assert time_of(event["_id"]) == milliseconds(event["occurred_at"]), event


async def test_every_kind_of_record_whose_events_were_lost_gets_one_and_only_those(own: World) -> None:
    """On records as the server makes them; the events of one app are taken away beforehand."""
    db, app_id = own.stack.db, own.app["id"]
    release = await own.published()
    await own.deployed((await own.environments())[0]["id"], release)
    await own.rob.post(f"{await own.changeset()}/comments", {"body": "still here"})
    await own.eve.post(f"{own.path}/invites", {"email": f"{fresh('lost')}@example.com", "role": "user"})
    later_on = later(now(), timedelta(hours=1))
    assert await backfill(db, later_on, app_id=app_id, dry_run=True) == {}
    await db["audit"].delete_many({"app_id": app_id})
    found = await backfill(db, later_on, app_id=app_id)
    assert set(found) == set(FIRST_ACTIONS) - {"user", "temp_environment"}
    events = await own.audit(limit="100")
    assert len(events) == sum(found.values())
    assert {event["after"]["backfilled_at"] for event in events} == {later_on}
    assert await backfill(db, later_on, app_id=app_id) == {}
