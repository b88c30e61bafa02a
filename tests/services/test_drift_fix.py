"""A changeset that takes over what has drifted: made whole and once, whatever dies on the way (`spec.md` 12, `api.md` 1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conman.domain.drift import DriftItem
from conman.domain.errors import DomainError, ErrorCode
from conman.git.local import LocalGit
from conman.services import drift_fix
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.override_contents import contents_of
from conman.store.database import Document
from conman.store.outgoing import sweep
from tests.services.desk import Desk
from tests.services.shop import OUTSIDER
from tests.support.crashes import crash_at

REPO = "shop.git"
TOUCHED = {"kind": "env_var", "key": "MODE", "expected": "old", "observed": "new"}
PIN = {"kind": "secret", "key": "PIN", "expected": "aa" * 8, "observed": "bb" * 8}
EDIT = {"kind": "emergency_edit", "expected": 1, "observed": 2}


@pytest.fixture
async def drifted(desk: Desk, tmp_path: Path) -> AsyncIterator[Desk]:
    """QA has a variable that was touched and another PIN than was applied; the app has a repository."""
    git = LocalGit(tmp_path / "repositories", 2)
    desk.platform.git = git
    await git.create_repository(REPO, "main")
    await git.commit_files(
        REPO, ref="refs/heads/main", expected_old=None, parent=None, changes=[], author=OUTSIDER, message="first\n"
    )
    desk.app |= {"integration_branch": "main"}
    await desk.platform.db["apps"].replace_one({"_id": desk.app["_id"]}, desk.app)
    await knows(desk, TOUCHED, PIN)
    yield desk
    git.close()


async def knows(desk: Desk, *report: dict[str, Any], deployment_id: str = "d") -> None:
    """What the environment's record says of its drift."""
    profile = await desk.platform.db["profiles"].find_one({"_id": desk.profiles["QA"]})
    assert profile is not None
    at = now()
    state = "drifted" if report else "clean"
    drift = {"version": 1, "state": state, "report": list(report), "deployment_id": "d", "checked_at": at}
    shown = {"current_deployment_id": deployment_id, "deployed_at": at, "applied_profile_revision_id": profile["revision_id"]}
    change = {"$set": {"owned.drift": drift, **{f"owned.{name}": value for name, value in shown.items()}}}
    await desk.platform.db["environments"].update_one({"_id": desk.environments["QA"]}, change)


async def make(desk: Desk, call: Call | None = None, deployment_id: str | None = None) -> Document:
    environment = await desk.platform.db["environments"].find_one({"_id": desk.environments["QA"]})
    assert environment is not None
    environment |= {"name": "QA", "runtime_profile_id": desk.profiles["QA"]}
    return await drift_fix.create(desk.platform, call or desk.call(), desk.app, environment, deployment_id)


async def overridden(desk: Desk, changeset: Document) -> list[dict[str, Any]]:
    frozen = await desk.frozen(changeset["_id"])
    return [one.content() for one in await contents_of(desk.platform.db, frozen)]


async def refused(desk: Desk, deployment_id: str | None = None) -> ErrorCode:
    with pytest.raises(DomainError) as error:
        await make(desk, deployment_id=deployment_id)
    assert await desk.platform.db["workspaces"].find_one({}) is None, "nothing is made"
    return error.value.code


async def test_the_draft_has_what_was_observed_and_says_what_somebody_must_set(drifted: Desk) -> None:
    changeset = await make(drifted)

    assert await overridden(drifted, changeset) == [{"env_vars": {"MODE": {"type": "string", "value": "new"}}}]
    assert "`PIN`" in changeset["description"]
    assert "bb" * 8 not in changeset["description"]
    workspace = await drifted.platform.db["workspaces"].find_one({"_id": changeset["owned"]["workspace_id"]})
    assert workspace is not None
    assert (workspace["base_ref_type"], workspace["base_ref_value"], workspace["is_default"]) == ("integration", "main", False)
    await sweep(drifted.platform.db)
    actions = [row["action"] async for row in drifted.platform.db["audit"].find({"actor_user_id": workspace["owner_user_id"]})]
    assert sorted(actions) == ["created", "created", "created", "created", "overrides_updated"], "two profiles, and these three"


@pytest.mark.parametrize("point", ["takeover.workspace", "takeover.changeset", "overrides.kept"])
async def test_what_died_on_the_way_is_finished_by_its_repeat_from_the_same_report(drifted: Desk, point: str) -> None:
    call = await drifted.keyed("takes over")
    with crash_at(point):
        await make(drifted, call)
    await knows(drifted)

    changeset = await make(drifted, call)

    assert await overridden(drifted, changeset) == [{"env_vars": {"MODE": {"type": "string", "value": "new"}}}]
    assert await drifted.platform.db["changesets"].count_documents({}) == 1
    assert await drifted.platform.db["workspaces"].count_documents({}) == 1


async def test_a_repeat_undoes_nothing_that_its_author_did_with_the_draft(drifted: Desk) -> None:
    call = await drifted.keyed("takes over")
    first = await make(drifted, call)
    await drifted.put(first["_id"], {"base_url": "https://mine.example.com"})

    again = await make(drifted, call)

    assert again["_id"] == first["_id"]
    assert await overridden(drifted, again) == [{"base_url": "https://mine.example.com"}]


async def test_the_report_of_a_blocked_deployment_is_taken_over_when_it_is_named(drifted: Desk) -> None:
    blocked, elsewhere = new_id(), new_id()
    owned = {"environment_id": drifted.environments["QA"], "release_id": None, "requested_at": now(), "job_id": "j", "fence": 1}
    report = [DriftItem(kind="base_url", observed="https://seen.example.com").model_dump()]
    for made, environment in ((blocked, "QA"), (elsewhere, "Live")):
        known = {**owned, "app_id": drifted.app["_id"], "environment_id": drifted.environments[environment]}
        document: Document = {"_id": made, "app_id": drifted.app["_id"], "owned": {**known, "drift_report": report}}
        await drifted.platform.db["deployments"].insert_one(document)

    assert await refused(drifted, elsewhere) is ErrorCode.VALIDATION_ERROR
    assert await refused(drifted, new_id()) is ErrorCode.VALIDATION_ERROR
    changeset = await make(drifted, deployment_id=blocked)

    assert await overridden(drifted, changeset) == [{"base_url": "https://seen.example.com"}]


async def test_there_is_nothing_to_take_over_where_nothing_drifted_or_only_the_profile_was_edited(drifted: Desk) -> None:
    await knows(drifted)
    assert await refused(drifted) is ErrorCode.CONFLICT
    await knows(drifted, EDIT)
    assert await refused(drifted) is ErrorCode.CONFLICT
    await knows(drifted, TOUCHED, deployment_id="a later one")
    assert await refused(drifted) is ErrorCode.CONFLICT, "nobody has looked since"


async def test_what_the_profile_could_not_hold_by_now_is_left_to_people(drifted: Desk) -> None:
    await drifted.edit("QA", env_vars={"MODE": None}, secrets={"MODE": "a secret by now"})

    changeset = await make(drifted)

    assert await overridden(drifted, changeset) == []
    assert "`MODE`" in changeset["description"]
