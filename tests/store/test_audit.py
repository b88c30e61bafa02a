"""The audit's writer adds events and touches none that is there (`spec.md` 14)."""

from __future__ import annotations

from conman.store import audit
from conman.store.database import Database


async def test_an_event_that_is_there_stays_as_it_is_and_those_beside_it_are_added(db: Database) -> None:
    await audit.append(db, [{"_id": "b", "app_id": "app", "action": "first", "git_sha": "f"}])
    await audit.append(db, [{"_id": name, "app_id": "app", "action": "again"} for name in "abc"])
    await audit.append(db, [])
    found = await db["audit"].find().sort("_id").to_list()
    assert [(event["_id"], event["action"]) for event in found] == [("a", "again"), ("b", "first"), ("c", "again")]
    assert found[1]["git_sha"] == "f"
