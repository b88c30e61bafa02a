"""What temp envs leave behind is found and removed, and only that; what they lose is put back or told (`spec.md` 13)."""

from __future__ import annotations

import pytest

from conman.domain.app import BRANCHES
from conman.domain.profile_edit import ProfileEdit
from conman.domain.temp_env import TempEnvState, temp_branch, temp_database
from conman.git.adapter import RefUpdate
from conman.services import mongo_connections, profile_changes, temp_orphans
from conman.services.clock import new_id
from conman.services.mongo_connections import Connection
from conman.services.temp_databases import dumped_here
from conman.services.temp_orphans import forget_dumps
from tests.services.temp_site import TempSite, site

__all__ = ["site"]


async def test_what_has_no_record_goes_an_hour_after_it_was_first_seen(site: TempSite) -> None:
    lost, kept = await site.provisioned(), await site.provisioned()
    (site.settings.temp_dumps_folder / lost.temp_env_id).mkdir(parents=True)
    await site.db["temp_envs"].delete_one({"_id": lost.temp_env_id})
    for _ in range(2):
        counts = await site.sweep()
        assert (counts["seen"], counts["removed"]) == (4, 0), "branch, profile, dump and database, too young to go"
    await site.an_hour_later()
    assert (await site.sweep())["removed"] == 4
    assert await site.databases() == [temp_database(kept.temp_env_id)]
    assert await site.branches() == [(await site.temp(kept)).branch]
    assert dumped_here(site.settings) == []
    assert await site.db["profiles"].count_documents({"temp": {"$exists": True}, "deleted": {"$ne": True}}) == 1
    assert await site.db["temp_orphans"].count_documents({}) == 0


async def test_a_temp_env_that_needs_it_keeps_it_in_every_state_but_deleted(site: TempSite) -> None:
    ref = await site.provisioned()
    for state in (TempEnvState.PROVISIONING, TempEnvState.EXPIRING, TempEnvState.EXPIRED, TempEnvState.FAILED):
        await site.becomes(ref, state)
        assert (await site.sweep())["seen"] == 0, state
    await site.becomes(ref, TempEnvState.DELETED)
    assert (await site.sweep())["seen"] == 3


async def test_what_is_needed_again_is_an_orphan_no_more(site: TempSite) -> None:
    ref = await site.provisioned()
    await site.becomes(ref, TempEnvState.DELETED)
    await site.sweep()
    await site.becomes(ref, TempEnvState.ACTIVE)
    await site.an_hour_later()
    assert (await site.sweep())["removed"] == 0
    await site.becomes(ref, TempEnvState.DELETED)
    assert (await site.sweep())["removed"] == 0, "its hour begins anew"


async def test_databases_of_others_on_the_same_server_stay(site: TempSite) -> None:
    """Another installation's, one that bears no mark and no id that was given here, and one that only looks like a clone."""
    theirs, unknown = temp_database(new_id()), temp_database(new_id())
    names = (theirs, unknown, "conman_temp_by_hand")
    await site.client[theirs]["_conman"].insert_one({"_id": "mark", "installation": "theirs"})
    for name in names:
        await site.client[name]["data"].insert_one({"_id": 1})
    await site.sweep()
    await site.an_hour_later()
    assert (await site.sweep())["removed"] == 0
    there = await site.client.list_database_names()
    for name in names:
        assert name in there
        await site.client.drop_database(name)


async def test_what_a_write_under_way_put_into_a_dropped_clone_goes_too(site: TempSite) -> None:
    ref = await site.provisioned()
    await site.run("clean_up_temp_env", ref)
    await site.becomes(ref, TempEnvState.DELETED)
    await site.client[temp_database(ref.temp_env_id)]["_conman.late"].insert_one({"_id": 1})
    assert (await site.sweep())["seen"] == 1
    await site.an_hour_later()
    assert (await site.sweep())["removed"] == 1
    assert await site.databases() == []


async def test_a_branch_that_is_lost_is_put_back(site: TempSite) -> None:
    ref = await site.provisioned()
    temp = await site.temp(ref)
    await site.git.update_refs(site.repo, [RefUpdate(BRANCHES + temp.branch, temp.head_sha, None)])
    assert (await site.sweep())["recreated"] == 1
    assert await site.branches() == [temp.branch]


async def test_a_database_that_is_lost_is_told_of_and_stays_lost(site: TempSite) -> None:
    ref = await site.provisioned()
    await site.client.drop_database(temp_database(ref.temp_env_id))
    assert (await site.sweep())["missing"] == 1
    noted = await site.db["temp_orphans"].find_one({"kind": "missing_database"})
    assert noted["name"] == f"{ref.temp_env_id}:{temp_database(ref.temp_env_id)}"
    await site.an_hour_later()
    assert (await site.sweep())["removed"] == 0
    await site.becomes(ref, TempEnvState.EXPIRED)
    await site.sweep()
    assert await site.db["temp_orphans"].count_documents({}) == 0


async def test_a_server_that_does_not_answer_holds_up_nothing_else(site: TempSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo_connections, "ANSWERS_WITHIN_MS", 200)
    await site.desk.edit(
        "Live",
        secrets={"DB": "mongodb://u:hush@127.0.0.1:1/x"},
        database={"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "existing"},
    )
    await site.git.update_refs(site.repo, [RefUpdate(BRANCHES + temp_branch("left"), None, await site.head())])
    counts = await site.sweep()
    assert (counts["failed"], counts["seen"]) == (1, 1)


async def test_a_dump_goes_from_each_machine_once_its_temp_env_is_provisioned(site: TempSite) -> None:
    made, unknown, being_made = await site.provisioned(), new_id(), await site.temp_env()
    for temp_env_id in (made.temp_env_id, unknown, being_made.temp_env_id):
        (site.settings.temp_dumps_folder / temp_env_id).mkdir(parents=True)
    await forget_dumps(site.db, site.settings)
    assert dumped_here(site.settings) == sorted([unknown, being_made.temp_env_id])


async def test_what_a_member_writes_into_a_derived_profile_is_never_connected_to(
    site: TempSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await site.provisioned()
    profile = await site.profile(ref)
    change = ProfileEdit.model_validate({"secrets": {"DB": "mongodb://u:hush@169.254.169.254/x"}})
    await profile_changes.edit(site.desk.platform, site.desk.call(), site.desk.app, profile["_id"], change, profile["version"])
    asked: list[str] = []

    async def noting(connection: Connection) -> set[str]:
        asked.append(connection.where)
        return await clones_on(connection)

    clones_on = temp_orphans._clones_on
    monkeypatch.setattr(temp_orphans, "_clones_on", noting)
    counts = await site.sweep()
    assert (counts["failed"], counts["missing"]) == (0, 0)
    assert "169.254.169.254" not in str(asked)


async def test_a_clone_that_one_account_does_not_see_is_looked_for_by_the_others_on_its_server(
    site: TempSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, kept = await site.provisioned(), await site.provisioned()
    host = site.uri.removeprefix("mongodb://").partition("/")[0]
    await site.desk.edit("QA", secrets={"DB": f"mongodb://{host}/x?directConnection=true&appName=blind"})
    await site.db["temp_envs"].delete_one({"_id": lost.temp_env_id})
    clones_on = temp_orphans._clones_on

    async def shown(connection: Connection) -> set[str]:
        return set() if "blind" in connection.uri else await clones_on(connection)

    monkeypatch.setattr(temp_orphans, "_clones_on", shown)
    assert (await site.sweep())["missing"] == 0
    await site.an_hour_later()
    await site.sweep()
    assert await site.databases() == [temp_database(kept.temp_env_id)]
