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


async def test_temp_envs_that_sleep_are_looked_at_in_turns_and_all_of_them_by_hand(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "SLEEPERS", 2)
    states = [("active", None)] * 4 + [("expired", None), ("expired", "job"), ("provisioning", None), ("deleted", "job")]
    ids = [f"temp-env-{number:04x}" for number in range(len(states))]
    await db["temp_envs"].insert_many(
        [
            {"_id": temp_id, "app_id": "app", "owned": {"state": state, "expire_job_id": job}}
            for temp_id, (state, job) in zip(ids, states, strict=True)
        ]
    )
    await db["temp_envs"].insert_one({"_id": "deleted:workspace", "live_slot": "workspace:1"})
    busy = {f"temp-env:{ids[5]}", f"temp-env:{ids[6]}"}

    seen: list[set[str]] = []
    for minute in range(3):
        server = Server()
        monkeypatch.setattr(reconcile, "now", lambda minute=minute: f"2026-03-01T09:{minute:02}:00.000Z")
        await reconcile.start_missing(db, Commands(server))  # pyright: ignore[reportArgumentType]
        assert busy < set(server.started)
        seen.append(set(server.started) - busy)
    assert sorted(one for turn in seen for one in turn) == sorted(f"temp-env:{temp_id}" for temp_id in ids[:5])

    server = Server()
    await reconcile.start_missing(db, Commands(server), everyone=True)  # pyright: ignore[reportArgumentType]
    assert set(server.started) == {f"temp-env:{temp_id}" for temp_id in ids[:7]}
