"""The embedded servers themselves: started, killed, stopped and started again, with their state (docs/adr/0003)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import AutoReconnect, DuplicateKeyError, PyMongoError
from temporalio import workflow
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Worker

from conman.config import Settings
from conman.embedded.errors import EmbeddedError
from conman.embedded.process import ManagedProcess
from conman.embedded.stack import EmbeddedStack
from conman.embedded.temporal import RETENTION
from conman.embedded.testing import running_stack, say, time_skipping_environment

pytestmark = [pytest.mark.kill, pytest.mark.timeout(1200)]  # the first start on a machine builds the servers

SECONDS = 30.0


@pytest_asyncio.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    async with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


async def until(condition: Callable[[], Awaitable[bool]], what: str, *transient: type[Exception]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if await condition():
                return
        except transient:
            pass  # the server is on its way back; the deadline bounds it
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.05)


async def kill(process: ManagedProcess | None) -> None:
    """kill -9, and wait until the supervisor has another life going."""
    assert process is not None and process.pid is not None
    before, restarts = process.pid, process.restarts
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        return process.restarts > restarts and process.pid not in (None, before)

    await until(back, f"{process.spec.name} started again")


@workflow.defn(sandboxed=False)  # this module imports what the sandbox refuses
class Waiting:
    """Waits to be told to end, and counts updates."""

    def __init__(self) -> None:
        self.count = 0
        self.done = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self.done)
        return self.count

    @workflow.update
    async def add(self) -> int:
        self.count += 1
        return self.count

    @workflow.signal
    def finish(self) -> None:
        self.done = True


@workflow.defn(sandboxed=False)
class Sleeping:
    """Sleeps for a day."""

    @workflow.run
    async def run(self) -> str:
        await workflow.sleep(timedelta(days=1))
        return "slept"


async def test_a_document_survives_the_kill_of_its_server_on_the_same_port(stack: EmbeddedStack) -> None:
    async with AsyncMongoClient(stack.mongo_uri) as client:
        things = client["kill"]["things"]
        await things.create_index("name", unique=True)
        await things.insert_one({"_id": 1, "name": "one", "nested": {"list": [1, 2, 3]}})
        await kill(stack.mongo)

        async def there() -> bool:
            return await things.find_one({"_id": 1}) == {"_id": 1, "name": "one", "nested": {"list": [1, 2, 3]}}

        await until(there, "the document", AutoReconnect)
        with pytest.raises(DuplicateKeyError):
            await things.insert_one({"_id": 2, "name": "one"})


async def test_no_acknowledged_write_is_lost_nor_half_done_under_kills(stack: EmbeddedStack) -> None:
    """Writers insert documents under a unique index; after each kill, data and index agree with what was acknowledged."""
    acknowledged: list[set[int]] = [set() for _ in range(8)]
    refused: list[str] = []
    stop = threading.Event()

    def write(number: int) -> None:
        with MongoClient[Any](stack.mongo_uri, serverSelectionTimeoutMS=30_000) as client:
            things = client["torn"]["things"]
            name = number * 1_000_000
            while not stop.is_set():
                name += 1
                try:
                    things.insert_one({"_id": name, "slot": f"slot-{name}", "text": "x" * 300})
                except DuplicateKeyError as error:
                    refused.append(str(error))
                except PyMongoError:
                    continue  # not acknowledged: it may be there or not
                else:
                    acknowledged[number].add(name)

    async with AsyncMongoClient(stack.mongo_uri) as client:
        things = client["torn"]["things"]
        await things.create_index("slot", unique=True)
        writers = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(8)]
        for writer in writers:
            writer.start()
        for _ in range(3):
            target = sum(map(len, acknowledged)) + 300

            async def written(target: int = target) -> bool:
                return sum(map(len, acknowledged)) >= target

            await until(written, "300 more writes")
            await kill(stack.mongo)
        stop.set()
        for writer in writers:
            await asyncio.to_thread(writer.join, SECONDS)
        found = {document["_id"] async for document in things.find({}, {"_id": 1})}
        assert set().union(*acknowledged) <= found
        assert refused == []
        # An index entry without its document, or the reverse, shows here: each absent one can be inserted.
        absent = [name + 1 for name in (max(names) for names in acknowledged) if name + 1 not in found]
        for name in absent:
            await things.insert_one({"_id": name, "slot": f"slot-{name}"})
        with pytest.raises(DuplicateKeyError):
            await things.insert_one({"_id": -1, "slot": f"slot-{max(found)}"})


async def test_a_running_workflow_survives_the_kill_of_its_server_on_the_same_port(stack: EmbeddedStack) -> None:
    client = await Client.connect(stack.temporal_address)
    async with Worker(client, task_queue="kill", workflows=[Waiting]):
        handle = await client.start_workflow(Waiting.run, id="survivor", task_queue="kill")
        assert await handle.execute_update(Waiting.add) == 1
        await kill(stack.temporal)

        async def running() -> bool:
            return (await handle.describe()).status == WorkflowExecutionStatus.RUNNING

        await until(running, "the workflow", RPCError)
        async with asyncio.timeout(90):
            assert await handle.execute_update(Waiting.add) == 2
            await handle.signal(Waiting.finish)
            assert await handle.result() == 2


async def test_temporal_takes_a_burst_of_updates_on_one_workflow(stack: EmbeddedStack) -> None:
    client = await Client.connect(stack.temporal_address)
    async with Worker(client, task_queue="burst", workflows=[Waiting]), asyncio.timeout(60):
        handle = await client.start_workflow(Waiting.run, id="burst", task_queue="burst")
        answers = await asyncio.gather(*(handle.execute_update(Waiting.add) for _ in range(60)))
        assert sorted(answers) == list(range(1, 61))
        await handle.signal(Waiting.finish)
        assert await handle.result() == 60


async def test_finished_workflows_are_kept_for_thirty_days(stack: EmbeddedStack) -> None:
    client = await Client.connect(stack.temporal_address)
    answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    assert answer.config.workflow_execution_retention_ttl.ToTimedelta() == RETENTION == timedelta(days=30)


async def test_a_stack_started_again_has_its_ports_and_its_state(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        before = (stack.temporal_address, stack.temporal_ui_url, stack.mongo_uri)
        async with AsyncMongoClient(stack.mongo_uri) as client:
            await client["kept"]["things"].insert_one({"_id": "kept"})
        temporal = await Client.connect(stack.temporal_address)
        await temporal.start_workflow(Waiting.run, id="kept", task_queue="nobody")
        pids = [process.pid for process in (stack.temporal, stack.mongo) if process]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)
    async with running_stack(tmp_path) as stack:
        assert (stack.temporal_address, stack.temporal_ui_url, stack.mongo_uri) == before
        async with AsyncMongoClient(stack.mongo_uri) as client:
            assert await client["kept"]["things"].find_one() == {"_id": "kept"}
        temporal = await Client.connect(stack.temporal_address)
        description = await temporal.get_workflow_handle("kept").describe()
        assert description.status == WorkflowExecutionStatus.RUNNING


async def test_two_stacks_run_side_by_side_but_not_on_one_folder(stack: EmbeddedStack) -> None:
    with pytest.raises(EmbeddedError, match="in use by another conman"):
        await EmbeddedStack(Settings(data=stack.data), say).start()
    async with running_stack() as other:
        assert other.temporal_address != stack.temporal_address
        assert other.mongo_uri != stack.mongo_uri


async def test_servers_of_the_settings_are_used_and_nothing_is_started(stack: EmbeddedStack, tmp_path: Path) -> None:
    named = {"temporal_address": stack.temporal_address, "mongo_uri": stack.mongo_uri}
    async with running_stack(tmp_path, **named) as user:
        assert (user.temporal_address, user.mongo_uri) == (stack.temporal_address, stack.mongo_uri)
        assert user.temporal is None and user.mongo is None
    async with AsyncMongoClient(stack.mongo_uri) as client:
        assert (await client.admin.command("ping"))["ok"] == 1


async def test_a_start_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is up already when Temporal turns out to be unusable."""
    binary = tmp_path / "bin" / "temporal"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho 'this temporal is broken'\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")
    stack = EmbeddedStack(Settings(data=tmp_path / "data"), say, usual_ports=False)
    with pytest.raises(EmbeddedError, match=r"temporal ended while starting \(exit code 3\): this temporal is broken"):
        await stack.start()
    assert stack.mongo is None
    uri = f"mongodb://127.0.0.1:{stack._remembered().get('mongo_port', 1)}"
    with MongoClient[Any](uri, serverSelectionTimeoutMS=200) as client, pytest.raises(PyMongoError):
        client.admin.command("ping")
    monkeypatch.undo()
    async with running_stack(tmp_path / "data"):  # the folder is free again, and as good as new
        pass


async def test_a_day_passes_at_once_on_the_time_skipping_server() -> None:
    async with (
        await time_skipping_environment() as environment,
        Worker(environment.client, task_queue="skip", workflows=[Sleeping]),
        asyncio.timeout(60),
    ):
        assert await environment.client.execute_workflow(Sleeping.run, id="day", task_queue="skip") == "slept"
