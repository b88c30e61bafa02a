"""Reviewers are told again by a timer of the changeset's workflow (`spec.md` 3, reminders)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
import pytest_asyncio
from temporalio.service import RPCError
from workflow_samples import changeset, leave, review, revision, shown, submit
from workflow_world import World

from conman.domain.changeset import ChangesetState, Move
from conman.domain.jobs import JobState
from conman.domain.messages import ReminderSetting
from conman.domain.times import format_time, parse_time
from conman.workflows import options
from conman.workflows.client import EntityWorkflow

S = ChangesetState


@pytest_asyncio.fixture
async def world(skipping_world: World) -> AsyncIterator[World]:
    """What still waits at its end is terminated: a timer that fires once its workers are gone stops the clock for good."""
    yield skipping_world
    for handle in skipping_world.handles.values():
        with suppress(RPCError):  # it has ended by itself
            await skipping_world.client.get_workflow_handle(handle.id).terminate()


async def in_review(world: World, hours: int) -> EntityWorkflow:
    """It was submitted just now, its gate has passed, and the workflow waits for a review."""
    world.fakes.reminders = ReminderSetting(hours=hours)
    submitted = revision(world).model_copy(update={"created_at": await world.now()})
    entity = changeset(world, S.SUBMITTED, revisions=[submitted])
    await world.start(entity)
    await asyncio.wait_for(_timer_started(world, entity), 10)
    return entity


async def _timer_started(world: World, entity: EntityWorkflow) -> None:
    """A timer runs: an activity that is canceled while it runs would stop this server's clock for good."""
    handle = world.client.get_workflow_handle(entity.workflow_id)
    while not any(e.HasField("timer_started_event_attributes") for e in (await handle.fetch_history()).events):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def later(world: World, hours: float, reminders: int) -> None:
    """So many hours pass; as many reminders as this are sent in all."""
    await world.env.sleep(timedelta(hours=hours))
    async with asyncio.timeout(5):
        while len(told(world)) < reminders:  # noqa: ASYNC110  fakes have no event for every change
            await asyncio.sleep(0.02)
    assert len(told(world)) == reminders


def told(world: World) -> list[str]:
    """The reminders; what else people are told of a changeset is no matter here."""
    return [notice["kind"] for notice in world.store.notices if notice["kind"] == "review_reminder"]


async def test_reviewers_are_told_again_at_most_three_times(world: World) -> None:
    await in_review(world, 48)
    await later(world, 47, 0)
    await later(world, 2, 1)
    await later(world, 48, 2)
    await later(world, 48, 3)
    await later(world, 480, 3)
    assert set(told(world)) == {"review_reminder"}
    assert world.store.audit == []


async def test_a_review_starts_the_hours_again(world: World) -> None:
    entity = await in_review(world, 48)
    await later(world, 40, 0)
    vote = await review(world, required=2)
    vote = vote.model_copy(update={"facts": vote.facts.model_copy(update={"at": await world.now()})})
    await world.send(entity, "review", vote)
    await later(world, 40, 0)
    await later(world, 9, 1)


@pytest.mark.parametrize("what", ["request_changes", "reject", "approve", "withdraw", "draft"])
async def test_what_nobody_need_review_any_more_is_not_reminded_of(world: World, what: str) -> None:
    entity = await in_review(world, 48)
    if what in ("withdraw", "draft"):
        command = await leave(world, Move.WITHDRAW if what == "withdraw" else Move.MOVE_TO_DRAFT)
        await world.send(entity, "leave", command)
    else:
        await world.send(entity, "review", await review(world, what))
    await later(world, 480, 0)


async def test_a_resubmit_begins_anew(world: World) -> None:
    entity = await in_review(world, 48)
    for number in (1, 2, 3):
        await later(world, 49, number)
    again = await submit(world, 2, again=True)
    again = again.model_copy(update={"facts": again.facts.model_copy(update={"at": await world.now()})})
    await world.send(entity, "submit", again)
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    await later(world, 47, 3)
    await later(world, 2, 4)


async def test_a_changed_setting_counts_within_a_day(world: World) -> None:
    await in_review(world, 0)
    await later(world, 100, 0)
    world.fakes.reminders = ReminderSetting(hours=48)
    await later(world, 24, 1)
    world.fakes.reminders = ReminderSetting(hours=0)
    await later(world, 480, 1)


async def test_with_an_archived_app_reminders_end(world: World) -> None:
    await in_review(world, 48)
    world.fakes.reminders = ReminderSetting(hours=48, archived=True)
    await later(world, 480, 0)
    looked = world.store.log.count("reminder setting")
    await later(world, 480, 0)
    assert world.store.log.count("reminder setting") == looked


async def test_what_is_due_already_is_told_as_soon_as_the_workflow_is_there_again(world: World) -> None:
    """`durability.md` 2: what it waits for follows from the record."""
    world.fakes.reminders = ReminderSetting(hours=48)
    old = format_time(parse_time(await world.now()) - timedelta(hours=60))
    entity = changeset(world, S.SUBMITTED, revisions=[revision(world).model_copy(update={"created_at": old})])
    await world.start(entity)
    await later(world, 0.1, 1)
    assert shown(world).reminders == 1


async def test_a_workflow_that_continues_as_new_goes_on_reminding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "CONTINUE_AFTER_CHANGES", 2)
    entity = await in_review(world, 48)
    first = (await world.handle(entity).describe()).run_id
    await world.send(entity, "review", await review(world, required=3))
    await world.send(entity, "review", await review(world, by="another", required=3))

    async def continued() -> None:
        while (await world.client.get_workflow_handle(entity.workflow_id).describe()).run_id == first:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(continued(), 10)
    await later(world, 49, 1)
    assert shown(world).approval_count == 2
