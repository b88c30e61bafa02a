"""The health command of an environment: an operator's program that says whether what was deployed works (`spec.md` 12)."""

from __future__ import annotations

from pathlib import Path

from conman.domain.jobs import ReasonCode
from conman.domain.redaction import Redactor
from conman.domain.target import Health
from conman.programs.operators import ProgramRun, run_program
from conman.programs.runner import OutputLine
from conman.programs.runner_output import Stream
from conman.settings.programs import Program
from conman.settings.targets import TargetSettings
from conman.targets import contract
from conman.targets.base import DeployOrder, TargetError
from conman.targets.scratch import scratch_folder, written_profile

LONGEST_MESSAGE = 300


async def run_health_command(
    settings: TargetSettings, name: str, program: Program, order: DeployOrder, folder: str | None, scratch: Path
) -> Health:
    """Exit code 0 is healthy; any other one, or too long a time, is not, and its first line says why.

    The program finds the profile's variables and secrets in its environment, and beside them what it looks at (`about`).
    `folder` is where the release is to be seen on this machine. Raises `TargetError` when it could not be run.
    """
    first = ""

    async def on_line(line: OutputLine) -> None:
        nonlocal first
        first = first or (line.text.strip() if line.stream is not Stream.SYSTEM else "")
        await order.tell(line.stream, line.text)

    async with scratch_folder(scratch, order.job_id, "health") as own:
        files = await written_profile(order.rendered, own)
        run = ProgramRun(
            program=program,
            arguments=(),
            cwd=own,
            timeout_seconds=settings.health_timeout_seconds,
            env={**order.rendered.environment, **about(order, folder), **_named(files), "HOME": str(own), "TMPDIR": str(own)},
            stdin=contract.deploy_order(order, "health", files),
            redact=tuple(order.rendered.secrets.values()),
        )
        result = await run_program(settings, run, on_line)
    begin = f"The health command {name!r}"
    if result.reason in (ReasonCode.RUNNER_ERROR, ReasonCode.INFRASTRUCTURE):
        message = Redactor(run.redact).scrub_text(result.message)
        raise TargetError(f"{begin} could not be run: {message}", reason=result.reason, again=True)
    if result.reason is ReasonCode.OK:
        return Health(healthy=True, message=first[:LONGEST_MESSAGE] or f"{begin} found it well.")
    if result.reason is ReasonCode.TIMEOUT:
        return Health(healthy=False, message=f"{begin} did not end: {result.message}")
    how = f"exit code {result.exit_code}" if result.exit_code is not None else f"signal {result.signal}"
    return Health(healthy=False, message=first[:LONGEST_MESSAGE] or f"{begin} ended with {how} and said nothing.")


def about(order: DeployOrder, folder: str | None) -> dict[str, str]:
    """What health commands and migrations may want to know, beside the profile."""
    return {
        "CONMAN_APP": order.place.app,
        "CONMAN_APP_ID": order.place.app_id,
        "CONMAN_ENVIRONMENT": order.place.environment,
        "CONMAN_ENVIRONMENT_ID": order.place.environment_id,
        "CONMAN_BASE_URL": order.rendered.profile.base_url or "",
        "CONMAN_TARGET": order.place.target,
        "CONMAN_FOLDER": folder or "",
        "CONMAN_TAG": order.tag,
        "CONMAN_COMMIT": order.commit_sha,
        "CONMAN_DEPLOYMENT": order.deployment_id,
        "CONMAN_FENCE": str(order.fence),
        "CONMAN_JOB": order.job_id,
    }


def _named(files: dict[str, str]) -> dict[str, str]:
    return {"CONMAN_PROFILE_ENV": files["profile_env"], "CONMAN_PROFILE_JSON": files["profile_json"]}
