"""Where programs are started, no Python runs between the fork and the program (docs/adr/0039)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conman import cli

STARTS = """
import asyncio, os, sys
from conman.cli import run

os.register_at_fork(after_in_child=lambda: os.write(1, b"Python in the child; "))

async def work():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print('started')")
    return await process.wait()

sys.exit(run(work, only_serves={only_serves}))
"""


@pytest.mark.parametrize(
    ("only_serves", "printed"),
    [
        (False, "started\n"),
        pytest.param(True, "Python in the child; started\n", id="uvloop, so that this test is known to see it"),
    ],
)
def test_no_python_runs_in_a_child_before_its_program(*, only_serves: bool, printed: str) -> None:
    code = STARTS.format(only_serves=only_serves)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout) == (0, printed), process.stderr


@pytest.mark.parametrize("command", ["worker", "git-server"])
def test_what_starts_programs_does_not_run_where_it_forks(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def run(_work: Callable[[], Any], **how: Any) -> None:
        asked.append(how)

    monkeypatch.setattr(cli, "run", run)
    result = CliRunner().invoke(cli.cli, [command, "--data", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert asked == [{}]
