"""Workspaces over HTTP: names, editing, deletion, checkpoints, reset, starts (`spec.md` 7, `api.md` 3)."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.api.api_git import commit_outside, commits, git, refs
from tests.support.conman_stack import Person, World, assert_error, last

# -- Names -------------------------------------------------------------------------------------------------------------------


async def test_a_name_that_git_can_not_hold_beside_another_is_a_conflict_that_names_it(world: World) -> None:
    await world.ann.post(f"{world.path}/workspaces", {"branch_name": "beside/one"})
    for name in ("beside", "beside/one/deeper"):
        reply = await world.ann.send("POST", f"{world.path}/workspaces", json={"branch_name": name})
        assert assert_error(reply, 409, "conflict")["details"]["in_the_way"] == "beside/one"


async def test_of_names_that_can_not_stand_together_exactly_one_is_made(world: World) -> None:
    names = ["race", "race/one", "race/one/deeper"]
    replies = await asyncio.gather(
        *(world.ann.send("POST", f"{world.path}/workspaces", json={"branch_name": name}) for name in names)
    )
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409]
    made = next(reply.json()["data"] for reply in replies if reply.status_code == 201)
    shown = await world.ann.get(f"{world.path}/workspaces/{made['id']}")
    assert git(world, "rev-parse", made["branch_name"]) == shown["head_sha"]


async def test_the_default_workspace_gets_another_name_where_somebody_has_taken_a_part_of_it(own: World) -> None:
    person = await own.join("user")
    user = person.email.partition("@")[0]
    git(own, "branch", f"ws/{user}", "main")
    made = await person.post(f"{own.path}/workspaces")
    assert made["branch_name"] == f"ws/{user}-1/{own.app['name']}"


async def test_extra_workspaces_without_a_name_get_numbers(world: World) -> None:
    names = [(await world.rob.post(f"{world.path}/workspaces", {"title": f"t{n}"}))["branch_name"] for n in range(2)]
    assert len(set(names)) == 2
    assert all(name.startswith("ws/") for name in names)


# -- Editing -----------------------------------------------------------------------------------------------------------------


async def test_title_and_commit_mode_can_be_changed_and_are_audited(world: World) -> None:
    workspace = await world.workspace()
    before = await world.ann.get(workspace)
    assert before["commit_mode"] == "submit_commit"
    change = {"title": "another", "commit_mode": "manual_checkpoint"}
    shown = await world.ann.ok("PATCH", workspace, json=change)
    assert {name: shown[name] for name in change} == change
    assert shown["version"] == before["version"] + 1
    events = await world.audit(entity_type="workspace", entity_id=last(workspace), action="updated")
    assert [(event["before"], event["after"]) for event in events] == [({"title": before["title"], "commit_mode": None}, change)]
    back = await world.ann.ok("PATCH", workspace, json={"commit_mode": None})
    assert back["commit_mode"] == "submit_commit"


async def test_a_stale_version_changes_nothing(world: World) -> None:
    workspace = await world.workspace()
    shown = await world.ann.get(workspace)
    await world.ann.ok("PATCH", workspace, json={"title": "first", "version": shown["version"]})
    stale = await world.ann.send("PATCH", workspace, json={"title": "second", "version": shown["version"]})
    assert_error(stale, 409, "stale_write")
    headers = {"If-Match": f'"{shown["version"]}"'}
    assert_error(await world.ann.send("PATCH", workspace, json={"title": "x"}, headers=headers), 409, "stale_write")
    assert_error(
        await world.ann.send("PATCH", workspace, json={"title": "x"}, headers={"If-Match": "x"}), 400, "validation_error"
    )
    assert (await world.ann.get(workspace))["title"] == "first"


async def test_a_repeated_edit_is_made_once(world: World) -> None:
    workspace = await world.workspace()
    key = {"Idempotency-Key": uuid.uuid4().hex}
    for _ in range(2):
        shown = await world.ann.ok("PATCH", workspace, json={"title": "once"}, headers=key)
    assert shown["version"] == 2


# -- Deletion ----------------------------------------------------------------------------------------------------------------


async def test_a_deleted_workspace_is_gone_with_its_refs_and_the_audit_knows(world: World) -> None:
    workspace = await world.workspace()
    await world.save(workspace, "entities/x.json", "{}")
    shown = await world.ann.get(workspace)
    assert refs(world, shown["id"])
    key = {"Idempotency-Key": uuid.uuid4().hex}
    for _ in range(2):
        assert (await world.ann.send("DELETE", workspace, headers=key)).status_code == 204
    assert_error(await world.ann.send("GET", workspace), 404, "not_found")
    assert_error(await world.ann.send("DELETE", workspace), 404, "not_found")
    body = {"workspace_id": shown["id"], "title": "too late"}
    assert_error(await world.ann.send("POST", f"{world.path}/changesets", json=body), 404, "not_found")
    assert refs(world, shown["id"]) == []
    assert git(world, "branch", "--list", shown["branch_name"]) == ""
    listed = await world.ann.get(f"{world.path}/workspaces", params={"limit": 100})
    assert shown["id"] not in [row["id"] for row in listed]
    (event,) = await world.audit(entity_type="workspace", entity_id=shown["id"], action="deleted")
    assert (event["before"]["branch_name"], event["before"]["pending_edits"]) == (shown["branch_name"], 1)
    again = await world.ann.post(f"{world.path}/workspaces", {"branch_name": shown["branch_name"]})
    assert again["id"] != shown["id"]


async def test_the_default_workspace_is_not_deleted(world: World) -> None:
    made = await world.rob.post(f"{world.path}/workspaces")
    reply = await world.rob.send("DELETE", f"{world.path}/workspaces/{made['id']}")
    assert_error(reply, 409, "conflict")


async def test_a_workspace_with_an_open_changeset_is_kept_and_its_revisions_outlive_it(world: World) -> None:
    changeset = await world.submitted()
    record = await world.ann.get(changeset)
    workspace = f"{world.path}/workspaces/{record['workspace_id']}"
    error = assert_error(await world.ann.send("DELETE", workspace), 409, "conflict")
    assert error["details"] == {"changeset_id": record["id"]}
    assert (await world.ann.send("DELETE", changeset)).status_code == 204
    assert (await world.ann.send("DELETE", workspace)).status_code == 204
    assert git(world, "rev-parse", f"refs/conman/revisions/{record['id']}/{record['head_sha']}") == record["head_sha"]
    assert (await world.ann.get(f"{changeset}/diff"))["stats"]["files"] == 1


async def test_of_a_deletion_and_a_new_changeset_at_once_exactly_one_comes_first(world: World) -> None:
    for _ in range(6):
        workspace = await world.workspace()
        body = {"workspace_id": last(workspace), "title": "meanwhile"}
        gone, made = await asyncio.gather(
            world.ann.send("DELETE", workspace), world.ann.send("POST", f"{world.path}/changesets", json=body)
        )
        assert (gone.status_code, made.status_code) in ((204, 404), (409, 201))


# -- Checkpoints -------------------------------------------------------------------------------------------------------------


async def checkpoint(world: World, workspace: str, **body: str) -> str:
    return (await world.ann.ok("POST", f"{workspace}/checkpoints", json=body))["commit_sha"]


async def test_a_checkpoint_is_a_commit_of_what_is_pending(world: World) -> None:
    workspace = await world.workspace()
    before = await world.ann.get(workspace)
    await world.save(workspace, "entities/a.json", "1")
    await world.save(workspace, "entities/b.json", "2")
    sha = await checkpoint(world, workspace, message="half way")
    shown = await world.ann.get(workspace)
    assert (shown["head_sha"], shown["pending_edits"]) == (sha, 0)
    assert git(world, "log", "-1", "--format=%s%n%P", sha).splitlines() == ["half way", before["head_sha"]]
    (event,) = await world.audit(entity_type="file", entity_id=last(workspace), action="checkpoint")
    assert event["before"]["head_sha"] == before["head_sha"]
    assert event["after"]["head_sha"] == event["git_sha"] == sha
    assert (event["after"]["message"], event["after"]["paths"]) == ("half way", ["entities/a.json", "entities/b.json"])


async def test_without_anything_pending_there_is_no_checkpoint(world: World) -> None:
    workspace = await world.workspace()
    assert_error(await world.ann.send("POST", f"{workspace}/checkpoints", json={}), 409, "conflict")
    await world.save(workspace, "entities/a.json", "1")
    await world.ann.send("DELETE", f"{workspace}/files", params={"path": "entities/a.json"})
    assert_error(await world.ann.send("POST", f"{workspace}/checkpoints", json={}), 409, "conflict")


async def test_a_repeated_checkpoint_is_one_commit(world: World) -> None:
    workspace = await world.workspace()
    await world.save(workspace, "entities/a.json", "1")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    replies = await asyncio.gather(*(world.ann.send("POST", f"{workspace}/checkpoints", json={}, headers=key) for _ in range(6)))
    await world.save(workspace, "entities/a.json", "2")
    replies.append(await world.ann.send("POST", f"{workspace}/checkpoints", json={}, headers=key))
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.json()["data"]["commit_sha"] for reply in replies}) == 1
    assert (await world.ann.get(workspace))["pending_edits"] == 1


async def edited_and_submitted(world: World, mode: str) -> tuple[str, str]:
    """Two checkpoints and a pending edit, submitted; then more of both, resubmitted. The workspace and the changeset."""
    workspace = await world.workspace()
    await world.ann.ok("PATCH", workspace, json={"commit_mode": mode})
    created = await world.ann.post(f"{world.path}/changesets", {"workspace_id": last(workspace), "title": "proposal"})
    changeset = f"{world.path}/changesets/{created['id']}"
    for round_, verb in enumerate(("submit", "resubmit")):
        for number in range(2):
            await world.save(workspace, f"entities/{round_}-{number}.json", "1")
            await checkpoint(world, workspace, message=f"step {round_}.{number}")
        await world.save(workspace, f"entities/{round_}-rest.json", "1")
        reply = await world.ann.post(f"{changeset}/{verb}")
        await world.job(reply["job"]["id"])
    return workspace, changeset


async def test_in_submit_commit_each_submit_makes_one_commit_of_all_since_the_last(world: World) -> None:
    workspace, changeset = await edited_and_submitted(world, "submit_commit")
    shown = await world.ann.get(workspace)
    assert commits(world, shown) == ["proposal", "proposal"]
    first, second = (await world.ann.get(f"{changeset}/revisions"))[::-1]
    assert git(world, "rev-parse", f"{second['head_sha']}^") == first["head_sha"]
    assert (await world.ann.get(f"{changeset}/diff"))["stats"]["files"] == 6


async def test_in_manual_checkpoint_each_checkpoint_stays_and_the_rest_becomes_one_more(world: World) -> None:
    workspace, _ = await edited_and_submitted(world, "manual_checkpoint")
    shown = await world.ann.get(workspace)
    assert commits(world, shown) == ["step 0.0", "step 0.1", "proposal", "step 1.0", "step 1.1", "proposal"]


async def test_a_submit_without_a_change_since_a_checkpoint_in_manual_checkpoint_freezes_it(world: World) -> None:
    workspace = await world.workspace()
    await world.ann.ok("PATCH", workspace, json={"commit_mode": "manual_checkpoint"})
    await world.save(workspace, "entities/a.json", "1")
    sha = await checkpoint(world, workspace)
    made = await world.ann.post(f"{world.path}/changesets", {"workspace_id": last(workspace), "title": "as it is"})
    reply = await world.ann.post(f"{world.path}/changesets/{made['id']}/submit")
    assert reply["revision"]["head_sha"] == sha


# -- Reset -------------------------------------------------------------------------------------------------------------------


async def test_a_reset_goes_back_to_the_baseline_and_drops_what_is_pending(own: World) -> None:
    workspace = await own.workspace()
    await own.save(workspace, "entities/kept.json", "1")
    sha = await checkpoint(own, workspace)
    await own.save(workspace, "entities/pending.json", "1")
    main = await commit_outside(own, {"entities/theirs.json": "{}"})
    shown = await own.ann.post(f"{workspace}/reset")
    assert (shown["head_sha"], shown["base_sha"], shown["pending_edits"], shown["behind"]) == (main, main, 0, False)
    listed = await own.ann.get(f"{workspace}/files", params={"recursive": "true"})
    assert [row["path"] for row in listed] == ["entities/theirs.json"]
    (event,) = await own.audit(entity_type="workspace", entity_id=last(workspace), action="reset")
    assert (event["before"]["head_sha"], event["before"]["pending_edits"]) == (sha, 1)
    assert (event["after"]["head_sha"], event["after"]["base_ref_type"]) == (main, "integration")
    saved = await own.save(workspace, "entities/after.json", "1")
    assert saved["pending_edits"] == 1


async def test_a_repeated_reset_drops_nothing_that_came_after_the_first(world: World) -> None:
    workspace = await world.workspace()
    key = {"Idempotency-Key": uuid.uuid4().hex}
    await world.ann.post(f"{workspace}/reset", headers=key)
    await world.save(workspace, "entities/later.json", "1")
    shown = await world.ann.post(f"{workspace}/reset", headers=key)
    assert shown["pending_edits"] == 1


async def test_a_reset_leaves_the_open_changeset_its_revisions(world: World) -> None:
    changeset = await world.submitted()
    before = await world.ann.get(changeset)
    await world.ann.post(f"{world.path}/workspaces/{before['workspace_id']}/reset")
    assert await world.ann.get(changeset) == before
    assert (await world.ann.get(f"{changeset}/diff"))["stats"]["files"] == 1


# -- Touched outside Conman --------------------------------------------------------------------------------------------------


async def every_write_is_refused(world: World, workspace: str, words: str) -> None:
    body = {"path": "entities/more.json", "content": "e30="}
    change = {"changes": [{"action": "write", **body}]}
    attempts = [
        ("PUT", f"{workspace}/files", body),
        ("POST", f"{workspace}/files/batch", change),
        ("POST", f"{workspace}/checkpoints", {}),
        ("POST", f"{workspace}/sync-integration", {}),
    ]
    for method, path, sent in attempts:
        error = assert_error(await world.ann.send(method, path, json=sent), 409, "conflict")
        assert words in error["message"], error
        assert "reset" in error["message"]


async def touched(world: World) -> tuple[str, dict[str, str]]:
    """A workspace with a commit and a pending edit, and its record."""
    workspace = await world.workspace()
    await world.save(workspace, "entities/a.json", "1")
    await checkpoint(world, workspace)
    await world.save(workspace, "entities/b.json", "1")
    return workspace, await world.ann.get(workspace)


async def mended(world: World, workspace: str) -> None:
    shown = await world.ann.post(f"{workspace}/reset")
    assert shown["head_sha"] == git(world, "rev-parse", "main") == git(world, "rev-parse", shown["branch_name"])
    assert (await world.save(workspace, "entities/c.json", "1"))["pending_edits"] == 1
    await checkpoint(world, workspace)


async def test_a_branch_deleted_outside_is_told_its_files_stay_readable_and_a_reset_mends_it(world: World) -> None:
    workspace, before = await touched(world)
    git(world, "update-ref", "-d", f"refs/heads/{before['branch_name']}")
    await every_write_is_refused(world, workspace, "deleted outside Conman")
    shown = await world.ann.get(workspace)
    assert (shown["head_sha"], shown["base_sha"], shown["pending_edits"]) == (None, None, 1)
    listed = await world.ann.get(f"{workspace}/files", params={"recursive": "true"})
    assert [row["path"] for row in listed] == ["entities/a.json", "entities/b.json"]
    assert last(workspace) in [row["id"] for row in await world.ann.get(f"{world.path}/workspaces", params={"limit": 100})]
    await mended(world, workspace)


@pytest.mark.parametrize("where", ["forwards", "backwards", "to the pending edits"])
async def test_a_branch_moved_outside_is_told_and_no_pending_edit_is_lost(world: World, where: str) -> None:
    workspace, before = await touched(world)
    branch = before["branch_name"]
    if where == "forwards":
        await commit_outside(world, {"entities/pushed.json": "1"}, branch)
    else:
        pending = f"refs/heads/conman/pending/{before['id']}"
        git(world, "update-ref", f"refs/heads/{branch}", f"{branch}^" if where == "backwards" else pending)
    await every_write_is_refused(world, workspace, "moved outside Conman")
    shown = await world.ann.get(workspace)
    assert (shown["head_sha"], shown["pending_edits"]) == (git(world, "rev-parse", branch), 1)
    read = await world.ann.get(f"{workspace}/files", params={"path": "entities/b.json"})
    assert (read["content"], read["pending"]) == ("1", True)
    git(world, "update-ref", f"refs/heads/{branch}", before["head_sha"])
    assert await world.ann.get(workspace) == before
    git(world, "update-ref", f"refs/heads/{branch}", "main")
    await mended(world, workspace)


async def test_a_submit_on_a_branch_moved_outside_is_refused(world: World) -> None:
    changeset = await world.changeset()
    workspace = f"{world.path}/workspaces/{(await world.ann.get(changeset))['workspace_id']}"
    branch = (await world.ann.get(workspace))["branch_name"]
    await commit_outside(world, {"entities/pushed.json": "1"}, branch)
    error = assert_error(await world.ann.send("POST", f"{changeset}/submit", json={}), 409, "conflict")
    assert "moved outside Conman" in error["message"]
    assert (await world.ann.get(changeset))["state"] == "draft"


async def test_pending_edits_removed_outside_are_told(world: World) -> None:
    workspace, before = await touched(world)
    git(world, "update-ref", "-d", f"refs/heads/conman/pending/{before['id']}")
    await every_write_is_refused(world, workspace, "removed outside Conman")
    assert (await world.ann.get(workspace))["pending_edits"] == 0
    await mended(world, workspace)


# -- Where a workspace starts ------------------------------------------------------------------------------------------------


async def deployed_to_production(world: World, release: str) -> None:
    """As if Production ran this release: what a deployment writes, without its stages."""
    production = (await world.environments())[-1]
    change = {"$set": {"owned.current_release_id": last(release)}}
    await world.stack.db["environments"].update_one({"_id": production["id"]}, change)


async def new_workspace(person: Person, world: World, **body: str) -> dict[str, str]:
    return await person.post(f"{world.path}/workspaces", body)


async def test_workspaces_start_where_the_baseline_and_the_named_release_say(own: World) -> None:
    first, second = await own.published(), await own.published()
    one, two = (await own.max.get(first)), (await own.max.get(second))
    main = await commit_outside(own, {"entities/unreleased.json": "{}"})
    before = await new_workspace(own.ann, own, title="nothing runs yet")
    assert (before["base_ref_type"], before["base_ref_value"], before["head_sha"]) == ("integration", "main", main)
    await deployed_to_production(own, first)
    plain = await new_workspace(own.ann, own, title="from what runs")
    assert (plain["base_ref_type"], plain["base_ref_value"], plain["head_sha"]) == ("release", one["tag"], one["published_sha"])
    assert (plain["hotpatch"], plain["behind"]) == (False, True)
    hot = await new_workspace(own.ann, own, from_release_id=one["id"])
    assert (hot["hotpatch"], hot["head_sha"], hot["base_ref_value"]) == (True, one["published_sha"], one["tag"])
    other = await new_workspace(own.ann, own, from_release_id=two["id"])
    assert (other["hotpatch"], other["head_sha"], other["base_ref_value"]) == (False, two["published_sha"], two["tag"])
    await own.set(baseline_mode="integration_head")
    ahead = await new_workspace(own.ann, own, title="from the head")
    assert (ahead["base_ref_type"], ahead["head_sha"]) == ("integration", main)
    back = await own.ann.post(f"{own.path}/workspaces/{hot['id']}/reset")
    assert (back["hotpatch"], back["head_sha"]) == (True, one["published_sha"])
    moved = await own.ann.post(f"{own.path}/workspaces/{plain['id']}/reset")
    assert (moved["base_ref_type"], moved["base_ref_value"], moved["head_sha"]) == ("integration", "main", main)


async def test_a_hotpatch_workspace_makes_hotpatch_changesets(own: World) -> None:
    release = await own.published()
    await deployed_to_production(own, release)
    made = await new_workspace(own.ann, own, from_release_id=last(release))
    body = {"workspace_id": made["id"], "title": "at once"}
    assert (await own.ann.post(f"{own.path}/changesets", body))["hotpatch"]


async def test_a_release_that_is_not_published_or_not_there_is_no_start(own: World, world: World) -> None:
    draft = await own.release(await own.queued())
    reply = await own.ann.send("POST", f"{own.path}/workspaces", json={"from_release_id": last(draft)})
    assert_error(reply, 409, "conflict")
    for unknown in (str(uuid.UUID(int=0)), "nothing"):
        reply = await own.ann.send("POST", f"{own.path}/workspaces", json={"from_release_id": unknown})
        assert_error(reply, 404, "not_found")
    reply = await world.ann.send("POST", f"{world.path}/workspaces", json={"from_release_id": last(draft)})
    assert_error(reply, 404, "not_found")
