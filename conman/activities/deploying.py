"""What a pending deployment asks before it starts: for its environment's lock, and whether it may (`spec.md` 12)."""

from __future__ import annotations

from typing import Any

from temporalio import activity

from conman.domain.deploy_messages import LockQuestion, LockReply, StartQuestion, StartReply
from conman.faults import fault_point
from conman.services import deploy_start
from conman.store import locks, records
from conman.store.database import Database


class DeployingActivities:
    """Bound to one database."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.take_lock, self.judge_start]

    @activity.defn
    async def take_lock(self, question: LockQuestion) -> LockReply:
        """The lock for a deployment in line: handed to it already, or free with nobody before it."""
        app = await records.get(self.db, "apps", question.app_id, what="app")
        wanted = {question.environment_id: question.deployment_id}
        taken = await locks.take(self.db, question.app_id, wanted, question.at, wait=True)
        fault_point("lock.taken")
        return LockReply(
            fence=taken.fences.get(question.environment_id),
            holder_id=taken.holder.deployment_id if taken.holder is not None else None,
            concurrent=taken.concurrent,
            closed=taken.closed is not None,
            approval_ttl_hours=app["settings"]["approval_ttl_hours"],
        )

    @activity.defn
    async def judge_start(self, question: StartQuestion) -> StartReply:
        """Whether it may start, by the deciders that judged its request, as things are at `question.at`.

        Who asks this is pending: a mark of its lock that an earlier process has left says so again.
        """
        place = (question.app_id, question.environment_id, question.deployment_id)
        await locks.mark_waiting(self.db, *place, at=question.at)
        return await deploy_start.judge(self.db, question)
