"""What is recorded of temp envs: on a real server, so that each begins where the next deadline is near."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temp_env_acts import S, asleep, delete, extend, in_state, shown, temp_env, told, undo
from temporalio.exceptions import ApplicationError
from workflow_world import World

from conman.domain.temp_env_messages import CancelProvision, TempEnvRef, UseReply
from conman.domain.times import later
from conman.workflows import options


async def temp_env_life(world: World) -> dict[str, str]:
    """Provisioned at the second attempt, extended, deleted."""

    def goes_wrong(step: str, ref: TempEnvRef) -> None:
        if (step, ref.attempt) == ("database", 1):
            raise ApplicationError("the server is away")

    world.fakes.temp_envs.goes_wrong = goes_wrong
    entity = await temp_env(world)
    handle = await world.start(entity)
    await in_state(world, S.ACTIVE)
    await extend(world, entity, 30)
    await asleep(world, entity)
    await delete(world, entity)
    await handle.result()
    return {"temp-env-life": entity.workflow_id}


async def temp_env_expires(world: World) -> dict[str, str]:
    """Warned, idle, brought back, and used since its warning; its app ends."""
    entity = await temp_env(world, S.ACTIVE, since=24 - 2 / 3600)
    handle = await world.start(entity)
    await world.until(lambda: told(world) == ["warning"], "the warning")
    await in_state(world, S.EXPIRING)
    await undo(world, entity)
    used = later(await world.now(), timedelta(seconds=-1))
    world.fakes.temp_envs.use = lambda: UseReply(last_activity_at=used)
    await handle.signal("look_again")
    await asleep(world, entity)
    world.fakes.temp_envs.use = lambda: UseReply(last_activity_at=used, archived=True)
    await handle.signal("look_again")
    await handle.result()
    return {"temp-env-expires": entity.workflow_id}


async def temp_env_grace_ends(world: World) -> dict[str, str]:
    """Its grace ends, and its clean-up fails at first."""
    left = {"left": ["the branch: it is locked"]}
    clean = world.fakes.temp_envs.cleaned
    world.fakes.temp_envs.cleaned = lambda ref: clean(ref).model_copy(update=left if not shown(world).failures else {})
    until = later(await world.now(), timedelta(seconds=1))
    entity = await temp_env(world, S.EXPIRING, since=25, grace_until=until)
    handle = await world.start(entity)
    async with asyncio.timeout(60):
        while not shown(world).failures:  # noqa: ASYNC110  its attempts are seconds apart
            await asyncio.sleep(0.1)
    await delete(world, entity)
    await handle.result()
    return {"temp-env-grace-ends": entity.workflow_id}


async def temp_env_canceled(world: World) -> dict[str, str]:
    """Its job is canceled while its database is copied."""
    world.fakes.temp_envs.goes_wrong = lambda step, _: asyncio.Event().wait() if step == "database" else None
    entity = await temp_env(world)
    handle = await world.start(entity)
    await world.until(lambda: "database" in world.fakes.temp_envs.steps(), "the database")
    await handle.signal("cancel_provision", CancelProvision(job_id=world.id("job"), user_id=world.id("max")))
    await handle.result()
    return {"temp-env-canceled": entity.workflow_id}


async def temp_orphans_round(world: World) -> dict[str, str]:
    """One look for what temp envs have left."""
    workflow_id = world.id("temp-orphans")
    await world.client.execute_workflow("temp-orphans", id=workflow_id, task_queue=options.queue_name(options.Queue.MAIN))
    return {"temp-orphans-round": workflow_id}


TEMP_ENVS = [temp_env_life, temp_env_expires, temp_env_grace_ends, temp_env_canceled, temp_orphans_round]
