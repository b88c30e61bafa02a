"""Reviews over HTTP: asking for one, votes that a rebase keeps, gates that are run again, and the two gates of the queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from tests.api.outbox import mails_to
from tests.support.conman_stack import World, assert_error, last, wait_for

SHARED = "entities/shared.json"


async def save(world: World, changeset: str, path: str, text: str = "{}") -> None:
    workspace = (await world.ann.get(changeset))["workspace_id"]
    await world.save(f"{world.path}/workspaces/{workspace}", path, text)


async def again(world: World, changeset: str, verb: str = "resubmit") -> dict[str, Any]:
    """The reply of a (re)submit whose gate has ended."""
    reply = await world.ann.post(f"{changeset}/{verb}")
    await world.job(reply["job"]["id"])
    return reply


async def last_audit(world: World, changeset: str, action: str) -> dict[str, Any]:
    return (await world.audit(entity_id=last(changeset), action=action))[0]


# -- asking for a review -----------------------------------------------------------------------------------------------------


async def test_who_is_asked_to_review_gets_a_mail_with_a_link_to_the_changeset(world: World) -> None:
    changeset = await world.submitted()
    asked = await world.join("reviewer")
    shown = await world.ann.post(f"{changeset}/request-review", {"user_id": asked.id})
    assert shown["id"] == last(changeset)
    await world.ann.post(f"{changeset}/request-review", {"user_id": asked.id})

    async def mailed() -> list[Any]:
        # Who has just joined may be told of the submit, too.
        return [mail for mail in mails_to(world.stack, asked.email) if mail["Subject"].startswith("Review requested")]

    (mail,) = await wait_for(mailed, "the mail")
    assert shown["title"] in mail["Subject"]
    assert f"/apps/{world.app['id']}/changesets/{shown['id']}" in mail.get_body(("plain",)).get_content()
    (event,) = await world.audit(entity_id=shown["id"], action="review_requested")
    assert event["after"] == {"reviewer_user_id": asked.id, "revision_number": 1}


async def test_only_who_may_review_and_is_not_the_author_is_asked(world: World) -> None:
    changeset = await world.submitted()
    theirs = await world.submitted(person=world.rob)
    for path, asking, asked in (
        (changeset, world.ann, world.ann),
        (changeset, world.ann, await world.join("user")),
        (changeset, world.ann, world.stranger),
        (theirs, world.rob, world.rob),
    ):
        reply = await asking.send("POST", f"{path}/request-review", json={"user_id": asked.id})
        assert assert_error(reply, 400, "validation_error")["details"][0]["field"] == "user_id"
    reply = await world.max.send("POST", f"{changeset}/request-review", json={"user_id": world.rob.id})
    assert_error(reply, 403, "forbidden")


# -- votes that are carried --------------------------------------------------------------------------------------------------


async def test_a_pure_rebase_keeps_its_vote_and_says_so(own: World) -> None:
    await own.set(carry_votes="identical_patch", required_approval_count=2)
    changeset = await own.submitted()
    await own.rob.post(f"{changeset}/review", {"action": "approve"})
    await own.set(required_approval_count=1)
    await own.published()
    await own.set(required_approval_count=2)
    reply = await again(own, changeset)
    assert (reply["changeset"]["state"], reply["changeset"]["approval_count"]) == ("submitted", 1)
    assert reply["changeset"]["gate"]["job_id"] == reply["job"]["id"]
    assert (await last_audit(own, changeset, "resubmitted"))["after"]["votes"] == "carried"
    (vote,) = await own.ann.get(f"{changeset}/reviews")
    assert (vote["revision_number"], vote["carried_to"], vote["void"]) == (1, 2, False)
    await own.max.post(f"{changeset}/review", {"action": "approve"})
    assert await own.state(changeset) == "approved"


async def test_what_was_approved_and_fell_behind_is_approved_again_by_its_gate_alone(own: World) -> None:
    await own.set(carry_votes="identical_patch")
    changeset = await own.approved()
    await own.published()
    assert_error(await own.ann.send("POST", f"{changeset}/queue", json={}), 409, "out_of_date")
    assert (await own.ann.post(f"{changeset}/move-to-draft"))["approval_count"] == 0
    await again(own, changeset, "submit")
    assert (await last_audit(own, changeset, "submitted"))["after"]["votes"] == "carried"

    async def approved() -> bool:
        return await own.state(changeset) == "approved"

    await wait_for(approved, "the approval")
    assert (await last_audit(own, changeset, "approved"))["actor_user_id"] is None
    assert (await own.ann.post(f"{changeset}/queue"))["state"] == "queued"


@pytest.mark.parametrize("setting", ["never", "identical_patch"])
async def test_votes_are_void_without_the_setting_or_with_another_patch(own: World, setting: str) -> None:
    await own.set(carry_votes=setting, required_approval_count=2)
    changeset = await own.submitted()
    await own.rob.post(f"{changeset}/review", {"action": "approve"})
    await save(own, changeset, "entities/more.json")
    reply = await again(own, changeset)
    assert reply["changeset"]["approval_count"] == 0
    assert (await last_audit(own, changeset, "resubmitted"))["after"]["votes"] == "voided"


async def test_who_lost_the_role_meanwhile_has_no_vote_to_carry(own: World) -> None:
    await own.set(carry_votes="identical_patch")
    changeset = await own.approved()
    await own.published()
    await own.ann.post(f"{changeset}/move-to-draft")
    await own.eve.ok("PATCH", f"{own.path}/members/{own.rob.id}", json={"role": "user"})
    await again(own, changeset, "submit")
    shown = await own.ann.get(changeset)
    assert (shown["state"], shown["approval_count"]) == ("submitted", 0)


async def test_an_approval_decides_with_the_count_that_the_setting_has_then(own: World) -> None:
    changeset = await own.submitted()
    await own.set(required_approval_count=2)
    await own.rob.post(f"{changeset}/review", {"action": "approve"})
    shown = await own.ann.get(changeset)
    assert (shown["state"], shown["required_approval_count"]) == ("in_review", 2)
    assert "1 more approval" in shown["waiting_for"]
    await own.set(required_approval_count=1)
    await own.max.post(f"{changeset}/review", {"action": "approve"})
    assert await own.state(changeset) == "approved"


# -- gates that are run again ------------------------------------------------------------------------------------------------


async def running_gate(world: World, held: Path) -> tuple[str, str]:
    """A changeset whose gate runs until this file, which is there, is gone, and the path of its job."""
    changeset = await world.changeset({"slow.flag": str(held)})
    job = (await world.ann.post(f"{changeset}/submit"))["job"]
    return changeset, f"{world.path}/jobs/{job['id']}"


async def test_a_gate_without_a_verdict_is_run_again_as_a_new_job_and_votes_stay(world: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    changeset, job = await running_gate(world, held)
    assert_error(await world.ann.send("POST", f"{job}/retry", json={}), 409, "invalid_transition")
    await world.rob.post(f"{changeset}/review", {"action": "request_changes"})
    await world.ann.post(f"{job}/cancel")
    await world.job(last(job))
    shown = await world.ann.get(changeset)
    assert shown["gate"]["reason_code"] == "canceled"
    held.unlink()
    assert_error(await world.rob.send("POST", f"{job}/retry", json={}), 403, "forbidden")
    reply = await world.ann.send("POST", f"{job}/retry", json={})
    assert reply.status_code == 202
    renewed = reply.json()["data"]["job"]
    assert (renewed["job_type"], renewed["state"]) == ("msuite_submit", "queued") and renewed["id"] != last(job)
    assert (await world.job(renewed["id"]))["state"] == "succeeded"
    after = await world.ann.get(changeset)
    assert (after["gate"]["job_id"], after["gate"]["state"]) == (renewed["id"], "succeeded")
    assert (after["state"], after["current_revision"]) == ("changes_requested", 1)
    assert [vote["void"] for vote in await world.ann.get(f"{changeset}/reviews")] == [False]
    (event,) = await world.audit(entity_id=last(job), action="retried")
    assert (event["before"]["job_id"], event["after"]["job_id"]) == (last(job), renewed["id"])
    assert_error(await world.ann.send("POST", f"{job}/retry", json={}), 409, "conflict")
    assert_error(await world.ann.send("POST", f"{world.path}/jobs/{renewed['id']}/retry", json={}), 409, "invalid_transition")
    await world.rob.post(f"{changeset}/review", {"action": "approve"})


async def test_a_verdict_of_the_suite_is_not_asked_for_again(world: World) -> None:
    changeset = await world.submitted({"entities/broken.json": "{"})
    job = (await world.ann.get(changeset))["gate"]["job_id"]
    error = assert_error(await world.ann.send("POST", f"{world.path}/jobs/{job}/retry", json={}), 409, "invalid_transition")
    assert "resubmit" in error["message"]


async def test_a_resubmit_supersedes_the_gate_before_which_is_not_run_again(world: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    changeset, job = await running_gate(world, held)
    await save(world, changeset, "slow.flag", "no file")
    reply = await world.ann.post(f"{changeset}/resubmit")
    superseded = await world.job(last(job))
    assert (superseded["state"], superseded["reason_code"]) == ("canceled", "superseded")
    assert_error(await world.ann.send("POST", f"{job}/retry", json={}), 409, "conflict")
    assert (await world.job(reply["job"]["id"]))["state"] == "succeeded"


async def test_a_revalidation_without_a_verdict_is_run_again(own: World, tmp_path: Path) -> None:
    held = tmp_path / "held"
    changeset = await own.queued({"slow.flag": str(held)})
    held.touch()
    await own.published()
    job = (await own.ann.get(changeset))["last_revalidation_job_id"]
    path = f"{own.path}/jobs/{job}"

    async def runs() -> bool:
        return (await own.ann.get(path))["job"]["state"] == "running"

    await wait_for(runs, "the revalidation to run")
    await own.ann.post(f"{path}/cancel")
    await own.job(job)
    assert (await own.ann.get(changeset))["last_revalidation_status"] == "unknown"
    held.unlink()
    renewed = (await own.ann.post(f"{path}/retry"))["job"]
    assert (await own.job(renewed["id"]))["state"] == "succeeded"
    shown = await own.ann.get(changeset)
    assert (shown["state"], shown["last_revalidation_status"], shown["last_revalidation_job_id"]) == (
        "queued",
        "valid",
        renewed["id"],
    )
    assert len(await own.audit(entity_id=job, action="retried")) == 1


# -- the gates of the queue --------------------------------------------------------------------------------------------------


async def revalidated(world: World, changeset: str) -> str:
    """The status that the queue's revalidation ends in."""

    async def look() -> Any:
        status = (await world.ann.get(changeset))["last_revalidation_status"]
        return status if status != "running" else None

    return await wait_for(look, "the revalidation")


