"""A deployment goes on from its record: after Temporal was lost (`durability.md` 20), and with a long history (12)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from deploy_acts import TOUCHED, approve, blocked, exceptional, result, scheduled
from workflow_names import uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World

from conman.domain.deploy_messages import LockReply
from conman.domain.deployment import Approval, DeploymentState, Phase
from conman.domain.times import later
from conman.workflows import options


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


@pytest.fixture(autouse=True)
def requested(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


async def test_one_that_waits_for_approvals_goes_on_with_its_votes_and_its_deadline(world: World) -> None:
    now = await world.now()
    expires = later(now, timedelta(hours=3))
    entity = await exceptional(world, phase=Phase.APPROVALS, approvals_expire_at=expires)
    await world.start(entity)
    await approve(world, entity, "bea")
    assert await result(world, entity) == "succeeded"
    assert [vote.user_id for vote in deployment_shown(world).approvals] == [world.id("manager"), world.id("bea")]


async def test_its_old_deadline_holds(world: World) -> None:
    now = await world.now()
    entity = await exceptional(world, phase=Phase.APPROVALS, approvals_expire_at=later(now, timedelta(hours=-1)))
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert world.store.actions() == ["approval_expired", "canceled"]


async def test_one_that_waits_for_its_time_starts_then(world: World) -> None:
    entity = await scheduled(world, 3, phase=Phase.SCHEDULE)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    (started,) = [event for event in world.store.audit if event["action"] == "started"]
    assert started["occurred_at"] >= (deployment_shown(world).not_before or "")


async def test_one_that_drift_blocks_waits_no_longer_than_it_was_to(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    now = await world.now()
    until = later(now, timedelta(hours=1))
    entity = deployment(world, phase=Phase.DRIFT, drift_report=[TOUCHED], drift_waits_until=until)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert until <= await world.now()
    assert world.store.actions() == ["canceled"], "the block was told before"


async def test_one_that_is_in_line_keeps_its_place(world: World) -> None:
    answers = [LockReply(holder_id=uid("holder"))]
    world.fakes.line = lambda _question: answers.pop() if answers else LockReply(fence=9)
    entity = deployment(world, fence=None, wait=True, obstacle="the environment's lock")
    await world.start(entity)
    assert await result(world, entity) == "succeeded"


async def test_one_that_ran_failed_and_what_its_environment_is_nobody_knows(world: World) -> None:
    entity = deployment(world, state=DeploymentState.RUNNING, phase=Phase.SWITCH, gate_job_id=uid("gate"))
    await world.start(entity)
    assert await result(world, entity) == "failed"
    (end,) = world.fakes.ended
    assert end.ending.left is not None
    assert end.ending.left.health == "unknown"


async def test_a_long_wait_goes_on_in_a_fresh_history_from_what_the_old_one_knew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "CONTINUE_AFTER_EVENTS", 60)
    asked = 0

    def line(_question: object) -> LockReply:
        nonlocal asked
        asked += 1
        return LockReply(holder_id=uid("holder")) if asked < 20 else LockReply(fence=9)

    world.fakes.line = line
    now = await world.now()
    votes = [Approval(user_id=world.id(name), at=now) for name in ("manager", "bea")]
    entity = await exceptional(world, fence=None, wait=True, approvals=votes)
    handle = await world.start(entity)
    assert await result(world, entity) == "succeeded"
    first = handle.result_run_id or handle.first_execution_run_id
    now_run = (await world.client.get_workflow_handle(entity.workflow_id).describe()).run_id
    assert now_run != first, "more than one run"
    assert deployment_shown(world).approvals == votes
