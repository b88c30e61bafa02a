"""Overrides of profiles over HTTP, from the draft to the environment (`spec.md` 6, 9 and 10)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.own_things import NOWHERE
from tests.support.conman_stack import Person, World, assert_error, last, wait_for

TOKEN = "a token that only the suite sees"


def text(value: str) -> dict[str, Any]:
    return {"type": "string", "value": value}


def number(value: int) -> dict[str, Any]:
    return {"env_vars": {"N": {"type": "number", "value": value}}}


async def put(world: World, changeset: str, *given: dict[str, Any], person: Person | None = None, **more: Any) -> Any:
    """Set overrides; those without a target are QA's."""
    qa = (await world.environments())[1]["id"]
    wanted = [
        one if one.keys() & {"target_profile_id", "target_environment_id"} else {"target_environment_id": qa, **one}
        for one in given
    ]
    body = {"overrides": wanted}
    return await (person or world.ann).send("PUT", f"{changeset}/profile-overrides", json=body, **more)


async def approved_with(world: World, *given: dict[str, Any], files: dict[str, str] | None = None) -> str:
    changeset = await world.changeset(files)
    reply = await put(world, changeset, *given)
    assert reply.status_code == 200, reply.text
    submitted = await world.ann.post(f"{changeset}/submit")
    await world.job(submitted["job"]["id"])
    for person in (world.rob, world.max):
        if await world.state(changeset) != "approved":
            await person.post(f"{changeset}/review", {"action": "approve"})
    return changeset


async def queued_with(world: World, *given: dict[str, Any]) -> str:
    changeset = await approved_with(world, *given)
    await world.ann.post(f"{changeset}/queue")
    return changeset


async def released(world: World, *changesets: str) -> str:
    path = await world.validated(*changesets)
    await world.max.post(f"{path}/publish")
    return path


# -- Editing


async def test_what_is_set_is_shown_as_it_was_given_with_secrets_masked(world: World) -> None:
    changeset = await world.changeset()
    assert (await world.rob.get(f"{changeset}/profile-overrides"))["overrides"] == []
    live = (await world.environments())[3]
    given = [
        {"target_environment_id": live["id"], "env_vars": {"MODE": text("x"), "OLD": None}, "secrets": {"TOKEN": TOKEN}},
        {"target_profile_id": (await world.environments())[0]["runtime_profile_id"], "base_url": None},
    ]
    reply = (await put(world, changeset, *given)).json()["data"]
    masked = [{**given[0], "secrets": {"TOKEN": "a to****sees"}}, given[1]]
    assert reply["overrides"] == masked
    assert TOKEN not in json.dumps(reply)
    shown = await world.rob.get(f"{changeset}/profile-overrides")
    assert shown == reply
    assert {one["source"] for one in shown["effective"][0]["variables"]} == {"override"}
    (event,) = await world.audit(entity_type="changeset", entity_id=last(changeset), action="overrides_updated")
    assert event["after"]["overrides"] == masked


