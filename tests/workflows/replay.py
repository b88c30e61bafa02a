"""`python tests/workflows/replay.py FILE…`: replay recorded histories; prints one line of JSON: file → what went wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from codec_samples import A, B
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from conman.worker import WORKFLOWS, sandbox
from conman.workflows.codec import KeyringCodec, data_converter


def load(path: Path) -> WorkflowHistory:
    """A recorded history; its workflow's id matters to nothing."""
    return WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))


async def replay(path: Path) -> None:
    """Run today's code on a history, with a keyring that was rotated since. Raises what the code did differently."""
    converter = data_converter(KeyringCodec({**B, **A}))
    await Replayer(workflows=WORKFLOWS, workflow_runner=sandbox(), data_converter=converter).replay_workflow(load(path))


async def replay_all(paths: list[Path]) -> dict[str, str | None]:
    """What went wrong with each; None for nothing."""
    found: dict[str, str | None] = {}
    for path in paths:
        try:
            await replay(path)
            found[path.name] = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            found[path.name] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(replay_all([Path(name) for name in sys.argv[1:]]))))
