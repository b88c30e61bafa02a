"""The activity that runs an environment's migrations: once each, in order, recorded before and after (`spec.md` 9 and 12)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio import activity

from conman.activities.deploy_log import DeployLog, deploy_log
from conman.activities.heartbeat import heartbeating
from conman.activities.targets import failure_of
from conman.config import Settings
from conman.domain.deploy_messages import MigrateReply, MigrateRequest
from conman.domain.jobs import ReasonCode
from conman.domain.messages import SwitchRequest
from conman.domain.migrations import ExecutionState, MigrationFile, MigrationPlan, failed_here, in_order, plan, unresolved
from conman.domain.profile import ProfileMigrations
from conman.domain.redaction import Redactor
from conman.faults import fault_point
from conman.git.adapter import EntryType, GitAdapter, GitError
from conman.programs.operators import ProgramRun, run_program
from conman.programs.runner import RunResult
from conman.programs.runner_output import Stream
from conman.services import migrations
from conman.services.vault import Vault
from conman.settings.programs import Program, ProgramKind
from conman.store import records
from conman.store.database import Database
from conman.targets.base import DeployOrder, TargetError, telling, unreadable
from conman.targets.folder import state_file
from conman.targets.health import about
from conman.targets.registry import Targets, unknown_program
from conman.targets.scratch import scratch_folder, written_profile

TIME_FOR_ALL_SECONDS = 780.0
"""What the migrations of one deployment may take together, within the 15 minutes of the activity, seconds."""

_RUN_AGAIN = "Look at the environment's data. A deployment that is asked for from now on runs it again."


@dataclass(frozen=True, slots=True)
class _Work:
    """One deployment's migrations: what to run, by which program, and where."""

    request: MigrateRequest
    order: DeployOrder
    profile: ProfileMigrations
    program: Program
    log: DeployLog
    plan: MigrationPlan
    deadline: float


