"""Starting the process of an app's webhook as soon as this process has made deliveries for it, beside what made them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog
from temporalio.service import RPCError

from conman.workflows.client import Commands

log = structlog.get_logger(__name__)

START_SECONDS = 5.0
"""How long a start may take, seconds; what was not started by then is left to upkeep."""


class WebhookRelay:
    """One per process. Nobody waits for it, and nothing is lost with it: upkeep starts what is missing."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def tell(self, app_ids: Collection[str]) -> None:
        """There are new deliveries for these apps."""
        for app_id in app_ids:
            if app_id in self._starting:
                self._again.add(app_id)
            else:
                self._starting[app_id] = asyncio.create_task(self._start(app_id))

    async def _start(self, app_id: str) -> None:
        try:
            again = True
            while again:
                self._again.discard(app_id)
                async with asyncio.timeout(START_SECONDS):
                    await self._commands.start_webhook(app_id)
                again = app_id in self._again
        except (TimeoutError, RPCError) as error:
            log.warning("webhook_left_to_upkeep", app_id=app_id, error=type(error).__name__)
        finally:
            self._again.discard(app_id)
            del self._starting[app_id]

    async def close(self) -> None:
        """Let go of the starts that are under way."""
        tasks = list(self._starting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
