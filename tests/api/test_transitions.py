"""Every command on a changeset in every state: what the table does not allow is 409 and moves nothing (`spec.md` 3)."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import pytest_asyncio

from conman.domain.changeset import TRANSITIONS, ChangesetState, Move
from tests.support.conman_stack import World, assert_error, make_world, wait_for

COMMANDS = {
    "submit": Move.SUBMIT,
    "resubmit": Move.RESUBMIT,
    "queue": Move.QUEUE,
    "move-to-draft": Move.MOVE_TO_DRAFT,
    "withdraw": Move.WITHDRAW,
    "approve": Move.APPROVE,
    "request_changes": Move.REQUEST_CHANGES,
    "reject": Move.REJECT,
}
REVIEWS = (Move.APPROVE, Move.REQUEST_CHANGES, Move.REJECT)


def legal(state: ChangesetState, move: Move) -> bool:
    """A review of what is not approved yet passes `in_review` on its way."""
    if move in REVIEWS and state is not ChangesetState.APPROVED:
        return (state, Move.REVIEW) in TRANSITIONS
    return (state, move) in TRANSITIONS


ILLEGAL = [(state, command) for state in ChangesetState for command, move in COMMANDS.items() if not legal(state, move)]


async def send(world: World, changeset: str, command: str) -> httpx.Response:
    if COMMANDS[command] in REVIEWS:
        return await world.rob.send("POST", f"{changeset}/review", json={"action": command})
    if command == "withdraw":
        return await world.ann.send("DELETE", changeset)
    return await world.ann.send("POST", f"{changeset}/{command}", json={})


@pytest_asyncio.fixture(scope="module")
async def apart(world: World) -> World:
    """A second app, in which a publish disturbs what is queued."""
    return await make_world(world.stack)


@pytest_asyncio.fixture(scope="module")
async def in_state(world: World, apart: World) -> dict[ChangesetState, tuple[World, str]]:
    """One changeset in each state."""
    states = ChangesetState
    released, conflicted, failing = await asyncio.gather(
        apart.queued({"entities/shared.json": '{"a": 1}', "a.quarrel": "x"}),
        apart.queued({"entities/shared.json": '{"b": 2}'}),
        apart.queued({"b.quarrel": "x"}),
    )
    await apart.max.post(f"{await apart.validated(released)}/publish")

    async def judged() -> bool:
        return (await apart.state(conflicted), await apart.state(failing)) == ("conflicted", "needs_revalidation")

    await wait_for(judged, "the verdicts on what is still queued")
    draft, submitted, *reviewed = await asyncio.gather(
        world.changeset(), world.submitted(), world.submitted(), world.submitted(), world.submitted()
    )
    asked, rejected, withdrawn = reviewed
    approved, queued = await asyncio.gather(world.approved(), world.queued())
    await world.set(required_approval_count=2)
    in_review = await world.submitted()
    await world.rob.post(f"{in_review}/review", {"action": "approve"})
    await world.set(required_approval_count=1)
    await send(world, asked, "request_changes")
    await send(world, rejected, "reject")
    await send(world, withdrawn, "withdraw")
    made = {
        states.DRAFT: draft,
        states.SUBMITTED: submitted,
        states.IN_REVIEW: in_review,
        states.CHANGES_REQUESTED: asked,
        states.APPROVED: approved,
        states.QUEUED: queued,
        states.REJECTED: rejected,
        states.WITHDRAWN: withdrawn,
    }
    theirs = {states.RELEASED: released, states.CONFLICTED: conflicted, states.NEEDS_REVALIDATION: failing}
    found = {state: (world, path) for state, path in made.items()} | {state: (apart, path) for state, path in theirs.items()}
    shown = {state: await where.state(path) for state, (where, path) in found.items()}
    assert shown == {state: state.value for state in ChangesetState}
    return found


@pytest.mark.parametrize(("state", "command"), ILLEGAL, ids=[f"{state.value} --{command}-->" for state, command in ILLEGAL])
async def test_what_the_table_does_not_allow_is_409_naming_both_states(
    in_state: dict[ChangesetState, tuple[World, str]], state: ChangesetState, command: str
) -> None:
    where, path = in_state[state]
    before = await where.ann.get(path)
    error = assert_error(await send(where, path, command), 409, "invalid_transition")
    assert error["details"]["from"] == state.value
    assert error["details"]["to"] in {to.value for to in ChangesetState}
    assert state.value in error["message"] and error["details"]["to"] in error["message"]
    assert await where.ann.get(path) == before


async def test_a_changeset_in_an_open_release_leaves_the_queue_only_with_it(own: World) -> None:
    changeset = await own.queued()
    release = await own.release(changeset)
    refused = assert_error(await own.ann.send("POST", f"{changeset}/move-to-draft", json={}), 409, "conflict")
    assert refused["details"][0]["release_id"] == release.rpartition("/")[2]
    assert (await own.ann.get(changeset))["release_id"] == release.rpartition("/")[2]
    assert (await own.max.send("DELETE", release)).status_code == 204
    assert (await own.ann.post(f"{changeset}/move-to-draft"))["state"] == "draft"


async def test_what_conflicts_goes_back_to_draft_and_is_synced_by_hand(own: World) -> None:
    path = "entities/shared.json"
    first, second = await own.queued({path: '{"a": 1}'}), await own.queued({path: '{"b": 2}'})
    await own.max.post(f"{await own.validated(first)}/publish")

    async def conflicted() -> bool:
        return await own.state(second) == "conflicted"

    await wait_for(conflicted, "the conflict")
    assert (await own.ann.post(f"{second}/move-to-draft"))["conflicts"] == []
    assert_error(await own.ann.send("POST", f"{second}/submit", json={}), 409, "out_of_date")


async def test_what_failed_on_a_new_head_keeps_its_place_and_can_not_be_selected(own: World) -> None:
    first, failing, third = (
        await own.queued({"a.quarrel": "x"}),
        await own.queued({"b.quarrel": "x"}),
        await own.queued(),
    )
    await own.max.post(f"{await own.validated(first)}/publish")

    async def judged() -> bool:
        queue = await own.ann.get(f"{own.path}/queue")
        return queue["progress"] == {"done": 2, "total": 2}

    await wait_for(judged, "the verdicts")
    ids = [path.rpartition("/")[2] for path in (failing, third)]
    items = (await own.ann.get(f"{own.path}/queue"))["items"]
    assert [(item["changeset_id"], item["status"]) for item in items] == [(ids[0], "failed"), (ids[1], "valid")]

    async def told() -> bool:
        return await own.state(failing) == "needs_revalidation"

    await wait_for(told, "the changeset to be told")
    refused = assert_error(await own.max.send("POST", f"{own.path}/releases", json={"changeset_ids": ids}), 409, "conflict")
    assert refused["details"] == [{"changeset_id": ids[0], "state": "needs_revalidation", "release_id": None}]
    job = await own.job((await own.ann.get(failing))["last_revalidation_job_id"])
    assert job["reason_code"] == "tests_failed"
    lines = (await own.ann.get(f"{own.path}/jobs/{job['id']}/logs"))["lines"]
    assert "a.quarrel and b.quarrel can't stand together" in [line["text"] for line in lines]
