"""Overrides in the workflows that carry them: gates see them, the queue judges them (`spec.md` 6, 9 and 10)."""

from __future__ import annotations

from typing import Any

import pytest
from workflow_names import sha, uid
from workflow_samples import changeset, entry, queue, queue_shown, queue_up, revision, shown
from workflow_world import World

from conman.domain.changeset import ChangesetState
from conman.domain.messages import Answer, EnqueueCommand, PublishedCommand, ReserveCommand
from conman.domain.overrides import FrozenOverride
from conman.domain.queue import Entry

PROFILE = uid("profile")


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


def frozen(value: str, key: str = "env_vars.A") -> FrozenOverride:
    return FrozenOverride(profile_id=PROFILE, content_id=f"content {value}", target_profile_id=PROFILE, keys={key: value})


def overriding(name: str, value: str, key: str = "env_vars.A", **fields: Any) -> Entry:
    return entry(name, overrides=[frozen(value, key)], **fields)


def collision(name: str) -> dict[str, str]:
    return {"kind": "override_collision", "profile_id": PROFILE, "key": "env_vars.A", "changeset_id": uid(name)}


def contents(world: World) -> list[list[str]]:
    return [[one["content_id"] for one in run.gate.overrides] for run in world.fakes.runs]


async def test_the_queue_is_asked_with_the_overrides_of_the_revision(world: World) -> None:
    given = [frozen("one").model_dump(mode="json")]
    entity = changeset(world, ChangesetState.APPROVED, revisions=[revision(world).model_copy(update={"overrides": given})])
    await world.send(entity, "queue", await queue_up(world))
    assert world.fakes.calls[0].payload["entry"]["overrides"] == given


async def test_a_changeset_that_collides_is_answered_as_conflicted_and_a_repeat_gets_the_same(world: World) -> None:
    world.fakes.queue = lambda _call: Answer(result={"collisions": [collision("first")]})
    entity = changeset(world, ChangesetState.APPROVED)
    for _ in range(2):
        assert await world.send(entity, "queue", await queue_up(world, command_id="q")) == {}
    assert (shown(world).state, shown(world).conflicts) == (ChangesetState.CONFLICTED, [collision("first")])
    assert world.store.actions() == ["queued", "conflicted"]
    assert len(world.fakes.calls) == 1


async def test_a_changeset_that_collides_does_not_enter_the_queue(world: World) -> None:
    entity = queue(world, overriding("a", "one"))
    answer = await world.do(entity, "enqueue", EnqueueCommand, entry=overriding("b", "two").model_dump(mode="json"))
    assert answer == {"collisions": [collision("a")]}
    assert [item.changeset_id for item in queue_shown(world).entries] == [uid("a")]


async def test_a_hotpatch_puts_those_out_that_collide_with_it_and_their_jobs_end_once_they_know(world: World) -> None:
    entity = queue(world, overriding("a", "one"), overriding("b", "two", "env_vars.B"))
    hotpatch = overriding("h", "two", hotpatch=True)
    await world.do(entity, "enqueue", EnqueueCommand, entry=hotpatch.model_dump(mode="json"))
    await world.until(lambda: queue_shown(world).undelivered == [] and queue_shown(world).sweep is None, "all is told and judged")
    assert [item.changeset_id for item in queue_shown(world).entries] == [uid("h"), uid("b")]
    assert world.fakes.told == [(uid("a"), "conflicted")]
    assert contents(world) == [["content two"]]
    told = world.store.log.index(f"told {uid('a')} conflicted")
    assert "job tests_failed" in world.store.log[told:]
    assert "job tests_failed" not in world.store.log[:told]


async def test_after_a_publish_each_suite_gets_the_overrides_of_its_own_changeset(world: World) -> None:
    entity = queue(world, overriding("a", "one"), overriding("b", "one"), overriding("c", "two", "env_vars.B"))
    await world.do(entity, "reserve", ReserveCommand, release_id=uid("release"), changeset_ids=[uid("a")])
    await world.do(entity, "published", PublishedCommand, release_id=uid("release"), integration_sha=sha("main-2"))
    await world.until(lambda: queue_shown(world).sweep is None, "the sweep has ended")
    assert sorted(contents(world)) == [["content one"], ["content two"]]
