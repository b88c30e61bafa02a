"""`webhook:{app_id}`: what is due is told until nothing is left, and a receiver that takes nothing is left alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from webhook_fakes import Hook
from workflow_world import World

from conman.domain.webhook import Round, WebhookStart
from conman.workflows import options
from conman.workflows.webhook import WebhookWorkflow

FAILED = Round(failed=1, wait_seconds=0)
TAKEN = Round(taken=1, wait_seconds=0)


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


@pytest.fixture
def hook(world: World) -> Hook:
    return world.fakes.hook


async def start(world: World) -> WorkflowHandle[WebhookWorkflow, None]:
    return await world.client.start_workflow(
        WebhookWorkflow.run,
        WebhookStart(app_id=world.app_id),
        id=options.webhook_workflow(world.app_id),
        task_queue=options.queue_name(options.Queue.MAIN),
    )


async def lasted(handle: WorkflowHandle[WebhookWorkflow, None]) -> timedelta:
    """How long a process ran, by the server's clock."""
    await handle.result()
    described = await handle.describe()
    assert described.close_time is not None
    return described.close_time - described.start_time


async def test_rounds_follow_each_other_while_something_is_due(world: World, hook: Hook) -> None:
    hook.script = [TAKEN, TAKEN, Round(taken=1)]
    assert await lasted(await start(world)) < timedelta(seconds=5)
    assert len(hook.rounds) == 3


async def test_what_fails_is_tried_again_when_it_is_due(world: World, hook: Hook) -> None:
    hook.script = [Round(taken=1, failed=1, wait_seconds=21_600)]
    assert timedelta(hours=6) <= await lasted(await start(world)) <= timedelta(hours=6, minutes=1)
    assert len(hook.rounds) == 2


async def test_a_receiver_that_takes_nothing_is_left_alone_for_longer_each_time(world: World, hook: Hook) -> None:
    hook.script = [FAILED] * 8
    rests = timedelta(seconds=5 + 10 + 20 + 40 + 80 + 160 + 300 + 300)
    assert rests <= await lasted(await start(world)) <= rests + timedelta(minutes=1)


async def test_what_it_takes_ends_that(world: World, hook: Hook) -> None:
    hook.script = [FAILED, FAILED, TAKEN, FAILED]
    assert timedelta(seconds=20) <= await lasted(await start(world)) <= timedelta(seconds=40)


async def test_a_receiver_that_asks_for_a_rest_gets_it_though_it_took_something(world: World, hook: Hook) -> None:
    hook.script = [Round(taken=30, failed=1, wait_seconds=0, asked_seconds=60)]
    assert timedelta(seconds=60) <= await lasted(await start(world)) <= timedelta(seconds=80)


async def test_something_new_is_told_while_something_old_waits(world: World, hook: Hook) -> None:
    hook.script = [Round(taken=1, failed=1, wait_seconds=36_000), Round(taken=1)]
    handle = await start(world)
    await world.until(lambda: len(hook.rounds) == 1, "the first round")
    await world.completed(handle, activities=1)
    await world.commands.start_webhook(world.app_id)
    await world.until(lambda: len(hook.rounds) == 2, "a round for what is new")
    assert await lasted(handle) < timedelta(minutes=1)


async def test_a_canceled_webhook_is_told_no_more_and_says_so(world: World, hook: Hook) -> None:
    hook.hangs = True
    handle = await start(world)
    await world.until(lambda: hook.rounds, "the round that hangs")
    await handle.cancel()
    await handle.result()
    assert hook.canceled == [world.app_id]


async def test_a_long_use_continues_as_new_with_what_it_knows_of_the_receiver(
    world: World, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "CONTINUE_AFTER_EVENTS", 1)
    hook.script = [FAILED, FAILED]
    handle = await start(world)
    await handle.result()
    assert [round_.fruitless for round_ in hook.rounds] == [0, 1, 2]
    first = await world.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id).fetch_history()
    assert first.events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
