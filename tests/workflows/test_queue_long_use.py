"""A queue that is used for long (`durability.md` 12 and 18): updates by eight people, publishes among them.

The 2,000 updates of `make thorough` take about a minute on a quiet machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from workflow_names import sha, uid
from workflow_samples import entry, queue, queue_shown
from workflow_world import World, running_world

from conman.domain.decision import Actor, Command
from conman.domain.messages import EnqueueCommand, PublishedCommand, RemoveCommand, ReserveCommand
from conman.domain.queue_records import EntryStatus
from conman.workflows import options
from conman.workflows.client import EntityWorkflow
from conman.workflows.codec import KeyringCodec, data_converter
from tests.support.sizes import size

PEOPLE = 8
COMMANDS = size(24, 125)
"""Sent by each, twice."""
LISTED = 3
"""Entries that each has in the queue at most."""
PUBLISH_EVERY = size(15, 75)
EVENTS = size(300, 1500)
"""After so many events the history begins anew here: often enough for several boundaries, long enough to be used."""


class Person:
    """Sends commands one after the other, and knows which of its changesets must be listed, in which order."""

    def __init__(self, world: World, entity: EntityWorkflow, name: str, not_after: str) -> None:
        self.world, self.entity, self.name, self.not_after = world, entity, name, not_after
        self.chance = random.Random(name)
        self.numbers = count(1)
        self.listed: list[str] = []
        self.sent: list[str] = []

    async def send(self, update: str, kind: type[Command], **fields: Any) -> Any:
        """A command as the front door sends it, and again, as after a lost answer."""
        command_id = f"{self.name}-{len(self.sent)}"
        self.sent.append(command_id)
        said = {"id": command_id, "not_after": self.not_after, "actor": Actor(user_id=uid(self.name)).model_dump()}
        command = kind.model_validate({**said, **fields})
        result = await self.world.commands.send(self.entity, update, command)
        assert await self.world.commands.send(self.entity, update, command) == result
        return result

    async def use(self) -> None:
        while len(self.sent) < COMMANDS:
            if len(self.sent) % PUBLISH_EVERY == PUBLISH_EVERY - 2:
                await self.publish()
            elif len(self.listed) == LISTED:
                gone = self.listed.pop(self.chance.randrange(LISTED))
                assert await self.send("remove", RemoveCommand, changeset_id=uid(gone)) == {"removed": True}
            else:
                name = f"{self.name} {next(self.numbers)}"
                await self.send("enqueue", EnqueueCommand, entry=entry(name).model_dump())
                self.listed.append(name)

    async def publish(self) -> None:
        """Its first one is released: what all have in the queue is judged on the new head."""
        name = self.listed.pop(0)
        release = uid(f"release of {name}")
        await self.send("reserve", ReserveCommand, release_id=release, changeset_ids=[uid(name)])
        await self.send("published", PublishedCommand, release_id=release, integration_sha=sha(f"after {name}"))


@pytest_asyncio.fixture
async def real_world(dev_server: WorkflowEnvironment) -> AsyncIterator[World]:
    """On the server that `conman up` runs: it is the one that suggests a fresh history, and it is the quicker one."""
    service = dev_server.client.service_client.config
    client = await Client.connect(
        service.target_host, namespace=dev_server.client.namespace, data_converter=data_converter(KeyringCodec({}))
    )
    async with running_world(WorkflowEnvironment.from_client(client), 8001) as world:
        yield world


@pytest.mark.timeout(600)
async def test_no_command_is_lost_or_carried_out_twice_and_the_order_is_kept(
    real_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = real_world
    monkeypatch.setattr(options, "CONTINUE_AFTER_EVENTS", EVENTS)
    world.fakes.concurrency = 16
    entity = queue(world)
    handle = await world.start(entity)
    not_after = await world.not_after()
    people = [Person(world, entity, f"person {number}", not_after) for number in range(PEOPLE)]
    await asyncio.gather(*(person.use() for person in people))

    async with asyncio.timeout(120):
        while (shown := queue_shown(world)).sweep is not None or not shown.sweep_started:  # noqa: ASYNC110  fakes have no event
            await asyncio.sleep(0.05)
    for person in people:
        mine = [item.changeset_id for item in shown.entries if item.changeset_id in {uid(name) for name in person.listed}]
        assert mine == [uid(name) for name in person.listed]
        assert world.store.writes(f"{person.name}-") == person.sent
    assert len(shown.entries) == sum(len(person.listed) for person in people)
    assert {item.status for item in shown.entries} == {EntryStatus.VALID}
    assert {job["state"] for job in world.store.jobs.values()} <= {"succeeded", "canceled"}
    runs = await histories(world, entity, handle.first_execution_run_id or "")
    assert runs >= 4, "it crossed several boundaries"


async def histories(world: World, entity: EntityWorkflow, run_id: str) -> int:
    """How many runs the workflow has had, each continued by the next."""
    number = 1
    while True:
        history = await world.client.get_workflow_handle(entity.workflow_id, run_id=run_id).fetch_history()
        last = history.events[-1]
        if not last.HasField("workflow_execution_continued_as_new_event_attributes"):
            return number
        run_id = last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        number += 1
