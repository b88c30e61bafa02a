"""A deployment whose environment is not what was last applied there (`spec.md` 12, drift), and every way out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from deploy_acts import EDITED, TOUCHED, blocked, cancel, exceptional, in_phase, job, result, revalidate, told
from workflow_names import uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World, refused

from conman.domain.deploy_messages import BeginReply, RevalidateCommand, SupersedeCommand
from conman.domain.deployment import Approval, Kind, Phase, Rollback, RollbackMode, waiting_for, waits_for_drift_only
from conman.domain.jobs import ReasonCode
from conman.domain.times import later, parse_time


@pytest.fixture
def world(skipping_world: World) -> World:
    return skipping_world


@pytest.fixture(autouse=True)
def requested(world: World) -> None:
    world.store.jobs[world.id("job")] = {"state": "queued"}


async def is_blocked(world: World) -> None:
    await world.until(lambda: waits_for_drift_only(deployment_shown(world)), "it is blocked")


async def test_drift_blocks_it_with_the_report_for_a_day_and_then_it_is_canceled(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    begun = parse_time(await world.now())
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    shown = deployment_shown(world)
    assert (shown.phase, shown.drift_report) == (Phase.DRIFT, [TOUCHED])
    assert str(shown.drift_waits_until) in (waiting_for(shown) or "")
    assert await result(world, entity) == "canceled"
    assert parse_time(await world.now()) - begun >= timedelta(hours=24)
    assert world.store.actions() == ["blocked_by_drift", "canceled"]
    assert told(world) == ["deployment_blocked_by_drift", "deployment_canceled"], "told once, however often it looks"
    assert (job(world), world.fakes.runs, world.fakes.lock) == (("canceled", "canceled"), [], None)


async def test_a_mended_environment_is_seen_by_itself(world: World) -> None:
    looks = [blocked(TOUCHED)] * 3
    world.fakes.look = lambda _question: looks.pop() if looks else blocked()
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    assert world.store.actions() == ["blocked_by_drift", "started", "succeeded"]
    assert deployment_shown(world).drift_report is None
    assert world.store.log.count("judge_start") == 2, "what was agreed is judged again after the wait"


async def test_revalidate_looks_and_goes_on_when_the_environment_was_mended(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    world.fakes.look = lambda _question: blocked()
    await revalidate(world, entity)
    assert await result(world, entity) == "succeeded"
    assert world.store.actions() == ["blocked_by_drift", "revalidated", "started", "succeeded"]


async def test_revalidate_alone_does_not_overwrite(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    await revalidate(world, entity)
    await world.until(lambda: world.store.log.count("check_drift") >= 2, "it looked")
    await world.until(lambda: deployment_shown(world).revalidation is None, "it has seen that nothing is mended")
    assert waits_for_drift_only(deployment_shown(world))
    await cancel(world, entity)
    assert await result(world, entity) == "canceled"


async def test_revalidate_after_an_emergency_edit_lets_that_revision_through_the_gate_which_clears_it(world: World) -> None:
    world.fakes.look = lambda _question: blocked(EDITED, edit="edited")
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    await revalidate(world, entity)
    assert await result(world, entity) == "succeeded"
    assert deployment_shown(world).cleared_revision_id == uid("edited")
    assert world.fakes.cleared == [uid("edited")]
    assert "drift_overwritten" not in world.store.actions()


async def test_a_gate_that_fails_clears_no_emergency_edit(world: World) -> None:
    async def suite(_run: object) -> ReasonCode:
        return ReasonCode.TESTS_FAILED

    world.fakes.suite = suite
    world.fakes.look = lambda _question: blocked(EDITED, edit="edited")
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    await revalidate(world, entity)
    assert await result(world, entity) == "failed"
    assert world.fakes.cleared == []


async def test_another_emergency_edit_than_the_one_that_was_cleared_blocks_again(world: World) -> None:
    looks = [blocked(EDITED, edit=name) for name in ("edited again", "edited", "edited")]
    world.fakes.look = lambda _question: looks.pop() if len(looks) > 1 else looks[0]
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    await revalidate(world, entity)
    await world.until(lambda: deployment_shown(world).cleared_revision_id == uid("edited"), "the first is cleared")
    await is_blocked(world)
    await revalidate(world, entity)
    assert await result(world, entity) == "succeeded"
    assert world.fakes.cleared == [uid("edited again")]


async def test_overwrite_deploys_over_what_was_touched_and_the_audit_has_the_report(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    await revalidate(world, entity, overwrite=True)
    assert await result(world, entity) == "succeeded"
    assert world.store.actions() == ["blocked_by_drift", "revalidated", "started", "drift_overwritten", "succeeded"]
    (event,) = [event for event in world.store.audit if event["action"] == "drift_overwritten"]
    assert [item["key"] for item in event["after"]["report"]] == ["LIMIT"]


async def test_what_nobody_could_look_at_blocks_it_and_is_looked_at_again(world: World) -> None:
    looks = [blocked(problem="The program did not answer.")]
    world.fakes.look = lambda _question: looks.pop() if looks else blocked()
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    assert world.store.actions() == ["blocked_by_drift", "started", "succeeded"]


async def test_a_look_that_a_deployment_overtook_is_worth_nothing_and_is_made_again(world: World) -> None:
    looks = [blocked(overtaken=True)]
    world.fakes.look = lambda _question: looks.pop() if looks else blocked()
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    assert "blocked_by_drift" not in world.store.actions()


async def test_only_what_drift_blocks_is_revalidated(world: World) -> None:
    entity = await exceptional(world)
    await world.start(entity)
    await in_phase(world, Phase.APPROVALS)
    assert (await refused(world.send(entity, "revalidate", await world.command(RevalidateCommand)))).type == "conflict"
    await cancel(world, entity)
    assert await result(world, entity) == "canceled"
    late = await refused(world.send(entity, "revalidate", await world.command(RevalidateCommand)))
    assert late.type == "invalid_transition"


async def test_a_newer_deployment_supersedes_the_one_that_waits_for_drift(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    entity = deployment(world)
    await world.start(entity)
    await is_blocked(world)
    await world.send(entity, "supersede", await world.command(SupersedeCommand, by="bea", by_deployment_id=uid("newer")))
    assert await result(world, entity) == "canceled"
    assert (deployment_shown(world).reason_code, job(world)) == (ReasonCode.SUPERSEDED, ("canceled", "superseded"))
    assert world.store.actions() == ["blocked_by_drift", "superseded", "canceled"]
    (event,) = [event for event in world.store.audit if event["action"] == "superseded"]
    assert (event["after"]["by_deployment_id"], event["actor_user_id"]) == (uid("newer"), world.id("bea"))


async def test_one_whose_lock_was_taken_as_it_went_on_ends_as_superseded_by_the_holder(world: World) -> None:
    world.fakes.began = [BeginReply(held=False, holder_id=uid("newer"))]
    entity = deployment(world)
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert (job(world), world.store.actions()) == (("canceled", "superseded"), ["superseded", "canceled"])


async def test_approvals_that_expire_end_the_wait_for_drift(world: World) -> None:
    world.fakes.look = lambda _question: blocked(TOUCHED)
    now = await world.now()
    votes = [Approval(user_id=world.id(name), at=now) for name in ("manager", "bea")]
    entity = await exceptional(world, approvals=votes, approvals_expire_at=later(now, timedelta(hours=2)))
    await world.start(entity)
    assert await result(world, entity) == "canceled"
    assert world.store.actions() == ["blocked_by_drift", "approval_expired", "canceled"]


@pytest.mark.parametrize("kind", ["heal", "redeploy_prior_tag", "revert_and_release"])
async def test_rollbacks_and_heals_need_only_the_lock(world: World, kind: str) -> None:
    """Neither drift nor a rule nor approvals; a return and a heal run neither gate nor migrations."""
    world.fakes.look = lambda _question: blocked(TOUCHED)
    world.fakes.judge = lambda _question: {"blockers": [{"code": "environment_frozen", "message": "no", "who": "time"}]}
    fields: dict[str, object] = {"kind": Kind.HEAL, "profile_revision_id": uid("then")}
    if kind != "heal":
        mode = RollbackMode(kind)
        pinned = uid("then") if mode is RollbackMode.REDEPLOY_PRIOR_TAG else None
        rollback = Rollback(mode=mode, release_id=world.id("release"), profile_revision_id=pinned)
        fields = {"kind": Kind.ROLLBACK, "rollback": rollback}
    entity = deployment(world, **fields)
    await world.start(entity)
    assert await result(world, entity) == "succeeded"
    assert "check_drift" not in world.store.log
    gated = kind == "revert_and_release"
    assert (len(world.fakes.runs), "run_migrations" in world.store.log) == ((1, True) if gated else (0, False))
    assert [question.pinned_revision_id for question in world.fakes.prepared] == [None if gated else uid("then")]
