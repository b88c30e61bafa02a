"""One command on one entity (`durability.md` 1-6, 10-13): what all entities share, shown on changesets."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowExecutionStatus
from workflow_names import uid
from workflow_samples import changeset, leave, news, queue_up, review, shown, submit
from workflow_world import World, refused

from conman.domain.changeset import TERMINAL, ChangesetState, Gate, Intent, Move
from conman.domain.decision import Remembered
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import Answer, GateRun

S = ChangesetState


async def test_a_repeat_gets_the_first_answer_and_writes_nothing(world: World) -> None:
    entity = changeset(world)
    command = await submit(world, command_id="once")
    first = await world.send(entity, "submit", command)
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    before = shown(world)
    assert await world.send(entity, "submit", command) == first
    assert (shown(world), world.store.actions(), world.store.writes("once")) == (before, ["submitted"], ["once"])


async def test_a_repeat_is_known_after_the_workflow_was_lost(world: World) -> None:
    answered = Remembered(id="once", result={"revision_number": 1, "job_id": uid("gate")})
    entity = changeset(world, S.SUBMITTED, commands=[answered])
    assert await world.send(entity, "submit", await submit(world, command_id="once")) == answered.result
    assert world.store.writes() == []


async def test_a_refused_command_wrote_nothing_and_may_be_tried_again(world: World) -> None:
    entity = changeset(world)
    vote = await review(world)
    assert (await refused(world.send(entity, "review", vote))).type == "invalid_transition"
    assert (world.store.writes(), world.store.audit) == ([], [])
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    await world.send(entity, "review", vote)
    assert shown(world).state is S.APPROVED


async def test_a_record_that_is_ahead_is_adopted_and_decided_on_again(world: World) -> None:
    world.store.get_ahead("vote", lambda _owned: {"state": "withdrawn"})
    entity = changeset(world, S.SUBMITTED)
    vote = (await review(world)).model_copy(update={"id": "vote"})
    error = await refused(world.send(entity, "review", vote))
    assert (error.type, error.details[0]["from"]) == ("invalid_transition", "withdrawn")
    assert (shown(world).version, world.store.audit) == (1, [])


async def test_a_record_that_is_ahead_and_still_allows_the_command_is_written_on_top(world: World) -> None:
    world.store.get_ahead("vote", lambda _owned: {"title": "Renamed"})
    vote = (await review(world)).model_copy(update={"id": "vote"})
    await world.send(changeset(world, S.SUBMITTED), "review", vote)
    assert (shown(world).title, shown(world).state, shown(world).version) == ("Renamed", S.APPROVED, 2)


async def test_a_store_that_is_away_is_asked_until_it_answers(world: World) -> None:
    for _ in range(2):
        world.store.fail("once")
    await world.send(changeset(world), "submit", await submit(world, command_id="once"))
    assert (world.store.writes("once"), shown(world).state) == (["once"], S.SUBMITTED)


async def test_a_lost_answer_of_the_store_is_found_by_the_next_attempt(world: World) -> None:
    world.store.lose_reply("once", for_good=False)
    answer = await world.send(changeset(world), "submit", await submit(world, command_id="once"))
    assert answer == {"revision_number": 1, "job_id": world.id("gate 1")}
    assert (world.store.writes("once"), world.store.actions()) == (["once"], ["submitted"])


async def test_an_unknown_outcome_is_told_as_such_and_the_record_is_read_before_anybody_else_decides(world: World) -> None:
    world.store.lose_reply("once", for_good=True)
    entity = changeset(world)
    command = await submit(world, command_id="once")
    held = world.store.hold("once")
    first = asyncio.create_task(refused(world.send(entity, "submit", command)))
    await world.until(held.reached.is_set, "it is being written")
    second = asyncio.create_task(refused(world.send(entity, "submit", await submit(world, 2, command_id="twice"))))
    await world.accepted(entity, 2)
    held.free.set()
    assert (await first).type == "outcome_unknown"
    assert (await second).type == "invalid_transition"
    assert world.store.log.count("load changesets") == 2
    assert await world.send(entity, "submit", command) == {"revision_number": 1, "job_id": world.id("gate 1")}
    assert world.store.writes("once") == ["once"]


async def test_a_command_that_nobody_waits_for_any_more_is_refused_before_it_gets_into_history(world: World) -> None:
    entity = changeset(world)
    handle = await world.start(entity)
    late = (await submit(world)).model_copy(update={"not_after": await world.not_after(-1)})
    assert (await refused(world.send(entity, "submit", late))).type == "command_expired"
    assert world.store.writes() == []
    events = (await handle.fetch_history()).events
    assert not any(event.HasField("workflow_execution_update_accepted_event_attributes") for event in events)


@pytest.mark.parametrize("state", sorted(TERMINAL), ids=str)
async def test_late_commands_never_bring_back_what_is_finished(world: World, state: ChangesetState) -> None:
    gone = Gate(state=JobState.CANCELED, job_id=world.id("gate 1"), reason_code=ReasonCode.SUPERSEDED)
    entity = changeset(world, state, gate=gone)
    before = shown(world)
    for update, command in (
        ("submit", await submit(world, 2, again=True)),
        ("review", await review(world)),
        ("queue", await queue_up(world)),
        ("leave", await leave(world)),
    ):
        assert (await refused(world.send(entity, update, command))).type == "invalid_transition"
    assert await world.send(entity, "take_news", await news(world, "released")) == {}
    assert (shown(world), world.fakes.runs, world.store.writes()) == (before, [], [])
    handle = world.client.get_workflow_handle(entity.workflow_id)
    assert await handle.result() == state.value


async def test_a_command_to_a_record_that_is_not_there_is_not_found_and_its_workflow_ends(world: World) -> None:
    entity = world.commands.changeset_start(world.app_id, world.id("changeset"))
    assert (await refused(world.send(entity, "submit", await submit(world)))).type == "not_found"
    assert await world.client.get_workflow_handle(entity.workflow_id).result() == "gone"


async def test_a_record_that_vanishes_under_its_workflow_ends_it(world: World) -> None:
    entity = changeset(world)
    handle = await world.start(entity)
    await world.until(lambda: "load changesets" in world.store.log, "it was read")
    world.store.records.clear()
    assert (await refused(world.send(entity, "submit", await submit(world)))).type == "not_found"
    assert await handle.result() == "gone"


async def test_a_cancel_from_the_web_ui_means_withdraw(world: World) -> None:
    reached = asyncio.Event()

    async def suite(_run: GateRun) -> ReasonCode:
        reached.set()
        await asyncio.sleep(60)
        raise AssertionError("it was never canceled")

    world.fakes.suite = suite
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(reached.is_set, "the gate runs")
    handle = world.client.get_workflow_handle(entity.workflow_id)
    await handle.cancel()
    assert await handle.result() == "withdrawn"
    assert world.store.jobs[world.id("gate 1")]["reason_code"] == "superseded"
    assert (shown(world).gate.state, world.fakes.running) == (JobState.CANCELED, 0)


async def test_a_cancel_while_a_write_is_under_way_takes_effect_after_it(world: World) -> None:
    held = world.store.hold("verdict")
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(held.reached.is_set, "the verdict is being written")
    handle = world.client.get_workflow_handle(entity.workflow_id)
    await handle.cancel()
    held.free.set()
    assert await handle.result() == "withdrawn"
    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED
    assert world.store.actions() == ["submitted", "withdrawn"]


async def test_a_cancel_while_the_queue_is_asked_lets_the_command_be_answered_first(world: World) -> None:
    held = world.fakes.hold("queue enqueue")
    entity = changeset(world, S.APPROVED)
    queueing = asyncio.create_task(world.send(entity, "queue", await queue_up(world)))
    await world.until(held.reached.is_set, "the queue is asked")
    handle = world.client.get_workflow_handle(entity.workflow_id)
    await handle.cancel()
    held.free.set()
    assert await queueing == {}
    # What is queued can't be withdrawn: the cancel is refused, and the workflow goes on.
    await world.send(entity, "leave", await leave(world, Move.MOVE_TO_DRAFT))
    assert shown(world).state is S.DRAFT


async def test_a_cancel_of_what_needs_revalidation_leaves_the_queue_first(world: World) -> None:
    entity = changeset(world, S.NEEDS_REVALIDATION)
    handle = await world.start(entity)
    await world.until(lambda: "load changesets" in world.store.log, "it was read")
    await handle.cancel()
    assert await handle.result() == "withdrawn"
    assert [call.update for call in world.fakes.calls] == ["remove"]


async def test_a_cancel_that_the_queue_refuses_is_ignored(world: World) -> None:
    world.fakes.queue = lambda _call: Answer(refusal={"code": "conflict", "message": "It is in a release."})
    entity = changeset(world, S.NEEDS_REVALIDATION)
    handle = await world.start(entity)
    await handle.cancel()
    await world.until(lambda: len(world.store.writes(":refused:")) == 1, "the refusal")
    assert (shown(world).state, shown(world).intent) == (S.NEEDS_REVALIDATION, None)
    await world.send(entity, "take_news", await news(world, "released"))
    assert await handle.result() == "released"


async def test_two_commands_that_need_the_queue_are_asked_one_after_the_other(world: World) -> None:
    recording = world.store.hold("first:intent")
    entity = changeset(world, S.APPROVED)
    first = asyncio.create_task(world.send(entity, "queue", await queue_up(world, command_id="first")))
    await world.until(recording.reached.is_set, "the first intent is being written")
    second = asyncio.create_task(refused(world.send(entity, "queue", await queue_up(world, command_id="second"))))
    await world.accepted(entity, 2)
    recording.free.set()
    assert await first == {}
    assert (await second).type == "invalid_transition"
    assert [call.command_id for call in world.fakes.calls] == ["first:queue"]


async def test_the_same_command_sent_twice_at_once_is_carried_out_once(world: World) -> None:
    held = world.fakes.hold("queue enqueue")
    entity = changeset(world, S.APPROVED)
    command = await queue_up(world, command_id="once")
    both = [asyncio.create_task(world.send(entity, "queue", command)) for _ in range(2)]
    await world.accepted(entity, 2)
    held.free.set()
    assert await asyncio.gather(*both) == [{}, {}]
    assert (len(world.fakes.calls), world.store.actions()) == (1, ["queued"])


async def test_an_intent_of_somebody_else_stays_when_the_same_move_is_refused(world: World) -> None:
    intent = Intent(command_id="other", move=Move.MOVE_TO_DRAFT, actor={})
    held = world.fakes.hold("queue remove")
    entity = changeset(world, S.QUEUED, intent=intent)
    leaving = asyncio.create_task(refused(world.send(entity, "leave", await leave(world, Move.MOVE_TO_DRAFT))))
    await world.until(held.reached.is_set, "the queue is asked")
    held.free.set()
    assert (await leaving).type == "invalid_transition"
    assert shown(world).state is S.DRAFT
