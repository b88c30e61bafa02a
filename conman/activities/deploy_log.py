"""The log of a deployment's job: each activity goes on where the one before it ended (`spec.md` 9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from temporalio import activity

from conman.activities.gates import LogWriter
from conman.programs.runner_output import OutputLine, Stream
from conman.store import records
from conman.store.database import Database
from conman.targets.base import Tell


@asynccontextmanager
async def deploy_log(db: Database, deployment_id: str) -> AsyncIterator[Tell]:
    """Lines for the log of the job of this deployment, kept within a third of a second and all of them after the block.

    A deployment without a record has no log: then they go to the worker's own.
    """
    deployment = await records.find(db, "deployments", deployment_id)
    job = await records.find(db, "jobs", deployment["owned"]["job_id"]) if deployment is not None else None
    if job is None:
        yield _to_worker_log
        return
    attempt = max(job["attempt"], 1)
    kept = await db["job_logs"].find_one({"job_id": job["_id"], "attempt": attempt}, {"last_seq": 1}, sort=[("first_seq", -1)])
    number = kept["last_seq"] if kept is not None else 0
    writer = LogWriter(db, job["_id"], attempt)

    async def tell(stream: Stream, text: str) -> None:
        nonlocal number
        number += 1
        await writer.write(OutputLine(seq=number, at=datetime.now(UTC), stream=stream, text=text))

    flusher = asyncio.create_task(writer.flushing())
    try:
        yield tell
    finally:
        flusher.cancel()
        await asyncio.gather(flusher, return_exceptions=True)
        await writer.flush()


async def _to_worker_log(stream: Stream, text: str) -> None:
    activity.logger.info("%s: %s", stream.value, text)
