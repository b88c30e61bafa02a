"""The one-document write and its delivery (`durability.md` 3 and 4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conman.store.database import WITH_OUTGOING, Database
from conman.store.outgoing import Written, deliver, sweep, write_owned

AT = "2026-01-31T09:30:00.000Z"


async def insert(db: Database, version: int = 0) -> None:
    await db["changesets"].insert_one({"_id": "cs", "app_id": "app", "owned": {"version": version, "commands": []}})


def audit(number: int) -> dict[str, Any]:
    return {"id": f"event-{number}", "kind": "audit", "doc": {"_id": f"event-{number}", "app_id": None, "action": "submitted"}}


async def write(db: Database, command: str, *, expected: int, outgoing: list[dict[str, Any]] | None = None) -> Written:
    owned = {"version": expected + 1, "commands": [{"id": command, "result": {"n": expected + 1}}]}
    return await write_owned(
        db,
        "changesets",
        "cs",
        owned=owned,
        expected_version=expected,
        command_id=command,
        outgoing=outgoing or [],
        at=AT,
    )


async def test_a_write_sets_the_state_and_what_goes_out_together(db: Database) -> None:
    await insert(db)
    assert (await write(db, "one", expected=0, outgoing=[audit(1)])).status == "saved"
    document = await db["changesets"].find_one({"_id": "cs"})
    assert document is not None
    assert document["owned"]["version"] == 1
    assert [entry["id"] for entry in document["outgoing"]] == ["event-1"]


async def test_a_second_run_of_a_command_finds_the_first_and_writes_nothing(db: Database) -> None:
    await insert(db)
    await write(db, "one", expected=0, outgoing=[audit(1)])
    again = await write(db, "one", expected=0, outgoing=[audit(1)])
    assert again.status == "repeat"
    assert again.document is not None
    assert again.document["owned"]["version"] == 1
    assert len(again.document["outgoing"]) == 1


async def test_a_write_behind_another_command_is_told_to_adopt(db: Database) -> None:
    await insert(db)
    await write(db, "one", expected=0)
    late = await write(db, "two", expected=0)
    assert late.status == "ahead"
    assert late.document is not None
    assert late.document["owned"]["commands"][0]["id"] == "one"


async def test_a_write_to_what_is_gone_is_missing(db: Database) -> None:
    assert (await write(db, "one", expected=0)).status == "missing"


async def test_of_many_writers_at_one_version_exactly_one_wins(db: Database) -> None:
    await insert(db)
    found = await asyncio.gather(*(write(db, f"command-{n}", expected=0) for n in range(16)))
    assert sorted(one.status for one in found) == ["ahead"] * 15 + ["saved"]


async def test_delivery_repeated_after_a_crash_changes_nothing(db: Database) -> None:
    await insert(db)
    written = await write(db, "one", expected=0, outgoing=[audit(1), audit(2)])
    assert written.document is not None
    assert await deliver(db, "changesets", written.document) == 2
    assert await deliver(db, "changesets", written.document) == 2
    assert await db["audit"].count_documents({}) == 2
    document = await db["changesets"].find_one({"_id": "cs"})
    assert document is not None
    assert document["outgoing"] == []


async def test_delivery_leaves_entries_that_came_later(db: Database) -> None:
    await insert(db)
    first = await write(db, "one", expected=0, outgoing=[audit(1)])
    await write(db, "two", expected=1, outgoing=[audit(2)])
    assert first.document is not None
    await deliver(db, "changesets", first.document)
    document = await db["changesets"].find_one({"_id": "cs"})
    assert document is not None
    assert [entry["id"] for entry in document["outgoing"]] == ["event-2"]


async def test_a_job_that_has_ended_stays_as_it_ended(db: Database) -> None:
    await insert(db)
    job = {"_id": "job", "state": "queued", "version": 1}
    entries = [
        {"id": "a", "kind": "job", "doc": job},
        {"id": "b", "kind": "job_start", "job_id": "job", "doc": {"state": "running"}},
        {"id": "c", "kind": "job_end", "job_id": "job", "doc": {"state": "succeeded"}},
        {"id": "d", "kind": "job_end", "job_id": "job", "doc": {"state": "canceled"}},
        {"id": "e", "kind": "job_start", "job_id": "job", "doc": {"state": "running"}},
    ]
    written = await write(db, "one", expected=0, outgoing=entries)
    assert written.document is not None
    await deliver(db, "changesets", written.document)
    found = await db["jobs"].find_one({"_id": "job"})
    assert found is not None
    assert found["state"] == "succeeded"


@pytest.mark.parametrize("collection", WITH_OUTGOING)
async def test_the_sweep_finds_what_a_crash_left_in_every_collection(db: Database, collection: str) -> None:
    document: dict[str, Any] = {"_id": "x", "outgoing": [audit(7)]}
    unique = {"apps": ("name", "repo_path"), "users": ("email",)}
    await db[collection].insert_one(document | {name: "x" for name in unique.get(collection, ())})
    assert await sweep(db) == 1
    assert await sweep(db) == 0
    assert await db["audit"].count_documents({"_id": "event-7"}) == 1
