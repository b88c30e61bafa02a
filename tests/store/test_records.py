"""Reading, paging, inserting once, and the guarded write of the services' part."""

from __future__ import annotations

import pytest
from pymongo.errors import DuplicateKeyError

from conman.domain.errors import DomainError, ErrorCode
from conman.store import records
from conman.store.database import INDEXES, Database, StoreError, ensure_indexes

AT = "2026-01-31T09:30:00.000Z"


async def test_a_repeat_of_an_insert_finds_the_first(db: Database) -> None:
    made, fresh = await records.insert_once(db, "jobs", {"_id": "one", "app_id": "app", "n": 1})
    again, second = await records.insert_once(db, "jobs", {"_id": "one", "app_id": "app", "n": 2})
    assert (fresh, second) == (True, False)
    assert made["n"] == again["n"] == 1


async def test_another_unique_index_refuses_an_insert(db: Database) -> None:
    await records.insert_once(db, "changesets", {"_id": "one", "open_slot": "ws"})
    with pytest.raises(DuplicateKeyError):
        await records.insert_once(db, "changesets", {"_id": "two", "open_slot": "ws"})


async def test_records_without_the_field_never_collide_in_a_sparse_index(db: Database) -> None:
    await records.insert_once(db, "changesets", {"_id": "one"})
    _, fresh = await records.insert_once(db, "changesets", {"_id": "two"})
    assert fresh


async def test_a_write_against_a_stale_version_is_refused_and_writes_nothing(db: Database) -> None:
    await records.insert_once(db, "changesets", {"_id": "one", "version": 3, "title": "old"})
    with pytest.raises(DomainError) as refused:
        await records.update_part(db, "changesets", "one", set_fields={"title": "new"}, at=AT, outgoing=[], expected_version=2)
    assert refused.value.code is ErrorCode.STALE_WRITE
    assert (await records.get(db, "changesets", "one"))["title"] == "old"
    changed = await records.update_part(
        db, "changesets", "one", set_fields={"title": "new"}, at=AT, outgoing=[], expected_version=3
    )
    assert (changed["title"], changed["version"]) == ("new", 4)


async def test_a_record_of_another_app_is_not_found(db: Database) -> None:
    await records.insert_once(db, "jobs", {"_id": "one", "app_id": "theirs"})
    with pytest.raises(DomainError) as refused:
        await records.get(db, "jobs", "one", app_id="ours", what="job")
    assert refused.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(("number", "limit", "ids"), [(1, 2, ["5", "4"]), (2, 2, ["3", "2"]), (3, 2, ["1"]), (4, 2, [])])
async def test_pages_are_newest_first_and_count_all(db: Database, number: int, limit: int, ids: list[str]) -> None:
    for name in "12345":
        await records.insert_once(db, "jobs", {"_id": name, "app_id": "app"})
    page = await records.page(db, "jobs", {"app_id": "app"}, number=number, limit=limit)
    assert [row["_id"] for row in page.items] == ids
    assert page.total == 5


async def test_every_unique_index_is_there(db: Database) -> None:
    for index in INDEXES:
        if index.unique:
            assert index.name in await db[index.collection].index_information()


async def test_an_index_that_can_not_be_made_stops_the_start(db: Database) -> None:
    await db["apps"].drop_index("name")
    await db["apps"].insert_many([{"_id": "1", "name": "same", "repo_path": "a"}, {"_id": "2", "name": "same", "repo_path": "b"}])
    with pytest.raises(StoreError, match="app names are unique"):
        await ensure_indexes(db)
