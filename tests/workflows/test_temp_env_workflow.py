"""`temp-env:{id}` by the clock: provisioning, idle time, grace, undo, extension, deletion (`spec.md` 13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temp_env_acts import (
    S,
    asleep,
    delete,
    extend,
    history,
    hours_between,
    in_state,
    refusal,
    result,
    shown,
    temp_env,
    told,
    undo,
    used_every,
    when,
)
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from workflow_names import uid
from workflow_world import World

from conman.domain.temp_env import TempEnvState
from conman.domain.temp_env_messages import (
    CancelProvision,
    DeleteCommand,
    ExtendCommand,
    ProfileMade,
    TempEnvRef,
    UndoExpireCommand,
    UseReply,
)
from conman.domain.times import format_time, later
from conman.workflows import options

LIFE = ["provisioned", "warned", "expiring", "expired", "cleaned_up", "deleted"]


@pytest_asyncio.fixture
async def world(skipping_world: World) -> AsyncIterator[World]:
    """What still waits at its end is terminated: a timer that fires once its workers are gone stops the clock for good."""
    yield skipping_world
    for handle in skipping_world.handles.values():
        with suppress(RPCError):  # it has ended by itself
            await skipping_world.client.get_workflow_handle(handle.id).terminate()


def live_slot(world: World) -> str | None:
    return world.store.mirrored["temp_envs", world.id("temp")].get("live_slot")


def job_ends(world: World) -> list[tuple[str, str]]:
    return [(job["state"], job["reason_code"]) for job in world.store.jobs.values()]


# -- Idle time


async def test_what_nobody_uses_is_warned_of_expires_after_its_grace_and_is_cleaned_up(world: World) -> None:
    entity = await temp_env(world)
    await world.start(entity)

    assert await result(world, entity) == "deleted"

    assert world.store.actions() == LIFE
    since = shown(world).active_since
    assert [hours_between(since, when(world, action)) for action in LIFE] == [0, 23, 24, 25, 25, 25]
    assert told(world) == ["warning", "expiring", "expired"]
    assert {tuple(notice["user_ids"]) for notice in world.store.notices} == {(world.id("ann"),)}
    assert job_ends(world) == [("succeeded", "ok"), ("succeeded", "ok")]
    assert world.store.jobs[world.id("job")]["progress"] == {"done": 3, "total": 3, "message": "is ready"}
    assert world.fakes.temp_envs.steps() == ["branch", "profile", "database", "clean up"]
    assert live_slot(world) is None


async def test_uses_cost_no_history_however_many_there_are(world: World) -> None:
    lengths: list[int] = []
    for name, every in (("used every second", 1), ("used every minute", 60)):
        until = later(await world.now(), timedelta(days=5))
        world.fakes.temp_envs.use, world.fakes.temp_envs.looks = used_every(every, until), 0
        world.store.audit.clear()
        await temp_env(world, S.ACTIVE)
        entity = world.commands.temp_env_start(world.app_id, world.id("temp"), name)
        await world.start(entity)
        assert await result(world, entity) == "deleted"
        assert hours_between(until, when(world, "expiring")) == 24
        assert world.fakes.temp_envs.looks <= 12, "one a day, then those of its end"
        lengths.append(len((await history(world, entity)).events))
    assert lengths[0] == lengths[1]


async def test_a_use_that_came_before_the_last_look_keeps_it_though_its_deadline_is_here(world: World) -> None:
    used: list[str] = []

    def use() -> UseReply:
        if world.fakes.temp_envs.looks == 3:  # as it begins, at its warning, at its deadline
            used.append(format_time(activity.info().started_time - timedelta(seconds=1)))
        return UseReply(last_activity_at=used[0] if used else None)

    world.fakes.temp_envs.use = use
    entity = await temp_env(world, S.ACTIVE)
    await world.start(entity)

    assert await result(world, entity) == "deleted"

    assert world.store.actions() == ["warned", "warned", "expiring", "expired", "cleaned_up", "deleted"]
    assert hours_between(used[0], when(world, "expiring")) == 24


async def test_its_own_profile_says_how_long_it_lives_and_whether_it_is_kept(world: World) -> None:
    world.fakes.temp_envs.profile = ProfileMade(
        runtime_profile_id=uid("derived"), ttl_idle_hours=2, grace_hours=0, auto_cleanup=False
    )
    entity = await temp_env(world)
    await world.start(entity)
    await in_state(world, S.ACTIVE)
    await asleep(world, entity)

    await world.env.sleep(timedelta(hours=1000))

    kept = await in_state(world, S.EXPIRED)
    assert hours_between(kept.active_since, when(world, "warned")) == 1
    assert hours_between(kept.active_since, when(world, "expired")) == 2
    assert (live_slot(world), kept.expire_job_id, world.fakes.temp_envs.steps()[-1]) == (None, None, "database")
    assert await refusal(world, entity, "undo_expire", UndoExpireCommand) == "grace_ended"
    assert await delete(world, entity) == {"job_id": world.id("delete")}
    assert await result(world, entity) == "deleted"
    assert world.store.jobs[world.id("delete")]["state"] == "succeeded"


async def test_with_its_app_it_ends_without_grace(world: World) -> None:
    entity = await temp_env(world, S.ACTIVE)
    handle = await world.start(entity)
    await asleep(world, entity)

    world.fakes.temp_envs.use = lambda: UseReply(archived=True)
    await handle.signal("look_again")

    assert await result(world, entity) == "deleted"
    assert world.store.actions() == ["expired", "cleaned_up", "deleted"]
    assert world.store.audit[0]["after"]["cause"] == "app_archived"


# -- Grace


async def test_uses_in_the_grace_revive_nothing_but_an_undo_gives_a_fresh_idle_time(world: World) -> None:
    entity = await temp_env(world, S.ACTIVE, since=24)
    handle = await world.start(entity)
    expiring = await in_state(world, S.EXPIRING)
    assert live_slot(world) is not None

    world.fakes.temp_envs.use = lambda: UseReply(last_activity_at=format_time(activity.info().started_time))
    await handle.signal("look_again")
    await asleep(world, entity)
    assert shown(world).state is S.EXPIRING

    last = await world.now()
    world.fakes.temp_envs.use = lambda: UseReply(last_activity_at=last)
    await undo(world, entity)
    active = shown(world)
    assert (active.state, active.grace_until) == (S.ACTIVE, None)
    assert await result(world, entity) == "deleted"
    assert world.store.actions() == ["expiring", "undo_expired", "warned", "expiring", "expired", "cleaned_up", "deleted"]
    ended = [event["occurred_at"] for event in world.store.audit if event["action"] == "expiring"]
    assert hours_between(active.active_since, ended[1]) == 24
    assert hours_between(expiring.grace_until, ended[0]) == -1


async def test_nothing_is_undone_that_does_not_expire_or_whose_grace_is_over(world: World) -> None:
    entity = await temp_env(world, S.ACTIVE)
    await world.start(entity)
    assert await refusal(world, entity, "undo_expire", UndoExpireCommand) == "invalid_transition"
    assert await result(world, entity) == "deleted"
    assert await refusal(world, entity, "undo_expire", UndoExpireCommand) == "grace_ended"


# -- Extension


async def test_an_extension_moves_the_deadline_and_the_warning(world: World) -> None:
    entity = await temp_env(world, S.ACTIVE, since=23.5)
    await world.start(entity)
    await world.until(lambda: told(world) == ["warning"], "the warning")
    now = await world.now()

    await extend(world, entity, 10)

    assert await result(world, entity) == "deleted"
    warned = [event["occurred_at"] for event in world.store.audit if event["action"] == "warned"]
    assert [hours_between(now, at) for at in (*warned, when(world, "expiring"))] == [0, 9, 10]


async def test_what_its_source_has_left_lives_on_until_its_own_deadline(world: World) -> None:
    world.fakes.temp_envs.use = lambda: UseReply(source_ended=True)
    entity = await temp_env(world, S.ACTIVE)
    await world.start(entity)
    assert await refusal(world, entity, "extend", ExtendCommand, seconds=3600) == "conflict"
    assert await result(world, entity) == "deleted"
    assert hours_between(shown(world).active_since, when(world, "expiring")) == 24


# -- Deletion


@pytest.mark.parametrize("state", [S.ACTIVE, S.EXPIRING, S.EXPIRED], ids=str)
async def test_it_is_deleted_at_once_wherever_it_is(world: World, state: TempEnvState) -> None:
    until = later(await world.now(), timedelta(hours=1)) if state is S.EXPIRING else None
    entity = await temp_env(world, state, grace_until=until)
    command = await world.command(DeleteCommand, expire_job_id=world.id("delete"), by="ann")
    assert await world.send(entity, "delete", command) == {"job_id": world.id("delete")}
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "deleted"

    assert world.store.actions() == ["expired", "cleaned_up", "deleted"]
    assert {event["actor_user_id"] for event in world.store.audit} == {world.id("ann")}
    assert told(world) == ([] if state is S.EXPIRED else ["expired"])
    assert world.store.jobs[world.id("delete")]["state"] == "succeeded"
    assert await world.send(entity, "delete", command) == {"job_id": world.id("delete")}, "a repeat"
    assert await refusal(world, entity, "delete", DeleteCommand, expire_job_id=world.id("again")) == "invalid_transition"


async def test_it_is_not_deleted_while_it_is_provisioned(world: World) -> None:
    held = asyncio.Event()
    world.fakes.temp_envs.goes_wrong = lambda step, _: held.wait() if step == "profile" else None
    entity = await temp_env(world)
    await world.start(entity)
    await world.until(lambda: "profile" in world.fakes.temp_envs.steps(), "the profile")
    assert await refusal(world, entity, "delete", DeleteCommand, expire_job_id=world.id("delete")) == "invalid_transition"
    held.set()
    await in_state(world, S.ACTIVE)
    await delete(world, entity)
    assert await result(world, entity) == "deleted"


async def test_a_cancel_in_the_web_ui_ends_it_without_grace(world: World) -> None:
    entity = await temp_env(world, S.ACTIVE)
    handle = await world.start(entity)
    await asleep(world, entity)
    await handle.cancel()
    assert await result(world, entity) == "deleted"
    assert (world.store.actions()[0], world.store.audit[0]["after"]["cause"]) == ("expired", "canceled")


# -- Provisioning that fails


def lost(step: str, *attempts: int, **how: Any) -> Any:
    """This step fails in these attempts."""

    def goes_wrong(at: str, ref: TempEnvRef) -> None:
        if at == step and ref.attempt in attempts:
            raise ApplicationError("it is away", **how)

    return goes_wrong


async def test_what_the_machine_did_is_tried_again(world: World) -> None:
    world.fakes.temp_envs.goes_wrong = lost("database", 1, 2)
    entity = await temp_env(world)
    await world.start(entity)
    await in_state(world, S.ACTIVE)
    assert world.fakes.temp_envs.steps() == ["branch", "profile", "database"] * 3
    assert world.store.jobs[world.id("job")]["attempt"] == 3
    await delete(world, entity)
    assert await result(world, entity) == "deleted"


@pytest.mark.parametrize(
    ("how", "reason", "attempts"),
    [
        ({}, "infrastructure", 3),
        ({"type": "git_error"}, "git_error", 3),
        ({"type": "runner_error", "non_retryable": True}, "runner_error", 1),
    ],
    ids=lambda value: str(value),
)
async def test_what_can_not_be_provisioned_cleans_up_after_itself(
    world: World, how: dict[str, Any], reason: str, attempts: int
) -> None:
    world.fakes.temp_envs.goes_wrong = lost("profile", 1, 2, 3, **how)
    entity = await temp_env(world)
    await world.start(entity)

    assert await result(world, entity) == "deleted"

    assert world.fakes.temp_envs.steps() == [*["branch", "profile"] * attempts, "clean up"]
    assert world.store.actions() == ["provision_failed", "cleaned_up", "deleted"]
    assert (shown(world).reason_code, live_slot(world)) == (reason, None)
    assert job_ends(world) == [("failed", reason), ("succeeded", "ok")]
    assert world.store.jobs[world.id("job")]["summary"] == {"message": "it is away"}
    assert told(world) == ["provision_failed"]
    assert await refusal(world, entity, "undo_expire", UndoExpireCommand) == "invalid_transition"


@pytest.mark.parametrize("by", ["its job", "the web ui"])
async def test_a_cancel_ends_what_is_provisioned_and_cleans_up_once_nothing_is_made_any_more(world: World, by: str) -> None:
    world.fakes.temp_envs.goes_wrong = lambda step, _: asyncio.Event().wait() if step == "database" else None
    entity = await temp_env(world)
    handle = await world.start(entity)
    await world.until(lambda: "database" in world.fakes.temp_envs.steps(), "the database")

    if by == "its job":
        await handle.signal("cancel_provision", CancelProvision(job_id=world.id("another")))
        await handle.signal("cancel_provision", CancelProvision(job_id=world.id("job"), user_id=world.id("max")))
    else:
        await handle.cancel()

    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "deleted"
    assert world.fakes.temp_envs.canceled == ["database"]
    assert job_ends(world) == [("canceled", "canceled"), ("succeeded", "ok")]
    failed = world.store.audit[0]
    assert (failed["action"], failed["after"]["reason_code"]) == ("provision_failed", "canceled")
    assert failed["actor_user_id"] == (world.id("max") if by == "its job" else None)


async def test_a_cancel_is_a_cancel_though_the_step_fails_as_it_is_stopped(world: World) -> None:
    async def fails_as_it_is_stopped() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ApplicationError("half of it was made", type="runner_error", non_retryable=True) from None

    world.fakes.temp_envs.goes_wrong = lambda step, _: fails_as_it_is_stopped() if step == "database" else None
    entity = await temp_env(world)
    handle = await world.start(entity)
    await world.until(lambda: "database" in world.fakes.temp_envs.steps(), "the database")

    await handle.signal("cancel_provision", CancelProvision(job_id=world.id("job"), user_id=world.id("max")))

    assert await result(world, entity) == "deleted"
    assert job_ends(world) == [("canceled", "canceled"), ("succeeded", "ok")]
    assert world.store.audit[0]["actor_user_id"] == world.id("max")


async def test_the_operators_limit_holds_for_each_step_whole_however_long_the_one_before_it_waited(world: World) -> None:
    world.fakes.temp_envs.limit_seconds = 1800
    entity = await temp_env(world)
    handle = await world.start(entity)
    await in_state(world, S.ACTIVE)

    scheduled = [event.activity_task_scheduled_event_attributes for event in (await history(world, entity)).events]
    limits = {step.activity_type.name: step.start_to_close_timeout.ToTimedelta() for step in scheduled}

    steps = ("provision_branch", "provision_profile", "provision_database")
    assert [limits[step] for step in steps] == [timedelta(seconds=seconds) for seconds in (300, 1800, 1800)]
    await handle.terminate()


# -- Clean-up that fails


async def test_a_clean_up_is_tried_by_job_after_job_and_people_are_told_once(world: World) -> None:
    def goes_wrong(step: str, _: TempEnvRef) -> None:
        if step == "clean up" and len(world.fakes.temp_envs.done) <= 8:
            raise ApplicationError("the server is away")

    world.fakes.temp_envs.goes_wrong = goes_wrong
    entity = await temp_env(world, S.EXPIRED, expire_job_id=world.id("first"))
    world.store.jobs = {world.id("first"): {"state": "queued"}}
    began = await world.now()
    await world.start(entity)

    assert await result(world, entity) == "deleted"

    assert [attempt for _, _, attempt in world.fakes.temp_envs.done] == [1, 2, 3, 4, 1, 2, 3, 4, 1]
    assert job_ends(world) == [("failed", "infrastructure")] * 2 + [("succeeded", "ok")]
    assert (told(world), shown(world).failures) == (["clean_up_failed"], 2)
    assert world.store.notices[0]["data"]["message"] == "the server is away"
    assert hours_between(began, when(world, "deleted")) == 15 / 60, "5 minutes, then 10"


async def test_what_is_left_over_is_no_success_and_a_delete_has_it_tried_at_once(world: World) -> None:
    left = {"left": ["the database: it is in use"]}
    clean = world.fakes.temp_envs.cleaned
    world.fakes.temp_envs.cleaned = lambda ref: clean(ref).model_copy(update=left)
    entity = await temp_env(world, S.FAILED, active_since=None, expire_job_id=world.id("first"))
    world.store.jobs = {world.id("first"): {"state": "queued"}}
    handle = await world.start(entity)
    await asyncio.wait_for(_fails(world), 15)
    details = (await handle.describe()).raw_description.workflow_extended_info
    assert details is not None
    world.fakes.temp_envs.cleaned = clean

    said = await delete(world, entity)

    assert said == {"job_id": shown(world).expire_job_id}
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "deleted"
    assert "Not removed: the database: it is in use" in world.store.notices[0]["data"]["message"]
    assert world.store.actions() == ["expired", "cleaned_up", "deleted"]


async def _fails(world: World) -> None:
    while not shown(world).failures:
        await world.env.sleep(timedelta(seconds=1))


# -- Its record is enough


@pytest.mark.parametrize(
    ("state", "since", "used", "ends"),
    [(S.ACTIVE, 30, 20, 4), (S.ACTIVE, 30, None, 0), (S.EXPIRING, 30, None, None)],
    ids=["used since", "overdue", "in its grace"],
)
async def test_it_goes_on_with_the_same_deadlines_when_its_history_was_lost(
    world: World, state: TempEnvState, since: float, used: float | None, ends: float | None
) -> None:
    now = await world.now()
    last = later(now, -timedelta(hours=used)) if used is not None else None
    world.fakes.temp_envs.use = lambda: UseReply(last_activity_at=last)
    grace = later(now, timedelta(hours=0.5)) if state is S.EXPIRING else None
    entity = await temp_env(world, state, since=since, grace_until=grace)
    await world.start(entity)

    assert await result(world, entity) == "deleted"

    if ends is not None:
        assert hours_between(now, when(world, "expiring")) == ends
    assert hours_between(now, when(world, "expired")) == (0.5 if ends is None else ends + 1)


async def test_provisioning_that_was_lost_is_done_again_from_the_first_step(world: World) -> None:
    entity = await temp_env(world)
    world.store.jobs[world.id("job")] = {"state": "running"}
    await world.start(entity)
    await in_state(world, S.ACTIVE)
    assert world.fakes.temp_envs.steps() == ["branch", "profile", "database"]
    await delete(world, entity)
    assert await result(world, entity) == "deleted"


async def test_a_long_life_goes_on_in_a_fresh_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CONTINUE_AFTER_CHANGES", 3)
    entity = await temp_env(world, S.ACTIVE)
    first = (await world.start(entity)).first_execution_run_id
    for hours in (30, 31, 32, 33):
        await extend(world, entity, hours)
    now = await world.now()

    assert await result(world, entity) == "deleted"

    assert (await world.client.get_workflow_handle(entity.workflow_id).describe()).run_id != first
    assert hours_between(now, when(world, "expiring")) == 33
