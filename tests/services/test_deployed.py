"""What an environment's record shows after a deployment, and the steps of one over real records (`spec.md` 12)."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities.deployments import DeploymentActivities
from conman.domain.app import AppSettings
from conman.domain.deploy_ending import Ending, Left
from conman.domain.deploy_messages import BeginQuestion, ClearedEdit, PriorQuestion, RaiseFence
from conman.domain.deployment import Deployment, DeploymentState, Move
from conman.domain.environment import EnvironmentDefinition
from conman.domain.jobs import ReasonCode
from conman.domain.messages import EndDeployment, PersistRequest
from conman.domain.release import Release, ReleaseState
from conman.services.clock import new_id, now
from conman.services.deployed import environment_shows
from conman.store import locks
from conman.store.database import Database, Document

ENDED = Ending(move=Move.FAIL, reason_code=ReasonCode.TESTS_FAILED)


class Place:
    """An app with one environment, its profile at one revision, and a holder of its lock."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.app, self.environment, self.profile, self.revision = new_id(), new_id(), new_id(), new_id()
        self.deployment, self.release = new_id(), new_id()
        self.activities = DeploymentActivities(db)

    async def make(self) -> Place:
        listed = EnvironmentDefinition(id=self.environment, name="Development", runtime_profile_id=self.profile).document()
        app = {"_id": self.app, "environments": [listed], "environment_ids": [self.environment], "archived": False}
        await self.db["apps"].insert_one({**app, "settings": AppSettings().model_dump(mode="json")})
        await self.db["environments"].insert_one(
            {"_id": self.environment, "app_id": self.app, "runtime_profile_id": self.profile, "owned": {"fence": 0}}
        )
        profile = {"_id": self.profile, "app_id": self.app, "revision_id": self.revision, "version": 1}
        await self.db["profiles"].insert_one(profile)
        await self.db["profile_revisions"].insert_one({"_id": self.revision, "profile_id": self.profile})
        published = Release(app_id=self.app, state=ReleaseState.PUBLISHED, tag="r0", published_sha="0" * 40, published_at=now())
        asked = Deployment(
            app_id=self.app,
            environment_id=self.environment,
            release_id=self.release,
            requested_at=now(),
            job_id=new_id(),
            fence=1,
        )
        deployment = {"_id": self.deployment, "app_id": self.app, "owned": asked.model_dump(mode="json")}
        await self.db["deployments"].insert_one(deployment)
        release = {"_id": self.release, "app_id": self.app, "owned": published.model_dump(mode="json")}
        await self.db["releases"].insert_one(release)
        assert (await locks.take(self.db, self.app, {self.environment: self.deployment}, now())).fences == {self.environment: 1}
        return self

    async def shown(self) -> Document:
        row = await self.db["environments"].find_one({"_id": self.environment})
        assert row is not None
        return row["owned"]

    async def ends(self, ending: Ending, *, fence: int = 1, release_id: str = "r1", deployment_id: str | None = None) -> None:
        persist = PersistRequest(
            collection="deployments",
            entity_id=deployment_id or self.deployment,
            expected_version=0,
            command_id="end",
            owned={"fence": fence, "profile_revision_id": self.revision},
            at=now(),
        )
        end = EndDeployment(
            persist=persist,
            app_id=self.app,
            environment_id=self.environment,
            release_id=release_id,
            deployment_id=deployment_id or self.deployment,
            ending=ending,
            requested_by="manager",
        )
        await environment_shows(self.db, end)

    async def run(self, activity: Any, question: Any) -> Any:
        return await ActivityEnvironment().run(activity, question)

    def question(self, **fields: Any) -> BeginQuestion:
        base: dict[str, Any] = {"app_id": self.app, "environment_id": self.environment, "release_id": self.release, "at": now()}
        base |= {"deployment_id": self.deployment, "profile_revision_id": self.revision}
        return BeginQuestion(**(base | fields))

    async def holder(self) -> Document:
        return (await locks.read(self.db, self.app))[self.environment]["holder"]


@pytest.fixture
async def place(db: Database) -> Place:
    return await Place(db).make()


# -- What the record shows


async def test_a_success_is_what_the_environment_runs_and_what_was_applied_there(place: Place) -> None:
    await place.ends(Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK, folder="/there"))
    shown = await place.shown()
    assert (shown["current_release_id"], shown["applied_release_id"], shown["health"]) == ("r1", "r1", "healthy")
    assert (shown["applied_profile_revision_id"], shown["folder"]) == (place.revision, "/there")


async def test_a_failed_health_check_leaves_what_it_ran_before_as_current_and_shows_what_stands_there(place: Place) -> None:
    await place.ends(Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK))
    left = Left(release_id="r2", profile_revision_id="p2", folder="/there", health="unhealthy")
    await place.ends(ENDED.model_copy(update={"left": left}), fence=2, release_id="r2", deployment_id="second")
    shown = await place.shown()
    assert (shown["current_release_id"], shown["applied_release_id"], shown["health"]) == ("r1", "r2", "unhealthy")
    assert (shown["applied_deployment_id"], shown["applied_profile_revision_id"]) == ("second", "p2")


