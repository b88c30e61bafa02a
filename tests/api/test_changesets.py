"""Changesets, reviews and the queue over HTTP (`spec.md` 3, 9, 10)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.conman_stack import World, assert_error, wait_for

REVISION_FIELDS = {"changeset_id", "revision_number", "head_sha", "base_sha", "job_id", "overrides"}


async def test_a_broken_file_is_stopped_at_submit_with_file_and_line_in_the_log(world: World) -> None:
    changeset = await world.changeset({"entities/shop.yaml": 'name: "shop\nport: 80\n'})
    reply = await world.ann.post(f"{changeset}/submit")
    job = await world.job(reply["job"]["id"])
    assert (job["state"], job["reason_code"], job["exit_code"]) == ("failed", "tests_failed", 1)
    assert job["summary"]["report"]["failed"] == 1
    lines = (await world.ann.get(f"{world.path}/jobs/{job['id']}/logs"))["lines"]
    assert any("entities/shop.yaml:" in line["text"] for line in lines)
    shown = await world.ann.get(changeset)
    assert shown["gate"] == {"state": "failed", "job_id": job["id"], "reason_code": "tests_failed"}
    assert_error(await world.rob.send("POST", f"{changeset}/review", json={"action": "approve"}), 409, "gate_not_passed")


async def test_a_job_can_be_read_at_once_and_its_log_follows_while_it_runs(world: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    changeset = await world.changeset({"slow.flag": str(held)})
    reply = await world.ann.post(f"{changeset}/submit")
    assert reply["job"]["state"] == "queued"
    path = f"{world.path}/jobs/{reply['job']['id']}"
    assert (await world.ann.get(path))["job"]["job_type"] == "msuite_submit"
    assert_error(await world.rob.send("POST", f"{changeset}/review", json={"action": "approve"}), 409, "gate_not_passed")

    async def first_lines() -> list[str]:
        return [line["text"] for line in (await world.ann.get(f"{path}/logs"))["lines"]]

    assert await wait_for(first_lines, "the first line") == ["waiting while held exists"]
    held.unlink()
    assert (await world.job(reply["job"]["id"]))["state"] == "succeeded"
    whole = await world.ann.get(f"{path}/logs")
    assert whole["ended"]
    assert [line["seq"] for line in whole["lines"]] == list(range(1, len(whole["lines"]) + 1))
    rest = await world.ann.get(f"{path}/logs", params={"after": 1})
    assert rest["lines"] == whole["lines"][1:]
    stream = (await world.ann.send("GET", f"{path}/logs/stream")).text
    assert stream.count("event: line") == len(whole["lines"])
    assert "event: ended" in stream


async def test_a_canceled_gate_ends_its_processes_and_says_so(world: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    changeset = await world.changeset({"slow.flag": str(held)})
    reply = await world.ann.post(f"{changeset}/submit")
    path = f"{world.path}/jobs/{reply['job']['id']}"

    async def running() -> bool:
        return bool((await world.ann.get(f"{path}/logs"))["lines"])

    await wait_for(running, "the suite to run")
    assert_error(await world.rob.send("POST", f"{path}/cancel", json={}), 403, "forbidden")
    await world.ann.post(f"{path}/cancel")
    job = await world.job(reply["job"]["id"])
    assert (job["state"], job["reason_code"]) == ("canceled", "canceled")
    assert (await world.ann.get(changeset))["gate"]["state"] == "canceled"
    assert_error(await world.ann.send("POST", f"{path}/cancel", json={}), 409, "invalid_transition")


async def test_submit_freezes_a_revision_in_one_commit(world: World) -> None:
    changeset = await world.changeset({"entities/a.json": "{}", "entities/b.json": "{}"})
    reply = await world.ann.post(f"{changeset}/submit")
    assert set(reply) == {"changeset", "revision", "job", "included_profile_overrides"}
    assert set(reply["revision"]) >= REVISION_FIELDS
    assert reply["revision"]["head_sha"] == reply["changeset"]["head_sha"]
    workspace = await world.ann.get(f"{world.path}/workspaces/{reply['changeset']['workspace_id']}")
    assert workspace["head_sha"] == reply["revision"]["head_sha"]
    assert workspace["pending_edits"] == 0
    diff = await world.ann.get(f"{changeset}/diff")
    assert [row["path"] for row in diff["files"]] == ["entities/a.json", "entities/b.json"]
    assert diff["stats"]["files"] == 2


async def test_nothing_to_submit_is_a_conflict(world: World) -> None:
    workspace = await world.workspace()
    body = {"workspace_id": workspace.rpartition("/")[2], "title": "nothing"}
    made = await world.ann.post(f"{world.path}/changesets", body)
    assert_error(await world.ann.send("POST", f"{world.path}/changesets/{made['id']}/submit", json={}), 409, "conflict")


async def test_of_many_creates_at_once_a_workspace_gets_one_open_changeset(world: World) -> None:
    workspace = await world.workspace()
    body = {"workspace_id": workspace.rpartition("/")[2], "title": "one of many"}
    replies = await asyncio.gather(*(world.ann.send("POST", f"{world.path}/changesets", json=body) for _ in range(50)))
    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 49
    made = next(reply for reply in replies if reply.status_code == 201).json()["data"]
    refused = next(reply for reply in replies if reply.status_code == 409)
    assert assert_error(refused, 409, "conflict")["details"] == {"changeset_id": made["id"]}
    await world.ann.ok("DELETE", f"{world.path}/changesets/{made['id']}")
    await world.ann.post(f"{world.path}/changesets", body)


async def test_the_author_never_reviews(world: World) -> None:
    changeset = await world.submitted(person=world.rob)
    assert_error(await world.rob.send("POST", f"{changeset}/review", json={"action": "approve"}), 403, "forbidden")
    await world.max.post(f"{changeset}/review", {"action": "approve"})


async def test_two_reviewers_at_the_same_moment_both_count(world: World) -> None:
    changeset = await world.submitted()
    votes = await asyncio.gather(
        *(person.post(f"{changeset}/review", {"action": "request_changes"}) for person in (world.rob, world.max))
    )
    assert {vote["review"]["reviewer_user_id"] for vote in votes} == {world.rob.id, world.max.id}
    assert len(await world.ann.get(f"{changeset}/reviews")) == 2


async def test_forty_commands_at_once_on_one_entity_all_succeed(world: World) -> None:
    changeset = await world.submitted()
    body = {"action": "request_changes", "comment": "again"}
    replies = await asyncio.gather(*(world.rob.send("POST", f"{changeset}/review", json=body) for _ in range(40)))
    assert {reply.status_code for reply in replies} == {200}
    assert len(await world.ann.get(f"{changeset}/reviews", params={"limit": 100})) == 40
    events = await world.audit(entity_type="changeset", entity_id=changeset.rpartition("/")[2], action="changes_requested")
    assert len(events) == 40


async def test_a_resubmit_voids_votes_and_needs_something_new(world: World) -> None:
    changeset = await world.submitted()
    await world.rob.post(f"{changeset}/review", {"action": "request_changes"})
    assert_error(await world.ann.send("POST", f"{changeset}/resubmit", json={}), 409, "conflict")
    shown = await world.ann.get(changeset)
    await world.save(f"{world.path}/workspaces/{shown['workspace_id']}", "entities/more.json", "{}")
    reply = await world.ann.post(f"{changeset}/resubmit")
    assert (reply["changeset"]["state"], reply["changeset"]["current_revision"]) == ("submitted", 2)
    assert all(vote["void"] for vote in await world.ann.get(f"{changeset}/reviews"))
    assert [row["revision_number"] for row in await world.ann.get(f"{changeset}/revisions")] == [2, 1]


@pytest.mark.parametrize(
    ("verb", "body"), [("resubmit", {}), ("queue", {}), ("move-to-draft", {}), ("review", {"action": "approve"})]
)
async def test_what_a_draft_can_not_do_is_409_naming_both_states(world: World, verb: str, body: dict[str, str]) -> None:
    changeset = await world.changeset()
    person = world.rob if verb == "review" else world.ann
    error = assert_error(await person.send("POST", f"{changeset}/{verb}", json=body), 409, "invalid_transition")
    assert error["details"]["from"] == "draft"
    assert error["details"]["to"]


async def test_a_withdrawn_changeset_stays_withdrawn(world: World) -> None:
    changeset = await world.submitted()
    assert (await world.ann.send("DELETE", changeset)).status_code == 204
    for verb in ("submit", "resubmit", "queue", "move-to-draft"):
        assert_error(await world.ann.send("POST", f"{changeset}/{verb}", json={}), 409, "invalid_transition")
    assert_error(await world.ann.send("PATCH", changeset, json={"title": "late"}), 409, "invalid_transition")
    assert await world.state(changeset) == "withdrawn"


async def test_a_stale_version_of_a_title_is_409(world: World) -> None:
    changeset = await world.changeset()
    first = await world.ann.get(changeset)
    await world.ann.ok("PATCH", changeset, json={"title": "new", "version": first["version"]})
    assert_error(
        await world.ann.send("PATCH", changeset, json={"title": "newer", "version": first["version"]}), 409, "stale_write"
    )
    stale = {"If-Match": f'"{first["version"]}"'}
    assert_error(await world.ann.send("PATCH", changeset, json={"title": "newer"}, headers=stale), 409, "stale_write")
    assert (await world.ann.get(changeset))["title"] == "new"


async def test_a_repeated_submit_gives_the_same_revision_once(world: World) -> None:
    changeset = await world.changeset()
    key = {"Idempotency-Key": f"submit-{changeset}"}
    first = await world.ann.post(f"{changeset}/submit", headers=key)
    again = await world.ann.post(f"{changeset}/submit", headers=key)
    assert first["job"]["id"] == again["job"]["id"]
    assert again["changeset"]["current_revision"] == 1


async def test_queued_changesets_keep_their_order_and_can_leave(world: World) -> None:
    one, two = await world.queued(), await world.queued()
    ids = [path.rpartition("/")[2] for path in (one, two)]
    queue = await world.ann.get(f"{world.path}/queue")
    assert [item["changeset_id"] for item in queue["items"]][-2:] == ids
    everything = [item["changeset_id"] for item in queue["items"]]
    body = {"ordered_changeset_ids": everything[::-1]}
    assert_error(await world.max.send("POST", f"{world.path}/queue/reorder", json=body), 400, "validation_error")
    stale = {"If-Match": str(queue["version"] - 1)}
    assert_error(await world.max.send("POST", f"{world.path}/queue/reorder", json=body, headers=stale), 409, "stale_write")
    fresh = {"If-Match": str(queue["version"])}
    short = {"ordered_changeset_ids": everything[1:]}
    assert_error(await world.max.send("POST", f"{world.path}/queue/reorder", json=short, headers=fresh), 400, "validation_error")
    reordered = await world.max.post(f"{world.path}/queue/reorder", body, headers=fresh)
    assert [item["changeset_id"] for item in reordered["items"]] == everything[::-1]
    left = await world.ann.post(f"{one}/move-to-draft")
    assert left["state"] == "draft"
    assert left["queue_position"] is None
    assert ids[0] not in [item["changeset_id"] for item in (await world.ann.get(f"{world.path}/queue"))["items"]]


async def test_what_is_behind_is_refused_by_the_queue_and_synced_by_the_next_submit(world: World) -> None:
    late = await world.approved()
    await world.published()
    error = assert_error(await world.ann.send("POST", f"{late}/queue", json={}), 409, "out_of_date")
    assert "draft" in error["message"]
    assert not (await world.ann.get(late))["up_to_date"]
    await world.ann.post(f"{late}/move-to-draft")
    reply = await world.ann.post(f"{late}/submit")
    assert reply["changeset"]["up_to_date"]
    await world.job(reply["job"]["id"])


async def test_a_submit_whose_sync_conflicts_is_out_of_date_with_paths(world: World) -> None:
    path = f"entities/shared{world.fresh()}.json"
    mine = await world.changeset({path: '{"mine": 1}'})
    theirs = await world.queued({path: '{"theirs": 2}'})
    release = await world.validated(theirs)
    await world.max.post(f"{release}/publish")
    error = assert_error(await world.ann.send("POST", f"{mine}/submit", json={}), 409, "out_of_date")
    assert [conflict["path"] for conflict in error["details"]["conflicts"]] == [path]
    assert await world.state(mine) == "draft"
