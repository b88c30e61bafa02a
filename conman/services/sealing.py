"""Events get their places in the chains of the audit, behind the back of those who write them (`spec.md` 14).

`audit_unsealed` {_id: event id, app_id} is what waits, `audit_seals` {_id: event id, chain, seq, previous_hash, content, hash}
what has its place, and `audit_chains` {_id: chain, seq, hash, sealed_at, noted, anchored, pending, rebuilt_at?, rebuilt_seq?}
where each chain stands. Events themselves are never written again. docs/adr/0035-the-audit-is-a-chain.md
"""

from __future__ import annotations

from time import monotonic
from typing import cast

import structlog
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.errors import BulkWriteError

from conman.domain.decision import Actor, Event
from conman.domain.ids import derived_uuid7
from conman.domain.outgoing import audit_entry
from conman.domain.sealing import GENESIS, PLATFORM, Batch, batch_of, chain_of, is_noted, is_sealable, plan, seal_of
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.store.database import Database, Document, only_duplicates
from conman.store.outgoing import deliver

log = structlog.get_logger(__name__)

CHAINS = "audit_chains"
SEALS = "audit_seals"
UNSEALED = "audit_unsealed"

BATCH = 500
"""How many events are sealed by one write of their chain's head."""


class ChainBroken(Exception):
    """The next place of a chain is taken by a seal that no sealing made: nothing is sealed there until somebody has looked."""


async def seal_all(db: Database, at: str, *, seconds: float = 20) -> int:
    """Seal what waits, for at most about so many seconds: what is left then goes on next time. Returns how many events."""
    ends_at = monotonic() + seconds
    sealed, after = 0, ""
    while monotonic() < ends_at:
        page = db[UNSEALED].find({"_id": {"$gt": after}}).sort([("_id", ASCENDING)]).limit(BATCH)
        waiting = await page.to_list()
        chains: dict[str, list[str]] = {}
        # By the event's own app, which is sealed with it: what only lists it may be changed by anybody.
        events = db["audit"].find({"_id": {"$in": [row["_id"] for row in waiting]}}, {"app_id": 1})
        async for event in events:
            chains.setdefault(chain_of(event.get("app_id")), []).append(event["_id"])
        for chain, ids in chains.items():
            try:
                sealed += await _seal(db, chain, ids, at)
            except (ChainBroken, KeyError, TypeError, ValueError) as error:  # a head that no sealing made; the other chains go on
                log.error("audit_chain_broken", chain=chain, problem=f"{type(error).__name__}: {error}")
        if len(waiting) < BATCH:
            break
        after = waiting[-1]["_id"]
    return sealed


async def _seal(db: Database, chain: str, ids: list[str], at: str) -> int:
    """Seal these events of one chain; those that somebody else has sealed meanwhile only wait no more."""
    while True:
        # The head first: what is read after it has no seal by then, unless the head has moved, and then its write is refused.
        head = await _standing(db, chain, at)
        there = {row["_id"] async for row in db[SEALS].find({"_id": {"$in": ids}}, {"_id": 1})}
        found = [event async for event in db["audit"].find({"_id": {"$in": [one for one in ids if one not in there]}})]
        await _wait_no_more(db, list(there))
        events = [event for event in found if is_sealable(event)]
        if len(events) < len(found):  # they wait for ever, which the doctor tells, and hold up nothing
            log.error("audit_events_not_sealable", chain=chain, event_ids=[str(one["_id"]) for one in found if one not in events])
        if not events:
            return 0
        batch = plan(chain, head["seq"], head["hash"], events, at)
        written = await db[CHAINS].update_one(
            {"_id": chain, "seq": head["seq"], "hash": head["hash"], "pending": None}, {"$set": {"pending": batch.document()}}
        )
        if written.modified_count == 0:
            continue
        fault_point("seal.intended")
        await _finish(db, {**head, "pending": batch.document()})
        return len(events)


async def _wait_no_more(db: Database, ids: list[str]) -> None:
    if ids:
        await db[UNSEALED].delete_many({"_id": {"$in": ids}})


