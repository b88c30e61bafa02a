"""The whole stack with encrypted payloads (`durability.md` 24): Temporal can't read what is done, and who joins has the keys."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DescribeScheduleRequest
from temporalio.client import Client

from conman.domain.changeset import ChangesetState
from conman.services.payload_keys import payloads_in
from conman.workflows.codec import key_of
from conman.workflows.upkeep import UPKEEP_ID
from tests.support.conman_stack import Stack, World, last, make_world, running_stack, wait_for
from tests.support.plain_http import NO_TLS

KEY = base64.b64encode(b"k" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()
PLANTED = "planted in a title"
SECONDS = 120.0


@pytest_asyncio.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("codec"), CONMAN_CODEC_KEYS=f"main:{KEY}") as stack:
        yield stack


@asynccontextmanager
async def joining(stack: Stack, *command: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `conman` command that joins the running `up` by its data folder, without keys in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONMAN_")} | settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conman", *command, "--data", str(stack.data)),
        env=environment,
        cwd=stack.data,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def titled(world: World, title: str) -> str:
    """A submitted changeset with this title, whose gate has ended; its path."""
    workspace = await world.workspace()
    await world.save(workspace, "entities/titled.json", json.dumps({"value": 1}))
    made = await world.ann.post(f"{world.path}/changesets", {"workspace_id": last(workspace), "title": title})
    path = f"{world.path}/changesets/{made['id']}"
    reply = await world.ann.post(f"{path}/submit")
    await world.job(reply["job"]["id"])
    return path


async def test_a_change_is_released_and_temporal_holds_nothing_of_it_that_can_be_read(stack: Stack) -> None:
    world = await make_world(stack)
    path = await titled(world, PLANTED)
    await world.rob.post(f"{path}/review", {"action": "approve"})
    await world.ann.post(f"{path}/queue")
    release = await world.validated(path)
    await world.max.post(f"{release}/publish")
    assert await world.state(path) == ChangesetState.RELEASED

    client = await Client.connect(stack.ready["temporal_address"])
    kinds: set[str] = set()
    keys: set[str | None] = set()
    async for run in client.list_workflows():
        kinds.add(run.workflow_type)
        async for event in client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history_events():
            raw = event.SerializeToString()
            assert PLANTED.encode() not in raw and b"python-httpx" not in raw
            # A mark of the workflow's own version (its name, and whether it is old) is the server's to read, and says no more.
            if event.event_type != EventType.EVENT_TYPE_MARKER_RECORDED:
                keys |= {key_of(payload) for payload in payloads_in(event)}
    assert kinds >= {"changeset", "gate", "queue", "release", "assemble", "upkeep"}
    assert keys == {"main"}


async def test_the_key_is_in_no_file_but_the_one_by_which_others_join(stack: Stack) -> None:
    assert KEY not in json.dumps(stack.ready)
    holders = [file for file in stack.data.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert holders == [stack.data / "run" / "up.json"]
    assert holders[0].stat().st_mode & 0o077 == 0


async def test_who_joins_has_the_keys_and_another_key_stops_the_start(stack: Stack) -> None:
    async with joining(stack, "doctor") as process:
        out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        assert "ok   codec: main encrypts" in out.decode()
    for wrong in (f"other:{OTHER}", f"main:{OTHER}"):
        async with joining(stack, "api", CONMAN_CODEC_KEYS=wrong, CONMAN_PORT="0") as process:
            _, err = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 2
        (line,) = [line for line in err.decode().splitlines() if "CONMAN_CODEC_KEYS" in line]
        assert "under the key 'main'" in line and "Traceback" not in err.decode()


async def test_the_web_ui_asks_the_codec_server_which_decodes_for_its_pages(stack: Stack, tmp_path: Path) -> None:
    ui = stack.ready["temporal_ui_url"]
    async with httpx.AsyncClient(trust_env=False, timeout=30, verify=NO_TLS) as http:
        settings = (await http.get(f"{ui}/api/v1/settings")).json()
        assert settings["Codec"]["Endpoint"] == "http://127.0.0.1:8234"

        ready = tmp_path / "ready.json"
        async with joining(stack, "codec-server", "--port", "0", "--ready-file", str(ready)):

            async def listening() -> Any:
                return json.loads(ready.read_text()) if ready.exists() else None

            url = (await wait_for(listening, "the codec server"))["url"]
            client = await Client.connect(stack.ready["temporal_address"])
            asked = DescribeScheduleRequest(namespace=client.namespace, schedule_id=UPKEEP_ID)
            described = await client.workflow_service.describe_schedule(asked)
            payload = described.schedule.action.start_workflow.user_metadata.summary
            body = {"payloads": [MessageToDict(payload)]}
            answer = await http.post(f"{url}/default/decode", json=body, headers={"Origin": ui, "X-Namespace": "default"})
            assert answer.headers["access-control-allow-origin"] == ui
            [decoded] = answer.json()["payloads"]
            assert b"deliver what crashes left" in base64.b64decode(decoded["data"])