async def test_submit_shows_and_freezes_them_and_they_alone_may_be_submitted(world: World) -> None:
    workspace = await world.workspace()
    made = await world.ann.post(f"{world.path}/changesets", {"workspace_id": last(workspace), "title": "overrides alone"})
    changeset = f"{world.path}/changesets/{made['id']}"
    shown = (await put(world, changeset, number(1))).json()["data"]["overrides"]
    reply = await world.ann.post(f"{changeset}/submit")
    assert reply["included_profile_overrides"] == reply["revision"]["overrides"] == shown
    await world.job(reply["job"]["id"])
    error = assert_error(await put(world, changeset, number(2)), 409, "invalid_transition")
    assert error["details"] == {"from": "submitted", "to": "draft"}
    await world.rob.post(f"{changeset}/review", {"action": "request_changes"})
    assert_error(await world.ann.send("POST", f"{changeset}/resubmit", json={}), 409, "conflict")
    assert (await put(world, changeset, number(2))).status_code == 200
    again = await world.ann.post(f"{changeset}/resubmit")
    assert again["included_profile_overrides"][0]["env_vars"]["N"]["value"] == 2
    revisions = await world.ann.get(f"{changeset}/revisions")
    assert [row["overrides"][0]["env_vars"]["N"]["value"] for row in revisions] == [2, 1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"overrides": {}},
        {"overrides": [{}]},
        {"overrides": [{"target_environment_id": NOWHERE, "base_url": None}]},
        {"overrides": [{"target_profile_id": NOWHERE, "base_url": None, "name": "x"}]},
        {"overrides": [{"target_profile_id": NOWHERE, "target_environment_id": NOWHERE, "base_url": None}]},
        {"overrides": [], "more": 1},
    ],
    ids=json.dumps,
)
async def test_a_malformed_body_is_400(world: World, body: dict[str, Any]) -> None:
    changeset = await world.changeset()
    assert_error(await world.ann.send("PUT", f"{changeset}/profile-overrides", json=body), 400, "validation_error")


@pytest.mark.parametrize("name", ["target_environment_id", "target_profile_id"])
async def test_another_apps_target_is_answered_as_one_that_nothing_has(world: World, other_app: World, name: str) -> None:
    theirs = (await other_app.environments())[0]
    foreign = theirs["id"] if name == "target_environment_id" else theirs["runtime_profile_id"]
    changeset = await world.changeset()
    said = [
        assert_error(await put(world, changeset, {name: target, "base_url": None}), 400, "validation_error")["details"]
        for target in (foreign, NOWHERE)
    ]
    assert said == [[{"field": f"overrides.0.{name}", "message": "is none of this app's"}]] * 2


async def test_only_the_author_sets_overrides(world: World) -> None:
    changeset = await world.changeset()
    for person in (world.rob, world.max, world.eve):
        assert_error(await put(world, changeset, number(1), person=person), 403, "forbidden")


async def test_a_stale_version_is_409_and_no_version_is_fine(world: World) -> None:
    changeset = await world.changeset()
    version = (await world.ann.get(changeset))["version"]
    first = await put(world, changeset, number(1), headers={"If-Match": str(version)})
    assert first.json()["data"]["version"] == version + 1
    assert_error(await put(world, changeset, number(2), headers={"If-Match": str(version)}), 409, "stale_write")
    assert (await put(world, changeset, number(2))).status_code == 200


# -- Approvals


async def test_an_override_of_the_canonical_environments_profile_needs_two_approvals(world: World) -> None:
    live = next(one for one in await world.environments() if one["is_canonical"])
    changeset = await world.changeset()
    await put(world, changeset, {"target_environment_id": live["id"], "base_url": None})
    assert (await world.ann.get(changeset))["required_approval_count"] == 2
    await world.job((await world.ann.post(f"{changeset}/submit"))["job"]["id"])
    first = await world.rob.post(f"{changeset}/review", {"action": "approve"})
    assert first["changeset"]["state"] == "in_review"
    second = await world.max.post(f"{changeset}/review", {"action": "approve"})
    assert (second["changeset"]["state"], second["changeset"]["approval_count"]) == ("approved", 2)


# -- The way


