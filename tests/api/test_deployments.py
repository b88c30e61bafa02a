"""Deployments over HTTP against the whole stack: plan, stages, approvals, groups, the line, drift and the hold (`spec.md` 12)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from conman.domain.times import later
from conman.services.clock import now
from tests.support.conman_stack import Stack, World, assert_error, last, make_world, wait_for


async def _deployable(stack: Stack) -> tuple[World, str, list[str]]:
    """An app of its own with a published release, and its environments in stage order."""
    world = await make_world(stack)
    release = await world.published()
    return world, release, [row["id"] for row in await world.environments()]


async def _ask(world: World, environment: str, release: str, verb: str = "deploy", **more: Any) -> dict[str, Any]:
    return await world.max.post(f"{world.path}/environments/{environment}/{verb}", {"release_id": last(release), **more})


async def _shown(world: World, made: dict[str, Any]) -> dict[str, Any]:
    return await world.max.get(f"{world.path}/deployments/{made['deployment']['id']}")


async def _ended(world: World, made: dict[str, Any]) -> tuple[str, str | None]:
    await world.job(made["job"]["id"])
    shown = await _shown(world, made)
    return shown["state"], shown["reason_code"]


async def _until(world: World, made: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The deployment, once its record says this."""

    async def look() -> Any:
        shown = await _shown(world, made)
        return shown if all(shown[name] == value for name, value in wanted.items()) else None

    return await wait_for(look, f"deployment {made['deployment']['id']} to have {wanted}")


async def test_a_plan_comes_true_stage_by_stage_and_shows_what_is_where(stack: Stack) -> None:
    world, release, (dev, qa, *_) = await _deployable(stack)
    plan = await world.ann.post(f"{world.path}/environments/{qa}/plan", {"release_id": last(release)})
    assert [one["code"] for one in plan["blockers"]] == ["stage_skipped"]
    path = f"{world.path}/environments/{qa}/promote"
    refused = assert_error(await world.max.send("POST", path, json={"release_id": last(release)}), 409, "stage_skipped")
    assert refused["message"] == plan["blockers"][0]["message"]
    assert await _ended(world, await _ask(world, dev, release)) == ("succeeded", "ok")
    assert (await world.ann.post(f"{world.path}/environments/{qa}/plan", {"release_id": last(release)}))["blockers"] == []
    assert await _ended(world, await _ask(world, qa, release, "promote")) == ("succeeded", "ok")
    rows = {row["id"]: row for row in await world.environments()}
    assert {rows[one]["current_release_id"] for one in (dev, qa)} == {last(release)}
    assert await world.state(release) == "deployed_partial"
    history, _ = await world.ann.listed(f"{world.path}/deployments", environment_id=qa, state="succeeded")
    assert [(one["kind"], one["environment_id"]) for one in history] == [("promote", qa)]
    again = await world.ann.post(f"{world.path}/environments/{qa}/plan", {"release_id": last(release)})
    assert (again["files"]["files"], again["semantic"]["changes"], again["variables"]["changed"]) == ([], [], [])


async def test_several_environments_run_in_stage_order_after_one_approval_for_all(stack: Stack) -> None:
    world, release, (dev, qa, uat, _) = await _deployable(stack)
    body = {"release_id": last(release), "environment_ids": [uat, dev, qa]}
    made = await world.max.post(f"{world.path}/deployments", body)
    assert [one["environment_id"] for one in made["deployments"]] == [dev, qa, uat]
    assert {one["approvals_required"] for one in made["deployments"]} == {2}
    await world.rob.post(f"{world.path}/deployments/{made['deployments'][1]['id']}/approve")
    jobs = [await world.job(one["id"]) for one in made["jobs"]]
    assert [job["state"] for job in jobs] == ["succeeded"] * 3
    assert jobs == sorted(jobs, key=lambda job: job["started_at"])


async def test_a_cancel_of_one_counts_for_its_group(stack: Stack) -> None:
    world, release, (dev, qa, *_) = await _deployable(stack)
    made = await world.max.post(f"{world.path}/deployments", {"release_id": last(release), "environment_ids": [dev, qa]})
    await world.max.post(f"{world.path}/deployments/{made['deployments'][1]['id']}/cancel")
    for job in made["jobs"]:
        assert (await world.job(job["id"]))["state"] == "canceled"
    assert [row["active_deployment_id"] for row in await world.environments()][:2] == [None, None]


