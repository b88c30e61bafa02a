"""Upkeep finds the sweeps whose process somebody terminated (`durability.md` 20): the record waits, and nothing runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.activities.reconcile import start_lost_sweeps
from conman.store.database import Database
from conman.workflows.client import Commands


@dataclass
class Handle:
    """The handle of one workflow id, and what it was told."""

    status: WorkflowExecutionStatus | None
    signals: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])

    async def describe(self) -> Any:
        if self.status is None:
            raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")
        return Mock(status=self.status)

    async def signal(self, name: str, argument: Any) -> None:
        self.signals.append((name, argument))


async def test_only_queues_whose_sweep_does_not_run_are_told(db: Database) -> None:
    sweeps = {
        "revalidation:terminated:3": WorkflowExecutionStatus.TERMINATED,
        "revalidation:runs:4": WorkflowExecutionStatus.RUNNING,
        "revalidation:gone:5": None,
    }
    handles = {name: Handle(status) for name, status in sweeps.items()}
    queues = ("terminated", "runs", "gone", "idle", "starting")
    handles |= {f"queue:{name}": Handle(WorkflowExecutionStatus.RUNNING) for name in queues}
    await db["queues"].insert_many(
        [
            {"_id": name, "owned": {"epoch": epoch, "sweep": sweep, "sweep_started": started}}
            for name, epoch, sweep, started in (
                ("terminated", 3, {"epoch": 3}, True),
                ("runs", 4, {"epoch": 4}, True),
                ("gone", 5, {"epoch": 5}, True),
                ("idle", 6, None, True),
                ("starting", 7, {"epoch": 7}, False),  # its queue is about to start it, and `start_missing` sees to that
            )
        ]
    )
    client = Mock(get_workflow_handle=handles.__getitem__)
    assert await start_lost_sweeps(db, Commands(client)) == 2
    told = {name: handles[f"queue:{name}"].signals for name in queues}
    assert told == {
        "terminated": [("sweep_lost", 3)],
        "gone": [("sweep_lost", 5)],
        "runs": [],
        "idle": [],
        "starting": [],
    }
