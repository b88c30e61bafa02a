"""A workflow and a record that differ are brought together (`durability.md` 20): the one that is ahead is the truth."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable

import pytest
from workflow_names import sha
from workflow_samples import changeset, deployment, entry, queue, release, review, shown, submit
from workflow_world import SECONDS, World

from conman.domain.changeset import ChangesetState
from conman.domain.decision import Command
from conman.domain.deploy_messages import ApproveCommand
from conman.domain.jobs import JobState
from conman.domain.messages import EnqueueCommand
from conman.workflows.client import EntityWorkflow
from conman.workflows.release import SelectCommand


async def _entities(world: World, kind: str) -> tuple[EntityWorkflow, tuple[str, str], str, Command]:
    """A record with its workflow, its place in the store, and an update that changes it while the workflow goes on."""
    match kind:
        case "changeset":
            command = await submit(world)
            return changeset(world), ("changesets", world.id("changeset")), "submit", command
        case "queue":
            command = await world.command(EnqueueCommand, entry=entry("one"))
            return queue(world), ("queues", world.app_id), "enqueue", command
        case "release":
            command = await world.command(SelectCommand, changeset_ids=[world.id("one")])
            return release(world), ("releases", world.id("release")), "select", command
        case _:
            command = await world.command(ApproveCommand, by="reviewer")
            waits = deployment(world, exceptional_reasons=["skip_stage"], approvals_required=3)
            return waits, ("deployments", world.id("deployment")), "approve", command


async def _known(world: World, entity: EntityWorkflow) -> int | None:
    return await world.client.get_workflow_handle(entity.workflow_id).query("owned_version", result_type=int)


async def _knows(world: World, entity: EntityWorkflow, version: Callable[[], int]) -> None:
    """Wait until the workflow knows this version."""
    async with asyncio.timeout(SECONDS):
        while await _known(world, entity) != version():  # noqa: ASYNC110  a query has no event to wait for
            await asyncio.sleep(0.01)


async def _resync(world: World, entity: EntityWorkflow) -> None:
    await world.client.get_workflow_handle(entity.workflow_id).signal("resync")


@pytest.mark.parametrize("kind", ["changeset", "queue", "release", "deployment"])
async def test_a_record_put_back_to_what_it_was_is_written_again_and_the_audit_says_so(world: World, kind: str) -> None:
    entity, place, update, command = await _entities(world, kind)
    older = copy.deepcopy(world.store.owned(*place))
    await world.send(entity, update, command)
    if kind == "deployment":  # it goes on by itself until it waits for the other approvals
        await world.until(lambda: world.store.owned(*place)["phase"] == "approvals", "the approvals to be waited for")
    await _knows(world, entity, lambda: world.store.owned(*place)["version"])
    known = world.store.owned(*place)
    world.store.insert(*place, older)
    await _resync(world, entity)
    await world.until(lambda: "repaired" in world.store.actions(), "the repair")
    now = world.store.owned(*place)
    version = known["version"]
    assert {**now, "version": version, "commands": known["commands"]} == known
    assert now["version"] == version + 1
    event = next(event for event in world.store.audit if event["action"] == "repaired")
    assert (event["entity_id"], event["after"]["entity_type"], event["after"]["truth"]) == (place[1], kind, "workflow")
    assert (event["before"]["version"], event["after"]["version"]) == (older["version"], version + 1)
    assert event["after"]["fields"] == sorted(
        name for name in known if known[name] != older[name] and name not in ("version", "commands")
    )
    assert event["context"]["workflow_id"] == entity.workflow_id


async def test_the_next_command_does_not_go_back_to_a_record_that_is_behind(world: World) -> None:
    """Nobody has looked yet: the refused write shows it."""
    entity = changeset(world)
    older = copy.deepcopy(world.store.owned("changesets", world.id("changeset")))
    await world.send(entity, "submit", await submit(world))
    await world.until(lambda: (gate := shown(world).gate) and gate.state is JobState.SUCCEEDED, "the verdict")
    world.store.insert("changesets", world.id("changeset"), older)
    await world.send(entity, "review", await review(world))
    assert shown(world).state is ChangesetState.APPROVED
    assert world.store.actions()[-2:] == ["repaired", "approved"]


async def test_a_write_that_is_under_way_is_not_taken_for_a_record_that_is_behind(world: World) -> None:
    entity = changeset(world, ChangesetState.SUBMITTED)
    held = world.store.hold("vote")
    vote = (await review(world)).model_copy(update={"id": "vote"})
    sending = asyncio.create_task(world.send(entity, "review", vote))
    await held.reached.wait()
    await _resync(world, entity)
    held.free.set()
    await sending
    await world.until(lambda: world.store.log.count("load changesets") == 2, "the comparison")
    assert world.store.actions() == ["approved"]


async def test_a_record_that_is_as_it_is_known_is_not_written(world: World) -> None:
    entity = changeset(world, ChangesetState.SUBMITTED)
    await world.start(entity)
    await _knows(world, entity, lambda: 0)
    await _resync(world, entity)
    await world.until(lambda: world.store.log.count("load changesets") == 2, "the comparison")
    assert (world.store.writes(), world.store.audit) == ([], [])


async def test_a_record_that_is_ahead_is_adopted(world: World) -> None:
    entity = changeset(world, ChangesetState.SUBMITTED)
    await world.start(entity)
    place = ("changesets", world.id("changeset"))
    await _knows(world, entity, lambda: 0)
    world.store.insert(*place, {**world.store.owned(*place), "version": 4, "title": "Renamed", "head_sha": sha("head-1")})
    await _resync(world, entity)
    await _knows(world, entity, lambda: 4)
    await world.send(entity, "review", await review(world))
    assert (shown(world).title, shown(world).version, world.store.actions()) == ("Renamed", 5, ["approved"])


@pytest.mark.parametrize("kind", ["changeset", "queue", "release", "deployment"])
async def test_a_record_that_is_gone_ends_its_workflow(world: World, kind: str) -> None:
    """As in a backup from before it was made."""
    entity, place, _, _ = await _entities(world, kind)
    handle = await world.start(entity)
    await _knows(world, entity, lambda: world.store.owned(*place)["version"])
    del world.store.records[place]
    await _resync(world, entity)
    async with asyncio.timeout(SECONDS):
        assert await handle.result() == "gone"
