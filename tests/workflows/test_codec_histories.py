"""What Temporal keeps with the codec on (`durability.md` 24), on a real development server: nothing to read without keys."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from codec_samples import PLANTED, A, B, opened, shown
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.history.v1 import History
from temporalio.api.workflowservice.v1 import DescribeScheduleRequest, DescribeWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHistory
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker
from workflow_names import sha
from workflow_samples import changeset, review, submit
from workflow_samples import shown as record
from workflow_world import World, refused, running_world

from conman.domain.changeset import ChangesetState
from conman.domain.errors import ErrorCode, Unavailable
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import GateRun
from conman.services.payload_keys import keys_in_use, payloads_in
from conman.worker import WORKFLOWS, ensure_upkeep, sandbox
from conman.workflows import options
from conman.workflows.client import Commands, check_codec, connect
from conman.workflows.codec import KEY_ID, CodecError, KeyringCodec, data_converter, key_of
from conman.workflows.upkeep import UPKEEP_ID

Keyring = Mapping[str, bytes]
OFF: Keyring = {}
PATIENCE = 30.0
_numbers = count(5001)


async def client_with(server: WorkflowEnvironment, keyring: Keyring, *, encrypt: bool = True) -> Client:
    """A client as a process with these keys has it."""
    service = server.client.service_client.config
    return await connect(service.target_host, server.client.namespace, KeyringCodec(keyring, encrypt=encrypt))


async def world_with(server: WorkflowEnvironment, keyring: Keyring, number: int) -> AbstractAsyncContextManager[World]:
    """Workers with these keys; the same number again takes over the task queues and ids of the first."""
    return running_world(WorkflowEnvironment.from_client(await client_with(server, keyring)), number)


async def history_of(client: Client, workflow_id: str) -> WorkflowHistory:
    """As the server keeps it: nothing decodes it."""
    return await client.get_workflow_handle(workflow_id).fetch_history()


async def replay(history: WorkflowHistory, keyring: Keyring) -> None:
    """Run the workflow's code on its history. Raises what the code, or the codec, raises."""
    converter = data_converter(KeyringCodec(keyring))
    await Replayer(workflows=WORKFLOWS, workflow_runner=sandbox(), data_converter=converter).replay_workflow(history)


def keys_in(history: WorkflowHistory) -> set[str | None]:
    """The ids of the keys that a history needs; None for payloads that need none."""
    return {key_of(payload) for payload in payloads_in(History(events=history.events))}


