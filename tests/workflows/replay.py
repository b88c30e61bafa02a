"""`python tests/workflows/replay.py [--as-workers] FILE…`: replay recorded histories; prints, as JSON, file → what went wrong.

`--as-workers`: in no sandbox, at a third of the cost. What the strict one refuses does not depend on the hash seed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from codec_samples import A, B
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from conman.leaving import run_to_exit
from conman.worker import WORKFLOWS, no_sandbox, sandbox
from conman.workflows.codec import KeyringCodec, data_converter


def load(path: Path) -> WorkflowHistory:
    """A recorded history; its workflow's id matters to nothing."""
    return WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))


async def replay(path: Path, *, as_workers: bool = False) -> None:
    """Run today's code on a history, with a keyring that was rotated since. Raises what the code did differently."""
    converter = data_converter(KeyringCodec({**B, **A}))
    runner = no_sandbox() if as_workers else sandbox()
    await Replayer(workflows=WORKFLOWS, workflow_runner=runner, data_converter=converter).replay_workflow(load(path))


async def replay_all(paths: list[Path], *, as_workers: bool) -> dict[str, str | None]:
    """What went wrong with each; None for nothing."""
    found: dict[str, str | None] = {}
    for path in paths:
        try:
            await replay(path, as_workers=as_workers)
            found[path.name] = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            found[path.name] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--as-workers"]
    print(json.dumps(asyncio.run(replay_all([Path(name) for name in names], as_workers="--as-workers" in sys.argv))))


if __name__ == "__main__":
    run_to_exit(main)
