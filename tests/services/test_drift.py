"""Looking for drift over real records: what is compared, written down, told and put back (`spec.md` 12, `durability.md` 25)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities.drift import DriftRecordActivities
from conman.domain.deploy_messages import DriftCheckStart, DriftReply, DriftRound
from conman.domain.deployment import Deployment, DeploymentState, Kind
from conman.domain.drift_record import DriftState
from conman.domain.jobs import ReasonCode
from conman.domain.target import Observation, Place
from conman.domain.times import later
from conman.services import drift
from conman.services.clock import new_id, now
from conman.store import locks
from conman.store.database import Document
from conman.store.outgoing import sweep
from conman.targets.base import TargetError
from conman.workflows.client import Commands
from tests.services.desk import text
from tests.services.drift_site import OTHER_PIN, PIN, Site, site
from tests.support.crashes import crash_at

__all__ = ["site"]


def keys(reply: DriftReply) -> list[tuple[str, str | None]]:
    return [(item.kind, item.key) for item in reply.report]


# -- What is compared


async def test_where_nothing_was_applied_nobody_is_asked_and_nothing_drifts(site: Site) -> None:
    reply = await site.look()

    assert (reply.report, reply.problem, site.places) == ([], None, [])
    assert (await site.record()).state is DriftState.CLEAN


async def test_what_is_as_it_was_applied_last_is_clean_whatever_the_profile_is_by_now(site: Site) -> None:
    await site.deployed(await site.release())
    await site.desk.edit("QA", env_vars={"MODE": text("new")})

    reply = await site.look()

    assert keys(reply) == [("emergency_edit", None)]
    assert (reply.report[0].expected, reply.report[0].observed) == (1, 2)
    assert reply.emergency_revision_id == (await site.profile())["revision_id"]


async def test_every_category_is_compared_and_no_value_of_a_secret_is_kept_anywhere(site: Site) -> None:
    await site.deployed(await site.release())
    site.env_vars = {"MODE": f"it was {PIN} once", "MORE": "x"}
    site.secrets, site.base_url, site.files = {"PIN": OTHER_PIN}, "https://other.example.com", "decaf"

    reply = await site.look()

    assert keys(reply) == [("env_var", "MODE"), ("env_var", "MORE"), ("secret", "PIN"), ("base_url", None), ("files", None)]
    await sweep(site.desk.platform.db)
    kept = [reply.model_dump_json(), json.dumps(await site.document()), json.dumps(await site.audit())]
    kept.append(json.dumps(await site.desk.platform.db["notifications"].find({}).to_list()))
    assert [one for one in kept if PIN in one or OTHER_PIN in one] == []
    key = site.keys[0].hex()
    assert [one for one in kept if key in one] == [], "with the key anybody could try values against the digests"


async def test_defaults_of_the_app_count_as_they_were_when_it_was_deployed(site: Site) -> None:
    db, app_id = site.desk.platform.db, site.desk.app["_id"]
    await db["apps"].update_one({"_id": app_id}, {"$set": {"settings.env_defaults": {"ZONE": text("eu")}}})
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "old", "ZONE": "eu"}
    for before, after in (("eu", "us"), ("us", "ap")):
        await db["apps"].update_one({"_id": app_id}, {"$set": {"settings.env_defaults": {"ZONE": text(after)}}})
        changed: Document = {"_id": new_id(), "app_id": app_id, "entity_type": "app", "entity_id": app_id, "occurred_at": now()}
        changed |= {"action": "settings_updated", "before": {"env_defaults": {"ZONE": text(before)}}}
        await db["audit"].insert_one(changed)

    assert (await site.look()).report == []


async def test_recorded_migrations_are_looked_for(site: Site) -> None:
    deployment = await site.deployed(await site.release())
    for name, state in (("db/1.js", "succeeded"), ("db/2.js", "failed")):
        row: Document = {"_id": new_id(), "environment_id": site.id, "name": name, "state": state, "blob_id": "b"}
        await site.desk.platform.db["migration_executions"].insert_one(
            {**row, "deployment_id": deployment, "started_at": now(), "message": ""}
        )
    plain = site.observe

    async def without(place: Place, key: bytes) -> Observation:
        return (await plain(place, key)).model_copy(update={"migrations": ["db/9.js"]})

    site.observe = without  # pyright: ignore[reportAttributeAccessIssue]

    assert [(item.key, item.expected, item.observed) for item in (await site.look()).report] == [
        ("db/1.js", "applied", None),
        ("db/9.js", None, "applied"),
    ]


async def test_what_a_deployment_is_about_to_set_to_what_is_there_is_no_drift_for_it_but_one_of_the_environment(
    site: Site,
) -> None:
    await site.deployed(await site.release())
    site.env_vars, site.secrets = {"MODE": "new", "MORE": "x"}, {"PIN": OTHER_PIN}
    coming = await site.release({"env_vars": {"MODE": text("new")}, "secrets": {"PIN": OTHER_PIN}}, sha="decaf")
    deployment = await site.deployment(coming, DeploymentState.PENDING)
    await locks.take(site.desk.platform.db, site.desk.app["_id"], {site.id: deployment}, now())

    reply = await site.look(deployment_id=deployment)

    assert keys(reply) == [("env_var", "MORE")]
    assert [item.key for item in (await site.record()).report] == ["MODE", "MORE", "PIN"]


async def test_what_failed_its_health_check_and_stands_there_is_what_was_applied_last(site: Site) -> None:
    await site.deployed(await site.release())
    release = await site.release(sha="decaf")
    failed = await site.deployment(release, DeploymentState.FAILED)
    left = {"deployment_id": failed, "release_id": release, "profile_revision_id": (await site.profile())["revision_id"]}
    change = {f"owned.applied_{name}": value for name, value in {**left, "at": now()}.items()}
    await site.desk.platform.db["environments"].update_one({"_id": site.id}, {"$set": change})
    site.files = "decaf"

    assert (await site.look()).report == []
    assert (await site.record()).deployment_id == failed


# -- Emergency edits


async def test_an_edit_with_which_the_gate_has_passed_blocks_nobody_any_more_but_the_next_one_does(site: Site) -> None:
    await site.deployed(await site.release())
    await site.desk.edit("QA", env_vars={"MODE": text("new")})
    edited = (await site.look()).emergency_revision_id
    deployment = await site.deployment(await site.release(), DeploymentState.PENDING)
    await locks.take(site.desk.platform.db, site.desk.app["_id"], {site.id: deployment}, now())

    cleared = await site.look(deployment_id=deployment, cleared_revision_id=edited)
    later = await site.look()
    await site.desk.edit("QA", env_vars={"MODE": text("newest")})

    assert (cleared.report, later.report) == ([], [])
    assert [(event["action"], event["after"].get("cause")) for event in await site.audit()][1:] == [
        ("drift_cleared", "revalidated")
    ]
    assert keys(await site.look()) == [("emergency_edit", None)]


async def test_an_edit_that_was_applied_once_is_no_news_after_a_rollback_behind_it(site: Site) -> None:
    release, first = await site.release(), (await site.profile())["revision_id"]
    await site.deployed(release)
    await site.desk.edit("QA", env_vars={"MODE": text("new")})
    await site.deployed(release)
    await site.deployed(release, first, kind=Kind.ROLLBACK)

    assert (await site.look()).report == []


# -- Writing down and telling


async def test_a_report_is_audited_and_told_once_with_the_acts_that_lie_between(site: Site) -> None:
    await site.deployed(await site.release())
    assert (await site.look()).report == []
    clean_at = (await site.record()).last_clean_at
    acting: Document = {"_id": new_id(), "app_id": site.desk.app["_id"], "entity_type": "environment", "entity_id": site.id}
    await site.desk.platform.db["audit"].insert_one({**acting, "action": "release_cleared", "occurred_at": now()})
    site.env_vars = {"MODE": "touched"}

    first = await site.look()
    second = await site.look()

    known = await site.record()
    assert (known.first_seen_at, known.last_clean_at) == (first.checked_at, clean_at)
    assert (second.first_seen_at, second.last_clean_at) == (first.checked_at, clean_at)
    assert known.checked_at == second.checked_at
    assert [act.event_id for act in known.acts] == [acting["_id"]]
    assert [event["action"] for event in await site.audit()] == ["drift_detected"]
    assert await site.notices() == ["drift_detected"]


async def test_a_drift_that_was_mended_is_cleared_with_its_cause(site: Site) -> None:
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "touched"}
    await site.look()
    site.env_vars = {"MODE": "old"}
    await site.look()

    assert [(event["action"], event["after"].get("cause")) for event in await site.audit()] == [
        ("drift_detected", None),
        ("drift_cleared", "mended"),
    ]


async def test_a_deployment_that_succeeded_has_overwritten_what_it_could_and_says_so_once(site: Site) -> None:
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "touched"}
    await site.look()
    made = await site.deployed(await site.release(), overwrites=True)
    found = await site.desk.platform.db["deployments"].find_one({"_id": made})
    assert found is not None

    for _ in range(2):
        await drift.deployed(site.desk.platform.db, site.id, made, Deployment.model_validate(found["owned"]), now())

    assert drift.drift_view(await site.document())["state"] == "clean"
    assert [(event["action"], event["after"].get("cause")) for event in await site.audit()] == [
        ("drift_detected", None),
        ("drift_cleared", "overwritten"),
    ]


@pytest.mark.parametrize(
    ("kind", "reported"), [("heal", "env_var"), ("deploy", "migration"), ("rollback", "emergency_edit")], ids=str
)
async def test_what_a_deployment_may_have_left_is_for_the_next_look_to_say(site: Site, kind: str, reported: str) -> None:
    await site.deployed(await site.release())
    report = [{"kind": reported, "key": "x"}]
    known = {"version": 1, "state": "drifted", "report": report, "deployment_id": "earlier"}
    await site.desk.platform.db["environments"].update_one({"_id": site.id}, {"$set": {"owned.drift": known}})
    made = await site.deployed(await site.release(), kind=Kind(kind))
    found = await site.desk.platform.db["deployments"].find_one({"_id": made})
    assert found is not None

    await drift.deployed(site.desk.platform.db, site.id, made, Deployment.model_validate(found["owned"]), now())

    assert drift.drift_view(await site.document())["state"] == "unknown"


@pytest.mark.parametrize("point", ["drift.noted", "deliver.audited"])
async def test_a_look_that_died_when_it_had_written_is_told_once(site: Site, point: str) -> None:
    await site.deployed(await site.release())
    site.env_vars, at = {"MODE": "touched"}, now()
    with crash_at(point):
        await site.look(at=at)

    await site.look(at=at)

    assert [event["action"] for event in await site.audit()] == ["drift_detected"]
    assert await site.notices() == ["drift_detected"]


async def test_a_target_that_fails_leaves_the_reason_and_nothing_known(site: Site) -> None:
    await site.deployed(await site.release())
    site.fails = TargetError("The program did not answer.", reason=ReasonCode.RUNNER_ERROR)

    reply = await site.look()

    known = await site.record()
    assert (reply.reason_code, reply.problem) == (ReasonCode.RUNNER_ERROR, "The program did not answer.")
    assert (known.state, known.problem) == (DriftState.UNKNOWN, "The program did not answer.")
    assert await site.audit() == []


# -- Looks on demand


@dataclass
class Started:
    """In place of Temporal: the checks that were started."""

    checks: list[DriftCheckStart] = field(default_factory=list)

    async def start_drift_check(self, start: DriftCheckStart) -> None:
        self.checks.append(start)


async def begun(site: Site, start: DriftCheckStart, run_id: str) -> bool:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_run_id=run_id)
    return await environment.run(DriftRecordActivities(site.desk.platform.db).begin_drift_check, start)


async def test_a_request_makes_one_job_and_upkeep_finds_it_until_it_has_ended(site: Site) -> None:
    platform, commands, call = site.desk.platform, Started(), site.desk.call("check")
    platform.commands = cast("Commands", commands)
    environment = await site.document() | {"name": "QA"}

    with crash_at("drift.inserted"):
        await drift.start_check(platform, call, site.desk.app, environment)
    assert commands.checks == []
    jobs = [await drift.start_check(platform, call, site.desk.app, environment) for _ in range(2)]

    (start, _) = commands.checks
    assert {job["_id"] for job in jobs} == {start.job_id}
    assert [one.job_id async for one in drift.unfinished_checks(platform.db)] == [start.job_id]
    assert await begun(site, start, "first")
    assert await begun(site, start, "first"), "a second attempt of the same step"
    assert not await begun(site, start, "second"), "its history was lost"
    await platform.db["jobs"].update_one({"_id": start.job_id}, {"$set": {"state": "failed"}})
    assert not await begun(site, start, "first")
    assert [one async for one in drift.unfinished_checks(platform.db)] == []


async def test_a_round_finds_the_environments_of_open_apps_in_which_something_stands(site: Site) -> None:
    work = DriftRecordActivities(site.desk.platform.db)

    async def found() -> list[str]:
        page = await ActivityEnvironment().run(work.drift_places, DriftRound())
        assert page.last is None
        return [place.environment_id for place in page.places]

    assert await found() == []
    await site.deployed(await site.release())
    assert await found() == [site.id]
    await site.desk.platform.db["apps"].update_one({"_id": site.desk.app["_id"]}, {"$set": {"archived": True}})
    assert await found() == []


# -- A look beside a deployment


async def test_a_look_is_worth_nothing_when_a_deployment_runs_begins_or_ends_meanwhile(site: Site) -> None:
    db, app_id = site.desk.platform.db, site.desk.app["_id"]
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "half way"}
    running = await site.deployment(await site.release(), DeploymentState.RUNNING)

    async def takes() -> None:
        await locks.take(db, app_id, {site.id: running}, now())

    async def ends() -> None:
        await site.deployed(await site.release())

    site.meanwhile = takes
    assert (await site.look()).overtaken, "it took the lock"
    site.meanwhile = None
    assert not (await site.look()).overtaken, "one that waits does nothing there"
    await locks.mark_running(db, app_id, site.id, running)
    asked = len(site.places)
    assert (await site.look()).overtaken
    assert len(site.places) == asked, "nobody is asked while one runs"
    await locks.release(db, app_id, site.id, running, now())
    site.meanwhile = ends
    assert (await site.look()).overtaken, "another one is in place"


async def test_a_deployment_that_lost_the_environment_learns_nothing(site: Site) -> None:
    await site.deployed(await site.release())
    deployment = await site.deployment(await site.release(), DeploymentState.PENDING)

    assert (await site.look(deployment_id=deployment)).overtaken


async def test_what_is_in_place_since_the_last_look_is_not_said_to_have_drifted(site: Site) -> None:
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "touched"}
    await site.look()
    assert drift.drift_view(await site.document())["state"] == "drifted"

    await site.deployed(await site.release())

    assert drift.drift_view(await site.document())["state"] == "unknown"


async def test_what_was_seen_before_a_deployment_was_put_back_says_nothing_of_after_it(site: Site) -> None:
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "touched"}
    await site.policy("heal")
    await site.look()
    assert drift.drift_view(await site.document())["state"] == "drifted"

    owned = (await site.document())["owned"]
    put_back = {
        "owned.applied_deployment_id": owned["current_deployment_id"],
        "owned.applied_release_id": owned["current_release_id"],
    }
    change = {"$set": {**put_back, "owned.applied_at": later(now(), timedelta(seconds=1))}}
    await site.desk.platform.db["environments"].update_one({"_id": site.id}, change)

    assert drift.drift_view(await site.document())["state"] == "unknown"
    assert await site.heal() is None
