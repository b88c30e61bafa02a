"""The activity of a gate: the exact commit in a scratch folder, the profile rendered, the suite in its own process group."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import bson
from bson.errors import BSONError
from pymongo.errors import PyMongoError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.heartbeat import heartbeating
from conman.config import Settings
from conman.domain.app import ValidationGate
from conman.domain.decision import Verdict
from conman.domain.errors import DomainError
from conman.domain.jobs import ReasonCode, end_state
from conman.domain.messages import GateRun
from conman.domain.overrides import frozen_of
from conman.domain.redaction import Redactor
from conman.domain.times import format_time
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError
from conman.programs.runner import CommandSpec, OutputLine, RunResult, run_command
from conman.programs.runner_output import Stream
from conman.services.clock import now
from conman.services.rendering import PROFILE_ENV, PROFILE_JSON, RenderedProfile, render
from conman.services.secrets import Secrets
from conman.services.vault import Vault, VaultError
from conman.settings.programs import ProgramKind
from conman.store import records
from conman.store.database import Database, Document
from conman.store.outgoing import TERMINAL_JOB_STATES

FLUSH_SECONDS = 0.3
FLUSH_LINES = 200
KILL_GRACE_SECONDS = 5.0
REPORT_LIMIT_BYTES = 256 * 1024
"""A report larger than this is left out of the job's summary."""
REPORT_DEPTH = 64
"""A report nested deeper than this is left out too: MongoDB keeps 100 levels, those around it included."""


class LogWriter:
    """A job's log in chunks; a chunk is written once, also when the write is repeated."""

    def __init__(self, db: Database, job_id: str, attempt: int) -> None:
        self.db = db
        self.job_id = job_id
        self.attempt = attempt
        self.lines: list[Document] = []
        self._one_at_a_time = asyncio.Lock()

    async def write(self, line: OutputLine) -> None:
        """Take one line; it is kept within a third of a second."""
        self.lines.append({"seq": line.seq, "at": format_time(line.at), "stream": line.stream.value, "text": line.text})
        if len(self.lines) >= FLUSH_LINES:
            await self.flush()

    async def flush(self) -> None:
        """Keep what has come in."""
        if not self.lines:
            return
        async with self._one_at_a_time:
            lines = list(self.lines)
            if not lines:
                return
            chunk = {
                "job_id": self.job_id,
                "attempt": self.attempt,
                "first_seq": lines[0]["seq"],
                "last_seq": lines[-1]["seq"],
                "lines": lines,
            }
            # Set as a whole: a repeat whose first try landed unseen may have grown meanwhile.
            await self.db["job_logs"].update_one(
                {"_id": f"{self.job_id}:{self.attempt}:{lines[0]['seq']:09d}"}, {"$set": chunk}, upsert=True
            )
            del self.lines[: len(lines)]
        fault_point("gate.logged")

    async def flushing(self) -> None:
        """Flush again and again until canceled; what could not be kept is kept with what comes next."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except PyMongoError as error:
                activity.logger.warning("the log of job %s is not kept yet: %s", self.job_id, error)


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

    async def _run(self, run: GateRun, folder: Path, canceled: asyncio.Event) -> Verdict:
        gate = run.gate
        log = LogWriter(self.db, gate.job_id, run.attempt)
        tree = folder / "tree"
        await asyncio.to_thread(_fresh, folder, tree, gate.job_id)
        app = await records.get(self.db, "apps", gate.app_id, what="app")
        chosen = ValidationGate.model_validate(app["settings"]["validation_gates"].get(gate.scope, {}))
        argv = self._argv(chosen.command)
        if argv is None:
            message = (
                f"This worker knows no msuite command {chosen.command!r}: its operator adds it to CONMAN_COMMANDS_FILE, "
                "or an app admin chooses another one."
            )
            return await _not_run(run, log, ReasonCode.RUNNER_ERROR, message)
        try:
            base_id = app["settings"]["default_base_profile_id"]
            overrides = frozen_of(gate.overrides)
            rendered = await render(self.secrets, app, gate.profile_id or base_id, gate.profile_revision_id, overrides)
        except VaultError as error:
            return await _not_run(run, log, ReasonCode.INFRASTRUCTURE, f"The profile can't be rendered: {error.message}.")
        except DomainError as error:
            return await _not_run(run, log, ReasonCode.RUNNER_ERROR, f"The profile can't be rendered: {error.message}")
        except LookupError as error:
            return await _not_run(run, log, ReasonCode.INFRASTRUCTURE, f"The profile can't be rendered: {error.args[0]}.")
        await asyncio.to_thread(rendered.write, folder)
        try:
            await self.git.export(app["repo_path"], gate.commit_sha, tree)
        except GitError as error:
            raise ApplicationError(str(error), type=ReasonCode.GIT_ERROR.value, non_retryable=True) from error
        spec = CommandSpec(
            argv=argv,
            cwd=tree,
            env={**rendered.environment, **_about(run, app, folder)},
            timeout_seconds=float(chosen.timeout_seconds or run.timeout_seconds),
            cpu_seconds=self.settings.gate_cpu_seconds,
            memory_bytes=self.settings.gate_memory_mb * 1024 * 1024,
            output_bytes=self.settings.gate_output_bytes,
            kill_grace_seconds=KILL_GRACE_SECONDS,
            redact=tuple(rendered.secrets.values()),
        )
        flusher = asyncio.create_task(log.flushing())
        try:
            result = await run_command(spec, log.write, canceled)
        finally:
            flusher.cancel()
            await asyncio.gather(flusher, return_exceptions=True)
            await log.flush()
        fault_point("gate.ended")
        return await _verdict(run, result, folder, rendered)

    def _argv(self, name: str) -> tuple[str, ...] | None:
        """The operator's command of this name; `conman msuite` is this very program, without a shell's detours."""
        program = self.settings.program(ProgramKind.MSUITE, name)
        if program is None:
            return None
        if program.argv[:2] == ("conman", "msuite"):
            return (sys.executable, "-m", "conman.msuite", *program.argv[2:])
        return program.argv


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
        "MSUITE_REPORT": str(folder / "report.json"),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


async def _not_run(run: GateRun, log: LogWriter, reason: ReasonCode, message: str) -> Verdict:
    """The verdict where the suite can't even be started; its log says why."""
    await log.write(OutputLine(seq=1, at=datetime.now(UTC), stream=Stream.SYSTEM, text=message))
    await log.flush()
    return Verdict(
        job_id=run.gate.job_id,
        state=end_state(reason),
        reason_code=reason,
        attempt=run.attempt,
        summary={"message": message},
    )


async def _verdict(run: GateRun, result: RunResult, folder: Path, rendered: RenderedProfile) -> Verdict:
    reason = result.reason
    redactor = Redactor(tuple(rendered.secrets.values()))
    summary: dict[str, Any] = {
        "duration_ms": round(result.duration_seconds * 1000),
        "lines": result.lines,
        "output_truncated": result.output_truncated,
        "message": redactor.scrub_text(result.message),
    }
    report = await asyncio.to_thread(_report, folder / "report.json")
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
        if path.stat().st_size > REPORT_LIMIT_BYTES:
            return None
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
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
