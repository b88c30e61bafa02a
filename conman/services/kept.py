"""Answers that are worth keeping in memory: those that were asked for last, as many as have room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Kept(Generic[KeyT, ValueT]):
    """Values under keys that name all that they depend on, so that none is ever out of date; for one event loop.

    `most` bounds the sum of the weights that come with the values; a value that is heavier than that alone is not kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._kept: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()

    def get(self, key: KeyT) -> ValueT | None:
        """The value, None when it is not kept (any more)."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: KeyT, value: ValueT, weight: int) -> None:
        """Keep a value; those that were not asked for the longest make room."""
        _, replaced = self._kept.pop(key, (None, 0))
        self._weight -= replaced
        if weight > self._most:
            return
        self._kept[key] = value, weight
        self._weight += weight
        while self._weight > self._most:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._weight -= oldest
