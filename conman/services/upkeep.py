"""What upkeep does by itself before it sweeps: finish what was recorded, forget what has had its time (`durability.md` 3)."""

from __future__ import annotations

from conman.services import disabling, environments, invites, password_resets, platform_admins, standstill
from conman.services.call import forget_keys
from conman.services.expiry import forget_expired
from conman.store import memberships
from conman.store.database import Database


async def finish_and_forget(db: Database, at: str) -> None:
    """Carry out what processes that died had recorded of accounts and apps, or undo it where it can't be carried out; remove what
    has expired by `at`: keys, counters, tokens.
    """
    await platform_admins.settle(db)
    await memberships.settle_all(db)
    await disabling.give_up_cut_short(db, at)
    await invites.finish(db, at)
    await standstill.abandon_old(db)
    await environments.settle_all(db)
    await password_resets.issue_left_behind(db)
    await forget_keys(db, at)
    await forget_expired(db, at)
