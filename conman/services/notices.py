"""Telling people: the durable workflow of each notice is started right after the write that it left with (`durability.md` 21)."""

from __future__ import annotations

import asyncio

import structlog
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from conman.services.platform import Platform

log = structlog.get_logger(__name__)

START_SECONDS = 2.0
"""How much a start may cost the request that it belongs to, seconds; what was not started by then is left to upkeep."""


async def start_notices(platform: Platform, *entry_ids: str) -> None:
    """Start `notify:{entry id}` for notices that were just written; never fails, since upkeep starts what is missing."""
    await asyncio.gather(*(_start(platform, entry_id) for entry_id in entry_ids))


async def _start(platform: Platform, entry_id: str) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await platform.commands.start_notice(entry_id)
    except WorkflowAlreadyStartedError:
        log.debug("notice_was_sent_already", notice_id=entry_id)
    except (TimeoutError, RPCError) as error:
        log.warning("notice_left_to_upkeep", notice_id=entry_id, error=type(error).__name__)
