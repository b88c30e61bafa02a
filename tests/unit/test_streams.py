"""What holds for every stream of events (`api.md` 3): how many there may be, and how they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from conman.api import streams as api_streams
from conman.api.streams import ApiServer, EventStream, Streams, frame
from conman.domain.errors import DomainError, ErrorCode, RateLimited


class Awaited:
    """What streams wait for."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_a_user_and_a_process_have_so_many_places_and_one_that_is_left_is_free() -> None:
    streams = Streams(most=3, most_of_user=2)
    with ExitStack() as open_ones:
        for _ in range(2):
            open_ones.enter_context(streams.place("ann"))
        with pytest.raises(RateLimited) as of_user, streams.place("ann"):
            pass
        assert of_user.value.code is ErrorCode.RATE_LIMITED and of_user.value.retry_after > 0
        with streams.place("rob"):
            with pytest.raises(DomainError) as of_process, streams.place("max"):
                pass
            assert of_process.value.code is ErrorCode.UNAVAILABLE
        with streams.place("max"):
            pass
    with streams.place("ann"):
        pass


async def test_the_end_of_a_process_wakes_who_waits_and_lets_go_of_who_does_not_read() -> None:
    awaited, began = Awaited(), asyncio.Event()
    streams = Streams(awaited, most=3, most_of_user=3)

    async def never_read(_message: Message) -> None:
        began.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(streams.send(never_read, b"data: {}\n\n"))
    await began.wait()
    streams.close()
    assert not await asyncio.wait_for(sending, 30)
    assert (awaited.woken, streams.is_closing) == (1, True)
    with pytest.raises(DomainError), streams.place("ann"):
        pass


async def test_what_a_reader_takes_is_sent_as_it_is() -> None:
    taken: list[Message] = []

    async def read(message: Message) -> None:
        taken.append(message)

    assert await Streams(most=1, most_of_user=1).send(read, b"x")
    assert taken == [{"type": "http.response.body", "body": b"x", "more_body": True}]


def test_an_event_is_one_block_whatever_its_text() -> None:
    assert frame("line", {"text": "a\n\nb"}, 7) == 'id: 7\nevent: line\ndata: {"text": "a\\n\\nb"}\n\n'
    assert frame("ended", {}) == "event: ended\ndata: {}\n\n"


async def test_who_takes_nothing_keeps_neither_a_place_nor_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_streams, "STALLED_SECONDS", 0.3)
    streams, left = Streams(most=1, most_of_user=1), asyncio.Event()

    async def endless() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "data: " + "x" * 65_536 + "\n\n"
        finally:
            left.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventStream(streams, "ann", endless())(scope, receive, send)

    server = ApiServer(uvicorn.Config(app, port=0, lifespan="off", log_config=None), streams)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110  the server has no event for it
            await asyncio.sleep(0.01)
        address = server.servers[0].sockets[0].getsockname()
        with socket.socket() as reader:
            reader.setblocking(False)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().sock_connect(reader, address)
            await asyncio.get_running_loop().sock_sendall(reader, b"GET / HTTP/1.1\r\nHost: conman\r\n\r\n")
            await left.wait()
            while server.server_state.connections:  # noqa: ASYNC110  nor for this
                await asyncio.sleep(0.01)
        with streams.place("ann"):
            pass
        server.should_exit = True
        await serving
