"""What is of no more use after a time: removed by upkeep, since the embedded server has no expiring indexes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from conman.domain.ids import first_id_of
from conman.domain.times import later, milliseconds
from conman.services import failed_logins, password_resets, suite_results, temp_env_access
from conman.store.database import Database, Document
from conman.store.webhook_feed import DELIVERIES

RATE_WINDOWS: Final = "rate_windows"
_CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How long something outlives its end, so that a machine whose clock is behind never misses what it still looks at."""
_TOKENS_KNOWN: Final = timedelta(days=30)
"""How long a token that is too old is told apart from one that nobody knows."""
_LONGEST_SESSION: Final = timedelta(days=30)
"""What `session_hours` can be at most: a revoked session without an `expires_at` of its own was written before there were any."""


async def forget_expired(db: Database, at: str) -> int:
    """Remove what had had its time by `at`; how many documents. What still has entries to deliver stays."""
    settled: Document = {"outgoing.0": {"$exists": False}}
    past = later(at, -_CLOCKS_DIFFER)
    no_end: Document = {"expires_at": {"$exists": False}, "at": {"$lt": later(at, -_LONGEST_SESSION)}}
    ended: list[tuple[str, Document]] = [
        ("revoked_sessions", {"$or": [{"expires_at": {"$lt": past}}, no_end], **settled}),
        (failed_logins.COLLECTION, {"forget_at": {"$lt": past}, **settled}),
        (password_resets.COLLECTION, {"expires_at": {"$lt": later(at, -_TOKENS_KNOWN)}, "asked": {"$exists": False}}),
        (suite_results.COLLECTION, {"forget_at": {"$lt": past}}),
        (temp_env_access.LINKS, {"expires_at": {"$lt": past}}),
        (DELIVERIES, {"forget_at": {"$lt": past}}),
        (RATE_WINDOWS, {"ends_at": {"$lt": time.time() - _CLOCKS_DIFFER.total_seconds()}}),
    ]
    gone = 0
    for collection, query in ended:
        gone += (await db[collection].delete_many(query)).deleted_count
    return gone


async def forget_logs(db: Database, at: str, days: int) -> int:
    """Remove the lines of jobs' logs that are older than so many days, 0 for none; how many chunks. The jobs stay.

    A chunk's id begins with its job's, and that with the time at which the job was made: the index of ids finds them.
    """
    if days == 0:
        return 0
    before = later(at, -timedelta(days=days))
    old: Document = {"_id": {"$lt": first_id_of(milliseconds(before))}, "lines.0.at": {"$lt": before}}
    return (await db["job_logs"].delete_many(old)).deleted_count
