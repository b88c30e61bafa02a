"""The activity of a gate: the exact commit in a scratch folder, the profile rendered, the suite in its own process group."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import bson
from bson.errors import BSONError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman import __version__, msuite
from conman.activities.heartbeat import heartbeating
from conman.activities.job_log import LogWriter
from conman.activities.progress import Progress, read_file
from conman.config import Settings
from conman.domain.app import ValidationGate
from conman.domain.decision import Verdict
from conman.domain.errors import DomainError
from conman.domain.jobs import JobType, ReasonCode, end_state
from conman.domain.jobs import timeout_seconds as default_timeout
from conman.domain.messages import GateRun, GateStart
from conman.domain.overrides import frozen_of
from conman.domain.redaction import Redactor
from conman.domain.suite_result import VOIDING, ReusePolicy, SuiteInput, SuiteResult
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError
from conman.programs.operators import without_loaders
from conman.programs.runner import CommandSpec, OutputLine, RunResult, run_command
from conman.programs.runner_output import Stream
from conman.services import suite_results
from conman.services.clock import now
from conman.services.rendering import PROFILE_ENV, PROFILE_JSON, RenderedProfile, render
from conman.services.secrets import Secrets
from conman.services.temp_env_use import profile_to_test_with, touch
from conman.services.vault import Vault, VaultError
from conman.settings.programs import ProgramKind
from conman.store import feed, records
from conman.store.database import Database, Document
from conman.store.outgoing import TERMINAL_JOB_STATES

KILL_GRACE_SECONDS = 5.0
MIB = 1024 * 1024
REPORT = "report.json"
PROGRESS = "progress.json"
REPORT_LIMIT_BYTES = 256 * 1024
"""A report larger than this is left out of the job's summary."""
REPORT_DEPTH = 64
"""A report nested deeper than this is left out too: MongoDB keeps 100 levels, those around it included."""


