"""What happens in an app, live (`api.md` 3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from conman.domain.feed import FeedType
from tests.support.conman_stack import DEADLINE_SECONDS, Person, World, assert_error, last


@dataclass
class Stream:
    """A stream as a client reads it."""

    lines: AsyncIterator[str]
    last_id: str = ""

    async def event(self) -> dict[str, Any] | None:
        """The next event with its data read, None at the end of the stream."""
        event: dict[str, Any] = {}
        async for line in self.lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name in ("event", "data"):
                event[name] = json.loads(value) if name == "data" else value
            elif not line and event:
                return {**event, "id": self.last_id}
        return None

    async def until(self, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The next events, up to one."""
        seen: list[dict[str, Any]] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (event := await self.event()) is not None:
                seen.append(event)
                if is_last(event):
                    return seen
        raise AssertionError(f"the stream ended after {seen}")


@asynccontextmanager
async def following(world: World, person: Person, last_event_id: str | None = None, **params: Any) -> AsyncIterator[Stream]:
    """A stream whose reader knows where it is."""
    headers = person.headers if last_event_id is None else {**person.headers, "Last-Event-ID": last_event_id}
    async with world.stack.client.stream("GET", f"{world.path}/events", headers=headers, params=params) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = reply.aiter_lines()
        first = await asyncio.wait_for(anext(lines), DEADLINE_SECONDS)  # at once, though nothing happens
        assert first.startswith("id: ")
        yield Stream(lines, first.removeprefix("id: "))


def told(event: dict[str, Any]) -> tuple[str, str, str | None]:
    return event["event"], event["data"]["action"], event["data"].get("state")


def is_end_of(job_id: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["data"].get("entity_id") == job_id and event["data"]["action"] == "ended"


async def test_a_member_sees_a_changeset_and_its_job_on_their_way_and_goes_on_where_a_stream_broke_off(world: World) -> None:
    path = await world.changeset()
    async with following(world, world.rob) as stream:
        began = stream.last_id
        reply = await world.ann.post(f"{path}/submit")
        seen = await stream.until(is_end_of(reply["job"]["id"]))
    own = [one for one in seen if last(path) in (one["data"]["entity_id"], one["data"].get("subject", {}).get("id"))]
    assert [told(one) for one in own][:2] == [("changeset", "submitted", "submitted"), ("job", "queued", "queued")]
    assert told(own[-1]) == ("job", "ended", "succeeded")
    assert own[-1]["data"]["subject"] == {"type": "changeset", "id": last(path)}
    assert own[0]["data"]["actor_user_id"] == world.ann.id
    assert all(one["id"] == one["data"]["id"] and one["event"] == one["data"]["type"] for one in seen)
    assert [int(one["id"]) for one in seen] == sorted({int(one["id"]) for one in seen})
    for given in ({"after": began}, {"last_event_id": began, "after": "0"}):
        async with following(world, world.ann, **given) as again:
            assert await again.until(is_end_of(reply["job"]["id"])) == seen
    async with following(world, world.ann, after=seen[2]["id"], types="job") as jobs:
        wanted = [one for one in seen[3:] if one["event"] == "job"]
        assert await jobs.until(is_end_of(reply["job"]["id"])) == wanted


async def test_a_publish_tells_of_the_queue_the_release_and_its_changesets(own: World) -> None:
    async with following(own, own.ann) as stream:
        release = await own.published()
        seen = await stream.until(lambda one: one["event"] == "queue" and one["data"].get("integration_sha") is not None)
        seen += await stream.until(lambda one: told(one)[:2] == ("changeset", "released"))
    actions = {(one["event"], one["data"]["action"]) for one in seen}
    assert {("changeset", "queued"), ("queue", "updated"), ("release", "created"), ("release", "published")} <= actions
    published = next(one for one in seen if told(one)[:2] == ("release", "published"))
    assert published["data"]["entity_id"] == last(release) and published["data"]["state"] == "published"


async def test_nothing_of_another_app_and_nothing_of_what_only_admins_see_is_told(world: World, own: World) -> None:
    async with following(world, world.ann) as stream:
        await own.submitted()
        version = (await world.eve.get(world.path))["version"]
        secret = {"type": "string", "value": "do not tell"}
        await world.eve.ok("PATCH", f"{world.path}/settings", json={"env_defaults": {"TOKEN": secret}, "version": version})
        path = await world.submitted()
        seen = await stream.until(lambda one: one["data"].get("subject", {}).get("id") == last(path))
    assert "do not tell" not in json.dumps(seen)
    assert ("app", "settings_updated") in {told(one)[:2] for one in seen}
    events = world.stack.db["feed"]
    assert {row["app_id"] async for row in events.find({"entity_id": {"$in": [one["data"]["entity_id"] for one in seen]}})} == {
        world.app["id"]
    }


async def test_a_stream_ends_with_its_readers_access(world: World) -> None:
    sam, kim = await world.join("user"), await world.join("user")
    async with following(world, sam) as removed, following(world, kim) as logged_out:
        await world.eve.ok("DELETE", f"{world.path}/members/{sam.id}")
        await kim.ok("POST", "/auth/logout", json={})
        for stream in (removed, logged_out):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await stream.event() is not None:
                    pass


async def test_a_place_that_is_not_kept_is_answered_with_a_reset(world: World) -> None:
    async with following(world, world.ann, after="999999999") as stream:
        assert (await stream.event()) == {"event": "reset", "data": {}, "id": stream.last_id}
        path = await world.changeset()
        await stream.until(lambda one: one["data"].get("entity_id") == last(path))


async def test_the_streams_refusals(world: World) -> None:
    path = f"{world.path}/events"
    for query in ("after=-1", "after=x", f"after={10**30}", "types=nothing", "types="):
        assert_error(await world.ann.send("GET", f"{path}?{query}"), 400, "validation_error")
    for header in ("x", "1:2", "-1"):
        assert_error(await world.ann.send("GET", path, headers={"Last-Event-ID": header}), 400, "validation_error")
    assert_error(await world.stranger.send("GET", path), 403, "forbidden")
    assert_error(await world.stack.client.get(path), 401, "unauthorized")


async def test_every_type_of_event_is_a_name_that_clients_know() -> None:
    assert {kind.value for kind in FeedType} == {
        *("changeset", "queue", "release", "deployment", "job", "temp_env", "environment", "app")
    }
