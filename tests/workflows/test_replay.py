"""Recorded runs still replay under every hash seed, and their payloads still decode (`durability.md` 22, 23, 24)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from replay import load, replay
from temporalio import workflow

from conman.worker import WORKFLOWS

HERE = Path(__file__).parent
RECORDED = sorted((HERE / "histories").glob("*.json"))
INCOMPATIBLE = sorted((HERE / "histories" / "incompatible").glob("*.json"))


def kind(path: Path) -> str:
    """The type of the workflow whose history it is."""
    return load(path).events[0].workflow_execution_started_event_attributes.workflow_type.name


def test_every_workflow_has_a_recorded_history() -> None:
    defined = {workflow._Definition.must_from_class(defined).name for defined in WORKFLOWS}
    assert {kind(path) for path in RECORDED} == defined, "add a scenario, then: python tests/workflows/record.py"


@pytest.mark.parametrize(("seed", "sandbox"), [("0", []), ("20261125", ["--as-workers"])])
def test_every_recorded_history_replays_under_each_hash_seed(seed: str, sandbox: list[str]) -> None:
    # A seed holds for a whole process, so each gets one.
    process = subprocess.run(
        [sys.executable, str(HERE / "replay.py"), *sandbox, *map(str, RECORDED)],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert len(found) == len(RECORDED)
    assert {name: wrong for name, wrong in found.items() if wrong is not None} == {}


@pytest.mark.parametrize("path", INCOMPATIBLE, ids=lambda path: path.stem)
async def test_a_history_of_other_code_is_seen(path: Path) -> None:
    with pytest.raises(workflow.NondeterminismError):
        await replay(path)


def test_there_is_a_history_of_other_code() -> None:
    assert INCOMPATIBLE