async def test_what_is_behind_enters_by_a_clean_merge_and_is_revalidated_at_once(own: World) -> None:
    await own.set(queue_gate="clean_merge")
    clean, clashing = await own.approved(), await own.approved({SHARED: '{"mine": 1}'})
    theirs = await own.queued({SHARED: '{"theirs": 1}'})
    await own.max.post(f"{await own.validated(theirs)}/publish")
    shown = await own.ann.get(clean)
    assert (shown["up_to_date"], [blocker["code"] for blocker in shown["blockers"]]) == (False, ["not_queued"])
    queued = await own.ann.post(f"{clean}/queue")
    assert (queued["state"], queued["queue_position"]) == ("queued", 1)
    assert queued["last_revalidation_job_id"]
    assert await revalidated(own, clean) == "valid"
    error = assert_error(await own.ann.send("POST", f"{clashing}/queue", json={}), 409, "conflict")
    assert [conflict["path"] for conflict in error["details"]["conflicts"]] == [SHARED]
    assert SHARED in error["message"]
    assert await own.state(clashing) == "approved"


async def test_a_submit_with_the_gate_of_a_clean_merge_stays_where_it_is(own: World) -> None:
    await own.set(queue_gate="clean_merge")
    changeset = await own.changeset()
    await own.published()
    reply = await again(own, changeset, "submit")
    assert not reply["changeset"]["up_to_date"]
    await own.rob.post(f"{changeset}/review", {"action": "approve"})
    assert (await own.ann.post(f"{changeset}/queue"))["state"] == "queued"
    assert await revalidated(own, changeset) == "valid"


