"""A job's log as a stream, and cancels (`api.md` 3, `spec.md` 9)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conman.domain.jobs import JobType
from tests.support.conman_stack import World, assert_error, last


async def events(reply: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Server-sent events as they arrive, comments left out."""
    event: dict[str, str] = {}
    async for line in reply.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "event" in event:
            yield event
            event = {}


async def stream(world: World, job: str, last_event_id: str | None = None, **params: Any) -> list[dict[str, str]]:
    """All events until the stream ends."""
    headers = world.ann.headers if last_event_id is None else {**world.ann.headers, "Last-Event-ID": last_event_id}
    async with world.stack.client.stream("GET", f"{job}/logs/stream", headers=headers, params=params) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        return [event async for event in events(reply)]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    path = tmp_path / "held"
    path.touch()
    return path


async def test_the_stream_gives_lines_while_the_suite_runs_and_says_when_it_has_ended(world: World, held: Path) -> None:
    reply = await world.ann.post(f"{await world.changeset({'slow.flag': str(held)})}/submit")
    job = f"{world.path}/jobs/{reply['job']['id']}"
    seen: list[dict[str, str]] = []
    async with world.stack.client.stream("GET", f"{job}/logs/stream", headers=world.ann.headers) as open_reply:
        async for event in events(open_reply):
            if not seen:  # the suite waits for this file: the line was sent while it ran
                assert (await world.ann.get(job))["job"]["state"] == "running"
                await asyncio.to_thread(held.unlink)
            seen.append(event)
    lines = [json.loads(event["data"]) for event in seen[:-1]]
    assert seen[-1]["event"] == "ended"
    assert lines[0]["text"] == "waiting while held exists"
    assert lines == (await world.ann.get(f"{job}/logs"))["lines"]
    assert all(set(line) == {"seq", "at", "stream", "text"} for line in lines)
    assert [event["id"] for event in seen[:-1]] == [f"1:{line['seq']}" for line in lines]
    assert json.loads(seen[-1]["data"]) == {"attempt": 1, "state": "succeeded", "reason_code": "ok"}


async def test_a_stream_goes_on_after_the_last_line_that_was_seen(world: World) -> None:
    shown = await world.ann.get(await world.submitted({"a.json": "{", "b.json": "{"}))
    job = f"{world.path}/jobs/{shown['gate']['job_id']}"
    whole = await stream(world, job)
    assert len(whole) > 2
    number = json.loads(whole[0]["data"])["seq"]
    assert await stream(world, job, after=whole[0]["id"]) == whole[1:]
    assert await stream(world, job, after=number) == whole[1:]
    assert await stream(world, job, attempt=1, after=number) == whole[1:]
    assert await stream(world, job, last_event_id=whole[0]["id"], after=0) == whole[1:]
    assert await stream(world, job, after=whole[-2]["id"]) == whole[-1:]


async def test_the_streams_refusals_are_the_same_as_everywhere(world: World) -> None:
    assert_error(await world.ann.send("GET", f"{world.path}/jobs/nothing/logs/stream"), 404, "not_found")
    shown = await world.ann.get(await world.submitted())
    job = f"{world.path}/jobs/{shown['gate']['job_id']}"
    for query in ("after=-1", "after=x", f"after={10**30}"):
        assert_error(await world.ann.send("GET", f"{job}/logs/stream?{query}"), 400, "validation_error")
        assert_error(await world.ann.send("GET", f"{job}/logs?{query}"), 400, "validation_error")
    for query, header in (("attempt=0", "1:1"), ("attempt=2", "1:1"), ("", "x"), ("", "1:2:3"), ("", "1:-1")):
        refused = await world.ann.send("GET", f"{job}/logs/stream?{query}", headers={"Last-Event-ID": header})
        assert_error(refused, 400, "validation_error")


async def test_jobs_are_listed_by_type_state_and_entity(world: World) -> None:
    good, bad = await world.submitted(), await world.submitted({"broken.json": "{"})
    jobs = f"{world.path}/jobs"
    for changeset, state in ((good, "succeeded"), (bad, "failed")):
        rows, pagination = await world.ann.listed(jobs, entity_id=last(changeset), type="msuite_submit", state=state)
        assert ([row["state"] for row in rows], pagination["total"]) == ([state], 1)
    rows, _ = await world.ann.listed(jobs, entity_id=last(good), state="queued,failed")
    assert rows == []
    both, _ = await world.ann.listed(jobs, type="msuite_submit", state=["failed", "succeeded"])
    assert {last(good), last(bad)} <= {row["entity_id"] for row in both}
    for kind in JobType:
        rows, _ = await world.ann.listed(jobs, type=kind.value)
        assert all(row["job_type"] == kind.value for row in rows)
    for query in ("type=nothing", "type=", "state=succeeded,nothing", "state=", "page=0", "limit=0", "limit=101", "page=x"):
        assert_error(await world.ann.send("GET", f"{jobs}?{query}"), 400, "validation_error")


async def test_the_pages_of_jobs_hold_each_once_newest_first(own: World) -> None:
    for _ in range(3):
        await own.submitted()
    jobs = f"{own.path}/jobs"
    whole, pagination = await own.ann.listed(jobs, limit=100)
    pages = [await own.ann.listed(jobs, page=number, limit=1) for number in range(1, pagination["total"] + 1)]
    assert [row["id"] for rows, _ in pages for row in rows] == [row["id"] for row in whole]
    assert [row["id"] for row in whole] == sorted((row["id"] for row in whole), reverse=True)


async def test_the_job_of_a_deployment_is_canceled_with_its_deployment(own: World) -> None:
    release = await own.published()
    production = (await own.environments())[-1]["id"]
    body = {"release_id": last(release), "skip_stage": True}  # waits for a second approval
    reply = await own.max.post(f"{own.path}/environments/{production}/deploy", body)
    job = f"{own.path}/jobs/{reply['job']['id']}"
    assert_error(await own.ann.send("POST", f"{job}/cancel", json={}), 403, "forbidden")
    canceled = await own.max.post(f"{job}/cancel")
    assert (canceled["job"]["state"], canceled["job"]["reason_code"]) == ("canceled", "canceled")
    assert (await own.max.get(f"{own.path}/deployments/{reply['deployment']['id']}"))["state"] == "canceled"
    assert_error(await own.max.send("POST", f"{job}/cancel", json={}), 409, "invalid_transition")
    assert await own.audit(entity_type="job") == []
    assert [event["action"] for event in await own.audit(entity_type="deployment")].count("canceled") == 1


async def test_an_assembly_that_is_canceled_returns_its_release_to_draft(own: World, held: Path) -> None:
    one = await own.queued({"slow.flag": str(held.with_name("gone"))})
    release = await own.release(one)
    await asyncio.to_thread(held.rename, held.with_name("gone"))  # from here on the suite waits
    reply = await own.max.post(f"{release}/assemble")
    job = f"{own.path}/jobs/{reply['job']['id']}"
    assert_error(await own.ann.send("POST", f"{job}/cancel", json={}), 403, "forbidden")
    await own.max.post(f"{job}/cancel")
    ended = await own.job(reply["job"]["id"])
    assert (ended["state"], ended["reason_code"]) == ("canceled", "canceled")
    assert await own.state(release) == "draft_release"
    assert await own.state(one) == "queued"
    assert [event["action"] for event in await own.audit(entity_type="job")] == ["canceled"]
