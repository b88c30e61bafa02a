"""What earlier versions kept otherwise is brought into its present form by a start (`conman.store.upgrade`)."""

from __future__ import annotations

from pymongo import ASCENDING

from conman.domain.environment import EnvironmentDefinition
from conman.store.database import Database, ensure_indexes
from conman.store.memberships import of_user


async def test_memberships_of_an_earlier_version_get_their_slot_and_lose_the_index_that_stands_in_its_way(db: Database) -> None:
    await db["memberships"].drop_index("member_slot")
    await db["memberships"].create_index([("app_id", ASCENDING), ("user_id", ASCENDING)], name="app_id_user_id", unique=True)
    await db["memberships"].insert_many([{"_id": f"m{n}", "app_id": "app", "user_id": f"u{n}", "role": "user"} for n in range(3)])

    for _ in range(2):
        await ensure_indexes(db)
        rows = {row["_id"]: row["member_slot"] async for row in db["memberships"].find({})}
        assert rows == {f"m{n}": f"app:u{n}" for n in range(3)}
        names = set(await db["memberships"].index_information())
        assert "member_slot" in names
        assert "app_id_user_id" not in names
    assert [row["role"] for row in await of_user(db, "u1")] == ["user"]


async def test_an_app_of_an_earlier_version_lists_its_environments_in_stage_order(db: Database) -> None:
    await db["apps"].insert_many(
        [{"_id": "app", "name": "a", "repo_path": "a.git"}, {"_id": "unready", "name": "b", "repo_path": "b.git"}]
    )
    common = {"app_id": "app", "runtime_profile_id": "p", "deploy_target": "directory"}
    await db["environments"].insert_many(
        [
            {"_id": "e2", "name": "Production", "position": 1, "archived": False, **common},
            {"_id": "e1", "name": "Development", "position": 0, "archived": False, **common},
            {"_id": "e0", "name": "Old", "position": 0, "archived": True, **common},
        ]
    )
    for _ in range(2):
        await ensure_indexes(db)
        app = await db["apps"].find_one({"_id": "app"})
        assert app is not None
        listed = [EnvironmentDefinition.model_validate(one) for one in app["environments"]]
        assert [(one.id, one.name, one.runtime_profile_id) for one in listed] == [
            ("e1", "Development", "p"),
            ("e2", "Production", "p"),
        ]
    unready = await db["apps"].find_one({"_id": "unready"})
    assert unready is not None
    assert "environments" not in unready
