"""What an app's admins decide, over HTTP: settings, environments, the end (`spec.md` 6, `api.md` 3)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.conman_stack import Person, World, assert_error, last, wait_for

SLOW = "slow.flag"


async def version_of(world: World) -> int:
    return (await world.eve.get(world.path))["version"]


async def patched(
    world: World, what: str, body: dict[str, Any], headers: dict[str, str] | None = None, person: Person | None = None
) -> Any:
    return await (person or world.eve).send("PATCH", f"{world.path}/{what}", json=body, headers=headers or {})


async def settings(world: World, **patch: Any) -> Any:
    return await patched(world, "settings", {**patch, "version": await version_of(world)})


async def relist(world: World, *names: str, **more: Any) -> Any:
    """Replace the list; the last one is canonical, `more` are fields of the first."""
    by_name = {row["name"]: row["id"] for row in await world.environments()}
    items = [
        {**({"id": by_name[name]} if name in by_name else {}), "name": name, "is_canonical": name == names[-1]} for name in names
    ]
    items[0] |= more
    return await patched(world, "environments", {"environments": items, "version": await version_of(world)})


# -- Settings


async def test_settings_are_changed_flat_and_shown_whole_with_a_new_version(own: World) -> None:
    before = await own.eve.get(own.path)
    patch = {
        "required_approval_count": 2,
        "blocked_paths": ["*.pem"],
        "env_defaults": {"PORT": {"type": "number", "value": 1}},
        "validation_gates": {"release": {"command": "refusing", "profile_scope": "all", "timeout_seconds": 60}},
        "temp_url_domain": "temp.example.com",
        "webhook": {"url": "https://hooks.example.com/x", "events": ["release.published"], "secret": "0123456789abcdef"},
    }
    shown = (await settings(own, **patch)).json()["data"]
    assert shown["version"] == before["version"] + 1
    assert shown["settings"]["webhook"] == {**patch["webhook"], "secret": "0123****cdef"}
    assert shown["settings"]["validation_gates"] == {**before["settings"]["validation_gates"], **patch["validation_gates"]}
    for name in ("required_approval_count", "blocked_paths", "env_defaults", "temp_url_domain"):
        assert shown["settings"][name] == patch[name]
    untouched = before["settings"].keys() - patch.keys()
    assert {name: shown["settings"][name] for name in untouched} == {name: before["settings"][name] for name in untouched}
    assert (await own.ann.get(own.path))["settings"] == shown["settings"]
    (event,) = await own.audit(action="settings_updated")
    assert set(event["before"]) == set(event["after"]) == set(patch)
    assert "0123456789abcdef" not in json.dumps(event)


async def test_the_version_that_was_read_is_required_in_header_or_body_and_a_stale_one_refused(own: World) -> None:
    version = await version_of(own)
    change = {"approval_ttl_hours": 25}
    for what, body in (("settings", change), ("environments", {"environments": [{"name": "Only", "is_canonical": True}]})):
        assert_error(await patched(own, what, body), 400, "validation_error")
        assert_error(await patched(own, what, body, {"If-Match": "x"}), 400, "validation_error")
        assert_error(await patched(own, what, {**body, "version": version}, {"If-Match": "999"}), 400, "validation_error")
        for stale in ({"version": version + 1}, {"version": 0}):
            error = assert_error(await patched(own, what, {**body, **stale}), 409, "stale_write")
            assert error["details"] == {"version": version}
        assert_error(await patched(own, what, body, {"If-Match": f'"{version + 1}"'}), 409, "stale_write")
    reply = await patched(own, "settings", change, {"If-Match": f'"{version}"'})
    assert reply.json()["data"]["version"] == version + 1


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("settings", {"unknown": 1}),
        ("settings", {"queue_gate": "whatever"}),
        ("settings", {"queue_gate": None}),
        ("settings", {"name": None}),
        ("settings", {"required_approval_count": "2"}),
        ("settings", {"required_approval_count": True}),
        ("settings", {"file_size_limit_bytes": 52_428_801}),
        ("settings", {"canonical_env_id": {"$gt": ""}}),
        ("settings", {"default_base_profile_id": "another app's"}),
        ("settings", {"validation_gates": {"submit": {"command": "/bin/sh -c id"}}}),
        ("settings", {"validation_gates": {"submit": {"command": "ping"}}}),
        ("settings", {"env_defaults": {"A": {"type": "number", "value": "1"}}}),
        ("settings", {"env_defaults": {"LD_PRELOAD": {"type": "string", "value": "x"}}}),
        ("settings", {"integration_branch": "nowhere"}),
        ("settings", {"webhook": {"url": "file:///etc/passwd", "events": ["*"]}}),
        ("environments", {}),
        ("environments", {"environments": []}),
        ("environments", {"environments": [{"name": "A", "is_canonical": False}]}),
        ("environments", {"environments": [{"name": "A", "is_canonical": True, "deploy_target": "/bin/sh"}]}),
        ("environments", {"environments": [{"name": "A", "is_canonical": True, "health_command": "refusing"}]}),
        ("environments", {"environments": [{"name": "A", "is_canonical": True, "extra": 1}]}),
        ("environments", {"environments": [{"id": "0192f3a0-0000-7000-8000-000000000000", "name": "A", "is_canonical": True}]}),
    ],
)
async def test_a_bad_body_is_refused_and_nothing_changes(world: World, what: str, body: dict[str, Any]) -> None:
    version = await version_of(world)
    assert_error(await patched(world, what, {**body, "version": version}), 400, "validation_error")
    assert await version_of(world) == version


async def test_only_an_admin_of_the_app_decides(world: World, other_app: World) -> None:
    body = {"approval_ttl_hours": 30, "version": await version_of(world)}
    for person in (world.ann, world.rob, world.max, world.stranger, other_app.eve):
        for what in ("settings", "environments"):
            assert_error(await patched(world, what, body, person=person), 403, "forbidden")
        assert_error(await person.send("DELETE", world.path), 403, "forbidden")
    reply = await world.stack.client.patch(f"{world.path}/settings", json=body)
    assert_error(reply, 401, "unauthorized")
    foreign = (await other_app.eve.get(other_app.path))["settings"]
    for field in ("canonical_env_id", "default_base_profile_id"):
        assert_error(await settings(world, **{field: foreign[field]}), 400, "validation_error")


async def test_a_repeat_with_its_key_has_one_effect_and_a_name_is_had_once(own: World, world: World) -> None:
    body = {"name": f"{own.app['name']} renamed", "version": await version_of(own)}
    replies = await asyncio.gather(*(patched(own, "settings", body, {"Idempotency-Key": "rename"}) for _ in range(6)))
    assert [reply.status_code for reply in replies] == [200] * 6
    assert len({json.dumps(reply.json()["data"], sort_keys=True) for reply in replies}) == 1
    assert len(await own.audit(action="settings_updated")) == 1
    assert_error(await settings(own, name=world.app["name"]), 409, "conflict")


async def test_an_app_moves_to_another_branch_while_nothing_is_queued_or_open(own: World) -> None:
    repository = own.stack.data / "repositories" / own.app["repo_path"]
    head = (await own.eve.get(own.path))["integration_sha"]
    (repository / "refs" / "heads" / "next").write_text(f"{head}\n", encoding="utf-8")
    queued = await own.queued()
    assert_error(await settings(own, integration_branch="next"), 409, "conflict")
    await own.ann.post(f"{queued}/move-to-draft")
    shown = (await settings(own, integration_branch="next")).json()["data"]
    assert (shown["integration_branch"], shown["integration_sha"]) == ("next", head)
    release = await own.published()
    moved = (await own.eve.get(own.path))["integration_sha"]
    assert moved == (await own.eve.get(release))["published_sha"] != head
    assert (await own.eve.get(f"{own.path}/queue"))["integration_sha"] == moved


async def test_a_gate_runs_the_command_that_was_chosen_by_name(own: World) -> None:
    await settings(own, validation_gates={"submit": {"command": "refusing"}})
    path = await own.submitted()
    gate = (await own.ann.get(path))["gate"]
    assert (gate["state"], gate["reason_code"]) == ("failed", "tests_failed")
    logs = await own.ann.get(f"{own.path}/jobs/{gate['job_id']}/logs")
    assert "refused by name" in [line["text"] for line in logs["lines"]]


async def test_a_name_that_the_worker_does_not_know_runs_nothing_and_says_so(own: World) -> None:
    """As after a change of the operator's file, which no setting of an app can follow by itself."""
    change = {"$set": {"settings.validation_gates.submit.command": "gone"}}
    await own.stack.db["apps"].update_one({"_id": own.app["id"]}, change)
    path = await own.submitted()
    gate = (await own.ann.get(path))["gate"]
    assert (gate["state"], gate["reason_code"]) == ("failed", "runner_error")
    job = (await own.ann.get(f"{own.path}/jobs/{gate['job_id']}"))["job"]
    assert "'gone'" in job["summary"]["message"]
    logs = await own.ann.get(f"{own.path}/jobs/{gate['job_id']}/logs")
    assert "'gone'" in logs["lines"][-1]["text"]


