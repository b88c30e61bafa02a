"""Values and files that were removed in one place and added in another: they moved (`spec.md` 8).

A value counts when it says enough to be known again: two scalars or more, or one text of `TELLING_TEXT` characters. It moved
to an equal one; else, with `TELLING_SCALARS` or more, to the one that shares most with it, from `NEAR` on. A whole file is
only found in whole files, a value only in values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from conman.domain.semantic_diff_files import Finding
from conman.domain.semantic_diff_tree import Kind

TELLING_TEXT = 16
"""Characters from which a text alone is known again."""
TELLING_SCALARS = 4
"""Scalars from which a value is looked for where it is only nearly the same."""
NEAR = 0.7
"""The part of their scalars that two values share when one is the other, moved and edited: twice the shared, by all."""
_MOST_SHARING = 50
"""A scalar that more of the added values share tells nothing."""


def with_moves(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, each removal and addition that are one move as one finding where the value came to."""
    removed = [index for index, each in enumerate(findings) if each.kind is Kind.REMOVED and _tells(each)]
    added = [index for index, each in enumerate(findings) if each.kind is Kind.ADDED and _tells(each)]
    target_of: dict[int, int] = {}
    for whole in (True, False):
        sources = [index for index in removed if findings[index].whole is whole]
        targets = [index for index in added if findings[index].whole is whole]
        _equal(findings, sources, targets, target_of)
        taken = frozenset(target_of.values())
        _near(
            findings,
            [index for index in sources if index not in target_of],
            [index for index in targets if index not in taken],
            target_of,
        )
    source_of = {target: source for source, target in target_of.items()}
    found: list[Finding] = []
    for index, each in enumerate(findings):
        if index in source_of:
            source = findings[source_of[index]]
            old_path = source.subject.path if each.whole else None
            note = "changed" if each.whole and _digest(source) != _digest(each) else ""
            blobs = (*source.blobs[:1], *each.blobs[1:])
            moved = replace(each, kind=Kind.MOVED, before=source.before, source=source, old_path=old_path, note=note, blobs=blobs)
            found.append(moved)
        elif index not in target_of:
            found.append(each)
    return found


def _tells(finding: Finding) -> bool:
    trace = finding.trace
    return trace is not None and (trace.leaves >= 2 or trace.longest >= TELLING_TEXT)


def _digest(finding: Finding) -> bytes:
    side = finding.before if finding.kind is Kind.REMOVED else finding.after
    return side.digest if side is not None else b""


def _equal(findings: Sequence[Finding], sources: Iterable[int], targets: Iterable[int], target_of: dict[int, int]) -> None:
    """Pair equal values, in their order; in one file before others."""
    waiting: dict[bytes, list[int]] = {}
    for target in targets:
        waiting.setdefault(_digest(findings[target]), []).append(target)
    for source in sources:
        there = waiting.get(_digest(findings[source]))
        if there:
            own = (place for place, target in enumerate(there) if findings[target].subject.path == findings[source].subject.path)
            target_of[source] = there.pop(next(own, 0))


def _near(findings: Sequence[Finding], sources: Iterable[int], targets: Iterable[int], target_of: dict[int, int]) -> None:
    """Pair values that share enough, those that share most first."""
    having: dict[bytes, list[int]] = {}
    for target in targets:
        for feature in sorted(_features(findings[target])):
            having.setdefault(feature, []).append(target)
    scored: list[tuple[float, int, int]] = []
    for source in sources:
        shared: dict[int, int] = {}
        features = _features(findings[source])
        for feature in sorted(features):
            there = having.get(feature, ())
            for target in there if len(there) <= _MOST_SHARING else ():
                shared[target] = shared.get(target, 0) + 1
        for target, count in shared.items():
            score = 2 * count / (len(features) + len(_features(findings[target])))
            if score >= NEAR:
                scored.append((-score, source, target))
    taken: set[int] = set()
    for _, source, target in sorted(scored):
        if source not in target_of and target not in taken:
            target_of[source] = target
            taken.add(target)


def _features(finding: Finding) -> frozenset[bytes]:
    trace = finding.trace
    return trace.features if trace is not None and trace.leaves >= TELLING_SCALARS else frozenset()