async def test_a_changesets_life_leaves_no_plaintext_and_reads_with_any_keyring_that_has_the_key(
    dev_server: WorkflowEnvironment,
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def suite(run: GateRun) -> ReasonCode:
        if run.attempt == 1:
            reached.set()
            await go_on.wait()
            raise ApplicationError(f"failure: {PLANTED}", {"why": f"detail: {PLANTED}"})
        return ReasonCode.OK

    async with await world_with(dev_server, A, next(_numbers)) as world:
        world.fakes.suite = suite
        entity = replace(changeset(world, title=f"title: {PLANTED}"), summary=f"summary: {PLANTED}")
        await world.send(entity, "submit", await submit(world))
        gate_id = f"job:{world.id('gate 1')}"
        await world.until(reached.is_set, "the suite runs")
        refusal = await refused(world.send(entity, "review", await review(world)))
        go_on.set()
        await world.until(lambda: record(world).gate.state is JobState.SUCCEEDED, "the second attempt passed")
        histories = [await history_of(world.client, workflow_id) for workflow_id in (entity.workflow_id, gate_id)]
        summary = await (await world.client.get_workflow_handle(entity.workflow_id).describe()).static_summary()

    codec = KeyringCodec({**B, **A})
    assert (refusal.type, summary) == ("gate_not_passed", f"summary: {PLANTED}")
    raw = " ".join(shown(History(events=history.events)) for history in histories)
    read = " ".join([await opened(History(events=history.events), codec) for history in histories])
    for told in (
        f"title: {PLANTED}",
        f"summary: {PLANTED}",
        f"failure: {PLANTED}",
        f"detail: {PLANTED}",
        refusal.message,
        sha("head-1"),
        "submit gate, attempt 1",
    ):
        assert told not in raw
        assert told in read.replace("\\/", "/"), told
    for history in histories:
        await replay(history, {**B, **A})
        with pytest.raises(RuntimeError, match="CodecError"):
            await replay(history, B)


async def test_a_history_that_goes_on_after_the_codec_was_switched_on_and_its_key_rotated_replays_whole(
    dev_server: WorkflowEnvironment,
) -> None:
    number = next(_numbers)
    async with await world_with(dev_server, OFF, number) as world:
        entity, store = changeset(world), world.store
        await world.send(entity, "submit", await submit(world))
        await world.until(lambda: record(world).gate.state is JobState.SUCCEEDED, "the gate passed")
    async with await world_with(dev_server, A, number) as world:
        world.fakes.store = store
        await world.send(entity, "review", await review(world, "request_changes"))
    async with await world_with(dev_server, {**B, **A}, number) as world:
        world.fakes.store = store
        await world.send(entity, "submit", await submit(world, 2, again=True))
        await world.until(lambda: record(world).gate.state is JobState.SUCCEEDED, "the second gate passed")
        assert record(world).state is ChangesetState.SUBMITTED
        history = await history_of(world.client, entity.workflow_id)
    assert keys_in(history) == {None, "a", "b"}
    await replay(history, {**B, **A})
    for missing in (OFF, A, B):
        with pytest.raises(RuntimeError, match="CodecError"):
            await replay(history, missing)


async def test_a_worker_without_the_key_fails_the_task_with_a_clear_line_and_the_workflow_goes_on_with_a_key(
    dev_server: WorkflowEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    number = next(_numbers)
    keyed = await client_with(dev_server, A)
    async with await world_with(dev_server, B, number) as world:
        entity, store = changeset(world), world.store
        with caplog.at_level(logging.WARNING):
            handle = await keyed.start_workflow(
                entity.workflow,
                entity.start,
                id=entity.workflow_id,
                task_queue=options.queue_name(options.Queue.MAIN),
            )
            async with asyncio.timeout(PATIENCE):
                while "workflow_task_failed_event_attributes" not in await kinds(keyed, entity.workflow_id):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        assert "a payload is encrypted under the key 'a': add it to CONMAN_CODEC_KEYS (b)" in caplog.text
    async with await world_with(dev_server, A, number) as world:
        world.fakes.store = store
        await world.send(entity, "submit", await submit(world))
        await world.until(lambda: record(world).gate.state is JobState.SUCCEEDED, "the gate passed")


async def kinds(client: Client, workflow_id: str) -> list[str]:
    return [event.WhichOneof("attributes") or "" for event in (await history_of(client, workflow_id)).events]


# What our workflows use of Temporal only at times, or not yet, goes through the codec as well.


class ProbeActivities:
    """One activity that beats and waits before it fails, and takes up its last beat when it is tried again."""

    def __init__(self) -> None:
        self.seen = asyncio.Event()

    @activity.defn
    async def probe_activity(self, text: str) -> str:
        if activity.info().attempt == 1:
            activity.heartbeat(f"beat {text}")
            await self.seen.wait()
            raise ApplicationError(f"boom {text}", f"detail {text}")
        [beat] = activity.info().heartbeat_details
        return f"result {beat}"


@workflow.defn(name="probe")
class Probe:
    """Every way by which text gets into a history."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @workflow.run
    async def run(self, text: str, again: bool) -> str:
        if not again:
            workflow.set_current_details(f"current {text}")
            workflow.upsert_memo({"more": f"upserted {text}"})
            done = await workflow.execute_activity_method(
                ProbeActivities.probe_activity,
                text,
                start_to_close_timeout=timedelta(seconds=30),
                heartbeat_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=2),
                summary=f"activity {text}",
            )
            await workflow.sleep(timedelta(milliseconds=1), summary=f"timer {text}")
            await workflow.wait_condition(lambda: len(self.heard) == 2)
            workflow.continue_as_new(args=[done, True])
        child = await workflow.start_child_workflow(
            ProbeChild.run, text, id=f"{workflow.info().workflow_id}-child", static_summary=f"child {text}", memo={"m": text}
        )
        await child

    @workflow.signal
    def hear(self, text: str) -> None:
        self.heard.append(text)

    @workflow.query
    def echo(self, text: str) -> str:
        return f"echo {text}"

    @workflow.update
    async def change(self, text: str) -> str:
        self.heard.append(text)
        return f"changed {text}"


@workflow.defn(name="probe-child")
class ProbeChild:
    """Fails with what it was told."""

    @workflow.run
    async def run(self, text: str) -> None:
        raise ApplicationError(f"child failed {text}", type="probe", non_retryable=True)


async def test_signals_queries_updates_memos_timers_children_and_continue_as_new_hold_no_plaintext(
    dev_server: WorkflowEnvironment,
) -> None:
    client = await client_with(dev_server, A)
    name = f"probe-{next(_numbers)}"
    activities = ProbeActivities()
    worker = Worker(
        client,
        task_queue=name,
        workflows=[Probe, ProbeChild],
        activities=[activities.probe_activity],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
        default_heartbeat_throttle_interval=timedelta(milliseconds=50),
    )
    async with worker, asyncio.timeout(PATIENCE):
        handle = await client.start_workflow(
            "probe",
            args=[PLANTED, False],
            id=name,
            task_queue=name,
            memo={"first": PLANTED},
            static_summary=f"summary {PLANTED}",
            static_details=f"details {PLANTED}",
        )
        assert await handle.query("echo", PLANTED, result_type=str) == f"echo {PLANTED}"
        assert await handle.execute_update("change", PLANTED, result_type=str) == f"changed {PLANTED}"
        described = await handle.describe()
        assert (await described.static_details(), await described.memo_value("first")) == (f"details {PLANTED}", PLANTED)
        beating = await heartbeat_of(client, name)
        assert PLANTED not in shown(beating)
        assert await opened(beating, KeyringCodec(A)) == f'"beat {PLANTED}"'
        activities.seen.set()
        await handle.signal("hear", PLANTED)
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    first = client.get_workflow_handle(name, run_id=handle.first_execution_run_id)
    for run in (first, client.get_workflow_handle(name), client.get_workflow_handle(f"{name}-child")):
        history = await run.fetch_history()
        assert PLANTED not in shown(History(events=history.events))
        assert PLANTED in await opened(History(events=history.events), KeyringCodec(A))
        assert keys_in(history) == {"a"}
    child = failed.value.cause
    assert f"child failed result beat {PLANTED}" in str(child.__cause__)


async def heartbeat_of(client: Client, workflow_id: str) -> Payloads:
    """The last heartbeat's details as the server keeps them, once there are some."""
    asked = DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id))
    while True:
        described = await client.workflow_service.describe_workflow_execution(asked)
        if described.pending_activities and described.pending_activities[0].heartbeat_details.payloads:
            return described.pending_activities[0].heartbeat_details
        await asyncio.sleep(0.05)


