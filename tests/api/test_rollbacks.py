"""Both rollbacks over HTTP, on the real stack (`spec.md` 12, `api.md` 3)."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.conman_stack import World, assert_error, last

UNDO = "revert_and_release"
RETURN = "redeploy_prior_tag"


def refs(world: World) -> str:
    repo = world.stack.data / "repositories" / world.app["repo_path"]
    shown = subprocess.run(["git", "-C", str(repo), "show-ref"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in shown.splitlines() if "/conman/" not in line)


def files(world: World) -> dict[str, str]:
    repo = world.stack.data / "repositories" / world.app["repo_path"]
    names = subprocess.run(["git", "-C", str(repo), "ls-tree", "-r", "--name-only", "main"], capture_output=True, text=True)
    found: dict[str, str] = {}
    for name in names.stdout.split():
        shown = subprocess.run(["git", "-C", str(repo), "show", f"main:{name}"], capture_output=True, text=True, check=True)
        found[name] = shown.stdout
    return found


async def release(world: World, *changes: dict[str, str]) -> str:
    """A published release of one changeset for each of these changes; its path."""
    path = await world.validated(*[await world.queued(change) for change in changes])
    await world.max.post(f"{path}/publish")
    return path


async def first(world: World) -> str:
    """The id of the first environment."""
    return (await world.environments())[0]["id"]


async def ask(world: World, environment: str, path: str, mode: str, **more: Any) -> Any:
    body = {"release_id": last(path), "mode": mode}
    return await world.max.send("POST", f"{world.path}/environments/{environment}/rollback", json=body, **more)


async def rolled_back(world: World, environment: str, path: str, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The deployment of a rollback at its end, and what the request answered."""
    reply = await ask(world, environment, path, mode)
    assert reply.status_code == 202, reply.text
    answer = reply.json()["data"]
    await world.job(answer["job"]["id"])
    return await world.max.get(f"{world.path}/deployments/{answer['deployment']['id']}"), answer


async def test_a_release_of_several_changesets_is_undone_by_a_new_one_and_that_by_another(own: World) -> None:
    dev = await first(own)
    start = files(own)
    bad = await release(own, {"a.json": "1"}, {"b.json": "2"})
    good = await release(own, {"c.json": "3"})
    assert (await own.deployed(dev, good))["state"] == "succeeded"

    deployment, answer = await rolled_back(own, dev, bad, UNDO)
    assert (answer["deployment"]["state"], answer["deployment"]["release_id"]) == ("pending", None)
    assert answer["deployment"]["kind"] == "rollback"
    made = answer["release"]
    assert (made["reverts_release_id"], made["ordered_changeset_ids"]) == (last(bad), [])
    assert made["tag"]
    assert (deployment["state"], deployment["release_id"]) == ("succeeded", made["id"]), deployment
    assert deployment["gate_job_id"] is not None
    assert files(own) == {**start, "c.json": "3"}
    assert await own.state(bad) == "rolled_back"
    undoing = f"{own.path}/releases/{made['id']}"
    shown = await own.max.get(undoing)
    assert (shown["state"], shown["published_by"]) == ("deployed_partial", own.max.id)
    (event,) = await own.audit(entity_type="release", entity_id=last(bad), action="rolled_back")
    assert event["after"]["mode"] == UNDO
    assert event["after"]["by_release_id"] == made["id"]
    assert len(await own.audit(entity_type="deployment", entity_id=deployment["id"], action="rolled_back")) == 1
    environment = (await own.environments())[0]
    assert environment["current_release_id"] == made["id"]

    assert_error(await ask(own, dev, bad, UNDO), 409, "invalid_transition")

    again, answer = await rolled_back(own, dev, undoing, UNDO)
    assert again["state"] == "succeeded", again
    assert files(own) == {**start, "a.json": "1", "b.json": "2", "c.json": "3"}
    assert await own.state(undoing) == "rolled_back"


