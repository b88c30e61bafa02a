"""Provisioning and clean-up of temp envs: each step is done once however often it is run, and says what it could not do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pymongo.errors import OperationFailure
from temporalio.exceptions import ApplicationError

from conman.domain.app import BRANCHES
from conman.domain.temp_env import TempEnvKind, TempEnvState, temp_database, temp_snapshot_ref
from conman.git.adapter import RefUpdate, Signature, WriteFile
from conman.git.local import LocalGit
from conman.services import mongo_connections, temp_branches
from conman.services.clone_database import CloneDatabase, installation_id
from conman.services.clone_files import dump
from conman.services.temp_databases import dumped_here
from tests.services.temp_site import TempSite, site
from tests.support.crashes import crash_at

__all__ = ["site"]


async def _documents(site: TempSite, name: str) -> int:
    return await site.client[name]["goods"].count_documents({})


# -- Branch


async def test_a_branch_whose_making_died_is_made_once(site: TempSite) -> None:
    ref = await site.temp_env()
    await site.died("temp_env.branched", "provision_branch", ref)
    first, second = await site.run("provision_branch", ref), await site.run("provision_branch", ref)
    assert first == second
    assert await site.branches() == [first.branch]
    assert await site.git.resolve(site.repo, temp_snapshot_ref(ref.temp_env_id)) == first.head_sha == await site.head()


async def test_a_snapshot_branch_that_somebody_moved_is_put_back(tmp_path: Path, site: TempSite) -> None:
    git = LocalGit(tmp_path, 1)
    try:
        await git.create_repository(site.repo, "main")
        ann = Signature("Ann", "ann@example.com", datetime(2026, 1, 1, tzinfo=UTC))
        shas: list[str] = []
        for text in (b"one", b"two"):
            parent = shas[-1] if shas else None
            change = [WriteFile("a", text)]
            shas.append(
                await git.commit_files(
                    site.repo,
                    ref="refs/heads/main",
                    expected_old=parent,
                    parent=parent,
                    changes=change,
                    author=ann,
                    message="m\n",
                )
            )
        ref = await site.temp_env()
        temp = (await site.temp(ref)).model_copy(update={"head_sha": shas[0]})
        assert await temp_branches.put_in_place(git, site.repo, ref.temp_env_id, temp)
        await git.update_refs(site.repo, [RefUpdate(BRANCHES + temp.branch, shas[0], shas[1])])
        assert await temp_branches.put_in_place(git, site.repo, ref.temp_env_id, temp)
        assert await git.resolve(site.repo, BRANCHES + temp.branch) == shas[0]
        assert await temp_branches.delete_branch(git, site.repo, temp.branch)
        assert not await temp_branches.delete_branch(git, site.repo, temp.branch)
        assert await git.resolve(site.repo, temp_snapshot_ref(ref.temp_env_id)) == shas[0]
    finally:
        git.close()


async def test_a_commit_that_is_gone_fails_for_good(site: TempSite) -> None:
    ref = await site.temp_env(head_sha="1" * 40)
    with pytest.raises(ApplicationError) as told:
        await site.run("provision_branch", ref)
    assert (told.value.type, told.value.non_retryable) == ("git_error", True)


# -- Database


@pytest.mark.parametrize("crash", ["clone.collection", "clone.filled"])
async def test_a_database_whose_making_died_is_made_once(site: TempSite, crash: str) -> None:
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    await site.died(crash, "provision_database", ref)
    made = await site.run("provision_database", ref)
    assert await site.run("provision_database", ref) == made
    assert (made.db_name, made.how, made.collections, made.documents) == (temp_database(ref.temp_env_id), "copied", 1, 20)
    assert await _documents(site, made.db_name) == 20
    assert await _documents(site, site.base_name) == 20
    job = await site.db["jobs"].find_one({"_id": ref.job_id})
    assert (job["progress"]["done"], job["progress"]["total"]) == (20, 20)


async def test_what_was_changed_in_a_clone_stays_when_its_step_is_run_again(site: TempSite) -> None:
    ref = await site.provisioned()
    name = temp_database(ref.temp_env_id)
    await site.client[name]["goods"].delete_many({"_id": {"$lt": 5}})
    await site.run("provision_database", ref)
    assert await _documents(site, name) == 15


async def test_between_two_servers_a_database_goes_through_files_that_nobody_else_reads_and_that_go(site: TempSite) -> None:
    """The same server under another name counts as another one."""
    port = site.uri.removeprefix("mongodb://").partition("/")[0].rpartition(":")[2]
    other = f"mongodb://localhost:{port}/?directConnection=true"
    await site.desk.edit("Live", secrets={"DB": other + "&appName=x"}, database=_section(base_profile_id=site.base_id))
    ref = await site.temp_env(base_profile_id=site.desk.profiles["Live"])
    await site.run("provision_profile", ref)
    await site.died("restore.batch", "provision_database", ref)
    assert dumped_here(site.settings) == [ref.temp_env_id]
    made = await site.run("provision_database", ref)
    assert (made.how, made.documents) == ("restored", 20)
    assert await _documents(site, made.db_name) == 20
    assert dumped_here(site.settings) == []


async def test_what_a_restore_has_half_filled_is_not_taken_for_copied(site: TempSite, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: CloneDatabase, collection: str, to: str) -> None:
        raise OperationFailure("no", 13)

    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    with monkeypatch.context() as patched, crash_at("restore.batch", hit=2):
        patched.setattr(CloneDatabase, "rename", refused)
        await site.run("provision_database", ref, temp_database_batch=5)
    made = await site.run("provision_database", ref, temp_database_batch=5)
    assert (made.how, await _documents(site, made.db_name)) == ("restored", 20)
    names = await site.client[made.db_name].list_collection_names()
    assert sorted(names) == ["_conman", "goods"], "what was filled under another name is gone"


def _section(**fields: str) -> dict[str, str]:
    return {"engine": "mongodb", "connection_ref": "DB", "provisioning_mode": "clone_from_base", **fields}


async def test_a_profile_says_how_its_database_is_filled(site: TempSite, tmp_path: Path) -> None:
    async def tell(done: int, total: int, message: str) -> None: ...
    async def mine() -> None: ...

    await dump(site.client[site.base_name], tmp_path / "dumps" / "nightly", batch=10, tell=tell, still_mine=mine)
    settings = {"temp_snapshots": tmp_path / "dumps"}
    await site.desk.edit("QA", database=_section(provisioning_mode="empty"))
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    empty = await site.run("provision_database", ref)
    assert (empty.how, empty.documents, await _documents(site, empty.db_name)) == ("empty", 0, 0)
    assert await site.databases() == [empty.db_name], "it is marked as Conman's before anything is in it"

    strategy = {"seed_mode": "snapshot", "seed_source_ref": "nightly"}
    await site.desk.edit("QA", database=_section(provisioning_mode="snapshot_restore"), data_strategy=strategy)
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    restored = await site.run("provision_database", ref, **settings)
    assert (restored.how, restored.documents) == ("restored", 20)

    await site.desk.edit("QA", data_strategy={**strategy, "seed_source_ref": "../dumps/nightly"})
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    with pytest.raises(ApplicationError, match="no dump"):
        await site.run("provision_database", ref, **settings)

    await site.desk.edit("QA", database=None)
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    assert (await site.run("provision_database", ref)).db_name is None


async def test_a_base_over_the_limit_is_not_cloned(site: TempSite) -> None:
    await site.client[site.base_name]["big"].insert_one({"data": b"x" * 2_000_000})
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    with pytest.raises(ApplicationError, match="CONMAN_TEMP_DATABASE_MAX_MB") as told:
        await site.run("provision_database", ref, temp_database_max_mb=1)
    assert told.value.non_retryable


@pytest.mark.parametrize("name", ["Conman's own", "admin", "local"])
async def test_what_is_no_app_s_database_is_not_cloned(site: TempSite, name: str) -> None:
    await installation_id(site.db)
    host = site.uri.removeprefix("mongodb://").partition("/")[0].replace("127.0.0.1", "localhost")
    base = site.db.name if name == "Conman's own" else name
    await site.desk.edit("QA", secrets={"DB": f"mongodb://{host}/{base}?directConnection=true"})
    ref = await site.temp_env()
    await site.run("provision_profile", ref)
    with pytest.raises(ApplicationError, match="no app's database") as told:
        await site.run("provision_database", ref)
    assert told.value.non_retryable
    assert await site.client[temp_database(ref.temp_env_id)].list_collection_names() == ["_conman"]


# -- Clean-up


@pytest.mark.parametrize("crash", ["clone.dropped", "temp_env.unprofiled"])
async def test_a_clean_up_that_died_is_finished_and_leaves_what_makes_it_again(site: TempSite, crash: str) -> None:
    ref = await site.provisioned()
    await site.becomes(ref, TempEnvState.EXPIRED)
    profile = await site.profile(ref)
    await site.died(crash, "clean_up_temp_env", ref)
    first, second = await site.run("clean_up_temp_env", ref), await site.run("clean_up_temp_env", ref)
    assert first == second
    assert (first.database_dropped, first.branch_deleted, first.profile_deleted, first.left) == (True, True, True, [])
    assert (await site.databases(), await site.branches()) == ([], [])
    assert await site.git.resolve(site.repo, temp_snapshot_ref(ref.temp_env_id)) is not None
    assert await site.audit(profile["_id"]) == ["created", "deleted"]
    assert await _documents(site, site.base_name) == 20


async def test_what_was_never_made_counts_as_removed(site: TempSite) -> None:
    ref = await site.temp_env()
    reply = await site.run("clean_up_temp_env", ref)
    assert (reply.database_dropped, reply.branch_deleted, reply.profile_deleted, reply.left) == (True, True, True, [])


async def test_a_server_that_does_not_answer_leaves_its_database_and_nothing_else(
    site: TempSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_connections, "ANSWERS_WITHIN_MS", 200)
    await site.desk.edit("QA", secrets={"DB": "mongodb://u:hush@127.0.0.1:1/x"})
    ref = await site.temp_env()
    await site.run("provision_branch", ref)
    await site.run("provision_profile", ref)
    with pytest.raises(ApplicationError) as told:
        await site.run("provision_database", ref)
    assert (told.value.type, told.value.non_retryable) == ("infrastructure", False)
    reply = await site.run("clean_up_temp_env", ref)
    assert (reply.database_dropped, reply.branch_deleted, reply.profile_deleted) == (False, True, True)
    assert len(reply.left) == 1
    assert "127.0.0.1:1" in reply.left[0]
    assert "hush" not in reply.left[0] + str(told.value)


# -- Use


async def test_the_last_use_is_told_with_whether_source_and_app_have_ended(site: TempSite) -> None:
    changeset = await site.desk.changeset()
    ref = await site.temp_env(TempEnvKind.CHANGESET, changeset)
    used = await site.use(ref)
    assert (used.last_activity_at is not None, used.source_ended, used.archived) == (True, False, False)
    await site.db["changesets"].update_one({"_id": changeset}, {"$set": {"owned.state": "released"}})
    await site.db["apps"].update_one({"_id": ref.app_id}, {"$set": {"archived": True}})
    used = await site.use(ref)
    assert (used.source_ended, used.archived) == (True, True)
    assert (await site.use(await site.temp_env())).source_ended, "its workspace is gone"
