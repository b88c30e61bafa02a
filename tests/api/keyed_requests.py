"""For each mutating route a request that can be carried out once, and what prepares it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import Client

from tests.api.own_things import NOWHERE
from tests.support.conman_stack import PASSWORD, Person, World, b64, last, make_world, wait_for


@dataclass
class Request:
    """A request that can be carried out once, and another body of the same route, where there is a sound one."""

    person: Person
    method: str
    path: str
    body: dict[str, Any]
    other: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    in_steps: bool = False
    """Repeats at the same moment share the work: one may record what the other began."""


Scenario = Callable[[World], Awaitable[Request]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(route: str) -> Callable[[Scenario], Scenario]:
    def named(prepare: Scenario) -> Scenario:
        SCENARIOS[route] = prepare
        return prepare

    return named


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@scenario("POST /users")
async def a_user(world: World) -> Request:
    body = {"email": f"{fresh('new')}@example.com", "name": "new", "password": PASSWORD}
    return Request(world.stack.admin, "POST", "/users", body, {**body, "name": "other"}, status=201)


@scenario("PATCH /users/{user}")
async def flags_of_a_user(world: World) -> Request:
    person = await world.stack.person("flagged")
    return Request(world.stack.admin, "PATCH", f"/users/{person.id}", {"disabled": True}, {"disabled": False})


@scenario("PATCH /me")
async def a_new_password(world: World) -> Request:
    body = {"name": "renamed", "password": {"current": PASSWORD, "new": f"{PASSWORD} and more"}}
    return Request(await world.stack.person("changing"), "PATCH", "/me", body, {"name": "other"})


@scenario("PATCH /me/notification-preferences")
async def no_mails(world: World) -> Request:
    body = {"email_enabled": False}
    return Request(await world.stack.person("quiet"), "PATCH", "/me/notification-preferences", body, {"email_enabled": True})


@scenario("POST /apps")
async def an_app(world: World) -> Request:
    name = fresh("idempotent")
    body = {"name": name, "repo_path": f"tests/{name}.git", "create_repository": True}
    return Request(world.stack.admin, "POST", "/apps", body, {**body, "create_repository": False}, status=201, in_steps=True)


@scenario("POST /apps/{app}/members")
async def a_member(world: World) -> Request:
    body = {"user_id": (await world.stack.person("new")).id, "role": "user"}
    return Request(world.eve, "POST", f"{world.path}/members", body, {**body, "role": "reviewer"}, status=201)


@scenario("POST /apps/{app}/runtime-profiles")
async def a_profile(world: World) -> Request:
    body = {"name": fresh("profile"), "secrets": {"TOKEN": "a token"}}
    return Request(world.eve, "POST", f"{world.path}/runtime-profiles", body, {**body, "secrets": {}}, status=201)


async def _profile(world: World) -> str:
    made = await world.eve.post(f"{world.path}/runtime-profiles", {"name": "one", "secrets": {"TOKEN": "a token"}})
    return f"{world.path}/runtime-profiles/{made['id']}"


@scenario("PATCH /apps/{app}/runtime-profiles/{p}")
async def a_changed_profile(world: World) -> Request:
    body = {"secrets": {"TOKEN": "another token"}, "version": 1}
    return Request(world.eve, "PATCH", await _profile(world), body, {**body, "secrets": {"TOKEN": None}})


@scenario("DELETE /apps/{app}/runtime-profiles/{p}")
async def a_deleted_profile(world: World) -> Request:
    return Request(world.eve, "DELETE", await _profile(world), {}, status=204)


@scenario("POST /apps/{app}/runtime-profiles/{p}/revert")
async def a_revert(world: World) -> Request:
    path = await _profile(world)
    await world.eve.ok("PATCH", path, json={"name": "two", "version": 1})
    return Request(world.eve, "POST", f"{path}/revert", {"revision_number": 1}, {"revision_number": 2})


@scenario("POST /apps/{app}/runtime-profiles/{p}/rotate-key")
async def a_rotation(world: World) -> Request:
    return Request(world.eve, "POST", f"{await _profile(world)}/rotate-key", {})


@scenario("POST /apps/{app}/workspaces")
async def a_workspace(world: World) -> Request:
    return Request(await world.join("user"), "POST", f"{world.path}/workspaces", {}, {"title": "extra"}, status=201)


@scenario("PUT /apps/{app}/workspaces/{ws}/files")
async def a_save(world: World) -> Request:
    body = {"path": "a.json", "content": b64("{}")}
    return Request(world.ann, "PUT", f"{await world.workspace()}/files", body, {**body, "content": b64("[]")})


@scenario("DELETE /apps/{app}/workspaces/{ws}/files")
async def a_file_gone(world: World) -> Request:
    workspace = await world.workspace()
    await world.save(workspace, "a.json", "{}")
    return Request(world.ann, "DELETE", f"{workspace}/files", {"path": "a.json"}, {"path": "b.json"}, status=204)


@scenario("PATCH /apps/{app}/workspaces/{ws}")
async def a_renamed_workspace(world: World) -> Request:
    return Request(world.ann, "PATCH", await world.workspace(), {"title": "another"}, {"title": "yet another"})


@scenario("DELETE /apps/{app}/workspaces/{ws}")
async def a_deleted_workspace(world: World) -> Request:
    return Request(world.ann, "DELETE", await world.workspace(), {}, status=204)


async def _edited(world: World) -> str:
    workspace = await world.workspace()
    await world.save(workspace, "a.json", "{}")
    return workspace


@scenario("POST /apps/{app}/workspaces/{ws}/files/batch")
async def a_batch(world: World) -> Request:
    body = {"changes": [{"action": "write", "path": "b.json", "content": b64("{}")}, {"action": "delete", "path": "a.json"}]}
    path = f"{await _edited(world)}/files/batch"
    return Request(world.ann, "POST", path, body, {"changes": body["changes"][:1]})


@scenario("POST /apps/{app}/workspaces/{ws}/checkpoints")
async def a_checkpoint(world: World) -> Request:
    path = f"{await _edited(world)}/checkpoints"
    return Request(world.ann, "POST", path, {"message": "so far"}, {"message": "other"}, status=201)


@scenario("POST /apps/{app}/workspaces/{ws}/reset")
async def a_reset(world: World) -> Request:
    return Request(world.ann, "POST", f"{await _edited(world)}/reset", {})


@scenario("POST /apps/{app}/workspaces/{ws}/sync-integration")
async def a_sync(world: World) -> Request:
    return Request(world.ann, "POST", f"{await _edited(world)}/sync-integration", {}, {"strategy": "merge"})


@scenario("POST /apps/{app}/changesets")
async def a_changeset(world: World) -> Request:
    body = {"workspace_id": last(await world.workspace()), "title": "one"}
    return Request(world.ann, "POST", f"{world.path}/changesets", body, {**body, "title": "two"}, status=201)


@scenario("PATCH /apps/{app}/changesets/{cs}")
async def a_title(world: World) -> Request:
    return Request(world.ann, "PATCH", await world.changeset(), {"title": "another"}, {"title": "yet another"})


@scenario("DELETE /apps/{app}/changesets/{cs}")
async def a_withdrawal(world: World) -> Request:
    return Request(world.ann, "DELETE", await world.changeset(), {}, status=204)


@scenario("POST /apps/{app}/changesets/{cs}/submit")
async def a_submit(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.changeset()}/submit", {}, in_steps=True)


@scenario("POST /apps/{app}/changesets/{cs}/resubmit")
async def a_resubmit(world: World) -> Request:
    changeset = await world.submitted()
    workspace = (await world.ann.get(changeset))["workspace_id"]
    await world.save(f"{world.path}/workspaces/{workspace}", "more.json", "{}")
    return Request(world.ann, "POST", f"{changeset}/resubmit", {}, in_steps=True)


@scenario("POST /apps/{app}/changesets/{cs}/request-review")
async def a_request_for_a_review(world: World) -> Request:
    path = f"{await world.submitted()}/request-review"
    return Request(world.ann, "POST", path, {"user_id": world.rob.id}, {"user_id": world.max.id})


@scenario("POST /apps/{app}/changesets/{cs}/review")
async def a_review(world: World) -> Request:
    path = f"{await world.submitted()}/review"
    return Request(world.rob, "POST", path, {"action": "approve"}, {"action": "reject"})


@scenario("POST /apps/{app}/changesets/{cs}/comments")
async def a_comment(world: World) -> Request:
    path = f"{await world.changeset()}/comments"
    return Request(world.rob, "POST", path, {"body": "one"}, {"body": "two"}, status=201)


@scenario("PATCH /apps/{app}/changesets/{cs}/comments/{comment}")
async def an_edited_comment(world: World) -> Request:
    path = f"{await world.changeset()}/comments"
    made = await world.rob.post(path, {"body": "one"})
    body = {"body": "two", "resolved": True}
    return Request(world.rob, "PATCH", f"{path}/{made['id']}", body, {**body, "resolved": False})


@scenario("PUT /apps/{app}/changesets/{cs}/profile-overrides")
async def overrides(world: World) -> Request:
    target = {"target_environment_id": (await world.environments())[0]["id"]}
    body = {"overrides": [{**target, "secrets": {"TOKEN": "a token of the overrides"}}]}
    other = {"overrides": [{**target, "base_url": None}]}
    return Request(world.ann, "PUT", f"{await world.changeset()}/profile-overrides", body, other)


@scenario("POST /apps/{app}/changesets/{cs}/queue")
async def an_entry(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.approved()}/queue", {})


@scenario("POST /apps/{app}/changesets/{cs}/move-to-draft")
async def a_return(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.queued()}/move-to-draft", {})


@scenario("POST /apps/{app}/changesets/{cs}/revalidate")
async def a_revalidation(world: World) -> Request:
    return Request(world.ann, "POST", f"{await world.queued()}/revalidate", {}, status=202)


@scenario("POST /apps/{app}/queue/reorder")
async def an_order(world: World) -> Request:
    await world.queued()
    await world.queued()
    queue = await world.ann.get(f"{world.path}/queue")
    ids = [item["changeset_id"] for item in queue["items"]]
    headers = {"If-Match": str(queue["version"])}
    body = {"ordered_changeset_ids": ids[::-1]}
    return Request(world.max, "POST", f"{world.path}/queue/reorder", body, {"ordered_changeset_ids": ids}, headers)


@scenario("POST /apps/{app}/releases")
async def a_release(world: World) -> Request:
    body = {"changeset_ids": [last(await world.queued())]}
    return Request(world.max, "POST", f"{world.path}/releases", body, {"changeset_ids": []}, status=201)


@scenario("DELETE /apps/{app}/releases/{r}")
async def a_drop(world: World) -> Request:
    return Request(world.max, "DELETE", await world.release(await world.queued()), {}, status=204)


@scenario("POST /apps/{app}/releases/{r}/changesets")
async def an_edit(world: World) -> Request:
    one, two = last(await world.queued()), await world.queued()
    path = f"{await world.release(two)}/changesets"
    return Request(world.max, "POST", path, {"add": [one], "remove": [last(two)]}, {"changeset_ids": []})


@scenario("POST /apps/{app}/releases/{r}/reorder")
async def a_merge_order(world: World) -> Request:
    one, two = await world.queued(), await world.queued()
    body = {"ordered_changeset_ids": [last(two), last(one)]}
    other = {"ordered_changeset_ids": [last(one), last(two)]}
    return Request(world.max, "POST", f"{await world.release(one, two)}/reorder", body, other)


@scenario("POST /apps/{app}/releases/{r}/assemble")
async def an_assembly(world: World) -> Request:
    path = f"{await world.release(await world.queued())}/assemble"
    return Request(world.max, "POST", path, {}, status=202)


@scenario("POST /apps/{app}/releases/{r}/publish")
async def a_publish(world: World) -> Request:
    own = await make_world(world.stack)
    return Request(own.max, "POST", f"{await own.validated(await own.queued())}/publish", {})


async def _deployable(world: World) -> tuple[World, str, list[str]]:
    own = await make_world(world.stack)
    release = await own.published()
    return own, release, [row["id"] for row in await own.environments()]


@scenario("POST /apps/{app}/environments/{env}/deploy")
async def a_deploy(world: World) -> Request:
    own, release, environments = await _deployable(world)
    body = {"release_id": last(release)}
    path = f"{own.path}/environments/{environments[0]}/deploy"
    return Request(own.max, "POST", path, body, {**body, "skip_stage": True}, status=202)


@scenario("POST /apps/{app}/environments/{env}/promote")
async def a_promotion(world: World) -> Request:
    own, release, environments = await _deployable(world)
    await own.deployed(environments[0], release)
    body = {"release_id": last(release)}
    path = f"{own.path}/environments/{environments[1]}/promote"
    return Request(own.max, "POST", path, body, {**body, "skip_stage": True}, status=202)


@scenario("POST /apps/{app}/environments/{env}/rollback")
async def a_rollback(world: World) -> Request:
    own, release, environments = await _deployable(world)
    body = {"release_id": last(release), "mode": "revert_and_release"}
    path = f"{own.path}/environments/{environments[0]}/rollback"
    return Request(own.max, "POST", path, body, {**body, "mode": "redeploy_prior_tag"}, status=202)


@scenario("POST /apps/{app}/deployments")
async def deploys_together(world: World) -> Request:
    own, release, environments = await _deployable(world)
    body = {"release_id": last(release), "environment_ids": environments[:2]}
    return Request(own.max, "POST", f"{own.path}/deployments", body, {**body, "environment_ids": environments[:3]}, status=202)


@scenario("POST /apps/{app}/environments/{env}/plan")
async def a_plan(world: World) -> Request:
    own, release, environments = await _deployable(world)
    path = f"{own.path}/environments/{environments[0]}/plan"
    return Request(own.ann, "POST", path, {"release_id": last(release)}, {"release_id": "another"})


@scenario("POST /apps/{app}/environments/{env}/clear")
async def a_cleared_release(world: World) -> Request:
    own, release, environments = await _deployable(world)
    marked = {"$set": {"owned.bad_release_ids": [last(release)]}}
    await world.stack.db["environments"].update_one({"_id": environments[0]}, marked)
    path = f"{own.path}/environments/{environments[0]}/clear"
    return Request(own.max, "POST", path, {"release_id": last(release)}, {"release_id": "another"})


@scenario("POST /apps/{app}/environments/{env}/drift-check")
async def a_drift_check(world: World) -> Request:
    own = await make_world(world.stack)
    path = f"{own.path}/environments/{(await own.environments())[0]['id']}/drift-check"
    return Request(own.max, "POST", path, {}, status=202)


@scenario("POST /apps/{app}/environments/{env}/create-drift-fix-changeset")
async def a_takeover_of_drift(world: World) -> Request:
    own = await make_world(world.stack)
    environment = (await own.environments())[0]["id"]
    report = [{"kind": "env_var", "key": "MODE", "expected": "old", "observed": "new"}]
    shown = {"current_deployment_id": NOWHERE, "deployed_at": "2026-01-31T09:30:00.000Z"}
    seen = {
        "version": 1,
        "state": "drifted",
        "report": report,
        "deployment_id": NOWHERE,
        "checked_at": "2026-01-31T10:00:00.000Z",
    }
    known = {**shown, "drift": seen}
    change = {"$set": {f"owned.{name}": value for name, value in known.items()}}
    await world.stack.db["environments"].update_one({"_id": environment}, change)
    path = f"{own.path}/environments/{environment}/create-drift-fix-changeset"
    return Request(own.max, "POST", path, {}, {"deployment_id": NOWHERE}, status=201, in_steps=True)


@scenario("POST /apps/{app}/hold")
async def a_hold(world: World) -> Request:
    own = await make_world(world.stack)
    return Request(own.max, "POST", f"{own.path}/hold", {"reason": "audit"}, {"reason": "another"}, status=201)


@scenario("DELETE /apps/{app}/hold")
async def a_lifted_hold(world: World) -> Request:
    own = await make_world(world.stack)
    await own.max.post(f"{own.path}/hold", {"reason": "audit"})
    return Request(own.max, "DELETE", f"{own.path}/hold", {}, status=204)


async def _waiting(world: World) -> tuple[World, str]:
    own, release, environments = await _deployable(world)
    body = {"release_id": last(release), "skip_stage": True}
    made = await own.max.post(f"{own.path}/environments/{environments[-1]}/deploy", body)
    return own, f"{own.path}/deployments/{made['deployment']['id']}"


@scenario("POST /apps/{app}/deployments/{d}/approve")
async def an_approval(world: World) -> Request:
    own, deployment = await _waiting(world)
    return Request(own.rob, "POST", f"{deployment}/approve", {})


@scenario("POST /apps/{app}/deployments/{d}/revalidate")
async def another_look(world: World) -> Request:
    own, release, environments = await _deployable(world)
    await own.deployed(environments[0], release)
    profile = f"{own.path}/runtime-profiles/{(await own.environments())[0]['runtime_profile_id']}"
    edit = {"env_vars": {"EDITED": {"type": "string", "value": "by hand"}}, "version": (await own.eve.get(profile))["version"]}
    await own.eve.ok("PATCH", profile, json=edit)
    made = await own.max.post(f"{own.path}/environments/{environments[0]}/deploy", {"release_id": last(release)})
    path = f"{own.path}/deployments/{made['deployment']['id']}"

    async def blocked() -> bool:
        return (await own.max.get(path))["drift_report"] is not None

    await wait_for(blocked, "the deployment to wait for the emergency edit")
    return Request(own.max, "POST", f"{path}/revalidate", {}, {"overwrite": True}, status=202)


@scenario("POST /apps/{app}/deployments/{d}/cancel")
async def a_cancel(world: World) -> Request:
    own, deployment = await _waiting(world)
    return Request(own.max, "POST", f"{deployment}/cancel", {})


@scenario("POST /apps/{app}/temp-envs")
async def a_temp_env(world: World) -> Request:
    body = {"kind": "workspace", "source_id": last(await _edited(world))}
    return Request(world.ann, "POST", f"{world.path}/temp-envs", body, {**body, "kind": "changeset"}, status=201, in_steps=True)


async def _temp_env(world: World) -> str:
    """The path of an active one."""
    body = {"kind": "workspace", "source_id": last(await world.workspace())}
    made = await world.ann.post(f"{world.path}/temp-envs", body)
    await world.job(made["job"]["id"])
    return f"{world.path}/temp-envs/{made['temp_env']['id']}"


@scenario("DELETE /apps/{app}/temp-envs/{t}")
async def a_deleted_temp_env(world: World) -> Request:
    return Request(world.ann, "DELETE", await _temp_env(world), {}, status=202)


@scenario("POST /apps/{app}/temp-envs/{t}/extend")
async def an_extension(world: World) -> Request:
    return Request(world.ann, "POST", f"{await _temp_env(world)}/extend", {"seconds": 3600}, {"seconds": 7200})


@scenario("POST /apps/{app}/temp-envs/{t}/undo-expire")
async def an_undone_expiry(world: World) -> Request:
    """Its process is lost while it is in its grace, and goes on from the record."""
    path = await _temp_env(world)
    client = await Client.connect(world.stack.ready["temporal_address"])
    await client.get_workflow_handle(f"temp-env:{last(path)}").terminate()
    in_grace = {"owned.state": "expiring", "owned.grace_until": "2999-01-01T00:00:00.000Z"}
    await world.stack.db["temp_envs"].update_one({"_id": last(path)}, {"$set": in_grace})
    return Request(world.ann, "POST", f"{path}/undo-expire", {})


@scenario("POST /apps/{app}/temp-envs/{t}/recreate")
async def a_recreated_temp_env(world: World) -> Request:
    path = await _temp_env(world)
    await world.job((await world.ann.ok("DELETE", path))["job"]["id"])
    return Request(world.ann, "POST", f"{path}/recreate", {}, status=201)


@scenario("POST /apps/{app}/temp-envs/{t}/open")
async def a_link(world: World) -> Request:
    return Request(world.ann, "POST", f"{await _temp_env(world)}/open", {})


@scenario("POST /apps/{app}/jobs/{j}/cancel")
async def a_canceled_gate(world: World) -> Request:
    held = world.stack.data / fresh("held")
    held.touch()
    reply = await world.ann.post(f"{await world.changeset({'slow.flag': str(held)})}/submit")
    path = f"{world.path}/jobs/{reply['job']['id']}"

    async def runs() -> bool:
        return (await world.ann.get(path))["job"]["state"] == "running"

    await wait_for(runs, "the gate to run")
    return Request(world.ann, "POST", f"{path}/cancel", {}, status=202)


@scenario("POST /apps/{app}/jobs/{j}/retry")
async def a_retried_gate(world: World) -> Request:
    canceled = await a_canceled_gate(world)
    await world.ann.post(canceled.path)
    path = canceled.path.removesuffix("/cancel")
    await world.job(last(path))
    return Request(world.ann, "POST", f"{path}/retry", {}, status=202)


@scenario("PATCH /apps/{app}/members/{user}")
async def another_role(world: World) -> Request:
    path = f"{world.path}/members/{(await world.join('user')).id}"
    return Request(world.eve, "PATCH", path, {"role": "reviewer"}, {"role": "config_manager"})


@scenario("DELETE /apps/{app}/members/{user}")
async def a_removal(world: World) -> Request:
    return Request(world.eve, "DELETE", f"{world.path}/members/{(await world.join('user')).id}", {}, status=204)


def _invited() -> dict[str, str]:
    return {"email": f"{fresh('invited')}@example.com", "role": "user"}


@scenario("POST /apps/{app}/invites")
async def an_invite(world: World) -> Request:
    body = _invited()
    return Request(world.eve, "POST", f"{world.path}/invites", body, {**body, "role": "reviewer"}, status=201)


async def _invite(world: World) -> str:
    return f"{world.path}/invites/{(await world.eve.post(f'{world.path}/invites', _invited()))['id']}"


@scenario("POST /apps/{app}/invites/{invite}/resend")
async def another_mail(world: World) -> Request:
    return Request(world.eve, "POST", f"{await _invite(world)}/resend", {})


@scenario("DELETE /apps/{app}/invites/{invite}")
async def a_revoked_invite(world: World) -> Request:
    return Request(world.eve, "DELETE", await _invite(world), {}, status=204)


@scenario("PATCH /apps/{app}/settings")
async def a_setting(world: World) -> Request:
    own = await make_world(world.stack)
    body = {"required_approval_count": 2, "version": (await own.eve.get(own.path))["version"]}
    return Request(own.eve, "PATCH", f"{own.path}/settings", body, {**body, "required_approval_count": 3})


@scenario("PATCH /apps/{app}/environments")
async def a_list_of_environments(world: World) -> Request:
    own = await make_world(world.stack)
    version = (await own.eve.get(own.path))["version"]
    items = [
        {"id": row["id"], "name": f"{row['name']} again", "is_canonical": row["is_canonical"]} for row in await own.environments()
    ]
    items.append({"name": "one more", "is_canonical": False})
    body = {"environments": items, "version": version}
    return Request(own.eve, "PATCH", f"{own.path}/environments", body, {"environments": items[:-1], "version": version})


@scenario("DELETE /apps/{app}")
async def an_archived_app(world: World) -> Request:
    own = await make_world(world.stack)
    return Request(own.eve, "DELETE", own.path, {}, status=204)
