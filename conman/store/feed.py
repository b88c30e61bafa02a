"""The feed of an app: a log of what has happened in it, one document per event (docs/adr/0034-a-feed-beside-the-records.md).

Events are numbered from 1 without a gap. A document's id is its app and its number, and nobody writes a number before the one
ahead of it is there: whoever finds its number taken looks where the log ends now, and goes on behind that. So a reader who has
seen number 17 has seen all up to it, and needs no more than that number to go on, in whatever process it reads.

Documents are looked up by their whole ids, which cost the same in a log of any length on each server; a range of ids does not.
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
from conman.store.database import Database, Document, only_duplicates

COLLECTION = "feed"

TRUSTED_SECONDS = 60.0
"""How long a writer goes on from the end that its process saw last. Far less than events are kept: else the number behind it
might be one that others have passed, and that was removed since.
"""


@dataclass(slots=True)
class _End:
    """Where one app's log ends, as this process saw it. Its writers here take turns; others are met in the log."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    seen: int = 0
    at: float = -TRUSTED_SECONDS

    def is_at(self, seq: int) -> int:
        if seq >= self.seen:
            self.seen, self.at = seq, time.monotonic()
        return seq

    async def for_writing(self, db: Database, app_id: str) -> int:
        return self.seen if time.monotonic() - self.at < TRUSTED_SECONDS else await newest(db, app_id)


_ends: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, str, str], _End]] = WeakKeyDictionary()


def _end_of(db: Database, app_id: str) -> _End:
    ends = _ends.setdefault(asyncio.get_running_loop(), {})
    return ends.setdefault((id(db.client), db.name, app_id), _End())


def _id(app_id: str, seq: int) -> str:
    return f"{app_id}:{seq:012d}"


async def tell(db: Database, events: Sequence[FeedEvent]) -> None:
    """Put events at the end of their apps' feeds, in this order; one that stands there already is not put there again."""
    for app_id in dict.fromkeys(event.app_id for event in events):
        end = _end_of(db, app_id)
        async with end.turn:
            await _tell(db, app_id, end, [event for event in events if event.app_id == app_id])


async def tell_jobs(db: Database, job_ids: Sequence[str], *, made: Sequence[Document] = ()) -> None:
    """Tell how jobs stand now, as their records show it, and of those that were `made` as they are.

    A version that was told is not told again.
    """
    found: dict[str, Document] = {}
    if job_ids:
        wanted = dict.fromkeys((*JOB_FIELDS, "app_id"), 1)
        found = {job["_id"]: job async for job in db["jobs"].find({"_id": {"$in": list(job_ids)}}, wanted)}
    jobs = [*made, *(found[job_id] for job_id in dict.fromkeys(job_ids) if job_id in found)]
    await tell(db, [told_of_job(job) for job in jobs if job.get("app_id") is not None])


async def _tell(db: Database, app_id: str, end: _End, events: list[FeedEvent]) -> None:
    told_at = format_time(datetime.now(UTC))
    last = await end.for_writing(db, app_id)
    while events:
        rows: list[Document] = [
            {"_id": _id(app_id, seq), "seq": seq, "told_at": told_at, **event.document()}
            for seq, event in enumerate(events, start=last + 1)
        ]
        try:
            await db[COLLECTION].insert_many(rows, ordered=True)
        except BulkWriteError as error:
            done = _taken(error)
            last, events = last + done, events[done:]
            there = await db[COLLECTION].find_one({"_id": rows[done]["_id"]}, {"event_id": 1})
            if there is not None and there["event_id"] != events[0].id:
                last = await _end_behind(db, app_id, last + 1)  # somebody else's event has the number
            else:
                events = events[1:]  # told before: by a run that was given up, or by whoever delivers the same beside
        else:
            last, events = last + len(events), []
        end.is_at(last)
    fault_point("feed.told")


def _taken(error: BulkWriteError) -> int:
    """The row at which an insert stopped, since its number or its event is there already. Raises what is another refusal."""
    [refused] = only_duplicates(error)  # an ordered insert stops at the first
    return refused["index"]


async def newest(db: Database, app_id: str) -> int:
    """The number of the last event, 0 where there has been none."""
    end = _end_of(db, app_id)
    if end.seen and await _is_there(db, app_id, end.seen):
        return end.is_at(await _end_behind(db, app_id, end.seen))
    of_app = {"_id": {"$gt": f"{app_id}:", "$lt": f"{app_id};"}}
    last = await db[COLLECTION].find_one(of_app, {"seq": 1}, sort=[("_id", DESCENDING)])
    return end.is_at(int(last["seq"]) if last is not None else 0)


async def _end_behind(db: Database, app_id: str, there: int) -> int:
    """The last number, from one that is there: in steps that double, then by halves, since no number is left out."""
    step = 1
    while await _is_there(db, app_id, there + step):
        there, step = there + step, step * 2
    while step > 1:
        step //= 2
        if await _is_there(db, app_id, there + step):
            there += step
    return there


async def _is_there(db: Database, app_id: str, seq: int) -> bool:
    return await db[COLLECTION].find_one({"_id": _id(app_id, seq)}, {"_id": 1}) is not None


async def can_go_on(db: Database, app_id: str, after: int) -> bool:
    """Whether all that came after event number `after` is still kept, and there has been such an event; 0 is the beginning."""
    for seq in (after + 1, after):  # the next one, or it is itself the last, which is never removed
        if await _is_there(db, app_id, seq):
            return True
    return after == 0 == await newest(db, app_id)


async def read(db: Database, app_id: str, after: int, limit: int) -> list[Document]:
    """The next events behind number `after`, at most `limit`; none where the next one is not there, or no longer."""
    if limit > 1 and not await _is_there(db, app_id, after + 1):
        return []  # mostly so
    ids = [_id(app_id, seq) for seq in range(after + 1, after + limit + 1)]
    rows = await db[COLLECTION].find({"_id": {"$in": ids}}).sort([("_id", ASCENDING)]).to_list()
    return [row for seq, row in enumerate(rows, start=after + 1) if row["seq"] == seq]


async def forget(db: Database, before: str) -> int:
    """Remove events that were told before a time; how many. The last one of an app stays: the next one counts on from it.

    Only the oldest ones go, up to the first that is not old: clocks of processes differ, and a hole would look like the end.
    """
    gone = 0
    for app_id in await db[COLLECTION].distinct("app_id", {"told_at": {"$lt": before}}):
        last = _id(app_id, await newest(db, app_id))
        of_app = {"$gt": f"{app_id}:", "$lt": last}
        young = {"_id": of_app, "told_at": {"$gte": before}}
        first = await db[COLLECTION].find_one(young, {"_id": 1}, sort=[("_id", ASCENDING)])
        removed = await db[COLLECTION].delete_many({"_id": {**of_app, "$lt": first["_id"] if first is not None else last}})
        gone += removed.deleted_count
        # Without its time it is no reason to look at this app again before another event has become old.
        await db[COLLECTION].update_one({"_id": last, "told_at": {"$lt": before}}, {"$unset": {"told_at": ""}})
    return gone


def shown(row: Document) -> dict[str, Any]:
    """An event as clients get it. Its `id` is its number, as text: where to go on."""
    hidden = ("_id", "seq", "event_id", "app_id", "told_at")
    return {"id": str(row["seq"]), **{name: value for name, value in row.items() if name not in hidden}}
