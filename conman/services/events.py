"""The feed of an app as those who follow it live get it (`api.md` 3; docs/adr/0034-a-feed-beside-the-records.md).

Nothing is kept for a client but the number of the last event that it was given. One watch per app and process holds the latest
events for all clients that keep up; one that does not is given what it missed from the store, at its own speed. So a client that
never reads costs neither memory nor a writer's time.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import islice

from conman.services.watch import Pace, Watch, Watches
from conman.store import feed
from conman.store.database import Database, Document

PACE = Pace(first=0.4, slowest=0.5)
"""How often a feed is looked at that somebody follows. A look that finds something wakes all clients, who get it in one piece."""
EVENTS_PER_LOOK = 100
"""The most that one look at a feed takes in."""
LOOKS_IN_VAIN = 120
"""After so many looks that found no next event, a feed is asked for its last one."""
EVENTS_HELD = 500
"""How many of the latest events are held for the clients of one app."""
EVENTS_AT_ONCE = 50
"""The most that a client is given in one piece."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event as all clients get it; `data` is JSON, made once for all."""

    seq: int
    type: str
    data: str

    @classmethod
    def of(cls, row: Document) -> Told:
        """As it is kept."""
        return cls(row["seq"], row["type"], json.dumps(feed.shown(row)))


class FeedTail(Watch):
    """The latest events of one app; `last` is the number of the newest one that was seen, None before the first look."""

    def __init__(self, db: Database, app_id: str) -> None:
        self._db = db
        self._app_id = app_id
        self._held: deque[Told] = deque(maxlen=EVENTS_HELD)
        self.last: int | None = None
        self._shown = 0
        self._in_vain = 0
        super().__init__(f"the feed of app {app_id}", PACE)

    async def _look(self) -> bool:
        if self.last is None:
            self.last = self._shown = await feed.newest(self._db, self._app_id)
            return True
        last = self.last
        while True:
            rows = await feed.read(self._db, self._app_id, last, EVENTS_PER_LOOK)
            if rows:
                self._held.extend(map(Told.of, rows))
                self.last = last = rows[-1]["seq"]
            if len(rows) < EVENTS_PER_LOOK:  # what comes meanwhile is for the next look: nobody waits for a feed to pause
                break
        self._in_vain = 0 if last > self._shown else self._in_vain + 1
        if self._in_vain == LOOKS_IN_VAIN:
            # This process may have slept for so long that the next event has been removed.
            self._in_vain = 0
            newest = await feed.newest(self._db, self._app_id)
            if newest > last:
                self._held.clear()  # what is held has no hole
                self.last = last = newest
        # A look that failed half-way has taken events in that nobody was woken for.
        is_new, self._shown = last > self._shown, last
        return is_new

    def behind(self, seq: int) -> list[Told] | None:
        """The held events behind a number; None where the next one is not held (any more)."""
        if not self._held or not self._held[0].seq <= seq + 1 <= self._held[-1].seq:
            return None
        first = seq + 1 - self._held[0].seq
        return list(islice(self._held, first, first + EVENTS_AT_ONCE))


class FeedTails(Watches[FeedTail]):
    """The tails of one process: one for each app whose feed somebody follows."""

    def __init__(self, db: Database) -> None:
        self.database = db
        super().__init__(lambda app_id: FeedTail(db, app_id))


@dataclass(frozen=True, slots=True)
class Events:
    """Further events, in order."""

    events: list[Told]


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing has happened for a while."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a client's stream begins: it goes on behind event number `seq`."""

    seq: int


@dataclass(frozen=True, slots=True)
class Reset:
    """What came after the client's last event is no longer kept: let it read the records anew. It goes on behind `seq`."""

    seq: int


News = Start | Reset | Events | Silence


async def follow(tails: FeedTails, app_id: str, after: int | None, *, patience: float) -> AsyncGenerator[News, None]:
    """An app's events behind number `after`, or from now on, each once and in order; never ends by itself.

    Every `patience` seconds without one there is a `Silence`. A database that fails ends it with its own error.
    """
    db = tails.database
    tail = tails.join(app_id)
    try:
        if after is not None and await feed.can_go_on(db, app_id, after):
            at = after
            yield Start(at)
        else:
            at = await feed.newest(db, app_id)
            yield Start(at) if after is None else Reset(at)
        seen = 0
        while True:
            if not await tail.moved(seen, patience):
                yield Silence()
                continue
            seen = tail.number
            while at < (tail.last or 0):
                events = tail.behind(at) or [Told.of(row) for row in await feed.read(db, app_id, at, EVENTS_AT_ONCE)]
                if events:
                    at = events[-1].seq
                    yield Events(events)
                else:  # so far behind that the next one was removed
                    at = await feed.newest(db, app_id)
                    yield Reset(at)
    finally:
        tails.leave(app_id)
