"""The audit as JSON lines, oldest first, for keeping it elsewhere (`spec.md` 14 and 15)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from pymongo import ASCENDING

from conman.domain.ids import first_id_of, is_uuid
from conman.domain.sealing import content_of
from conman.domain.times import milliseconds
from conman.services.audit_log import show_seals
from conman.store.database import Database, Document

PAGE = 500
_BEGINS = b'{"id":"'


def query_of(
    *, app_id: str | None, everything: bool, earliest: str | None, latest: str | None, after: str | None, equal: Document
) -> Document:
    """What is exported: of one app, of none (`app_id` None), or `everything`; both ends of the span of time are in.

    An event's id carries its time, so that a span of time is a range of ids. Raises `ValueError` for a time or an id that is
    none.
    """
    bounds: Document = {}
    if earliest is not None:
        bounds["$gte"] = first_id_of(milliseconds(earliest))
    if latest is not None:
        bounds["$lt"] = first_id_of(milliseconds(latest) + 1)
    if after is not None:
        if not is_uuid(after):
            raise ValueError(f"{after!r} is not the id of an event")
        bounds["$gt"] = after
    scope: Document = {} if everything else {"app_id": app_id}
    return {**scope, **{name: value for name, value in equal.items() if value is not None}, **({"_id": bounds} if bounds else {})}


async def lines(db: Database, query: Document, progress: Callable[[int], None]) -> AsyncIterator[bytes]:
    """One line of JSON for each event as it is kept, with its seal where it has one. A page at a time, by id: what is written
    meanwhile with an older id does not shift anything.
    """
    after, done = "", 0
    while True:
        page = db["audit"].find({"$and": [query, {"_id": {"$gt": after}}]}).sort([("_id", ASCENDING)]).limit(PAGE)
        events = await page.to_list()
        await show_seals(db, events)
        for event in events:
            yield json.dumps(content_of(event), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        done += len(events)
        progress(done)
        if len(events) < PAGE:
            return
        after = events[-1]["_id"]


def resume(path: Path) -> str | None:
    """The id of the last event in a file that an earlier export left; a last line that was cut short is taken off.

    Raises `ValueError` for a file that is no export, `OSError`.
    """
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        if not size:
            return None
        block, end = b"", size
        while end > 0 and block.count(b"\n") < 2:
            begin = max(0, end - 65536)
            file.seek(begin)
            block = file.read(end - begin) + block
            end = begin
        whole = block[: block.rfind(b"\n") + 1]
        found = _id_in(whole[:-1].rpartition(b"\n")[2]) if whole else None
        if found is None and (whole or block[: len(_BEGINS)] != _BEGINS[: len(block)]):
            raise ValueError(f"{path} is no export of an audit")
        file.truncate(size - len(block) + len(whole))
    return found


def _id_in(line: bytes) -> str | None:
    try:
        event: Any = json.loads(line)
        found = event["id"]
    except (ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, str) and is_uuid(found) else None
