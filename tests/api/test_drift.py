"""Drift of real environments over HTTP: found, taken over, overwritten and healed (`spec.md` 12)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from temporalio.client import Client

from conman.workflows.drift_check import DRIFT_ROUND_ID
from tests.support.conman_stack import World, assert_error, make_world, wait_for

PIN = "a pin that nobody may see"
OTHER = "another pin that nobody may see"


async def deployed(world: World) -> tuple[str, Path]:
    """The first environment, with a variable and a secret, and the folder that it shows."""
    row = (await world.environments())[0]
    profile = f"{world.path}/runtime-profiles/{row['runtime_profile_id']}"
    fields = {"env_vars": {"LIMIT": {"type": "number", "value": 5}}, "secrets": {"PIN": PIN}}
    await world.eve.ok("PATCH", profile, json={**fields, "version": (await world.eve.get(profile))["version"]})
    ended = await world.deployed(row["id"], await world.published())
    assert ended["state"] == "succeeded", ended
    return row["id"], Path((await world.environments())[0]["folder"])


def touch(folder: Path, old: str, new: str) -> None:
    """Edit the variables that are in place."""
    file = folder / "profile" / "profile.env"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


async def checked(world: World, environment: str) -> dict[str, Any]:
    """What a check on demand has found."""
    made = await world.max.post(f"{world.path}/environments/{environment}/drift-check")
    assert (made["job"]["job_type"], made["job"]["entity_id"]) == ("runtime_profile_drift_check", environment)
    job = await world.job(made["job"]["id"])
    assert (job["state"], job["reason_code"]) == ("succeeded", "ok"), job
    return job["result"]


async def shown(world: World, environment: str) -> dict[str, Any]:
    return next(row["drift"] for row in await world.environments() if row["id"] == environment)


async def test_drift_is_found_on_demand_told_by_digests_and_taken_over_by_a_changeset(world: World) -> None:
    own = await make_world(world.stack)
    environment, folder = await deployed(own)
    assert (await shown(own, environment))["state"] == "clean"
    assert_error(await own.max.send("POST", f"{own.path}/environments/{environment}/create-drift-fix-changeset"), 409, "conflict")
    assert (await checked(own, environment))["drifted"] is False

    touch(folder, "LIMIT='5'", "LIMIT='50'")
    touch(folder, PIN, OTHER)
    result = await checked(own, environment)

    found = {(item["kind"], item["key"]): item for item in result["report"]}
    assert (found["env_var", "LIMIT"]["expected"], found["env_var", "LIMIT"]["observed"]) == ("5", "50")
    assert found["secret", "PIN"]["expected"] != found["secret", "PIN"]["observed"]
    now = await shown(own, environment)
    assert (now["state"], now["report"], now["first_seen_at"]) == ("drifted", result["report"], result["first_seen_at"])
    events = await own.audit(entity_id=environment)
    assert [event["action"] for event in events] == ["drift_detected"]

    made = await own.max.post(f"{own.path}/environments/{environment}/create-drift-fix-changeset")
    path = f"{own.path}/changesets/{made['changeset']['id']}"
    overrides = (await own.max.get(f"{path}/profile-overrides"))["overrides"]
    assert overrides == [{"target_environment_id": environment, "env_vars": {"LIMIT": {"type": "number", "value": 50}}}]
    assert made["changeset"]["state"] == "draft"
    assert "`PIN`" in made["changeset"]["description"]

    db = own.stack.db
    for collection in await db.list_collection_names():
        if collection != "secret_values":
            text = json.dumps(await db[collection].find({}).to_list(), default=str)
            assert PIN not in text, collection
            assert OTHER not in text, collection


async def test_a_deployment_overwrites_what_was_touched_when_somebody_says_so(world: World) -> None:
    own = await make_world(world.stack)
    environment, folder = await deployed(own)
    touch(folder, "LIMIT='5'", "LIMIT='50'")
    made = await own.max.post(
        f"{own.path}/environments/{environment}/deploy", {"release_id": (await own.environments())[0]["current_release_id"]}
    )
    deployment = f"{own.path}/deployments/{made['deployment']['id']}"

    async def blocked() -> bool:
        return bool((await own.max.get(deployment))["drift_report"])

    await wait_for(blocked, "the drift to block it")
    await own.max.post(f"{deployment}/revalidate", {"overwrite": True})
    assert (await own.job(made["job"]["id"]))["state"] == "succeeded"

    assert (await shown(own, environment))["state"] == "clean"
    events = await own.audit(entity_id=environment)
    assert sorted(event["action"] for event in events) == ["drift_cleared", "drift_detected"]
    assert [event["after"]["cause"] for event in events if event["action"] == "drift_cleared"] == ["overwritten"]
    assert (await checked(own, environment))["drifted"] is False


async def test_an_environment_that_heals_gets_back_what_was_applied_last(world: World) -> None:
    own = await make_world(world.stack)
    environment, folder = await deployed(own)
    app = await own.eve.get(own.path)
    rows = [{"id": row["id"], "name": row["name"], "is_canonical": row["is_canonical"]} for row in await own.environments()]
    rows[0]["drift_policy"] = "heal"
    await own.eve.ok("PATCH", f"{own.path}/environments", json={"environments": rows, "version": app["version"]})
    touch(folder, "LIMIT='5'", "LIMIT='50'")

    client = await Client.connect(own.stack.ready["temporal_address"])
    await client.get_schedule_handle(DRIFT_ROUND_ID).trigger()

    async def healed() -> Any:
        rows, _ = await own.max.listed(f"{own.path}/deployments", environment_id=environment, state="succeeded,failed")
        return next((row for row in rows if row["kind"] == "heal"), None)

    deployment = await wait_for(healed, "the healing")
    await own.job(deployment["job_id"])
    assert deployment["state"] == "succeeded", deployment
    assert [item["key"] for item in deployment["drift_report"]] == ["LIMIT"]
    assert "LIMIT='5'" in (folder / "profile" / "profile.env").read_text()
    assert (await checked(own, environment))["drifted"] is False
    events = await own.audit(entity_id=deployment["id"], action="healed")
    assert [event["after"]["holds"] for event in events] == [True]
    cleared = await own.audit(entity_id=environment, action="drift_cleared")
    assert [event["after"]["cause"] for event in cleared] == ["healed"]
