"""The cool-down after failed logins (`spec.md` 5): five for an email, known or not, close it for fifteen minutes.

A success forgets the failures before it, and so does a quiet quarter of an hour. docs/adr/0013-counters-in-the-database.md
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from conman.domain.decision import Model
from conman.domain.times import later

MOST_FAILURES: Final = 5
COOL_DOWN: Final = timedelta(minutes=15)
REMEMBERED: Final = timedelta(minutes=15)
"""How long after the last failed login the failures count: were it longer, four failures would cost more time than five."""


class FailedLogins(Model):
    """What is known of one email's failed logins; times as text."""

    failures: int = 0
    forget_at: str | None = None
    cooling_until: str | None = None


def is_cooling(known: FailedLogins, at: str) -> bool:
    """Whether no login is looked at now, not even one with the right password."""
    return known.cooling_until is not None and at < known.cooling_until


def after_failure(known: FailedLogins, at: str) -> FailedLogins:
    """What is known after one more failed login, which did not come during a cool-down: the fifth begins one."""
    count_on = known.forget_at is not None and at < known.forget_at and known.cooling_until is None
    failures = (known.failures if count_on else 0) + 1
    if failures < MOST_FAILURES:
        return FailedLogins(failures=failures, forget_at=later(at, REMEMBERED))
    until = later(at, COOL_DOWN)
    return FailedLogins(failures=failures, forget_at=until, cooling_until=until)
