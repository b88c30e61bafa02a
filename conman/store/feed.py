"""The feed of an app: a log of what has happened in it, one document per event (docs/adr/0034-a-feed-beside-the-records.md).

Events are numbered from 1 without a gap. A document's id is its app and its number, and nobody writes a number before the one
ahead of it is there: whoever finds its number taken looks where the log ends now, and goes on behind that. So a reader who has
seen number 17 has seen all up to it, and needs no more than that number to go on, in whatever process it reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError

from conman.domain.feed import JOB_FIELDS, FeedEvent, told_of_job
from conman.domain.times import format_time
from conman.faults import fault_point
from conman.store.database import Database, Document

COLLECTION = "feed"
DUPLICATE = 11000
"""MongoDB's code for a key that is there already."""
REMEMBERED_SECONDS = 60.0
"""How long a process trusts its knowledge of where a log ends. Far less than events are kept: its next number can't be one that
others have passed and that was removed since."""


@dataclass(slots=True)
class _End:
    """Where one app's log ends, as this process knows. Its writers here take turns; others are met in the log."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    seq: int | None = None
    known_at: float = 0.0

    async def last(self, db: Database, app_id: str) -> int:
        if self.seq is None or time.monotonic() - self.known_at > REMEMBERED_SECONDS:
            self.found(await newest(db, app_id))
        return self.seq or 0

    def found(self, seq: int | None) -> None:
        self.seq, self.known_at = seq, time.monotonic()


_ends: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, str, str], _End]] = WeakKeyDictionary()


def _end_of(db: Database, app_id: str) -> _End:
    ends = _ends.setdefault(asyncio.get_running_loop(), {})
    return ends.setdefault((id(db.client), db.name, app_id), _End())


def _id(app_id: str, seq: int) -> str:
    return f"{app_id}:{seq:012d}"


def _of_app(app_id: str, *, after: int = 0) -> Document:
    return {"_id": {"$gt": _id(app_id, after), "$lt": f"{app_id};"}}


async def tell(db: Database, events: Sequence[FeedEvent]) -> None:
    """Put events at the end of their apps' feeds, in this order; one that stands there already is not put there again."""
    for app_id in dict.fromkeys(event.app_id for event in events):
        await _tell(db, app_id, [event for event in events if event.app_id == app_id])


async def tell_jobs(db: Database, job_ids: Sequence[str]) -> None:
    """Tell how jobs stand now, as their records show it; a version that was told is not told again."""
    wanted = dict.fromkeys((*JOB_FIELDS, "app_id"), 1)
    found = {job["_id"]: job async for job in db["jobs"].find({"_id": {"$in": list(job_ids)}, "app_id": {"$ne": None}}, wanted)}
    await tell(db, [told_of_job(found[job_id]) for job_id in dict.fromkeys(job_ids) if job_id in found])


async def _tell(db: Database, app_id: str, events: list[FeedEvent]) -> None:
    end = _end_of(db, app_id)
    told_at = format_time(datetime.now(UTC))
    async with end.turn:
        while events:
            last = await end.last(db, app_id)
            rows: list[Document] = [
                {"_id": _id(app_id, seq), "seq": seq, "told_at": told_at, **event.document()}
                for seq, event in enumerate(events, start=last + 1)
            ]
            try:
                await db[COLLECTION].insert_many(rows, ordered=True)
            except BulkWriteError as error:
                end.found(None)
                refused = error.details or {}
                if refused.get("writeConcernErrors") or any(one["code"] != DUPLICATE for one in refused.get("writeErrors", [])):
                    raise
                # Another's event has the number, or one was told before, by a run that was given up or a deliverer beside.
                told = await db[COLLECTION].distinct("event_id", {"event_id": {"$in": [event.id for event in events]}})
                events = [event for event in events if event.id not in told]
            except BaseException:
                end.found(None)
                raise
            else:
                end.found(last + len(events))
                events = []
    fault_point("feed.told")


async def newest(db: Database, app_id: str) -> int:
    """The number of the last event, 0 where there has been none."""
    last = await db[COLLECTION].find_one(_of_app(app_id), {"seq": 1}, sort=[("_id", DESCENDING)])
    return int(last["seq"]) if last is not None else 0


async def can_go_on(db: Database, app_id: str, after: int) -> bool:
    """Whether all that came after event number `after` is still kept, and there has been such an event."""
    first = await db[COLLECTION].find_one(_of_app(app_id), {"seq": 1}, sort=[("_id", ASCENDING)])
    oldest = int(first["seq"]) if first is not None else 1
    return oldest - 1 <= after <= await newest(db, app_id)


async def read(db: Database, app_id: str, after: int, limit: int) -> list[Document]:
    """The next events behind number `after`, at most `limit`."""
    return await db[COLLECTION].find(_of_app(app_id, after=after)).sort([("_id", ASCENDING)]).limit(limit).to_list()


async def forget(db: Database, before: str) -> int:
    """Remove events that were told before a time; how many. The last one of an app stays: the next one counts on from it."""
    gone = 0
    for app_id in await db[COLLECTION].distinct("app_id", {"told_at": {"$lt": before}}):
        last = _id(app_id, await newest(db, app_id))
        old: Document = {"$or": [{"told_at": {"$lt": before}}, {"told_at": {"$exists": False}}]}
        gone += (
            await db[COLLECTION].delete_many({**_of_app(app_id), "_id": {"$gt": f"{app_id}:", "$lt": last}, **old})
        ).deleted_count
        # Without its time it is no reason to look at this app again before another event has become old.
        await db[COLLECTION].update_one({"_id": last, "told_at": {"$lt": before}}, {"$unset": {"told_at": ""}})
    return gone


def shown(row: Document) -> dict[str, Any]:
    """An event as clients get it. Its `id` is its number, as text: where to go on."""
    hidden = ("_id", "seq", "event_id", "app_id", "told_at")
    return {"id": str(row["seq"]), **{name: value for name, value in row.items() if name not in hidden}}
