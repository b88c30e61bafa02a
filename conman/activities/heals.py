"""The activity that lets a drifted environment be healed (`spec.md` 12, `drift_policy: heal`)."""

from __future__ import annotations

from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.domain.deploy_messages import HealQuestion, HealReply
from conman.domain.heal import HealLimits
from conman.services.heals import heal
from conman.store.database import Database
from conman.workflows.client import Commands


class HealActivities:
    """Bound to the records, the way to workflows, and the limits."""

    def __init__(self, db: Database, commands: Commands, limits: HealLimits) -> None:
        self.db = db
        self.commands = commands
        self.limits = limits

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.heal_environment]

    @activity.defn
    async def heal_environment(self, question: HealQuestion) -> HealReply:
        """Start the deployment that puts back what was last applied, where policy, limits and lock let it be."""
        async with heartbeating():
            made = await heal(self.db, question.app_id, question.environment_id, question.at, self.limits)
            if made is None:
                return HealReply()
            start = self.commands.deployment_start(question.app_id, made["_id"], "heal: put back what was last applied")
            await self.commands.start(start)
            return HealReply(deployment_id=made["_id"])
