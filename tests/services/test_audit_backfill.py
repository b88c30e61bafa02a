"""Records that have no event get that of their beginning, once (`spec.md` 14)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from conman.domain.audit import FIRST_ACTIONS
from conman.domain.ids import derived_uuid7
from conman.domain.times import later, milliseconds
from conman.services import audit_backfill
from conman.services.audit_backfill import KINDS, SETTLES, backfill
from conman.store.database import Database

MADE = "2026-01-31T09:30:00.000Z"
AT = "2026-02-01T00:00:00.000Z"
APP, OTHER, ANN = (derived_uuid7(milliseconds(MADE), name) for name in ("app", "other", "ann"))


async def _comments(db: Database, *names: str, app_id: str = APP, made: str = MADE, **fields: Any) -> list[str]:
    """Comments, which show that all kinds are treated alike; their ids."""
    ids = [derived_uuid7(milliseconds(MADE), "comment", name) for name in names]
    common = {"app_id": app_id, "changeset_id": ANN, "body": "so be it", "created_at": made, "created_by": ANN, **fields}
    await db["comments"].insert_many([{"_id": one, **common} for one in ids])
    return ids


async def test_a_record_without_an_event_gets_the_one_of_its_beginning_and_says_when_it_was_written(db: Database) -> None:
    (comment,) = await _comments(db, "one")
    assert await backfill(db, AT) == {"comment": 1}
    (event,) = await db["audit"].find().to_list()
    assert (event["entity_id"], event["action"], event["actor_user_id"], event["occurred_at"]) == (comment, "created", ANN, MADE)
    assert event["after"] == {"changeset_id": ANN, "body": "so be it", "backfilled_at": AT}
    assert event["app_id"] == APP


async def test_twice_or_two_at_once_add_it_once(db: Database) -> None:
    await _comments(db, "one", "two")
    await asyncio.gather(*(backfill(db, AT) for _ in range(3)))
    assert await db["audit"].count_documents({}) == 2
    assert await backfill(db, later(AT, timedelta(days=1))) == {}


async def test_an_event_whose_run_died_before_it_waited_for_its_seal_waits_after_the_next_one(db: Database) -> None:
    await _comments(db, "one")
    await backfill(db, AT)
    (event,) = await db["audit"].find().to_list()
    await db["audit_unsealed"].delete_many({})
    assert await backfill(db, AT) == {}
    assert [row["_id"] async for row in db["audit_unsealed"].find()] == [event["_id"]]
    await db["audit_unsealed"].delete_many({})
    await db["audit_seals"].insert_one({"_id": event["_id"], "chain": APP, "seq": 1})
    await backfill(db, AT)
    assert await db["audit_unsealed"].count_documents({}) == 0


async def test_what_has_any_event_or_one_on_its_way_or_is_in_the_making_is_left_alone(db: Database) -> None:
    known, on_the_way, young, old = (
        *await _comments(db, "known"),
        *await _comments(db, "on the way", outgoing=[{"id": "x", "kind": "audit", "doc": {}}]),
        *await _comments(db, "young", made=later(AT, -SETTLES + timedelta(seconds=1))),
        *await _comments(db, "old", made=later(AT, -SETTLES)),
    )
    await db["audit"].insert_one({"_id": "x", "entity_type": "comment", "entity_id": known, "action": "edited"})
    # What another entity of the same id did is none of its own.
    await db["audit"].insert_one({"_id": "y", "entity_type": "queue", "entity_id": old, "action": "reordered"})
    assert await backfill(db, AT) == {"comment": 1}
    made = await db["audit"].find({"action": "created"}).to_list()
    assert [event["entity_id"] for event in made] == [old]
    assert {on_the_way, young} & {event["entity_id"] for event in made} == set()


async def test_a_dry_run_counts_and_one_app_is_that_app_alone(db: Database) -> None:
    await _comments(db, "one", "two")
    await _comments(db, "three", app_id=OTHER)
    assert await backfill(db, AT, dry_run=True) == {"comment": 3}
    assert await db["audit"].count_documents({}) == 0
    assert await backfill(db, AT, app_id=OTHER) == {"comment": 1}
    assert await db["audit"].distinct("app_id") == [OTHER]


async def test_pages_follow_each_other_and_progress_is_told(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_backfill, "PAGE", 2)
    await _comments(db, *(str(number) for number in range(5)))
    seen: list[tuple[int, int]] = []
    assert await backfill(db, AT, progress=lambda done, total: seen.append((done, total))) == {"comment": 5}
    assert seen == [(2, 5), (4, 5), (5, 5)]


async def test_a_record_that_the_audit_can_not_show_is_named(db: Database) -> None:
    (comment,) = await _comments(db, "odd", body=7)
    with pytest.raises(ValueError, match=comment):
        await backfill(db, AT)


def test_every_kind_with_a_beginning_is_looked_at() -> None:
    assert {kind.entity_type for kind in KINDS} == set(FIRST_ACTIONS)
