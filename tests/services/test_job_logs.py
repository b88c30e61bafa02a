"""A job's log, page by page and followed while it grows (`spec.md` 9, `api.md` 3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conman.domain.errors import DomainError, ErrorCode
from conman.services import job_logs
from conman.services.job_logs import Cursor, Ended, Lines, LogFeeds, News, NextAttempt, Silence, follow, log_lines, start_of
from conman.services.platform import Platform
from conman.store.database import Database, Document
from conman.store.outgoing import TERMINAL_JOB_STATES

AT = "2026-01-31T09:30:00.000Z"
JOB = "job"
DEADLINE = 30.0


@pytest.fixture
def db(platform: Platform) -> Database:
    return platform.db


async def job(db: Database, **fields: Any) -> Document:
    """The job as it is now, changed."""
    change = {"$set": {"state": "running", "reason_code": None, **fields}} if fields else {"$setOnInsert": {"attempt": 1}}
    await db["jobs"].update_one({"_id": JOB}, change, upsert=True)
    found = await db["jobs"].find_one({"_id": JOB})
    assert found is not None
    return found


async def write(db: Database, attempt: int, first: int, last: int, *, text: str = "") -> None:
    """One chunk of a log, as the gate's worker keeps it."""
    lines = [
        {"seq": seq, "at": AT, "stream": "stdout", "text": text or f"line {seq} of {attempt}"} for seq in range(first, last + 1)
    ]
    chunk = {"job_id": JOB, "attempt": attempt, "first_seq": first, "last_seq": last, "lines": lines}
    await db["job_logs"].update_one({"_id": f"{JOB}:{attempt}:{first:09d}"}, {"$set": chunk}, upsert=True)


def seqs(reply: dict[str, Any]) -> list[int]:
    return [line["seq"] for line in reply["lines"]]


async def test_a_log_of_ten_mebibytes_is_read_page_by_page_without_a_gap(db: Database) -> None:
    ended = await job(db, attempt=1, state="succeeded", reason_code="ok")
    for first in range(1, 1281, 128):
        await write(db, 1, first, first + 127, text="x" * 8192)
    seen: list[int] = []
    reply: dict[str, Any] = {"next": 0, "ended": False}
    while not reply["ended"]:
        reply = await log_lines(db, ended, after=reply["next"], attempt=None)
        assert reply["lines"] and sum(len(line["text"]) for line in reply["lines"]) <= job_logs.BYTES_PER_REPLY
        seen += seqs(reply)
    assert seen == list(range(1, 1281))


async def test_a_page_that_is_just_full_knows_whether_it_is_the_last(db: Database) -> None:
    ended = await job(db, attempt=1, state="failed", reason_code="tests_failed")
    for first in range(1, job_logs.LINES_PER_REPLY + 1, 200):
        await write(db, 1, first, first + 199)
    whole = await log_lines(db, ended, after=0, attempt=None)
    assert (len(whole["lines"]), whole["ended"]) == (job_logs.LINES_PER_REPLY, True)
    await write(db, 1, job_logs.LINES_PER_REPLY + 1, job_logs.LINES_PER_REPLY + 1)
    cut = await log_lines(db, ended, after=0, attempt=None)
    assert (len(cut["lines"]), cut["ended"]) == (job_logs.LINES_PER_REPLY, False)
    rest = await log_lines(db, ended, after=cut["next"], attempt=None)
    assert (seqs(rest), rest["ended"]) == ([job_logs.LINES_PER_REPLY + 1], True)


async def test_a_job_that_ends_between_the_reads_has_not_ended_for_this_page(db: Database) -> None:
    running = await job(db, attempt=1)
    await write(db, 1, 1, 3)
    await job(db, attempt=1, state="succeeded", reason_code="ok")
    assert not (await log_lines(db, running, after=0, attempt=None))["ended"]


async def test_a_chunk_that_has_grown_is_read_on_within(db: Database) -> None:
    running = await job(db, attempt=1)
    await write(db, 1, 1, 3)
    await write(db, 1, 1, 6)
    reply = await log_lines(db, running, after=2, attempt=None)
    assert (seqs(reply), reply["next"]) == ([3, 4, 5, 6], 6)


@pytest.mark.parametrize(
    ("state", "attempt", "wanted", "after", "expected"),
    [
        ("queued", 0, None, 0, (1, [], 0, False)),
        ("running", 2, None, 0, (2, [1], 1, False)),
        ("running", 2, 1, 1, (1, [2], 2, True)),
        ("running", 2, 3, 0, (3, [], 0, False)),
        ("canceled", 2, 3, 0, (3, [], 0, True)),
        ("failed", 2, None, 9, (2, [], 9, True)),
    ],
    ids=["no attempt yet", "the latest", "an earlier one", "one to come", "one that never came", "beyond the end"],
)
async def test_a_page_says_which_attempt_it_is_of_and_whether_that_is_over(
    db: Database, state: str, attempt: int, wanted: int | None, after: int, expected: tuple[int, list[int], int, bool]
) -> None:
    shown = await job(db, attempt=attempt, state=state)
    if attempt:
        await write(db, 1, 1, 2)
        await write(db, 2, 1, 1)
    reply = await log_lines(db, shown, after=after, attempt=wanted)
    assert (reply["attempt"], seqs(reply), reply["next"], reply["ended"]) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Cursor(3, 0)),
        ({"after": "17"}, Cursor(3, 17)),
        ({"after": "1:17"}, Cursor(1, 17)),
        ({"after": "17", "last_event_id": "2:5"}, Cursor(2, 5)),
        ({"last_event_id": "5"}, Cursor(3, 5)),
        ({"attempt": 1}, Cursor(1, 0)),
        ({"attempt": 1, "after": "4"}, Cursor(1, 4)),
        ({"attempt": 2, "last_event_id": "2:5"}, Cursor(2, 5)),
    ],
    ids=str,
)
def test_a_stream_goes_on_where_its_reader_was(given: dict[str, Any], expected: Cursor) -> None:
    assert start_of({"attempt": 3}, **{"after": None, "last_event_id": None, "attempt": None, **given}) == expected