# -- Environments


async def test_the_list_is_replaced_in_stage_order_and_shows_all_that_it_says(own: World) -> None:
    before = {row["name"]: row for row in await own.environments()}
    fields = {
        "health_command": "ping",
        "auto_rollback": True,
        "drift_policy": "heal",
        "required_approvals": {"count": 2, "role": "config_manager"},
        "freeze_windows": [
            {"name": "always", "timezone": "Europe/Berlin", "from": "2020-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z"},
            {"name": "weekly", "timezone": "Europe/Berlin", "cron": "0 18 * * FRI", "duration_minutes": 60},
        ],
    }
    shown = (await relist(own, "UAT", "Staging", "Production", **fields)).json()["data"]
    assert [row["name"] for row in shown] == ["UAT", "Staging", "Production"]
    assert [row["position"] for row in shown] == [0, 1, 2]
    assert [row["is_canonical"] for row in shown] == [False, False, True]
    assert shown[0]["id"] == before["UAT"]["id"]
    assert {name: shown[0][name] for name in fields} == fields
    assert shown[0]["frozen_until"] == "2999-01-01T00:00:00.000Z"
    assert shown[1]["frozen_until"] is None
    assert {row["version"] for row in shown} == {await version_of(own)}
    assert shown == await own.environments()
    profile = await own.eve.get(f"{own.path}/runtime-profiles/{shown[1]['runtime_profile_id']}")
    assert (profile["name"], profile["kind"]) == ("Staging", "persistent_env")
    gone = f"{own.path}/environments/{before['QA']['id']}/deploy"
    assert_error(await own.max.send("POST", gone, json={"release_id": "x"}), 404, "not_found")


