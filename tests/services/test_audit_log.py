"""Which events a question about the audit finds, and in which order (`api.md` 3)."""

from __future__ import annotations

from typing import Any

import pytest

from conman.domain.audit import make_event
from conman.domain.errors import DomainError
from conman.domain.ids import derived_uuid7
from conman.domain.times import milliseconds
from conman.services.audit_log import AuditFilter, event_record, find_events
from conman.store.database import Database

ANN, ROB = (derived_uuid7(0, name) for name in ("ann", "rob"))
HOURS = [f"2026-01-31T{hour:02}:00:00.000Z" for hour in range(6)]


async def _written(db: Database) -> list[str]:
    """One event an hour in the app `one`, with one of another app and one of none beside each; the ids of the former."""
    rows: list[dict[str, Any]] = []
    for number, at in enumerate(HOURS):
        for app_id in ("one", "two", None):
            row = {
                "_id": derived_uuid7(milliseconds(at), str(app_id), str(number)),
                "app_id": app_id,
                "occurred_at": at,
                "entity_type": "changeset" if number % 2 else "release",
                "entity_id": f"thing-{number // 2}",
                "action": "created" if number < 4 else "published",
                "actor_user_id": ANN if number % 3 else ROB,
            }
            rows.append(row)
    await db["audit"].insert_many(rows)
    return [row["_id"] for row in rows if row["app_id"] == "one"]


async def _found(db: Database, **wanted: str) -> list[str]:
    page = await find_events(db, "one", AuditFilter(**wanted), number=1, limit=100)
    return [event["_id"] for event in page.items]


async def test_each_field_narrows_and_all_hold_together(db: Database) -> None:
    ids = await _written(db)
    for wanted, places in (
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"entity_type": "release"}, [4, 2, 0]),
        ({"entity_id": "thing-1"}, [3, 2]),
        ({"action": "published"}, [5, 4]),
        ({"actor_user_id": ROB}, [3, 0]),
        ({"entity_type": "release", "action": "created", "actor_user_id": ANN}, [2]),
        ({"entity_id": "nothing"}, []),
        ({"earliest": HOURS[2], "latest": HOURS[3]}, [3, 2]),
        ({"earliest": "2026-01-31T02:00:00.001Z"}, [5, 4, 3]),
        ({"latest": "2026-01-31T03:59:59.999+01:00"}, [2, 1, 0]),
        ({"latest": "1969-12-31T23:00:00Z"}, []),
        ({"earliest": "1969-12-31T23:00:00Z", "latest": HOURS[0]}, [0]),
    ):
        assert await _found(db, **wanted) == [ids[place] for place in places], wanted


async def test_after_the_last_one_seen_the_oldest_come_first_and_none_twice(db: Database) -> None:
    ids = await _written(db)
    seen = [ids[0]]
    while True:
        page = await find_events(db, "one", AuditFilter(after=seen[-1]), number=1, limit=2)
        assert page.total == len(ids) - len(seen)
        if not page.items:
            break
        seen += [event["_id"] for event in page.items]
    assert seen == ids
    assert await _found(db, after=ids[1], latest=HOURS[4], entity_type="release") == [ids[2], ids[4]]


async def test_the_id_of_another_apps_event_is_a_place_in_time_and_shows_nothing_of_it(db: Database) -> None:
    ids = await _written(db)
    (theirs,) = await db["audit"].find({"app_id": "two", "occurred_at": HOURS[3]}).to_list()
    assert set(await _found(db, after=theirs["_id"])) <= set(ids[3:])


async def test_what_belongs_to_no_app_is_a_list_of_its_own(db: Database) -> None:
    await _written(db)
    page = await find_events(db, None, AuditFilter(), number=2, limit=4)
    assert (page.total, [event["app_id"] for event in page.items]) == (len(HOURS), [None, None])


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"entity_type": "nothing"}, "entity_type"),
        ({"action": "exploded"}, "action"),
        ({"entity_type": "app", "action": "submitted"}, "action"),
        ({"actor_user_id": "ann"}, "actor_user_id"),
        ({"after": "the last one"}, "after"),
        ({"earliest": "yesterday"}, "from"),
        ({"latest": "2026-01-31"}, "to"),
        ({"earliest": HOURS[1], "latest": HOURS[0]}, "to"),
    ],
    ids=str,
)
async def test_what_finds_nothing_ever_is_refused_by_its_name(db: Database, wanted: dict[str, str], field: str) -> None:
    with pytest.raises(DomainError) as refused:
        await _found(db, **wanted)
    assert refused.value.details[0]["field"] == field


def test_an_event_shows_the_fields_of_the_contract_and_what_its_seal_says() -> None:
    made = make_event(
        event_id=derived_uuid7(milliseconds(HOURS[0]), "event"),
        occurred_at=HOURS[0],
        entity_type="changeset",
        entity_id=ANN,
        action="withdrawn",
        app_id=ROB,
        before={"state": "draft"},
        after={"state": "withdrawn"},
    ).document()
    shown = event_record({**made, "kept_for_sealing": 1})
    assert shown == {"id": made["_id"], "seq": None, "hash": None, **{name: made[name] for name in made if name != "_id"}}
    assert event_record({**made, "seq": 7, "hash": "f"}) == {**shown, "seq": 7, "hash": "f"}
