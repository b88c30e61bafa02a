"""The audit's only writer: events are added, and never changed or removed (`spec.md` 14).

docs/adr/0037-the-audit-is-only-added-to.md
"""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.errors import BulkWriteError

from conman.faults import fault_point
from conman.store.database import Database, Document, only_duplicates


async def append(db: Database, events: Sequence[Document]) -> None:
    """Add events. One that is there already stays as it is: a second delivery brings the same.

    Plain inserts, so that a database user without the right to update or remove is enough. Raises `BulkWriteError` for any other
    refusal of the database.
    """
    if not events:
        return
    # First what waits for its seal, which stands apart so that sealing finds it without looking through the audit: then an
    # event that neither has a seal nor waits for one was put there by somebody else, and `verify` may say so at once.
    await _insert_once(db, "audit_unsealed", [{"_id": event["_id"], "app_id": event["app_id"]} for event in events])
    fault_point("audit.listed")
    await _insert_once(db, "audit", events)


async def _insert_once(db: Database, collection: str, documents: Sequence[Document]) -> None:
    try:
        await db[collection].insert_many(documents, ordered=False)
    except BulkWriteError as error:
        only_duplicates(error)
