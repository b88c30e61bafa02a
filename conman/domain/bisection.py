"""Which member of a release broke its suite: a bisection over the merge prefixes (`spec.md` 11).

Prefix k is the integration head with the first k members; prefix 0 is the head alone. The search starts when the whole selection
has failed. From the verdicts so far, `next_step` says which prefix to judge next, or what follows from them. It blames member k
only when prefix k - 1 passed and prefix k failed each time they were judged, and each was judged twice:

- Two members that fail only together: the later one is blamed, since all before it pass.
- Several that fail each by itself: the first is blamed; the next assembly, without it, finds the next.
- A suite that passes and fails on the same files: nobody is blamed, as soon as either end of the last bracket shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What a suite says of a prefix; `no_verdict` says nothing of its files (canceled, timed out, lost)."""

    PASSED = "passed"
    FAILED = "failed"
    NO_VERDICT = "no_verdict"


@dataclass(frozen=True, slots=True)
class Judged:
    """A prefix, and what the suite said of it."""

    prefix: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Judge:
    """Run the suite on this prefix next; `again`: the prefix was judged before, and an earlier result does not count."""

    prefix: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Blamed:
    """The suite fails from this member on (counted from 1)."""

    member: int


class Nobody(StrEnum):
    """The search is over, and no member is to blame."""

    BASELINE_FAILING = "baseline_failing"
    """The integration head fails by itself."""
    INCONCLUSIVE = "inconclusive"
    """The suite changes its mind on the same files."""
    NO_VERDICT = "no_verdict"
    """The last prefix was not judged."""


Step = Judge | Blamed | Nobody


@dataclass(frozen=True, slots=True)
class _Bracket:
    """Prefix `low` passed and prefix `high` failed; `rest` are the verdicts after the search had come to this."""

    low: int
    high: int
    rest: Sequence[Judged]


def next_step(members: int, judged: Sequence[Judged]) -> Step:
    """What follows from the verdicts in the order in which they came; the whole selection (`members` of them) has failed before.

    Raises `ValueError` without a member, and for verdicts that this search has not asked for.
    """
    if members < 1:
        raise ValueError("a selection without members has nobody to blame")
    if not judged:
        return Judge(0)
    base = judged[0]
    _expect(base, 0)
    if base.outcome is not Outcome.PASSED:
        return Nobody.NO_VERDICT if base.outcome is Outcome.NO_VERDICT else Nobody.BASELINE_FAILING
    found = _narrow(members, judged[1:])
    return _confirm(found) if isinstance(found, _Bracket) else found


def _narrow(members: int, judged: Sequence[Judged]) -> _Bracket | Judge | Nobody:
    low, high = 0, members
    rest = list(judged)
    while high - low > 1:
        middle = (low + high) // 2
        if not rest:
            return Judge(middle)
        one = rest.pop(0)
        _expect(one, middle)
        if one.outcome is Outcome.NO_VERDICT:
            return Nobody.NO_VERDICT
        low, high = (middle, high) if one.outcome is Outcome.PASSED else (low, middle)
    return _Bracket(low, high, rest)


def _confirm(bracket: _Bracket) -> Step:
    """Both ends of the last bracket a second time: a suite that is of another mind now proves nothing."""
    ends = ((bracket.low, Outcome.PASSED), (bracket.high, Outcome.FAILED))
    for number, (prefix, expected) in enumerate(ends):
        if number == len(bracket.rest):
            return Judge(prefix, again=True)
        again = bracket.rest[number]
        _expect(again, prefix)
        if again.outcome is not expected:
            return Nobody.NO_VERDICT if again.outcome is Outcome.NO_VERDICT else Nobody.INCONCLUSIVE
    return Blamed(bracket.high)


def _expect(judged: Judged, prefix: int) -> None:
    if judged.prefix != prefix:
        raise ValueError(f"prefix {judged.prefix} was judged where the search asks for prefix {prefix}")


def most_left(members: int, judged: Sequence[Judged]) -> int:
    """How many prefixes are still to be judged at most, by a search that has not ended."""
    if not judged:
        return 1 + (members - 1).bit_length() + 2
    low, high, rest = 0, members, list(judged[1:])
    while high - low > 1 and rest:
        middle = (low + high) // 2
        low, high = (middle, high) if rest.pop(0).outcome is Outcome.PASSED else (low, middle)
    return (high - low - 1).bit_length() + 2 - len(rest)
