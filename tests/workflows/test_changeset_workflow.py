"""`changeset:{id}` (`spec.md` 3): submit, gate, review, queue, leave, news; `durability.md` 1-6, 10, 14, 17."""

from __future__ import annotations

import asyncio

import pytest
from workflow_fakes import Held
from workflow_names import sha
from workflow_samples import changeset, leave, news, queue_up, retry, review, revision, shown, submit, take_back
from workflow_world import World, refused

from conman.domain.changeset import ChangesetState, Gate, Intent, Move
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import Answer, GateRun, QueueCall

S = ChangesetState


def held_suite(world: World) -> dict[str, Held]:
    """Suites wait, one hold per gate's commit."""
    holds = {sha(f"head-{number}"): Held() for number in (1, 2)}

    async def suite(run: GateRun) -> ReasonCode:
        await holds[run.gate.commit_sha].wait()
        return ReasonCode.OK

    world.fakes.suite = suite
    return holds


async def test_submit_freezes_a_revision_whose_gate_starts_by_itself_and_its_verdict_ends_the_job(world: World) -> None:
    entity = changeset(world)
    assert await world.send(entity, "submit", await submit(world)) == {"revision_number": 1, "job_id": world.id("gate 1")}
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    assert shown(world).state is S.SUBMITTED
    assert world.store.jobs[world.id("gate 1")]["state"] == "succeeded"
    assert world.store.actions() == ["submitted"]
    assert [run.gate.commit_sha for run in world.fakes.runs] == [sha("head-1")]


async def test_a_job_exists_when_submit_is_answered(world: World) -> None:
    holds = held_suite(world)
    await world.send(changeset(world), "submit", await submit(world))
    assert world.store.jobs[world.id("gate 1")]["job_type"] == "msuite_submit"
    holds[sha("head-1")].free.set()


async def test_a_gate_that_is_retried_by_hand_is_never_answered_from_an_earlier_result(world: World) -> None:
    reasons = [ReasonCode.TIMEOUT, ReasonCode.OK]

    async def suite(_run: GateRun) -> ReasonCode:
        return reasons.pop(0)

    world.fakes.suite = suite
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: shown(world).gate.reason_code is ReasonCode.TIMEOUT, "no verdict")
    await world.send(entity, "retry", await retry(world))
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    assert [run.gate.fresh for run in world.fakes.runs] == [False, True]


async def test_a_failed_gate_keeps_the_state_and_forbids_approval(world: World) -> None:
    async def suite(_run: GateRun) -> ReasonCode:
        return ReasonCode.TESTS_FAILED

    world.fakes.suite = suite
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: shown(world).gate.state is JobState.FAILED, "the verdict")
    assert (await refused(world.send(entity, "review", await review(world)))).type == "gate_not_passed"
    assert shown(world).state is S.SUBMITTED and shown(world).votes == []


async def test_a_resubmit_cancels_the_gate_before_and_only_the_new_verdict_counts(world: World) -> None:
    holds = held_suite(world)
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(holds[sha("head-1")].reached.is_set, "the first gate runs")
    await world.send(entity, "submit", await submit(world, 2, again=True))
    assert world.store.jobs[world.id("gate 1")]["reason_code"] == "superseded"
    await world.until(holds[sha("head-2")].reached.is_set, "the second gate runs")
    await world.until(lambda: world.fakes.running == 1, "the first suite has ended")
    holds[sha("head-2")].free.set()
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    assert shown(world).gate.job_id == world.id("gate 2")
    assert not world.store.writes(f"verdict:{world.id('gate 1')}")


async def test_a_superseded_gate_that_ends_while_commands_hold_the_lock_withdraws_nothing(world: World) -> None:
    holds = held_suite(world)
    entity = changeset(world)
    await world.send(entity, "submit", await submit(world))
    await world.until(holds[sha("head-1")].reached.is_set, "the gate runs")
    resubmit, vote = world.store.hold("again"), world.store.hold("vote")
    first = asyncio.create_task(world.send(entity, "submit", await submit(world, 2, command_id="again", again=True)))
    await world.until(resubmit.reached.is_set, "resubmit is being written")
    changes = (await review(world, "request_changes")).model_copy(update={"id": "vote"})
    second = asyncio.create_task(world.send(entity, "review", changes))
    await world.accepted(entity, 3)
    holds[sha("head-1")].free.set()
    gate = world.client.get_workflow_handle(f"job:{world.id('gate 1')}")
    await gate.result()
    resubmit.free.set()
    await first
    await world.until(vote.reached.is_set, "the vote is being written, the old verdict waits behind it")
    await world.until(holds[sha("head-2")].reached.is_set, "the new gate runs")
    vote.free.set()
    await second
    holds[sha("head-2")].free.set()
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    assert shown(world).state is S.CHANGES_REQUESTED