async def test_one_that_waits_gets_the_lock_when_the_holder_is_canceled(stack: Stack) -> None:
    world, release, (dev, *_) = await _deployable(stack)
    holder = await _ask(world, dev, release, not_before=later(now(), timedelta(hours=5)))
    path = f"{world.path}/environments/{dev}/deploy"
    locked = assert_error(await world.max.send("POST", path, json={"release_id": last(release)}), 409, "environment_locked")
    assert locked["details"] == {"deployment_id": holder["deployment"]["id"]}
    waits = await _ask(world, dev, release, wait=True)
    assert (waits["deployment"]["phase"], waits["deployment"]["fence"]) == ("lock", None)
    row = (await world.environments())[0]
    assert (row["active_deployment_id"], row["waiting_deployment_ids"]) == (
        holder["deployment"]["id"],
        [waits["deployment"]["id"]],
    )
    await world.max.post(f"{world.path}/deployments/{holder['deployment']['id']}/cancel")
    assert await _ended(world, waits) == ("succeeded", "ok")
    assert (await _shown(world, waits))["fence"] == 2


async def test_an_emergency_edit_holds_a_deployment_which_a_newer_one_supersedes_and_a_revalidation_lets_go(stack: Stack) -> None:
    world, release, (dev, *_) = await _deployable(stack)
    await world.deployed(dev, release)
    profile = f"{world.path}/runtime-profiles/{(await world.environments())[0]['runtime_profile_id']}"
    edit = {"env_vars": {"MODE": {"type": "string", "value": "by hand"}}, "version": (await world.eve.get(profile))["version"]}
    await world.eve.ok("PATCH", profile, json=edit)
    plan = await world.ann.post(f"{world.path}/environments/{dev}/plan", {"release_id": last(release)})
    assert [one["code"] for one in plan["blockers"]] == ["emergency_edit"]
    old = await _ask(world, dev, release)

    async def blocked() -> bool:
        return (await _shown(world, old))["drift_waits_until"] is not None

    await wait_for(blocked, "the emergency edit to hold it")
    new = await _ask(world, dev, release)
    assert await _ended(world, old) == ("canceled", "superseded")
    await _until(world, new, phase="drift", state="pending")

    async def revalidated() -> bool:
        path = f"{world.path}/deployments/{new['deployment']['id']}/revalidate"
        return (await world.max.send("POST", path, json={})).status_code < 300

    await wait_for(revalidated, "the revalidation to be taken")
    assert await _ended(world, new) == ("succeeded", "ok")
    actions = {event["action"] for event in await world.audit(entity_id=new["deployment"]["id"])}
    assert {"requested", "blocked_by_drift", "revalidated", "started", "succeeded"} <= actions


async def test_a_hold_stops_publishes_and_deployments_until_it_is_lifted(stack: Stack) -> None:
    world, release, (dev, *_, prod) = await _deployable(stack)
    waits = await _ask(world, prod, release, skip_stage=True)
    other = await world.validated(await world.queued())
    assert await world.ann.get(f"{world.path}/hold") is None
    made = await world.max.post(f"{world.path}/hold", {"reason": "an audit"})
    assert (await world.ann.get(f"{world.path}/hold"))["id"] == made["id"]
    deploy = {"release_id": last(release)}
    path = f"{world.path}/environments/{dev}"
    assert_error(await world.max.send("POST", f"{path}/deploy", json=deploy), 409, "app_on_hold")
    assert_error(await world.max.send("POST", f"{other}/publish", json={}), 409, "app_on_hold")
    assert await world.state(other) == "validated"
    assert [one["code"] for one in (await world.ann.post(f"{path}/plan", deploy))["blockers"]] == ["app_on_hold"]
    await world.rob.post(f"{world.path}/deployments/{waits['deployment']['id']}/approve")

    async def is_held() -> bool:
        return "hold" in ((await _shown(world, waits))["waiting_for"] or "")

    await wait_for(is_held, "the deployment to wait for the end of the hold")
    await world.max.ok("DELETE", f"{world.path}/hold")
    assert await _ended(world, waits) == ("succeeded", "ok")
    await world.max.post(f"{other}/publish")
    actions = [event["action"] for event in await world.audit(entity_type="app") if "h" in event["action"]]
    assert {"held", "released_from_hold"} <= set(actions)


async def test_a_start_that_is_no_time_or_too_far_ahead_and_a_list_that_is_none_are_refused(stack: Stack) -> None:
    world, release, (dev, *_) = await _deployable(stack)
    deploy, together = f"{world.path}/environments/{dev}/deploy", f"{world.path}/deployments"
    for bad in ("soon", later(now(), timedelta(days=8))):
        for path, more in ((deploy, {}), (together, {"environment_ids": [dev]})):
            body = {"release_id": last(release), "not_before": bad, **more}
            assert_error(await world.max.send("POST", path, json=body), 400, "validation_error")
    for ids in ([], [dev, dev], [dev, "another"]):
        body = {"release_id": last(release), "environment_ids": ids}
        assert_error(await world.max.send("POST", together, json=body), 400, "validation_error")
    assert (await world.environments())[0]["active_deployment_id"] is None