class GateActivities:
    """Bound to the records, the Git backend, the master keys and the operator's commands."""

    def __init__(self, settings: Settings, db: Database, git: GitAdapter, vault: Vault) -> None:
        self.settings = settings
        self.db = db
        self.git = git
        self.secrets = Secrets(db, vault)
        self.scratch = (settings.data / "scratch").resolve()

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.run_gate]

    async def clear_left_behind(self) -> None:
        """Remove the scratch of programs whose worker died, once their job has ended: a rendered profile may lie there."""
        for folder in await asyncio.to_thread(lambda: sorted(self.scratch.glob("*"))):
            job = await self.db["jobs"].find_one({"_id": folder.name.rsplit("-", 2)[0]}, {"state": 1})
            if job is None or job["state"] in TERMINAL_JOB_STATES:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @activity.defn
    async def run_gate(self, run: GateRun) -> Verdict:
        """One attempt; its log is kept beside those of earlier attempts."""
        gate = run.gate
        await self._started(gate.job_id, run.attempt)
        fault_point("gate.started")
        folder = self.scratch / f"{gate.job_id}-{run.attempt}-{activity.info().attempt}"
        canceled = asyncio.Event()
        async with heartbeating():
            work = asyncio.create_task(self._run(run, folder, canceled))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                canceled.set()
                verdict = await work
                if activity.is_worker_shutdown():
                    raise ApplicationError("the worker was stopped; another one runs it again", type="infrastructure") from None
                if verdict.reason_code is ReasonCode.OK:
                    return verdict
                raise
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _started(self, job_id: str, attempt: int) -> None:
        at = now()
        await self.db["jobs"].update_one({"_id": job_id, "state": "queued"}, {"$set": {"state": "running", "started_at": at}})
        await self.db["jobs"].update_one(
            {"_id": job_id, "state": "running"}, {"$set": {"attempt": attempt, "updated_at": at}, "$inc": {"version": 1}}
        )
        await feed.tell_jobs(self.db, [job_id])

    async def _run(self, run: GateRun, folder: Path, canceled: asyncio.Event) -> Verdict:
        gate = run.gate
        log = LogWriter(self.db, gate.job_id, run.attempt)
        tree = folder / "tree"
        await asyncio.to_thread(_fresh, folder, tree, gate.job_id)
        app = await records.get(self.db, "apps", gate.app_id, what="app")
        chosen = ValidationGate.model_validate(app["settings"]["validation_gates"].get(gate.scope, {}))
        suite = self._suite(chosen.command)
        if suite is None:
            message = (
                f"This worker knows no msuite command {chosen.command!r}: its operator adds it to CONMAN_COMMANDS_FILE, "
                "or an app admin chooses another one."
            )
            return await _not_run(run, log, ReasonCode.RUNNER_ERROR, message)
        temp_env_id, base_id = await self._base(app, gate)
        await self._used(temp_env_id)
        try:
            overrides = frozen_of(gate.overrides)
            rendered = await render(self.secrets, app, gate.profile_id or base_id, gate.profile_revision_id, overrides)
        except VaultError as error:
            return await _not_run(run, log, ReasonCode.INFRASTRUCTURE, f"The profile can't be rendered: {error.message}.")
        except DomainError as error:
            return await _not_run(run, log, ReasonCode.RUNNER_ERROR, f"The profile can't be rendered: {error.message}")
        except LookupError as error:
            return await _not_run(run, log, ReasonCode.INFRASTRUCTURE, f"The profile can't be rendered: {error.args[0]}.")
        policy = ReusePolicy(gate.scope, chosen.reuse, self.settings.suite_reuse_hours, gate.fresh)
        timeout_seconds = float(chosen.timeout_seconds or run.timeout_seconds)
        try:
            key: str | None = None
            if policy.keeps:
                tree_id = (await self.git.commit(app["repo_path"], gate.commit_sha)).tree_id
                key = await self._key(gate, tree_id, chosen.command, suite, rendered, timeout_seconds)
            earlier = None if key is None else await suite_results.find(self.db, key)
            if earlier is not None and policy.accepts(earlier, gate.job_id, now()):
                return await _taken_over(run, log, earlier)
            await asyncio.to_thread(rendered.write, folder)
            await self.git.export(app["repo_path"], gate.commit_sha, tree)
        except GitError as error:
            raise ApplicationError(str(error), type=ReasonCode.GIT_ERROR.value, non_retryable=True) from error
        spec = CommandSpec(
            argv=suite.argv,
            cwd=tree,
            env={**without_loaders(rendered.environment), **_about(run, app, folder)},
            timeout_seconds=timeout_seconds,
            cpu_seconds=self.settings.gate_cpu_seconds,
            memory_bytes=self.settings.gate_memory_mb * MIB,
            output_bytes=self.settings.gate_output_bytes,
            kill_grace_seconds=KILL_GRACE_SECONDS,
            redact=tuple(rendered.secrets.values()),
        )
        progress = Progress(self.db, gate.job_id, folder / PROGRESS, Redactor(spec.redact))
        beside = [asyncio.create_task(log.flushing()), asyncio.create_task(progress.following())]
        try:
            result = await run_command(spec, log.write, canceled)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await log.flush()
            await self._used(temp_env_id)
        await progress.show()
        fault_point("gate.ended")
        verdict = await _verdict(run, result, folder, rendered)
        return verdict if key is None else await self._remembered(key, verdict)

    async def _base(self, app: Document, gate: GateStart) -> tuple[str | None, str | None]:
        """The profile of a gate that names none, and the temp env whose it is: the app's own, but for a submit of what has a temp
        env that can be used (`spec.md` 9).
        """
        about_source = gate.job_type is JobType.MSUITE_SUBMIT
        found = await profile_to_test_with(self.db, gate.entity_id) if about_source else None
        return found or (None, app["settings"]["default_base_profile_id"])

    async def _used(self, temp_env_id: str | None) -> None:
        """A test run on a temp env is a use of it, from its beginning to its end (`spec.md` 13)."""
        if temp_env_id is not None:
            await touch(self.db, temp_env_id, now())

    async def would_reuse(self, gate: GateStart, tree_id: str) -> bool:
        """Whether a gate on this tree would be answered from a kept result now, as far as this process has the worker's commands
        and limits: with others the suite runs, so the answer is False.
        """
        app = await records.get(self.db, "apps", gate.app_id, what="app")
        chosen = ValidationGate.model_validate(app["settings"]["validation_gates"].get(gate.scope, {}))
        suite = self._suite(chosen.command)
        policy = ReusePolicy(gate.scope, chosen.reuse, self.settings.suite_reuse_hours, gate.fresh)
        if suite is None or not policy.keeps:
            return False
        base_id, overrides = app["settings"]["default_base_profile_id"], frozen_of(gate.overrides)
        try:
            rendered = await render(self.secrets, app, gate.profile_id or base_id, gate.profile_revision_id, overrides)
        except (VaultError, DomainError, LookupError):
            return False  # the gate itself will say what is wrong with the profile
        timeout_seconds = float(chosen.timeout_seconds or default_timeout(gate.job_type))
        key = await self._key(gate, tree_id, chosen.command, suite, rendered, timeout_seconds)
        earlier = await suite_results.find(self.db, key)
        return earlier is not None and policy.accepts(earlier, gate.job_id, now())

    async def _key(
        self, gate: GateStart, tree_id: str, command: str, suite: _Suite, rendered: RenderedProfile, timeout_seconds: float
    ) -> str:
        """The key of the results for just this input."""
        program = await asyncio.to_thread(
            suite_results.program_digest, suite.version, suite.argv, without_loaders(rendered.environment), suite.parts
        )
        return SuiteInput(
            app_id=gate.app_id,
            scope=gate.scope,
            tree_id=tree_id,
            profile=rendered.digest(self.secrets.vault),
            command=command,
            argv=suite.argv,
            program=program,
            timeout_seconds=timeout_seconds,
            cpu_seconds=self.settings.gate_cpu_seconds,
            memory_bytes=self.settings.gate_memory_mb * MIB,
        ).key

    async def _remembered(self, key: str, verdict: Verdict) -> Verdict:
        """Keep a result that others may reuse, or forget one that it contradicts and say so: a flaky suite can't hide."""
        summary = verdict.summary or {}
        if verdict.reason_code is ReasonCode.OK:
            kept = SuiteResult(
                job_id=verdict.job_id,
                attempt=verdict.attempt,
                ended_at=now(),
                report=summary.get("report"),
            )
            await suite_results.keep(self.db, key, kept, self.settings.suite_reuse_hours)
            fault_point("gate.kept")
        voided = await suite_results.void(self.db, key) if verdict.reason_code in VOIDING else None
        if voided is None:
            return verdict
        passed = f"It passed on the same tree, profile and command at {voided.ended_at}, in job {voided.job_id}: it may be flaky."
        message = f"{summary.get('message', '')} {passed}".strip()
        return verdict.model_copy(update={"summary": {**summary, "message": message}})

    def _suite(self, name: str) -> _Suite | None:
        """The operator's command of this name; `conman msuite` is this very program, without a shell's detours."""
        program = self.settings.program(ProgramKind.MSUITE, name)
        if program is None:
            return None
        if program.argv[:2] == ("conman", "msuite"):
            parts = sorted(Path(msuite.__file__).parent.glob("*.py"))
            # Without `-P` a package of this name in the checkout would run in its place.
            return _Suite((sys.executable, "-P", "-m", "conman.msuite", *program.argv[2:]), __version__, tuple(parts))
        return _Suite(program.argv, program.version)


