"""Releases and deployments over HTTP (`spec.md` 11 and 12)."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

from tests.support.conman_stack import World, assert_error, wait_for


def git(world: World, *arguments: str) -> str:
    repo = world.stack.data / "repositories" / world.app["repo_path"]
    return subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, text=True, check=True).stdout.strip()


async def test_two_changesets_become_one_tagged_release_and_the_rest_is_revalidated(own: World) -> None:
    one, two, rest = await own.queued(), await own.queued(), await own.queued()
    release = await own.validated(one, two)
    draft = await own.max.get(release)
    assert re.fullmatch(r"r\d{4}\.\d{2}\.\d{2}\.1", draft["tag"])
    reply = await own.max.post(f"{release}/publish")
    published = reply["release"]
    assert published["state"] == "published"
    assert published["published_by"] == own.max.id
    assert published["published_sha"] == draft["candidate_sha"]
    assert [await own.state(path) for path in (one, two)] == ["released", "released"]
    assert git(own, "rev-parse", f"refs/tags/{draft['tag']}", "refs/heads/main").split() == [published["published_sha"]] * 2
    assert git(own, "cat-file", "-t", f"refs/tags/{draft['tag']}") == "commit"
    assert len(git(own, "log", "--first-parent", "--merges", "--format=%H", "main").split()) == 2
    git(own, "fsck", "--strict")

    async def judged() -> bool:
        progress = (await own.max.get(f"{own.path}/queue"))["progress"]
        return progress == {"done": 1, "total": 1}

    await wait_for(judged, "the rest of the queue")
    kept = await own.ann.get(rest)
    assert (kept["state"], kept["last_revalidation_status"], kept["queue_position"]) == ("queued", "valid", 1)
    job = await own.job(kept["last_revalidation_job_id"])
    assert (job["job_type"], job["state"]) == ("revalidate_queued_changeset", "succeeded")


async def test_what_no_longer_merges_after_a_publish_leaves_the_queue_with_its_paths(own: World) -> None:
    path = "entities/shared.json"
    first, second = await own.queued({path: '{"a": 1}'}), await own.queued({path: '{"b": 2}'})
    await own.max.post(f"{await own.validated(first)}/publish")

    async def conflicted() -> bool:
        return await own.state(second) == "conflicted"

    await wait_for(conflicted, "the conflict")
    shown = await own.ann.get(second)
    assert [conflict["path"] for conflict in shown["conflicts"]] == [path]
    assert (await own.ann.get(f"{own.path}/queue"))["items"] == []
    assert (await own.job(shown["last_revalidation_job_id"]))["result"]["status"] == "conflicted"


async def test_what_conflicts_inside_a_release_is_named_and_leaves_it(own: World) -> None:
    path = "entities/shared.json"
    first, second = await own.queued({path: '{"a": 1}'}), await own.queued({path: '{"b": 2}'})
    release = await own.release(first, second)
    reply = await own.max.post(f"{release}/assemble")
    assert (await own.job(reply["job"]["id"]))["state"] == "failed"
    shown = await own.max.get(release)
    assert shown["state"] == "draft_release"
    assert shown["failure"]["changeset_id"] == second.rpartition("/")[2]
    assert shown["failure"]["paths"] == [path]
    assert shown["ordered_changeset_ids"] == [first.rpartition("/")[2]]
    assert await own.state(second) == "conflicted"
    assert await own.state(first) == "queued"


async def test_of_two_managers_that_take_the_same_changeset_exactly_one_gets_it(own: World) -> None:
    changeset = await own.queued()
    body = {"changeset_ids": [changeset.rpartition("/")[2]]}
    replies = await asyncio.gather(*(own.max.send("POST", f"{own.path}/releases", json=body) for _ in range(6)))
    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 5
    made = next(reply for reply in replies if reply.status_code == 201).json()["data"]
    refused = next(reply for reply in replies if reply.status_code == 409)
    details = assert_error(refused, 409, "conflict")["details"]
    assert details == [{"changeset_id": body["changeset_ids"][0], "state": "queued", "release_id": made["id"]}]
    listed = await own.max.get(f"{own.path}/releases")
    assert [row["id"] for row in listed] == [made["id"]]
    assert_error(await own.ann.send("POST", f"{changeset}/move-to-draft", json={}), 409, "conflict")
    dropped = f"{own.path}/releases/{made['id']}"
    assert (await own.max.send("DELETE", dropped)).status_code == 204
    assert await own.state(dropped) == "dropped"
    await own.ann.post(f"{changeset}/move-to-draft")


async def test_a_refused_selection_reserves_nothing(own: World) -> None:
    queued, draft = await own.queued(), await own.changeset()
    body = {"changeset_ids": [queued.rpartition("/")[2], draft.rpartition("/")[2]]}
    details = assert_error(await own.max.send("POST", f"{own.path}/releases", json=body), 409, "conflict")["details"]
    assert [row["changeset_id"] for row in details] == [draft.rpartition("/")[2]]
    await own.release(queued)


async def test_an_empty_selection_is_not_assembled_and_a_draft_not_published(own: World) -> None:
    made = await own.max.post(f"{own.path}/releases", {})
    path = f"{own.path}/releases/{made['id']}"
    assert_error(await own.max.send("POST", f"{path}/assemble", json={}), 409, "conflict")
    error = assert_error(await own.max.send("POST", f"{path}/publish", json={}), 409, "invalid_transition")
    assert error["details"]["from"] == "draft_release"


async def test_an_edit_returns_a_validated_release_to_draft(own: World) -> None:
    one, two = await own.queued(), await own.queued()
    release = await own.validated(one, two)
    ids = [path.rpartition("/")[2] for path in (two, one)]
    shown = await own.max.post(f"{release}/reorder", {"ordered_changeset_ids": ids})
    assert (shown["state"], shown["ordered_changeset_ids"], shown["candidate_sha"]) == ("draft_release", ids, None)
    shown = await own.max.post(f"{release}/changesets", {"remove": ids[:1]})
    assert shown["ordered_changeset_ids"] == ids[1:]
    assert (await own.ann.get(two))["release_id"] is None


async def test_a_branch_that_moved_outside_refuses_the_publish_and_offers_assembly(own: World) -> None:
    release = await own.validated(await own.queued())
    head = git(own, "rev-parse", "main")
    tree = git(own, "rev-parse", "main^{tree}")
    identity = ["-c", "user.name=outside", "-c", "user.email=outside@example.com"]
    moved = git(own, *identity, "commit-tree", tree, "-p", head, "-m", "outside")
    git(own, "update-ref", "refs/heads/main", moved, head)
    error = assert_error(await own.max.send("POST", f"{release}/publish", json={}), 409, "conflict")
    assert "assemble" in error["message"]
    assert await own.state(release) == "draft_release"
    assert git(own, "tag") == ""
    reply = await own.max.post(f"{release}/assemble")
    await own.job(reply["job"]["id"])
    await own.max.post(f"{release}/publish")
    assert await own.state(release) == "published"


async def test_a_published_release_is_immutable(own: World) -> None:
    release = await own.published()
    before = await own.max.get(release)
    for verb, body in (
        ("assemble", {}),
        ("publish", {}),
        ("reorder", {"ordered_changeset_ids": before["ordered_changeset_ids"]}),
    ):
        assert_error(await own.max.send("POST", f"{release}/{verb}", json=body), 409, "invalid_transition")
    assert_error(await own.max.send("DELETE", release), 409, "invalid_transition")
    assert await own.max.get(release) == before


async def test_a_repeated_publish_is_answered_alike_and_done_once(own: World) -> None:
    release = await own.validated(await own.queued())
    key = {"Idempotency-Key": "publish-it-once"}
    replies = await asyncio.gather(*(own.max.send("POST", f"{release}/publish", json={}, headers=key) for _ in range(5)))
    assert {reply.status_code for reply in replies} == {200}
    events = await own.audit(entity_type="release", action="published")
    assert len(events) == 1
    assert len(git(own, "tag").split()) == 1


async def test_a_release_goes_stage_by_stage_until_it_is_deployed_fully(own: World) -> None:
    release = await own.published()
    tag = (await own.max.get(release))["tag"]
    states: list[str] = []
    for number, environment in enumerate(await own.environments()):
        ended = await own.deployed(environment["id"], release, "promote" if number else "deploy")
        assert (ended["state"], ended["phase"], ended["reason_code"]) == ("succeeded", "done", "ok")
        states.append(await own.state(release))
    assert states == ["deployed_partial"] * 3 + ["deployed_full"]
    for environment in await own.environments():
        assert environment["current_release_id"] == release.rpartition("/")[2]
        assert environment["active_deployment_id"] is None
        assert environment["health"] == "healthy"
        folder = Path(environment["folder"])
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["tag"] == tag
        assert [path.name for path in (folder / "files" / "entities").iterdir()]
        assert (folder / "profile" / "profile.json").stat().st_mode & 0o777 == 0o600
    actions = [event["action"] for event in await own.audit(entity_type="deployment")]
    assert sorted(actions) == sorted(["requested", "started", "succeeded"] * 4 + ["promoted"] * 3)


async def test_a_skipped_stage_is_refused_unless_two_people_agree(own: World) -> None:
    release = await own.published()
    production = (await own.environments())[-1]
    path = f"{own.path}/environments/{production['id']}/deploy"
    body = {"release_id": release.rpartition("/")[2]}
    assert_error(await own.max.send("POST", path, json=body), 409, "stage_skipped")
    reply = await own.max.post(path, {**body, "skip_stage": True})
    deployment = reply["deployment"]
    assert (deployment["state"], deployment["exceptional_reasons"]) == ("pending", ["skip_stage"])
    assert deployment["approvals_required"] == 2
    assert reply["job"]["state"] == "queued"
    approve = f"{own.path}/deployments/{deployment['id']}/approve"
    await own.max.post(approve)
    locked = assert_error(await own.max.send("POST", path, json={**body, "skip_stage": True}), 409, "environment_locked")
    assert locked["details"] == {"deployment_id": deployment["id"]}
    assert_error(await own.ann.send("POST", approve, json={}), 403, "forbidden")
    await own.rob.post(approve)
    assert (await own.job(reply["job"]["id"]))["state"] == "succeeded"


async def test_a_pending_deployment_can_be_canceled_and_frees_the_lock(own: World) -> None:
    release = await own.published()
    production = (await own.environments())[-1]
    body = {"release_id": release.rpartition("/")[2], "skip_stage": True}
    reply = await own.max.post(f"{own.path}/environments/{production['id']}/deploy", body)
    cancel = f"{own.path}/deployments/{reply['deployment']['id']}/cancel"
    assert (await own.max.post(cancel))["state"] == "canceled"
    assert (await own.environments())[-1]["active_deployment_id"] is None
    assert (await own.job(reply["job"]["id"]))["state"] == "canceled"
    assert_error(await own.rob.send("POST", cancel.replace("cancel", "approve"), json={}), 409, "invalid_transition")


async def test_of_many_that_deploy_at_once_exactly_one_holds_the_environment(own: World) -> None:
    release = await own.published()
    first = (await own.environments())[0]
    body = {"release_id": release.rpartition("/")[2]}
    path = f"{own.path}/environments/{first['id']}/deploy"
    replies = await asyncio.gather(*(own.max.send("POST", path, json=body) for _ in range(8)))
    assert sorted(reply.status_code for reply in replies) == [202] + [409] * 7
    holder = next(reply for reply in replies if reply.status_code == 202).json()["data"]["deployment"]["id"]
    for reply in replies:
        if reply.status_code == 409:
            assert assert_error(reply, 409, "environment_locked")["details"] == {"deployment_id": holder}


async def test_a_repeated_deploy_request_finds_its_own_deployment(own: World) -> None:
    release = await own.published()
    first = (await own.environments())[0]
    body = {"release_id": release.rpartition("/")[2]}
    key = {"Idempotency-Key": "deploy-it-once"}
    path = f"{own.path}/environments/{first['id']}/deploy"
    replies = await asyncio.gather(*(own.max.send("POST", path, json=body, headers=key) for _ in range(6)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["data"]["deployment"]["id"] for reply in replies}) == 1
    assert len(await own.max.get(f"{own.path}/deployments")) == 1


async def test_only_a_published_release_is_deployed(own: World) -> None:
    draft = await own.release(await own.queued())
    first = (await own.environments())[0]
    path = f"{own.path}/environments/{first['id']}/deploy"
    body = {"release_id": draft.rpartition("/")[2]}
    assert_error(await own.max.send("POST", path, json=body), 409, "invalid_transition")
    assert_error(await own.max.send("POST", path, json={"release_id": "nobody"}), 400, "validation_error")