async def test_a_process_that_can_not_read_the_upkeep_schedule_is_told_when_it_starts(dev_server: WorkflowEnvironment) -> None:
    first = await client_with(dev_server, A)
    await check_codec(first, KeyringCodec({}))  # a fresh namespace
    await ensure_upkeep(first)
    try:
        asked = DescribeScheduleRequest(namespace=first.namespace, schedule_id=UPKEEP_ID)
        described = await first.workflow_service.describe_schedule(asked)
        assert "deliver what crashes" not in shown(described)
        assert "deliver what crashes" in await opened(described, KeyringCodec(A))
        await check_codec(first, KeyringCodec({**B, **A}))
        for wrong in (OFF, B, {"a": B["b"]}):
            with pytest.raises(CodecError, match="CONMAN_CODEC_KEYS"):
                await check_codec(first, KeyringCodec(wrong))
        await first.get_schedule_handle(UPKEEP_ID).pause(note="an operator's")
        await ensure_upkeep(await client_with(dev_server, {**B, **A}))
        await until_schedule_needs(first, "b")
        with pytest.raises(CodecError, match="under the key 'b'"):
            await check_codec(first, KeyringCodec(A))
        assert (await first.get_schedule_handle(UPKEEP_ID).describe()).schedule.state.paused, "renewing it does not resume it"
        await ensure_upkeep(await client_with(dev_server, {**B, **A}, encrypt=False))
        await until_schedule_needs(first, None)
        await check_codec(first, KeyringCodec(OFF))
    finally:
        await first.get_schedule_handle(UPKEEP_ID).delete()


