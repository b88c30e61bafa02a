"""Events without a seal that should have one, and what waits for a seal and is gone: no place of a chain tells of either.

Whoever writes an event lists it first as one that waits (`store/audit.py`), and it waits until it is sealed. So an event that
does neither was put there by somebody else, or what lists it was taken away. docs/adr/0035-the-audit-is-a-chain.md
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from conman.domain.ids import first_id_of
from conman.domain.seal_check import Problem, ProblemKind
from conman.domain.sealing import PLATFORM
from conman.domain.times import later, milliseconds
from conman.services.sealing import SEALS, UNSEALED
from conman.store.database import Database, Document

PAGE = 2_000

COMES_WITHIN = timedelta(hours=1)
"""Within which time a delivery that was cut short has brought the event that waits: it is repeated every minute."""


async def problems_outside(db: Database, chain: str, at: str, *, most: int) -> list[Problem]:
    """At most about so many problems with what has no place in a chain (`seq` 0)."""
    scope: Document = {"app_id": None if chain == PLATFORM else chain}
    found: list[Problem] = []
    async for ids in _pages(db, "audit", scope, PAGE):
        # What waits before the seals: an event that is sealed in between has its seal before it waits no more.
        known = await _ids(db, UNSEALED, ids)
        known |= await _sealed(db, chain, [one for one in ids if one not in known])
        detail = "It has no seal and does not wait for one: it was put there, or kept from being sealed, behind Conman's back."
        found += [Problem(str(one), 0, ProblemKind.CHANGED, detail) for one in ids if one not in known]
        if len(found) >= most:
            return found
    old = {**scope, "_id": {"$lt": first_id_of(milliseconds(later(at, -COMES_WITHIN)))}}
    async for ids in _pages(db, UNSEALED, old, PAGE):
        known = await _ids(db, "audit", ids)
        known |= await _sealed(db, chain, [one for one in ids if one not in known])
        detail = "It waits for its seal and is gone: it was removed before it was sealed."
        found += [Problem(str(one), 0, ProblemKind.REMOVED, detail) for one in ids if one not in known]
        if len(found) >= most:
            break
    return found


async def _pages(db: Database, collection: str, query: Document, size: int) -> AsyncIterator[list[Any]]:
    page: list[Any] = []
    async for row in db[collection].find(query, {"_id": 1}).batch_size(size):
        page.append(row["_id"])
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


async def _ids(db: Database, collection: str, ids: list[Any]) -> set[Any]:
    return {row["_id"] async for row in db[collection].find({"_id": {"$in": ids}}, {"_id": 1})}


async def _sealed(db: Database, chain: str, ids: list[Any]) -> set[Any]:
    """Those with a place that the walk along the chain looks at."""
    rows = db[SEALS].find({"_id": {"$in": ids}, "chain": chain}, {"seq": 1})
    return {row["_id"] async for row in rows if isinstance(row.get("seq"), int) and row["seq"] >= 1}