@dataclass(frozen=True, slots=True)
class _Suite:
    """A command, what its operator calls its version, and the files that it is made of beside those that its words name."""

    argv: tuple[str, ...]
    version: str
    parts: tuple[Path, ...] = ()


def _about(run: GateRun, app: Document, folder: Path) -> dict[str, str]:
    """What the suite may want to know, beside its profile."""
    gate = run.gate
    return {
        "CONMAN_APP": app["name"],
        "CONMAN_COMMIT": gate.commit_sha,
        "CONMAN_SCOPE": gate.scope,
        "CONMAN_TAG": gate.tag or "",
        "CONMAN_JOB": gate.job_id,
        "CONMAN_ATTEMPT": str(run.attempt),
        "CONMAN_PROFILE_ENV": str(folder / PROFILE_ENV),
        "CONMAN_PROFILE_JSON": str(folder / PROFILE_JSON),
        "MSUITE_REPORT": str(folder / REPORT),
        "MSUITE_PROGRESS": str(folder / PROGRESS),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


async def _not_run(run: GateRun, log: LogWriter, reason: ReasonCode, message: str) -> Verdict:
    """The verdict where the suite can't even be started; its log says why."""
    await _say(log, message)
    return Verdict(
        job_id=run.gate.job_id,
        state=end_state(reason),
        reason_code=reason,
        attempt=run.attempt,
        summary={"message": message},
    )


async def _taken_over(run: GateRun, log: LogWriter, earlier: SuiteResult) -> Verdict:
    """The verdict of an earlier run on the same input; the log says whose it is."""
    own = earlier.job_id == run.gate.job_id
    whose = f"attempt {earlier.attempt} of this job, whose worker was lost after it" if own else f"job {earlier.job_id}"
    message = (
        f"Reused: the suite passed at {earlier.ended_at} on the same tree, profile and command, in {whose}. It was not run again."
    )
    await _say(log, message)
    summary = {"duration_ms": 0, "lines": 1, "output_truncated": False, "message": message}
    if earlier.report is not None:
        summary["report"] = earlier.report
    reused_from = None if own else earlier.job_id
    if reused_from is not None:
        summary["reused_from"] = reused_from
    return Verdict(
        job_id=run.gate.job_id,
        state=end_state(ReasonCode.OK),
        reason_code=ReasonCode.OK,
        attempt=run.attempt,
        exit_code=0,
        summary=summary,
        reused_from=reused_from,
    )


async def _say(log: LogWriter, message: str) -> None:
    """The one line of a log where no suite runs."""
    await log.write(OutputLine(seq=1, at=datetime.now(UTC), stream=Stream.SYSTEM, text=message))
    await log.flush()


async def _verdict(run: GateRun, result: RunResult, folder: Path, rendered: RenderedProfile) -> Verdict:
    reason = result.reason
    redactor = Redactor(tuple(rendered.secrets.values()))
    summary: dict[str, Any] = {
        "duration_ms": round(result.duration_seconds * 1000),
        "lines": result.lines,
        "output_truncated": result.output_truncated,
        "message": redactor.scrub_text(result.message),
    }
    report = await asyncio.to_thread(_report, folder / REPORT)
    if report is not None:
        summary["report"] = redactor.scrub_json(report)
    return Verdict(
        job_id=run.gate.job_id,
        state=end_state(reason),
        reason_code=reason,
        attempt=run.attempt,
        exit_code=result.exit_code,
        summary=summary,
    )


def _fresh(folder: Path, tree: Path, job_id: str) -> None:
    """An empty folder; those of this job's earlier attempts, whose workers died, go."""
    for left in folder.parent.glob(f"{job_id}-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    tree.mkdir()


def _report(path: Path) -> Any:
    """The suite's own report, None when it wrote none that can be kept."""
    try:
        report = json.loads(read_file(path, REPORT_LIMIT_BYTES), parse_constant=_no_number)
        bson.encode({"report": report})
        if _is_deeper(report, REPORT_DEPTH):
            return None
    except (OSError, ValueError, OverflowError, RecursionError, BSONError):
        return None
    return report


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (list, dict)):
        return False
    inner = cast("list[Any]", value if isinstance(value, list) else list(cast("dict[str, Any]", value).values()))
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
