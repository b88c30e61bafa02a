"""Times that return, as a crontab's five fields say them: minute, hour, day of month, month, day of week.

Numbers, `*`, lists, ranges, steps, and the English short names of months and days; 0 and 7 are Sunday. As cron has it since
Vixie's: where both days are restricted, a day that either of them names counts. No macros, no seconds, no `L`, `W` or `#`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

LONGEST_TEXT = 256
LARGEST_CLOCK_CHANGE = timedelta(hours=3)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]{1,3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five: the numbers that it may name, and words for them."""

    name: str
    lowest: int
    highest: int
    words: tuple[str, ...] = ()

    def read(self, text: str) -> tuple[int, ...]:
        named = {value for item in text.split(",") for value in self._item(item)}
        return tuple(sorted(named))

    def _item(self, text: str) -> range:
        found = _ITEM.fullmatch(text)
        if found is None:
            raise ValueError(f"{self.name}: {text!r} is none of *, 5, 1-5, */2 and lists of them")
        step = int(found["step"] or 1)
        first = self.lowest if found["all"] else self._number(found["first"])
        open_ended = found["all"] or (found["step"] and not found["last"])  # `*/2`, and `5/2` for `5-59/2`
        last = self.highest if open_ended else self._number(found["last"] or found["first"])
        if step < 1 or last < first:
            raise ValueError(f"{self.name}: {text!r} names nothing")
        return range(first, last + 1, step)

    def _number(self, text: str) -> int:
        if text.upper() in self.words:
            return self.words.index(text.upper()) + self.lowest
        if not text.isascii() or not text.isdigit() or not self.lowest <= int(text) <= self.highest:
            raise ValueError(f"{self.name}: {text!r} is not from {self.lowest} to {self.highest}")
        return int(text)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A crontab's fields, as the numbers that they name in order; `weekdays` has 0 for Sunday."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool

    def is_on(self, day: date) -> bool:
        """Whether a day has any of the times."""
        if day.month not in self.months:
            return False
        by_number, by_name = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_number or by_name) if self.either_day else (by_number and by_name)

    def last_before(self, at: datetime, zone: tzinfo, within: timedelta) -> datetime | None:
        """The latest of the times in `zone` that is at or before `at` and less than `within` ago, in UTC.

        A time that a clock change leaves out is taken as long after midnight as it would have been; of one that comes twice, the
        first counts.
        """
        today = at.astimezone(zone).date()
        earliest = (at - within).astimezone(zone).date()
        for back in range((today - earliest).days + 1):
            found = self._last_of(today - timedelta(days=back), at, zone)
            if found is not None:
                return found if at - found < within else None
        return None

    def _last_of(self, day: date, at: datetime, zone: tzinfo) -> datetime | None:
        """The latest time of a day at or before `at`; around a clock change an earlier hour may come later."""
        found, shown = None, datetime.min
        for local in self._times_of(day):
            if found is not None and shown - local > LARGEST_CLOCK_CHANGE:
                break
            start = local.replace(tzinfo=zone).astimezone(UTC)
            if start <= at and (found is None or start > found):
                found, shown = start, local
        return found

    def _times_of(self, day: date) -> Iterator[datetime]:
        """The times of a day, as its clock shows them, the latest first."""
        if self.is_on(day):
            for hour in reversed(self.hours):
                yield from (datetime.combine(day, time(hour, minute)) for minute in reversed(self.minutes))


def parse_cron(text: str) -> Cron:
    """The times that five fields name. Raises `ValueError`, saying which field is wrong, also for times that never come."""
    words = text.split()
    if len(text) > LONGEST_TEXT or len(words) != len(_FIELDS):
        raise ValueError("needs five fields, such as `0 18 * * FRI`: minute, hour, day of month, month, day of week")
    minutes, hours, days, months, weekdays = (field.read(word) for field, word in zip(_FIELDS, words, strict=True))
    # A field that begins with a star restricts nothing, as in cron itself.
    either = not words[2].startswith("*") and not words[4].startswith("*")
    if not either and not any(days[0] <= _LONGEST_MONTH[month - 1] for month in months):
        raise ValueError("names a day that never comes")
    return Cron(minutes, hours, days, months, tuple(sorted({day % 7 for day in weekdays})), either)
