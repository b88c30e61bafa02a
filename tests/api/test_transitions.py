"""Every command on a changeset in every state: what the table does not allow is 409 and moves nothing (`spec.md` 3)."""

from __future__ import annotations

import httpx
import pytest
import pytest_asyncio

from conman.domain.changeset import TRANSITIONS, ChangesetState, Move
from tests.support.conman_stack import AT_ONCE, World, assert_error, make_world, wait_for
from tests.support.waiting import side_by_side

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
S = ChangesetState
STAYS = {"request-review": (S.SUBMITTED, S.IN_REVIEW, S.CHANGES_REQUESTED), "revalidate": (S.QUEUED, S.NEEDS_REVALIDATION)}
"""Commands that move no state by themselves, and where they may be given (`api.md` 3)."""


def where_to(state: ChangesetState, command: str) -> ChangesetState | None:
    """Where the table leads; None: it refuses. A review of what is not approved yet passes `in_review` on its way."""
    if command in STAYS:
        return state if state in STAYS[command] else None
    move = COMMANDS[command]
    if move in REVIEWS and state is not S.APPROVED:
        passing = TRANSITIONS.get((state, Move.REVIEW))
        return TRANSITIONS[passing, move] if passing is not None else None
    return TRANSITIONS.get((state, move))


WALK = {(state, command): where_to(state, command) for state in S for command in (*COMMANDS, *STAYS)}
ILLEGAL = [pair for pair, to in WALK.items() if to is None]
LEGAL = {pair: to for pair, to in WALK.items() if to is not None}
IN_THE_OTHER_APP = (S.RELEASED, S.CONFLICTED, S.NEEDS_REVALIDATION)


async def send(world: World, changeset: str, command: str) -> httpx.Response:
    if command == "request-review":
        return await world.ann.send("POST", f"{changeset}/request-review", json={"user_id": world.rob.id})
    if command == "withdraw":
        return await world.ann.send("DELETE", changeset)
    if COMMANDS.get(command) in REVIEWS:
        return await world.rob.send("POST", f"{changeset}/review", json={"action": command})
    return await world.ann.send("POST", f"{changeset}/{command}", json={})


@pytest_asyncio.fixture(scope="module")
async def apart(world: World) -> World:
    """A second app, in which a publish disturbs what is queued."""
    return await make_world(world.stack)


async def made_in(world: World, state: ChangesetState) -> str:
    """A changeset in a state that no publish is needed for; in one in review one of two approvals is missing."""
    match state:
        case S.DRAFT:
            return await world.changeset()
        case S.APPROVED:
            return await world.approved()
        case S.QUEUED:
            return await world.queued()
    changeset = await world.submitted()
    review = {S.CHANGES_REQUESTED: "request_changes", S.REJECTED: "reject"}.get(state)
    if state is S.WITHDRAWN:
        assert (await send(world, changeset, "withdraw")).status_code == 204
    elif review is not None:
        assert (await send(world, changeset, review)).status_code == 200
    return changeset


async def made_by_a_publish(world: World, wanted: list[ChangesetState]) -> list[str]:
    """Changesets in the states that a publish leads to; the suite fails where two quarrel, and one path is changed by all."""
    files = {S.CONFLICTED: "entities/shared.json", S.NEEDS_REVALIDATION: "{number}.quarrel"}
    clash = {"entities/shared.json": '{"by": "published"}', "first.quarrel": "x"}
    published = await world.queued(clash)
    others = [state for state in wanted if state is not S.RELEASED]
    queued = await side_by_side(
        enumerate(others),
        lambda other: world.queued({files[other[1]].format(number=other[0]): f'{{"by": {other[0]}}}'}),
        AT_ONCE,
    )
    await world.max.post(f"{await world.validated(published)}/publish")

    async def judged() -> bool:
        return [await world.state(path) for path in queued] == [state.value for state in others]

    await wait_for(judged, "the verdicts on what is still queued")
    left = iter(queued)
    return [published if state is S.RELEASED else next(left) for state in wanted]


@pytest_asyncio.fixture(scope="module")
async def made(world: World, apart: World) -> dict[tuple[ChangesetState, str], tuple[World, str]]:
    """For each legal move a changeset in its state, and one in each state for all that is illegal there."""
    wanted = [*LEGAL, *((state, "") for state in S)]
    theirs = [pair for pair in wanted if pair[0] in IN_THE_OTHER_APP]
    ours = [pair for pair in wanted if pair not in theirs]
    paths = await side_by_side(ours, lambda pair: made_in(world, pair[0]), AT_ONCE)
    by_publish = await made_by_a_publish(apart, [state for state, _ in theirs])
    found = dict(zip(ours, [(world, path) for path in paths], strict=True))
    found |= dict(zip(theirs, [(apart, path) for path in by_publish], strict=True))
    await world.set(required_approval_count=2)
    started = [(world, path) for (state, _), (_, path) in found.items() if state is S.IN_REVIEW]
    for _, path in started:
        await world.max.post(f"{path}/review", {"action": "approve"})
    await world.set(required_approval_count=1)
    shown = {pair: await where.state(path) for pair, (where, path) in found.items()}
    assert shown == {(state, command): state.value for state, command in found}
    return found


@pytest.mark.parametrize(("state", "command"), LEGAL, ids=[f"{s.value} --{c}--> {to.value}" for (s, c), to in LEGAL.items()])
async def test_what_the_table_allows_leads_where_it_says(
    made: dict[tuple[ChangesetState, str], tuple[World, str]], state: ChangesetState, command: str
) -> None:
    where, path = made[state, command]
    if command == "resubmit":
        workspace = (await where.ann.get(path))["workspace_id"]
        await where.save(f"{where.path}/workspaces/{workspace}", "entities/more.json", "{}")
    if command == "revalidate":
        return await _revalidated(where, path, state)
    reply = await send(where, path, command)
    assert reply.status_code < 300, reply.text
    assert await where.state(path) == LEGAL[state, command].value
    return None


async def _revalidated(where: World, path: str, state: ChangesetState) -> None:
    job = (await where.ann.post(f"{path}/revalidate"))["job"]
    assert (await where.job(job["id"]))["job_type"] == "revalidate_queued_changeset"
    assert await where.state(path) == state.value


@pytest.mark.parametrize(("state", "command"), ILLEGAL, ids=[f"{state.value} --{command}-->" for state, command in ILLEGAL])
async def test_what_the_table_does_not_allow_is_409_naming_both_states(
    made: dict[tuple[ChangesetState, str], tuple[World, str]], state: ChangesetState, command: str
) -> None:
    where, path = made[state, ""]
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
