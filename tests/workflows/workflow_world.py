"""One test's world: workers on task queues of its own, fakes behind them, and short ways to send commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from workflow_fakes import Fakes, Store
from workflow_names import uid

from conman.domain.decision import Actor, Command
from conman.domain.times import format_time
from conman.worker import WORKFLOWS, sandbox
from conman.workflows import options
from conman.workflows.client import Commands, EntityWorkflow

SECONDS = 15.0
"""How long a test waits for what must happen, seconds of the wall clock."""


class World:
    """Workers with fakes; ids are derived from the test's number, so that tests share a server."""

    def __init__(self, env: WorkflowEnvironment, number: int) -> None:
        self.env = env
        self.client: Client = env.client
        self.commands = Commands(env.client)
        self.fakes = Fakes()
        self.number = number
        self.app_id = self.id("app")
        self.ids = 0
        self.handles: dict[str, WorkflowHandle[Any, Any]] = {}

    @property
    def store(self) -> Store:
        return self.fakes.store

    def id(self, name: str) -> str:
        """The id that a name has in this test."""
        return uid(f"{self.number}: {name}")

    async def now(self) -> str:
        """The server's time, which may have skipped ahead."""
        return format_time(await self.env.get_current_time())

    async def not_after(self, seconds: float = 1e8) -> str:
        return format_time(await self.env.get_current_time() + timedelta(seconds=seconds))

    async def command(self, kind: type[Command], *, command_id: str | None = None, by: str = "ada", **fields: Any) -> Any:
        """A command that is not too old."""
        self.ids += 1
        fields = {"id": command_id or f"command-{self.ids}", "not_after": await self.not_after(), **fields}
        return kind.model_validate({**fields, "actor": Actor(user_id=self.id(by)).model_dump()})

    async def start(self, entity: EntityWorkflow) -> WorkflowHandle[Any, Any]:
        self.handles[entity.workflow_id] = await self.client.start_workflow(
            entity.workflow,
            entity.start,
            id=entity.workflow_id,
            task_queue=options.queue_name(options.Queue.MAIN),
            task_timeout=options.WORKFLOW_TASK_TIMEOUT,
        )
        return self.handles[entity.workflow_id]

    def handle(self, entity: EntityWorkflow) -> WorkflowHandle[Any, Any]:
        """The handle that `start` gave, whose `result` skips time, or a fresh one."""
        return self.handles.get(entity.workflow_id) or self.client.get_workflow_handle(entity.workflow_id)

    async def send(self, entity: EntityWorkflow, update: str, command: Command) -> dict[str, Any]:
        """An update with start, as the front door sends it."""
        async with asyncio.timeout(SECONDS):
            result = await self.client.execute_update_with_start_workflow(
                update, command, start_workflow_operation=entity.operation(), result_type=dict
            )
        return result or {}

    async def do(self, entity: EntityWorkflow, update: str, kind: type[Command], **fields: Any) -> dict[str, Any]:
        """Make a command and send it."""
        return await self.send(entity, update, await self.command(kind, **fields))

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a fake shows something."""
        async with asyncio.timeout(SECONDS):
            while not condition():  # noqa: ASYNC110  fakes have no event for every change
                await asyncio.sleep(0.01)
        assert condition(), what

    async def accepted(self, entity: EntityWorkflow, number: int) -> None:
        """Wait until the workflow has let in so many commands."""
        handle = self.client.get_workflow_handle(entity.workflow_id)
        async with asyncio.timeout(SECONDS):
            while True:
                with suppress(RPCError):  # it has not started yet
                    events = (await handle.fetch_history()).events
                    if sum(event.HasField("workflow_execution_update_accepted_event_attributes") for event in events) >= number:
                        return
                await asyncio.sleep(0.01)

    async def completed(self, handle: WorkflowHandle[Any, Any], *, activities: int) -> None:
        """Wait until the workflow has taken in the ends of so many activities."""
        async with asyncio.timeout(SECONDS):
            while True:
                events = (await handle.fetch_history()).events
                ends = [n for n, event in enumerate(events) if event.HasField("activity_task_completed_event_attributes")]
                tasks = [n for n, event in enumerate(events) if event.HasField("workflow_task_completed_event_attributes")]
                if len(ends) >= activities and tasks[-1] > ends[activities - 1]:
                    return
                await asyncio.sleep(0.01)

    async def pausing(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Wait until the workflow has nothing to wait for but a timer.

        A cancel that meets the end of an activity is asked of what the time-skipping server no longer knows, and it then hangs.
        """
        async with asyncio.timeout(SECONDS):
            while True:
                events = (await handle.fetch_history()).events
                if events and events[-1].HasField("timer_started_event_attributes"):
                    return
                await asyncio.sleep(0.01)

    async def canceled(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Wait until the workflow has taken note of a cancel."""
        async with asyncio.timeout(SECONDS):
            while True:
                events = (await handle.fetch_history()).events
                asked = [i for i, e in enumerate(events) if e.HasField("workflow_execution_cancel_requested_event_attributes")]
                if asked and any(e.HasField("workflow_task_completed_event_attributes") for e in events[asked[0] :]):
                    return
                await asyncio.sleep(0.01)

    def end(self) -> None:
        """Let go of what the test held, so that its workers can stop."""
        for held in (*self.fakes.holds.values(), *self.store.held):
            held.free.set()


@asynccontextmanager
async def running_world(env: WorkflowEnvironment, number: int) -> AsyncIterator[World]:
    """The world with its workers started; its task queues have a prefix of their own."""
    options.set_queue_prefix(f"test-{number}")
    world = World(env, number)
    by_queue = world.fakes.by_queue()
    async with AsyncExitStack() as stack:
        for queue in options.Queue:
            name = queue.name.lower()
            main = {"workflows": WORKFLOWS, "workflow_runner": sandbox()} if queue is options.Queue.MAIN else {}
            worker = Worker(
                env.client,
                task_queue=options.queue_name(queue),
                activities=by_queue[name],
                max_heartbeat_throttle_interval=timedelta(milliseconds=100),
                default_heartbeat_throttle_interval=timedelta(milliseconds=100),
                **main,
            )
            await stack.enter_async_context(worker)
        try:
            yield world
        finally:
            world.end()
            options.set_queue_prefix("conman")


async def refused(sending: Awaitable[Any]) -> ApplicationError:
    """The failure of an update as its caller sees it."""
    try:
        result = await sending
    except WorkflowUpdateFailedError as error:
        assert isinstance(error.cause, ApplicationError)
        return error.cause
    raise AssertionError(f"it was not refused: {result}")
