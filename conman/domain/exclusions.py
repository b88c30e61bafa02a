"""Why a selection does not merge: which of its members exclude each other, and the largest part of it that merges (`spec.md` 11).

`search` asks an oracle, which merges members in order onto the integration head and passes over those that conflict, and yields
one question at a time: the order to try. The answer names who was passed over. So the search itself touches no repository.

What it takes for granted: members that exclude each other as a pair do so in every selection. It is not always the other way
round (three members may merge two by two and not together), so the subset that it tells has been merged as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from functools import cache

from conman.domain.decision import Model

MOST_EXACT = 20
"""Members that exclude each other, directly or by way of others, up to which their largest subset is found exactly; beyond it
those with the fewest exclusions are taken first."""

MOST_PAIRS = 2000
"""Pairs that one search tries, so that it ends: what is beyond them is not known, and the subset not known to be the largest."""

Search = Generator[tuple[str, ...], Collection[str], "Exclusions"]
"""Yields an order to merge, is sent who was passed over, and returns what was found."""


class Exclusions(Model):
    """What keeps a selection from merging. Nothing of it has been tested: the merges were only tried.

    `excludes`: pairs in merge order; of members whose merges conflict, or whose overrides collide. `alone`: members that conflict
    with the integration head by themselves. `largest_subset`: members that merge together, in merge order; `exact`: no subset
    that merges has more.
    """

    excludes: list[tuple[str, str]]
    alone: list[str]
    largest_subset: list[str]
    untested: bool = True
    exact: bool


def search(order: Sequence[str], colliding: Iterable[tuple[str, str]] = (), most_pairs: int = MOST_PAIRS) -> Search:
    """Find what excludes what among `order`; `colliding` are pairs that exclude each other for a reason outside Git."""
    place = {member: number for number, member in enumerate(order)}
    passed_over = sorted((yield tuple(order)), key=place.__getitem__)
    alone: list[str] = []
    for member in passed_over:
        if (yield (member,)):
            alone.append(member)
    known = {_in_order(one, other, place) for one, other in colliding}
    pairs = {pair for pair in known if not set(pair) & set(alone)}
    suspects = [pair for pair in _suspects(order, passed_over, alone) if pair not in pairs]
    for one, other in suspects[:most_pairs]:
        if other in (yield (one, other)):
            pairs.add((one, other))
    excludes = sorted(pairs, key=lambda pair: (place[pair[0]], place[pair[1]]))
    wanted, exact = largest_subset(_without(order, alone), excludes)
    # What the order itself leaves has been merged as a whole already; what is passed over of another subset is left out of it.
    in_turn = _without(order, passed_over)
    merged = wanted if wanted == in_turn else _without(wanted, (yield tuple(wanted)))
    best = merged if len(merged) >= len(in_turn) or _holds_pair(in_turn, pairs) else in_turn
    return Exclusions(
        excludes=excludes,
        alone=alone,
        largest_subset=best,
        exact=exact and len(suspects) <= most_pairs and len(best) == len(wanted),
    )


def _suspects(order: Sequence[str], passed_over: Collection[str], alone: Collection[str]) -> list[tuple[str, str]]:
    """The pairs to try, in merge order: who was passed over, with everybody who merges by himself. Nobody else's merges
    conflict: they have been made, one after the other.
    """
    able = _without(order, alone)
    return [
        (one, other)
        for number, one in enumerate(able)
        for other in able[number + 1 :]
        if one in passed_over or other in passed_over
    ]


def _in_order(one: str, other: str, place: Mapping[str, int]) -> tuple[str, str]:
    return (one, other) if place[one] < place[other] else (other, one)


def _without(members: Sequence[str], left_out: Collection[str]) -> list[str]:
    return [member for member in members if member not in left_out]


def _holds_pair(members: Collection[str], pairs: Iterable[tuple[str, str]]) -> bool:
    return any(one in members and other in members for one, other in pairs)


def largest_subset(order: Sequence[str], excludes: Iterable[tuple[str, str]]) -> tuple[list[str], bool]:
    """The most members of which no two exclude each other, in order, and whether no other choice has more.

    Of choices of one size it is the one with the earlier members. Groups that exclude each other are settled each by itself.
    """
    place = {member: number for number, member in enumerate(order)}
    near: dict[int, set[int]] = {number: set() for number in range(len(order))}
    for one, other in excludes:
        near[place[one]].add(place[other])
        near[place[other]].add(place[one])
    taken: list[int] = []
    exact = True
    for group in _groups(near):
        if len(group) <= MOST_EXACT:
            taken += _most(group, near)
        else:
            taken += _greedy(group, near)
            exact = False
    return [order[number] for number in sorted(taken)], exact


def _groups(near: Mapping[int, Collection[int]]) -> list[list[int]]:
    """The members by who reaches whom over exclusions."""
    found: list[list[int]] = []
    seen: set[int] = set()
    for start in near:
        if start in seen:
            continue
        group, ahead = {start}, [start]
        while ahead:
            for other in near[ahead.pop()]:
                if other not in group:
                    group.add(other)
                    ahead.append(other)
        seen |= group
        found.append(sorted(group))
    return found


def _most(group: Sequence[int], near: Mapping[int, Collection[int]]) -> list[int]:
    """The largest choice of a small group: each member is either taken, without those that it excludes, or left."""
    bit = {member: number for number, member in enumerate(group)}
    blocked = [sum(1 << bit[other] for other in near[member]) for member in group]

    @cache
    def best(open_: int) -> int:
        if not open_:
            return 0
        first = open_ & -open_
        number = first.bit_length() - 1
        taken = first | best(open_ & ~first & ~blocked[number])
        if not open_ & blocked[number]:
            return taken
        left = best(open_ & ~first)
        return taken if taken.bit_count() >= left.bit_count() else left

    chosen = best((1 << len(group)) - 1)
    return [member for member in group if chosen >> bit[member] & 1]


def _greedy(group: Sequence[int], near: Mapping[int, Collection[int]]) -> list[int]:
    """A large choice of a large group: again and again the member with the fewest exclusions that are still open."""
    open_ = set(group)
    taken: list[int] = []
    while open_:
        member = min(open_, key=lambda one: (len(open_.intersection(near[one])), one))
        taken.append(member)
        open_ -= {member, *near[member]}
    return taken
