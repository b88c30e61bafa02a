"""Runs a program of the operator that deploys, migrates or looks after an environment, within the limits of the settings."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conman.programs.runner import CommandSpec, OnLine, RunResult, run_command
from conman.settings.programs import Program
from conman.settings.targets import TargetSettings

LOADS_CODE = frozenset(
    {
        "PATH",
        "BASH_ENV",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PERL5LIB",
        "PERL5OPT",
        "RUBYLIB",
        "RUBYOPT",
        "NODE_PATH",
        "NODE_OPTIONS",
        "CLASSPATH",
        "JAVA_TOOL_OPTIONS",
    }
)
LOADS_LIBRARIES = ("LD_", "DYLD_")
"""Variables that decide which code a program runs: an operator's program gets the worker's own, whatever a profile says
(`spec.md` 6)."""

KILL_GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL of a program that takes too long, seconds."""


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One run of a program: its further arguments, its folder, what it finds in its environment and on its standard input."""

    program: Program
    arguments: Sequence[str]
    cwd: Path
    timeout_seconds: float
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    stdin: str | None = field(default=None, repr=False)
    redact: Sequence[str] = field(default=(), repr=False)


async def run_program(
    settings: TargetSettings, run: ProgramRun, on_line: OnLine, *, on_answer: Callable[[bytes], None] | None = None
) -> RunResult:
    """See `run_command`. A cancellation of this coroutine ends the program and all its processes."""
    argv = run.program.argv
    spec = CommandSpec(
        # `conman` is this very program, whatever the PATH says and the folder holds.
        argv=(*((sys.executable, "-P", "-m", "conman") if argv[0] == "conman" else argv[:1]), *argv[1:], *run.arguments),
        cwd=run.cwd,
        env=without_loaders(run.env),
        timeout_seconds=run.timeout_seconds,
        cpu_seconds=settings.program_cpu_seconds,
        memory_bytes=settings.program_memory_mb * 1024 * 1024,
        output_bytes=settings.program_output_bytes,
        kill_grace_seconds=KILL_GRACE_SECONDS,
        redact=run.redact,
        stdin=run.stdin,
    )
    return await run_command(spec, on_line, asyncio.Event(), on_answer=on_answer)


def without_loaders(environment: Mapping[str, str]) -> dict[str, str]:
    """What a profile may set for an operator's program: nothing that decides which code it runs."""
    return {name: value for name, value in environment.items() if name not in LOADS_CODE and not name.startswith(LOADS_LIBRARIES)}
