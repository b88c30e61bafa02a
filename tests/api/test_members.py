"""Members over HTTP: who joins, changes and goes, and what follows at once (`api.md` 3, `spec.md` 5)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.conman_stack import Person, World, assert_error, last


def member(world: World, person: Person) -> str:
    return f"{world.path}/members/{person.id}"


async def remove(world: World, person: Person) -> None:
    await world.eve.ok("DELETE", member(world, person))


async def disable(world: World, person: Person) -> None:
    await world.stack.admin.ok("PATCH", f"/users/{person.id}", json={"disabled": True})


ENDINGS = pytest.mark.parametrize("end", [remove, disable])


async def test_a_member_is_shown_with_who_it_is(world: World) -> None:
    sam = await world.stack.person("sam")
    made = await world.eve.post(f"{world.path}/members", {"email": sam.email.upper(), "role": "reviewer"})
    assert set(made) == {"id", "app_id", "created_at", "updated_at", "version", "created_by", "user_id", "role", "email", "name"}
    assert (made["user_id"], made["role"], made["email"], made["name"]) == (sam.id, "reviewer", sam.email, "sam")
    assert (made["app_id"], made["created_by"], made["version"]) == (world.app["id"], world.eve.id, 1)
    shown, pagination = await world.ann.listed(f"{world.path}/members", limit=100)
    assert shown[0] == made and pagination["total"] == len(shown)


async def test_a_role_changes_for_the_very_next_request(world: World) -> None:
    sam = await world.join("user")
    assert_error(await sam.send("GET", f"{world.path}/audit"), 403, "forbidden")
    changed = await world.eve.ok("PATCH", member(world, sam), json={"role": "app_admin", "version": 1})
    assert (changed["role"], changed["version"]) == ("app_admin", 2)
    await sam.get(f"{world.path}/audit")
    (event,) = await world.audit(entity_id=changed["id"], action="role_changed")
    assert (event["actor_user_id"], event["before"]["role"], event["after"]["role"]) == (world.eve.id, "user", "app_admin")
    await world.eve.ok("PATCH", member(world, sam), json={"role": "user"})
    assert_error(await sam.send("GET", f"{world.path}/audit"), 403, "forbidden")


async def test_who_is_removed_is_out_at_once_and_comes_back_to_the_old_default_workspace(world: World) -> None:
    sam = await world.join("user")
    home = await sam.post(f"{world.path}/workspaces")
    await remove(world, sam)
    assert_error(await sam.send("GET", world.path), 403, "forbidden")
    assert (await sam.listed("/apps"))[0] == []
    assert (await sam.get("/me"))["memberships"] == []
    shown, _ = await world.eve.listed(f"{world.path}/members", limit=100)
    assert sam.id not in [row["user_id"] for row in shown]
    await world.join("reviewer", sam)
    again = await sam.send("POST", f"{world.path}/workspaces", json={})
    assert (again.status_code, again.json()["data"]["id"]) == (200, home["id"])


async def test_the_last_app_admin_stays(own: World) -> None:
    await own.eve.ok("DELETE", f"{own.path}/members/{own.app['created_by']}")
    for reply in (
        await own.eve.send("DELETE", member(own, own.eve)),
        await own.eve.send("PATCH", member(own, own.eve), json={"role": "config_manager"}),
        await own.stack.admin.send("PATCH", f"/users/{own.eve.id}", json={"disabled": True}),
    ):
        error = assert_error(reply, 409, "conflict")
        assert own.app["name"] in error["message"] and "make somebody else app_admin" in error["message"]
    await own.eve.ok("PATCH", member(own, own.max), json={"role": "app_admin"})
    await disable(own, own.eve)
    assert_error(await own.max.send("DELETE", member(own, own.max)), 409, "conflict")


async def test_what_is_wrong_with_a_request_is_told_before_anything_is_done(world: World, other_app: World) -> None:
    sam = await world.join("user")
    path = member(world, sam)
    for body in ({"role": "owner"}, {}, {"role": "user", "user_id": sam.id}, {"role": 7}):
        assert_error(await world.eve.send("PATCH", path, json=body), 400, "validation_error")
    for body in (
        {"role": "user"},
        {"user_id": sam.id, "email": sam.email, "role": "user"},
        {"email": "nobody@x.test", "role": "user"},
    ):
        assert_error(await world.eve.send("POST", f"{world.path}/members", json=body), 400, "validation_error")
    assert_error(await world.eve.send("POST", f"{world.path}/members", json={"user_id": sam.id, "role": "user"}), 409, "conflict")
    assert_error(await world.eve.send("PATCH", path, json={"role": "reviewer", "version": 7}), 409, "stale_write")
    assert_error(await world.eve.send("DELETE", path, headers={"If-Match": '"7"'}), 409, "stale_write")
    assert_error(await world.eve.send("DELETE", path, headers={"If-Match": "newest"}), 400, "validation_error")
    assert_error(await world.max.send("DELETE", path), 403, "forbidden")
    assert_error(await world.eve.send("DELETE", member(world, other_app.ann)), 404, "not_found")
    assert_error(await other_app.eve.send("DELETE", member(other_app, sam)), 404, "not_found")
    await world.eve.ok("DELETE", path, headers={"If-Match": "1"})


async def test_a_repeat_with_the_same_key_gets_the_same_answer(world: World) -> None:
    sam = await world.stack.person("sam")
    body, headers = {"user_id": sam.id, "role": "user"}, {"Idempotency-Key": "members"}
    made = [await world.eve.post(f"{world.path}/members", body, headers=headers) for _ in range(2)]
    changes = [
        await world.eve.ok("PATCH", member(world, sam), json={"role": "reviewer", "version": 1}, headers=headers)
        for _ in range(2)
    ]
    ends = [await world.eve.send("DELETE", member(world, sam), headers=headers) for _ in range(2)]
    assert made[0] == made[1] and changes[0] == changes[1]
    assert [reply.status_code for reply in ends] == [204, 204]
    assert [row["action"] for row in await world.audit(entity_id=made[0]["id"])] == ["removed", "role_changed", "added"]


# -- What they leave behind --------------------------------------------------------------------------------------------------


async def lose_role(world: World, person: Person) -> None:
    await world.eve.ok("PATCH", member(world, person), json={"role": "user"})


@pytest.mark.parametrize("end", [remove, disable, lose_role])
async def test_an_approval_that_counts_no_more_brings_the_changeset_back_into_review(world: World, end: Any) -> None:
    rita = await world.join("reviewer")
    path = await world.submitted()
    await rita.post(f"{path}/review", {"action": "approve"})
    assert await world.state(path) == "approved"
    await end(world, rita)
    shown = await world.eve.get(path)
    assert (shown["state"], shown["approval_count"]) == ("in_review", 0)
    assert shown["waiting_for"].startswith("Waits for 1 more approval")
    assert_error(await world.ann.send("POST", f"{path}/queue", json={}), 409, "invalid_transition")
    (review,) = await world.eve.get(f"{path}/reviews")
    assert (review["reviewer_user_id"], review["void"]) == (rita.id, True)
    (event,) = await world.audit(entity_id=last(path), action="updated")
    assert (event["before"]["state"], event["after"]["state"], event["before"]["voter_user_ids"]) == (
        "approved",
        "in_review",
        [rita.id],
    )
    await world.rob.post(f"{path}/review", {"action": "approve"})
    await world.ann.post(f"{path}/queue")


async def test_votes_that_are_lost_do_not_come_back_with_their_voter_who_may_vote_anew(world: World) -> None:
    rita = await world.join("reviewer")
    path = await world.submitted()
    await rita.post(f"{path}/review", {"action": "approve"})
    await remove(world, rita)
    await world.join("reviewer", rita)
    assert await world.state(path) == "in_review"
    await rita.post(f"{path}/review", {"action": "approve"})
    assert await world.state(path) == "approved"


async def test_what_is_queued_keeps_the_approval_of_somebody_who_goes(world: World) -> None:
    rita = await world.join("reviewer")
    path = await world.submitted()
    await rita.post(f"{path}/review", {"action": "approve"})
    await world.ann.post(f"{path}/queue")
    await remove(world, rita)
    shown = await world.eve.get(path)
    assert (shown["state"], shown["approval_count"]) == ("queued", 1)


@ENDINGS
async def test_managers_see_to_the_changesets_of_somebody_who_has_gone(world: World, end: Any) -> None:
    sam = await world.join("user")
    approved, withdrawn = await world.submitted(person=sam), await world.submitted(person=sam)
    await world.rob.post(f"{approved}/review", {"action": "approve"})
    await end(world, sam)
    await world.max.ok("DELETE", withdrawn)
    await world.max.post(f"{approved}/queue")
    await world.max.post(f"{approved}/move-to-draft")
    assert (await world.state(approved), await world.state(withdrawn)) == ("draft", "withdrawn")
    assert (await world.eve.get(approved))["author_user_id"] == sam.id
    await world.max.get(f"{approved}/diff")


@ENDINGS
async def test_an_app_admin_submits_resubmits_and_cleans_up_after_somebody_who_has_gone(world: World, end: Any) -> None:
    sam = await world.join("user")
    path = await world.changeset(person=sam)
    workspace = f"{world.path}/workspaces/{(await sam.get(path))['workspace_id']}"
    await end(world, sam)
    first = await world.eve.post(f"{path}/submit")
    await world.job(first["job"]["id"])
    await world.save(workspace, "entities/more.json", "{}", world.eve)
    second = await world.eve.post(f"{path}/resubmit")
    await world.job(second["job"]["id"])
    assert second["revision"]["revision_number"] == 2
    assert_error(await world.eve.send("DELETE", workspace), 409, "conflict")
    await world.max.ok("DELETE", path)
    await world.eve.ok("DELETE", workspace)


async def test_the_stream_of_a_log_ends_with_its_readers_access(world: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    sam = await world.join("user")
    reply = await world.ann.post(f"{await world.changeset({'slow.flag': str(held)})}/submit")
    stream = f"{world.path}/jobs/{reply['job']['id']}/logs/stream"
    try:
        async with world.stack.client.stream("GET", stream, headers=sam.headers) as reading:
            lines = reading.aiter_lines()
            await anext(lines)
            await remove(world, sam)

            async def read_on() -> None:
                async for _ in lines:
                    pass

            await asyncio.wait_for(read_on(), 60)
        assert (await world.ann.get(f"{world.path}/jobs/{reply['job']['id']}"))["job"]["state"] == "running"
    finally:
        held.unlink()
    await world.job(reply["job"]["id"])


async def test_approvals_of_who_may_review_no_more_hold_a_deployment_back(own: World) -> None:
    rita = await own.join("reviewer")
    release = await own.published()
    _, second, *_ = await own.environments()
    body = {"release_id": last(release), "skip_stage": True}
    reply = await own.max.post(f"{own.path}/environments/{second['id']}/deploy", body)
    path = f"{own.path}/deployments/{reply['deployment']['id']}"
    await lose_role(own, own.max)  # the requester counts as one, while they may
    await rita.post(f"{path}/approve")
    await own.rob.post(f"{path}/approve")
    await own.job(reply["job"]["id"])
    shown = await own.eve.get(path)
    assert shown["state"] == "succeeded" and len(shown["approvals"]) == 3


async def test_reconcile_finishes_what_a_request_left(world: World) -> None:
    """A change that stands on the app's record alone is shown, and its votes are taken back."""
    rita = await world.join("reviewer")
    path = await world.submitted()
    await rita.post(f"{path}/review", {"action": "approve"})
    db = world.stack.db
    membership = await db["memberships"].find_one({"app_id": world.app["id"], "user_id": rita.id})
    app = await db["apps"].find_one({"_id": world.app["id"]})
    assert membership is not None and app is not None
    number, at = app["members_version"] + 1, "2099-01-01T00:00:00.000Z"
    change = {"number": number, "membership_id": membership["_id"], "user_id": rita.id, "role": None, "at": at}
    lost = {"id": membership["_id"], "user_id": rita.id, "at": at, "actor": {"user_id": world.eve.id}}
    await db["apps"].update_one(
        {"_id": world.app["id"], "members_version": app["members_version"]},
        {"$set": {"member_change": change, "members_version": number}, "$push": {"lost_votes": lost}},
    )
    command = (sys.executable, "-m", "conman", "reconcile", "--data", str(world.stack.data))
    reconciling = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await reconciling.wait() == 0
    assert await db["memberships"].find_one({"user_id": rita.id}) is None
    assert await world.state(path) == "in_review"
    assert_error(await rita.send("GET", world.path), 403, "forbidden")
