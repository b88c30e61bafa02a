"""Times that return, and windows in which nothing is deployed (`spec.md` 12)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conman.domain.cron import parse_cron
from conman.domain.freeze import FreezeWindow, frozen_until

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "0 18 * * FRI", "*/15 9-17 * * mon-fri", "0 0 1,15 JAN-MAR *", "5/10 * * * *", "0 0 29 2 *", "0 0 31 * 7"],
)
def test_what_crontabs_say_is_read(text: str) -> None:
    assert parse_cron(text).minutes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "-1 * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "1,,2 * * * *",
        "x * * * *",
        "* * L * *",
        "* * * * FRI#2",
        "\u0661 * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "* " * 200,
    ],
)
def test_what_no_crontab_says_or_what_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_cron(text)


def test_where_both_days_are_restricted_either_counts_else_both_must() -> None:
    either, both = parse_cron("0 0 13 * FRI"), parse_cron("0 0 */2 * FRI")
    assert either.is_on(date(2026, 1, 13))  # a Tuesday
    assert either.is_on(date(2026, 1, 2))  # a Friday
    assert not both.is_on(date(2026, 1, 2))
    assert both.is_on(date(2026, 1, 9))


def test_sunday_is_0_and_7() -> None:
    assert parse_cron("0 0 * * 0") == parse_cron("0 0 * * 7") == parse_cron("0 0 * * SUN")


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.integers(1, 10_080),
)
def test_a_daily_time_is_found_as_a_search_minute_by_minute_finds_it(minute: int, hour: int, now: datetime, length: int) -> None:
    """In a zone with clock changes, except for the hour that they leave out, where a time is moved behind the gap."""
    within = timedelta(minutes=length)
    found = parse_cron(f"{minute} {hour} * * *").last_before(now, BERLIN, within)
    expected = None
    for day in range(9):
        local = now.astimezone(BERLIN).date() - timedelta(days=day)
        start = datetime(local.year, local.month, local.day, hour, minute, tzinfo=BERLIN).astimezone(UTC)
        if start <= now and now - start < within:
            expected = start
            break
    assert found == expected


def test_times_around_a_clock_change_come_in_their_real_order() -> None:
    """29 March 2026, 02:00 to 03:00 is left out in Berlin: 02:30 comes when the clock shows 03:30, after 03:15."""
    cron = parse_cron("15,30 2,3 * * *")
    assert cron.last_before(at("2026-03-29T01:40:00Z"), BERLIN, timedelta(hours=1)) == at("2026-03-29T01:30:00Z")


def test_of_a_time_that_comes_twice_the_first_counts() -> None:
    """25 October 2026, 02:30 comes twice in Berlin."""
    cron = parse_cron("30 2 25 10 *")
    assert cron.last_before(at("2026-10-25T02:00:00Z"), BERLIN, timedelta(days=1)) == at("2026-10-25T00:30:00Z")


# -- windows


def window(**fields: object) -> FreezeWindow:
    return FreezeWindow.model_validate({"name": "w", "timezone": "Europe/Berlin", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"from": "2026-01-01T00:00:00Z"},
        {"to": "2026-01-01T00:00:00Z"},
        {"cron": "0 0 * * *"},
        {"duration_minutes": 5},
        {"from": "2026-01-01T00:00:00Z", "duration_minutes": 5},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "cron": "0 0 * * *"},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-01T00:00:00", "to": "2026-01-02T00:00:00Z"},
        {"from": "tomorrow", "to": "2026-01-02T00:00:00Z"},
        {"cron": "0 0 30 2 *", "duration_minutes": 5},
        {"cron": "0 0 * * *", "duration_minutes": 0},
        {"cron": "0 0 * * *", "duration_minutes": 10_081},
    ],
)
def test_a_window_has_two_ends_or_returns_and_is_refused_else(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        window(**fields)


@pytest.mark.parametrize(
    ("now", "frozen"),
    [
        ("2026-01-01T09:59:59.999Z", False),
        ("2026-01-01T10:00:00Z", True),
        ("2026-01-01T11:59:59.999Z", True),
        ("2026-01-01T12:00:00Z", False),
    ],
)
def test_a_window_is_open_from_its_first_moment_to_just_before_its_last(now: str, frozen: bool) -> None:
    once = window(**{"from": "2026-01-01T11:00:00+01:00", "to": "2026-01-01T12:00:00Z"})
    daily = window(cron="0 11 * * *", duration_minutes=120)
    for one in (once, daily):
        until = frozen_until([one], at(now), ZoneInfo)
        assert until == (at("2026-01-01T12:00:00Z") if frozen else None)


def test_windows_that_touch_or_overlap_thaw_together_and_a_gap_ends_them() -> None:
    first = window(**{"from": "2026-01-01T10:00:00Z", "to": "2026-01-01T11:00:00Z"})
    touching = window(**{"from": "2026-01-01T11:00:00Z", "to": "2026-01-01T12:00:00Z"})
    later = window(**{"from": "2026-01-01T12:00:01Z", "to": "2026-01-01T13:00:00Z"})
    assert frozen_until([later, touching, first], at("2026-01-01T10:30:00Z"), ZoneInfo) == at("2026-01-01T12:00:00Z")
    assert frozen_until([], at("2026-01-01T10:30:00Z"), ZoneInfo) is None


def test_what_is_always_frozen_still_gets_an_answer() -> None:
    always = window(cron="* * * * *", duration_minutes=10)
    until = frozen_until([always], at("2026-01-01T10:30:00Z"), ZoneInfo)
    assert until is not None
    assert until > at("2026-01-01T10:30:00Z")