async def test_what_is_left_out_is_archived_once_no_deployment_is_active_there(own: World) -> None:
    release = await own.published()
    uat = next(row for row in await own.environments() if row["name"] == "UAT")
    asked = {"release_id": last(release), "skip_stage": True}
    made = await own.max.post(f"{own.path}/environments/{uat['id']}/deploy", asked)
    error = assert_error(await relist(own, "Development", "QA", "Production"), 409, "conflict")
    assert error["details"] == {"environment_id": uat["id"], "deployment_id": made["deployment"]["id"]}
    assert_error(await own.eve.send("DELETE", own.path), 409, "conflict")
    assert (await own.deployed((await own.environments())[0]["id"], release))["state"] == "succeeded"
    await own.max.post(f"{own.path}/deployments/{made['deployment']['id']}/cancel")
    assert (await relist(own, "Development", "Production")).status_code == 200
    assert await own.state(release) == "deployed_partial"
    production = (await own.environments())[1]["id"]
    assert (await own.deployed(production, release, "promote"))["state"] == "succeeded"
    assert await own.state(release) == "deployed_full"


async def test_a_target_of_the_operators_may_be_named_and_is_not_taken_for_the_folder(own: World) -> None:
    release = await own.published()
    shown = (await relist(own, "Only", deploy_target="elsewhere")).json()["data"]
    assert (shown[0]["deploy_target"], shown[0]["folder"]) == ("elsewhere", None)
    asked = await own.max.post(f"{own.path}/environments/{shown[0]['id']}/deploy", {"release_id": last(release)})
    job = await own.job(asked["job"]["id"])
    assert job["state"] == "failed", "the program gives no answer"
    assert "answer" in job["summary"]["message"]
    assert (await own.environments())[0]["current_release_id"] is None


