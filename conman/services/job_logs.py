"""Jobs' logs, read page by page and followed while they grow (`spec.md` 9, `api.md` 3).

Lines count from 1 in each attempt of a job, so a place in a log is an attempt and a line in it: a `Cursor`.

Whoever reads a log reads the job first: lines are kept before their attempt is over, so a job that had ended, or was at a later
attempt, before the lines were read has no further ones behind them. (A worker that was given up, its heartbeats lost, may
still write to the attempt that it takes for its own; such lines are found by whoever reads the attempt afterwards.)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError

from conman.domain.errors import invalid
from conman.domain.jobs import TERMINAL, JobState
from conman.store.database import Database, Document

log = structlog.get_logger(__name__)

LINES_PER_REPLY = 2000
"""The most lines of one page."""
BYTES_PER_REPLY = 1_048_576
"""A page ends with the line that brings its texts to this many characters."""
CHUNKS_PER_READ = 8
"""Chunks fetched from the database at once: each may hold megabytes."""
POLL_SECONDS = 0.3
"""How often a log that grows is looked at."""
SLOWEST_POLL_SECONDS = 1.0
"""How often one is looked at in which nothing has happened for a while."""
SLOWING = 1.1
"""By how much each look in vain lengthens the pause before the next."""

CURSOR_PATTERN = r"^(?:([1-9][0-9]{0,3}):)?([0-9]{1,15})$"
"""How a place in a log is written: `2:17`, line 17 of attempt 2, which is an event's id; or `17` alone."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last line that somebody has seen: line `seq` of attempt `attempt`; `seq` 0 is the place before its first line."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}:{self.seq}"


@dataclass(frozen=True, slots=True)
class Page:
    """Lines of one attempt in order; `more`: others that are there already follow."""

    lines: list[Document]
    more: bool


def start_of(job: Document, *, after: str | None, last_event_id: str | None, attempt: int | None) -> Cursor:
    """From where to follow a job's log: behind the event that a client says it saw last, or behind the line `after`.

    Without either, from the start of `attempt`, or of the latest one. Both places match `CURSOR_PATTERN`. Raises
    `validation_error` for one of another attempt than the one that was asked for.
    """
    field, given = ("Last-Event-ID", last_event_id) if last_event_id is not None else ("after", after)
    match = re.match(CURSOR_PATTERN, given or "0")
    if match is None:
        raise invalid(field, "needs the id of an event, such as 2:17, or the number of a line")
    named, seq = int(match[1]) if match[1] else None, int(match[2])
    if named is not None and attempt is not None and named != attempt:
        raise invalid(field, f"is a line of attempt {named}, but attempt {attempt} was asked for: leave one of them out")
    return Cursor(named or attempt or latest_attempt(job), seq)


def latest_attempt(job: Document) -> int:
    """The attempt that runs or ran last; of a job that waits for its first one, that."""
    return max(job["attempt"], 1)


def has_ended(job: Document) -> bool:
    """Whether the job's state is one that it never leaves."""
    return JobState(job["state"]) in TERMINAL


def is_over(job: Document, attempt: int) -> bool:
    """Whether no further lines of an attempt are to come."""
    return has_ended(job) or attempt < job["attempt"]


async def read_page(db: Database, job_id: str, at: Cursor) -> Page:
    """The lines behind a place, as many as one reply holds."""
    query = {"job_id": job_id, "attempt": at.attempt, "last_seq": {"$gt": at.seq}}
    lines: list[Document] = []
    size = 0
    async for chunk in db["job_logs"].find(query).sort([("first_seq", ASCENDING)]).batch_size(CHUNKS_PER_READ):
        for line in chunk["lines"]:
            if line["seq"] <= at.seq:
                continue
            if len(lines) >= LINES_PER_REPLY or size >= BYTES_PER_REPLY:
                return Page(lines, more=True)
            lines.append(line)
            size += len(line["text"])
    return Page(lines, more=False)


async def log_lines(db: Database, job: Document, *, after: int, attempt: int | None) -> dict[str, Any]:
    """Lines with `seq` above `after` of one attempt (the latest by default); `next` is where to go on, `ended` whether not to.

    `job` must have been read before: see above.
    """
    wanted = attempt or latest_attempt(job)
    page = await read_page(db, job["_id"], Cursor(wanted, after))
    return {
        "attempt": wanted,
        "lines": page.lines,
        "next": page.lines[-1]["seq"] if page.lines else after,
        "ended": is_over(job, wanted) and not page.more,
    }