async def test_what_newer_releases_build_on_is_not_undone_and_nothing_changes(own: World) -> None:
    dev = await first(own)
    old = await release(own, {"a.json": '{"value": 1}'})
    newer = await release(own, {"a.json": '{"value": 2}'})
    before = refs(own)
    audit = await own.audit()
    releases, _ = await own.max.listed(f"{own.path}/releases")
    error = assert_error(await ask(own, dev, old, UNDO), 409, "conflict")
    assert error["details"]["paths"] == ["a.json"]
    assert [one["release_id"] for one in error["details"]["newer_releases"]] == [last(newer)]
    assert refs(own) == before
    assert await own.audit() == audit
    assert (await own.max.listed(f"{own.path}/releases"))[0] == releases
    assert (await own.max.listed(f"{own.path}/deployments"))[0] == []
    assert await own.state(old) == "published"
    deployed = await own.deployed(dev, newer)
    assert (deployed["state"], deployed["fence"]) == ("succeeded", 1), "the lock was never taken"


async def test_a_release_whose_undoing_fails_its_gate_is_dropped_and_nothing_moves(own: World) -> None:
    dev = await first(own)
    strict = {"type": "object", "additionalProperties": False, "properties": {"a": {"type": "number"}}}
    wide = {**strict, "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}
    await release(own, {"schemas/app.json": json.dumps(strict), "app.json": '{"a": 1}'})
    widened = await release(own, {"schemas/app.json": json.dumps(wide)})
    await release(own, {"app.json": '{"a": 1, "b": 2}'})
    before = refs(own)
    deployment, answer = await rolled_back(own, dev, widened, UNDO)
    assert (deployment["state"], deployment["reason_code"], deployment["release_id"]) == ("failed", "tests_failed", None)
    assert await own.state(f"{own.path}/releases/{answer['release']['id']}") == "dropped"
    assert refs(own) == before
    assert await own.state(widened) == "published"
    assert (await own.environments())[0]["active_deployment_id"] is None


async def test_undoing_gives_the_profile_its_earlier_values_back(own: World) -> None:
    dev = await first(own)
    changeset = await own.changeset({"a.json": "1"})
    variables = {"MODE": {"type": "string", "value": "new"}}
    override = {"target_environment_id": dev, "env_vars": variables, "secrets": {"KEY": "s3cret-value"}}
    reply = await own.ann.send("PUT", f"{changeset}/profile-overrides", json={"overrides": [override]})
    assert reply.status_code == 200, reply.text
    job = (await own.ann.post(f"{changeset}/submit"))["job"]["id"]
    await own.job(job)
    await own.rob.post(f"{changeset}/review", {"action": "approve"})
    await own.ann.post(f"{changeset}/queue")
    path = await own.validated(changeset)
    await own.max.post(f"{path}/publish")
    profile_path = f"{own.path}/runtime-profiles/{(await own.environments())[0]['runtime_profile_id']}"
    before = await own.eve.get(profile_path)
    assert (await own.deployed(dev, path))["state"] == "succeeded"
    assert (await own.eve.get(profile_path))["env_vars"]["MODE"]["value"] == "new"

    deployment, answer = await rolled_back(own, dev, path, UNDO)
    assert deployment["state"] == "succeeded", deployment
    after = await own.eve.get(profile_path)
    assert (after["env_vars"], after["secrets"]) == (before["env_vars"], before["secrets"])

    again, _ = await rolled_back(own, dev, f"{own.path}/releases/{answer['release']['id']}", UNDO)
    assert again["state"] == "succeeded", again
    redone = await own.eve.get(profile_path)
    assert redone["env_vars"]["MODE"]["value"] == "new"
    assert "KEY" in redone["secrets"]


async def test_an_environment_returns_to_an_earlier_release_with_the_profile_that_it_had(own: World) -> None:
    dev = await first(own)
    old, new = await release(own, {"a.json": "1"}), await release(own, {"b.json": "1"})
    then = await own.deployed(dev, old)
    error = assert_error(await ask(own, dev, new, RETURN), 409, "conflict")
    assert [one["release_id"] for one in error["details"]["succeeded"]] == [last(old)]
    profile = f"{own.path}/runtime-profiles/{(await own.environments())[0]['runtime_profile_id']}"
    assert (await own.deployed(dev, new))["state"] == "succeeded"
    version = (await own.eve.get(profile))["version"]
    await own.eve.ok("PATCH", profile, json={"env_vars": {"X": {"type": "string", "value": "edited"}}, "version": version})
    before = refs(own)

    deployment, answer = await rolled_back(own, dev, old, RETURN)
    assert deployment["state"] == "succeeded", deployment
    assert (deployment["release_id"], deployment["gate_job_id"]) == (last(old), None)
    assert deployment["profile_revision_id"] == then["profile_revision_id"]
    assert deployment["rollback"]["takes_along"] == [(await own.max.get(new))["tag"]]
    assert answer["release"] is None
    assert refs(own) == before
    assert await own.state(new) == "rolled_back"
    assert await own.state(old) == "deployed_partial"
    environment = (await own.environments())[0]
    assert (environment["current_release_id"], environment["current_deployment_id"]) == (last(old), deployment["id"])
    (event,) = await own.audit(entity_type="release", entity_id=last(new), action="rolled_back")
    assert (event["after"]["mode"], event["after"]["environment_id"]) == (RETURN, dev)
    assert_error(await ask(own, dev, new, RETURN), 409, "invalid_transition")


async def test_a_release_that_others_run_loses_one_environment(own: World) -> None:
    dev, qa = (one["id"] for one in (await own.environments())[:2])
    old, new = await release(own, {"a.json": "1"}), await release(own, {"b.json": "1"})
    for path in (old, new):
        for environment in (dev, qa):
            assert (await own.deployed(environment, path))["state"] == "succeeded"
    assert (await rolled_back(own, qa, old, RETURN))[0]["state"] == "succeeded"
    assert await own.state(new) == "deployed_partial"
    assert (await own.deployed(qa, new))["state"] == "succeeded", "it may come back"
    assert (await rolled_back(own, qa, old, RETURN))[0]["state"] == "succeeded"
    assert (await rolled_back(own, dev, old, RETURN))[0]["state"] == "succeeded"
    assert await own.state(new) == "rolled_back"


async def test_a_repeat_of_a_rollback_finds_the_first_one(own: World) -> None:
    dev = await first(own)
    path = await release(own, {"a.json": "1"})
    headers = {**own.max.headers, "Idempotency-Key": "once"}
    one = await ask(own, dev, path, UNDO, headers=headers)
    two = await ask(own, dev, path, UNDO, headers=headers)
    answers = [reply.json()["data"] for reply in (one, two)]
    assert answers[0]["deployment"]["id"] == answers[1]["deployment"]["id"]
    assert answers[0]["release"]["id"] == answers[1]["release"]["id"]
    await own.job(answers[0]["job"]["id"])
    assert len((await own.max.listed(f"{own.path}/releases"))[0]) == 2
    assert len((await own.max.listed(f"{own.path}/deployments"))[0]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"release_id": "x"},
        {"mode": UNDO},
        {"release_id": "x", "mode": "sideways"},
        {"release_id": 1, "mode": UNDO},
        {"release_id": "x", "mode": UNDO, "more": 1},
        {"release_id": "019ca8bb-b5c0-73b1-afd4-907bedf51c30", "mode": RETURN},
    ],
)
async def test_a_rollback_says_of_what_and_how(world: World, body: dict[str, Any]) -> None:
    environment = await first(world)
    reply = await world.max.send("POST", f"{world.path}/environments/{environment}/rollback", json=body)
    assert_error(reply, 400, "validation_error")


