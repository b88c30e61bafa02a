"""Copying a base database to a clone, collection by collection (`spec.md` 13, docs/adr/0030-how-a-database-is-cloned.md).

A collection is filled under another name and put in its place when it is whole, indexes and all. So what an attempt that died
left is known: what is in place is finished. The server copies by itself where it can (`$out`, else `$merge`); where it can't, the
documents come through here in the order of their ids, and the next attempt goes on after the last one that arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from conman.domain.clone import OWN_PREFIX
from conman.faults import fault_point
from conman.services.clone_database import CloneDatabase, Filled, problem_of, raw_collection
from conman.services.clone_source import CollectionPlan, documents, last_of
from conman.store.database import Document

log = structlog.get_logger(__name__)

Tell = Callable[[int, int, str], Awaitable[None]]
"""Shows how far it is: documents done, documents in all, and what is under way."""

LONGEST_COMMAND_MS: Final = 15 * 60_000
"""How long a server may copy one collection by itself; then it gives up."""


class Means(StrEnum):
    """How a collection is filled, the best first."""

    OUT = "out"
    MERGE = "merge"
    STREAM = "stream"


class Copy:
    """One attempt at copying; `same_server`: the base's server is the clone's, and may copy by itself."""

    def __init__(
        self, source: AsyncDatabase[Document], clone: CloneDatabase, *, batch: int, same_server: bool, tell: Tell
    ) -> None:
        self.source = source
        self.clone = clone
        self.batch = batch
        self.tell = tell
        self._means = list(Means) if same_server else [Means.STREAM]
        self._done = 0
        self._total = 0

    async def run(self, plans: list[CollectionPlan]) -> Filled:
        """Copy what is not in place yet. Raises `CloneError`, also when another attempt has taken the clone."""
        self._total = sum(plan.documents for plan in plans)
        doing = "the collections of the clone were listed"
        try:
            there = await self.clone.collections()
            mark = await self.clone.mark() or {}
            unfinished = mark.get("unfinished")
            self._means = [means for means in self._means if means.value not in mark.get("refused", [])]
            for plan in plans:
                doing = f"{plan.name!r} was copied"
                if plan.name not in there or plan.name == unfinished:
                    await self._copy(plan, fresh=plan.name not in there)
                    fault_point("clone.collection")
                self._done += plan.documents
                await self.tell(self._done, self._total, f"copied {plan.name}")
        except PyMongoError as error:
            raise problem_of(error, doing) from None
        return Filled("copied", sum(not plan.is_view for plan in plans), self._done)

    async def _copy(self, plan: CollectionPlan, *, fresh: bool) -> None:
        if plan.is_view:
            await self.clone.create(plan.name, plan.options)
        elif plan.can_be_renamed:
            staging = staging_name(plan.name)
            await self._fill(plan, staging)
            await self.clone.index(staging, plan.indexes)
            await self.clone.still_mine()
            await self.clone.rename(staging, plan.name)
        else:
            await self.clone.note(unfinished=plan.name)
            if not fresh:
                await self.clone.drop_collection(plan.name)
            await self.clone.create(plan.name, plan.options)
            await self._stream(plan, plan.name)
            await self.clone.index(plan.name, plan.indexes)
            await self.clone.note(unfinished=None)

    async def _fill(self, plan: CollectionPlan, staging: str) -> None:
        there = await self.clone.collections()
        for means in list(self._means):
            if plan.in_natural_order and means is not Means.STREAM:
                continue
            streams = means is Means.STREAM and not plan.in_natural_order
            goes_on = streams and staging in there and await self._was_streamed(staging)
            if not goes_on:
                await self.clone.drop_collection(staging)
                await self.clone.create(staging, plan.options)
            await self.clone.note(staged={"collection": staging, "means": means.value})
            if means is Means.STREAM:
                await self._stream(plan, staging)
                break
            try:
                await self._by_the_server(plan, staging, means)
            except OperationFailure as error:
                log.info("server_does_not_copy", means=means.value, code=error.code, clone=self.clone.name)
                self._means.remove(means)
                await self.clone.note(refused=[one.value for one in Means if one not in self._means])
            else:
                break

    async def _was_streamed(self, staging: str) -> bool:
        staged: Document = (await self.clone.mark() or {}).get("staged") or {}
        return staged == {"collection": staging, "means": Means.STREAM.value}

    async def _by_the_server(self, plan: CollectionPlan, staging: str, means: Means) -> None:
        into = {"db": self.clone.name, "coll": staging}
        stage: Document = (
            {"$out": into}
            if means is Means.OUT
            else {"$merge": {"into": into, "on": "_id", "whenMatched": "replace", "whenNotMatched": "insert"}}
        )
        await self.tell(self._done, self._total, f"the server copies {plan.name}")
        await self.source[plan.name].aggregate(
            [stage], maxTimeMS=LONGEST_COMMAND_MS, bypassDocumentValidation=True, comment=f"conman {self.clone.name}"
        )

    async def _stream(self, plan: CollectionPlan, to: str) -> None:
        after = None if plan.in_natural_order else await last_of(self.clone.raw(to))
        read = raw_collection(self.source, plan.name)
        arrived = 0 if after is None else await self.clone.raw(to).estimated_document_count()
        async for batch in documents(read, plan, self.batch, after=after):
            await self.clone.still_mine()
            await self.clone.insert(to, batch, ordered=plan.in_natural_order)
            fault_point("clone.batch")
            arrived += len(batch)
            await self.tell(self._done + arrived, self._total, f"copies {plan.name}")


def staging_name(collection: str) -> str:
    """Under which name a collection is filled; short, since MongoDB bounds the length of names."""
    return f"{OWN_PREFIX}.{hashlib.sha256(collection.encode()).hexdigest()[:16]}"
