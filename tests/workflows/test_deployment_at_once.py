"""What a waiting deployment is told, it acts on at once: on a server whose time does not skip to the next timer."""

from __future__ import annotations

import pytest
from deploy_acts import TOUCHED, blocked, in_phase, revalidate, signal
from workflow_names import uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World

from conman.domain.deploy_messages import LockReply
from conman.domain.deployment import DeploymentState, Phase, waits_for_drift_only


@pytest.fixture(autouse=True)
def requested(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


async def has_succeeded(world: World) -> None:
    await world.until(lambda: deployment_shown(world).state is DeploymentState.SUCCEEDED, "it has succeeded")


async def test_that_the_lock_is_free(world: World) -> None:
    answers = [LockReply(holder_id=uid("holder"))]
    world.fakes.line = lambda _question: answers.pop() if answers else LockReply(fence=9)
    entity = deployment(world, fence=None, wait=True)
    await world.start(entity)
    await in_phase(world, Phase.LOCK, uid("holder"))
    await signal(world, entity, "lock_granted")
    await has_succeeded(world)
    await world.until(lambda: "the line is told" in world.store.log, "the next one is told in its turn")


async def test_that_somebody_has_it_revalidated(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await world.until(lambda: waits_for_drift_only(deployment_shown(world)), "it is blocked")
    world.fakes.look = lambda _question: blocked()
    await revalidate(world, entity)
    await has_succeeded(world)


async def test_that_the_hold_was_lifted(world: World) -> None:
    stands = {"blockers": [{"code": "app_on_hold", "message": "On hold.", "who": "config_manager"}]}
    world.fakes.judge = lambda _question: stands
    entity = deployment(world)
    await world.start(entity)
    await in_phase(world, Phase.SCHEDULE, "On hold.")
    world.fakes.judge = lambda _question: {}
    await signal(world, entity, "look_again")
    await has_succeeded(world)


async def test_what_comes_while_it_looks_is_looked_at_too(world: World) -> None:
    """The news is not in the answer that it was waiting for."""
    stands = {"blockers": [{"code": "app_on_hold", "message": "On hold.", "who": "config_manager"}]}
    answers = [stands]
    world.fakes.judge = lambda _question: answers.pop() if answers else {}
    held = world.fakes.hold("judge_start")
    entity = deployment(world)
    await world.start(entity)
    await world.until(held.reached.is_set, "it looks")
    await signal(world, entity, "look_again")
    held.free.set()
    await has_succeeded(world)