class MigrationActivities:
    """Bound to the records, the targets, and the operator's migration commands."""

    def __init__(self, settings: Settings, db: Database, git: GitAdapter, vault: Vault) -> None:
        self.settings = settings
        self.db = db
        self.git = git
        self.targets = Targets(settings, db, git, vault)

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.run_migrations]

    @activity.defn
    async def run_migrations(self, request: MigrateRequest) -> MigrateReply:
        """Run those without a recorded success in this environment; the first failure stops the rest.

        A repeat runs none that this deployment has begun: it tells the recorded failure, or that a result is missing.
        """
        deadline = asyncio.get_running_loop().time() + TIME_FOR_ALL_SECONDS
        async with heartbeating(), deploy_log(self.db, request.deployment_id) as log:
            try:
                reply = await self._migrate(request, log, deadline)
            except TargetError as error:
                await log.tell(Stream.SYSTEM, error.message)
                raise failure_of(error) from error
            if reply.message:
                await log.tell(Stream.SYSTEM, reply.message)
        return reply

    async def _migrate(self, request: MigrateRequest, log: DeployLog, deadline: float) -> MigrateReply:
        order = await self.targets.order(_as_switch(request), log.tell)
        profile = order.rendered.profile.migrations
        if profile is None:
            return MigrateReply()
        todo = plan(await self._wanted(order, profile), done := await migrations.executions_of(self.db, request.environment_id))
        skipped = len(todo.applied)
        deployment = await records.find(self.db, "deployments", request.deployment_id)
        requested_at = deployment["owned"]["requested_at"] if deployment is not None else ""
        if (failed := failed_here(todo.pending, done, request.deployment_id)) is not None:
            return MigrateReply(skipped=skipped, failed=failed.name, message=failed.message)
        if (lost := unresolved(todo.pending, done, request.deployment_id, requested_at)) is not None:
            return _no_result(lost.name, skipped=skipped, ran=0)
        if not todo.pending:
            return MigrateReply(skipped=skipped, message=_changed(todo))
        program = self.settings.program(ProgramKind.MIGRATION, profile.command_ref)
        if program is None:
            raise unknown_program("migration command", profile.command_ref)
        return await self._run_all(_Work(request, order, profile, program, log, todo, deadline))

    async def _wanted(self, order: DeployOrder, profile: ProfileMigrations) -> list[MigrationFile]:
        try:
            entries = await self.git.list_tree(order.repo_path, order.commit_sha, recursive=True)
        except GitError as error:
            raise unreadable(error) from error
        return in_order(profile.repo_paths, {entry.path: entry.blob_id for entry in entries if entry.type is EntryType.BLOB})

    async def _run_all(self, work: _Work) -> MigrateReply:
        ran, skipped = 0, len(work.plan.applied)
        async with scratch_folder(self.targets.scratch, work.order.job_id, "migrate") as folder:
            tree = folder / "files"
            try:
                await self.git.export(work.order.repo_path, work.order.commit_sha, tree)
            except GitError as error:
                raise unreadable(error) from error
            files = await written_profile(work.order.rendered, folder)
            for migration in work.plan.pending:
                left = work.deadline - asyncio.get_running_loop().time()
                if left < 1:
                    message = f"{migration.name} and what comes after it did not begin: the time for migrations is over."
                    return MigrateReply(ran=ran, skipped=skipped, failed=migration.name, message=message)
                await work.order.still_holds()
                execution_id = await migrations.begin(self.db, work.request, migration, work.profile.command_ref)
                if execution_id is None:
                    return _no_result(migration.name, skipped=skipped, ran=ran)
                fault_point("migration.begun")
                result = await self._run_one(work, migration, folder, files, left)
                fault_point("migration.ran")
                await migrations.end(self.db, execution_id, result)
                fault_point("migration.recorded")
                if result.state is ExecutionState.FAILED:
                    return MigrateReply(ran=ran, skipped=skipped, failed=migration.name, message=result.message)
                ran += 1
        return MigrateReply(ran=ran, skipped=skipped, message=_changed(work.plan))

    async def _run_one(
        self, work: _Work, migration: MigrationFile, folder: Path, files: dict[str, str], left: float
    ) -> migrations.Result:
        order, log = work.order, work.log
        await log.tell(Stream.SYSTEM, f"migration {migration.name} starts")
        first = log.seq
        shown_at = self.targets.shown_at(order)
        run = ProgramRun(
            program=work.program,
            arguments=(str(folder / "files" / migration.name),),
            cwd=folder / "files",
            timeout_seconds=min(self.settings.migration_timeout_seconds, left),
            env={
                **order.rendered.environment,
                **about(order, shown_at),
                "CONMAN_MIGRATION": migration.name,
                "CONMAN_APPLIED_STATE": _applied_state(work.profile, shown_at),
                "CONMAN_PROFILE_ENV": files["profile_env"],
                "CONMAN_PROFILE_JSON": files["profile_json"],
                "HOME": str(folder),
                "TMPDIR": str(folder),
            },
            redact=tuple(order.rendered.secrets.values()),
        )
        result = await run_program(self.settings, run, telling(log.tell))
        message = _said(migration.name, result, Redactor(run.redact))
        await log.tell(Stream.SYSTEM, message)
        state = ExecutionState.SUCCEEDED if result.reason is ReasonCode.OK else ExecutionState.FAILED
        return migrations.Result(state, message, result.exit_code, log.job_id, log.attempt, first, log.seq)


def _as_switch(request: MigrateRequest) -> SwitchRequest:
    return SwitchRequest(
        app_id=request.app_id,
        environment_id=request.environment_id,
        deployment_id=request.deployment_id,
        release_id=request.release_id,
        tag=request.tag,
        commit_sha=request.commit_sha,
        profile_id=request.profile_id,
        profile_revision_id=request.profile_revision_id,
        fence=request.fence,
    )


def _applied_state(profile: ProfileMigrations, shown_at: str | None) -> str:
    """`applied_state_ref` as the profile has it, or the file that it means for the target `directory`."""
    reference = profile.applied_state_ref or ""
    file = state_file(Path(shown_at).parent, reference) if shown_at is not None else None
    return str(file) if file is not None else reference


def _no_result(name: str, *, ran: int, skipped: int) -> MigrateReply:
    message = f"The migration {name} started and has no recorded result: it is not run again by itself. {_RUN_AGAIN}"
    return MigrateReply(ran=ran, skipped=skipped, failed=name, message=message, infrastructure=True)


def _said(name: str, result: RunResult, redactor: Redactor) -> str:
    if result.reason is ReasonCode.OK:
        return f"The migration {name} succeeded."
    if result.reason is ReasonCode.TESTS_FAILED:
        how = f"exit code {result.exit_code}" if result.exit_code is not None else f"signal {result.signal}"
        return f"The migration {name} failed with {how}; see the job's log."
    return f"The migration {name} failed: {redactor.scrub_text(result.message)}"


def _changed(todo: MigrationPlan) -> str:
    if not todo.changed:
        return ""
    return f"Applied here with other bytes than the release has, and not run again: {', '.join(todo.changed)[:1000]}."
