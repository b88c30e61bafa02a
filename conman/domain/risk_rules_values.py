"""Values that changed more than was probably meant: numbers by an order of magnitude, and values of another type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from conman.domain.key_merge_tree import Literal, Node, Shape
from conman.domain.risk_rules_facts import ChangedFile, Risk, Rule, Severity
from conman.domain.risk_rules_words import words, words_of
from conman.domain.semantic_diff_read import Parsed
from conman.domain.semantic_diff_tree import Difference, Kind

JUMP = 10.0
"""From this factor on, up or down, a number has jumped."""
LARGE_JUMP = 100.0
"""From this factor on it is a high risk."""

_AMOUNT = re.compile(r"([-+]?\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z%]{0,3})")
_UNITS: dict[str, tuple[str, float]] = {
    **{unit: ("time", seconds) for unit, seconds in (("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0))},
    **{unit: ("size", 1e3**power) for power, unit in enumerate(("B", "KB", "MB", "GB", "TB"))},
    **{unit: ("memory", 1024.0**power) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)},
}
_NO_AMOUNT = words(
    """
    id ids port ports version revision year date timestamp code status hash seed zip phone uid gid build
    """
)


@dataclass(frozen=True, slots=True)
class _Amount:
    """A number in a unit that it can be compared in."""

    size: float
    unit: str
    text: str


def value_risks(file: ChangedFile) -> Iterator[Risk]:
    """The jumps and the changed types of one file."""
    found = file.differences
    if found is None:
        return
    changes, old, new = found
    for change in changes:
        before, after = change.before, change.after
        if change.kind is not Kind.MODIFIED or before is None or after is None:
            continue
        line = new.lines(after.start, after.end)[0]
        kinds = _kind(before.node), _kind(after.node)
        if kinds[0] != kinds[1]:
            yield from _type_risk(file, change, kinds, line)
            continue
        yield from _jump_risk(file, change, _amount(before.node, old), _amount(after.node, new), line)


def place(change: Difference) -> str:
    """Where a value stands, in words: `PaymentProvider → retryCount`; "the whole file" for its root."""
    return " → ".join(step.label for step in change.way) or "the whole file"


def _type_risk(file: ChangedFile, change: Difference, kinds: tuple[str, str], line: int) -> Iterator[Risk]:
    was, now = kinds
    if was == "null":
        return  # it gets the value that it was there for
    severity = Severity.LOW if now == "null" else Severity.MEDIUM
    what = "has no value any more" if now == "null" else f"changed its type from {was} to {now}"
    yield Risk(Rule.TYPE, severity, file.path, line, f"`{place(change)}` {what}: whoever reads it may expect {was}.")


def _jump_risk(file: ChangedFile, change: Difference, before: _Amount | None, after: _Amount | None, line: int) -> Iterator[Risk]:
    key = next((step.label for step in reversed(change.way) if not step.item), "")
    parts = words_of(key)
    if before is None or after is None or before.unit != after.unit or (parts and parts[-1] in _NO_AMOUNT):
        return
    factor = _factor(before.size, after.size)
    if factor < JUMP:
        return
    severity = Severity.HIGH if factor >= LARGE_JUMP else Severity.MEDIUM
    how = "to nothing" if after.size == 0 else f"by a factor of {factor:,.0f}"
    way = "grew" if abs(after.size) > abs(before.size) else "fell"
    message = f"`{place(change)}` {way} {how}, from {before.text} to {after.text}."
    yield Risk(Rule.JUMP, severity, file.path, line, message)


def _factor(before: float, after: float) -> float:
    """How many times the one is the other; from and to zero the whole amount counts, so that a switch of 0 and 1 is none."""
    small, large = sorted((abs(before), abs(after)))
    if large == 0:
        return 1.0
    return large if small == 0 else large / small


def _amount(node: Node, within: Parsed) -> _Amount | None:
    scalar = node.scalar
    if isinstance(scalar, bool) or node.shape is not Shape.SCALAR:
        return None
    if isinstance(scalar, int | float):
        try:
            size = float(scalar)
        except OverflowError:
            return None
        return _Amount(size, "", within.text[node.start : node.end][:60])
    match = _AMOUNT.fullmatch(scalar) if isinstance(scalar, str) else None
    if match is None:
        return None
    dimension, factor = _UNITS.get(match[2], (match[2], 1.0))
    return _Amount(float(match[1]) * factor, dimension, match[0]) if match[2] else None


def _kind(node: Node) -> str:
    """A value's type as programs tell types apart; integers and fractions are both numbers."""
    if node.tag:
        return f"{node.tag}"
    match node.shape, node.scalar:
        case Shape.MAPPING, _:
            return "object"
        case Shape.SEQUENCE, _:
            return "list"
        case _, None:
            return "null"
        case _, bool():
            return "boolean"
        case _, int() | float():
            return "number"
        case _, Literal() as literal:
            return "number" if literal.kind in ("integer", "number") else literal.kind
        case _:
            return "text"