async def test_a_hotpatch_starts_from_what_runs_needs_two_approvals_and_enters_at_the_head(own: World) -> None:
    running = await own.published()
    production = (await own.environments())[-1]
    change = {"$set": {"owned.current_release_id": last(running)}}  # as if it had been deployed there
    await own.stack.db["environments"].update_one({"_id": production["id"]}, change)
    await own.published()
    ordinary = await own.queued()
    workspace = await own.ann.post(f"{own.path}/workspaces", {"from_release_id": last(running)})
    await own.save(f"{own.path}/workspaces/{workspace['id']}", "entities/hot.json", "{}")
    made = await own.ann.post(f"{own.path}/changesets", {"workspace_id": workspace["id"], "title": "at once"})
    changeset = f"{own.path}/changesets/{made['id']}"
    reply = await again(own, changeset, "submit")
    assert (reply["changeset"]["hotpatch"], reply["changeset"]["up_to_date"]) == (True, False)
    assert reply["revision"]["base_sha"] == (await own.ann.get(running))["published_sha"]
    assert reply["changeset"]["required_approval_count"] == 2
    await own.rob.post(f"{changeset}/review", {"action": "approve"})
    assert await own.state(changeset) == "in_review"
    await own.max.post(f"{changeset}/review", {"action": "approve"})
    queued = await own.ann.post(f"{changeset}/queue")
    assert (queued["queue_position"], (await own.ann.get(ordinary))["queue_position"]) == (1, 2)
    assert await revalidated(own, changeset) == "valid"
    await own.max.post(f"{await own.validated(changeset)}/publish")
    assert await own.state(changeset) == "released"


