"""`kill -9` of the API in the middle of a request that it finishes by itself: the same request again, one effect, one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from faults_app import PASSWORD, App, running_app
from faults_processes import KILLED, World

from tests.support.sizes import some


@dataclass(frozen=True)
class Asked:
    """A request of the app's admin, who is a platform admin too."""

    method: str
    path: str
    body: dict[str, Any] = field(default_factory=dict)


Prepare = Callable[[App], Awaitable[Asked]]


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:10]}"


async def user(app: App) -> str:
    body = {"email": f"{fresh('user')}@example.com", "name": "user", "password": PASSWORD}
    return (await app.admin.post("/users", body))["id"]


async def member(app: App, role: str = "reviewer") -> str:
    made = await user(app)
    await app.admin.post(f"{app.path}/members", {"user_id": made, "role": role})
    return f"{app.path}/members/{made}"


async def invite(app: App) -> str:
    body = {"email": f"{fresh('invited')}@example.com", "role": "user"}
    return f"{app.path}/invites/{(await app.admin.post(f'{app.path}/invites', body))['id']}"


async def profile(app: App) -> str:
    body = {"name": fresh("profile"), "kind": "persistent_env", "secrets": {"TOKEN": "a secret that is kept"}}
    return f"{app.path}/runtime-profiles/{(await app.admin.post(f'{app.path}/runtime-profiles', body))['id']}"


async def new_user(app: App) -> Asked:
    return Asked("POST", "/users", {"email": f"{fresh('new')}@example.com", "name": "new", "password": PASSWORD})


async def disabled_user(app: App) -> Asked:
    path = await member(app)
    return Asked("PATCH", f"/users/{path.rpartition('/')[2]}", {"disabled": True})


async def disabled_app_admin(app: App) -> Asked:
    path = await member(app, "app_admin")
    return Asked("PATCH", f"/users/{path.rpartition('/')[2]}", {"disabled": True})


async def new_member(app: App) -> Asked:
    return Asked("POST", f"{app.path}/members", {"user_id": await user(app), "role": "app_admin"})


async def another_role(app: App) -> Asked:
    return Asked("PATCH", await member(app), {"role": "user"})


async def removal(app: App) -> Asked:
    return Asked("DELETE", await member(app))


async def new_invite(app: App) -> Asked:
    return Asked("POST", f"{app.path}/invites", {"email": f"{fresh('asked')}@example.com", "role": "user"})


async def invite_sent_again(app: App) -> Asked:
    return Asked("POST", f"{await invite(app)}/resend")


async def revoked_invite(app: App) -> Asked:
    return Asked("DELETE", await invite(app))


async def setting(app: App) -> Asked:
    shown = await app.admin.get(app.path)
    hours = shown["settings"]["approval_ttl_hours"] + 1
    return Asked("PATCH", f"{app.path}/settings", {"approval_ttl_hours": hours, "version": shown["version"]})


async def environments(app: App) -> Asked:
    rows = await app.admin.get(f"{app.path}/environments")
    kept = [{"id": row["id"], "name": row["name"], "is_canonical": row["is_canonical"]} for row in rows]
    body = {"environments": [*kept, {"name": fresh("env"), "is_canonical": False}]}
    return Asked("PATCH", f"{app.path}/environments", {**body, "version": (await app.admin.get(app.path))["version"]})


async def new_profile(app: App) -> Asked:
    body = {"name": fresh("made"), "kind": "persistent_env", "secrets": {"KEY": "a secret to be made"}}
    return Asked("POST", f"{app.path}/runtime-profiles", body)


async def changed_profile(app: App) -> Asked:
    path = await profile(app)
    version = (await app.admin.get(path))["version"]
    return Asked("PATCH", path, {"secrets": {"TOKEN": "another secret"}, "version": version})


async def rotated_profile(app: App) -> Asked:
    return Asked("POST", f"{await profile(app)}/rotate-key")


async def archived_app(app: App) -> Asked:
    name = fresh("archived")
    made = await app.admin.post("/apps", {"name": name, "repo_path": f"team/{name}.git", "create_repository": True})
    return Asked("DELETE", f"/apps/{made['id']}")


DELIVERED = ("deliver.audited", "deliver.put")
CASES: dict[str, tuple[Prepare, str]] = {
    f"{prepare.__name__} at {point}": (prepare, point)
    for prepare, points in (
        (new_user, DELIVERED),
        (disabled_user, ("admins.recorded", "admins.shown")),
        (disabled_app_admin, ("disabling.suspended",)),
        (new_member, ("members.recorded", "members.shown", *DELIVERED)),
        (another_role, ("members.recorded", "members.shown")),
        (removal, ("members.recorded", "members.shown", "deliver.audited")),
        (new_invite, DELIVERED),
        (invite_sent_again, DELIVERED),
        (revoked_invite, DELIVERED),
        (setting, DELIVERED),
        (environments, ("environments.closed", "environments.listed", "environments.profiles", "environments.copied")),
        (new_profile, ("secrets.sealed", *DELIVERED)),
        (changed_profile, ("secrets.sealed", "profile.kept", "deliver.audited")),
        (rotated_profile, ("rotation.recorded", "rotation.value", "rotation.added", "rotation.dropped")),
        (archived_app, ("archive.closed", "archive.written")),
    )
    for point in points
}


@pytest_asyncio.fixture(scope="module")
async def shop(world: World) -> AsyncIterator[App]:
    async with world.cell() as cell, running_app(cell) as app:
        await cell.worker()
        yield app


async def sent(app: App, asked: Asked, key: str) -> httpx.Response:
    headers = app.admin.headers | {"Idempotency-Key": key}
    return await app.admin.client.request(asked.method, asked.path, json=asked.body, headers=headers)


def told(reply: httpx.Response) -> tuple[int, Any]:
    """What an answer names; counts and times may go on."""
    if reply.status_code == 204:
        return 204, None
    data = reply.json()["data"]
    rows = data if isinstance(data, list) else [data]
    return reply.status_code, [(row.get("id"), row.get("version"), row.get("name")) for row in rows]


@pytest.mark.parametrize("case", some(CASES, one_in=5))
async def test_a_request_cut_short_by_a_kill_has_one_effect_and_one_answer(shop: App, case: str) -> None:
    prepare, point = CASES[case]
    asked, key = await prepare(shop), uuid4().hex
    before = {row["_id"] async for row in shop.db["audit"].find({}, {"_id": 1})}
    doomed = await shop.cell.restart_api(faults=f"{point}:1")
    with pytest.raises(httpx.TransportError):
        await sent(shop, asked, key)
    assert await doomed.ended() == KILLED
    await shop.cell.start_api()
    replies = [await sent(shop, asked, key) for _ in range(3)]
    assert replies[0].status_code < 300, replies[0].text
    assert [told(reply) for reply in replies] == [told(replies[0])] * 3
    events = [row async for row in shop.db["audit"].find({"_id": {"$nin": list(before)}})]
    made = Counter((row["entity_type"], row["entity_id"], row["action"]) for row in events)
    assert made
    assert set(made.values()) == {1}, made
