"""What is recorded of deployments: the ways through their process that need no timer of hours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from deploy_acts import TOUCHED, approve, blocked, blocker, cancel, exceptional, in_phase, ordinary, revalidate, scheduled, signal
from workflow_names import sha, uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World

from conman.domain.deploy_messages import (
    LockReply,
    Outcome,
    PriorReply,
    ReleaseFailedCommand,
    ReleaseReadyCommand,
    SupersedeCommand,
)
from conman.domain.deployment import DeploymentState, Kind, Phase, Rollback, RollbackMode, waits_for_drift_only
from conman.domain.jobs import ReasonCode
from conman.domain.target import Health
from conman.workflows.client import EntityWorkflow

Recorded = dict[str, str]


async def _ends(world: World, entity: EntityWorkflow, state: str, name: str) -> Recorded:
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == state
    assert deployment_shown(world).state == state
    return {name: entity.workflow_id}


def _asked(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


async def in_line(world: World) -> Recorded:
    """In line, then concurrent and so exceptional, then on hold, then out."""
    _asked(world)
    replies = [LockReply(holder_id=uid("holder"))]
    world.fakes.line = lambda _question: replies.pop() if replies else LockReply(fence=9, concurrent=True)
    entity = deployment(world, fence=None, wait=True, requested_at=await world.now())
    await world.start(entity)
    await in_phase(world, Phase.LOCK, uid("holder"))
    world.fakes.judge = lambda _question: blocker("app_on_hold", "On hold.")
    await signal(world, entity, "lock_granted")
    await in_phase(world, Phase.APPROVALS)
    await approve(world, entity, "bea")
    await in_phase(world, Phase.SCHEDULE, "On hold.")
    world.fakes.judge = lambda _question: {}
    await signal(world, entity, "look_again")
    return await _ends(world, entity, "succeeded", "deployment-in-line")


async def at_its_time(world: World) -> Recorded:
    """Scheduled, warned of after a publish, and started at its time."""
    _asked(world)
    world.fakes.judge = lambda _question: blocker("stage_skipped", "Deploy it to QA first.")
    entity = await scheduled(world, 4 / 3600)
    await world.start(entity)
    await in_phase(world, Phase.SCHEDULE)
    await signal(world, entity, "look_again")
    await world.until(lambda: deployment_shown(world).warning is not None, "the warning")
    world.fakes.judge = lambda _question: {}
    return await _ends(world, entity, "succeeded", "deployment-at-its-time")


async def approved_again(world: World) -> Recorded:
    """Ordinary approvals, void since the profile was edited, and given again."""
    _asked(world)
    entity = await ordinary(world)
    await world.start(entity)
    await approve(world, entity, "ann")
    world.fakes.judge = lambda _question: {"shown_digest": "edited"}
    await signal(world, entity, "look_again")
    await world.until(lambda: deployment_shown(world).shown_digest == "edited", "the votes are void")
    await approve(world, entity, "ann")
    await approve(world, entity, "bea")
    return await _ends(world, entity, "succeeded", "deployment-approved-again")


async def overwrites_drift(world: World) -> Recorded:
    """Blocked by drift, looked at again, then overwritten."""
    _asked(world)
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await world.until(lambda: waits_for_drift_only(deployment_shown(world)), "it is blocked")
    await revalidate(world, entity)
    await world.until(lambda: deployment_shown(world).revalidation is None, "it has looked")
    await revalidate(world, entity, overwrite=True)
    return await _ends(world, entity, "succeeded", "deployment-overwrites-drift")


async def superseded(world: World) -> Recorded:
    """Blocked by drift, and its lock taken by a newer one."""
    _asked(world)
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await world.until(lambda: waits_for_drift_only(deployment_shown(world)), "it is blocked")
    await world.send(entity, "supersede", await world.command(SupersedeCommand, by_deployment_id=uid("newer")))
    return await _ends(world, entity, "canceled", "deployment-superseded")


async def put_back(world: World) -> Recorded:
    """Unhealthy, and what was there before is put back."""
    _asked(world)
    world.fakes.judge = lambda _question: {"auto_rollback": True}
    world.fakes.health = [Health(healthy=False, message="GET / answers 500"), Health(healthy=True)]
    world.fakes.prior = PriorReply(
        deployment_id=uid("before"),
        release_id=uid("older"),
        tag="r0",
        published_sha=sha("older"),
        profile_id=uid("profile"),
        profile_revision_id=uid("profile-0"),
    )
    entity = deployment(world)
    await world.start(entity)
    return await _ends(world, entity, "failed", "deployment-put-back")


async def undoes_a_release(world: World) -> Recorded:
    """A rollback gets its release."""
    _asked(world)
    rollback = Rollback(mode=RollbackMode.REVERT_AND_RELEASE, release_id=world.id("bad"))
    entity = deployment(world, kind=Kind.ROLLBACK, rollback=rollback, release_id=None)
    await world.start(entity)
    await world.until(lambda: deployment_shown(world).obstacle is not None, "it waits")
    await world.send(entity, "release_ready", await world.command(ReleaseReadyCommand, release_id=world.id("undoing")))
    return await _ends(world, entity, "succeeded", "deployment-undoes-a-release")


async def undoes_nothing(world: World) -> Recorded:
    """A rollback gets no release."""
    _asked(world)
    rollback = Rollback(mode=RollbackMode.REVERT_AND_RELEASE, release_id=world.id("bad"))
    entity = deployment(world, kind=Kind.ROLLBACK, rollback=rollback, release_id=None)
    await world.start(entity)
    await world.until(lambda: deployment_shown(world).obstacle is not None, "it waits")
    failed = {"reason_code": ReasonCode.TESTS_FAILED, "message": "The suite fails."}
    await world.send(entity, "release_failed", await world.command(ReleaseFailedCommand, **failed))
    return await _ends(world, entity, "failed", "deployment-undoes-nothing")


async def returns(world: World) -> Recorded:
    """A return to an earlier release: neither gate nor migrations."""
    _asked(world)
    rollback = Rollback(mode=RollbackMode.REDEPLOY_PRIOR_TAG, release_id=world.id("release"), profile_revision_id=uid("then"))
    entity = deployment(world, kind=Kind.ROLLBACK, rollback=rollback)
    await world.start(entity)
    return await _ends(world, entity, "succeeded", "deployment-returns")


async def second_of_two(world: World) -> Recorded:
    """The one before it in the same request has failed."""
    _asked(world)
    world.fakes.before = Outcome(state=DeploymentState.FAILED, name="QA")
    entity = deployment(world, after_deployment_id=uid("first"), group_id=uid("group"))
    await world.start(entity)
    return await _ends(world, entity, "canceled", "deployment-second-of-two")


async def canceled(world: World) -> Recorded:
    """Canceled while it waits for approvals."""
    _asked(world)
    entity = await exceptional(world)
    await world.start(entity)
    await in_phase(world, Phase.APPROVALS)
    await cancel(world, entity)
    return await _ends(world, entity, "canceled", "deployment-canceled-in-approvals")


DEPLOYMENTS: list[Callable[[World], Awaitable[Recorded]]] = [
    in_line,
    at_its_time,
    approved_again,
    overwrites_drift,
    superseded,
    put_back,
    undoes_a_release,
    undoes_nothing,
    returns,
    second_of_two,
    canceled,
]
