"""Runtime profiles over HTTP: content, revisions, secrets, and what stands against a change (`spec.md` 6, `api.md` 3)."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.conman_stack import World, assert_error, last, wait_for

URI = "mongodb://shop:open-sesame@db/shop"
TOKEN = "sk_live_0123456789"
FULL: dict[str, Any] = {
    "name": "Staging",
    "kind": "persistent_env",
    "base_url": "https://staging.example.com",
    "env_vars": {
        "GREETING": {"type": "string", "value": "Grüße 日本 😀"},
        "PORT": {"type": "number", "value": 8080},
        "RATIO": {"type": "number", "value": -0.5},
        "VERBOSE": {"type": "boolean", "value": False},
        "LIMITS": {"type": "json", "value": {"$gt": "", "a.b": [1, None, True], "": {"deep": {"$schema": "x"}}}},
    },
    "secrets": {"MONGO_URI": URI, "TOKEN": TOKEN, "PIN": "4711", "SHORT": "12345678"},
    "database": {"engine": "mongodb", "connection_ref": "MONGO_URI", "provisioning_mode": "existing"},
    "data_strategy": {"seed_mode": "baseline", "seed_source_ref": "nightly"},
    "lifecycle": {"ttl_idle_hours": 4, "grace_hours": 1, "auto_cleanup": False},
}
MASKS = {"MONGO_URI": "mong****shop", "TOKEN": "sk_l****6789", "PIN": "****", "SHORT": "****5678"}
PLAIN = ("open-sesame", TOKEN, "12345678", "an unheard-of value")


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


async def make(world: World, **fields: Any) -> str:
    """The path of a fresh profile."""
    made = await world.eve.post(f"{world.path}/runtime-profiles", {"name": "fresh", **fields})
    return f"{world.path}/runtime-profiles/{made['id']}"


async def patch(world: World, path: str, **fields: Any) -> httpx.Response:
    """A PATCH against the present version, unless another one is given."""
    if "version" not in fields:
        fields["version"] = (await world.eve.get(path))["version"]
    return await world.eve.send("PATCH", path, json=fields)


async def test_a_profile_is_shown_whole_with_its_secrets_masked(world: World) -> None:
    made = await world.eve.post(f"{world.path}/runtime-profiles", FULL)
    path = f"{world.path}/runtime-profiles/{made['id']}"
    expected = {
        **FULL,
        "secrets": MASKS,
        "database": {**FULL["database"], "base_profile_id": None},
        "migrations": None,
        "revision_number": 1,
        "applied": {},
        "version": 1,
        "app_id": world.app["id"],
        "created_by": world.eve.id,
    }
    assert {name: value for name, value in made.items() if name not in ("id", "created_at", "updated_at")} == expected
    for person in world.members.values():
        assert await person.get(path) == made
    listed, page = await world.ann.listed(f"{world.path}/runtime-profiles", limit=1)
    assert listed == [made]
    assert page["total"] == len((await world.ann.listed(f"{world.path}/runtime-profiles"))[0])


async def test_a_new_app_has_a_profile_for_each_environment(own: World) -> None:
    """`spec.md` 6."""
    listed, _ = await own.ann.listed(f"{own.path}/runtime-profiles")
    assert sorted(row["name"] for row in listed) == ["Development", "Production", "QA", "UAT"]
    assert {row["id"]: row["name"] for row in listed} == {
        row["runtime_profile_id"]: row["name"] for row in await own.environments()
    }
    path = f"{own.path}/runtime-profiles/{listed[0]['id']}"
    assert (await patch(own, path, env_vars={"A": {"type": "string", "value": "a"}})).status_code == 200
    assert [row["revision_number"] for row in (await own.ann.listed(f"{path}/revisions"))[0]] == [2, 1]


# -- Changing


async def test_a_patch_merges_by_key_and_makes_a_revision(world: World) -> None:
    path = await make(world, **FULL)
    reply = await patch(
        world,
        path,
        env_vars={"PORT": {"type": "string", "value": "8080"}, "RATIO": None},
        secrets={"PIN": None, "NEW": "an unheard-of value"},
        base_url=None,
        lifecycle={"ttl_idle_hours": 8},
    )
    found = reply.json()["data"]
    assert reply.status_code == 200, reply.text
    assert found["env_vars"] == {name: value for name, value in FULL["env_vars"].items() if name not in ("PORT", "RATIO")} | {
        "PORT": {"type": "string", "value": "8080"}
    }
    assert found["secrets"] == {**{name: MASKS[name] for name in ("MONGO_URI", "TOKEN", "SHORT")}, "NEW": "an u****alue"}
    assert (found["base_url"], found["revision_number"], found["version"]) == (None, 2, 2)
    assert found["lifecycle"] == {"ttl_idle_hours": 8, "grace_hours": None, "auto_cleanup": True}
    event = (await world.audit(entity_id=last(path), action="updated"))[0]
    assert event["before"]["secrets"] == {"PIN": "****", "NEW": None}
    assert event["after"]["secrets"] == {"PIN": None, "NEW": "an u****alue"}
    assert event["after"]["revision_number"] == 2


async def test_a_patch_needs_the_version_that_was_read(world: World) -> None:
    """`api.md` 1."""
    path = await make(world)
    error = assert_error(await world.eve.send("PATCH", path, json={"name": "x"}), 400, "validation_error")
    assert error["details"][0]["field"] == "version"
    for more in ({"headers": {"If-Match": "7"}, "json": {"name": "x"}}, {"json": {"name": "x", "version": 7}}):
        assert_error(await world.eve.send("PATCH", path, **more), 409, "stale_write")
    for match in ("1", '"2"'):
        await world.eve.ok("PATCH", path, json={"name": f"version {match}"}, headers={"If-Match": match})
    assert_error(await world.eve.send("PATCH", path, json={"version": 1}, headers={"If-Match": "3"}), 400, "validation_error")
    assert (await world.eve.get(path))["version"] == 3


async def test_of_two_edits_of_one_version_one_wins(world: World) -> None:
    path = await make(world)
    replies = await asyncio.gather(*(patch(world, path, name=f"try {number}", version=1) for number in range(6)))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 5
    winner = next(reply.json()["data"] for reply in replies if reply.status_code == 200)
    assert await world.eve.get(path) == winner


async def test_a_mask_is_never_written_back(world: World) -> None:
    """`spec.md` 6: nothing changes."""
    path = await make(world, **FULL)
    before = await world.eve.get(path)
    for name, shown in before["secrets"].items():
        reply = await patch(world, path, name="renamed", secrets={name: shown})
        assert assert_error(reply, 400, "validation_error")["details"][0]["field"] == f"secrets.{name}"
    assert await world.eve.get(path) == before
    assert await world.eve.post(f"{path}/secrets/TOKEN/reveal") == {"value": TOKEN}


async def test_what_changes_nothing_makes_no_revision(world: World) -> None:
    path = await make(world, **FULL)
    before = await world.eve.get(path)
    for fields in (
        {},
        {"secrets": {"TOKEN": TOKEN}},
        {"env_vars": {"NOBODY": None}},
        {"name": "Staging", "kind": "persistent_env"},
    ):
        reply = await patch(world, path, **fields)
        assert reply.json()["data"] == before


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"env_vars": {"TOKEN": {"type": "string", "value": "x"}}}, "secrets.TOKEN"),
        ({"secrets": {"PORT": "x"}}, "secrets.PORT"),
        ({"secrets": {"MONGO_URI": None}}, "database.connection_ref"),
        ({"database": {**FULL["database"], "connection_ref": "PORT"}}, "database.connection_ref"),
        ({"database": {**FULL["database"], "base_profile_id": str(uuid.uuid4())}}, "database.base_profile_id"),
        ({"migrations": {"repo_paths": ["migrations"], "command_ref": "rm"}}, "migrations.command_ref"),
    ],
)
async def test_a_profile_must_be_sound_as_a_whole(world: World, fields: dict[str, Any], field: str) -> None:
    path = await make(world, **FULL)
    assert assert_error(await patch(world, path, **fields), 400, "validation_error")["details"][0]["field"] == field
    assert (await world.eve.get(path))["version"] == 1


HOSTILE: list[Any] = [
    {"$gt": ""},
    {"$ne": None},
    ["$where", "1"],
    "a\0b",
    "\ud83d",
    "x" * 70_000,
    10**30,
    -1,
    1.5,
    True,
    None,
    [],
    {},
]
FIELDS = ("name", "kind", "base_url", "env_vars", "secrets", "database", "migrations", "data_strategy", "lifecycle", "version")


@pytest.mark.parametrize("field", FIELDS)
async def test_hostile_values_are_refused_or_mean_what_they_say_and_never_fail(world: World, field: str) -> None:
    path = await make(world, **FULL)
    for value in HOSTILE:
        for body in ({field: value}, {field: {"A": value}}, {field: {"A": {"type": "json", "value": value}}}, {field: [value]}):
            content = json.dumps({"version": 1, **body}).encode()
            reply = await world.eve.send("PATCH", path, content=content, headers={"Content-Type": "application/json"})
            assert reply.status_code in (200, 400, 409), f"{body}: {reply.status_code} {reply.text}"
            shown = await world.eve.send("GET", path)
            assert shown.status_code == 200
            listed = await world.eve.send("GET", f"{world.path}/audit", params={"entity_id": last(path)})
            assert listed.status_code == 200


async def test_json_that_the_database_reads_as_something_of_its_own_comes_back_as_it_was(world: World) -> None:
    values: list[Any] = [
        {"$gt": ""},
        {"a.b": {"": [{"$id": 1}]}},
        {"$ref": "#/x"},
        "a\0b",
        None,
        [],
        -0.5,
        2**63 - 1,
        {"_id": {"$oid": "x"}},
    ]
    given = {f"V{number}": {"type": "json", "value": value} for number, value in enumerate(values)}
    path = await make(world, env_vars=given)
    assert (await world.eve.get(path))["env_vars"] == given


async def test_no_refusal_says_the_value_of_a_secret(world: World) -> None:
    """`spec.md` 6: plaintext never reaches an error message."""
    path = await make(world, **FULL)
    bad: list[dict[str, Any]] = [
        {"secrets": {"A": f"{TOKEN}\0"}},
        {"secrets": {"A": [TOKEN]}},
        {"secrets": {"A": {"type": "string", "value": TOKEN}}},
        {"secrets": {"9": TOKEN}},
        {"secrets": {"PORT": TOKEN}},
        {"secrets": TOKEN},
        {"secrets": {"A": TOKEN * 2000}},
        {"password": TOKEN},
    ]
    for fields in bad:
        for reply in (
            await patch(world, path, **fields),
            await world.eve.send("POST", f"{world.path}/runtime-profiles", json={**FULL, **fields}),
        ):
            assert_error(reply, 400, "validation_error")
            assert TOKEN not in reply.text


# -- Secrets


async def test_only_an_app_admin_reveals_and_the_audit_says_so(world: World) -> None:
    """`spec.md` 6."""
    path = await make(world, **FULL)
    for role, person in world.members.items():
        reply = await person.send("POST", f"{path}/secrets/MONGO_URI/reveal", json={})
        if role == "app_admin":
            assert reply.json() == {"data": {"value": URI}}
        else:
            assert_error(reply, 403, "forbidden")
            assert "open-sesame" not in reply.text
    for unknown in ("NOBODY", "PORT", "$gt", "a.b", "%00", "x" * 300):
        assert_error(await world.eve.send("POST", f"{path}/secrets/{unknown}/reveal", json={}), 404, "not_found")
    events = await world.audit(entity_id=last(path), action="secret_revealed")
    assert [(row["actor_user_id"], row["after"]) for row in events] == [
        (world.eve.id, {"key": "MONGO_URI", "revision_number": 1})
    ]
    assert (await world.eve.get(path))["version"] == 1


async def test_a_reveal_ignores_the_key_and_nothing_keeps_what_it_told(world: World) -> None:
    """`api.md` 1."""
    headers = key()
    path = await make(world, **FULL)
    for _ in range(2):
        reply = await world.eve.send("POST", f"{path}/secrets/TOKEN/reveal", json={}, headers=headers)
        assert reply.json()["data"] == {"value": TOKEN}
    assert len(await world.audit(entity_id=last(path), action="secret_revealed")) == 2
    reply = await world.eve.send(
        "PATCH",
        path,
        json={"secrets": {"NEW": "an unheard-of value"}, "version": 1},
        headers={**headers, "Idempotency-Key": uuid.uuid4().hex},
    )
    assert reply.status_code == 200, reply.text
    db = world.stack.db
    for name in await db.list_collection_names():
        text = str(await db[name].find().to_list())
        assert not [plain for plain in PLAIN if plain in text], name


async def test_a_rotation_leaves_every_value_readable(world: World) -> None:
    path = await make(world, **FULL)
    assert (await patch(world, path, secrets={"TOKEN": "an unheard-of value"})).status_code == 200
    rotated = await world.eve.post(f"{path}/rotate-key")
    assert (rotated["revision_number"], rotated["secrets"]["TOKEN"]) == (2, "an u****alue")
    await world.eve.post(f"{path}/revert", {"revision_number": 1})
    assert await world.eve.post(f"{path}/secrets/TOKEN/reveal") == {"value": TOKEN}
    event = (await world.audit(entity_id=last(path), action="key_rotated"))[0]
    assert event["after"]["key_version"] == event["before"]["key_version"] + 1
    assert_error(await world.max.send("POST", f"{path}/rotate-key", json={}), 403, "forbidden")


# -- Revisions


async def test_revisions_are_listed_newest_first_and_one_can_be_made_anew(world: World) -> None:
    path = await make(world, **FULL)
    await patch(world, path, name="two", secrets={"TOKEN": None})
    await patch(world, path, name="three")
    reverted = await world.eve.post(f"{path}/revert", {"revision_number": 1})
    assert (reverted["name"], reverted["revision_number"], reverted["secrets"]) == ("Staging", 4, MASKS)
    rows, page = await world.ann.listed(f"{path}/revisions")
    shown = [(row["revision_number"], row["change"], row["reverted_to"], row["name"]) for row in rows]
    assert shown == [
        (4, "reverted", 1, "Staging"),
        (3, "updated", None, "three"),
        (2, "updated", None, "two"),
        (1, "created", None, "Staging"),
    ]
    assert (rows[0]["secrets"], page["total"]) == (MASKS, 4)
    part, _ = await world.ann.listed(f"{path}/revisions", page=2, limit=3)
    assert part == rows[3:]
    event = (await world.audit(entity_id=last(path), action="reverted"))[0]
    assert event["after"]["reverted_to"] == 1
    assert_error(await world.eve.send("POST", f"{path}/revert", json={"revision_number": 5}), 404, "not_found")
    headers = {"If-Match": "3"}
    assert_error(await world.eve.send("POST", f"{path}/revert", json={"revision_number": 1}, headers=headers), 409, "stale_write")
    for body in ({}, {"revision_number": 0}, {"revision_number": "1"}, {"revision_number": True}, {"revision_number": 1, "x": 1}):
        assert_error(await world.eve.send("POST", f"{path}/revert", json=body), 400, "validation_error")


async def test_a_diff_is_between_any_two_revisions_also_of_another_profile(world: World, other_app: World) -> None:
    path = await make(world, **FULL)
    await patch(
        world, path, env_vars={"PORT": None, "MODE": {"type": "string", "value": "x"}}, secrets={"TOKEN": "an unheard-of value"}
    )
    forth = await world.ann.get(f"{path}/diff", params={"from": "1", "to": "2"})
    assert [(row["field"], row["key"], row["change"], row["before"], row["after"]) for row in forth["changes"]] == [
        ("env_vars", "MODE", "added", None, {"type": "string", "value": "x"}),
        ("env_vars", "PORT", "removed", FULL["env_vars"]["PORT"], None),
        ("secrets", "TOKEN", "changed", MASKS["TOKEN"], "an u****alue"),
    ]
    assert forth["summary"] == {"added": 1, "removed": 1, "changed": 1}
    assert (await world.ann.get(f"{path}/diff", params={"from": "1"})) == forth
    assert (await world.ann.get(f"{path}/diff"))["changes"] == []
    twin = await make(world, **FULL)
    for to in (last(twin), f"{last(twin)}:1"):
        same = await world.ann.get(f"{path}/diff", params={"from": "1", "to": to})
        assert (same["changes"], same["to"]) == ([], {"profile_id": last(twin), "revision_number": 1})
    foreign = await make(other_app)
    for text, status, code in (
        ("3", 404, "not_found"),
        ("0", 404, "not_found"),
        (last(foreign), 404, "not_found"),
        (f"{last(foreign)}:1", 404, "not_found"),
        (str(uuid.uuid4()), 404, "not_found"),
        ("", 400, "validation_error"),
        (":", 400, "validation_error"),
        (":1", 400, "validation_error"),
        ("x", 400, "validation_error"),
        ("-1", 400, "validation_error"),
        ("\uff11", 400, "validation_error"),
        (f"{last(path)}:", 400, "validation_error"),
        (f"{last(path)}:1:1", 400, "validation_error"),
        ("9" * 65, 400, "validation_error"),
    ):
        for name in ("from", "to"):
            assert_error(await world.ann.send("GET", f"{path}/diff", params={name: text}), status, code)


async def test_effective_variables_say_where_they_come_from(own: World) -> None:
    """`spec.md` 6: app defaults < environment profile."""
    await own.set(env_defaults={"PORT": {"type": "number", "value": 1}, "REGION": {"type": "string", "value": "eu"}})
    path = await make(own, **FULL)
    found = await own.ann.get(f"{path}/effective")
    rows = {row["key"]: row for row in found["variables"]}
    assert rows["PORT"] == {"key": "PORT", "type": "number", "value": 8080, "source": "profile", "secret": False}
    assert rows["REGION"] == {"key": "REGION", "type": "string", "value": "eu", "source": "app_default", "secret": False}
    assert rows["TOKEN"] == {"key": "TOKEN", "type": "string", "value": MASKS["TOKEN"], "source": "profile", "secret": True}
    assert found["revision_number"] == 1
    assert list(rows) == sorted(rows)


# -- Who, and whose


async def test_a_profile_of_another_app_is_not_found(world: World, other_app: World) -> None:
    theirs = last(await make(other_app, **FULL))
    path = f"{world.path}/runtime-profiles/{theirs}"
    for method, route, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "x", "version": 1}),
        ("DELETE", "", None),
        ("GET", "/revisions", None),
        ("GET", "/diff", None),
        ("GET", "/effective", None),
        ("POST", "/revert", {"revision_number": 1}),
        ("POST", "/rotate-key", {}),
        ("POST", "/secrets/TOKEN/reveal", {}),
    ):
        reply = await world.eve.send(method, path + route, **({"json": body} if body is not None else {}))
        assert_error(reply, 404, "not_found")
        assert TOKEN not in reply.text
    database = {**FULL["database"], "base_profile_id": theirs}
    assert_error(
        await world.eve.send("POST", f"{world.path}/runtime-profiles", json={**FULL, "database": database}),
        400,
        "validation_error",
    )


async def test_a_deleted_profile_is_gone(world: World) -> None:
    path = await make(world, **FULL)
    reply = await world.eve.send("DELETE", path, headers={"If-Match": "2"})
    assert_error(reply, 409, "stale_write")
    assert (await world.eve.send("DELETE", path)).status_code == 204
    for method, route in (("GET", ""), ("GET", "/revisions"), ("DELETE", ""), ("POST", "/secrets/TOKEN/reveal")):
        assert_error(await world.eve.send(method, path + route, **({"json": {}} if method == "POST" else {})), 404, "not_found")
    assert last(path) not in [row["id"] for row in (await world.ann.listed(f"{world.path}/runtime-profiles", limit=100))[0]]
    event = (await world.audit(entity_id=last(path), action="deleted"))[0]
    assert event["before"]["secrets"] == MASKS


async def test_a_linked_profile_is_not_deleted(own: World) -> None:
    """`api.md` 3."""
    development, *_ = await own.environments()
    path = f"{own.path}/runtime-profiles/{development['runtime_profile_id']}"
    error = assert_error(await own.eve.send("DELETE", path), 409, "conflict")
    assert error["details"] == {"environment_ids": [development["id"]]}
    assert (await own.eve.get(path))["name"] == "Development"


# -- Repeats


async def test_a_repeat_with_the_same_key_gets_the_first_answer_also_after_later_changes(world: World) -> None:
    headers = key()
    body = {**FULL, "name": "keyed"}
    made = [await world.eve.post(f"{world.path}/runtime-profiles", body, headers=headers) for _ in range(2)]
    assert made[0] == made[1]
    path = f"{world.path}/runtime-profiles/{made[0]['id']}"
    headers, change = key(), {"secrets": {"TOKEN": "an unheard-of value"}, "version": 1}
    replies = await asyncio.gather(*(world.eve.send("PATCH", path, json=change, headers=headers) for _ in range(4)))
    await patch(world, path, name="later")
    replies.append(await world.eve.send("PATCH", path, json=change, headers=headers))
    assert {reply.status_code for reply in replies} == {200}
    assert len({json.dumps(reply.json()["data"], sort_keys=True) for reply in replies}) == 1
    assert [row["revision_number"] for row in (await world.eve.listed(f"{path}/revisions"))[0]] == [3, 2, 1]
    other = await world.eve.send("PATCH", path, json={**change, "secrets": {"TOKEN": "other"}}, headers=headers)
    assert_error(other, 409, "conflict")


# -- Deployments


async def test_what_was_deployed_is_changed_by_an_emergency_edit(own: World) -> None:
    """`spec.md` 6: before the first deployment there it is an ordinary edit."""
    development, *_ = await own.environments()
    path = f"{own.path}/runtime-profiles/{development['runtime_profile_id']}"
    await patch(own, path, env_vars={"A": {"type": "number", "value": 1}})
    deployed = await own.deployed(development["id"], await own.published())
    assert deployed["state"] == "succeeded"
    shown = await own.eve.get(path)
    assert shown["applied"] == {development["id"]: 2}
    await patch(own, path, env_vars={"A": {"type": "number", "value": 2}})
    reverted = await own.eve.post(f"{path}/revert", {"revision_number": 2})
    assert (reverted["revision_number"], reverted["applied"]) == (4, {development["id"]: 2})
    events = await own.audit(entity_id=last(path))
    assert [row["action"] for row in events if row["action"] != "created"] == [
        "emergency_edited",
        "reverted",
        "emergency_edited",
        "updated",
    ]
    assert events[0]["after"]["environment_ids"] == [development["id"]]
    assert events[0]["before"]["env_vars"] == {"A": {"type": "number", "value": 2}}


async def test_a_profile_stands_still_while_a_deployment_with_it_runs(own: World, tmp_path: Path) -> None:
    """`spec.md` 6."""
    held = tmp_path / "held"
    release = await own.validated(await own.queued({"slow.flag": str(held)}))
    await own.max.post(f"{release}/publish")
    development, qa, *_ = await own.environments()
    path = f"{own.path}/runtime-profiles/{development['runtime_profile_id']}"
    held.touch()
    body = {"release_id": last(release)}
    deployment = (await own.max.post(f"{own.path}/environments/{development['id']}/deploy", body))["deployment"]

    async def runs() -> bool:
        return (await own.max.get(f"{own.path}/deployments/{deployment['id']}"))["state"] == "running"

    await wait_for(runs, "the deployment to run")
    reply = await patch(own, path, name="x")
    assert assert_error(reply, 409, "environment_locked")["details"] == {"deployment_id": deployment["id"]}
    reply = await own.eve.send("POST", f"{path}/revert", json={"revision_number": 1})
    assert assert_error(reply, 409, "environment_locked")["details"] == {"deployment_id": deployment["id"]}
    assert (await patch(own, f"{own.path}/runtime-profiles/{qa['runtime_profile_id']}", name="x")).status_code == 200
    held.unlink()
    await own.job(deployment["job_id"])
    assert (await patch(own, path, name="x")).status_code == 200