async def test_a_rollback_takes_the_environment_from_a_deployment_that_waits(own: World) -> None:
    live = (await own.environments())[-1]["id"]
    path = await release(own, {"a.json": "1"})
    body = {"release_id": last(path), "skip_stage": True}
    waiting = (await own.max.post(f"{own.path}/environments/{live}/deploy", body))["deployment"]
    assert (waiting["state"], waiting["approvals_required"]) == ("pending", 2)
    deployment, _ = await rolled_back(own, live, path, UNDO)
    assert (deployment["state"], deployment["approvals_required"]) == ("succeeded", 0), deployment
    ended = await own.max.get(f"{own.path}/deployments/{waiting['id']}")
    assert (ended["state"], ended["reason_code"]) == ("canceled", "superseded")
    assert "a.json" not in files(own)


async def test_a_hold_stops_no_rollback(own: World) -> None:
    dev = await first(own)
    old, new = await release(own, {"a.json": "1"}), await release(own, {"b.json": "1"})
    for path in (old, new):
        assert (await own.deployed(dev, path))["state"] == "succeeded"
    await own.max.post(f"{own.path}/hold", {"reason": "a drill"})
    assert (await rolled_back(own, dev, old, RETURN))[0]["state"] == "succeeded"
    assert (await rolled_back(own, dev, old, UNDO))[0]["state"] == "succeeded"
