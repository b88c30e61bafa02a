"""Replies that last: server-sent events, with what holds for each such stream (`api.md` 3).

A stream ends when its reader's access ends, when the server stops, and when its reader takes nothing for a while. How many there
may be is limited, since each holds a connection.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar

import structlog
import uvicorn
from fastapi import Request
from fastapi.responses import StreamingResponse
from pymongo.errors import PyMongoError
from starlette.types import Receive, Scope, Send

from conman.api.access import Caller, is_still_admitted
from conman.domain.errors import DomainError, ErrorCode, RateLimited
from conman.domain.roles import Capability

log = structlog.get_logger(__name__)

ACCESS_SECONDS = 3.0
"""How often it is asked whether a stream's reader may still read, also while nothing happens; streams of one login ask together.

Each answer costs four reads: asked with each event, a crowd of listeners would cost more than what they listen to.
"""
KEEP_ALIVE_SECONDS = 10.0
"""After so long without an event a stream sends a comment, so that no proxy takes it for dead."""
STALLED_SECONDS = 60.0
"""A reader who takes nothing for so long is hung up on: it comes again with the last id that it has seen."""
RETRY_SECONDS = 5
"""When somebody who has too many streams may try again."""

NewsT = TypeVar("NewsT")


class Wakes(Protocol):
    """What streams wait for."""

    def wake(self) -> None:
        """Let all who wait look up now."""
        ...


class Streams:
    """The streams of one process: their limits, and their end when it stops."""

    def __init__(self, *awaited: Wakes, most: int, most_of_user: int) -> None:
        self._awaited = awaited
        self._most = most
        self._most_of_user = most_of_user
        self._of_users: Counter[str] = Counter()
        self._sends: set[asyncio.Timeout] = set()
        self._asked: dict[tuple[str, str, Capability], tuple[float, asyncio.Future[bool]]] = {}
        self.is_closing = False

    @contextmanager
    def place(self, user_id: str) -> Iterator[None]:
        """Room for one more stream. Raises `rate_limited` where its user has enough, `unavailable` where the process has."""
        if self._of_users[user_id] >= self._most_of_user:
            raise RateLimited(f"You have {self._most_of_user} streams open here: close some, or wait.", RETRY_SECONDS)
        if self.is_closing or self._of_users.total() >= self._most:
            raise DomainError(ErrorCode.UNAVAILABLE, "This server holds as many streams as it can: try again in a moment.")
        self._of_users[user_id] += 1
        try:
            yield
        finally:
            self._of_users[user_id] -= 1
            if not self._of_users[user_id]:
                del self._of_users[user_id]

    def admitted(self, request: Request, wanted: Capability) -> None:
        """A reader was let in just now."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(True)
        self._answers(request, wanted, answer)

    async def admits(self, request: Request, wanted: Capability) -> bool:
        """Whether a stream's reader may still read. Raises the database's own error."""
        asked, answer = self._asked.get(_asker(request, wanted), (0.0, None))
        if answer is None or asyncio.get_running_loop().time() - asked >= ACCESS_SECONDS:
            answer = asyncio.ensure_future(is_still_admitted(request, wanted))
            self._answers(request, wanted, answer)
        if answer.done():
            return answer.result()
        return await asyncio.shield(answer)  # one stream that is cut off takes the answer from no other

    def _answers(self, request: Request, wanted: Capability, answer: asyncio.Future[bool]) -> None:
        at = asyncio.get_running_loop().time()
        self._asked = {who: what for who, what in self._asked.items() if at - what[0] < ACCESS_SECONDS}
        self._asked[_asker(request, wanted)] = (at, answer)

    async def send(self, send: Send, chunk: bytes) -> bool:
        """Whether the reader has taken it, in time and before the end."""
        try:
            async with asyncio.timeout(STALLED_SECONDS) as limit:
                self._sends.add(limit)
                try:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                finally:
                    self._sends.discard(limit)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End all streams: those that wait for news, and those whose readers take nothing."""
        self.is_closing = True
        for awaited in self._awaited:
            awaited.wake()
        for limit in self._sends:
            limit.reschedule(asyncio.get_running_loop().time())


def _asker(request: Request, wanted: Capability) -> tuple[str, str, Capability]:
    return request.headers.get("authorization", ""), request.path_params["app"], wanted


class EventStream(StreamingResponse):
    """A reply of server-sent events that holds one of its user's places while it lasts."""

    def __init__(self, streams: Streams, user_id: str, events: AsyncGenerator[str, None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._streams = streams
        self._user_id = user_id
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        with self._streams.place(self._user_id):
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """As the base, for a reader who may stop to read."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events):  # what a reader who was cut off followed is left now, not when it is collected
            async for text in self._events:
                if not await self._streams.send(send, text.encode()):
                    log.info("stream_not_read", user_id=self._user_id)
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def stream(
    request: Request,
    caller: Caller,
    wanted: Capability,
    news: AsyncGenerator[NewsT, None],
    frames: Callable[[NewsT], str],
) -> EventStream:
    """`news` as a stream for a caller who has the capability `wanted`; `frames` makes events of each, or "" of a silence.

    News must come each `ACCESS_SECONDS`, if only of silence.
    """
    streams: Streams = request.app.state.streams
    streams.admitted(request, wanted)
    clock = asyncio.get_running_loop().time

    async def events() -> AsyncGenerator[str, None]:
        sent = clock()
        try:
            async with aclosing(news):
                async for each in news:
                    if streams.is_closing or not await streams.admits(request, wanted):
                        return
                    text = frames(each)
                    if not text and clock() - sent >= KEEP_ALIVE_SECONDS:
                        text = ": waiting\n\n"
                    if text:
                        yield text
                        sent = clock()
        except PyMongoError as error:
            # The stream is cut off without a word: its reader comes again with the last id, and meets the refusal then.
            log.warning("stream_cut_off", path=request.url.path, error=str(error))

    return EventStream(streams, caller.user["_id"], events())


def frame(name: str, content: dict[str, Any] | str, event_id: object = None) -> str:
    """One server-sent event with its data, which may be JSON already; `event_id` is what its reader names to go on behind it."""
    number = f"id: {event_id}\n" if event_id is not None else ""
    return f"{number}event: {name}\ndata: {content if isinstance(content, str) else json.dumps(content)}\n\n"


class ApiServer(uvicorn.Server):
    """A server that ends its streams first when it stops, since they would not end by themselves; and that lets go of a
    connection whose reader takes nothing.

    Closing one waits until what was sent is taken, which it never is then: it would keep its file descriptor for good.
    """

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams
        self._closing: set[asyncio.Transport] = set()
        self._look_at = 0.0

    async def on_tick(self, counter: int) -> bool:
        """See the class; called by the base ten times a second."""
        at = asyncio.get_running_loop().time()
        if at >= self._look_at:
            self._look_at = at + STALLED_SECONDS
            self._abort_stalled()
        return await super().on_tick(counter)

    def _abort_stalled(self) -> None:
        transports = (connection.transport for connection in self.server_state.connections)
        closing = {transport for transport in transports if transport.is_closing()}
        for transport in closing & self._closing:
            transport.abort()
        self._closing = closing

    async def shutdown(self, sockets: Any = None) -> None:
        """See the class."""
        self._streams.close()
        await super().shutdown(sockets)
