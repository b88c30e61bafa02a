"""Activities that seal the audit, and put the heads of its chains outside the database."""

from __future__ import annotations

from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.git.adapter import GitAdapter
from conman.services.audit_anchor import anchor_all
from conman.services.clock import now
from conman.services.sealing import seal_all
from conman.store.database import Database


class SealingActivities:
    """Bound to the records and one Git backend."""

    def __init__(self, db: Database, git: GitAdapter) -> None:
        self.db = db
        self.git = git

    def on_main(self) -> list[Any]:
        """The activity for the store's queue."""
        return [self.seal_audit]

    def on_git(self) -> list[Any]:
        """The activity for the queue of Git work."""
        return [self.anchor_audit]

    @activity.defn
    async def seal_audit(self) -> int:
        """Seal the events that wait; returns how many were."""
        async with heartbeating():
            return await seal_all(self.db, now())

    @activity.defn
    async def anchor_audit(self) -> int:
        """Commit the heads of the chains that have grown to their repositories; returns how many."""
        async with heartbeating():
            return await anchor_all(self.db, self.git, now())