async def test_two_reviewers_at_once_both_count(world: World) -> None:
    entity = changeset(world, S.SUBMITTED)
    votes = [await review(world, by=name, required=2) for name in ("bea", "cid")]
    await asyncio.gather(*(world.send(entity, "review", vote) for vote in votes))
    assert shown(world).state is S.APPROVED and shown(world).approval_count == 2


async def test_a_state_that_calls_for_a_gate_gets_one_after_the_workflow_was_lost(world: World) -> None:
    waiting = Gate(state=JobState.RUNNING, job_id=world.id("gate 1"))
    entity = changeset(world, S.SUBMITTED, gate=waiting)
    world.store.jobs[world.id("gate 1")] = {"state": "running"}
    await world.start(entity)
    await world.until(lambda: shown(world).gate.state is JobState.SUCCEEDED, "the verdict")
    assert world.store.jobs[world.id("gate 1")]["reason_code"] == "ok"


async def test_queue_is_answered_when_the_queue_has_taken_it(world: World) -> None:
    entity = changeset(world, S.APPROVED)
    assert await world.send(entity, "queue", await queue_up(world, command_id="q")) == {}
    assert (shown(world).state, shown(world).intent) == (S.QUEUED, None)
    (call,) = world.fakes.calls
    assert (call.update, call.command_id, call.payload["entry"]["judged_sha"]) == ("enqueue", "q:queue", sha("main-1"))


async def test_a_queue_that_refuses_leaves_nothing_behind_and_a_later_try_asks_again(world: World) -> None:
    refusal = {"code": "conflict", "message": "Another one changes the same key.", "details": [{"key": "a"}]}
    world.fakes.queue = lambda _call: Answer(refusal=refusal)
    entity = changeset(world, S.APPROVED)
    error = await refused(world.send(entity, "queue", await queue_up(world, command_id="q")))
    assert (error.type, error.message, list(error.details)) == ("conflict", refusal["message"], [refusal["details"]])
    assert (shown(world).state, shown(world).intent, world.store.audit) == (S.APPROVED, None, [])
    world.fakes.queue = lambda _call: Answer()
    await world.send(entity, "queue", await queue_up(world, command_id="q"))
    assert shown(world).state is S.QUEUED


async def test_an_approval_by_who_may_review_no_more_is_taken_back_and_somebody_else_may_approve(world: World) -> None:
    entity = changeset(world, S.SUBMITTED)
    await world.send(entity, "review", await review(world))
    assert shown(world).state is S.APPROVED
    for _ in range(2):  # it is told until the record shows it
        assert await world.send(entity, "take_back", await take_back(world)) == {}
    assert (shown(world).state, shown(world).approval_count) == (S.IN_REVIEW, 0)
    assert (await refused(world.send(entity, "queue", await queue_up(world)))).type == "invalid_transition"
    await world.send(entity, "review", await review(world, by="another"))
    assert (shown(world).state, shown(world).approval_count) == (S.APPROVED, 1)
    assert world.store.actions() == ["approved", "updated", "approved"]


async def test_a_vote_that_is_taken_back_while_the_queue_is_asked_counts_as_the_queue_answers(world: World) -> None:
    held = world.fakes.hold("queue enqueue")
    entity = changeset(world, S.SUBMITTED)
    await world.send(entity, "review", await review(world))
    queueing = asyncio.create_task(world.send(entity, "queue", await queue_up(world)))
    await world.until(held.reached.is_set, "the queue is asked")
    taking = asyncio.create_task(world.send(entity, "take_back", await take_back(world)))
    held.free.set()
    await queueing
    await taking
    assert (shown(world).state, shown(world).approval_count) == (S.QUEUED, 1)


async def test_a_vote_is_taken_back_once_the_queue_has_refused(world: World) -> None:
    held = world.fakes.hold("queue enqueue")
    world.fakes.queue = lambda _call: Answer(refusal={"code": "conflict", "message": "Another one changes the same key."})
    entity = changeset(world, S.SUBMITTED)
    await world.send(entity, "review", await review(world))
    queueing = asyncio.create_task(refused(world.send(entity, "queue", await queue_up(world))))
    await world.until(held.reached.is_set, "the queue is asked")
    taking = asyncio.create_task(world.send(entity, "take_back", await take_back(world)))
    held.free.set()
    await queueing
    await taking
    assert (shown(world).state, shown(world).approval_count) == (S.IN_REVIEW, 0)


async def test_a_vote_waits_while_the_queue_is_asked(world: World) -> None:
    held = world.fakes.hold("queue enqueue")
    entity = changeset(world, S.APPROVED)
    queueing = asyncio.create_task(world.send(entity, "queue", await queue_up(world)))
    await world.until(held.reached.is_set, "the queue is asked")
    voting = asyncio.create_task(refused(world.send(entity, "review", await review(world, "request_changes"))))
    held.free.set()
    await queueing
    assert (await voting).type == "invalid_transition"
    assert shown(world).state is S.QUEUED


