"""What a pending deployment waits for (`spec.md` 12): the one before it, the line, its time, approvals, the end of a hold."""

from __future__ import annotations

from datetime import timedelta

import pytest
from deploy_acts import approve, blocker, cancel, exceptional, in_phase, job, ordinary, result, scheduled, signal, told
from workflow_names import uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World

from conman.domain.deploy_messages import BeginReply, LockReply, Outcome
from conman.domain.deployment import Approval, DeploymentState, Phase, waiting_for
from conman.domain.errors import ErrorCode
from conman.domain.times import later, parse_time


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


@pytest.fixture(autouse=True)
def requested(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


# -- The line


async def test_one_in_line_asks_again_every_half_minute_and_takes_the_lock_when_it_is_its_turn(world: World) -> None:
    answers = [LockReply(holder_id=uid("holder"))] * 3
    world.fakes.line = lambda _question: answers.pop() if answers else LockReply(fence=9)
    begun = parse_time(await world.now())
    entity = deployment(world, fence=None, wait=True)
    await world.start(entity)
    await in_phase(world, Phase.LOCK, uid("holder"))
    assert await result(world, entity) == "succeeded"
    assert parse_time(await world.now()) - begun >= timedelta(seconds=90)
    assert (deployment_shown(world).fence, world.fakes.switches[0].fence) == (9, 9)


async def test_an_environment_that_is_archived_meanwhile_ends_the_wait(world: World) -> None:
    world.fakes.line = lambda _question: LockReply(closed=True)
    entity = deployment(world, fence=None, wait=True)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert (deployment_shown(world).reason_code, job(world)) == (ErrorCode.CONFLICT, ("canceled", "canceled"))


async def test_another_one_that_runs_when_the_lock_is_taken_asks_for_approvals_of_which_the_requester_gives_one(
    world: World,
) -> None:
    world.fakes.line = lambda _question: LockReply(fence=9, concurrent=True, approval_ttl_hours=3)
    entity = deployment(world, fence=None, wait=True)
    begun = await world.now()
    await world.start(entity)
    await in_phase(world, Phase.APPROVALS)
    shown = deployment_shown(world)
    assert (shown.exceptional_reasons, shown.approvals_required) == (["concurrent"], 2)
    assert [vote.user_id for vote in shown.approvals] == [world.id("manager")]
    assert later(begun, timedelta(hours=3)) <= (shown.approvals_expire_at or "")
    assert told(world) == ["deployment_waits_for_approval"]
    await approve(world, entity, "bea")
    assert await result(world, entity) == "succeeded"


async def test_a_cancel_in_line_ends_it_at_once(world: World) -> None:
    world.fakes.line = lambda _question: LockReply(holder_id=uid("holder"))
    entity = deployment(world, fence=None, wait=True)
    await world.start(entity)
    await in_phase(world, Phase.LOCK, uid("holder"))
    await cancel(world, entity)
    assert await result(world, entity) == "canceled"
    assert world.fakes.switches == []


# -- One request, several environments


async def test_of_one_request_each_starts_when_the_one_before_it_has_succeeded(world: World) -> None:
    held = world.fakes.hold("await_deployment")
    entity = deployment(world, after_deployment_id=uid("first"), group_id=uid("group"))
    await world.start(entity)
    await world.until(held.reached.is_set, "it waits for the first")
    assert "the deployment before it" in (waiting_for(deployment_shown(world)) or "")
    assert world.fakes.runs == []
    held.free.set()
    assert await result(world, entity) == "succeeded"


@pytest.mark.parametrize("state", ["failed", "canceled"])
async def test_the_first_failure_of_a_request_cancels_the_rest(world: World, state: str) -> None:
    world.fakes.before = Outcome(state=DeploymentState(state), name="QA")
    entity = deployment(world, after_deployment_id=uid("first"), group_id=uid("group"))
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert f"to QA ended {state}" in (deployment_shown(world).message or "")
    assert (world.fakes.runs, job(world)) == ([], ("canceled", "canceled"))


async def test_one_approval_holds_for_the_whole_request_though_its_first_part_takes_longer_than_it_lasts(world: World) -> None:
    held = world.fakes.hold("await_deployment")
    now = await world.now()
    votes = [Approval(user_id=world.id(name), at=now) for name in ("manager", "bea")]
    soon = later(now, timedelta(milliseconds=1))
    entity = await exceptional(world, after_deployment_id=uid("first"), approvals=votes, approvals_expire_at=soon)
    await world.start(entity)
    await world.until(held.reached.is_set, "it waits for the first")
    held.free.set()
    assert await result(world, entity) == "succeeded"


async def test_without_its_approvals_a_request_expires_while_it_waits_for_its_first_part(world: World) -> None:
    world.fakes.hold("await_deployment")
    soon = later(await world.now(), timedelta(seconds=1))  # time does not skip while an activity runs
    entity = await exceptional(world, after_deployment_id=uid("first"), approvals_expire_at=soon)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert world.store.actions() == ["approval_expired", "canceled"]


# -- Its time


async def test_a_scheduled_one_starts_at_its_time(world: World) -> None:
    entity = await scheduled(world, 5)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    not_before = deployment_shown(world).not_before or ""
    (started,) = [event for event in world.store.audit if event["action"] == "started"]
    assert not_before <= started["occurred_at"]
    assert [question.at for question in world.fakes.judged].count(not_before) == 1, "once ahead, for its time"


async def test_an_hour_ahead_the_requester_is_warned_once_of_what_would_now_stop_it(world: World) -> None:
    frozen = blocker("environment_frozen", "Live is frozen until noon.")
    world.fakes.judge = lambda _question: frozen
    entity = await scheduled(world, 5)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    (warning,) = [notice for notice in world.store.notices if notice["kind"] == "deployment_warning"]
    assert (warning["user_ids"], warning["data"]["warning"]) == ([world.id("manager")], "Live is frozen until noon.")
    ahead = later(deployment_shown(world).not_before or "", timedelta(hours=-1))
    assert ahead <= warning["at"]


async def test_a_publish_has_it_judged_again_and_a_warning_that_is_no_more_is_taken_back(world: World) -> None:
    world.fakes.judge = lambda _question: blocker("stage_skipped", "Deploy it to QA first.")
    entity = await scheduled(world, 5)
    await world.start(entity)
    await in_phase(world, Phase.SCHEDULE)
    await signal(world, entity, "look_again")
    await world.until(lambda: deployment_shown(world).warning == "Deploy it to QA first.", "the warning")
    world.fakes.judge = lambda _question: {}
    await signal(world, entity, "look_again")
    await world.until(lambda: deployment_shown(world).warning is None, "no warning")
    assert await result(world, entity) == "succeeded"


@pytest.mark.parametrize("code", ["environment_frozen", "marked_bad", "stage_skipped", "invalid_transition"])
async def test_what_stands_in_its_way_at_its_start_cancels_it_with_the_code_of_the_rule(world: World, code: str) -> None:
    world.fakes.judge = lambda _question: blocker(code)
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    shown = deployment_shown(world)
    assert (shown.reason_code, shown.message) == (ErrorCode(code), "It can't start.")
    assert (job(world), world.fakes.runs, told(world)) == (("canceled", "canceled"), [], ["deployment_canceled"])


async def test_while_the_app_is_on_hold_it_waits_and_says_so(world: World) -> None:
    world.fakes.judge = lambda _question: blocker("app_on_hold", "The app is on hold: audit.")
    entity = deployment(world)
    await world.start(entity)
    await in_phase(world, Phase.SCHEDULE, "The app is on hold: audit.")
    world.fakes.judge = lambda _question: {}
    await signal(world, entity, "look_again")
    assert await result(world, entity) == "succeeded"


async def test_a_hold_that_ends_without_a_word_is_seen_all_the_same(world: World) -> None:
    answers = [blocker("app_on_hold")] * 2
    world.fakes.judge = lambda _question: answers.pop() if answers else {}
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    assert answers == []


async def test_a_hold_does_not_let_approvals_live_longer(world: World) -> None:
    world.fakes.judge = lambda _question: blocker("app_on_hold")
    now = await world.now()
    votes = [Approval(user_id=world.id(name), at=now) for name in ("manager", "bea")]
    soon = later(now, timedelta(hours=2))  # it looks again every few minutes, for as long as it may
    entity = await exceptional(world, approvals=votes, approvals_expire_at=soon)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert world.store.actions() == ["approval_expired", "canceled"]


# -- Approvals


async def test_approvals_come_in_every_pending_phase(world: World) -> None:
    world.fakes.line = lambda _question: LockReply(holder_id=uid("holder"))
    entity = await exceptional(world, fence=None, wait=True)
    await world.start(entity)
    await in_phase(world, Phase.LOCK, uid("holder"))
    await approve(world, entity, "bea")
    world.fakes.line = lambda _question: LockReply(fence=9)
    await signal(world, entity, "lock_granted")
    assert await result(world, entity) == "succeeded"
    assert Phase.APPROVALS not in [line for line in world.store.log if line.startswith("phase")]


async def test_votes_for_what_has_changed_since_are_void_and_the_approvers_are_told_again(world: World) -> None:
    entity = await ordinary(world)
    await world.start(entity)
    await approve(world, entity, "ann")
    world.fakes.judge = lambda _question: {"shown_digest": "edited"}
    await signal(world, entity, "look_again")
    await world.until(lambda: deployment_shown(world).shown_digest == "edited", "it has seen the edit")
    assert (deployment_shown(world).approvals, told(world)) == ([], ["deployment_waits_for_approval"])
    for who in ("ann", "bea"):
        await approve(world, entity, who)
    assert await result(world, entity) == "succeeded"
    assert [vote.digest for vote in deployment_shown(world).approvals] == ["edited", "edited"]
    assert world.store.actions() == ["approved", "approved", "approved", "started", "succeeded"]


async def test_more_approvals_that_are_asked_now_are_waited_for(world: World) -> None:
    entity = await ordinary(world, approvals_required=0, approvals_expire_at=None, approval_role=None)
    world.fakes.judge = lambda _question: {"approvals_required": 1, "approval_role": "app_admin", "approval_ttl_hours": 2}
    await world.start(entity)
    await in_phase(world, Phase.APPROVALS)
    shown = deployment_shown(world)
    assert (shown.approvals_required, shown.approval_role) == (1, "app_admin")
    await approve(world, entity, "ann")
    assert await result(world, entity) == "succeeded"


async def test_a_profile_that_was_edited_as_it_began_sends_it_back_to_its_checks(world: World) -> None:
    world.fakes.began = [BeginReply(moved=True)]
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    steps = ("judge_start", "prepare_profile", "check_drift", "begin_running")
    assert [line for line in world.store.log if line in steps] == [*steps, *steps]
