"""Accounts as the services see them: a platform without Git and workflows, and people whose passwords are known."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from pydantic import SecretStr

from conman.config import Settings
from conman.domain.decision import Actor
from conman.domain.errors import DomainError, ErrorCode
from conman.git.adapter import GitAdapter
from conman.services.accounts import create_user
from conman.services.call import Call
from conman.services.clock import new_id, now
from conman.services.passwords import HASHER
from conman.services.platform import Platform
from conman.store.database import Document, connect
from conman.workflows.client import Commands

ResultT = TypeVar("ResultT")
PASSWORD = "a password for tests 1"
WRONG = "a wrong one for tests"


def call(user: Document | None = None, key: str | None = None) -> Call:
    """A request; with a key, a repeat of it."""
    command = uuid.uuid5(uuid.NAMESPACE_URL, key).hex if key is not None else new_id()
    actor = Actor(user_id=user["_id"] if user else None, ip="192.0.2.1", request_id="request-of-a-test")
    return Call(command_id=command, at=now(), actor=actor, user=user or {}, keyed=key is not None)


async def refused(work: Awaitable[Any]) -> ErrorCode:
    """The code with which it must be refused."""
    try:
        await work
    except DomainError as error:
        return error.code
    raise AssertionError("it was not refused")


@dataclass
class Office:
    """One database, and processes that share nothing but it."""

    uri: str
    database: str

    @asynccontextmanager
    async def process(self, **settings: Any) -> AsyncIterator[Platform]:
        client = connect(self.uri)
        try:
            yield Platform(
                settings=Settings(secret=SecretStr("s" * 32), **settings),
                db=client[self.database],
                git=cast("GitAdapter", None),
                commands=cast("Commands", None),
            )
        finally:
            await client.close()

    async def apart(self, work: Callable[[Platform], Awaitable[ResultT]]) -> ResultT:
        """Run `work` in a thread and an event loop of its own, as another process would."""

        async def alone() -> ResultT:
            async with self.process() as platform:
                return await work(platform)

        return await asyncio.to_thread(asyncio.run, alone())

    @cached_property
    def _hash(self) -> str:
        return HASHER.hash(PASSWORD)

    async def person(self, platform: Platform, name: str = "ann", **fields: Any) -> Document:
        """An account whose password is `PASSWORD`."""
        email = f"{name}-{uuid.uuid4().hex[:8]}@example.com"
        made = await create_user(platform.db, call(), email=email, name=name, password=None, via="platform_admin")
        fields = {"password_hash": self._hash, **fields}
        await platform.db["users"].update_one({"_id": made["_id"]}, {"$set": fields})
        return await self.again(platform, made)

    async def again(self, platform: Platform, user: Document) -> Document:
        """The account as it is now."""
        found = await platform.db["users"].find_one({"_id": user["_id"]})
        assert found is not None
        return found

    async def actions(self, platform: Platform, entity_id: str) -> list[str]:
        """What the audit says of it, oldest first."""
        events = await platform.db["audit"].find({"entity_id": entity_id}).sort("_id", 1).to_list()
        return [f"{event['entity_type']}.{event['action']}" for event in events]