async def test_a_vote_that_waited_for_the_lock_behind_an_intent_is_decided_after_it(world: World) -> None:
    recording = world.store.hold("q:intent")
    asked = world.fakes.hold("queue enqueue")
    entity = changeset(world, S.APPROVED)
    queueing = asyncio.create_task(world.send(entity, "queue", await queue_up(world, command_id="q")))
    await world.until(recording.reached.is_set, "the intent is being written")
    voting = asyncio.create_task(refused(world.send(entity, "review", await review(world, "request_changes"))))
    await world.accepted(entity, 2)
    recording.free.set()
    await world.until(asked.reached.is_set, "the queue is asked")
    asked.free.set()
    await queueing
    assert (await voting).type == "invalid_transition"
    assert (shown(world).state, shown(world).votes) == (S.QUEUED, [])


async def test_an_intent_that_was_recorded_before_a_crash_is_finished(world: World) -> None:
    facts = {"integration_sha": sha("main-1"), "up_to_date": True, "at": "2026-03-01T09:30:00.000Z"}
    intent = Intent(command_id="q", move=Move.QUEUE, actor={"user_id": world.id("ada")}, facts=facts)
    entity = changeset(world, S.APPROVED, intent=intent)
    await world.start(entity)
    await world.until(lambda: shown(world).state is S.QUEUED, "it is queued")
    assert await world.send(entity, "queue", await queue_up(world, command_id="q")) == {}
    assert len(world.fakes.calls) == 1


@pytest.mark.parametrize("state", [S.QUEUED, S.NEEDS_REVALIDATION], ids=str)
async def test_what_is_queued_returns_to_draft_only_by_leaving_the_queue(world: World, state: ChangesetState) -> None:
    entity = changeset(world, state)
    await world.send(entity, "leave", await leave(world, Move.MOVE_TO_DRAFT))
    assert [call.update for call in world.fakes.calls] == ["remove"]
    assert shown(world).state is S.DRAFT


async def test_a_changeset_in_an_open_release_stays_queued(world: World) -> None:
    world.fakes.queue = lambda _call: Answer(refusal={"code": "conflict", "message": "It is in a release."})
    entity = changeset(world, S.QUEUED)
    assert (await refused(world.send(entity, "leave", await leave(world, Move.MOVE_TO_DRAFT)))).type == "conflict"
    assert (shown(world).state, shown(world).intent) == (S.QUEUED, None)


async def test_news_that_come_while_the_queue_is_asked_are_taken_after_its_answer(world: World) -> None:
    held = world.fakes.hold("queue remove")
    world.fakes.queue = lambda _call: Answer(refusal={"code": "conflict", "message": "It is in a release."})
    entity = changeset(world, S.QUEUED)
    leaving = asyncio.create_task(refused(world.send(entity, "leave", await leave(world, Move.MOVE_TO_DRAFT))))
    await world.until(held.reached.is_set, "the queue is asked")
    telling = asyncio.create_task(world.send(entity, "take_news", await news(world, "released")))
    await world.accepted(entity, 2)
    held.free.set()
    assert (await leaving).type == "conflict"
    await telling
    assert shown(world).state is S.RELEASED


@pytest.mark.parametrize(
    ("kind", "state"),
    [("released", S.RELEASED), ("conflicted", S.CONFLICTED), ("needs_revalidation", S.NEEDS_REVALIDATION)],
)
async def test_news_move_what_is_queued(world: World, kind: str, state: ChangesetState) -> None:
    await world.send(changeset(world, S.QUEUED), "take_news", await news(world, kind))
    assert shown(world).state is state
    assert world.store.actions() == [kind]


@pytest.mark.parametrize(
    ("state", "head"),
    [(S.QUEUED, "head-0"), (S.DRAFT, "head-1"), (S.APPROVED, "head-1")],
    ids=["other head", "draft", "approved"],
)
async def test_news_about_what_is_no_more_are_dropped(world: World, state: ChangesetState, head: str) -> None:
    before = changeset(world, state) and shown(world)
    entity = world.commands.changeset_start(world.app_id, world.id("changeset"))
    assert await world.send(entity, "take_news", await news(world, "needs_revalidation", head)) == {}
    assert shown(world) == before


async def test_commands_of_another_revision_than_the_first_use_its_head(world: World) -> None:
    entity = changeset(world, S.APPROVED, revisions=[revision(world), revision(world, 2)], head_sha=sha("head-2"))
    await world.send(entity, "queue", await queue_up(world))
    calls: list[QueueCall] = world.fakes.calls
    assert calls[0].payload["entry"] | {"head_sha": sha("head-2"), "revision_number": 2} == calls[0].payload["entry"]