async def test_of_two_lists_on_one_version_exactly_one_is_taken(own: World) -> None:
    version = await version_of(own)
    bodies = [{"environments": [{"name": f"Only {n}", "is_canonical": True}], "version": version} for n in range(4)]
    replies = await asyncio.gather(*(patched(own, "environments", body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]
    assert len(await own.environments()) == 1
    assert len(await own.audit(action="environments_updated")) == 1


# -- The end


async def test_an_archived_app_is_read_and_changed_no_more_and_what_ran_for_it_has_ended(own: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    changeset = await own.changeset({SLOW: str(held)})
    job = (await own.ann.post(f"{changeset}/submit"))["job"]
    invite = await own.eve.post(f"{own.path}/invites", {"email": "new@example.com", "role": "user"})

    async def running() -> bool:
        return (await own.ann.get(f"{own.path}/jobs/{job['id']}"))["job"]["state"] == "running"

    await wait_for(running, "the gate to run")
    key = {"Idempotency-Key": "the-end"}
    replies = await asyncio.gather(*(own.eve.send("DELETE", own.path, headers=key) for _ in range(4)))
    assert [reply.status_code for reply in replies] == [204] * 4
    assert (await own.job(job["id"]))["state"] == "canceled"
    assert await own.state(changeset) == "submitted"
    assert (await own.eve.get(own.path))["archived"] is True
    assert await own.eve.get(f"{own.path}/invites") == []
    (event,) = await own.audit(action="archived")
    assert event["after"]["canceled_job_ids"] == [job["id"]]
    assert event["after"]["revoked_invite_ids"] == [invite["id"]]
    assert (await own.eve.send("DELETE", own.path, headers=key)).status_code == 204
    assert_error(await own.eve.send("DELETE", own.path), 409, "conflict")
    version = await version_of(own)
    for person, method, path, body in (
        (own.eve, "PATCH", "/settings", {"name": "x", "version": version}),
        (own.eve, "PATCH", "/environments", {"nonsense": True}),
        (own.eve, "POST", "/invites", {"email": "new@example.com", "role": "user"}),
        (own.ann, "POST", "/workspaces", {}),
        (own.ann, "POST", f"/changesets/{last(changeset)}/submit", {}),
        (own.max, "POST", "/releases", {}),
        (own.max, "POST", "/queue/reorder", {"ordered_changeset_ids": []}),
    ):
        assert_error(await person.send(method, f"{own.path}{path}", json=body), 409, "conflict")
    assert_error(await own.ann.send("PATCH", f"{own.path}/settings", json={}), 403, "forbidden")
    for path in ("", "/members", "/environments", "/workspaces", "/changesets", "/queue", "/releases", "/jobs"):
        assert (await own.ann.send("GET", f"{own.path}{path}")).status_code == 200


async def test_of_a_publish_and_the_end_of_the_app_at_the_same_moment_none_is_half_done(own: World) -> None:
    release = await own.validated(await own.queued())
    before = (await own.eve.get(own.path))["integration_sha"]
    published, archived = await asyncio.gather(
        own.max.send("POST", f"{release}/publish", json={}), own.eve.send("DELETE", own.path)
    )
    app, shown = await own.eve.get(own.path), await own.eve.get(release)
    assert app["archived"] == (archived.status_code == 204)
    if published.status_code == 200:
        assert (shown["state"], app["integration_sha"]) == ("published", shown["published_sha"])
    else:
        assert_error(published, 409, "conflict")
        assert app["archived"]
        assert (shown["state"], app["integration_sha"]) == ("validated", before)
