"""Times are RFC 3339 UTC text with milliseconds (`api.md` 1)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conman.domain.times import format_time, later, milliseconds, parse_time, utc_day

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=ZONES)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 1, 31, 9, 30, tzinfo=UTC), "2026-01-31T09:30:00.000Z"),
        (datetime(2026, 1, 31, 9, 30, 0, 999, tzinfo=UTC), "2026-01-31T09:30:00.000Z"),
        (datetime(2026, 1, 31, 9, 30, 0, 1000, tzinfo=UTC), "2026-01-31T09:30:00.001Z"),
        (datetime(2026, 1, 31, 9, 30, 0, 999_999, tzinfo=UTC), "2026-01-31T09:30:00.999Z"),
        (datetime(2026, 1, 31, 23, 30, tzinfo=timezone(timedelta(hours=-2))), "2026-02-01T01:30:00.000Z"),
        (datetime(7, 1, 2, tzinfo=UTC), "0007-01-02T00:00:00.000Z"),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(at: datetime, text: str) -> None:
    """`api.md` 1: what is finer is cut off, the width is fixed."""
    assert format_time(at) == text


def test_a_time_without_a_zone_is_refused() -> None:
    """`api.md` 1: nobody guesses a zone."""
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="zone"):
        parse_time("2026-01-01T00:00:00")


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T09:30:00Z",
        "2026-01-31T09:30:00.0Z",
        "2026-01-31T09:30:00.000000Z",
        "2026-01-31t09:30:00z",
        "2026-01-31 09:30:00Z",
        "2026-01-31T11:30:00+02:00",
        "2026-01-31T09:30:00-00:00",
        "2026-01-30T23:30:00-10:00",
    ],
)
def test_the_forms_of_rfc_3339_are_read(text: str) -> None:
    """`api.md` 1."""
    assert parse_time(text) == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "20260131T093000Z",
        "2026-W05-6T09:30:00Z",
        "2026-01-31T09:30Z",
        "2026-01-31T09Z",
        "2026-01-31T09:30:00,5Z",
        "2026-01-31T09:30:00.Z",
        "2026-01-31T09:30:00+0200",
        "2026-01-31T09:30:00+02",
        "2026-01-31T09:30:00ZZ",
        "2026-01-31T09:30:00Z\n",
        " 2026-01-31T09:30:00Z",
        "2026-02-30T09:30:00Z",
        "2026-01-31T24:30:00Z",
        "2026-01-31T09:30:60Z",
        "0000-01-31T09:30:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "2026-01-31T09:30:00+99:00",
        "٢٠٢٦-01-31T09:30:00Z",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """`api.md` 1: other forms of ISO 8601, and days and hours that do not exist."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


@settings(deadline=None)
@given(TIMES)
def test_what_is_written_reads_back_to_the_millisecond(at: datetime) -> None:
    """`api.md` 1."""
    back = parse_time(format_time(at))
    assert timedelta(0) <= at - back < timedelta(milliseconds=1)
    assert format_time(back) == format_time(at)
    assert len(format_time(at)) == 24


@settings(deadline=None)
@given(TIMES, TIMES)
def test_the_order_of_texts_is_the_order_of_times(one: datetime, other: datetime) -> None:
    """`api.md` 1: records are sorted and compared without parsing."""
    first, second = format_time(one), format_time(other)
    assert (first < second) is (parse_time(first) < parse_time(second))
    assert (first < second) is (milliseconds(first) < milliseconds(second))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.0009Z", 0),
        ("1970-01-01T00:00:00.001Z", 1),
        ("2026-01-31T09:30:00.999999Z", 1_769_851_800_999),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999),
    ],
)
def test_milliseconds_are_whole_and_exact(text: str, count: int) -> None:
    """`durability.md` 3: ids hold the event's time."""
    assert milliseconds(text) == count


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (timedelta(0), "2026-02-28T23:59:59.999Z"),
        (timedelta(milliseconds=1), "2026-03-01T00:00:00.000Z"),
        (timedelta(hours=24), "2026-03-01T23:59:59.999Z"),
        (timedelta(days=-59), "2025-12-31T23:59:59.999Z"),
    ],
)
def test_later_adds_across_days_and_years(delta: timedelta, text: str) -> None:
    """`spec.md` 12: deadlines."""
    assert later("2026-02-28T23:59:59.999Z", delta) == text


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-01-31T23:59:59.999Z", "2026.01.31"),
        ("2026-02-01T00:00:00.000Z", "2026.02.01"),
        ("2026-02-01T00:30:00+01:00", "2026.01.31"),
    ],
)
def test_a_tag_names_the_day_in_utc(text: str, day: str) -> None:
    """`spec.md` 11: the UTC day of creation."""
    assert utc_day(text) == day
