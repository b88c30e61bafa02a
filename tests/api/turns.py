"""Values that take turns: each case gets a few of them, and over many cases each value has its turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def turn(values: Sequence[T], number: int, count: int) -> list[T]:
    """`count` of the values for the case with this number; the next case gets those after them."""
    return [values[(number * count + place) % len(values)] for place in range(min(count, len(values)))]
