"""What holds for every stream of events (`api.md` 3): how many there may be, and how they end."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from starlette.types import Message

from conman.api.streams import Streams, frame
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