# -- the timeline ------------------------------------------------------------------------------------------------------------


async def timeline(world: World, changeset: str, **query: Any) -> tuple[dict[str, Any], dict[str, int]]:
    reply = await world.ann.send("GET", f"{changeset}/timeline", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()["data"], reply.json()["pagination"]


async def test_the_timeline_tells_in_order_what_happened_and_what_it_waits_for(world: World) -> None:
    changeset = await world.submitted()
    await world.ann.post(f"{changeset}/request-review", {"user_id": world.rob.id})
    await world.rob.post(f"{changeset}/review", {"action": "approve"})
    found, pagination = await timeline(world, changeset)
    assert set(found) == {"events", "waiting_for", "blockers"}
    told = [(event["entity_type"], event["action"], event["actor_user_id"]) for event in found["events"]]
    assert told == [
        ("changeset", "created", world.ann.id),
        ("changeset", "submitted", world.ann.id),
        ("job", "started", None),
        ("job", "ended", None),
        ("changeset", "review_requested", world.ann.id),
        ("changeset", "approved", world.rob.id),
    ]
    assert pagination == {"page": 1, "limit": 20, "total": 6}
    assert found["events"][3]["after"] == {"job_type": "msuite_submit", "state": "succeeded", "reason_code": "ok"}
    times = [event["occurred_at"] for event in found["events"]]
    assert times == sorted(times)
    assert {"ip", "context"} & set(found["events"][0]) == set()
    shown = await world.ann.get(changeset)
    assert (found["waiting_for"], found["blockers"]) == (shown["waiting_for"], shown["blockers"])
    assert found["blockers"][0]["message"] == found["waiting_for"]
    assert (found["blockers"][0]["code"], found["blockers"][0]["who"]) == ("not_queued", "author")


async def test_the_timeline_is_paged(world: World) -> None:
    changeset = await world.submitted()
    whole, _ = await timeline(world, changeset)
    pages = await asyncio.gather(*(timeline(world, changeset, page=page, limit=3) for page in (1, 2, 3)))
    assert [event for found, _ in pages for event in found["events"]] == whole["events"]
    assert [len(found["events"]) for found, _ in pages] == [3, 1, 0]
    assert {total["total"] for _, total in pages} == {4}


async def test_the_same_sentence_stands_in_the_details_of_the_workflow(world: World) -> None:
    changeset = await world.submitted()
    shown = await world.ann.get(changeset)
    client = await Client.connect(world.stack.ready["temporal_address"])
    details = await client.get_workflow_handle(f"changeset:{shown['id']}").query("__temporal_workflow_metadata")
    assert shown["waiting_for"] in str(details)


@pytest.mark.parametrize(
    ("prepare", "code"),
    [("draft", "not_submitted"), ("failed", "gate_not_passed"), ("asked", "changes_requested"), ("queued", "not_in_a_release")],
)
async def test_what_is_missing_has_a_code(world: World, prepare: str, code: str) -> None:
    match prepare:
        case "draft":
            changeset = await world.changeset()
        case "failed":
            changeset = await world.submitted({"entities/broken.json": "{"})
        case "asked":
            changeset = await world.submitted()
            await world.rob.post(f"{changeset}/review", {"action": "request_changes"})
        case _:
            changeset = await world.queued()
    assert (await world.ann.get(changeset))["blockers"][0]["code"] == code
