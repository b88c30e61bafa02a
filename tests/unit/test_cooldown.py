"""The cool-down after failed logins (`spec.md` 5)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from conman.domain.cooldown import COOL_DOWN, MOST_FAILURES, REMEMBERED, FailedLogins, after_failure, is_cooling
from conman.domain.times import later

AT = "2026-01-31T09:30:00.000Z"
TICK = timedelta(milliseconds=1)


def failed(times: int, at: str = AT) -> FailedLogins:
    known = FailedLogins()
    for _ in range(times):
        known = after_failure(known, at)
    return known


@pytest.mark.parametrize("times", range(MOST_FAILURES))
def test_fewer_than_five_failures_close_nothing(times: int) -> None:
    assert failed(times).failures == times
    assert not is_cooling(failed(times), AT)


@pytest.mark.parametrize(("after", "cooling"), [(TICK * 0, True), (COOL_DOWN - TICK, True), (COOL_DOWN, False)])
def test_the_fifth_closes_for_fifteen_minutes(after: timedelta, cooling: bool) -> None:
    assert is_cooling(failed(MOST_FAILURES), later(AT, after)) is cooling


@pytest.mark.parametrize(("after", "failures"), [(REMEMBERED - TICK, MOST_FAILURES), (REMEMBERED, 1)])
def test_failures_count_for_a_quarter_of_an_hour_after_the_last_one(after: timedelta, failures: int) -> None:
    assert after_failure(failed(MOST_FAILURES - 1), later(AT, after)).failures == failures


def test_the_first_failure_after_a_cool_down_is_the_first() -> None:
    found = after_failure(failed(MOST_FAILURES), later(AT, COOL_DOWN))
    assert (found.failures, found.cooling_until) == (1, None)
