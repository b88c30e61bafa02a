"""The clock of services and activities; workflows have their own."""

from __future__ import annotations

from datetime import UTC, datetime

from conman.domain.ids import random_uuid7
from conman.domain.times import format_time, milliseconds


def now() -> str:
    """The present time as Conman writes times."""
    return format_time(datetime.now(UTC))


def new_id(at: str | None = None) -> str:
    """A fresh UUIDv7."""
    return random_uuid7(milliseconds(at or now()))
