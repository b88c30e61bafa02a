"""Waiting for a condition with a deadline, and work that goes on side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")
T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.2
"""Between two looks at something that is waited for, seconds: each look costs a busy machine what it could do meanwhile."""


async def until(what: str, look: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Wait for a condition: the first true answer. Raises `AssertionError` with what was waited for."""
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}; last: {found!r}"
        await asyncio.sleep(pause)
        pause = min(1.3 * pause, LONGEST_PAUSE)


async def side_by_side(items: Iterable[ItemT], work: Callable[[ItemT], Awaitable[T]], at_once: int) -> list[T]:
    """`work` on every item, `at_once` side by side; the results in order."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: ItemT) -> T:
        async with slots:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))
