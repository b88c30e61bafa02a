"""Each activity of a deployment's way crashes at its fault point and is run again: it ends as if it had run once.

Those of its end, switch and verify are in `test_activities_twice.py`, which knows of all activities.
"""

from __future__ import annotations

from typing import Any

import pytest
from faults_direct import Direct, fresh_id

from conman.domain.deploy_messages import (
    BeginQuestion,
    BeginReply,
    ClearedEdit,
    DriftCheckStart,
    DriftRound,
    Ended,
    LockQuestion,
    Predecessor,
    PriorQuestion,
    RaiseFence,
    StartQuestion,
)
from conman.domain.deployment import Deployment
from conman.domain.messages import ProfileQuestion
from conman.services.clock import now
from conman.store import locks
from tests.support.crashes import crash_at


async def gone(direct: Direct, deployment: str, environment: str) -> None:
    """Leave no trace of a deployment, for the tests that come after."""
    await locks.release(direct.db, direct.app.id, environment, deployment, now())
    await direct.db["deployments"].delete_one({"_id": deployment})


def named(direct: Direct, deployment: str, owned: Deployment) -> dict[str, Any]:
    """What most questions about a deployment name."""
    return {
        "app_id": direct.app.id,
        "environment_id": owned.environment_id,
        "release_id": owned.release_id,
        "deployment_id": deployment,
    }


async def test_a_deployment_in_line_gets_its_lock_once(direct: Direct) -> None:
    ahead, owned = await direct.deployment()
    environment, behind = owned.environment_id, fresh_id()
    row = await direct.row("deployments", ahead)
    await direct.db["deployments"].insert_one({**row, "_id": behind})
    question = LockQuestion(app_id=direct.app.id, environment_id=environment, deployment_id=behind, at=now())
    first, second = await direct.twice(direct.deploying.take_lock, question, crash="lock.taken")
    assert first == second
    assert (first.fence, first.holder_id) == (None, ahead)
    await locks.release(direct.db, direct.app.id, environment, ahead, now())
    first, second = await direct.twice(direct.deploying.take_lock, question, crash="lock.taken")
    assert first == second
    entry = (await locks.read(direct.db, direct.app.id))[environment]
    assert (entry["fence"], entry["holder"]["deployment_id"], entry["waiting"]) == (first.fence, behind, [])
    await gone(direct, ahead, environment)
    await gone(direct, behind, environment)


async def test_a_deployment_begins_to_run_once(direct: Direct) -> None:
    """A second begin counts once more at the profile, which only makes a change of that look at the locks again."""
    deployment, owned = await direct.deployment()
    profile = await direct.run(direct.store.prepare_profile, ProfileQuestion(**named(direct, deployment, owned), at=now()))
    question = BeginQuestion(
        **named(direct, deployment, owned), profile_revision_id=profile.profile_revision_id, requested_by=None, at=now()
    )
    with crash_at("begin.running"):
        await direct.run(direct.deployments.begin_running, question)
    assert await direct.run(direct.deployments.begin_running, question) == BeginReply()
    assert (await locks.read(direct.db, direct.app.id))[owned.environment_id]["holder"]["state"] == "running"
    await gone(direct, deployment, owned.environment_id)
    late = await direct.run(direct.deployments.begin_running, question)
    assert late == BeginReply(held=False), "an attempt that was given up takes no lock back"


async def test_an_emergency_edit_is_cleared_once(direct: Direct) -> None:
    environment = direct.app.environments[3]["id"]
    edit = ClearedEdit(environment_id=environment, profile_revision_id="revision")
    await direct.twice(direct.deployments.clear_edit, edit)
    assert (await direct.row("environments", environment))["owned"]["drift"]["cleared_revision_id"] == "revision"
    await direct.db["environments"].update_one({"_id": environment}, {"$unset": {"owned.drift": ""}})


async def test_a_fence_is_raised_once(direct: Direct) -> None:
    deployment, owned = await direct.deployment()
    raised = RaiseFence(
        app_id=direct.app.id, environment_id=owned.environment_id, deployment_id=deployment, fence=owned.fence or 0
    )
    first, second = await direct.twice(direct.deployments.raise_fence, raised)
    assert first == second == (owned.fence or 0) + 1
    await gone(direct, deployment, owned.environment_id)


async def test_the_line_may_be_told_again(direct: Direct) -> None:
    """One whose process is missing is told when that comes back: the activity neither fails nor starts it."""
    deployment, owned = await direct.deployment()
    await direct.db["deployments"].update_one({"_id": deployment}, {"$set": {"owned.fence": None}})
    ended = Ended(app_id=direct.app.id, environment_id=owned.environment_id, deployment_id=fresh_id())
    await direct.twice(direct.calls.tell_the_line, ended, crash="line.told")
    await gone(direct, deployment, owned.environment_id)


async def test_a_check_begins_once_and_a_lost_one_does_not_begin_again(direct: Direct) -> None:
    job = fresh_id()
    await direct.db["jobs"].insert_one({"_id": job, "app_id": direct.app.id, "state": "queued", "version": 1})
    start = DriftCheckStart(job_id=job, app_id=direct.app.id, environment_id=direct.app.environments[0]["id"])
    assert await direct.twice(direct.drift_records.begin_drift_check, start, crash="drift.begun") == (True, True)
    assert (await direct.row("jobs", job))["version"] == 2
    await direct.db["jobs"].update_one({"_id": job}, {"$set": {"run_id": "of a history that is lost"}})
    assert await direct.twice(direct.drift_records.begin_drift_check, start) == (False, False)


@pytest.mark.parametrize("state", ["succeeded", "failed", "canceled"])
async def test_what_only_looks_before_a_deployment_changes_nothing(direct: Direct, state: str) -> None:
    deployment, owned = await direct.deployment()
    asked = named(direct, deployment, owned)
    first, second = await direct.twice(direct.deploying.judge_start, StartQuestion(**asked, at=now()))
    assert first == second
    assert (first.blockers, first.tag) == ([], direct.released.tag)
    question = PriorQuestion(app_id=direct.app.id, environment_id=owned.environment_id, deployment_id=deployment)
    first, second = await direct.twice(direct.deployments.prior_deployment, question)
    assert first == second
    places, again = await direct.twice(direct.drift_records.drift_places, DriftRound())
    assert places == again
    await direct.db["deployments"].update_one({"_id": deployment}, {"$set": {"owned.state": state}})
    before = Predecessor(app_id=direct.app.id, deployment_id=deployment)
    first, second = await direct.twice(direct.calls.await_deployment, before)
    assert first == second
    assert (first.state, first.name) == (state, direct.app.environments[0]["name"])
    await gone(direct, deployment, owned.environment_id)
