"""What a deployment does about migrations that fail and an environment that does not work (`spec.md` 12, record)."""

from __future__ import annotations

import pytest
from deploy_acts import job, result, told
from temporalio.exceptions import ApplicationError
from workflow_names import sha, uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World, refused

from conman.domain.deploy_messages import MigrateReply, PriorReply, ReleaseFailedCommand, ReleaseReadyCommand
from conman.domain.deployment import Kind, Phase, Rollback, RollbackMode, waiting_for
from conman.domain.jobs import ReasonCode
from conman.domain.target import Health

SICK = Health(healthy=False, message="GET / answers 500")
WELL = Health(healthy=True)


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


@pytest.fixture(autouse=True)
def requested(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


def ran_before(world: World) -> None:
    """The environment rolls back by itself, and something else was there."""
    world.fakes.judge = lambda _question: {"auto_rollback": True}
    world.fakes.prior = PriorReply(
        deployment_id=uid("before"),
        release_id=uid("older"),
        tag="r0",
        published_sha=sha("older"),
        profile_id=uid("profile"),
        profile_revision_id=uid("profile-0"),
    )


@pytest.mark.parametrize(("lost", "reason"), [(False, "runner_error"), (True, "infrastructure")])
async def test_a_failed_migration_fails_it_before_anything_shows(world: World, lost: bool, reason: str) -> None:
    world.fakes.migrations = MigrateReply(failed="0002_limits", message="It ended with 1.", infrastructure=lost)
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    assert "0002_limits" in (deployment_shown(world).message or "")
    assert (job(world), world.fakes.switches) == (("failed", reason), [])


async def test_the_job_tells_how_far_it_is(world: World) -> None:
    held = world.fakes.hold("run_migrations")
    entity = deployment(world)
    await world.start(entity)
    await world.until(held.reached.is_set, "the migrations")
    shown = world.store.jobs[world.id("job")]["progress"]
    assert shown == {"done": 1, "total": 4, "message": "runs the migrations"}
    held.free.set()
    assert await result(world, entity) == "succeeded"


async def test_an_unhealthy_environment_fails_the_deployment_and_shows_it(world: World) -> None:
    world.fakes.health = [SICK]
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    assert "GET / answers 500" in (deployment_shown(world).message or "")
    (end,) = world.fakes.ended
    assert end.ending.left is not None
    assert (end.ending.left.health, end.ending.left.release_id) == ("unhealthy", world.id("release"))
    assert (job(world), len(world.fakes.switches)) == (("failed", "tests_failed"), 1)


async def test_with_auto_rollback_what_was_there_is_put_back_under_a_higher_fence_and_the_release_is_bad(world: World) -> None:
    ran_before(world)
    world.fakes.health = [SICK, WELL]
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    first, back = world.fakes.switches
    assert (first.tag, first.fence, back.tag, back.fence) == ("r1", 7, "r0", 8)
    assert (back.commit_sha, back.profile_revision_id) == (sha("older"), uid("profile-0"))
    (end,) = world.fakes.ended
    left = end.ending.left
    assert left is not None
    assert (left.health, left.restored, left.release_id, left.marks_bad) == ("healthy", uid("before"), uid("older"), True)
    assert (end.persist.owned["fence"], job(world)) == (8, ("failed", "tests_failed"))
    assert world.store.actions() == ["started", "failed", "auto_rolled_back"]
    assert told(world) == ["deployment_started", "deployment_auto_rolled_back"]


async def test_what_is_put_back_and_does_not_work_either_is_said(world: World) -> None:
    ran_before(world)
    world.fakes.health = [SICK, SICK]
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    assert "r0 was put back, and is unhealthy too" in (deployment_shown(world).message or "")


async def test_with_nothing_before_it_only_fails(world: World) -> None:
    world.fakes.judge = lambda _question: {"auto_rollback": True}
    world.fakes.health = [SICK]
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    assert (len(world.fakes.switches), world.store.actions()) == (1, ["started", "failed"])


async def test_nobody_knowing_whether_it_works_rolls_nothing_back(world: World) -> None:
    ran_before(world)
    world.fakes.errors["verify_environment"] = ApplicationError("the program is missing", non_retryable=True)
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    (end,) = world.fakes.ended
    assert end.ending.left is not None
    assert (end.ending.left.health, len(world.fakes.switches), job(world)) == ("unknown", 1, ("failed", "infrastructure"))


async def test_a_return_to_an_earlier_release_is_not_rolled_back_itself(world: World) -> None:
    ran_before(world)
    world.fakes.health = [SICK]
    rollback = Rollback(mode=RollbackMode.REDEPLOY_PRIOR_TAG, release_id=world.id("release"), profile_revision_id=uid("then"))
    entity = deployment(world, kind=Kind.ROLLBACK, rollback=rollback)
    await world.start(entity)
    assert await result(world, entity) == "failed"
    assert len(world.fakes.switches) == 1


# -- The release of a rollback


def undoing(world: World) -> Rollback:
    return Rollback(mode=RollbackMode.REVERT_AND_RELEASE, release_id=world.id("bad"))


async def test_a_rollback_waits_for_the_release_that_undoes_the_other_and_deploys_that(world: World) -> None:
    entity = deployment(world, kind=Kind.ROLLBACK, rollback=undoing(world), release_id=None)
    await world.start(entity)
    await world.until(lambda: deployment_shown(world).obstacle is not None, "it waits")
    assert "the release that undoes" in (waiting_for(deployment_shown(world)) or "")
    ready = await world.command(ReleaseReadyCommand, command_id="ready", release_id=world.id("undoing"))
    await world.send(entity, "release_ready", ready)
    assert await result(world, entity) == "succeeded"
    assert [switch.release_id for switch in world.fakes.switches] == [world.id("undoing")]
    assert len(world.fakes.runs) == 1, "the same gates"


async def test_without_a_release_the_rollback_fails_with_its_reason_and_the_lock_is_free(world: World) -> None:
    entity = deployment(world, kind=Kind.ROLLBACK, rollback=undoing(world), release_id=None)
    await world.start(entity)
    await world.until(lambda: deployment_shown(world).obstacle is not None, "it waits")
    failed = {"reason_code": ReasonCode.TESTS_FAILED, "message": "The suite fails with it undone."}
    await world.send(entity, "release_failed", await world.command(ReleaseFailedCommand, **failed))
    assert await result(world, entity) == "failed"
    shown = deployment_shown(world)
    assert (shown.message, shown.phase) == ("The suite fails with it undone.", Phase.LOCK)
    assert (job(world), world.fakes.lock) == (("failed", "tests_failed"), None)
    late = await world.command(ReleaseReadyCommand, release_id=world.id("undoing"))
    assert (await refused(world.send(entity, "release_ready", late))).type == "invalid_transition"
