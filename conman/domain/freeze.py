"""Freeze windows: when nothing may be deployed to an environment (`spec.md` 12, `api.md` 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Self

from pydantic import Field, model_validator

from conman.domain.cron import parse_cron
from conman.domain.decision import Model
from conman.domain.times import parse_time

LONGEST_MINUTES = 7 * 24 * 60
"""The longest window that returns, minutes; a longer one is given by its two ends."""

MOST_JOINED = 1000
"""How many windows that touch are followed to find the end of a freeze; what is frozen longer shows the end of that many."""

ZoneOf = Callable[[str], tzinfo]
"""A zone of the IANA database by its name. Raises `ValueError` for one that is not there."""


class FreezeWindow(Model):
    """`from` … `to` once, or from each time of `cron` for `duration_minutes`; `timezone` is that of the cron, and of display."""

    name: str
    timezone: str
    from_: str | None = Field(default=None, alias="from")
    to: str | None = None
    cron: str | None = None
    duration_minutes: int | None = None

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        given = [value is not None for value in (self.from_, self.to, self.cron, self.duration_minutes)]
        if given not in ([True, True, False, False], [False, False, True, True]):
            raise ValueError("needs either from and to, or cron and duration_minutes")
        if self.from_ is not None and self.to is not None and parse_time(self.to) <= parse_time(self.from_):
            raise ValueError("ends before it begins: `to` must be later than `from`")
        if self.cron is not None:
            parse_cron(self.cron)
        if self.duration_minutes is not None and not 1 <= self.duration_minutes <= LONGEST_MINUTES:
            raise ValueError(f"lasts from 1 to {LONGEST_MINUTES} minutes; give a longer one by from and to")
        return self

    def end_at(self, at: datetime, zone_of: ZoneOf) -> datetime | None:
        """When the window that is open at `at` ends; None when it is not open then."""
        if self.from_ is not None and self.to is not None:
            end = parse_time(self.to)
            return end if parse_time(self.from_) <= at < end else None
        lasting = timedelta(minutes=self.duration_minutes or 0)
        start = parse_cron(self.cron or "").last_before(at, zone_of(self.timezone), lasting)
        return start + lasting if start is not None else None


def frozen_until(windows: Sequence[FreezeWindow], at: datetime, zone_of: ZoneOf) -> datetime | None:
    """When an environment thaws that is frozen at `at`, windows that touch taken together; None when it is not frozen then."""
    end = None
    for _ in range(MOST_JOINED):
        moment = end or at
        ends = [until for window in windows if (until := window.end_at(moment, zone_of)) is not None]
        if not ends:
            break
        end = max(ends)
    return end
