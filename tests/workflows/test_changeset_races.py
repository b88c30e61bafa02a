"""Commands that two people send at once: what comes of them is what one after the other would have given (`durability.md` 1, 14).

Every pair that is legal in a state is sent so that both are under way together: the first one's write is held until the second
one has arrived. Which of the two orders it was is the workflow's affair; nothing else may come of it, and no vote is lost.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, count
from typing import Any

import pytest
from workflow_samples import AT, ask_review, changeset, leave, news, queue_up, retry, review, revision, shown, submit, take_back
from workflow_world import World

from conman.domain.changeset import ChangesetState, Gate, Move, Vote
from conman.domain.decision import Command
from conman.domain.errors import DomainError
from conman.domain.jobs import JobState, ReasonCode
from conman.workflows.client import EntityWorkflow
from tests.support.sizes import some_of

S = ChangesetState
Make = Callable[[World, str], Awaitable[Command]]
"""A command by one of two people, `one` or `two`."""


def vote_of(action: str) -> tuple[str, Make]:
    async def make(world: World, who: str) -> Command:
        command = await review(world, action, by=who, required=2)
        return command.model_copy(update={"facts": command.facts.model_copy(update={"revision_number": 1})})

    return "review", make


def left_by(move: Move) -> tuple[str, Make]:
    async def make(world: World, _who: str) -> Command:
        return await leave(world, move)

    return "leave", make


def told(kind: str) -> tuple[str, Make]:
    async def make(world: World, _who: str) -> Command:
        return await news(world, kind)

    return "take_news", make


async def _resubmit(world: World, who: str) -> Command:
    return await submit(world, {"one": 2, "two": 3}[who], again=True)


async def _submit(world: World, who: str) -> Command:
    return await submit(world, {"one": 2, "two": 3}[who])


async def _queue(world: World, _who: str) -> Command:
    return await queue_up(world)


async def _retry(world: World, who: str) -> Command:
    return await retry(world, new=f"gate again by {who}")


async def _ask(world: World, _who: str) -> Command:
    return await ask_review(world, of="carl")


async def _take_back(world: World, _who: str) -> Command:
    return await take_back(world, of="voter")


COMMANDS: dict[str, tuple[str, Make]] = {
    "approve": vote_of("approve"),
    "request_changes": vote_of("request_changes"),
    "reject": vote_of("reject"),
    "request-review": ("request_review", _ask),
    "submit": ("submit", _submit),
    "resubmit": ("submit", _resubmit),
    "retry": ("retry", _retry),
    "queue": ("queue", _queue),
    "move-to-draft": left_by(Move.MOVE_TO_DRAFT),
    "withdraw": left_by(Move.WITHDRAW),
    "publish": told("released"),
    "conflict": told("conflicted"),
    "failed revalidation": told("needs_revalidation"),
    "passed revalidation": told("revalidated"),
    "take back a vote": ("take_back", _take_back),
}
REVIEWED = ["approve", "request_changes", "reject", "request-review", "resubmit", "move-to-draft", "withdraw", "take back a vote"]
TOGETHER: dict[ChangesetState, list[str]] = {
    S.DRAFT: ["submit", "withdraw"],
    S.SUBMITTED: ["retry", "request_changes", "reject", "resubmit", "move-to-draft", "withdraw"],
    S.IN_REVIEW: REVIEWED,
    S.CHANGES_REQUESTED: REVIEWED,
    S.APPROVED: ["queue", "request_changes", "reject", "move-to-draft", "withdraw", "take back a vote"],
    S.QUEUED: ["move-to-draft", "publish", "conflict", "failed revalidation"],
    S.NEEDS_REVALIDATION: ["move-to-draft", "withdraw", "publish", "conflict", "passed revalidation"],
    S.CONFLICTED: ["move-to-draft", "withdraw", "publish"],
}
"""State → the commands that are legal there; of a `submitted` one the gate was canceled, else it has passed."""
PAIRS = [
    pytest.param(state, one, two, id=f"{state.value}: {one} x {two}")
    for state, commands in TOGETHER.items()
    for one, two in combinations_with_replacement(commands, 2)
]


@dataclass
class Outcome:
    """What came of two commands: what was answered, and what the record and the audit say."""

    answers: dict[str, str] = field(default_factory=dict)
    state: str = ""
    votes: list[tuple[str, str, bool]] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    gate: str | None = None
    requests: list[str] = field(default_factory=list)
    audit: list[str] = field(default_factory=list)


@pytest.fixture
def worlds(world: World) -> Iterator[World]:
    """Worlds that share workers and server, each with a changeset of its own."""
    numbers = count(1)

    def made() -> Iterator[World]:
        while True:
            one = copy.copy(world)
            one.number = f"{world.number}.{next(numbers)}"  # type: ignore[assignment]
            yield one

    return made()


def given(world: World, state: ChangesetState) -> EntityWorkflow:
    """A changeset in the state, with a vote of somebody else, where there are votes."""
    kept: dict[str, Any] = {"required_approvals": 2}
    if state is not S.DRAFT:
        votes = ["voter"] if state not in (S.APPROVED, S.QUEUED, S.NEEDS_REVALIDATION, S.CONFLICTED) else ["voter", "other"]
        action = "request_changes" if state is S.CHANGES_REQUESTED else "approve"
        kept["votes"] = [
            Vote(id=world.id(f"vote {who}"), reviewer_user_id=world.id(who), action=action, revision_number=1, at=AT)
            for who in votes
            if state is not S.SUBMITTED
        ]
    if state is S.SUBMITTED:
        kept["gate"] = Gate(state=JobState.CANCELED, job_id=world.id("gate 1"), reason_code=ReasonCode.CANCELED)
        kept["revisions"] = [revision(world)]
    return changeset(world, state, **kept)


async def answer(world: World, entity: EntityWorkflow, update: str, command: Command) -> str:
    try:
        await world.commands.send(entity, update, command)
    except DomainError as error:
        return error.code.value
    return "ok"


def outcome(world: World, answers: dict[str, str]) -> Outcome:
    names = {world.id(name): name for name in ("voter", "other", "one", "two", "carl", "reviewer")}
    gates = {world.id(name): name for name in ("gate 1", "gate 2", "gate 3", "gate again by one", "gate again by two")}
    found = shown(world)
    return Outcome(
        answers,
        found.state.value,
        [(names[vote.reviewer_user_id], vote.action, vote in found.counted()) for vote in found.votes],
        [gates[one.job_id] for one in found.revisions],
        gates[found.gate.job_id] if found.gate is not None else None,
        [f"{names[one.reviewer_user_id]} {one.revision_number}" for one in found.review_requests],
        [event["action"] for event in world.store.audit if event["entity_id"] in (world.id("changeset"), world.id("gate 1"))],
    )


async def commands_of(world: World, one: str, two: str) -> dict[str, tuple[str, Command]]:
    made: dict[str, tuple[str, Command]] = {}
    for who, name in (("one", one), ("two", two)):
        update, make = COMMANDS[name]
        command = await make(world, who)
        made[who] = update, command.model_copy(update={"id": f"{world.number}:{who}"})
    return made


async def one_after_the_other(world: World, state: ChangesetState, pair: tuple[str, str], order: tuple[str, str]) -> Outcome:
    entity, commands = given(world, state), await commands_of(world, *pair)
    answers = {who: await answer(world, entity, *commands[who]) for who in order}
    return outcome(world, answers)


async def at_once(world: World, state: ChangesetState, pair: tuple[str, str], order: tuple[str, str]) -> Outcome:
    entity, commands = given(world, state), await commands_of(world, *pair)
    first, second = order
    held = world.store.hold(commands[first][1].id)
    sending = asyncio.create_task(answer(world, entity, *commands[first]))
    await world.until(held.reached.is_set, "the first one is being written")
    following = asyncio.create_task(answer(world, entity, *commands[second]))
    arriving = asyncio.create_task(world.accepted(entity, 2))
    await asyncio.wait({following, arriving}, return_when=asyncio.FIRST_COMPLETED)
    arriving.cancel()
    held.free.set()
    return outcome(world, {first: await sending, second: await following})


@pytest.mark.parametrize(("state", "one", "two"), some_of(PAIRS, one_in=5))
async def test_two_commands_at_once_give_what_one_after_the_other_gives(
    worlds: Iterator[World], state: ChangesetState, one: str, two: str
) -> None:
    orders = (("one", "two"), ("two", "one"))
    serial = [await one_after_the_other(next(worlds), state, (one, two), order) for order in orders]
    for order in orders:
        found = await at_once(next(worlds), state, (one, two), order)
        assert found in serial
        assert "ok" in found.answers.values()


@pytest.mark.parametrize("other", ["request_changes", "reject", "move-to-draft", "withdraw", "take back a vote", "queue"])
async def test_what_comes_while_the_queue_is_asked_is_decided_after_its_answer(worlds: Iterator[World], other: str) -> None:
    serial = await one_after_the_other(next(worlds), S.APPROVED, ("queue", other), ("one", "two"))
    world = next(worlds)
    entity, commands = given(world, S.APPROVED), await commands_of(world, "queue", other)
    asked = world.fakes.hold("queue enqueue")
    queueing = asyncio.create_task(answer(world, entity, *commands["one"]))
    await world.until(asked.reached.is_set, "the queue is asked")
    following = asyncio.create_task(answer(world, entity, *commands["two"]))
    await world.accepted(entity, 2)
    asked.free.set()
    assert outcome(world, {"one": await queueing, "two": await following}) == serial
