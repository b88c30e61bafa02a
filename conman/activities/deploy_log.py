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


class DeployLog:
    """Takes lines for the job's log, numbered after those that are there; `seq` is the number of the last one.

    A deployment without a record has no log: then they go to the worker's own.
    """

    def __init__(self, writer: LogWriter | None, job_id: str, attempt: int, seq: int) -> None:
        self.writer = writer
        self.job_id = job_id
        self.attempt = attempt
        self.seq = seq

    async def tell(self, stream: Stream, text: str) -> None:
        """Keep one line."""
        self.seq += 1
        if self.writer is None:
            activity.logger.info("%s: %s", stream.value, text)
        else:
            await self.writer.write(OutputLine(seq=self.seq, at=datetime.now(UTC), stream=stream, text=text))


@asynccontextmanager
async def deploy_log(db: Database, deployment_id: str) -> AsyncIterator[DeployLog]:
    """The log of this deployment's job: lines are kept within a third of a second, and all of them after the block."""
    deployment = await records.find(db, "deployments", deployment_id)
    job = await records.find(db, "jobs", deployment["owned"]["job_id"]) if deployment is not None else None
    if job is None:
        yield DeployLog(None, deployment_id, 1, 0)
        return
    attempt = max(job["attempt"], 1)
    kept = await db["job_logs"].find_one({"job_id": job["_id"], "attempt": attempt}, {"last_seq": 1}, sort=[("first_seq", -1)])
    writer = LogWriter(db, job["_id"], attempt)
    flusher = asyncio.create_task(writer.flushing())
    try:
        yield DeployLog(writer, job["_id"], attempt, kept["last_seq"] if kept is not None else 0)
    finally:
        flusher.cancel()
        await asyncio.gather(flusher, return_exceptions=True)
        await writer.flush()
