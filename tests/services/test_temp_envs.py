"""How temp envs are made: whatever races or fails, one for its source, under a label of its own (`spec.md` 13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest

from conman.domain.decision import Actor, Command
from conman.domain.errors import DomainError, ErrorCode, Unavailable
from conman.domain.ids import derived_uuid7
from conman.domain.temp_env import TempEnvKind, TempEnvState, temp_snapshot_ref
from conman.domain.times import milliseconds
from conman.services import saves, temp_envs
from conman.services.call import Call
from conman.services.clock import new_id
from conman.services.platform import Platform
from conman.store.database import Document
from conman.workflows.client import Commands
from tests.services.shop import ANN, REPO, Shop

AT = "2026-01-31T09:30:00.000Z"


class Processes(Commands):
    """In the place of Temporal: notes what is started and sent; with `away` it does not answer."""

    def __init__(self) -> None:
        super().__init__(cast("Any", None))
        self.started: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.away = False

    async def start(self, entity: Any) -> None:
        if self.away:
            raise Unavailable(ErrorCode.OUTCOME_UNKNOWN, "No answer in time.")
        self.started.append(entity.workflow_id)

    async def send(self, entity: Any, update: str, command: Command, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        self.sent.append((entity.workflow_id, update))
        return {"job_id": getattr(command, "expire_job_id", "")}


@dataclass
class Yard:
    """The shop's app with a base profile, and its workspace as a source."""

    shop: Shop
    platform: Platform
    app: Document
    processes: Processes

    def call(self, key: str | None = None) -> Call:
        """A request of Ann's; with a key always the same one."""
        at = AT if key is not None else "2026-01-31T09:31:00.000Z"
        return Call(command_id=key or new_id(), at=at, actor=Actor(user_id=ANN["_id"]), user=ANN, keyed=key is not None)

    async def source(self) -> temp_envs.Source:
        return await temp_envs.source_of(self.platform, self.app, TempEnvKind.WORKSPACE, self.shop.workspace["_id"])

    async def create(self, key: str | None = None) -> Document:
        call = self.call(key)
        there = await temp_envs.made_before(self.platform, call)
        return there or await temp_envs.create(self.platform, call, self.app, await self.source(), None)

    async def is_over(self, temp_env_id: str, state: TempEnvState = TempEnvState.DELETED) -> None:
        """What its process does at its end."""
        change = {"$set": {"owned.state": state.value}, "$unset": {"live_slot": ""}}
        await self.platform.db["temp_envs"].update_one({"_id": temp_env_id}, change)

    async def records(self) -> list[Document]:
        return await self.platform.db["temp_envs"].find().sort("_id", 1).to_list()

    async def kept(self) -> dict[str, str]:
        return await self.platform.git.list_refs(REPO, "refs/conman/temp-envs/")


@asynccontextmanager
async def _yard(shop: Shop) -> AsyncIterator[Yard]:
    async with shop.platform() as platform:
        processes = Processes()
        platform.commands = processes
        profile = {"_id": new_id(), "app_id": shop.app["_id"], "content": {"name": "Development", "kind": "persistent_env"}}
        await platform.db["profiles"].insert_one(profile)
        app = {**shop.app, "environments": [{"runtime_profile_id": profile["_id"]}]}
        await platform.db["apps"].insert_one(app)
        yield Yard(shop, platform, app, processes)


@pytest.fixture
async def yard(shop: Shop) -> AsyncIterator[Yard]:
    async with _yard(shop) as made:
        yield made


async def test_what_is_pending_is_committed_first_and_kept_from_before_the_record_is_there(yard: Yard) -> None:
    await saves.write_file(
        yard.platform,
        yard.call(),
        yard.app,
        yard.shop.workspace,
        path="a.txt",
        content="YQ==",
        message=None,
        expected_blob_id=None,
    )
    made = await yard.create()
    head = await yard.shop.head(yard.platform)
    assert made["owned"]["head_sha"] == head
    assert await yard.kept() == {temp_snapshot_ref(made["_id"]): head}
    content = await yard.platform.git.read_file(REPO, head, "a.txt")
    assert content is not None and content.data == b"a"
    assert yard.processes.started == [f"temp-env:{made['_id']}"]
    job = await yard.platform.db["jobs"].find_one({"_id": made["owned"]["job_id"]})
    assert job is not None and (job["job_type"], job["state"], job["entity_id"]) == ("temp_env_provision", "queued", made["_id"])


