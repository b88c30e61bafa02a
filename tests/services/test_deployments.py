"""Asking for deployments, planning and judging them, over real stores; workflows only take note (`spec.md` 12)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities.deploying import DeployingActivities
from conman.activities.deployments import DeploymentActivities
from conman.domain.deploy_messages import BeginQuestion, BeginReply, StartQuestion, StartReply
from conman.domain.errors import DomainError
from conman.domain.roles import Role
from conman.domain.times import later
from conman.services import deploy_commands, deploy_start, deployments, environment_records, holds
from conman.services.clock import now
from conman.store import locks, records
from conman.store.database import Document, ensure_indexes
from conman.store.outgoing import sweep
from tests.services.delivery import Delivery
from tests.services.registry import Registry
from tests.support.crashes import crash_at

DEV, QA, UAT, PROD = range(4)
HOUR = timedelta(hours=1)


@pytest.fixture
async def delivery(mongo_uri: str) -> AsyncIterator[Delivery]:
    registry = Registry(mongo_uri, f"test_{uuid.uuid4().hex[:12]}")
    async with registry.process() as platform:
        await ensure_indexes(platform.db)
        made = Delivery(registry, platform)
        await made.prepare()
        yield made
        await platform.db.client.drop_database(registry.database)


def window(*, hours: int = 5) -> list[dict[str, Any]]:
    return [{"name": "season", "timezone": "UTC", "from": later(now(), -HOUR), "to": later(now(), HOUR * hours)}]


async def refusal(asking: Awaitable[Any]) -> DomainError | None:
    try:
        await asking
    except DomainError as error:
        return error
    return None


async def everything(delivery: Delivery) -> dict[str, list[Document]]:
    db = delivery.platform.db
    return {name: await db[name].find({}).sort("_id", 1).to_list() for name in sorted(await db.list_collection_names())}


# -- What a plan says is what a request meets


async def _held(delivery: Delivery) -> None:
    app = await delivery.app()
    await holds.hold(delivery.platform, delivery.by(), app, reason="an audit", until=None, version=None)


async def _bad(delivery: Delivery) -> None:
    marked = {"$set": {"owned.bad_release_ids": [delivery.release_id]}}
    await delivery.platform.db["environments"].update_one({"_id": delivery.places[DEV]}, marked)


async def _frozen(delivery: Delivery) -> None:
    await delivery.change_environment(DEV, freeze_windows=window())


async def _locked(delivery: Delivery) -> None:
    await delivery.deploy(DEV)


async def _rolled_back(delivery: Delivery) -> None:
    rolled_back = {"$set": {"owned.state": "rolled_back"}}
    await delivery.platform.db["releases"].update_one({"_id": delivery.release_id}, rolled_back)


async def _closed(delivery: Delivery) -> None:
    await locks.close(delivery.platform.db, delivery.registry.app_id, [delivery.places[DEV]], by="admin", at=now())


async def _blocked_by_drift(delivery: Delivery) -> None:
    (holder,) = await delivery.deploy(DEV)
    await delivery.set(holder["_id"], phase="drift", drift_waits_until=later(now(), HOUR))


async def _someone_waits(delivery: Delivery) -> None:
    await _blocked_by_drift(delivery)
    (waits,) = await delivery.deploy(DEV)  # supersedes
    await delivery.deploy(DEV, wait=True)
    await delivery.set(waits["_id"], phase="drift", drift_waits_until=later(now(), HOUR))


async def _at_rest(_: Delivery) -> None:
    """Nothing stands in the way."""


SITUATIONS: dict[str, tuple[list[Callable[[Delivery], Awaitable[None]]], int, list[str]]] = {
    "nothing in the way": ([_at_rest], DEV, []),
    "rolled back": ([_rolled_back], DEV, ["invalid_transition"]),
    "archived meanwhile": ([_closed], DEV, ["conflict"]),
    "on hold": ([_held], DEV, ["app_on_hold"]),
    "marked bad": ([_bad], DEV, ["marked_bad"]),
    "out of order": ([_at_rest], QA, ["stage_skipped"]),
    "frozen": ([_frozen], DEV, ["environment_frozen"]),
    "locked": ([_locked], DEV, ["environment_locked"]),
    "the holder waits for drift only": ([_blocked_by_drift], DEV, []),
    "the holder waits for drift, others for the lock": ([_someone_waits], DEV, ["environment_locked"]),
    "all at once": (
        [_locked, _closed, _frozen, _bad, _held, _rolled_back],
        DEV,
        ["invalid_transition", "app_on_hold", "marked_bad", "environment_frozen", "environment_locked"],
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_a_request_meets_the_first_blocker_of_the_plan_and_the_plan_changes_nothing(
    delivery: Delivery, situation: str
) -> None:
    arrange, place, codes = SITUATIONS[situation]
    for step in arrange:
        await step(delivery)
    before = await everything(delivery)
    blockers = (await delivery.plan(place))["blockers"]
    assert await everything(delivery) == before
    assert [one["code"] for one in blockers] == codes
    met = await refusal(delivery.deploy(place))
    assert (met and [met.code.value, met.message]) == ((blockers and [blockers[0]["code"], blockers[0]["message"]]) or None)


async def test_a_plan_tells_files_variables_and_approvals_against_what_runs_there(delivery: Delivery) -> None:
    db, place = delivery.platform.db, delivery.places[DEV]
    first = await delivery.plan(DEV)
    assert (first["files"]["base_sha"], first["semantic"]["baseSha"]) == (None, None)
    assert "e1.json" in {one["path"] for one in first["files"]["files"]}
    profile = await db["profiles"].find_one({"_id": (await delivery.app())["environments"][DEV]["runtime_profile_id"]})
    assert profile is not None
    runs = {"current_release_id": delivery.release_id, "applied_profile_revision_id": profile["revision_id"]}
    await db["environments"].update_one({"_id": place}, {"$set": {f"owned.{name}": value for name, value in runs.items()}})
    mode = {"env_vars": {"MODE": {"type": "string", "value": "new"}}}
    await db["profiles"].update_one({"_id": profile["_id"]}, {"$set": {"content": profile["content"] | mode}})
    await delivery.change_environment(DEV, required_approvals={"count": 1, "role": "app_admin"})
    told = await delivery.plan(DEV, await delivery.release())
    assert [one["path"] for one in told["files"]["files"]] == ["e2.json"]
    assert [one["target"] for one in told["semantic"]["changes"]]
    assert told["variables"]["changed"] == ["MODE"]
    assert told["variables"]["after"] == [{"key": "MODE", "type": "string", "value": "new", "source": "profile", "secret": False}]
    assert told["approvals"] == {"count": 1, "role": "app_admin", "exceptional_reasons": []}


# -- A time, a freeze, approvals


async def test_a_start_is_at_most_seven_days_ahead_and_one_that_has_passed_is_now(delivery: Delivery) -> None:
    for bad in (later(now(), timedelta(days=7, minutes=1)), "tomorrow"):
        refused = await refusal(delivery.deploy(DEV, not_before=bad))
        assert refused is not None
        assert refused.details[0]["field"] == "not_before"
    (made,) = await delivery.deploy(DEV, not_before=later(now(), -HOUR))
    assert made["owned"]["not_before"] is None


async def test_approvals_expire_after_the_later_of_request_and_start(delivery: Delivery) -> None:
    start = later(now(), timedelta(days=2))
    (later_on,) = await delivery.deploy(PROD, skip_stage=True, not_before=start)
    (at_once,) = await delivery.deploy(UAT, skip_stage=True)
    assert later_on["owned"]["approvals_expire_at"] == later(start, timedelta(hours=24))
    assert at_once["owned"]["approvals_expire_at"] == later(at_once["created_at"], timedelta(hours=24))


async def test_a_freeze_is_judged_for_the_start_and_overriding_it_is_exceptional_and_audited(delivery: Delivery) -> None:
    await _frozen(delivery)
    (made,) = await delivery.deploy(DEV, not_before=later(now(), HOUR * 6), override_freeze=True)
    assert made["owned"]["exceptional_reasons"] == []
    await delivery.change_environment(QA, freeze_windows=window())
    await delivery.been(DEV)
    (over,) = await delivery.deploy(QA, override_freeze=True)
    assert (over["owned"]["exceptional_reasons"], over["owned"]["approvals_required"]) == (["override_freeze"], 2)
    (event,) = await delivery.events("freeze_overridden")
    assert (event["entity_id"], event["after"]["windows"]) == (over["_id"], ["season"])


@pytest.mark.parametrize(("role", "count"), [("config_manager", 1), ("app_admin", 0)])
async def test_the_requester_counts_where_their_role_suffices(delivery: Delivery, role: str, count: int) -> None:
    await delivery.change_environment(DEV, required_approvals={"count": 2, "role": role})
    (made,) = await delivery.deploy(DEV)
    assert (made["owned"]["approvals_required"], made["owned"]["approval_role"]) == (2, role)
    assert len(made["owned"]["approvals"]) == count


async def test_a_yes_that_can_never_count_is_refused_and_one_that_does_is_bound_to_what_is_shown_now(delivery: Delivery) -> None:
    await delivery.change_environment(DEV, required_approvals={"count": 1, "role": "app_admin"})
    (made,) = await delivery.deploy(DEV)
    refused = await refusal(deploy_commands.approve(delivery.platform, delivery.by("reviewer"), made, Role.REVIEWER))
    assert refused is not None
    assert (refused.code.value, refused.details) == ("forbidden", {"role": "app_admin"})
    await deploy_commands.approve(delivery.platform, delivery.by("app_admin"), made, Role.APP_ADMIN)
    ((_, update, command),) = delivery.registry.workflows.sent
    assert (update, command.digest) == ("approve", made["owned"]["shown_digest"])


# -- The start


async def start(delivery: Delivery, made: Document, *approvers: str, at: str | None = None) -> StartReply:
    """What the deciders say now, when these have approved what was shown at the request."""
    owned = made["owned"]
    given = [{"user_id": one, "at": now(), "digest": owned["shown_digest"]} for one in approvers]
    await delivery.set(made["_id"], approvals=given)
    question = StartQuestion(
        app_id=made["app_id"],
        environment_id=owned["environment_id"],
        release_id=owned["release_id"],
        deployment_id=made["_id"],
        at=at or now(),
        approver_ids=list(approvers),
    )
    return await deploy_start.judge(delivery.platform.db, question)


async def test_a_yes_counts_with_the_role_of_now_and_for_what_would_go_out_now(delivery: Delivery) -> None:
    db = delivery.platform.db
    await delivery.change_environment(DEV, required_approvals={"count": 1, "role": "config_manager"})
    (made,) = await delivery.deploy(DEV, call=delivery.by("app_admin"))
    manager = delivery.people["config_manager"]
    assert (await start(delivery, made, manager)).eligible_approvers == [manager]
    await db["memberships"].update_one({"user_id": manager}, {"$set": {"role": "reviewer"}})
    assert (await start(delivery, made, manager)).eligible_approvers == []
    await db["memberships"].update_one({"user_id": manager}, {"$set": {"role": "config_manager"}})
    profile = (await delivery.app())["environments"][DEV]["runtime_profile_id"]
    await db["profiles"].update_one({"_id": profile}, {"$set": {"revision_id": "another"}})
    changed = await start(delivery, made, manager)
    assert changed.eligible_approvers == []
    assert changed.shown_digest != made["owned"]["shown_digest"]


async def test_what_came_since_the_request_stands_in_the_way_of_the_start_and_its_own_lock_does_not(delivery: Delivery) -> None:
    (made,) = await delivery.deploy(DEV)
    assert (await start(delivery, made)).blockers == []
    for arrange in (_held, _bad, _frozen):
        await arrange(delivery)
    found = await start(delivery, made)
    assert [one.code for one in found.blockers] == ["app_on_hold", "marked_bad", "environment_frozen"]


async def _demoted(delivery: Delivery) -> None:
    someone = {"user_id": delivery.people["app_admin"]}
    await delivery.platform.db["memberships"].update_one(someone, {"$set": {"role": "user"}})


async def _edited(delivery: Delivery) -> None:
    profile = (await delivery.app())["environments"][DEV]["runtime_profile_id"]
    await delivery.platform.db["profiles"].update_one({"_id": profile}, {"$set": {"revision_id": "another"}})


@pytest.mark.parametrize("meanwhile", [_held, _frozen, _rolled_back, _demoted, _edited], ids=lambda step: step.__name__)
async def test_what_comes_in_the_way_after_it_was_judged_sends_it_back_before_it_runs(
    delivery: Delivery, meanwhile: Callable[[Delivery], Awaitable[None]]
) -> None:
    db = delivery.platform.db
    await delivery.change_environment(DEV, required_approvals={"count": 1, "role": "config_manager"})
    (made,) = await delivery.deploy(DEV, call=delivery.by("app_admin"))
    await meanwhile(delivery)
    profile = (await delivery.app())["environments"][DEV]["runtime_profile_id"]
    # The profile is looked at after the votes: an edit between the two is none between the profile's look and the start.
    revision = (await records.get(db, "profiles", profile))["revision_id"]
    question = BeginQuestion(
        app_id=made["app_id"],
        environment_id=delivery.places[DEV],
        release_id=delivery.release_id,
        deployment_id=made["_id"],
        profile_revision_id=revision,
        at=now(),
    )
    begin = DeploymentActivities(db).begin_running
    assert await ActivityEnvironment().run(begin, question) == BeginReply(moved=True)
    assert (await locks.read(db, made["app_id"]))[delivery.places[DEV]]["holder"]["state"] == "pending"


async def test_who_asks_whether_it_may_start_is_pending_whatever_a_lost_start_has_left_and_no_later_start_is_undone(
    delivery: Delivery,
) -> None:
    db, place = delivery.platform.db, delivery.places[DEV]
    (made,) = await delivery.deploy(DEV)
    question = StartQuestion(
        app_id=made["app_id"], environment_id=place, release_id=delivery.release_id, deployment_id=made["_id"], at=now()
    )
    judge = DeployingActivities(db).judge_start
    for begun_at, left in ((later(question.at, -HOUR), "pending"), (question.at, "running")):
        assert await locks.mark_running(db, made["app_id"], place, made["_id"], at=begun_at)
        await ActivityEnvironment().run(judge, question)
        assert (await locks.read(db, made["app_id"]))[place]["holder"]["state"] == left


async def test_one_whose_lock_was_taken_by_a_request_that_died_does_not_wait_for_ever(delivery: Delivery) -> None:
    db, place = delivery.platform.db, delivery.places[DEV]
    (made,) = await delivery.deploy(DEV)
    taken = await locks.take(db, made["app_id"], {place: "never came to be"}, now(), over_pending=True)
    assert taken.superseded == {place: made["_id"]}
    assert (await start(delivery, made)).blockers == [], "its record may be on its way"
    long_after = later(now(), HOUR)
    found = await start(delivery, made, at=long_after)
    assert [one.code for one in found.blockers] == ["conflict"]
    newer = {"_id": "never came to be", "owned": {"state": "pending"}, "supersedes_untold": made["_id"]}
    await db["deployments"].insert_one(newer)
    assert (await start(delivery, made, at=long_after)).blockers == [], "it is still to be told"


async def test_what_only_becomes_exceptional_at_the_start_needs_two_then(delivery: Delivery) -> None:
    await delivery.been(DEV)
    (made,) = await delivery.deploy(QA, skip_stage=True)
    assert made["owned"]["exceptional_reasons"] == []
    await delivery.been(DEV, "failed")
    found = await start(delivery, made)
    assert (found.blockers, found.exceptional_reasons, found.approvals_required) == ([], ["skip_stage"], 2)


# -- Several environments


async def test_several_environments_share_a_request_an_approval_and_their_order(delivery: Delivery) -> None:
    made = await delivery.deploy(UAT, DEV, QA)
    assert [one["owned"]["environment_id"] for one in made] == delivery.places[:3]
    assert [one["owned"]["after_deployment_id"] for one in made] == [None, made[0]["_id"], made[1]["_id"]]
    assert len({one["owned"]["group_id"] for one in made}) == 1
    assert {tuple(one["owned"]["exceptional_reasons"]) for one in made} == {("multiple_environments",)}
    assert len(await delivery.events("requested")) == 3
    (told,) = await delivery.platform.db["notifications"].find({}).to_list()
    assert (told["notice"]["kind"], told["notice"]["entity_id"]) == ("deployment_waits_for_approval", made[0]["_id"])
    await deploy_commands.approve(delivery.platform, delivery.by("reviewer"), made[1], Role.REVIEWER)
    sent = [(entity, update) for entity, update, _ in delivery.registry.workflows.sent]
    assert sorted(sent) == sorted((f"deployment:{one['_id']}", "approve") for one in made)
    for one in made:
        assert (await start(delivery, one)).blockers == []


async def test_of_several_locks_none_is_taken_when_one_is_held_and_a_bad_list_is_refused(delivery: Delivery) -> None:
    await delivery.deploy(QA, skip_stage=True)
    refused = await refusal(delivery.deploy(DEV, QA))
    assert refused is not None
    assert refused.code.value == "environment_locked"
    assert delivery.places[DEV] not in await locks.active_in(
        delivery.platform.db, await locks.read(delivery.platform.db, delivery.registry.app_id), now()
    )
    app, asked = await delivery.app(), deployments.Asked(release_id=delivery.release_id)
    for bad in ([delivery.places[DEV]] * 2, [delivery.places[DEV], "another"], []):
        wrong = await refusal(deployments.deploy(delivery.platform, delivery.by(), app, bad, asked))
        assert wrong is not None
        assert wrong.code.value == "validation_error"


@pytest.mark.parametrize("point", ["deploy.locked", "deploy.inserted", "deliver.audited"])
async def test_a_group_whose_request_dies_is_whole_or_nothing_and_a_repeat_finds_it(delivery: Delivery, point: str) -> None:
    call = delivery.by(key=f"group-{point}")
    with crash_at(point):
        await delivery.deploy(DEV, QA, UAT, call=call)
    db = delivery.platform.db
    await sweep(db)
    assert await db["deployments"].count_documents({}) == (0 if point == "deploy.locked" else 3)
    made = await delivery.deploy(DEV, QA, UAT, call=call)
    assert [one["owned"]["environment_id"] for one in made] == delivery.places[:3]
    assert await db["deployments"].count_documents({}) == 3
    assert await db["jobs"].count_documents({"job_type": "deploy_release"}) == 3
    assert len(await delivery.events("requested")) == 3
    assert {f"deployment:{one['_id']}" for one in made} <= set(delivery.registry.workflows.started)


@pytest.mark.parametrize("point", ["deploy.approved", "deploy.canceled"])
async def test_upkeep_tells_the_rest_of_a_group_what_a_request_that_died_told_one(delivery: Delivery, point: str) -> None:
    made = await delivery.deploy(DEV, QA)
    reviewer = delivery.by("reviewer")
    with crash_at(point):
        if point == "deploy.approved":
            await deploy_commands.approve(delivery.platform, reviewer, made[0], Role.REVIEWER)
        else:
            await deploy_commands.cancel(delivery.platform, reviewer, made[0])
    if point == "deploy.approved":
        vote = {"user_id": reviewer.user_id, "at": now(), "digest": None}
        await delivery.set(made[0]["_id"], approvals=[*made[0]["owned"]["approvals"], vote])
    else:
        await delivery.set(made[0]["_id"], state="canceled")
    delivery.registry.workflows.sent.clear()
    await deploy_commands.settle_all(delivery.platform.db, delivery.platform.commands)
    ((entity, update, command),) = delivery.registry.workflows.sent
    told = {"deploy.approved": "approve", "deploy.canceled": "cancel"}
    assert (entity, update) == (f"deployment:{made[1]['_id']}", told[point])
    assert command.actor.user_id == (reviewer.user_id if update == "approve" else None)


# -- The line, and taking over


async def test_one_that_waits_has_no_fence_until_it_is_its_turn_and_upkeep_tells_it(delivery: Delivery) -> None:
    db = delivery.platform.db
    (holder,) = await delivery.deploy(DEV)
    (waits,) = await delivery.deploy(DEV, wait=True)
    assert (waits["owned"]["fence"], waits["owned"]["phase"], waits["owned"]["wait"]) == (None, "lock", True)
    row = await environment_records.environment_record(delivery.platform, await delivery.app(), delivery.places[DEV])
    assert (row["active_deployment_id"], row["waiting_deployment_ids"]) == (holder["_id"], [waits["_id"]])
    await delivery.set(holder["_id"], state="failed")  # whoever ended it died before it gave the lock up
    await deploy_commands.settle_all(db, delivery.platform.commands)
    assert delivery.registry.workflows.signaled == [(f"deployment:{waits['_id']}", "lock_granted")]
    assert (await locks.take(db, waits["app_id"], {delivery.places[DEV]: waits["_id"]}, now(), wait=True)).fences


@pytest.mark.parametrize("point", ["deploy.locked", "deploy.inserted", "deploy.superseded"])
async def test_a_holder_that_waits_for_drift_only_is_superseded_and_told_whoever_dies(delivery: Delivery, point: str) -> None:
    (old,) = await delivery.deploy(DEV)
    await delivery.set(old["_id"], phase="drift", drift_waits_until=later(now(), HOUR))
    call = delivery.by(key=f"over-{point}")
    with crash_at(point):
        await delivery.deploy(DEV, call=call)
    if point == "deploy.locked":
        await delivery.deploy(DEV, call=call)
    await deploy_commands.settle_all(delivery.platform.db, delivery.platform.commands)
    (new,) = await delivery.deploy(DEV, call=call)
    assert new["owned"]["fence"] == old["owned"]["fence"] + 1
    told = {(entity, update, command.by_deployment_id) for entity, update, command in delivery.registry.workflows.sent}
    assert told == {(f"deployment:{old['_id']}", "supersede", new["_id"])}
    assert "supersedes_untold" not in await delivery.record(new["_id"])


# -- A hold


async def test_a_hold_is_audited_once_replaced_by_version_and_taken_off_once_when_its_time_is_over(delivery: Delivery) -> None:
    platform, app, db = delivery.platform, await delivery.app(), delivery.platform.db
    call = delivery.by(key="hold")
    made = [await holds.hold(platform, call, app, reason="audit", until=None, version=None) for _ in range(2)]
    assert made[0] == made[1]
    stale = await refusal(holds.hold(platform, delivery.by(), app, reason="other", until=None, version=7))
    assert stale is not None
    assert stale.code.value == "stale_write"
    until = later(now(), HOUR)
    replaced = await holds.hold(platform, delivery.by(), app, reason="other", until=until, version=1)
    assert (replaced["version"], replaced["until"]) == (2, until)
    assert [event["before"] for event in await delivery.events("held")] == [None, {"reason": "audit", "until": None}]
    (pending,) = await delivery.deploy(DEV, not_before=later(until, HOUR))
    for _ in range(2):
        assert await holds.find(db, app["_id"], until) is None
        await holds.settle_all(db, platform.commands, until)
    (event,) = await delivery.events("released_from_hold")
    assert (event["after"], event["actor_user_id"]) == ({"cause": "expired"}, None)
    assert delivery.registry.workflows.signaled == [(f"deployment:{pending['_id']}", "look_again")]


async def test_lifting_a_hold_has_what_waits_look_again_and_upkeep_tells_it_when_the_request_died(delivery: Delivery) -> None:
    platform, app = delivery.platform, await delivery.app()
    (pending,) = await delivery.deploy(DEV)
    await holds.hold(platform, delivery.by(), app, reason="audit", until=None, version=None)
    refused = await holds.refuse(platform.db, app["_id"])
    assert refused is not None
    assert refused.code.value == "app_on_hold"
    with crash_at("hold.lifted"):
        await holds.lift(platform, delivery.by(key="lift"), app, version=None)
    assert await holds.refuse(platform.db, app["_id"]) is None
    await holds.lift(platform, delivery.by(key="lift"), app, version=None)
    assert delivery.registry.workflows.signaled == []
    await holds.settle_all(platform.db, platform.commands, now())
    assert delivery.registry.workflows.signaled == [(f"deployment:{pending['_id']}", "look_again")]
    again = await refusal(holds.lift(platform, delivery.by(), app, version=None))
    assert again is not None
    assert again.code.value == "not_found"


# -- Cleared


async def test_clearing_a_release_is_audited_once_and_what_is_not_marked_stays_as_it_is(delivery: Delivery) -> None:
    platform, app, place = delivery.platform, await delivery.app(), delivery.places[DEV]
    await _bad(delivery)
    call = delivery.by(key="clear")
    for _ in range(2):
        await environment_records.clear(platform, call, app, place, delivery.release_id)
    await environment_records.clear(platform, delivery.by(), app, place, delivery.release_id)
    (event,) = await delivery.events("release_cleared")
    assert (event["before"]["bad_release_ids"], event["after"]["bad_release_ids"]) == ([delivery.release_id], [])
    row = await environment_records.environment_record(platform, app, place)
    assert row["bad_release_ids"] == []
