"""`python tests/workflows/record.py [NAME…]`: record the histories that `test_replay.py` replays; names are those of the files.

A recorded history stands for all runs of its kind that were under way when the code changed. So record anew only what no such run
can meet: after a change behind `workflow.patched` the old file stays beside the new one, until no run of its kind is left.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

from codec_samples import A
from history_scenarios import ENCRYPTED, SCENARIOS, Scenario
from temporalio.client import Client, WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from workflow_world import running_world

from conman.embedded.cache import Cache
from conman.embedded.temporal import find_temporal
from conman.embedded.testing import say
from conman.leaving import run_to_exit
from conman.workflows import options
from conman.workflows.codec import KeyringCodec, data_converter

HISTORIES = Path(__file__).with_name("histories")
INCOMPATIBLE = HISTORIES / "incompatible"


async def record(wanted: set[str]) -> None:
    """Run the scenarios on a real server and write what they left behind."""
    binary = await find_temporal(Cache(), say)
    numbers = count(9001)
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(binary), search_attributes=options.SEARCH_ATTRIBUTES, dev_server_log_level="error"
    ) as server:
        for scenario in SCENARIOS:
            await _record(server, scenario, KeyringCodec({}), "", next(numbers), wanted)
        for scenario in ENCRYPTED:
            await _record(server, scenario, KeyringCodec(A), "-encrypted", next(numbers), wanted)


async def _record(
    server: WorkflowEnvironment, scenario: Scenario, codec: KeyringCodec, suffix: str, number: int, wanted: set[str]
) -> None:
    client = await Client.connect(
        server.client.service_client.config.target_host,
        namespace=server.client.namespace,
        data_converter=data_converter(codec),
        identity="recorder",
    )
    async with running_world(WorkflowEnvironment.from_client(client), number) as world:
        recorded = await scenario(world)
        histories = {
            name + suffix: await client.get_workflow_handle(workflow_id).fetch_history() for name, workflow_id in recorded.items()
        }
    for name, history in histories.items():
        if not wanted or name in wanted:
            _write(HISTORIES / f"{name}.json", history)


def _write(path: Path, history: WorkflowHistory) -> None:
    text = json.dumps(_cleaned(history.to_json_dict()), separators=(",", ":"), ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path.name}: {len(history.events)} events, {len(text) // 1024} KiB", flush=True)


def _cleaned(value: Any) -> Any:
    """Without stack traces, which tell of the machine's paths."""
    if isinstance(value, list):
        return [_cleaned(child) for child in value]
    if not isinstance(value, dict):
        return value
    return {key: _cleaned(child) for key, child in value.items() if key != "stackTrace"}


def spoil() -> None:
    """Write the history of a gate whose code called another activity: the proof that a replay sees such a change."""
    history = json.loads((HISTORIES / "gate-passes.json").read_text(encoding="utf-8"))
    for event in history["events"]:
        scheduled = event.get("activityTaskScheduledEventAttributes")
        if scheduled is not None:
            scheduled["activityType"]["name"] = "run_suite"
    INCOMPATIBLE.mkdir(exist_ok=True)
    text = json.dumps(history, separators=(",", ":"), ensure_ascii=False)
    (INCOMPATIBLE / "gate-calls-another-activity.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    asyncio.run(record(set(sys.argv[1:])))
    spoil()


if __name__ == "__main__":
    run_to_exit(main)
