"""Upkeep comes to every record that calls for a workflow, however many there are (`durability.md` 20)."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import Mock

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.activities import reconcile
from conman.store.database import Database
from conman.workflows.client import Commands


@dataclass
class Server:
    """A Temporal server that has lost all, and what was started on it since."""

    started: list[str] = field(default_factory=list[str])

    def get_workflow_handle(self, workflow_id: str) -> Mock:
        async def describe() -> Mock:
            if workflow_id not in self.started:
                raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")
            return Mock(status=WorkflowExecutionStatus.RUNNING)

        return Mock(describe=describe)

    async def start_workflow(self, _workflow: str, _start: object, *, id: str, **_options: object) -> None:
        self.started.append(id)


async def test_those_behind_the_first_page_are_started_in_the_same_round(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "PAGE", 3)
    names = [f"cs-{number}" for number in range(8)]
    await db["changesets"].insert_many(
        [{"_id": name, "app_id": "app", "owned": {"state": "submitted", "gate": {"state": "queued"}}} for name in names]
    )
    server = Server()
    assert await reconcile.start_missing(db, Commands(server)) == 8  # pyright: ignore[reportArgumentType]
    assert server.started == [f"changeset:{name}" for name in names]
    assert await reconcile.start_missing(db, Commands(server)) == 0  # pyright: ignore[reportArgumentType]
