"""Accounts over HTTP: login, logout, reset by mail, one's own account, and those that platform admins keep (`api.md` 3)."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conman.domain.cooldown import MOST_FAILURES
from tests.support.conman_stack import PASSWORD, Person, Stack, World, assert_error, wait_for

NEW = "a new password for tests"


def fresh_email() -> str:
    return f"new-{uuid.uuid4().hex[:10]}@example.com"


async def post(stack: Stack, path: str, body: Any) -> Any:
    return await stack.client.post(path, json=body)


async def mail_to(stack: Stack, address: str, number: int = 1) -> str:
    """The text of the latest mail to an address, when there are so many."""
    outbox = stack.data / "outbox"

    async def look() -> str | None:
        read = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in sorted(outbox.glob("*.eml"))]
        found = sorted((mail for mail in read if address in str(mail["To"])), key=lambda mail: mail["Date"].datetime)
        if len(found) < number:
            return None
        text = found[-1].get_body(("plain",))
        assert text is not None
        return text.get_content()

    return await wait_for(look, f"mail {number} to {address}")


def token_in(text: str) -> str:
    found = re.search(r"[?&]token=([A-Za-z0-9_-]{32,})", text)
    assert found is not None, text
    return found[1]


async def test_a_login_gives_a_token_for_24_hours_and_the_user(stack: Stack) -> None:
    person = await stack.person("ann")
    reply = await post(stack, "/auth/login", {"email": person.email.upper(), "password": PASSWORD})
    session = reply.json()["data"]
    assert set(session) == {"token", "expires_at", "user"}
    assert session["user"] == {key: value for key, value in (await person.get("/me")).items() if key != "memberships"}
    left = datetime.fromisoformat(session["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=50) < left <= timedelta(hours=24)


async def test_wrong_passwords_unknown_and_malformed_emails_and_disabled_accounts_answer_alike(stack: Stack) -> None:
    gone = await stack.person("gone")
    await stack.admin.ok("PATCH", f"/users/{gone.id}", json={"disabled": True})
    known = await stack.person("known")
    bodies = [
        {"email": known.email, "password": "wrong password 1"},
        {"email": fresh_email(), "password": PASSWORD},
        {"email": "no address", "password": PASSWORD},
        {"email": gone.email, "password": PASSWORD},
    ]
    replies = [await post(stack, "/auth/login", body) for body in bodies]
    errors = [assert_error(reply, 401, "invalid_credentials") for reply in replies]
    assert len({(error["message"], "details" in error) for error in errors}) == 1


@pytest.mark.parametrize("known", [True, False])
async def test_the_sixth_try_is_429_and_says_when_to_try_again(stack: Stack, known: bool) -> None:
    address = (await stack.person("cooling")).email if known else fresh_email()
    for _ in range(MOST_FAILURES):
        assert_error(await post(stack, "/auth/login", {"email": address, "password": "wrong"}), 401, "invalid_credentials")
    reply = await post(stack, "/auth/login", {"email": address, "password": PASSWORD})
    assert_error(reply, 429, "rate_limited")
    assert 14 * 60 < int(reply.headers["retry-after"]) <= 15 * 60


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "a@example.com"},
        {"email": "a@example.com", "password": 7},
        {"email": {"$gt": ""}, "password": PASSWORD},
        {"email": "a@example.com", "password": {"$ne": ""}},
        {"email": "x" * 400, "password": PASSWORD},
        {"email": "a@example.com", "password": "x" * 2000},
        {"email": "a@example.com", "password": PASSWORD, "remember": True},
    ],
)
async def test_a_malformed_login_is_400(stack: Stack, body: dict[str, Any]) -> None:
    assert_error(await post(stack, "/auth/login", body), 400, "validation_error")


async def test_logout_ends_this_session_and_no_other(stack: Stack) -> None:
    one = await stack.person("leaving")
    two = await stack.log_in(one.email)
    assert await one.post("/auth/logout")
    assert_error(await one.send("GET", "/me"), 401, "unauthorized")
    assert_error(await one.send("POST", "/auth/logout"), 401, "unauthorized")
    assert (await two.get("/me"))["email"] == one.email


async def test_a_forgotten_password_is_set_by_the_link_of_a_mail_once(stack: Stack) -> None:
    person = await stack.person("forgetful")
    reply = await post(stack, "/auth/forgot-password", {"email": person.email})
    assert reply.status_code == 200, reply.text
    token = token_in(await mail_to(stack, person.email))
    for bad in ("short", "password1234", person.email):
        assert_error(await post(stack, "/auth/reset-password", {"token": token, "password": bad}), 400, "validation_error")
    done = await post(stack, "/auth/reset-password", {"token": token, "password": NEW})
    assert done.status_code == 200, done.text
    assert_error(await post(stack, "/auth/reset-password", {"token": token, "password": NEW}), 400, "token_invalid")
    assert_error(await person.send("GET", "/me"), 401, "unauthorized")
    assert_error(await post(stack, "/auth/login", {"email": person.email, "password": PASSWORD}), 401, "invalid_credentials")
    await stack.log_in(person.email, password=NEW)


async def test_a_link_that_is_too_old_is_410(stack: Stack) -> None:
    person = await stack.person("late")
    await post(stack, "/auth/forgot-password", {"email": person.email})
    token = token_in(await mail_to(stack, person.email))
    old = {"$set": {"expires_at": "2026-01-01T00:00:00.000Z"}}
    await stack.db["password_resets"].update_one({"user_id": person.id}, old)
    assert_error(await post(stack, "/auth/reset-password", {"token": token, "password": NEW}), 410, "token_expired")


async def test_forgot_password_answers_alike_for_every_email(stack: Stack) -> None:
    person = await stack.person("asked")
    replies = [
        await post(stack, "/auth/forgot-password", {"email": address}) for address in (person.email, fresh_email(), "no address")
    ]
    assert [reply.status_code for reply in replies] == [200] * 3
    assert len({reply.text for reply in replies}) == 1
    assert len({frozenset(reply.headers) for reply in replies}) == 1


@pytest.mark.parametrize("token", ["", "unknown", "x" * 43])
async def test_an_unknown_token_is_400(stack: Stack, token: str) -> None:
    assert_error(await post(stack, "/auth/reset-password", {"token": token, "password": NEW}), 400, "token_invalid")


async def test_me_shows_memberships_with_the_names_of_their_apps(world: World) -> None:
    me = await world.rob.get("/me")
    assert (me["id"], me["email"], me["disabled"], me["is_platform_admin"]) == (world.rob.id, world.rob.email, False, False)
    shown = [(row["app_id"], row["role"], row["app_name"]) for row in me["memberships"]]
    assert shown == [(world.app["id"], "reviewer", world.app["name"])]
    assert not [name for name in me if "hash" in name or "epoch" in name or "session" in name]


async def test_ones_name_and_password_change_in_one_request(stack: Stack) -> None:
    here = await stack.person("changing")
    there = await stack.log_in(here.email)
    before = await here.get("/me")
    body = {"name": "Changed", "password": {"current": PASSWORD, "new": NEW}, "version": before["version"]}
    changed = await here.ok("PATCH", "/me", json=body)
    assert (changed["name"], changed["version"]) == ("Changed", before["version"] + 1)
    assert (await here.get("/me"))["name"] == "Changed"
    assert_error(await there.send("GET", "/me"), 401, "unauthorized")
    await stack.log_in(here.email, password=NEW)
    events = await stack.db["audit"].find({"entity_id": here.id}).sort("_id", 1).to_list()
    made = [
        (event["action"], event["before"], event["after"])
        for event in events
        if event["action"] in ("updated", "password_changed")
    ]
    assert made == [
        ("updated", {"name": "changing"}, {"name": "Changed"}),
        ("password_changed", None, {"sessions_revoked": True}),
    ]


async def test_a_wrong_present_password_is_refused_and_nothing_changes(stack: Stack) -> None:
    person = await stack.person("guessing")
    body = {"name": "Changed", "password": {"current": "wrong password 1", "new": NEW}}
    assert_error(await person.send("PATCH", "/me", json=body), 401, "invalid_credentials")
    assert (await person.get("/me"))["name"] == "guessing"


async def test_a_stale_change_of_oneself_is_409_by_header_and_by_body(stack: Stack) -> None:
    person = await stack.person("stale")
    await person.ok("PATCH", "/me", json={"name": "one"}, headers={"If-Match": "1"})
    assert_error(await person.send("PATCH", "/me", json={"name": "two"}, headers={"If-Match": "1"}), 409, "stale_write")
    assert_error(await person.send("PATCH", "/me", json={"name": "two", "version": 1}), 409, "stale_write")
    assert (await person.get("/me"))["name"] == "one"


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"email": "other@example.com"},
        {"is_platform_admin": True},
        {"password": NEW},
        {"password": {"new": NEW}},
        {"password": {"current": PASSWORD, "new": "short"}},
        {"password": {"current": PASSWORD, "new": "password1234"}},
    ],
)
async def test_a_malformed_change_of_oneself_is_400(stack: Stack, world: World, body: dict[str, Any]) -> None:
    assert_error(await world.ann.send("PATCH", "/me", json=body), 400, "validation_error")


async def test_mails_can_be_switched_off_and_on(stack: Stack) -> None:
    person = await stack.person("quiet")
    path = "/me/notification-preferences"
    assert (await person.get(path))["email_enabled"] is True
    for wanted in (False, False, True):
        assert (await person.ok("PATCH", path, json={"email_enabled": wanted}))["email_enabled"] is wanted
        assert (await person.get(path))["email_enabled"] is wanted
    events = await stack.db["audit"].find({"entity_id": person.id, "entity_type": "notification_preference"}).to_list()
    assert len(events) == 2
    assert_error(await person.send("PATCH", path, json={}), 400, "validation_error")


async def test_an_account_without_a_password_is_set_up_by_a_mail(stack: Stack) -> None:
    address = fresh_email()
    made = await stack.admin.post("/users", {"email": address, "name": "New"})
    assert (made["email"], made["disabled"], made["is_platform_admin"]) == (address, False, False)
    assert_error(await post(stack, "/auth/login", {"email": address, "password": PASSWORD}), 401, "invalid_credentials")
    token = token_in(await mail_to(stack, address))
    assert (await post(stack, "/auth/reset-password", {"token": token, "password": NEW})).status_code == 200
    await stack.log_in(address, password=NEW)


async def test_users_are_listed_and_an_email_is_taken_once(stack: Stack) -> None:
    address = fresh_email()
    made = await stack.admin.post("/users", {"email": address, "name": "One", "password": PASSWORD})
    reply = await stack.admin.send("POST", "/users", json={"email": address.upper(), "name": "Two", "password": PASSWORD})
    assert_error(reply, 409, "conflict")
    users, _ = await stack.admin.listed("/users", limit=1)
    assert users[0] == made


@pytest.mark.parametrize("password", ["short", "password1234", "x" * 129])
async def test_a_password_that_is_none_makes_no_account(stack: Stack, password: str) -> None:
    reply = await stack.admin.send("POST", "/users", json={"email": fresh_email(), "name": "x", "password": password})
    assert assert_error(reply, 400, "validation_error")["details"][0]["field"] == "password"


async def test_the_flags_of_an_account_are_the_platform_admins_to_set(stack: Stack) -> None:
    person, plain = await stack.person("promoted"), await stack.person("plain")
    assert_error(await plain.send("PATCH", f"/users/{person.id}", json={"disabled": True}), 403, "forbidden")
    changed = await stack.admin.ok("PATCH", f"/users/{person.id}", json={"is_platform_admin": True}, headers={"If-Match": "1"})
    assert changed["is_platform_admin"]
    assert await person.get("/users")
    stale = await stack.admin.send("PATCH", f"/users/{person.id}", json={"disabled": True, "version": 1})
    assert_error(stale, 409, "stale_write")
    disabled = await stack.admin.ok("PATCH", f"/users/{person.id}", json={"disabled": True, "version": changed["version"]})
    assert disabled["disabled"]
    assert_error(await person.send("GET", "/me"), 401, "unauthorized")
    await stack.admin.ok("PATCH", f"/users/{person.id}", json={"disabled": False, "is_platform_admin": False})
    again = await stack.log_in(person.email)
    assert_error(await again.send("GET", "/users"), 403, "forbidden")


async def test_a_missing_account_and_a_malformed_change_are_refused(stack: Stack, world: World) -> None:
    assert_error(await stack.admin.send("PATCH", f"/users/{uuid.uuid4()}", json={"disabled": True}), 404, "not_found")
    for body in ({"disabled": "yes"}, {"name": "x"}, {"version": -1}, {"is_platform_admin": {"$ne": 1}}):
        assert_error(await stack.admin.send("PATCH", f"/users/{world.ann.id}", json=body), 400, "validation_error")


async def test_the_last_app_admin_is_not_disabled_before_there_is_another(own: World) -> None:
    admin = own.stack.admin
    await own.eve.ok("DELETE", f"{own.path}/members/{admin.id}")  # who made the app is its admin too
    reply = await admin.send("PATCH", f"/users/{own.eve.id}", json={"disabled": True})
    assert own.app["name"] in assert_error(reply, 409, "conflict")["message"]
    assert (await own.eve.get(own.path))["my_role"] == "app_admin"
    another = await own.stack.person("another")
    await own.eve.post(f"{own.path}/members", {"user_id": another.id, "role": "app_admin"})
    await admin.ok("PATCH", f"/users/{own.eve.id}", json={"disabled": True})
    assert_error(await own.eve.send("GET", own.path), 401, "unauthorized")


async def test_two_platform_admins_who_disable_each_other_leave_one(stack: Stack) -> None:
    """Over HTTP, with the stack's own admin demoted for the moment so that the two are the last ones."""
    one, two = await stack.person("one"), await stack.person("two")
    for person in (one, two):
        await stack.admin.ok("PATCH", f"/users/{person.id}", json={"is_platform_admin": True})
    others, _ = await stack.admin.listed("/users", limit=100)
    rest = [user["id"] for user in others if user["is_platform_admin"] and user["id"] not in (one.id, two.id, stack.admin.id)]
    for user_id in rest:
        await stack.admin.ok("PATCH", f"/users/{user_id}", json={"is_platform_admin": False})
    await one.ok("PATCH", f"/users/{stack.admin.id}", json={"is_platform_admin": False})
    try:

        async def disable(actor: Person, target: Person) -> int:
            return (await actor.send("PATCH", f"/users/{target.id}", json={"disabled": True})).status_code

        found = sorted(await asyncio.gather(disable(one, two), disable(two, one)))
        assert found in ([200, 401], [200, 409])
    finally:
        survivor = one if (await one.send("GET", "/me")).status_code == 200 else two
        await survivor.ok("PATCH", f"/users/{stack.admin.id}", json={"is_platform_admin": True})
