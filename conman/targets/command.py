"""The `command` targets: an operator's program, by name, that deploys, observes and tells the health (`spec.md` 12).

The contract stands in `docs/targets.md`: the action is the last argument, the order is JSON on standard input, the answer is JSON
on standard output, standard error goes to the job's log. Nothing that a program prints is believed until it fits.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from conman.domain.jobs import ReasonCode
from conman.domain.redaction import Redactor
from conman.domain.target import Health, Observation
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, GitError
from conman.programs.operators import ProgramRun, run_program
from conman.programs.runner import OutputLine, RunResult
from conman.programs.runner_output import Stream
from conman.settings.programs import Program
from conman.settings.targets import TargetSettings
from conman.targets import contract
from conman.targets.base import DeployOrder, ObserveOrder, Placed, TargetError, telling, unreadable
from conman.targets.contract import ANSWER_BYTES, Action
from conman.targets.scratch import scratch_folder, written_profile

TRY_AGAIN = 75
"""The exit code of a program that can't do it now and may be asked again (`EX_TEMPFAIL` of `sysexits.h`)."""


class CommandTarget:
    """One program of the operator. `scratch` is the folder below which each run gets one of its own."""

    def __init__(self, name: str, program: Program, settings: TargetSettings, git: GitAdapter, scratch: Path) -> None:
        self.name = name
        self.program = program
        self.settings = settings
        self.git = git
        self.scratch = scratch

    async def deploy(self, order: DeployOrder) -> Placed:
        """Export tree and profile, compare the fence, and have the program put them in place."""
        async with scratch_folder(self.scratch, order.job_id, "deploy") as folder:
            tree = folder / "files"
            try:
                count = await self.git.export(order.repo_path, order.commit_sha, tree)
            except GitError as error:
                raise unreadable(error) from error
            text = contract.deploy_order(order, "deploy", {"files": str(tree), **await written_profile(order.rendered, folder)})
            fault_point("target.exported")
            await order.still_holds()
            said = await self._asked(order, "deploy", folder, text, self.settings.target_timeout_seconds)
            fault_point("target.deployed")
        answer = contract.read_deploy(said)
        redactor = Redactor(tuple(order.rendered.secrets.values()))
        if answer.message:
            await order.tell(Stream.SYSTEM, redactor.scrub_text(answer.message))
        return Placed(folder=redactor.scrub_text(answer.folder) if answer.folder is not None else None, files=count)

    async def health(self, order: DeployOrder) -> Health:
        """What the program says; a program that can't say it is a fault of the machinery, and no verdict."""
        async with scratch_folder(self.scratch, order.job_id, "health") as folder:
            text = contract.deploy_order(order, "health", await written_profile(order.rendered, folder))
            answer = await self._asked(order, "health", folder, text, self.settings.observe_timeout_seconds)
        return contract.read_health(answer)

    async def observe(self, order: ObserveOrder) -> Observation:
        """What the program sees; its standard error is kept for the message of a failure alone."""
        said = ""

        async def keep(line: OutputLine) -> None:
            nonlocal said
            said = line.text if line.stream is Stream.STDERR and line.text.strip() else said

        hidden = tuple(order.applied.secrets.values()) if order.applied is not None else ()
        with TemporaryDirectory(prefix="conman-observe-", ignore_cleanup_errors=True) as folder:
            run = ProgramRun(
                program=self.program,
                arguments=("observe",),
                cwd=Path(folder),
                timeout_seconds=self.settings.observe_timeout_seconds,
                stdin=contract.observe_order(order),
                redact=(*hidden, order.digest_key.hex()),
            )
            answer = _Answer()
            result = await run_program(self.settings, run, keep, on_answer=answer.take)
        self._check("observe", result, said)
        return contract.read_observe(bytes(answer.data))

    async def _asked(self, order: DeployOrder, action: Action, folder: Path, text: str, timeout: float) -> bytes:
        answer = _Answer()
        run = ProgramRun(
            program=self.program,
            arguments=(action,),
            cwd=folder,
            timeout_seconds=timeout,
            stdin=text,
            redact=tuple(order.rendered.secrets.values()),
        )
        result = await run_program(self.settings, run, telling(order.tell), on_answer=answer.take)
        self._check(action, result, "")
        return bytes(answer.data)

    def _check(self, action: Action, result: RunResult, said: str) -> None:
        """Raises `TargetError` unless the program ended with 0."""
        if result.reason is ReasonCode.OK:
            return
        begin = f"The target {self.name!r} could not {'tell the health' if action == 'health' else action}: "
        if result.reason is not ReasonCode.TESTS_FAILED:
            again = result.reason in (ReasonCode.INFRASTRUCTURE, ReasonCode.RUNNER_ERROR)
            raise TargetError(begin + result.message, reason=result.reason, again=again)
        how = f"exit code {result.exit_code}" if result.exit_code is not None else f"signal {result.signal}"
        more = f": {said[:300]}" if said else "; see the job's log"
        raise TargetError(f"{begin}its program ended with {how}{more}.", again=result.exit_code == TRY_AGAIN)


class _Answer:
    """What a program prints, up to a limit: more than that ends it."""

    def __init__(self) -> None:
        self.data = bytearray()

    def take(self, data: bytes) -> None:
        """Raises `TargetError` for too much."""
        self.data += data
        if len(self.data) > ANSWER_BYTES:
            raise TargetError(f"The target's answer is over {ANSWER_BYTES} bytes. Its operator mends the program.")
