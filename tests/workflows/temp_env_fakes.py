"""What a temp env is made of, and when it was used, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from workflow_names import sha, uid

from conman.activities.heartbeat import heartbeating
from conman.domain.temp_env_messages import (
    BranchMade,
    CleanUpReply,
    DatabaseMade,
    ProfileMade,
    TempEnvRef,
    UseQuestion,
    UseReply,
)

CLEAN = CleanUpReply(database_dropped=True, branch_deleted=True)


@dataclass
class TempEnvs:
    """One temp env. `goes_wrong` is asked before each step, by its name, and may raise or wait; `done` is what was asked for."""

    profile: ProfileMade = field(default_factory=lambda: ProfileMade(runtime_profile_id=uid("derived")))
    use: Callable[[], UseReply] = UseReply
    cleaned: Callable[[TempEnvRef], CleanUpReply] = lambda _: CLEAN
    goes_wrong: Callable[[str, TempEnvRef], Any] = lambda step, ref: None
    done: list[tuple[str, str, int]] = field(default_factory=list)
    looks: int = 0
    limit_seconds: int = 300
    canceled: list[str] = field(default_factory=list)

    def steps(self) -> list[str]:
        """The names of the steps, in order."""
        return [step for step, _, _ in self.done]

    async def _step(self, step: str, ref: TempEnvRef) -> None:
        self.done.append((step, ref.job_id, ref.attempt))
        trouble = self.goes_wrong(step, ref)
        if trouble is not None:
            async with heartbeating():
                try:
                    await trouble
                except asyncio.CancelledError:
                    self.canceled.append(step)
                    raise

    @activity.defn
    async def provision_branch(self, ref: TempEnvRef) -> BranchMade:
        await self._step("branch", ref)
        return BranchMade(branch="conman/temp/calm-heron", head_sha=sha("head"), limit_seconds=self.limit_seconds)

    @activity.defn
    async def provision_profile(self, ref: TempEnvRef) -> ProfileMade:
        await self._step("profile", ref)
        return self.profile

    @activity.defn
    async def provision_database(self, ref: TempEnvRef) -> DatabaseMade:
        await self._step("database", ref)
        return DatabaseMade(db_name="conman_temp_1", how="copied", collections=2, documents=30)

    @activity.defn
    async def clean_up_temp_env(self, ref: TempEnvRef) -> CleanUpReply:
        await self._step("clean up", ref)
        return self.cleaned(ref)

    @activity.defn
    async def temp_env_use(self, _question: UseQuestion) -> UseReply:
        self.looks += 1
        return self.use()

    @activity.defn
    async def sweep_temp_orphans(self) -> dict[str, int]:
        return {"seen": 2, "removed": 1}

    def store(self) -> list[Callable[..., Any]]:
        return [self.temp_env_use]

    def git(self) -> list[Callable[..., Any]]:
        steps = [self.provision_branch, self.provision_profile, self.provision_database, self.clean_up_temp_env]
        return [*steps, self.sweep_temp_orphans]
