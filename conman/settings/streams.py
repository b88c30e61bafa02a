"""Settings of live streams: events and jobs' logs."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

FEED_HOURS = 24


class StreamSettings(BaseSettings):
    """Server-sent events (`api.md` 3)."""

    streams_of_user: int = Field(
        default=250,
        ge=1,
        le=100_000,
        description="Streams of events and logs that one user may have open at one API process; more are answered 429.",
    )
    streams: int = Field(
        default=800,
        ge=1,
        le=100_000,
        description="Streams that one API process holds open; more are answered 503. Each takes a file descriptor: mind the"
        " process's limit, which is often 1,024.",
    )
    feed_hours: int = Field(
        default=FEED_HOURS,
        ge=1,
        le=8760,
        description="How long events are kept for clients that were away, hours; one that comes back later is told to read the"
        " records anew.",
    )
