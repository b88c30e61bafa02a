"""What upkeep does by itself before it sweeps: finish what was recorded, forget what has had its time (`durability.md` 3)."""

from __future__ import annotations

from conman.services import password_resets, platform_admins
from conman.services.call import forget_keys
from conman.services.expiry import forget_expired
from conman.store.database import Database


async def finish_and_forget(db: Database, at: str) -> None:
    """Carry out what processes that died had recorded of accounts; remove what has expired by `at`: keys, counters, tokens."""
    await platform_admins.settle(db)
    await password_resets.issue_left_behind(db)
    await forget_keys(db, at)
    await forget_expired(db, at)
