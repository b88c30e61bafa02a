"""The bisection of a release that fails its suite (`spec.md` 11): few runs, and never an innocent."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conman.domain.bisection import Blamed, Judge, Judged, Nobody, Outcome, Step, most_left, next_step

PASSED, FAILED, NO_VERDICT = Outcome.PASSED, Outcome.FAILED, Outcome.NO_VERDICT
Suite = Callable[[int], Outcome]


def search(members: int, suite: Suite) -> tuple[Step, list[Judged]]:
    """Ask until the search is over; each answer leaves fewer questions than it said at most."""
    judged: list[Judged] = []
    while isinstance(step := next_step(members, judged), Judge):
        left = most_left(members, judged)
        assert left > 0
        assert step.again == any(one.prefix == step.prefix for one in judged) or step.prefix == members
        judged.append(Judged(step.prefix, suite(step.prefix)))
        if isinstance(next_step(members, judged), Judge):
            assert most_left(members, judged) < left
    return step, judged


def fails_from(*culprits: int) -> Suite:
    """Each of these members breaks the suite by itself."""
    return lambda prefix: FAILED if any(culprit <= prefix for culprit in culprits) else PASSED


@given(st.integers(1, 1000).flatmap(lambda members: st.tuples(st.just(members), st.integers(1, members))))
def test_whoever_broke_the_suite_is_blamed_after_few_runs(case: tuple[int, int]) -> None:
    members, culprit = case
    step, judged = search(members, fails_from(culprit))
    assert step == Blamed(culprit)
    # The base, the halvings, and both ends of the last bracket again.
    assert len(judged) <= 1 + (members - 1).bit_length() + 2
    assert [one.prefix for one in judged[-2:]] == [culprit - 1, culprit]


@pytest.mark.parametrize("members", range(1, 9))
def test_every_small_selection_blames_each_of_its_members(members: int) -> None:
    assert [search(members, fails_from(one))[0] for one in range(1, members + 1)] == [
        Blamed(one) for one in range(1, members + 1)
    ]


@given(st.integers(1, 60), st.data())
def test_a_flaky_suite_blames_only_what_failed_each_time_after_what_passed_each_time(members: int, data: st.DataObject) -> None:
    step, judged = search(members, lambda _: data.draw(st.sampled_from(Outcome)))
    outcomes = {
        prefix: [one.outcome for one in judged if one.prefix == prefix] for prefix in sorted({one.prefix for one in judged})
    }
    if isinstance(step, Blamed):
        assert outcomes[0][0] is PASSED
        assert outcomes[step.member - 1] == [PASSED, PASSED]
        # The whole selection had failed before the search began.
        assert outcomes[step.member] == ([FAILED] if step.member == members else [FAILED, FAILED])
        assert NO_VERDICT not in [one.outcome for one in judged]
    elif step is Nobody.BASELINE_FAILING:
        assert judged == [Judged(0, FAILED)]
    elif step is Nobody.NO_VERDICT:
        assert judged[-1].outcome is NO_VERDICT
    else:
        # The whole selection had failed once before.
        last = judged[-1]
        earlier = [one.outcome for one in judged[:-1] if one.prefix == last.prefix] or [FAILED]
        assert last.outcome is not earlier[0]


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_suite_that_passes_whatever_it_failed_before_is_inconclusive(members: int, culprit: int) -> None:
    """It fails once on each prefix, and then never again."""
    seen: set[int] = {members}

    def suite(prefix: int) -> Outcome:
        if prefix in seen or prefix < min(culprit + 1, members):
            return PASSED
        seen.add(prefix)
        return FAILED

    assert search(members, suite)[0] is Nobody.INCONCLUSIVE


@given(st.integers(1, 1000))
def test_an_integration_head_that_fails_is_known_after_one_run_and_blames_nobody(members: int) -> None:
    step, judged = search(members, lambda _: FAILED)
    assert (step, len(judged)) == (Nobody.BASELINE_FAILING, 1)


def test_of_two_that_fail_only_together_the_later_one_is_blamed() -> None:
    for first, second in product(range(1, 9), repeat=2):
        if first < second:
            assert search(8, fails_from(second))[0] == Blamed(second)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n), min_size=1))))
def test_of_several_culprits_the_first_is_blamed_and_the_next_assembly_finds_the_next(case: tuple[int, set[int]]) -> None:
    members, culprits = case
    order = list(range(1, members + 1))
    found: list[int] = []
    while any(one in culprits for one in order):
        places = [order.index(one) + 1 for one in order if one in culprits]
        step, _ = search(len(order), fails_from(*places))
        assert isinstance(step, Blamed)
        found.append(order.pop(step.member - 1))
    assert found == sorted(culprits)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10))
def test_a_prefix_that_is_not_judged_ends_the_search_at_once(members: int, culprit: int, lost: int) -> None:
    runs = 0

    def suite(prefix: int) -> Outcome:
        nonlocal runs
        runs += 1
        return NO_VERDICT if runs == lost + 1 else fails_from(min(culprit, members))(prefix)

    step, judged = search(members, suite)
    assert (step is Nobody.NO_VERDICT) == (len(judged) == lost + 1 and judged[-1].outcome is NO_VERDICT)


def test_the_search_takes_no_verdict_that_it_did_not_ask_for() -> None:
    with pytest.raises(ValueError, match="asks for prefix 0"):
        next_step(4, [Judged(2, PASSED)])
    with pytest.raises(ValueError, match="asks for prefix 2"):
        next_step(4, [Judged(0, PASSED), Judged(3, PASSED)])
    with pytest.raises(ValueError, match="nobody to blame"):
        next_step(0, [])
