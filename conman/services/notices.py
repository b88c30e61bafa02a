"""Telling people: the durable workflow of each notice is started right after the write that it left with (`durability.md` 21)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog
from pydantic import ValidationError
from pymongo.errors import PyMongoError
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from conman.domain.mail import Wave
from conman.services import mails
from conman.services.platform import Platform
from conman.store.database import Database
from conman.workflows.client import Commands

log = structlog.get_logger(__name__)

START_SECONDS = 2.0
"""How much a start may cost the request that it belongs to, seconds; what was not started by then is left to upkeep."""


async def start_notices(platform: Platform, *entry_ids: str) -> None:
    """Start `notify:{entry id}` for notices that were just written; never fails, since upkeep starts what is missing."""
    await asyncio.gather(*(_start(platform.commands, entry_id) for entry_id in entry_ids))


class NoticeStarter:
    """Starts the workflows of notices beside the work that wrote them, which does not wait: one per process.

    It looks for their mails itself, which spares the workflow a step, and the workflow itself where nobody is to be told. What is
    under way when the process ends, or Temporal does not take, is left to upkeep.
    """

    AFTER_SECONDS: Final = 1.0
    """How long a notice waits before it starts: people who wait for their command's answer, or its suite's, come first."""
    AT_ONCE: Final = 2
    """Starts that are under way together: a publish may tell a hundred authors within a second."""

    def __init__(self, commands: Commands, db: Database) -> None:
        self._commands = commands
        self._db = db
        self._slots = asyncio.Semaphore(self.AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()

    def start_soon(self, entry_ids: Iterable[str]) -> None:
        """Start `notify:{entry id}` for notices that were just delivered."""
        for entry_id in entry_ids:
            task = asyncio.create_task(self._in_turn(entry_id))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _in_turn(self, entry_id: str) -> None:
        await asyncio.sleep(self.AFTER_SECONDS)
        async with self._slots:
            wave = await self._look(entry_id)
            if wave is None or wave.mail_ids:
                await _start(self._commands, entry_id, wave)

    async def _look(self, entry_id: str) -> Wave | None:
        """The notice's mails; None where the workflow has to look, and to say what is wrong."""
        try:
            wave = await mails.next_wave(self._db, entry_id)
        except (PyMongoError, ValidationError) as error:
            log.warning("notice_not_looked_at", notice_id=entry_id, error=type(error).__name__)
            return None
        return wave if wave.found else None


async def _start(commands: Commands, entry_id: str, wave: Wave | None = None) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await commands.start_notice(entry_id, wave)
    except WorkflowAlreadyStartedError:
        log.debug("notice_was_sent_already", notice_id=entry_id)
    except (TimeoutError, RPCError) as error:
        log.warning("notice_left_to_upkeep", notice_id=entry_id, error=type(error).__name__)
