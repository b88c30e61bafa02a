"""Healing over real records: what is put back, when, and where it stops (`spec.md` 12)."""

from __future__ import annotations

import pytest

from conman.domain.deployment import Deployment, DeploymentState, Kind
from conman.services import drift
from conman.services.clock import now
from conman.store import locks
from tests.services.desk import text
from tests.services.drift_site import Site, site
from tests.support.crashes import crash_at

__all__ = ["site"]


async def test_healing_puts_back_what_was_applied_last_never_what_is_newest(site: Site) -> None:
    old, first = await site.release(), (await site.profile())["revision_id"]
    await site.deployed(old)
    await site.desk.edit("QA", env_vars={"MODE": text("new")})
    await site.deployed(await site.release(sha="decaf"))
    await site.deployed(old, first, kind=Kind.ROLLBACK)
    await site.policy("heal")
    site.env_vars = {"MODE": "touched"}
    await site.look()

    made = await site.heal()

    assert made is not None
    state = Deployment.model_validate(made["owned"])
    assert (state.kind, state.release_id, state.profile_revision_id) == (Kind.HEAL, old, first)
    assert [item.key for item in state.drift_report or []] == ["MODE"]
    assert (state.requested_by, state.approvals_required) == (None, 0)
    held = (await locks.read(site.desk.platform.db, site.desk.app["_id"]))[site.id]
    assert (held["holder"]["deployment_id"], held["fence"]) == (made["_id"], state.fence)
    assert await site.desk.platform.db["jobs"].find_one({"_id": state.job_id, "entity_id": made["_id"]}) is not None


@pytest.mark.parametrize("point", ["heal.locked", "heal.inserted"])
async def test_a_healing_whose_start_died_is_made_once(site: Site, point: str) -> None:
    await site.deployed(await site.release())
    await site.policy("heal")
    site.env_vars = {"MODE": "touched"}
    await site.look()
    with crash_at(point):
        await site.heal()

    made = await site.heal()

    assert made is not None
    query = {"owned.kind": "heal"}
    assert [row["_id"] async for row in site.desk.platform.db["deployments"].find(query)] == [made["_id"]]


async def test_nothing_is_healed_by_policy_block_nor_past_a_lock_nor_what_was_seen_of_an_earlier_deployment(site: Site) -> None:
    await site.deployed(await site.release())
    site.env_vars = {"MODE": "touched"}
    await site.look()
    assert await site.heal() is None
    await site.policy("heal")
    holder = await site.deployment(await site.release(), DeploymentState.PENDING)
    await locks.take(site.desk.platform.db, site.desk.app["_id"], {site.id: holder}, now())
    assert await site.heal() is None
    await locks.release(site.desk.platform.db, site.desk.app["_id"], site.id, holder, now())
    await site.deployed(await site.release())
    assert await site.heal() is None


async def test_what_does_not_hold_is_healed_so_often_and_then_told_until_a_person_deploys(site: Site) -> None:
    db, app_id = site.desk.platform.db, site.desk.app["_id"]
    release = await site.release()
    await site.deployed(release)
    await site.policy("heal")
    site.env_vars = {"MODE": "touched"}

    async def healed() -> bool:
        await site.look()
        made = await site.heal()
        if made is None:
            return False
        state = Deployment.model_validate({**made["owned"], "state": "succeeded"})
        await db["deployments"].update_one({"_id": made["_id"]}, {"$set": {"owned.state": "succeeded"}})
        await locks.release(db, app_id, site.id, made["_id"], now())
        shown = {"owned.current_deployment_id": made["_id"], "owned.deployed_at": now()}
        await db["environments"].update_one({"_id": site.id}, {"$set": shown})
        assert state.kind is Kind.HEAL
        return True

    assert [await healed() for _ in range(5)] == [True, True, False, False, False]
    assert (await site.record()).healing_stopped_at is not None
    assert drift.drift_view(await site.document())["healing_stopped_at"] is not None
    assert await site.notices() == ["drift_detected", "drift_heal_stopped"]
    assert [event["after"]["holds"] for event in await site.audit() if event["action"] == "healed"] == [False, False]

    await site.deployed(release)
    assert await healed(), "a person has deployed"
