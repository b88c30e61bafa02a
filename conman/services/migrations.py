"""The record of migrations by environment: `migration_executions` (`spec.md` 9).

{_id, app_id, environment_id, name, blob_id, command, state, started_at, ended_at, deployment_id, release_id, tag,
profile_revision_id, exit_code, message, log}: `name` is the path in the repository, `log` where in the job's log its lines are.
One deployment runs a migration at most once, which an index holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError

from conman.domain.deploy_messages import MigrateRequest
from conman.domain.migrations import Execution, ExecutionState, MigrationFile
from conman.services.clock import new_id, now
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Database, Document

EXECUTIONS = "migration_executions"


@dataclass(frozen=True, slots=True)
class Result:
    """How a migration ended; the lines `first_seq` to `last_seq` of the job's log are its own."""

    state: ExecutionState
    message: str
    exit_code: int | None
    job_id: str
    attempt: int
    first_seq: int
    last_seq: int


async def executions_of(db: Database, environment_id: str) -> list[Execution]:
    """All that is recorded of an environment, oldest first."""
    rows = db[EXECUTIONS].find({"environment_id": environment_id}).sort("_id", 1)
    return [Execution.model_validate(row) async for row in rows]


async def begin(db: Database, request: MigrateRequest, migration: MigrationFile, command: str) -> str | None:
    """Record that it starts, before it does: the execution's id. None when another attempt of this deployment started it."""
    document: Document = {
        "_id": new_id(),
        "app_id": request.app_id,
        "environment_id": request.environment_id,
        "name": migration.name,
        "blob_id": migration.blob_id,
        "command": command,
        "state": ExecutionState.STARTED.value,
        "started_at": now(),
        "ended_at": None,
        "deployment_id": request.deployment_id,
        "release_id": request.release_id,
        "tag": request.tag,
        "profile_revision_id": request.profile_revision_id,
        "exit_code": None,
        "message": "",
        "log": None,
    }
    try:
        await db[EXECUTIONS].insert_one(document)
    except DuplicateKeyError:
        return None
    return document["_id"]


async def end(db: Database, execution_id: str, result: Result) -> None:
    """Record its result, once; a repeat changes nothing."""
    log = {
        "job_id": result.job_id,
        "attempt": result.attempt,
        "first_seq": result.first_seq,
        "last_seq": result.last_seq,
    }
    await db[EXECUTIONS].update_one(
        {"_id": execution_id, "state": ExecutionState.STARTED.value},
        {
            "$set": {
                "state": result.state.value,
                "ended_at": now(),
                "message": result.message,
                "exit_code": result.exit_code,
                "log": log,
            }
        },
    )


async def page(platform: Platform, environment: Document, number: int, limit: int) -> records.Page:
    """What is recorded of an environment, newest first."""
    return await records.page(platform.db, EXECUTIONS, {"environment_id": environment["_id"]}, number=number, limit=limit)


def execution_record(document: Document) -> dict[str, Any]:
    """As it is shown (`api.md` 3)."""
    shown = {key: value for key, value in document.items() if key != "_id"}
    return {"id": document["_id"], **shown}
