"""What a suite says of its progress while it runs, shown with its job.

A suite that wants to writes the file that `MSUITE_PROGRESS` names: one JSON object such as
`{"done": 3, "total": 10, "message": "schemas"}`, anew as often as it likes (under another name and renamed, so that no half of it
is seen). `total` and `message` may be left out.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pymongo.errors import PyMongoError
from temporalio import activity

from conman.domain.redaction import Redactor
from conman.services.clock import now
from conman.store import feed
from conman.store.database import Database, Document

LOOK_SECONDS = 1.0
"""How often the file is looked at, seconds: the job's record is written at most so often."""

FILE_BYTES = 16 * 1024
MESSAGE_CHARACTERS = 200
_MOST = 2**53 - 1


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    done: int = Field(ge=0, le=_MOST)
    total: int | None = Field(default=None, ge=0, le=_MOST)
    message: str = ""


class Progress:
    """The progress of one attempt."""

    def __init__(self, db: Database, job_id: str, path: Path, redactor: Redactor) -> None:
        self.db = db
        self.job_id = job_id
        self.path = path
        self.redactor = redactor
        self.shown: Document | None = None

    async def following(self) -> None:
        """Show it again and again until canceled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.show()

    async def show(self) -> None:
        """Show what the file says now, if that is something new. What can't be written now is written by the next call."""
        told = await asyncio.to_thread(self._read)
        if told is None or told == self.shown:
            return
        change = {"$set": {"progress": told, "updated_at": now()}, "$inc": {"version": 1}}
        try:
            await self.db["jobs"].update_one({"_id": self.job_id, "state": "running"}, change)
            await feed.tell_jobs(self.db, [self.job_id])
        except PyMongoError as error:
            activity.logger.warning("the progress of job %s is not shown yet: %s", self.job_id, error)
        else:
            self.shown = told

    def _read(self) -> Document | None:
        try:
            told = _Told.model_validate_json(read_file(self.path, FILE_BYTES))
        except (OSError, ValidationError):
            return None  # There is none, or not the whole of it.
        message = self.redactor.scrub_text(told.message)[:MESSAGE_CHARACTERS]
        return {"done": told.done, "total": told.total, "message": message}


def read_file(path: Path, most: int) -> bytes:
    """A file that a suite wrote. Raises `OSError` when there is none, or it is longer, or no regular one: pipes never end."""
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise OSError(f"{path.name} is no file of at most {most} bytes")
        return file.read(most)


def _without_waiting(path: str, flags: int) -> int:
    """Open even a pipe to which nobody writes."""
    return os.open(path, flags | os.O_NONBLOCK)
