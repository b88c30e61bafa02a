"""Migrations: files of a release that change an environment's data, each once and in order (`spec.md` 9 and 12).

The order is that of the profile's `repo_paths`; below a folder by name, folder by folder, where digits count as numbers
(`2-b.sql` before `10-a.sql`). A file that several paths name comes where the first one names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from pydantic import Field

from conman.domain.decision import Model


class ExecutionState(StrEnum):
    """How one execution stands. One that stays `started` has no recorded result: its worker was lost, and nobody knows."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class MigrationFile(Model):
    """A migration as a release has it: its path in the repository is its name."""

    name: str
    blob_id: str


class Execution(Model):
    """What is recorded of one run of a migration in an environment."""

    name: str
    blob_id: str
    deployment_id: str
    state: ExecutionState
    started_at: str
    message: str = ""


class MigrationPlan(Model):
    """What a deployment has to do, in order. `changed` were applied with other bytes, and are not run again."""

    pending: list[MigrationFile] = Field(default_factory=list[MigrationFile])
    applied: list[str] = Field(default_factory=list[str])
    changed: list[str] = Field(default_factory=list[str])


def in_order(repo_paths: Sequence[str], blobs: Mapping[str, str]) -> list[MigrationFile]:
    """The migrations among a release's files (path → blob id), in the order in which they run."""
    found: dict[str, MigrationFile] = {}
    for path in repo_paths:
        below = [name for name in blobs if name == path or name.startswith(f"{path}/")]
        for name in sorted(below, key=_natural):
            found.setdefault(name, MigrationFile(name=name, blob_id=blobs[name]))
    return list(found.values())


def _natural(path: str) -> tuple[list[list[tuple[int, str]]], str]:
    """Name by name, so that what lies in one folder stays together; the path itself decides a tie."""
    return [[_part(part) for part in re.split(r"([0-9]+)", name)] for name in path.split("/")], path


def _part(text: str) -> tuple[int, str]:
    digits = text.lstrip("0")
    # A longer number is a greater one: no need to make one of it, however many digits it has.
    return (len(digits), digits) if text[:1].isdecimal() and text.isascii() else (0, text)


def plan(wanted: Sequence[MigrationFile], executions: Iterable[Execution]) -> MigrationPlan:
    """Those without a recorded success in this environment are to run, in their order; the others never again."""
    succeeded = {one.name: one.blob_id for one in executions if one.state is ExecutionState.SUCCEEDED}
    return MigrationPlan(
        pending=[one for one in wanted if one.name not in succeeded],
        applied=[one.name for one in wanted if one.name in succeeded],
        changed=[one.name for one in wanted if succeeded.get(one.name, one.blob_id) != one.blob_id],
    )


def unresolved(
    pending: Sequence[MigrationFile], executions: Iterable[Execution], deployment_id: str, requested_at: str
) -> Execution | None:
    """A pending migration that started without a recorded result, and that this deployment may not run again (`spec.md` 9).

    One may that was asked for after it had started: somebody has looked, and decided.
    """
    names = {one.name for one in pending}
    latest = {one.name: one for one in sorted(executions, key=lambda one: one.started_at) if one.name in names}
    for one in pending:
        found = latest.get(one.name)
        if found is None or found.state is not ExecutionState.STARTED:
            continue
        if found.deployment_id == deployment_id or requested_at <= found.started_at:
            return found
    return None


def failed_here(pending: Sequence[MigrationFile], executions: Iterable[Execution], deployment_id: str) -> Execution | None:
    """The pending migration that this very deployment has run and that failed: a repeat tells it, and runs nothing."""
    names = {one.name for one in pending}
    failed = (one for one in executions if one.state is ExecutionState.FAILED and one.deployment_id == deployment_id)
    return next((one for one in failed if one.name in names), None)
