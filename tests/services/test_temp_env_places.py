"""Which of a deletion of a workspace and a new temp env or changeset on it comes first (`spec.md` 13, `api.md` 3)."""

from __future__ import annotations

import asyncio

import pytest
from pymongo.errors import DuplicateKeyError

from conman.domain.errors import DomainError, ErrorCode
from conman.services.clock import new_id
from conman.services.platform import Platform
from conman.services.workspace_end import delete
from conman.store.database import Database
from tests.services.shop import Shop


async def live(db: Database, workspace_id: str) -> str:
    """The record of a live temp env of the workspace, as far as its place is concerned."""
    made = new_id()
    await db["temp_envs"].insert_one({"_id": made, "label": made, "live_slot": f"workspace:{workspace_id}", "owned": {}})
    return made


async def open_changeset(db: Database, workspace_id: str) -> str:
    made = new_id()
    await db["changesets"].insert_one({"_id": made, "open_slot": workspace_id})
    return made


async def test_a_workspace_with_a_live_temp_env_is_not_deleted_and_can_be_once_that_is_over(shop: Shop) -> None:
    async with shop.platform() as platform:
        temp_env = await live(platform.db, shop.workspace["_id"])
        with pytest.raises(DomainError) as refused:
            await delete(platform, shop.call(), shop.app, shop.workspace)
        assert refused.value.code is ErrorCode.CONFLICT
        assert refused.value.details == {"temp_env_id": temp_env}
        changeset = await open_changeset(platform.db, shop.workspace["_id"])  # its place was given back
        await platform.db["changesets"].delete_one({"_id": changeset})
        await platform.db["temp_envs"].update_one({"_id": temp_env}, {"$unset": {"live_slot": ""}})
        await delete(platform, shop.call(), shop.app, shop.workspace)
        with pytest.raises(DuplicateKeyError):
            await live(platform.db, shop.workspace["_id"])


async def test_a_deletion_that_an_open_changeset_refuses_leaves_room_for_a_temp_env(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await open_changeset(platform.db, shop.workspace["_id"])
        with pytest.raises(DomainError) as refused:
            await delete(platform, shop.call(), shop.app, shop.workspace)
        assert refused.value.details == {"changeset_id": changeset}
        await live(platform.db, shop.workspace["_id"])


async def test_of_deletions_beside_what_comes_and_goes_either_all_are_refused_or_both_places_stay_taken(shop: Shop) -> None:
    """Six deletions, a changeset and a temp env that come and go, all in processes of their own."""

    async def deletes() -> bool:
        async def one(platform: Platform) -> bool:
            try:
                await delete(platform, shop.call(), shop.app, shop.workspace)
            except DomainError as error:
                assert error.code in (ErrorCode.CONFLICT, ErrorCode.NOT_FOUND), error
                return error.code is ErrorCode.NOT_FOUND
            return True

        return await shop.apart(one)

    async def comes_and_goes(kind: str) -> int:
        async def one(platform: Platform) -> int:
            made = 0
            for _ in range(30):
                try:
                    if kind == "temp_envs":
                        added = await live(platform.db, shop.workspace["_id"])
                    else:
                        added = await open_changeset(platform.db, shop.workspace["_id"])
                except DuplicateKeyError:
                    continue
                made += 1
                await platform.db[kind].delete_one({"_id": added})
            return made

        return await shop.apart(one)

    results = await asyncio.gather(*(deletes() for _ in range(6)), comes_and_goes("temp_envs"), comes_and_goes("changesets"))
    async with shop.platform() as platform:
        workspace_id = shop.workspace["_id"]
        temp_env = await platform.db["temp_envs"].find_one({"live_slot": f"workspace:{workspace_id}"})
        changeset = await platform.db["changesets"].find_one({"open_slot": workspace_id})
        deleted = any(results[:6])
        assert [temp_env is not None, changeset is not None] == [deleted, deleted]
        assert (await platform.db["workspaces"].find_one({"_id": workspace_id}) is None) == deleted
