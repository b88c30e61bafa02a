"""Which item of one version of a sequence is which of the other (`spec.md` 8).

Items with a natural key (`id`, `name` or `key`) are the same when it is, wherever they stand. Others are the same when they
are equal and stand once in each version; between two of those, equal items in the same order are, and what is left over is
matched by position where it is of one kind. The time is linear but for one sort.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from conman.domain.key_merge_rules import natural_items
from conman.domain.key_merge_tree import Entry, Node, Shape, same


@dataclass(frozen=True, slots=True)
class Name:
    """An item's token in pointers, and what people call it."""

    token: str
    label: str


@dataclass(frozen=True, slots=True)
class Matched:
    """Of each item in the new version the index of its old one, None where it is new; and all items' names."""

    old_of_new: tuple[int | None, ...]
    old_names: tuple[Name, ...]
    new_names: tuple[Name, ...]

    @property
    def gone(self) -> list[int]:
        """The old items that are no more, by index."""
        kept = {each for each in self.old_of_new if each is not None}
        return [index for index in range(len(self.old_names)) if index not in kept]

    @property
    def order(self) -> list[int]:
        """The old indices of the items that stayed, as they stand now."""
        return [each for each in self.old_of_new if each is not None]

    @property
    def out_of_order(self) -> list[int]:
        """The fewest items, by new index, that would have to move for the old order; empty if the order is the old one."""
        there = [(new, old) for new, old in enumerate(self.old_of_new) if old is not None]
        in_order = {there[index][0] for index in longest_rise([old for _, old in there])}
        return [new for new, _ in there if new not in in_order]


def match(old: Node, new: Node) -> Matched:
    """Match the items of two sequences."""
    named = natural_items([old, new])
    if named is not None and old.entries and new.entries:
        where = {token: index for index, token in enumerate(named[0])}
        names = [tuple(Name(token, token.partition("=")[2]) for token in each) for each in named]
        return Matched(tuple(where.get(token) for token in named[1]), *names)
    pairs = _Pairs(old.entries, new.entries)
    pairs.find()
    return Matched(tuple(pairs.old_of_new), _indices(old), _indices(new))


def longest_rise(numbers: Sequence[int]) -> list[int]:
    """The places of a longest increasing subsequence (patience sorting)."""
    ends: list[int] = []
    places: list[int] = []
    before: list[int] = []
    for place, number in enumerate(numbers):
        at = bisect_left(ends, number)
        before.append(places[at - 1] if at else -1)
        ends[at : at + 1] = [number]
        places[at : at + 1] = [place]
    found: list[int] = []
    place = places[-1] if places else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def _indices(node: Node) -> tuple[Name, ...]:
    return tuple(Name(str(index), str(index)) for index in range(len(node.entries)))


class _Pairs:
    """Matches items without a natural key."""

    def __init__(self, old: Sequence[Entry], new: Sequence[Entry]) -> None:
        self.old = [entry.node for entry in old]
        self.new = [entry.node for entry in new]
        self.old_of_new: list[int | None] = [None] * len(new)
        self.taken = [False] * len(old)

    def find(self) -> None:
        """Unique equal items first; then each stretch between those that kept their order."""
        anchors = self._unique()
        for new, old in anchors:
            self._pair(old, new)
        backbone = [anchors[index] for index in longest_rise([old for _, old in anchors])]
        old_from = new_from = 0
        for new, old in [*backbone, (len(self.new), len(self.old))]:
            self._stretch(
                [index for index in range(old_from, old) if not self.taken[index]],
                [index for index in range(new_from, new) if self.old_of_new[index] is None],
            )
            old_from, new_from = old + 1, new + 1

    def _unique(self) -> list[tuple[int, int]]:
        """(new, old) of the items that stand once in each version, by new index."""
        counts = [Counter(node.digest for node in nodes) for nodes in (self.old, self.new)]
        where = {node.digest: index for index, node in enumerate(self.old) if counts[0][node.digest] == 1}
        return [
            (index, where[node.digest])
            for index, node in enumerate(self.new)
            if counts[1][node.digest] == 1 and node.digest in where
        ]

    def _stretch(self, old: Sequence[int], new: Sequence[int]) -> None:
        first, last = 0, 0
        shorter = min(len(old), len(new))
        while first < shorter and same(self.old[old[first]], self.new[new[first]]):
            self._pair(old[first], new[first])
            first += 1
        while last < shorter - first and same(self.old[old[-1 - last]], self.new[new[-1 - last]]):
            self._pair(old[-1 - last], new[-1 - last])
            last += 1
        old, new = old[first : len(old) - last], new[first : len(new) - last]
        waiting: dict[bytes, list[int]] = {}
        for place in range(len(old) - 1, -1, -1):
            waiting.setdefault(self.old[old[place]].digest, []).append(place)
        old_from = new_from = 0
        for place, index in enumerate(new):
            equal = waiting.get(self.new[index].digest, [])
            while equal and equal[-1] < old_from:
                equal.pop()
            if equal:
                at = equal.pop()
                self._pair(old[at], index)
                self._leftover(old[old_from:at], new[new_from:place])
                old_from, new_from = at + 1, place + 1
        self._leftover(old[old_from:], new[new_from:])

    def _leftover(self, old: Sequence[int], new: Sequence[int]) -> None:
        for one, other in zip(old, new, strict=False):
            if _one_kind(self.old[one], self.new[other]):
                self._pair(one, other)

    def _pair(self, old: int, new: int) -> None:
        self.old_of_new[new] = old
        self.taken[old] = True


def _one_kind(old: Node, new: Node) -> bool:
    """Whether an item may be another one changed: scalars, sequences, or mappings that share a key."""
    if old.shape is not new.shape or old.tag != new.tag:
        return False
    return old.shape is not Shape.MAPPING or not old.by_key().keys().isdisjoint(new.by_key())
