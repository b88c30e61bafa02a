"""Upkeep finds the records that differ from what their workflows know, and tells those workflows (`durability.md` 20)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from unittest.mock import Mock

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowQueryRejectedError
from temporalio.service import RPCError, RPCStatusCode

from conman.activities import resync
from conman.store.database import Database


@dataclass
class Server:
    """Workflows and the versions that they know: None is one that has ended; `silent` ones have no worker."""

    known: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    silent: set[str] = field(default_factory=set[str])
    asked: list[str] = field(default_factory=list[str])
    told: list[str] = field(default_factory=list[str])
    meanwhile: Callable[[], None] = lambda: None

    def get_workflow_handle(self, workflow_id: str) -> Mock:
        async def query(_name: str, **_options: object) -> int:
            self.asked.append(workflow_id)
            if workflow_id in self.silent:
                raise RPCError("no worker answered", RPCStatusCode.DEADLINE_EXCEEDED, b"")
            if workflow_id not in self.known:
                raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")
            version = self.known[workflow_id]
            if version is None:
                raise WorkflowQueryRejectedError(WorkflowExecutionStatus.COMPLETED)
            self.meanwhile()
            return version

        async def signal(_name: str) -> None:
            self.told.append(workflow_id)

        return Mock(query=query, signal=signal)


async def _all(db: Database, server: Server) -> int:
    return await resync.resync_all(db, server)  # pyright: ignore[reportArgumentType]


async def _some(db: Database, server: Server) -> int:
    return await resync.resync_some(db, server)  # pyright: ignore[reportArgumentType]


async def _changesets(db: Database, **versions: int) -> None:
    await db["changesets"].insert_many(
        [{"_id": name, "owned": {"state": "submitted", "version": version}} for name, version in versions.items()]
    )


async def test_only_a_workflow_whose_record_differs_is_told(db: Database) -> None:
    await _changesets(db, same=3, behind=2, ahead=5, ended=1, never=1)
    await db["changesets"].insert_one({"_id": "over", "owned": {"state": "withdrawn", "version": 2}})
    server = Server({f"changeset:{name}": 3 for name in ("same", "behind", "ahead", "over")} | {"changeset:ended": None})
    assert await _all(db, server) == 2
    assert sorted(server.told) == ["changeset:ahead", "changeset:behind"]


async def test_every_kind_of_record_is_looked_at_while_its_workflow_may_run(db: Database) -> None:
    owned = {
        "queues": {"state": None},
        "changesets": {"state": "needs_revalidation"},
        "releases": {"state": "published", "told": False, "publishing": None},
        "deployments": {"state": "running"},
        "temp_envs": {"state": "expired"},
    }
    for collection, fields in owned.items():
        await db[collection].insert_one({"_id": "x", "label": "x", "owned": {**fields, "version": 1}})
    kinds = ("queue", "changeset", "release", "deployment", "temp-env")
    server = Server({f"{kind}:x": 2 for kind in kinds})
    assert await _all(db, server) == len(owned)
    assert set(server.told) == {f"{kind}:x" for kind in kinds}


async def test_a_record_that_was_written_since_its_workflow_answered_is_not_behind_and_one_that_it_hears_of_not_ahead(
    db: Database,
) -> None:
    await _changesets(db, busy=4)
    server = Server({"changeset:busy": 3})
    server.meanwhile = lambda: server.known.update({"changeset:busy": 4})
    assert await _all(db, server) == 0


async def test_by_hand_the_silent_are_told_too_and_upkeep_leaves_them_to_a_later_round(db: Database) -> None:
    await _changesets(db, one=1)
    server = Server(silent={"changeset:one"})
    assert (await _some(db, server), server.told) == (0, [])
    assert (await _all(db, server), server.told) == (1, ["changeset:one"])


async def test_rounds_of_bounded_cost_come_to_every_record_and_begin_again(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "A_ROUND", 3)
    await _changesets(db, **{f"cs{number}": 1 for number in range(5)})
    await db["queues"].insert_one({"_id": "app", "owned": {"version": 1}})
    await db["deployments"].insert_one({"_id": "d", "owned": {"state": "pending", "version": 1}})
    everything = [*(f"changeset:cs{number}" for number in range(5)), "deployment:d", "queue:app"]
    server = Server()
    rounds: list[list[str]] = []
    for _ in range(5):
        server.asked.clear()
        await _some(db, server)
        rounds.append(sorted(server.asked))
    assert max(len(asked) for asked in rounds) == 3
    assert {one for asked in rounds[:3] for one in asked} == set(everything)
    assert {one for asked in rounds[3:] for one in asked} <= set(everything)
    assert rounds[4]


async def test_a_round_with_little_to_look_at_ends(db: Database) -> None:
    await _changesets(db, one=1)
    server = Server({"changeset:one": 2})
    assert [await _some(db, server) for _ in range(2)] == [1, 1]