def test_a_place_in_another_attempt_than_the_wanted_one_is_refused() -> None:
    with pytest.raises(DomainError) as refused:
        start_of({"attempt": 3}, after=None, last_event_id="1:5", attempt=2)
    assert refused.value.code is ErrorCode.VALIDATION_ERROR


async def told(news: AsyncIterator[News]) -> list[str]:
    """All that a follower is told, in short."""
    found: list[str] = []
    async with asyncio.timeout(DEADLINE):
        async for each in news:
            match each:
                case Lines(attempt, lines):
                    found += [f"{attempt}:{line['seq']}" for line in lines]
                case NextAttempt(attempt):
                    found.append(f"attempt {attempt}")
                case Ended(attempt, ended):
                    found.append(f"ended {attempt} {ended['state']} {ended['reason_code']}")
                case Silence():
                    pass
    return found


async def test_a_follower_passes_from_one_attempt_to_the_next_without_missing_or_repeating_a_line(db: Database) -> None:
    await job(db, attempt=1)
    await write(db, 1, 1, 2)
    following = follow(LogFeeds(db), JOB, Cursor(1, 1), only=False, patience=DEADLINE)
    first = await anext(following)
    assert isinstance(first, Lines) and [line["seq"] for line in first.lines] == [2]
    await write(db, 1, 3, 4)  # kept after the last look, before the next attempt
    await job(db, attempt=2)
    await write(db, 2, 1, 3)
    await job(db, attempt=2, state="failed", reason_code="tests_failed")
    assert await told(following) == ["1:3", "1:4", "attempt 2", "2:1", "2:2", "2:3", "ended 2 failed tests_failed"]


async def test_a_reader_who_was_away_for_two_attempts_is_told_all_of_both(db: Database) -> None:
    await job(db, attempt=3, state="succeeded", reason_code="ok")
    for attempt in (1, 2, 3):
        await write(db, attempt, 1, 2)
    away = follow(LogFeeds(db), JOB, Cursor(1, 2), only=False, patience=DEADLINE)
    assert await told(away) == ["attempt 2", "2:1", "2:2", "attempt 3", "3:1", "3:2", "ended 3 succeeded ok"]


async def test_one_attempt_alone_ends_with_that_attempt(db: Database) -> None:
    await job(db, attempt=2)
    await write(db, 1, 1, 2)
    alone = follow(LogFeeds(db), JOB, Cursor(1, 0), only=True, patience=DEADLINE)
    assert await told(alone) == ["1:1", "1:2", "ended 1 running None"]


async def test_the_last_lines_come_before_the_end_however_late_they_were_seen(db: Database) -> None:
    await job(db, attempt=1)
    following = follow(LogFeeds(db), JOB, Cursor(1, 0), only=False, patience=0.01)
    assert isinstance(await anext(following), Silence | Lines)
    await write(db, 1, 1, 450)
    await job(db, attempt=1, state="canceled", reason_code="canceled")
    assert (await told(following))[-2:] == ["1:450", "ended 1 canceled canceled"]


async def test_all_readers_of_a_job_share_one_look_at_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, again = 0, asyncio.Event()
    look = job_logs.LogFeed._look  # pyright: ignore[reportPrivateUsage]

    async def counted(feed: job_logs.LogFeed) -> Any:
        nonlocal looks
        looks += 1
        if looks > 1:
            await again.wait()
        return await look(feed)

    monkeypatch.setattr(job_logs.LogFeed, "_look", counted)
    await job(db, attempt=1)
    await write(db, 1, 1, 2)
    feeds = LogFeeds(db)
    readers = [follow(feeds, JOB, Cursor(1, 0), only=False, patience=DEADLINE) for _ in range(40)]
    for reader in readers:
        assert isinstance(await anext(reader), Lines)
    assert (len(feeds), looks) == (1, 1)
    again.set()
    await job(db, attempt=1, state=TERMINAL_JOB_STATES[0], reason_code="ok")
    ends = await asyncio.gather(*(told(reader) for reader in readers))
    assert ends == [["ended 1 succeeded ok"]] * 40
    assert len(feeds) == 0


async def test_a_reader_who_leaves_takes_nothing_from_the_others_and_the_last_one_ends_the_looking(db: Database) -> None:
    await job(db, attempt=1)
    await write(db, 1, 1, 1)
    feeds = LogFeeds(db)
    one, other = (follow(feeds, JOB, Cursor(1, 0), only=False, patience=DEADLINE) for _ in range(2))
    await anext(one)
    await anext(other)
    await one.aclose()
    await write(db, 1, 2, 2)
    more = await anext(other)
    assert isinstance(more, Lines) and more.lines[0]["seq"] == 2
    feed = feeds.join(JOB)
    feeds.leave(JOB)
    await other.aclose()
    assert len(feeds) == 0
    with pytest.raises(asyncio.CancelledError):
        await feed._polling  # pyright: ignore[reportPrivateUsage]
