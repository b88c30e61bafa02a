"""Which members of a selection exclude each other, and the largest part of it that merges (`spec.md` 11)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from conman.domain.exclusions import MOST_EXACT, Exclusions, largest_subset, search

Oracle = Callable[[Sequence[str]], list[str]]
NAMES = "abcdefgh"


def merging(*clashes: Collection[str]) -> Oracle:
    """A repository in which the members of each clash do not merge together: who completes one is passed over."""

    def passed_over(order: Sequence[str]) -> list[str]:
        merged: set[str] = set()
        left: list[str] = []
        for member in order:
            if any(member in clash and set(clash) <= merged | {member} for clash in clashes):
                left.append(member)
            else:
                merged.add(member)
        return left

    return passed_over


def ask(
    order: Sequence[str], oracle: Oracle, colliding: Sequence[tuple[str, str]] = (), most_pairs: int = 2000
) -> tuple[Exclusions, int]:
    """What the search finds, and after how many questions."""
    searching = search(order, colliding, most_pairs)
    question, asked = next(searching), 1
    while True:
        try:
            question = searching.send(oracle(question))
            asked += 1
        except StopIteration as end:
            return end.value, asked


def brute(order: Sequence[str], oracle: Oracle, colliding: Sequence[tuple[str, str]] = ()) -> int:
    """The size of the largest subset that merges."""
    return max(
        len(subset)
        for size in range(len(order) + 1)
        for subset in combinations(order, size)
        if not oracle(subset) and not any(set(pair) <= set(subset) for pair in colliding)
    )


def pairs_of(names: str) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.sampled_from(list(combinations(names, 2))), max_size=12, unique=True)


@given(st.integers(1, 8).flatmap(lambda n: st.permutations(NAMES[:n])), pairs_of(NAMES), st.sets(st.sampled_from(NAMES)))
def test_pairs_and_the_largest_subset_are_those_that_trying_everything_finds(
    order: list[str], pairs: list[tuple[str, str]], alone: set[str]
) -> None:
    oracle = merging(*pairs, *({one} for one in sorted(alone)))
    found, _ = ask(order, oracle)
    there = {frozenset(pair) for pair in pairs if set(pair) <= set(order) - alone}
    assert {frozenset(pair) for pair in found.excludes} == there
    assert all(order.index(one) < order.index(other) for one, other in found.excludes)
    assert found.alone == [one for one in order if one in alone]
    assert found.exact
    assert oracle(found.largest_subset) == []
    assert len(found.largest_subset) == brute(order, oracle)
    assert found.largest_subset == [one for one in order if one in found.largest_subset]


@given(
    st.integers(1, 8).flatmap(lambda n: st.permutations(NAMES[:n])),
    st.lists(st.sets(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=8),
    pairs_of(NAMES).map(lambda pairs: pairs[:3]),
)
@example(list("abc"), [{"a", "b", "c"}], [])
def test_the_subset_merges_also_where_three_clash_that_merge_two_by_two(
    order: list[str], clashes: list[set[str]], pairs: list[tuple[str, str]]
) -> None:
    oracle = merging(*clashes)
    colliding = [pair for pair in pairs if set(pair) <= set(order)]
    found, _ = ask(order, oracle, colliding)
    assert oracle(found.largest_subset) == []
    assert not any(set(pair) <= set(found.largest_subset) for pair in colliding)
    most = brute(order, oracle, colliding)
    assert len(found.largest_subset) <= most
    if found.exact:
        assert len(found.largest_subset) == most


def test_a_selection_that_merges_asks_for_itself_alone() -> None:
    found, asked = ask(NAMES, merging())
    assert (found.excludes, found.alone, found.largest_subset, found.exact) == ([], [], list(NAMES), True)
    assert asked == 1


def test_overrides_that_collide_exclude_a_pair_that_merges() -> None:
    found, _ = ask("abc", merging(), [("c", "a")])
    assert (found.excludes, found.largest_subset, found.exact) == ([("a", "c")], ["a", "b"], True)


def test_of_subsets_of_one_size_the_one_with_the_earlier_members_is_told() -> None:
    found, _ = ask("abcd", merging("ab", "cd"))
    assert found.largest_subset == ["a", "c"]
    found, _ = ask("abc", merging("ab", "ac"))
    assert found.largest_subset == ["b", "c"], "more members come before earlier ones"


def test_pairs_beyond_the_bound_are_not_tried_and_the_subset_is_not_called_the_largest() -> None:
    oracle = merging(*combinations(NAMES, 2))
    found, asked = ask(NAMES, oracle, most_pairs=5)
    assert asked == 1 + 7 + 5 + 1
    assert len(found.excludes) == 5
    assert not found.exact
    assert oracle(found.largest_subset) == []


def test_a_group_above_the_bound_is_settled_greedily_and_says_so() -> None:
    members = [f"m{number:02}" for number in range(MOST_EXACT + 2)]
    star = [(members[0], other) for other in members[1:]]
    assert largest_subset(members, star) == (members[1:], False)
    assert largest_subset(members[:MOST_EXACT], star[: MOST_EXACT - 1]) == (members[1:MOST_EXACT], True)


@given(st.integers(2, 60), st.data())
def test_no_choice_holds_a_pair_that_excludes_each_other_and_each_could_take_nobody_more(n: int, data: st.DataObject) -> None:
    members = list(range(n))
    names = [str(one) for one in members]
    pair = st.tuples(st.sampled_from(members), st.sampled_from(members)).filter(lambda two: two[0] < two[1])
    pairs = [(names[one], names[other]) for one, other in data.draw(st.lists(pair, max_size=120))]
    chosen, _ = largest_subset(names, pairs)
    near = {name: {other for two in pairs if name in two for other in two if other != name} for name in names}
    assert not any(one in chosen and other in chosen for one, other in pairs)
    assert all(name in chosen or near[name] & set(chosen) for name in names)
