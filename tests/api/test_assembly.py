"""Assembling over HTTP: who is blamed, what excludes what, and the dry run (`spec.md` 11)."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.support.conman_stack import World, assert_error, last


def refs(world: World) -> str:
    repo = world.stack.data / "repositories" / world.app["repo_path"]
    return subprocess.run(["git", "-C", str(repo), "for-each-ref"], capture_output=True, text=True, check=True).stdout


async def assembled(world: World, release: str) -> dict[str, Any]:
    """The assembly's job, when it has ended."""
    reply = await world.max.post(f"{release}/assemble")
    return await world.job(reply["job"]["id"])


async def everything(world: World, release: str) -> tuple[Any, ...]:
    """What a dry run must leave as it is."""
    events = [event["id"] for event in await world.audit()]
    jobs, page = await world.max.listed(f"{world.path}/jobs", limit=100)
    return await world.max.get(release), events, page["total"], [job["id"] for job in jobs], refs(world)


async def dry_run(world: World, release: str) -> dict[str, Any]:
    """What it tells; it changes nothing."""
    before = await everything(world, release)
    reply = await world.max.send("POST", f"{release}/assemble", params={"dry_run": "true"}, json={})
    assert reply.status_code == 200, reply.text
    assert await everything(world, release) == before
    told = reply.json()["data"]
    assert (told["release"], told["job"]) == (before[0], None)
    return told["dry_run"]


async def test_culprits_are_found_one_assembly_after_the_other_and_the_rest_stays_reserved_in_order(own: World) -> None:
    """Each file is fine alone; two in one tree fail. Of those that fail together the later one is blamed."""
    names = ["one.quarrel", "fine", "two.quarrel", "good", "three.quarrel"]
    paths = [await own.queued({name: "x\n"} if "quarrel" in name else None) for name in names]
    ids = dict(zip(names, map(last, paths), strict=True))
    release = await own.release(*paths)
    assert (await dry_run(own, release))["would"] == "validate", "what its suites will say is not known before they run"
    left = list(names)
    for culprit in ("two.quarrel", "three.quarrel"):
        job = await assembled(own, release)
        assert (job["state"], job["reason_code"]) == ("failed", "tests_failed")
        assert job["result"]["failure"]["changeset_id"] == ids[culprit]
        assert await own.state(f"{own.path}/changesets/{ids[culprit]}") == "needs_revalidation"
        left.remove(culprit)
        shown = await own.max.get(release)
        assert (shown["state"], shown["ordered_changeset_ids"]) == ("draft_release", [ids[name] for name in left])
        suites = [await own.job(job_id) for job_id in job["result"]["gate_job_ids"]]
        *_, low, high = suites
        where = left.index("good") if culprit == "two.quarrel" else len(left)
        assert [one["result"]["prefix"] for one in (low, high)] == [where, where + 1]
        assert [one["summary"].get("reused_from") for one in (low, high)] == [None, None], "a doubt is not answered from a record"
    assert (await assembled(own, release))["reason_code"] == "ok"
    told = await dry_run(own, release)
    assert told["would"] == "validate"
    assert [gate["reused"] for gate in told["gates"]] == [True], "the suite has just passed on this very tree"
    (pinned,) = told["gates"]
    shown = await own.max.get(release)
    assert (shown["state"], shown["base_sha"]) == ("validated", told["base_sha"])
    production = next(one for one in await own.environments() if one["is_canonical"])
    assert (pinned["environment"], pinned["profile_id"]) == (production["name"], production["runtime_profile_id"])
    again = await own.audit(entity_id=last(release), action="assembled")
    assert again[-1]["after"]["ordered_changeset_ids"] == [ids[name] for name in left]
    assert again[-1]["after"]["base_sha"] == shown["base_sha"]


async def test_a_selection_that_does_not_merge_says_which_pairs_exclude_each_other(own: World) -> None:
    first = await own.queued({"shared.json": '{"a": 1}'})
    second = await own.queued({"shared.json": '{"a": 2}', "other.json": '{"a": 2}'})
    third = await own.queued({"other.json": '{"a": 3}'})
    release = await own.release(first, second, third)
    told = await dry_run(own, release)
    assert told["would"] == "conflict"
    assert [(row["clean"], row["paths"]) for row in told["merges"]] == [(True, []), (False, ["shared.json"]), (True, [])]
    job = await assembled(own, release)
    assert job["result"]["failure"]["changeset_id"] == last(second)
    for found in (told, job["result"]):
        assert found["excludes"] == [[last(first), last(second)], [last(second), last(third)]]
        assert found["largest_subset"] == [last(first), last(third)]
        assert (found["alone"], found["untested"], found["exact"]) == ([], True, True)
    shown = await own.max.get(release)
    assert (shown["failure"]["reason_code"], shown["failure"]["paths"]) == ("conflict", ["shared.json"])
    assert shown["ordered_changeset_ids"] == [last(first), last(third)]
    assert (await assembled(own, release))["reason_code"] == "ok"


async def test_a_dry_run_is_for_managers_and_for_what_can_be_assembled(own: World) -> None:
    release = await own.release(await own.queued())
    for value in ("maybe", "", "2"):
        reply = await own.max.send("POST", f"{release}/assemble", params={"dry_run": value}, json={})
        details = assert_error(reply, 400, "validation_error")["details"]
        assert [row["field"] for row in details] == ["dry_run"]
    asked = {"params": {"dry_run": "true"}, "json": {}}
    assert_error(await own.rob.send("POST", f"{release}/assemble", **asked), 403, "forbidden")
    unknown = f"{own.path}/releases/{own.app['id']}"
    assert_error(await own.max.send("POST", f"{unknown}/assemble", **asked), 404, "not_found")
    key = {"Idempotency-Key": "a-dry-run"}
    first = await own.max.send("POST", f"{release}/assemble", headers=key, **asked)
    assert (first.status_code, first.json()["data"]["dry_run"]["would"]) == (200, "validate")
    again = await own.max.send("POST", f"{release}/assemble", headers=key, **asked)
    assert again.json() == first.json()
    assert_error(await own.max.send("POST", f"{release}/assemble", headers=key, json={}), 409, "conflict")
    await own.max.send("DELETE", release)
    assert_error(await own.max.send("POST", f"{release}/assemble", **asked), 409, "invalid_transition")
    empty = await own.max.post(f"{own.path}/releases", {})
    assert_error(await own.max.send("POST", f"{own.path}/releases/{empty['id']}/assemble", **asked), 409, "conflict")
