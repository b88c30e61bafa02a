"""Invites over HTTP, with the tokens out of the mails (`api.md` 3, `spec.md` 5)."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx

from tests.api.outbox import mailed
from tests.support.conman_stack import PASSWORD, Stack, World, assert_error


def fresh_email() -> str:
    return f"zoe-{uuid.uuid4().hex[:10]}@example.com"


async def accept(stack: Stack, token: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
    body = {"token": token, "name": "Zoe", "password": password, **more}
    return await stack.client.post("/auth/accept-invite", json=body)


async def test_from_the_invite_to_the_first_request_of_the_new_member(world: World) -> None:
    email = fresh_email()
    made = await world.eve.post(f"{world.path}/invites", {"email": email.upper(), "role": "reviewer"})
    assert set(made) == {
        *("id", "app_id", "created_at", "updated_at", "version", "created_by"),
        *("email", "role", "expires_at", "state"),
    }
    assert (made["email"], made["role"], made["state"], made["created_by"]) == (email, "reviewer", "pending", world.eve.id)
    shown, _ = await world.eve.listed(f"{world.path}/invites")
    assert shown[0] == made
    reply = await accept(world.stack, await mailed(world.stack, email))
    assert reply.status_code == 200, reply.text
    session = reply.json()["data"]
    assert set(session) == {"token", "expires_at", "user"}
    assert (session["user"]["email"], session["user"]["name"]) == (email, "Zoe")
    zoe = await world.stack.log_in(email)
    assert (await zoe.get(world.path))["my_role"] == "reviewer"
    assert [row["id"] for row in (await world.eve.listed(f"{world.path}/invites"))[0]] == [
        row["id"] for row in shown if row["id"] != made["id"]
    ]
    assert [row["action"] for row in await world.audit(entity_id=made["id"])] == ["accepted", "created"]


async def test_a_token_is_good_once_also_for_twenty_at_once(world: World) -> None:
    email = fresh_email()
    await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})
    token = await mailed(world.stack, email)
    replies = await asyncio.gather(*(accept(world.stack, token) for _ in range(20)))
    assert sorted(reply.status_code for reply in replies) == [200] + [400] * 19
    for reply in replies:
        if reply.status_code == 400:
            assert_error(reply, 400, "invite_invalid")
    assert_error(await accept(world.stack, token), 400, "invite_invalid")


async def test_who_has_an_account_joins_with_its_password(world: World, other_app: World) -> None:
    sam = await world.stack.person("sam")
    await other_app.eve.post(f"{other_app.path}/invites", {"email": sam.email, "role": "user"})
    token = await mailed(world.stack, sam.email)
    assert_error(await accept(world.stack, token, "another long password"), 401, "invalid_credentials")
    reply = await accept(world.stack, token)
    assert reply.json()["data"]["user"]["id"] == sam.id
    assert (await sam.get(other_app.path))["my_role"] == "user"
    assert_error(await sam.send("GET", world.path), 403, "forbidden")


async def test_to_send_it_again_voids_the_token_before(world: World) -> None:
    email = fresh_email()
    made = await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})
    first = await mailed(world.stack, email)
    headers = {"Idempotency-Key": f"again-{email}"}
    sent = [await world.eve.post(f"{world.path}/invites/{made['id']}/resend", headers=headers) for _ in range(2)]
    assert sent[0] == sent[1] and sent[0]["version"] == 2 and sent[0]["expires_at"] > made["expires_at"]
    second = await mailed(world.stack, email, besides=frozenset({first}))
    assert_error(await accept(world.stack, first), 400, "invite_invalid")
    assert (await accept(world.stack, second)).status_code == 200
    assert_error(await world.eve.send("POST", f"{world.path}/invites/{made['id']}/resend", json={}), 409, "conflict")


async def test_what_is_too_old_is_told_and_can_be_sent_again(world: World) -> None:
    email = fresh_email()
    made = await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})
    token = await mailed(world.stack, email)
    old = {"$set": {"expires_at": "2026-01-01T00:00:00.000Z"}}
    await world.stack.db["invites"].update_one({"_id": made["id"]}, old)
    for _ in range(2):
        assert_error(await accept(world.stack, token), 410, "invite_expired")
    shown, _ = await world.eve.listed(f"{world.path}/invites")
    assert shown[0]["state"] == "expired"
    await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})
    assert_error(await world.eve.send("POST", f"{world.path}/invites/{made['id']}/resend", json={}), 409, "conflict")
    assert [row["action"] for row in await world.audit(entity_id=made["id"])] == ["expired", "created"]


async def test_what_was_revoked_is_gone(world: World) -> None:
    email = fresh_email()
    made = await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})
    token = await mailed(world.stack, email)
    path, headers = f"{world.path}/invites/{made['id']}", {"Idempotency-Key": f"away-{email}"}
    assert_error(await world.eve.send("DELETE", path, headers={"If-Match": "7"}), 409, "stale_write")
    assert [(await world.eve.send("DELETE", path, headers=headers)).status_code for _ in range(2)] == [204, 204]
    assert_error(await world.eve.send("DELETE", path), 404, "not_found")
    assert_error(await accept(world.stack, token), 400, "invite_invalid")
    assert made["id"] not in [row["id"] for row in (await world.eve.listed(f"{world.path}/invites"))[0]]
    await world.eve.post(f"{world.path}/invites", {"email": email, "role": "user"})


async def test_what_is_wrong_with_a_request_is_told(world: World, other_app: World) -> None:
    path, email = f"{world.path}/invites", fresh_email()
    assert_error(await world.eve.send("POST", path, json={"email": world.ann.email, "role": "user"}), 409, "conflict")
    for body in ({"email": "no address", "role": "user"}, {"email": email, "role": "owner"}, {"email": email}, {}):
        assert_error(await world.eve.send("POST", path, json=body), 400, "validation_error")
    made = await world.eve.post(path, {"email": email, "role": "user"})
    error = assert_error(await world.eve.send("POST", path, json={"email": email, "role": "reviewer"}), 409, "conflict")
    assert error["details"] == {"invite_id": made["id"]}
    assert_error(await world.max.send("GET", path), 403, "forbidden")
    assert_error(await other_app.eve.send("DELETE", f"{other_app.path}/invites/{made['id']}"), 404, "not_found")
    token = await mailed(world.stack, email)
    for body in ({"token": token, "name": "", "password": PASSWORD}, {"token": token, "password": PASSWORD}, {"token": 7}):
        assert_error(await world.stack.client.post("/auth/accept-invite", json=body), 400, "validation_error")
    assert_error(await accept(world.stack, token, "short"), 400, "validation_error")
    assert_error(await accept(world.stack, token, email=email), 400, "validation_error")
    assert_error(await accept(world.stack, "A" * 43), 400, "invite_invalid")
    assert (await accept(world.stack, token)).status_code == 200