async def _standing(db: Database, chain: str, at: str) -> Document:
    """A chain's head at rest: what another sealer has begun is finished first."""
    head = await db[CHAINS].find_one({"_id": chain})
    while head is None or head["pending"] is not None:
        if head is None:
            head = await _new_head(db, chain, at)
        else:
            await _finish(db, head)
            head = await db[CHAINS].find_one({"_id": chain})
    return head


async def _new_head(db: Database, chain: str, at: str) -> Document:
    """The head of a new chain; of one whose head is gone it goes on behind the last seal, and says so for ever."""
    first: Document = {"seq": 0, "hash": GENESIS, "sealed_at": None, "noted": {"at": at}, "anchored": None, "pending": None}
    last = await db[SEALS].find({"chain": chain, "seq": {"$gte": 1}}).sort([("seq", DESCENDING)]).limit(1).to_list()
    if last:
        log.error("audit_chain_head_rebuilt", chain=chain, seq=last[0]["seq"])
        first |= {"seq": last[0]["seq"], "hash": last[0]["hash"], "rebuilt_at": at, "rebuilt_seq": last[0]["seq"]}
    found = await db[CHAINS].find_one_and_update(
        {"_id": chain}, {"$setOnInsert": {**first, "outgoing": []}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    return cast("Document", found)  # an upsert that returns the document after it always finds one


async def _finish(db: Database, head: Document) -> None:
    """Carry out what is recorded at a chain's head; each step may be repeated, by several at once."""
    batch = batch_of(head["pending"])
    made = batch.seals
    try:
        await db[SEALS].insert_many([seal.document() for seal in made], ordered=False)
    except BulkWriteError as error:
        await _check_duplicates(db, batch, error)
    fault_point("seal.kept")
    change: Document = {"seq": made[-1].seq, "hash": made[-1].hash, "sealed_at": batch.at, "pending": None}
    update: Document = {"$set": change}
    if is_noted(batch, head["noted"]["at"]):
        after = {"sealed_to": made[-1].seq, "hash": made[-1].hash}
        change["noted"] = {"at": batch.at, **after}
        update["$push"] = {"outgoing": _note(head, batch, after)}
    written = await db[CHAINS].find_one_and_update(
        {"_id": batch.chain, "seq": head["seq"], "pending.first": batch.first}, update, return_document=ReturnDocument.AFTER
    )
    fault_point("seal.advanced")
    await _wait_no_more(db, list(batch.ids))
    if written is not None:
        await deliver(db, CHAINS, written)


async def _check_duplicates(db: Database, batch: Batch, error: BulkWriteError) -> None:
    """Seals that are there already are this batch's own, by an attempt before this one. Raises the error for all else."""
    only_duplicates(error)
    kept = {row["_id"]: row async for row in db[SEALS].find({"_id": {"$in": list(batch.ids)}})}
    if any(seal.event_id not in kept or seal_of(kept[seal.event_id]) != seal for seal in batch.seals):
        raise ChainBroken(f"there are other seals from {batch.first} on: verify the audit") from error


def _note(head: Document, batch: Batch, after: Document) -> Document:
    """`audit.sealed`: up to where the chain is sealed, beside where it said so last."""
    known = {name: head["noted"][name] for name in ("sealed_to", "hash") if name in head["noted"]}
    count = after["sealed_to"] - known.get("sealed_to", 0)
    event = Event("audit", batch.chain, "sealed", before=known or None, after={**after, "count": count})
    app_id = None if batch.chain == PLATFORM else batch.chain
    event_id = derived_uuid7(milliseconds(batch.at), "audit-sealed", batch.chain, str(after["sealed_to"]))
    return audit_entry(event_id, event, app_id=app_id, actor=Actor(), at=batch.at)


async def seals_of(db: Database, event_ids: list[str]) -> dict[str, Document]:
    """Event id → its seal, of those that are sealed."""
    return {row["_id"]: row async for row in db[SEALS].find({"_id": {"$in": event_ids}})}
