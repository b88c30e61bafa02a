"""What counts as a use of a temp env, and what it costs (`spec.md` 9 and 13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conman.domain.changeset import Changeset
from conman.domain.jobs import JobType, ReasonCode
from conman.domain.temp_env import TempEnv, TempEnvKind, TempEnvState, temp_branch
from conman.domain.times import later
from conman.services.clock import new_id, now
from conman.services.temp_env_use import touch
from conman.store.database import Database
from tests.services.gate_desk import GateDesk, gate_desk
from tests.services.shop import Shop

BEFORE = "2026-01-31T09:30:00.000Z"
S = TempEnvState


async def temp_env(
    db: Database, state: TempEnvState = S.ACTIVE, source: tuple[TempEnvKind, str] | None = None, **more: Any
) -> str:
    """The record of a temp env that was used long ago."""
    made, (kind, source_id) = new_id(), source or (TempEnvKind.WORKSPACE, new_id())
    owned = TempEnv(
        kind=kind,
        source_id=source_id,
        state=state,
        created_at=BEFORE,
        created_by=new_id(),
        base_profile_id=new_id(),
        head_sha="0" * 40,
        label=made,
        url=f"http://{made}.localhost",
        branch=temp_branch(made),
        job_id=new_id(),
        active_since=BEFORE,
        **more,
    )
    record: dict[str, Any] = {"_id": made, "label": made, "last_activity_at": BEFORE, "owned": owned.model_dump(mode="json")}
    if owned.live_slot is not None:
        record["live_slot"] = owned.live_slot
    await db["temp_envs"].insert_one(record)
    return made


async def used_at(db: Database, temp_env_id: str) -> str:
    found = await db["temp_envs"].find_one({"_id": temp_env_id})
    assert found is not None
    return found["last_activity_at"]


async def test_uses_close_together_are_one_write_and_time_never_goes_back(db: Database) -> None:
    made = await temp_env(db)
    for milliseconds in (0, 1, 99, 100, 50, 199, 200):
        await touch(db, made, later("2026-02-01T00:00:00.000Z", timedelta(milliseconds=milliseconds)))
    assert await used_at(db, made) == "2026-02-01T00:00:00.200Z"
    await touch(db, await temp_env(db), BEFORE)
    await touch(db, made, "2026-02-01T00:00:00.290Z")
    assert await used_at(db, made) == "2026-02-01T00:00:00.200Z"


@pytest.mark.parametrize("state", [state for state in S if state is not S.ACTIVE])
async def test_only_what_is_active_is_kept_alive_by_a_use(db: Database, state: TempEnvState) -> None:
    made = await temp_env(db, state)
    await touch(db, made, now())
    assert await used_at(db, made) == BEFORE


# -- Test runs


@pytest.fixture
async def desk(shop: Shop, tmp_path: Path) -> AsyncIterator[GateDesk]:
    async with gate_desk(shop, tmp_path) as made:
        made.script("told.joinpath('mode').write_text(os.environ['MODE'])")
        yield made


async def judged_with(desk: GateDesk, changeset_id: str, **more: Any) -> str:
    """The variable by which the profile of a gate is told."""
    verdict = await desk.attempt(await desk.start(entity_id=changeset_id, fresh=True, **more))
    assert verdict.reason_code is ReasonCode.OK
    return (desk.told / "mode").read_text(encoding="utf-8")


async def derived(desk: GateDesk, mode: str) -> str:
    """A derived profile."""
    base = await desk.platform.db["profiles"].find_one({"_id": desk.shop.app["settings"]["default_base_profile_id"]})
    assert base is not None
    variables = {**base["content"]["env_vars"], "MODE": {"type": "string", "value": mode}}
    content = {**base["content"], "kind": "temp_workspace", "secrets": {}, "env_vars": variables}
    made = new_id()
    await desk.platform.db["profiles"].insert_one({"_id": made, "revision_id": new_id(), "content": content})
    return made


async def test_the_suite_of_a_submit_runs_on_the_temp_env_of_its_changeset_else_of_its_workspace_and_uses_it(
    desk: GateDesk,
) -> None:
    db, changeset_id, workspace_id = desk.platform.db, new_id(), new_id()
    app_id = desk.shop.app["_id"]
    owned = Changeset(app_id=app_id, author_user_id=new_id(), workspace_id=workspace_id)
    await db["changesets"].insert_one({"_id": changeset_id, "app_id": app_id, "owned": owned.model_dump(mode="json")})
    assert await judged_with(desk, changeset_id) == "one"
    of_workspace = await temp_env(
        db, source=(TempEnvKind.WORKSPACE, workspace_id), runtime_profile_id=await derived(desk, "workspace")
    )
    assert await judged_with(desk, changeset_id) == "workspace"
    assert await used_at(db, of_workspace) > BEFORE
    source = (TempEnvKind.CHANGESET, changeset_id)
    of_changeset = await temp_env(db, source=source, runtime_profile_id=await derived(desk, "changeset"))
    assert await judged_with(desk, changeset_id) == "changeset"
    assert await used_at(db, of_changeset) > BEFORE
    assert await judged_with(desk, changeset_id, job_type=JobType.REVALIDATE_QUEUED_CHANGESET) == "one"
    await db["temp_envs"].update_one({"_id": of_changeset}, {"$set": {"owned.state": "provisioning"}})
    assert await judged_with(desk, changeset_id) == "workspace"
