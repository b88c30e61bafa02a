"""Undoing and returning over a real repository and real records, with a crash after each write (`spec.md` 3 and 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from conman.activities.rollback import RollbackActivities
from conman.domain.app import candidate_ref
from conman.domain.deployment import Kind, Rollback, RollbackMode
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.messages import AssembleStart, ComposeReply, UndoRelease
from conman.domain.release import ReleaseState
from conman.domain.rollback_messages import RollbackQuestion
from conman.git.adapter import GitAdapter, RefUpdate, TrialMerge
from conman.services import rollbacks
from conman.services.clock import new_id, now
from conman.services.rollback_trial import keep_overrides, try_revert
from conman.services.secrets import unseal
from conman.services.vault import Vault
from conman.settings.vault import generate_keyring
from conman.store import locks, outgoing
from conman.store.database import Document
from conman.store.release_states import roll_back
from tests.services.desk import Desk, text
from tests.services.shop import REPO, Shop
from tests.services.test_arrivals import TOKEN, Road, number
from tests.services.test_release_contents import Line
from tests.support.crashes import crash_at

MAIN = "refs/heads/main"
DEV, UNDOING, MAX = new_id(), new_id(), new_id()
KEYS = Vault.of(generate_keyring())


@pytest.fixture
async def line(shop: Shop) -> AsyncIterator[Line]:
    async with shop.platform() as platform:
        head = await platform.git.resolve(REPO, MAIN)
        assert head is not None
        known = {**shop.app, "environment_ids": [DEV], "integration_branch": "main"}
        await platform.db["apps"].replace_one({"_id": shop.app["_id"]}, known, upsert=True)
        yield Line(shop, platform, head)


def activities(line: Line) -> RollbackActivities:
    platform = line.platform
    return RollbackActivities(platform.db, platform.git, KEYS, platform.commands)


async def publish(line: Line, path: str, content: str) -> Document:
    """A published release, and the integration branch at it."""
    made = await line.release(await line.member(path, content))
    git = line.platform.git
    before = await git.resolve(REPO, MAIN)
    assert before is not None
    await git.update_refs(REPO, [RefUpdate(MAIN, before, line.head)])
    return made


async def compose(line: Line, undone: Document, release: str = "undoing") -> ComposeReply:
    start = AssembleStart(
        app_id=line.shop.app["_id"], release_id=release, job_id="j", tag="r9", members=[], reverts_release_id=undone["_id"]
    )
    return await ActivityEnvironment().run(activities(line).compose_revert, start)


# -- The commit


@pytest.mark.parametrize("crash", ["revert.overrides_kept", "revert.committed"])
async def test_the_commit_that_undoes_a_release_is_made_once(line: Line, crash: str) -> None:
    bad = await publish(line, "a.json", '{"a": 1}\n')
    await publish(line, "b.json", '{"b": 1}\n')
    with crash_at(crash):
        await compose(line, bad)
    first, second = await compose(line, bad), await compose(line, bad)
    assert first == second
    (sha,) = first.prefix_shas
    git = line.platform.git
    assert await git.resolve(REPO, candidate_ref("undoing", 1)) == sha
    commit = await git.commit(REPO, sha)
    assert (commit.parents, first.base_sha) == ((line.head,), line.head)
    assert commit.message == f"Undo r1\n\nConman-Reverts: {bad['_id']}\nConman-Release: r9\n"
    assert [row.path for row in await git.changed_paths(REPO, line.head, sha)] == ["a.json"]


async def test_what_conflicts_leaves_no_trace_and_names_who_builds_on_it(line: Line) -> None:
    bad = await publish(line, "a.json", '{"a": 1}\n')
    newer = await publish(line, "a.json", '{"a": 2}\n')
    before = await line.platform.git.list_refs(REPO, "refs/")
    reply = await compose(line, bad)
    assert [one["path"] for one in reply.conflicts] == ["a.json"]
    assert reply.problem is not None
    assert newer["owned"]["tag"] in reply.problem
    assert reply.prefix_shas == []
    assert await line.platform.git.list_refs(REPO, "refs/") == before


async def test_what_was_undone_meanwhile_is_not_undone_again(line: Line) -> None:
    bad = await publish(line, "a.json", '{"a": 1}\n')
    await roll_back(line.platform.db, UndoRelease(app_id=bad["app_id"], release_id=bad["_id"], by_release_id=UNDOING, at=now()))
    reply = await compose(line, bad)
    assert reply.problem is not None
    assert "rolled_back" in reply.problem


# -- The undone release's record


@pytest.mark.parametrize("crash", ["deliver.audited", "deliver.put", "revert.undone"])
async def test_a_release_is_rolled_back_once(line: Line, crash: str) -> None:
    bad = await publish(line, "a.json", '{"a": 1}\n')
    db = line.platform.db
    request = UndoRelease(app_id=bad["app_id"], release_id=bad["_id"], by_release_id=UNDOING, user_id=MAX, at=now())
    with crash_at(crash):
        await ActivityEnvironment().run(activities(line).undo_release, request)
    for _ in range(2):
        await ActivityEnvironment().run(activities(line).undo_release, request)
    row = await db["releases"].find_one({"_id": bad["_id"]})
    assert row is not None
    assert (row["owned"]["state"], row["owned"]["version"], row["outgoing"]) == ("rolled_back", bad["owned"]["version"] + 1, [])
    (event,) = await db["audit"].find({"entity_id": bad["_id"]}).to_list()
    assert (event["action"], event["actor_user_id"]) == ("rolled_back", MAX)
    assert (event["after"]["mode"], event["after"]["by_release_id"]) == ("revert_and_release", UNDOING)


async def test_a_beginning_that_waited_too_long_for_a_worker_is_tried_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    async def expired(*_: object) -> None:
        raise DomainError(ErrorCode.COMMAND_EXPIRED, "The command waited too long.")

    monkeypatch.setattr(rollbacks, "begin_release", expired)
    await line.platform.db["deployments"].insert_one({"_id": "back", "app_id": "a"})
    question = RollbackQuestion(app_id="a", deployment_id="back", release_id=UNDOING)
    with pytest.raises(DomainError, match="waited too long"):
        await ActivityEnvironment().run(activities(line).begin_revert, question)


# -- What a return takes


@dataclass
class Place:
    """Deployments that have ended in an environment."""

    line: Line
    fence: int = 0

    async def ended(self, release: Document, *, replaced: Document | None = None) -> None:
        self.fence += 1
        db, app_id = self.line.platform.db, self.line.shop.app["_id"]
        made = new_id()
        rollback = None
        if replaced is not None:
            rollback = Rollback(
                mode=RollbackMode.REDEPLOY_PRIOR_TAG, release_id=release["_id"], replaced_release_id=replaced["_id"]
            ).model_dump(mode="json")
        owned = {
            "environment_id": DEV,
            "state": "succeeded",
            "fence": self.fence,
            "kind": Kind.ROLLBACK.value if rollback else Kind.DEPLOY.value,
            "rollback": rollback,
        }
        entry = {
            "id": new_id(),
            "kind": "deployment_ended",
            "at": now(),
            "app_id": app_id,
            "environment_id": DEV,
            "release_id": release["_id"],
            "deployment_id": made,
        }
        row = {"_id": made, "app_id": app_id, "release_id": release["_id"], "owned": owned, "outgoing": [entry]}
        await db["deployments"].insert_one(row)
        await outgoing.deliver(db, "deployments", row)
        await outgoing.deliver(db, "deployments", row)

    async def state(self, release: Document) -> str:
        row = await self.line.platform.db["releases"].find_one({"_id": release["_id"]})
        assert row is not None
        return row["owned"]["state"]


async def test_a_return_rolls_back_what_no_other_environment_runs(line: Line) -> None:
    old, new = await line.release(await line.member("a", "1")), await line.release(await line.member("b", "1"))
    place = Place(line)
    await place.ended(old)
    await place.ended(new)
    assert (await place.state(old), await place.state(new)) == ("deployed_full", "deployed_full")
    await place.ended(old, replaced=new)
    assert (await place.state(old), await place.state(new)) == ("deployed_full", "rolled_back")
    events = await line.platform.db["audit"].find({"entity_id": new["_id"], "action": "rolled_back"}).to_list()
    assert [event["after"]["mode"] for event in events] == ["redeploy_prior_tag"]


# -- The lock


async def test_a_rollback_takes_the_lock_from_who_waits_and_goes_ahead_of_the_line(line: Line) -> None:
    db, at = line.platform.db, now()
    for one in ("waits", "next", "rollback"):
        await db["deployments"].insert_one({"_id": one, "owned": {"state": "pending"}})
    first = await locks.take(db, "app", {"dev": "waits"}, at)
    assert (await locks.take(db, "app", {"dev": "next"}, at, wait=True)).waits
    taken = await locks.take(db, "app", {"dev": "rollback"}, at, over_pending=True)
    assert taken.superseded == {"dev": "waits"}
    assert taken.fences["dev"] == first.fences["dev"] + 1
    assert await locks.release(db, "app", "dev", "rollback", at) == "next", "the line waits on behind it"


async def test_a_rollback_does_not_take_the_lock_from_who_runs(line: Line) -> None:
    db, at = line.platform.db, now()
    await db["deployments"].insert_one({"_id": "runs", "owned": {"state": "running"}})
    await locks.take(db, "app", {"dev": "runs"}, at)
    await locks.mark_running(db, "app", "dev", "runs")
    taken = await locks.take(db, "app", {"dev": "rollback"}, at, over_pending=True)
    assert taken.holder is not None
    assert (taken.holder.deployment_id, taken.fences) == ("runs", {})


# -- Profiles


class CleanGit:
    """A repository in which nothing conflicts."""

    async def trial_revert(self, *_: str) -> TrialMerge:
        return TrialMerge("tree")

    async def changed_paths(self, *_: str) -> list[Any]:
        return []


@pytest.fixture
def road(desk: Desk) -> Road:
    return Road(desk)


async def undo(road: Road, release: str) -> str:
    """Publish the release that undoes another. Raises what refuses it."""
    db = road.desk.platform.db
    owned = {"owned.app_id": road.desk.app["_id"], "owned.base_sha": "b", "owned.state": ReleaseState.PUBLISHED.value}
    for one in road.published:
        tag = {"owned.tag": f"r{road.published.index(one) + 1}"}
        await db["releases"].update_one({"_id": one}, {"$set": {**owned, **tag}})
    undone = await db["releases"].find_one({"_id": release})
    assert undone is not None
    trial = await try_revert(road.desk.platform, cast("GitAdapter", CleanGit()), REPO, "head", undone)
    if trial.refused is not None:
        raise trial.refused
    kept = await keep_overrides(db, road.desk.app["_id"], trial, now())
    made = await road.release(reverts=release)
    await db["releases"].update_one({"_id": made}, {"$set": {"owned.overrides": [one.model_dump(mode="json") for one in kept]}})
    return made


async def test_an_environment_gets_back_what_the_undone_release_changed(road: Road) -> None:
    bad = await road.release({"env_vars": {"MODE": text("new"), "N": number(1)["env_vars"]["N"]}, "secrets": {"PIN": TOKEN}})
    before = await road.profile()
    await road.deploy(bad)
    undoing = await undo(road, bad)
    await road.deploy(undoing)
    assert await road.profile() == before
    profile_id = road.desk.profiles["QA"]
    assert (await unseal(road.desk.platform, profile_id, before.secrets))["PIN"] == "12345678"
    again = await undo(road, undoing)
    await road.deploy(again)
    redone = await road.profile()
    assert redone.env_vars["MODE"].value == "new"
    assert (await unseal(road.desk.platform, profile_id, redone.secrets))["PIN"] == TOKEN


async def test_of_releases_that_arrived_together_only_the_undone_one_goes(road: Road) -> None:
    await road.release(number(1))
    bad = await road.release(number(2))
    last = await road.release(number(3, "M"))
    await road.deploy(last)
    await road.deploy(await undo(road, bad))
    assert await road.variables() == {"MODE": "old", "N": 1, "M": 3}


async def test_a_key_that_somebody_edited_since_is_a_conflict(road: Road) -> None:
    bad = await road.release(number(1))
    await road.deploy(bad)
    await road.desk.edit("QA", env_vars={"N": {"type": "number", "value": 7}})
    with pytest.raises(DomainError, match=r"env_vars\.N") as caught:
        await undo(road, bad)
    assert caught.value.details["keys"] == [{"profile_id": road.desk.profiles["QA"], "key": "env_vars.N", "tag": None}]


async def test_a_key_that_a_newer_release_overrides_is_a_conflict_that_names_it(road: Road) -> None:
    bad = await road.release(number(1))
    await road.deploy(bad)
    newer = await road.release(number(2))
    with pytest.raises(DomainError, match=r"env_vars\.N") as caught:
        await undo(road, bad)
    assert [one["release_id"] for one in caught.value.details["newer_releases"]] == [newer]


async def test_an_environment_that_never_got_the_undone_release_is_left_alone(road: Road) -> None:
    bad = await road.release(number(1))
    await road.desk.edit("QA", env_vars={"N": {"type": "number", "value": 7}})
    before = await road.profile()
    await road.deploy(await undo(road, bad))
    assert await road.profile() == before