async def test_a_switch_that_was_given_up_says_only_that_nobody_knows(place: Place) -> None:
    await place.ends(Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK, folder="/there"))
    await place.ends(ENDED.model_copy(update={"left": Left()}), fence=2, release_id="r2")
    shown = await place.shown()
    assert (shown["health"], shown["applied_release_id"], shown["folder"]) == ("unknown", "r1", "/there")


async def test_one_that_never_touched_the_environment_changes_nothing(place: Place) -> None:
    before = await place.shown()
    await place.ends(ENDED)
    assert await place.shown() == before


async def test_a_lower_fence_does_not_have_the_last_word(place: Place) -> None:
    await place.ends(Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK), fence=5)
    await place.ends(Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK), fence=4, release_id="late")
    assert (await place.shown())["current_release_id"] == "r1"


async def test_a_release_that_was_replaced_is_marked_bad_once_with_its_audit(place: Place) -> None:
    bad = new_id()
    left = Left(release_id="r1", profile_revision_id="p1", health="healthy", restored=new_id(), marks_bad=True)
    for _ in range(2):
        await place.ends(ENDED.model_copy(update={"left": left}), fence=2, release_id=bad)
    shown = await place.shown()
    assert (shown["bad_release_ids"], shown["applied_deployment_id"]) == ([bad], left.restored)
    (event,) = await place.db["audit"].find({"action": "release_marked_bad"}).to_list()
    assert (event["before"], event["after"]["release_id"]) == ({"bad_release_ids": []}, bad)


# -- The steps


async def test_it_begins_to_run_with_the_revision_that_was_looked_at(place: Place) -> None:
    reply = await place.run(place.activities.begin_running, place.question())
    assert (reply.held, reply.moved, (await place.holder())["state"]) == (True, False, "running")
    profile = await place.db["profiles"].find_one({"_id": place.profile})
    assert profile is not None
    assert profile["pins"] == 1, "a change of the profile that looked before this is refused"


async def test_a_profile_that_has_moved_on_sends_it_back_and_the_lock_is_pending_again(place: Place) -> None:
    reply = await place.run(place.activities.begin_running, place.question(profile_revision_id=new_id()))
    assert (reply.held, reply.moved, (await place.holder())["state"]) == (True, True, "pending")


async def test_a_pinned_revision_is_not_asked_of_the_profile(place: Place) -> None:
    question = place.question(profile_revision_id=new_id(), pinned=True)
    assert (await place.run(place.activities.begin_running, question)).moved is False


async def test_one_that_no_longer_holds_the_lock_learns_who_does(place: Place) -> None:
    reply = await place.run(place.activities.begin_running, place.question(deployment_id="other"))
    assert (reply.held, reply.holder_id) == (False, place.deployment)


async def test_the_fence_is_raised_once_and_only_for_the_holder(place: Place) -> None:
    raised = RaiseFence(app_id=place.app, environment_id=place.environment, deployment_id=place.deployment, fence=1)
    for _ in range(2):
        assert await place.run(place.activities.raise_fence, raised) == 2
    assert await locks.current_fence(place.db, place.app, place.environment) == 2
    with pytest.raises(Exception, match="lock was lost"):
        await place.run(place.activities.raise_fence, raised.model_copy(update={"deployment_id": "other"}))


async def test_what_was_there_before_is_the_last_success_with_its_own_profile(place: Place) -> None:
    question = PriorQuestion(app_id=place.app, environment_id=place.environment, deployment_id=place.deployment)
    assert (await place.run(place.activities.prior_deployment, question)).deployment_id is None
    prior, release = new_id(), place.release
    owned = Deployment(
        app_id=place.app,
        environment_id=place.environment,
        release_id=release,
        state=DeploymentState.SUCCEEDED,
        requested_at=now(),
        profile_revision_id=place.revision,
        job_id=new_id(),
        fence=1,
    )
    await place.db["deployments"].insert_one({"_id": prior, "owned": owned.model_dump(mode="json")})
    await place.ends(Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK), release_id=release, deployment_id=prior)
    found = await place.run(place.activities.prior_deployment, question)
    assert (found.deployment_id, found.release_id, found.tag) == (prior, release, "r0")
    assert (found.profile_id, found.profile_revision_id) == (place.profile, place.revision)


async def test_a_cleared_edit_is_noted_once(place: Place) -> None:
    edit = ClearedEdit(environment_id=place.environment, profile_revision_id=place.revision)
    for _ in range(2):
        await place.run(place.activities.clear_edit, edit)
    assert (await place.shown())["drift"] == {"cleared_revision_id": place.revision, "version": 1}
