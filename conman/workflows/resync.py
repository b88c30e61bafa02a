"""A workflow and its record are compared from outside, and brought together again where they differ (`durability.md` 20)."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from conman.workflows.entity import Entity


class Resynced:
    """What every workflow that owns a part of a record answers to beside its own commands."""

    entity: Entity[Any]

    @workflow.signal
    async def resync(self) -> None:
        """The record may not be what this workflow knows: under the lock, one that is ahead is adopted, one behind rewritten."""
        await self.entity.resync()

    @workflow.query
    def owned_version(self) -> int | None:
        """The version of what it owns; None before it has read its record, and when that is gone.

        A write reaches the record first: one that is read after this answer and has a lower version is behind.
        """
        return self.entity.state.version if self.entity.loaded else None


__all__ = ["Resynced"]