async def test_of_requests_at_once_one_makes_it_and_the_others_are_told_which_it_is(yard: Yard) -> None:
    found = await asyncio.gather(*(yard.create() for _ in range(8)), return_exceptions=True)
    made = [one for one in found if isinstance(one, dict)]
    refused = [one for one in found if isinstance(one, DomainError)]
    assert (len(made), len(refused)) == (1, 7)
    assert {one.code for one in refused} == {ErrorCode.CONFLICT}
    assert [one.details for one in refused] == [{"temp_env_id": made[0]["_id"]}] * 7
    assert list(await yard.kept()) == [temp_snapshot_ref(made[0]["_id"])]
    assert len(await yard.records()) == 1


async def test_a_request_whose_process_could_not_be_started_finds_its_own_and_starts_it(yard: Yard) -> None:
    yard.processes.away = True
    with pytest.raises(Unavailable):
        await yard.create("key")
    yard.processes.away = False
    first = await yard.create("key")
    assert (await yard.create("key"))["_id"] == first["_id"]
    assert [row["_id"] for row in await yard.records()] == [first["_id"]]
    assert yard.processes.started == [f"temp-env:{first['_id']}"] * 2
    await yard.is_over(first["_id"])
    await yard.platform.db["workspaces"].delete_one({"_id": yard.shop.workspace["_id"]})
    assert (await yard.create("key"))["_id"] == first["_id"]
    assert len(yard.processes.started) == 2


async def test_a_label_is_never_given_again_also_when_its_numbers_were_lost(yard: Yard) -> None:
    labels: list[str] = []
    for turn in range(6):
        made = await yard.create()
        labels.append(made["label"])
        await yard.is_over(made["_id"])
        if turn == 2:
            await yard.platform.db["temp_env_numbers"].delete_many({})
    assert len(set(labels)) == len(labels)
    assert {row["owned"]["branch"] for row in await yard.records()} == {f"conman/temp/{label}" for label in labels}


async def test_one_that_is_over_is_made_again_from_its_commit_as_long_as_that_and_its_profile_are_there(yard: Yard) -> None:
    first = await yard.create()
    with pytest.raises(DomainError) as live:
        await temp_envs.recreate(yard.platform, yard.call(), yard.app, first)
    assert (live.value.code, live.value.details) == (ErrorCode.INVALID_TRANSITION, {"from": "provisioning", "to": "provisioning"})
    await yard.is_over(first["_id"], TempEnvState.EXPIRED)
    await yard.shop.commit_to_main(yard.platform, "later.txt", "later\n")
    over = await temp_envs.find(yard.platform, yard.app, first["_id"])
    again = await temp_envs.recreate(yard.platform, yard.call("again"), yard.app, over)
    assert again["owned"]["head_sha"] == first["owned"]["head_sha"]
    assert again["owned"]["recreated_from"] == first["_id"]
    assert (await temp_envs.recreate(yard.platform, yard.call("again"), yard.app, over))["_id"] == again["_id"]
    with pytest.raises(DomainError) as second:
        await temp_envs.recreate(yard.platform, yard.call(), yard.app, over)
    assert second.value.details == {"temp_env_id": again["_id"]}
    await yard.is_over(again["_id"])
    lost = {**over, "owned": {**over["owned"], "head_sha": "0" * 40}}
    with pytest.raises(DomainError, match="commit is not in the repository"):
        await temp_envs.recreate(yard.platform, yard.call(), yard.app, lost)
    await yard.platform.db["profiles"].update_many({}, {"$set": {"deleted": True}})
    with pytest.raises(DomainError, match="base profile was deleted"):
        await temp_envs.recreate(yard.platform, yard.call(), yard.app, over)


async def test_what_a_command_was_answered_is_answered_again_without_its_process(yard: Yard) -> None:
    made = await yard.create()
    call = yard.call("delete")
    job_id = derived_uuid7(milliseconds(AT), "the clean-up")
    answered = {"id": call.command_id, "result": {"job_id": job_id}}
    change = {"$set": {"owned.state": "deleted"}, "$push": {"owned.commands": answered}}
    await yard.platform.db["temp_envs"].update_one({"_id": made["_id"]}, change)
    over = await temp_envs.find(yard.platform, yard.app, made["_id"])
    assert await temp_envs.delete(yard.platform, call, over) == job_id
    with pytest.raises(DomainError) as refused:
        await temp_envs.delete(yard.platform, yard.call(), over)
    assert refused.value.code is ErrorCode.INVALID_TRANSITION
    assert yard.processes.sent == []


async def test_the_maker_owns_what_outlives_its_source(yard: Yard) -> None:
    made = await yard.create()
    somebody = {"$set": {"owner_user_id": "somebody"}}
    await yard.platform.db["workspaces"].update_one({"_id": yard.shop.workspace["_id"]}, somebody)
    assert await temp_envs.owner_of(yard.platform, made) == "somebody"
    await yard.platform.db["workspaces"].delete_one({"_id": yard.shop.workspace["_id"]})
    assert await temp_envs.owner_of(yard.platform, made) == ANN["_id"]
