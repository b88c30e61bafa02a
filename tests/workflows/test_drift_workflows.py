"""`job:{id}` of a drift check, and the round through all environments (`spec.md` 9 and 12, `durability.md` 25)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from workflow_world import World

from conman.domain.deploy_messages import DriftCheckStart, DriftPlace, DriftQuestion, DriftReply, DriftRound
from conman.domain.drift import DriftItem
from conman.domain.jobs import ReasonCode
from conman.domain.times import later
from conman.workflows import options
from conman.workflows.drift_check import LOOK_AGAIN_AFTER, DriftCheckWorkflow, DriftRoundWorkflow

TOUCHED = DriftItem(kind="env_var", key="LIMIT", expected="5", observed="50")


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


class Looks:
    """What the looks find, the last for ever; and what was asked."""

    def __init__(self, world: World, *found: dict[str, Any]) -> None:
        self.found = list(found) or [{}]
        self.asked: list[DriftQuestion] = []
        world.fakes.look = self

    def __call__(self, question: DriftQuestion) -> DriftReply:
        self.asked.append(question)
        found = self.found[min(len(self.asked), len(self.found)) - 1]
        return DriftReply(checked_at=question.at, **found)


def check(world: World) -> DriftCheckStart:
    return DriftCheckStart(job_id=world.id("job"), app_id=world.app_id, environment_id=world.id("qa"), environment="QA")


async def ended(world: World) -> dict[str, Any]:
    """The job as a check has left it."""
    start = check(world)
    queue = options.queue_name(options.Queue.MAIN)
    await world.client.execute_workflow(DriftCheckWorkflow.run, start, id=start.job_id, task_queue=queue)
    return world.store.jobs[start.job_id]


async def test_a_check_ends_with_what_it_has_found(world: World) -> None:
    looks = Looks(world, {"report": [TOUCHED], "first_seen_at": "then"})

    job = await ended(world)

    assert (job["state"], job["reason_code"]) == ("succeeded", "ok")
    assert (job["result"]["drifted"], job["result"]["first_seen_at"]) == (True, "then")
    assert job["result"]["report"] == [TOUCHED.model_dump(mode="json")]
    assert [(asked.deployment_id, asked.job_id) for asked in looks.asked] == [(None, world.id("job"))]


@pytest.mark.parametrize(
    ("found", "attempts", "state", "reason"),
    [
        ([{}], [1], "succeeded", "ok"),
        ([{"problem": "away", "reason_code": ReasonCode.INFRASTRUCTURE}], [1, 2, 3], "failed", "infrastructure"),
        ([{"problem": "away", "reason_code": ReasonCode.INFRASTRUCTURE}, {}], [1, 2], "succeeded", "ok"),
        ([{"problem": "no such program", "reason_code": ReasonCode.RUNNER_ERROR}], [1, 2, 3], "failed", "runner_error"),
        ([{"overtaken": True}], [1], "canceled", "superseded"),
    ],
    ids=["clean", "away", "away for a while", "no program", "overtaken"],
)
async def test_only_what_the_machine_did_is_tried_again_twice(
    world: World, found: list[dict[str, Any]], attempts: list[int], state: str, reason: str
) -> None:
    looks = Looks(world, *found)

    job = await ended(world)

    assert [asked.attempt for asked in looks.asked] == attempts
    assert (job["state"], job["reason_code"]) == (state, reason)
    assert (job["result"] is not None) == (state == "succeeded")


async def test_a_look_that_was_lost_with_its_worker_counts_as_an_attempt(world: World) -> None:
    looks = Looks(world)
    world.fakes.errors["check_drift"] = ApplicationError("the worker is gone")

    job = await ended(world)

    assert (job["state"], job["reason_code"], looks.asked) == ("failed", "infrastructure", [])


async def test_a_check_that_ran_in_a_history_that_is_lost_fails_and_looks_at_nothing(world: World) -> None:
    looks = Looks(world)
    world.fakes.watch.begins = False

    job = await ended(world)

    assert (job["state"], job["reason_code"], looks.asked) == ("failed", "infrastructure", [])


async def test_a_cancel_ends_the_look_and_then_the_job(world: World) -> None:
    Looks(world)
    world.fakes.hold("check_drift")
    start = check(world)
    handle = await world.client.start_workflow(
        DriftCheckWorkflow.run, start, id=start.job_id, task_queue=options.queue_name(options.Queue.MAIN)
    )
    await world.until(world.fakes.holds["check_drift"].reached.is_set, "the look")

    await handle.cancel()

    assert await handle.result() == "canceled"
    assert world.store.jobs[start.job_id]["state"] == "canceled"


# -- Rounds


def places(world: World, *names: str) -> list[DriftPlace]:
    return [DriftPlace(app_id=world.app_id, environment_id=world.id(name)) for name in names]


async def round_through(world: World) -> int:
    queue = options.queue_name(options.Queue.MAIN)
    return await world.client.execute_workflow(DriftRoundWorkflow.run, DriftRound(), id=world.id("round"), task_queue=queue)


async def test_a_round_looks_at_every_environment_once_page_by_page_and_makes_no_jobs(world: World) -> None:
    looks = Looks(world)
    world.fakes.watch.pages = [places(world, *"abcdefg"), places(world, "h"), places(world)]

    assert await round_through(world) == 0

    assert sorted(asked.environment_id for asked in looks.asked) == sorted(world.id(name) for name in "abcdefgh")
    assert {asked.job_id for asked in looks.asked} == {None}
    assert world.fakes.watch.turned == ["", "1", "2"]
    assert (world.store.jobs, world.fakes.watch.healed) == ({}, [])


async def test_what_has_drifted_may_be_healed_and_is_looked_at_again_where_it_was(world: World) -> None:
    looks = Looks(world, {"report": [TOUCHED]})
    world.fakes.watch.pages = [places(world, "healed", "blocked")]
    world.fakes.watch.heals = lambda question: "deployment" if question.environment_id == world.id("healed") else None

    assert await round_through(world) == 2

    assert [asked.environment_id for asked in world.fakes.watch.healed] == [world.id("healed"), world.id("blocked")]
    again = looks.asked[2:]
    assert [asked.environment_id for asked in again] == [world.id("healed")]
    assert again[0].at >= later(world.fakes.watch.healed[-1].at, LOOK_AGAIN_AFTER)
    assert timedelta(minutes=2) == LOOK_AGAIN_AFTER


@pytest.mark.parametrize("found", [{"overtaken": True}, {"problem": "away", "reason_code": ReasonCode.TIMEOUT}], ids=str)
async def test_an_environment_that_could_not_be_looked_at_is_not_healed_and_holds_up_no_other(
    world: World, found: dict[str, Any]
) -> None:
    looks = Looks(world, found)
    world.fakes.watch.pages = [places(world, "a", "b")]

    assert await round_through(world) == 0

    assert (len(looks.asked), world.fakes.watch.healed) == (2, [])


async def test_a_healing_that_could_not_start_is_left_to_the_next_round(world: World) -> None:
    looks = Looks(world, {"report": [TOUCHED]})
    world.fakes.watch.pages = [places(world, "a")]

    def fails(_: Any) -> str:
        raise ApplicationError("no database")

    world.fakes.watch.heals = fails

    assert await round_through(world) == 1

    assert (len(looks.asked), len(world.fakes.watch.healed)) == (1, 3)
