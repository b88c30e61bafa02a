"""A job's log on its way to the store."""

from __future__ import annotations

import asyncio

from pymongo.errors import PyMongoError
from temporalio import activity

from conman.domain.times import format_time
from conman.faults import fault_point
from conman.programs.runner_output import OutputLine
from conman.store.database import Database, Document

FLUSH_SECONDS = 0.3
FLUSH_LINES = 200


class LogWriter:
    """A job's log in chunks; a chunk is written once, also when the write is repeated."""

    def __init__(self, db: Database, job_id: str, attempt: int) -> None:
        self.db = db
        self.job_id = job_id
        self.attempt = attempt
        self.lines: list[Document] = []
        self._one_at_a_time = asyncio.Lock()

    async def write(self, line: OutputLine) -> None:
        """Take one line; it is kept within a third of a second."""
        self.lines.append({"seq": line.seq, "at": format_time(line.at), "stream": line.stream.value, "text": line.text})
        if len(self.lines) >= FLUSH_LINES:
            await self.flush()

    async def flush(self) -> None:
        """Keep what has come in."""
        if not self.lines:
            return
        async with self._one_at_a_time:
            lines = list(self.lines)
            if not lines:
                return
            chunk = {
                "job_id": self.job_id,
                "attempt": self.attempt,
                "first_seq": lines[0]["seq"],
                "last_seq": lines[-1]["seq"],
                "lines": lines,
            }
            # Set as a whole: a repeat whose first try landed unseen may have grown meanwhile.
            await self.db["job_logs"].update_one(
                {"_id": f"{self.job_id}:{self.attempt}:{lines[0]['seq']:09d}"}, {"$set": chunk}, upsert=True
            )
            del self.lines[: len(lines)]
        fault_point("gate.logged")

    async def flushing(self) -> None:
        """Flush again and again until canceled; what could not be kept is kept with what comes next."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except PyMongoError as error:
                activity.logger.warning("the log of job %s is not kept yet: %s", self.job_id, error)