async def test_the_submit_gate_gets_the_base_profile_with_the_overrides(world: World, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    files = {"tell.flag": str(seen)}
    changeset = await world.changeset(files)
    await put(world, changeset, {"env_vars": {"MODE": text("from the override")}, "secrets": {"TOKEN": TOKEN}})
    job = await world.job((await world.ann.post(f"{changeset}/submit"))["job"]["id"])
    assert job["state"] == "succeeded", job
    told = json.loads(seen.read_text(encoding="utf-8"))
    assert (told["MODE"], told["TOKEN"]) == ("from the override", TOKEN)
    log = await world.ann.get(f"{world.path}/jobs/{job['id']}/logs")
    assert TOKEN not in json.dumps([log, job])


async def test_the_later_of_two_that_collide_is_conflicted_at_the_queue(own: World) -> None:
    first = await queued_with(own, number(1))
    equal = await queued_with(own, number(1))
    later = await approved_with(own, number(2))
    reply = await own.ann.post(f"{later}/queue")
    assert (reply["state"], reply["queue_position"]) == ("conflicted", None)
    profile = (await own.environments())[1]["runtime_profile_id"]
    collision = {"kind": "override_collision", "profile_id": profile, "key": "env_vars.N"}
    assert reply["conflicts"] == [{**collision, "changeset_id": last(path)} for path in (first, equal)]
    assert f"collide with those of changeset {last(first)}" in reply["waiting_for"]
    (event,) = await own.audit(entity_type="changeset", entity_id=last(later), action="conflicted")
    assert event["after"]["cause"] == "override_collision"
    items = (await own.ann.get(f"{own.path}/queue"))["items"]
    assert [item["changeset_id"] for item in items] == [last(first), last(equal)]
    await own.ann.post(f"{later}/move-to-draft")
    assert (await put(own, later, number(1))).status_code == 200
    await own.job((await own.ann.post(f"{later}/submit"))["job"]["id"])
    await own.rob.post(f"{later}/review", {"action": "approve"})
    assert (await own.ann.post(f"{later}/queue"))["state"] == "queued"


async def test_a_release_brings_them_and_those_of_skipped_releases_to_the_environment(own: World) -> None:
    qa = (await own.environments())[1]
    skipped = await released(own, await queued_with(own, {"secrets": {"TOKEN": TOKEN}, "env_vars": {"A": text("first")}}))
    release = await released(own, await queued_with(own, {"env_vars": {"A": text("second")}}))
    profile_path = f"{own.path}/runtime-profiles/{qa['runtime_profile_id']}"
    before = await own.eve.get(profile_path)
    development = (await own.environments())[0]["id"]
    await own.deployed(development, release)
    assert await own.eve.get(profile_path) == before
    deployment = await own.deployed(qa["id"], release)
    assert deployment["state"] == "succeeded", deployment
    after = await own.eve.get(profile_path)
    assert after["env_vars"] == {"A": text("second")}
    assert (after["secrets"], after["revision_number"], after["applied"]) == ({"TOKEN": "a to****sees"}, 2, {qa["id"]: 2})
    (newest, *_) = await own.eve.get(f"{profile_path}/revisions")
    assert newest["id"] == deployment["profile_revision_id"]
    assert newest["release_ids"] == [last(skipped), last(release)]
    folder = Path((await own.environments())[1]["folder"]) / "profile"
    profile = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    assert (profile["secrets"], profile["env_vars"]) == ({"TOKEN": TOKEN}, {"A": text("second")})
    events = await own.audit(entity_type="runtime_profile", entity_id=qa["runtime_profile_id"], action="updated")
    assert events[0]["after"]["received_release_ids"] == [last(skipped), last(release)]
    assert TOKEN not in json.dumps(events)
    await own.deployed(qa["id"], release)
    assert (await own.eve.get(profile_path))["revision_number"] == 2


async def test_a_deployment_that_fails_brings_nothing(own: World) -> None:
    qa = (await own.environments())[1]
    release = await released(own, await queued_with(own, {"secrets": {"TOKEN": TOKEN}}))
    path = f"{own.path}/runtime-profiles/{qa['runtime_profile_id']}"
    version = (await own.eve.get(path))["version"]
    await own.eve.ok("PATCH", path, json={"env_vars": {"TOKEN": text("a variable since")}, "version": version})
    await own.deployed((await own.environments())[0]["id"], release)
    deployment = await own.deployed(qa["id"], release)
    assert (deployment["state"], deployment["reason_code"]) == ("failed", "runner_error")
    assert "secrets.TOKEN" in deployment["message"]
    assert (await own.eve.get(path))["revision_number"] == 2

    async def free() -> bool:
        return (await own.environments())[1]["active_deployment_id"] is None

    await wait_for(free, "the lock to be free")
