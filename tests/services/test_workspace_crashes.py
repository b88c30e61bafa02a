"""A process that dies at any step of a workspace's work: whoever comes next finds it whole (`durability.md` 19)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from conman.domain.app import pending_ref, scratch_ref
from conman.domain.errors import DomainError, ErrorCode
from conman.git.adapter import RefUpdate
from conman.services import changesets, checkpoints, saves, workspace_end, workspaces
from conman.services.call import Call, command_id, remember
from conman.services.platform import Platform
from conman.services.sync import head_for_submit, sync
from conman.services.workspace_history import record_history
from conman.store.database import Document
from tests.services.shop import ANN, REPO, Shop
from tests.support.crashes import crash_at


async def keyed(shop: Shop, platform: Platform, key: str) -> Call:
    """A request with a key, as the API remembers it."""
    call = shop.call(key)
    at = await remember(platform.db, call.command_id, "body", call.at)
    return replace(call, at=at, key_id=call.command_id, command_id=command_id(call.command_id, at))


async def save(shop: Shop, platform: Platform, path: str, call: Call | None = None, content: str = "e30=") -> object:
    return await saves.write_file(
        platform,
        call or shop.call(),
        shop.app,
        shop.workspace,
        path=path,
        content=content,
        message=None,
        expected_blob_id=None,
    )


async def make_checkpoint(shop: Shop, platform: Platform, call: Call) -> object:
    return await checkpoints.checkpoint(platform, call, shop.app, shop.workspace, "step")


async def make_submit(shop: Shop, platform: Platform, call: Call) -> object:
    return await head_for_submit(platform, call, shop.app, shop.workspace, title="it", submitted=set(), up_to_date=True)


async def make_sync(shop: Shop, platform: Platform, call: Call) -> object:
    return await sync(platform, call, shop.app, shop.workspace, strategy=None, resolutions=[])


async def make_reset(shop: Shop, platform: Platform, call: Call) -> object:
    return await workspace_end.reset(platform, call, shop.app, shop.workspace)


MOVES: dict[str, tuple[Callable[[Shop, Platform, Call], Awaitable[object]], list[str]]] = {
    "checkpoint": (make_checkpoint, ["checkpoint"]),
    "submit": (make_submit, ["checkpoint", "synced_integration"]),
    "sync": (make_sync, ["checkpoint", "synced_integration"]),
    "reset": (make_reset, ["reset"]),
}


async def actions(shop: Shop, platform: Platform) -> list[str]:
    rows = platform.db["audit"].find({"app_id": shop.app["_id"], "action": {"$nin": ["created", "written"]}})
    return sorted([row["action"] async for row in rows])


@pytest.mark.parametrize("name", MOVES)
async def test_a_move_whose_process_died_is_audited_by_whoever_comes_next_and_not_made_again(shop: Shop, name: str) -> None:
    move, audited = MOVES[name]
    async with shop.platform() as platform:
        await save(shop, platform, "a.json")
        await shop.commit_to_main(platform, "theirs.json", "{}")
        with crash_at("workspace.moved"):
            await move(shop, platform, await keyed(shop, platform, name))
        assert await actions(shop, platform) == []
        head = await shop.head(platform)
        await save(shop, platform, "later.json")
        assert await actions(shop, platform) == audited
        await shop.commit_to_main(platform, "theirs-too.json", "{}")
        await move(shop, platform, await keyed(shop, platform, name))
        assert await shop.head(platform) == head
        assert await actions(shop, platform) == audited
        assert "later.json" in await shop.files(platform)
        await shop.is_whole(platform)


async def test_a_repeated_move_answers_as_the_first_did(shop: Shop) -> None:
    async with shop.platform() as platform:
        await save(shop, platform, "a.json")
        await shop.commit_to_main(platform, "theirs.json", "{}")
        for name in ("checkpoint", "sync", "submit"):
            move, _ = MOVES[name]
            first = await move(shop, platform, await keyed(shop, platform, name))
            await save(shop, platform, f"after-{name}.json")
            assert await move(shop, platform, await keyed(shop, platform, name)) == first


async def test_a_save_whose_process_died_is_audited_by_whoever_comes_next(shop: Shop) -> None:
    async with shop.platform() as platform:
        with crash_at("save.committed"):
            await save(shop, platform, "a.json")
        assert await shop.audit(platform, "written") == []
        await record_history(platform, shop.app, shop.workspace["_id"])
        (event,) = await shop.audit(platform, "written")
        assert (event["actor_user_id"], event["after"]["path"]) == (ANN["_id"], "a.json")


@pytest.mark.parametrize("taken", [False, True], ids=["still pending", "taken by a checkpoint"])
async def test_a_repeated_save_whose_process_died_is_not_made_again(shop: Shop, taken: bool) -> None:
    async with shop.platform() as platform:
        with crash_at("save.committed"):
            await save(shop, platform, "a.json", await keyed(shop, platform, "save"), content="MQ==")
        if taken:
            await make_checkpoint(shop, platform, shop.call())
        await save(shop, platform, "a.json", content="Mg==")
        await save(shop, platform, "a.json", await keyed(shop, platform, "save"), content="MQ==")
        assert (await shop.files(platform))["a.json"] == "2"
        assert len(await shop.audit(platform, "written")) == 2


@pytest.mark.parametrize("point", ["workspace.inserted", "workspace.branched"])
async def test_a_workspace_whose_making_was_cut_short_is_finished_by_the_next_use(shop: Shop, point: str) -> None:
    async with shop.platform() as platform:
        with crash_at(point):
            await workspaces.default_workspace(platform, shop.call(), shop.app)
        assert len(await shop.audit(platform, "created")) == 1
        made, fresh = await workspaces.default_workspace(platform, shop.call(), shop.app)
        assert not fresh
        assert made["ready"]
        assert len(await shop.audit(platform, "created")) == 2
        shop.workspace = made
        await save(shop, platform, "a.json")
        await shop.is_whole(platform)


async def test_a_workspace_cut_short_whose_name_went_to_somebody_else_gets_another_name(shop: Shop) -> None:
    async with shop.platform() as platform:
        with crash_at("workspace.inserted"):
            await workspaces.default_workspace(platform, shop.call(), shop.app)
        main = await shop.tip(platform, "refs/heads/main")
        await platform.git.update_refs(REPO, [RefUpdate("refs/heads/ws/ann/shop", None, main)])
        made, fresh = await workspaces.default_workspace(platform, shop.call(), shop.app)
        assert (made["branch_name"], fresh) == ("ws/ann/shop-2", True)
        assert len(await shop.audit(platform, "created")) == 2


@pytest.mark.parametrize("point", ["workspace.closed", "workspace.deleting"])
async def test_a_deletion_that_was_cut_short_is_finished(shop: Shop, point: str) -> None:
    async with shop.platform() as platform:
        await save(shop, platform, "a.json")
        with crash_at(point):
            await workspace_end.delete(platform, await keyed(shop, platform, "gone"), shop.app, shop.workspace)
        if point == "workspace.closed":
            found = await workspaces.find(platform, shop.app, shop.workspace["_id"])
            await workspace_end.delete(platform, await keyed(shop, platform, "gone"), shop.app, found)
        else:
            assert await workspace_end.was_deleted_by(platform, await keyed(shop, platform, "gone"), shop.workspace["_id"])
            await workspace_end.finish_deletions(platform, shop.app)
        with pytest.raises(DomainError) as refused:
            await workspaces.find(platform, shop.app, shop.workspace["_id"])
        assert refused.value.code is ErrorCode.NOT_FOUND
        assert len(await shop.audit(platform, "deleted")) == 1
        refs = await platform.git.list_refs(REPO, "refs/")
        assert sorted(refs) == ["refs/heads/main"]


async def test_a_workspace_whose_deletion_died_early_is_of_use_again_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop.platform() as platform:

        async def changeset() -> Document:
            return await changesets.create(platform, shop.call(), shop.app, shop.workspace, title="mine", description=None)

        with crash_at("workspace.closed"):
            await workspace_end.delete(platform, shop.call(), shop.app, shop.workspace)
        with pytest.raises(DomainError) as refused:
            await changeset()
        assert refused.value.code is ErrorCode.NOT_FOUND
        monkeypatch.setattr(workspace_end, "ABANDONED_AFTER", timedelta(0))
        made = await changeset()
        with pytest.raises(DomainError) as refused:
            await workspace_end.delete(platform, shop.call(), shop.app, shop.workspace)
        assert refused.value.details == {"changeset_id": made["_id"]}


async def test_a_deletion_that_slept_until_it_was_taken_for_dead_deletes_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_end, "ABANDONED_AFTER", timedelta(0))
    async with shop.platform() as platform:

        async def sleeps(*_: object) -> None:
            await changesets.create(platform, shop.call(), shop.app, shop.workspace, title="mine", description=None)

        monkeypatch.setattr(workspace_end, "record_history", sleeps)
        with pytest.raises(DomainError) as refused:
            await workspace_end.delete(platform, shop.call(), shop.app, shop.workspace)
        assert refused.value.code is ErrorCode.CONFLICT
        assert await workspaces.find(platform, shop.app, shop.workspace["_id"])


async def test_what_comes_after_a_deletion_finds_no_workspace_and_brings_nothing_back(shop: Shop) -> None:
    async with shop.platform() as platform:
        await workspace_end.delete(platform, shop.call(), shop.app, shop.workspace)
        for late in (save(shop, platform, "a.json"), *(move(shop, platform, shop.call()) for move, _ in MOVES.values())):
            with pytest.raises(DomainError) as refused:
                await late
            assert refused.value.code is ErrorCode.NOT_FOUND
        assert sorted(await platform.git.list_refs(REPO, "refs/")) == ["refs/heads/main"]


async def test_a_scratch_ref_that_a_crash_left_is_in_nobodys_way(shop: Shop) -> None:
    async with shop.platform() as platform:
        main = await shop.tip(platform, "refs/heads/main")
        left = scratch_ref(shop.workspace["_id"], "0123456789abcdef")
        await platform.git.update_refs(REPO, [RefUpdate(left, None, main)])
        await save(shop, platform, "a.json")
        await make_checkpoint(shop, platform, shop.call())
        await workspace_end.delete(platform, shop.call(), shop.app, shop.workspace)
        assert sorted(await platform.git.list_refs(REPO, "refs/")) == ["refs/heads/main"]


async def test_a_workspace_from_before_there_were_journals_gets_one_with_its_next_move(shop: Shop) -> None:
    async with shop.platform() as platform:
        journal = f"refs/conman/journals/{shop.workspace['_id']}"
        await platform.git.update_refs(REPO, [RefUpdate(journal, await shop.tip(platform, journal), None)])
        await platform.db["workspaces"].update_one({"_id": shop.workspace["_id"]}, {"$unset": {"journaled_sha": ""}})
        await save(shop, platform, "a.json")
        await make_checkpoint(shop, platform, shop.call())
        await shop.is_whole(platform)
        assert await actions(shop, platform) == ["checkpoint"]


async def test_the_same_command_at_once_is_carried_out_once(shop: Shop) -> None:
    async with shop.platform() as platform:
        await save(shop, platform, "a.json")
        await shop.commit_to_main(platform, "theirs.json", "{}")

    async def submit(own: Platform) -> object:
        return await make_submit(shop, own, await keyed(shop, own, "one"))

    answers = await asyncio.gather(*(shop.apart(submit) for _ in range(4)))
    async with shop.platform() as platform:
        assert answers == [answers[0]] * 4
        assert await actions(shop, platform) == ["checkpoint", "synced_integration"]
        assert await shop.tip(platform, pending_ref(shop.workspace["_id"])) == await shop.head(platform)
        await shop.is_whole(platform)
