"""Jobs' logs, read page by page and followed while they grow (`spec.md` 9, `api.md` 3).

Lines count from 1 in each attempt of a job, so a place in a log is an attempt and a line in it: a `Cursor`.

Whoever reads a log reads the job first: lines are kept before their attempt is over, so a job that had ended, or was at a later
attempt, before the lines were read has no further ones behind them. (A worker that was given up, its heartbeats lost, may
still write to the attempt that it takes for its own; such lines are found by whoever reads the attempt afterwards.)
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING

from conman.domain.errors import invalid
from conman.domain.jobs import TERMINAL, JobState
from conman.services.watch import Pace, Watch, Watches
from conman.store.database import Database, Document

LINES_PER_REPLY = 2000
"""The most lines of one page."""
BYTES_PER_REPLY = 1_048_576
"""A page ends with the line that brings its texts to this many characters."""
CHUNKS_PER_READ = 8
"""Chunks fetched from the database at once: each may hold megabytes."""
PACE = Pace(first=0.3, slowest=1.0)
"""How often a log is looked at that somebody follows."""

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


class LogFeed(Watch):
    """Looks at one job for all its readers in this process, who wait for what changes."""

    def __init__(self, db: Database, job_id: str) -> None:
        self._db = db
        self._job_id = job_id
        self.sight: Sight | None = None
        super().__init__(f"job {job_id}", PACE)

    async def changed(self, since: int, seconds: float) -> Sight | None:
        """What was seen since change `since`; None: nothing within `seconds`. Raises what ended the looking, if anything did."""
        return self.sight if await self.moved(since, seconds) else None

    async def _look(self) -> bool:
        job = await self._db["jobs"].find_one({"_id": self._job_id})
        if job is None:
            return False
        attempt = latest_attempt(job)
        query = {"job_id": self._job_id, "attempt": attempt}
        last = await self._db["job_logs"].find_one(query, {"last_seq": 1}, sort=[("first_seq", DESCENDING)])
        seen = Sight(job, Cursor(attempt, last["last_seq"] if last is not None else 0))
        is_new = seen.shows_more_than(self.sight)
        if is_new:
            self.sight = seen
        self.is_over = has_ended(job)
        return is_new


class LogFeeds(Watches[LogFeed]):
    """The feeds of one process: one for each job that somebody follows."""

    def __init__(self, db: Database) -> None:
        self.database = db
        super().__init__(lambda job_id: LogFeed(db, job_id))


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