async def until_schedule_needs(client: Client, key_id: str | None) -> None:
    """Wait until the schedule shows its last update."""
    asked = DescribeScheduleRequest(namespace=client.namespace, schedule_id=UPKEEP_ID)
    async with asyncio.timeout(PATIENCE):
        while True:
            described = await client.workflow_service.describe_schedule(asked)
            metadata = described.schedule.action.start_workflow.user_metadata.summary.metadata
            if metadata.get(KEY_ID, b"").decode() == (key_id or ""):
                return
            await asyncio.sleep(0.05)


async def test_the_keys_that_kept_histories_need_are_found_without_any_key(dev_server: WorkflowEnvironment) -> None:
    """Which is when one may leave the keyring."""
    old, new = {"old": b"o" * 32}, {"new": b"n" * 32}
    writing = await client_with(dev_server, old)
    first = f"keys-{next(_numbers)}"
    left = await writing.start_workflow("nobody-runs-it", PLANTED, id=first, task_queue="nobody")
    rotated = await client_with(dev_server, {**new, **old})
    await rotated.get_workflow_handle(first).signal("hear", PLANTED)
    gone = await rotated.start_workflow("nobody-runs-it", PLANTED, id=f"{first}-gone", task_queue="nobody")
    await gone.terminate()

    async def uses() -> dict[str | None, tuple[int, int, list[str]]]:
        found = await keys_in_use(await client_with(dev_server, OFF))
        return {use.key_id: (use.open_runs, use.closed_runs, use.examples) for use in found if use.key_id in ("old", "new")}

    async def until(expected: dict[str | None, tuple[int, int, list[str]]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while await uses() != expected:  # noqa: ASYNC110  the server's list of runs lags behind
                await asyncio.sleep(0.2)

    await until({"old": (1, 0, [first]), "new": (1, 1, [first, f"{first}-gone"])})
    await left.terminate()
    await until({"old": (0, 1, [first]), "new": (0, 2, [first, f"{first}-gone"])})
    assert ["old", "yes", "0", "1", first] in [line.split() for line in await told_by_the_command(dev_server, old)]


async def told_by_the_command(server: WorkflowEnvironment, keyring: Keyring) -> list[str]:
    """The lines of `conman codec-keys` on a machine that has these keys."""
    written = ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in keyring.items())
    address = server.client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conman", "codec-keys"),
        env=os.environ | {"CONMAN_CODEC_KEYS": written, "CONMAN_TEMPORAL_ADDRESS": address, "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().splitlines()


async def test_an_answer_under_a_key_that_the_sender_lacks_is_an_unknown_outcome_and_a_repeat_with_the_key_finds_it(
    dev_server: WorkflowEnvironment,
) -> None:
    async with await world_with(dev_server, {**B, **A}, next(_numbers)) as world:
        entity, command = changeset(world), await submit(world, command_id="once")
        behind = Commands(await client_with(dev_server, A))
        with pytest.raises(Unavailable) as unknown:
            await behind.send(entity, "submit", command)
        assert unknown.value.code is ErrorCode.OUTCOME_UNKNOWN
        assert await world.commands.send(entity, "submit", command) == {"revision_number": 1, "job_id": world.id("gate 1")}
        assert len(world.store.writes("once")) == 1
