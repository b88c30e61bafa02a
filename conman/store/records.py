"""Reading, paging and inserting records, and the guarded write of the part that services own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from conman.domain.errors import DomainError, ErrorCode, not_found
from conman.store.database import Database, Document
from conman.store.outgoing import deliver


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: `total` counts all that match."""

    items: list[Document]
    page: int
    limit: int
    total: int


async def find(db: Database, collection: str, record_id: str, *, app_id: str | None = None) -> Document | None:
    """A record by id, in the app when one is given."""
    query: Document = {"_id": record_id}
    if app_id is not None:
        query["app_id"] = app_id
    return await db[collection].find_one(query)


async def get(db: Database, collection: str, record_id: str, *, app_id: str | None = None, what: str = "record") -> Document:
    """As `find`; raises `not_found` naming `what`."""
    document = await find(db, collection, record_id, app_id=app_id)
    if document is None:
        raise not_found(what)
    return document


async def page(
    db: Database,
    collection: str,
    query: Mapping[str, Any],
    *,
    number: int,
    limit: int,
    sort: list[tuple[str, int]] | None = None,
    leave_out: list[str] | None = None,
) -> Page:
    """One page of what matches, newest first (ids are UUIDv7) unless `sort` says otherwise."""
    projection = dict.fromkeys(leave_out, 0) if leave_out else None
    cursor = db[collection].find(dict(query), projection).sort(sort or [("_id", DESCENDING)])
    items = await cursor.skip((number - 1) * limit).limit(limit).to_list()
    return Page(items, number, limit, await db[collection].count_documents(dict(query)))


async def insert_once(db: Database, collection: str, document: Document) -> tuple[Document, bool]:
    """Insert a record with its outgoing entries and deliver them; a repeat by the same id finds the first one.

    Returns the record and whether this call made it. Raises `DuplicateKeyError` when another unique index refuses it.
    """
    try:
        await db[collection].insert_one(document)
        made = document
        fresh = True
    except DuplicateKeyError:
        there = await db[collection].find_one({"_id": document["_id"]})
        if there is None:
            raise
        made, fresh = there, False
    await deliver(db, collection, made)
    return made, fresh


async def update_part(
    db: Database,
    collection: str,
    record_id: str,
    *,
    set_fields: Document,
    at: str,
    outgoing: list[Document],
    expected_version: int | None = None,
    unset: list[str] | None = None,
) -> Document:
    """Change the part of a record that services own, with its audit entries, in one guarded write.

    Raises `stale_write` when `expected_version` is given and no longer the record's, `not_found` when it is gone.
    """
    query: Document = {"_id": record_id}
    if expected_version is not None:
        query["version"] = expected_version
    change: Document = {"$set": {**set_fields, "updated_at": at}, "$inc": {"version": 1}}
    if outgoing:
        change["$push"] = {"outgoing": {"$each": outgoing}}
    if unset:
        change["$unset"] = dict.fromkeys(unset, "")
    document = await db[collection].find_one_and_update(query, change, return_document=ReturnDocument.AFTER)
    if document is None:
        there = await get(db, collection, record_id)
        raise stale(there["version"])
    await deliver(db, collection, document)
    return document


async def write_where(
    db: Database, collection: str, query: Document, change: Document, *, outgoing: list[Document]
) -> Document | None:
    """One write of the record that `query` finds, with what leaves it; None, and nothing written, when it finds none.

    The guard is in `query`, and the version is `change`'s affair: for facts that no reader's PATCH competes with. An empty
    `change` only lets something leave.
    """
    whole = {**change, "$push": {**change.get("$push", {}), "outgoing": {"$each": outgoing}}} if outgoing else change
    document = await db[collection].find_one_and_update(query, whole, return_document=ReturnDocument.AFTER)
    if document is not None:
        await deliver(db, collection, document)
    return document


def stale(version: int) -> DomainError:
    """The refusal of a write against a version that is no longer the record's."""
    return DomainError(
        ErrorCode.STALE_WRITE,
        f"The record is at version {version} now: read it again, then repeat your change.",
        {"version": version},
    )