@dataclass(frozen=True, slots=True)
class Sight:
    """A job as it was at one look, and then the last line of its latest attempt."""

    job: Document
    tail: Cursor

    def shows_more_than(self, other: Sight | None) -> bool:
        """Whether a reader has something to do that had none before."""
        return other is None or self.tail != other.tail or self.job["state"] != other.job["state"]


class LogFeed:
    """Looks at one job for all its readers in this process, who wait for what changes."""

    def __init__(self, db: Database, job_id: str) -> None:
        self._db = db
        self._job_id = job_id
        self._changed = asyncio.Event()
        self.readers = 0
        self.sight: Sight | None = None
        self.number = 0
        """Counts the changes that were seen."""
        self._polling = asyncio.create_task(self._poll())

    async def changed(self, since: int, seconds: float) -> Sight | None:
        """What was seen since change `since`; None: nothing within `seconds`. Raises what ended the looking, if anything did."""
        if self._polling.done():
            self._polling.result()
        if self.number == since:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        return self.sight if self.number != since else None

    def stop(self) -> None:
        """Look no more."""
        self._polling.cancel()

    async def _poll(self) -> None:
        pause = POLL_SECONDS
        while True:
            try:
                seen = await self._look()
            except PyMongoError as error:  # Each reader meets it too, in its own reads.
                log.warning("job_not_seen", job=self._job_id, error=str(error))
                seen = None
            if seen is not None and seen.shows_more_than(self.sight):
                self.sight, pause = seen, POLL_SECONDS
                self.number += 1
                self._changed.set()
                self._changed = asyncio.Event()
            if seen is not None and has_ended(seen.job):
                return
            await asyncio.sleep(pause)
            pause = min(pause * SLOWING, SLOWEST_POLL_SECONDS)

    async def _look(self) -> Sight | None:
        job = await self._db["jobs"].find_one({"_id": self._job_id})
        if job is None:
            return None
        attempt = latest_attempt(job)
        query = {"job_id": self._job_id, "attempt": attempt}
        last = await self._db["job_logs"].find_one(query, {"last_seq": 1}, sort=[("first_seq", DESCENDING)])
        return Sight(job, Cursor(attempt, last["last_seq"] if last is not None else 0))


class LogFeeds:
    """The feeds of one process: one for each job that somebody follows."""

    def __init__(self, db: Database) -> None:
        self.database = db
        self._feeds: dict[str, LogFeed] = {}

    def join(self, job_id: str) -> LogFeed:
        """The feed of a job, started with its first reader. Whoever joins leaves."""
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = LogFeed(self.database, job_id)
        feed.readers += 1
        return feed

    def leave(self, job_id: str) -> None:
        """One reader less; with the last one the feed ends. Never waits: a stream that is cut off can't."""
        feed = self._feeds[job_id]
        feed.readers -= 1
        if feed.readers == 0:
            del self._feeds[job_id]
            feed.stop()

    def __len__(self) -> int:
        return len(self._feeds)


@dataclass(frozen=True, slots=True)
class Lines:
    """Further lines of an attempt."""

    attempt: int
    lines: list[Document]


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """All lines of the attempt before have been told; those of this one follow, counted from 1 again."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing has happened for a while."""


@dataclass(frozen=True, slots=True)
class Ended:
    """No further lines follow: the job, or the one attempt that was asked for, is over."""

    attempt: int
    job: Document


News = Lines | NextAttempt | Silence | Ended


async def follow(feeds: LogFeeds, job_id: str, at: Cursor, *, only: bool, patience: float) -> AsyncGenerator[News, None]:
    """A job's log from a place on, each line once and in order, until it ends; of one attempt alone when `only`.

    Every `patience` seconds without anything new there is a `Silence`. A database that fails ends it with its own error.
    """
    feed = feeds.join(job_id)
    try:
        seen = 0
        while True:
            sight = await feed.changed(seen, patience)
            if sight is None:
                yield Silence()
                continue
            seen = feed.number
            while True:
                page = await read_page(feeds.database, job_id, at)
                if page.lines:
                    at = Cursor(at.attempt, page.lines[-1]["seq"])
                    yield Lines(at.attempt, page.lines)
                if page.more:
                    continue
                if only or at.attempt >= latest_attempt(sight.job):
                    break
                at = Cursor(at.attempt + 1, 0)
                yield NextAttempt(at.attempt)
            if is_over(sight.job, at.attempt):
                yield Ended(at.attempt, sight.job)
                return
    finally:
        feeds.leave(job_id)
