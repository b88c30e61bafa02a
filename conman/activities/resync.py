"""Records that are not what their workflow knows, as after a restored backup: their workflows are told (`durability.md` 20).

A workflow's version is asked by a query, which leaves nothing in its history, and the record is read after the answer: a write
reaches the record first, so one that is lower then is behind, however much is under way. What differs is told `resync`, and the
workflow compares under its lock. docs/adr/0038-a-record-behind-its-workflow.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from pymongo import ASCENDING
from temporalio.client import Client, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.changeset import TERMINAL as CHANGESET_ENDS
from conman.domain.deployment import TERMINAL as DEPLOYMENT_ENDS
from conman.domain.release import OPEN as OPEN_RELEASES
from conman.domain.temp_env import TempEnvState
from conman.store.database import Database, Document
from conman.workflows import options

log = structlog.get_logger(__name__)

A_ROUND = 100
"""Records that one round of upkeep looks at; the next one goes on behind them. Ten thousand take a hundred rounds."""
AT_ONCE = 8
"""Queries under way at once: a workflow that is not in a worker's cache is replayed for its answer."""
PATIENCE = timedelta(seconds=5)
"""How long a query may take; without a worker there is no answer."""
_MARK = "resync"


@dataclass(frozen=True, slots=True)
class _Owned:
    """A collection of records that workflows own parts of, and which of them have one that runs."""

    collection: str
    running: Document
    workflow_id: Callable[[str], str]


OWNED = (
    _Owned("queues", {}, options.queue_workflow),
    _Owned("changesets", {"owned.state": {"$nin": sorted(state.value for state in CHANGESET_ENDS)}}, options.changeset_workflow),
    _Owned(
        "releases",
        {
            "$or": [
                {"owned.state": {"$in": sorted(state.value for state in OPEN_RELEASES)}},
                {"owned.told": False},
                {"owned.publishing": {"$ne": None}},
            ]
        },
        options.release_workflow,
    ),
    _Owned(
        "deployments", {"owned.state": {"$nin": sorted(state.value for state in DEPLOYMENT_ENDS)}}, options.deployment_workflow
    ),
    _Owned("temp_envs", {"owned.state": {"$ne": TempEnvState.DELETED.value}}, options.temp_env_workflow),
)


async def resync_all(db: Database, client: Client) -> int:
    """Compare every record whose workflow may run; returns how many workflows were told that theirs differs.

    Where no worker answers, the workflow is told all the same, and compares when one is there.
    """
    told = 0
    for owned in OWNED:
        after = ""
        while True:
            ids = await _page(db, owned, after, A_ROUND)
            told += await _compare(db, client, owned, ids, tell_the_silent=True)
            if len(ids) < A_ROUND:
                break
            after = ids[-1]
    return told


async def resync_some(db: Database, client: Client) -> int:
    """As `resync_all` for the next `A_ROUND` records: upkeep comes to all of them in time, at a cost that does not grow."""
    mark = await db["upkeep_marks"].find_one({"_id": _MARK}) or {"collection": OWNED[0].collection, "after": ""}
    place = next((number for number, owned in enumerate(OWNED) if owned.collection == mark["collection"]), 0)
    told, left, after = 0, A_ROUND, str(mark["after"])
    for _ in OWNED:
        ids = await _page(db, OWNED[place], after, left)
        told += await _compare(db, client, OWNED[place], ids, tell_the_silent=False)
        left -= len(ids)
        if left == 0:
            after = ids[-1]
            break
        place, after = (place + 1) % len(OWNED), ""
    seen = {"collection": OWNED[place].collection, "after": after}
    await db["upkeep_marks"].update_one({"_id": _MARK}, {"$set": seen}, upsert=True)
    return told


async def _page(db: Database, owned: _Owned, after: str, limit: int) -> list[str]:
    query = {"$and": [owned.running, {"_id": {"$gt": after}}]}
    rows = db[owned.collection].find(query, {"_id": 1}).sort([("_id", ASCENDING)]).limit(limit)
    return [row["_id"] async for row in rows]


async def _compare(db: Database, client: Client, owned: _Owned, ids: list[str], *, tell_the_silent: bool) -> int:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(record_id: str) -> bool:
        async with slots:
            if not await _differs(db, client, owned, record_id, silence=tell_the_silent):
                return False
            return await _tell(client, owned.workflow_id(record_id))

    return sum(await asyncio.gather(*(one(record_id) for record_id in ids)))


async def _differs(db: Database, client: Client, owned: _Owned, record_id: str, *, silence: bool) -> bool:
    """Whether record and workflow have different versions; `silence` is what a workflow says that does not answer.

    A record that is higher may have just been written, by a workflow that has not heard of it: it is asked again.
    """
    workflow_id = owned.workflow_id(record_id)
    known = await _known(client, workflow_id)
    if known is _SILENT:
        return silence
    found = await db[owned.collection].find_one({"_id": record_id}, {"owned.version": 1})
    if not isinstance(known, int) or found is None:
        return False
    there: int = found["owned"]["version"]
    if there <= known:
        return there < known
    again = await _known(client, workflow_id)
    return isinstance(again, int) and again < there


_SILENT = object()


async def _known(client: Client, workflow_id: str) -> Any:
    """The version that the workflow knows; None where none runs or it has not read its record, `_SILENT` without an answer."""
    try:
        return await client.get_workflow_handle(workflow_id).query(
            "owned_version", reject_condition=QueryRejectCondition.NOT_OPEN, rpc_timeout=PATIENCE
        )
    except WorkflowQueryRejectedError:
        return None
    except WorkflowQueryFailedError as error:
        log.warning("version_not_told", workflow_id=workflow_id, error=str(error))
        return None
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        log.warning("version_not_told", workflow_id=workflow_id, error=error.message)
        return _SILENT


async def _tell(client: Client, workflow_id: str) -> bool:
    """Whether it could be told: one that has ended meanwhile has written its record."""
    try:
        await client.get_workflow_handle(workflow_id).signal("resync")
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    log.warning("record_differs_from_workflow", workflow_id=workflow_id)
    return True
