"""One look at something that changes, for all who wait for it in this process: jobs' logs, apps' feeds.

However many follow the same thing, the database is asked once; and it is asked only while somebody follows it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from pymongo.errors import PyMongoError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look, seconds: `first` where something has just happened, then each look in vain lengthens the pause."""

    first: float
    slowest: float
    slowing: float = 1.1


class Watch(ABC):
    """Looks again and again at one thing, named `what` in the log. `number` counts the looks that showed something new."""

    def __init__(self, what: str, pace: Pace) -> None:
        self.what = what
        self.readers = 0
        self.number = 0
        self.is_over = False
        self._pace = pace
        self._changed = asyncio.Event()
        self._polling = asyncio.create_task(self._poll())

    @abstractmethod
    async def _look(self) -> bool:
        """Whether there is something new. Sets `is_over` where nothing further can come."""

    async def moved(self, since: int, seconds: float) -> bool:
        """Whether something was seen since look number `since`; waits for it at most `seconds`.

        Raises what ended the looking, if anything did.
        """
        if self._polling.done():
            self._polling.result()
        if self.number == since:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        return self.number != since

    def wake(self) -> None:
        """Let all who wait look up now, though nothing has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Look no more."""
        self._polling.cancel()

    async def _poll(self) -> None:
        pause = self._pace.first
        while True:
            try:
                is_new = await self._look()
            except PyMongoError as error:  # Each reader meets it too, in its own reads.
                log.warning("not_seen", watched=self.what, error=str(error))
                is_new = False
            if is_new:
                pause = self._pace.first
                self.number += 1
                self.wake()
            if self.is_over:
                return
            await asyncio.sleep(pause)
            pause = min(pause * self._pace.slowing, self._pace.slowest)


WatchT = TypeVar("WatchT", bound=Watch)


class Watches(Generic[WatchT]):
    """The watches of one process: one for each thing, by its id, that somebody follows."""

    def __init__(self, begin: Callable[[str], WatchT]) -> None:
        self._begin = begin
        self._watches: dict[str, WatchT] = {}

    def join(self, thing_id: str) -> WatchT:
        """The watch of a thing, begun with its first reader. Whoever joins leaves."""
        watch = self._watches.get(thing_id)
        if watch is None:
            watch = self._watches[thing_id] = self._begin(thing_id)
        watch.readers += 1
        return watch

    def leave(self, thing_id: str) -> None:
        """One reader less; with the last one the watch ends. Never waits: a stream that is cut off can't."""
        watch = self._watches[thing_id]
        watch.readers -= 1
        if watch.readers == 0:
            del self._watches[thing_id]
            watch.stop()

    def wake(self) -> None:
        """Let all readers of all things look up now."""
        for watch in self._watches.values():
            watch.wake()

    def __len__(self) -> int:
        return len(self._watches)
