"""What `make bench` prints: one row per measured thing, beside the bare thing that it stands on, and its limit."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console()


@dataclass(frozen=True)
class Row:
    """One line of a table. `over`: the limit was missed in this run."""

    what: str
    measured: str
    beside: str
    limit: str
    over: bool = False


@dataclass(frozen=True)
class Limit:
    """A budget: in milliseconds, or, where `of` names a bare thing of the row, in multiples of that."""

    most: float
    of: str = ""

    def __str__(self) -> str:
        return f"<= {self.most:g}x {self.of}" if self.of else f"<= {shown(self.most)}"

    def is_missed(self, ours: float, beside: Mapping[str, float]) -> bool:
        """Whether `ours` milliseconds are too many."""
        return ours > self.most * (beside[self.of] if self.of else 1)


def shown(milliseconds: float) -> str:
    """In seconds from one second on."""
    return f"{milliseconds / 1000:.3g} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"


def row(what: str, ours: float, beside: Mapping[str, float] | None = None, limit: Limit | None = None) -> Row:
    """One line; times are in milliseconds."""
    bare = beside or {}
    ratios = "; ".join(f"{name} {shown(time)} = {ours / time:.2g}x" for name, time in bare.items())
    return Row(what, shown(ours), ratios, str(limit or ""), limit is not None and limit.is_missed(ours, bare))


def table(title: str, rows: list[Row]) -> Table:
    """The rows for the terminal; one over its limit says so."""
    made = Table("what", "measured", "beside", "limit", "", title=title, title_justify="left")
    for line in rows:
        made.add_row(line.what, line.measured, line.beside, line.limit, "OVER" if line.over else "")
    return made


def say(text: str) -> None:
    """One line of progress."""
    console.print(f"  {text}", highlight=False)


@dataclass
class Sample:
    """Times of one thing in milliseconds."""

    name: str
    times: list[float]

    def at(self, share: float) -> float:
        """The time below which `share` of the samples are."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.times)


async def timed(work: Awaitable[Any]) -> float:
    """How many milliseconds it takes."""
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1000


async def sample(name: str, count: int, work: Callable[[int], Awaitable[Any]], at_once: int = 1) -> Sample:
    """Run `work` `count` times, `at_once` side by side."""
    times: list[float] = []
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            times.append(await timed(work(number)))

    await asyncio.gather(*(one(number) for number in range(count)))
    say(f"measured {name} ({count} times)")
    return Sample(name, times)
