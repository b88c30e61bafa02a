"""A temp env in the states that the tests start from, and what they say to it and read of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowHistory
from workflow_names import sha
from workflow_world import World, refused

from conman.domain.decision import Command
from conman.domain.temp_env import TempEnv, TempEnvKind, TempEnvState
from conman.domain.temp_env_messages import DeleteCommand, ExtendCommand, UndoExpireCommand, UseReply
from conman.domain.times import format_time, later, parse_time
from conman.workflows.client import EntityWorkflow

S = TempEnvState


async def temp_env(world: World, state: TempEnvState = S.PROVISIONING, *, since: float = 0, **fields: Any) -> EntityWorkflow:
    """A temp env, made and (if it is) active since so many hours, with the job that its maker got."""
    at = later(await world.now(), -timedelta(hours=since))
    made: dict[str, Any] = {"profile": world.id("base"), "runtime_profile_id": world.id("derived"), "db_name": "conman_temp_1"}
    if state is not S.PROVISIONING:
        made["active_since"] = at
    temp = TempEnv(
        **{
            "kind": TempEnvKind.WORKSPACE,
            "source_id": world.id("workspace"),
            "state": state,
            "created_at": at,
            "created_by": world.id("ann"),
            "base_profile_id": world.id("base"),
            "head_sha": sha("head"),
            "label": "app-ws-calm-heron",
            "url": "http://app-ws-calm-heron.localhost",
            "branch": "conman/temp/app-ws-calm-heron",
            "job_id": world.id("job"),
            **made,
            **fields,
        }
    )
    world.store.insert("temp_envs", world.id("temp"), temp.model_dump(mode="json"))
    world.store.jobs[world.id("job")] = {"state": "queued"}
    return world.commands.temp_env_start(world.app_id, world.id("temp"))


def shown(world: World) -> TempEnv:
    """The record."""
    return TempEnv.model_validate(world.store.owned("temp_envs", world.id("temp")))


async def in_state(world: World, state: TempEnvState) -> TempEnv:
    await world.until(lambda: shown(world).state is state, state.value)
    return shown(world)


def when(world: World, action: str) -> str:
    """When this was audited, which it was once."""
    (event,) = [event for event in world.store.audit if event["action"] == action]
    return event["occurred_at"]


def told(world: World) -> list[str]:
    """The kinds of the notices, in order."""
    return [notice["kind"].removeprefix("temp_env_") for notice in world.store.notices]


def hours_between(before: str | None, after: str | None) -> float:
    """Rounded to a minute, which is more than all steps take."""
    assert before is not None
    assert after is not None
    return round((parse_time(after) - parse_time(before)) / timedelta(minutes=1)) / 60


async def extend(world: World, entity: EntityWorkflow, hours: float, **fields: Any) -> dict[str, Any]:
    return await world.do(entity, "extend", ExtendCommand, seconds=int(hours * 3600), **fields)


async def undo(world: World, entity: EntityWorkflow) -> dict[str, Any]:
    return await world.do(entity, "undo_expire", UndoExpireCommand)


async def delete(world: World, entity: EntityWorkflow, *, job: str = "delete", by: str = "ann") -> dict[str, Any]:
    return await world.do(entity, "delete", DeleteCommand, expire_job_id=world.id(job), by=by)


async def refusal(world: World, entity: EntityWorkflow, update: str, kind: type[Command], **fields: Any) -> str:
    """The code with which it is refused."""
    return str((await refused(world.do(entity, update, kind, **fields))).type)


async def asleep(world: World, entity: EntityWorkflow) -> None:
    """Wait until its last event is a timer that has started."""
    async with asyncio.timeout(10):
        while not (await history(world, entity)).events[-1].HasField("timer_started_event_attributes"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def history(world: World, entity: EntityWorkflow) -> WorkflowHistory:
    return await world.client.get_workflow_handle(entity.workflow_id).fetch_history()


async def result(world: World, entity: EntityWorkflow) -> str:
    """How it ends; time skips to that."""
    return await world.handle(entity).result()


def used_every(seconds: int, until: str) -> Callable[[], UseReply]:
    """It is used every so many seconds until then; the last use as the server's clock has it."""

    def use() -> UseReply:
        at = activity.info().started_time.timestamp()
        last = min(at - at % seconds, parse_time(until).timestamp())
        return UseReply(last_activity_at=format_time(parse_time(until).fromtimestamp(last, tz=parse_time(until).tzinfo)))

    return use
