"""Calls that a server ends before it has taken all of a stream of requests, as one does that refuses the first of them.

When the end arrives while a request is being sent, the library drops the status and puts one of its own in its place. Which
calls that happened to is kept here: the next of them gives the server time to answer before its first requests are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

PATIENCE = 0.25
"""Seconds that each of the first requests waits for an early end; a refusal needs no more than the way there and back."""
_HELD = 2
"""Requests that wait: servers refuse a call at once, or when they have read its first request."""
_STATUS_LOST = "Internal error from Core"
"""The library's own words, with INTERNAL, in place of a status that it dropped."""


class EarlyEnds:
    """The calls of one channel whose status was lost the last time."""

    def __init__(self) -> None:
        self._lost: set[Any] = set()

    def start(self, method: Any, request: Any, **options: Any) -> Any:
        """Begin a call of `method`; with a stream of requests that wait when its status was lost the last time."""
        if method not in self._lost or not hasattr(request, "__aiter__"):
            return method(request, **options)
        ended = asyncio.Event()
        call = method(_held(request, ended), **options)
        call.add_done_callback(lambda _: ended.set())
        return call

    def is_lost(self, method: Any, error: grpc.aio.AioRpcError) -> bool:
        """Whether an error stands for a status that was dropped; the next call of `method` then waits for it."""
        lost = error.code() is grpc.StatusCode.INTERNAL and error.details() == _STATUS_LOST
        if lost:
            self._lost.add(method)
        else:
            self._lost.discard(method)
        return lost


async def _held(requests: AsyncIterator[Any], ended: asyncio.Event) -> AsyncIterator[Any]:
    number = 0
    async for request in requests:
        if number < _HELD:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PATIENCE)
        if ended.is_set():
            return
        yield request
        number += 1
