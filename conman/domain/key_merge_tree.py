"""The tree that a JSON, YAML or TOML file is read to, each value with the place of its source text.

Two values are the same when their digests are: of mappings the order of the keys does not count, of sequences the order
counts, and kinds are kept apart (`1`, `1.0`, `"1"` and `true` are four values).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum
from hashlib import blake2b
from typing import Final, TypeAlias

MAX_BYTES = 5 * 1024 * 1024
"""The largest file that is merged by key, bytes."""

MAX_DEPTH = 64
"""How deep mappings and sequences may stand in each other."""

MAX_VALUES = 100_000
"""How many values one file may hold; it bounds time and memory where 5 MiB are mostly brackets."""

MAX_DIGITS = 400
"""Longer numbers are kept as text: Python reads at most 4,300 digits, in quadratic time."""


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""Stands for the value of a key that a version does not have; `None` is JSON's null."""

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
"""A value as JSON has it."""


class UnreadableError(Exception):
    """A file, or a construct in it, can't be merged by key."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A scalar that JSON has no kind for, by its source text: a date, an infinity, a number that no float can hold."""

    kind: str
    text: str


Scalar: TypeAlias = bool | int | float | str | Literal | None


class Shape(Enum):
    """What a value is made of."""

    SCALAR = "scalar"
    MAPPING = "mapping"
    SEQUENCE = "sequence"


@dataclass(slots=True, eq=False)
class Node:
    """A value and where its source text stands: `text[start:end]`; nowhere (-1) if it was given by a caller.

    `flow`: written between brackets or as one word or quoted text, not by indented lines.
    `tag`: YAML's explicit one; a tagged value is one piece. `head`: where the own header line of a TOML table ends.
    """

    start: int
    end: int
    shape: Shape = Shape.SCALAR
    scalar: Scalar = None
    entries: list[Entry] = field(default_factory=list["Entry"])
    flow: bool = True
    tag: str = ""
    digest: bytes = b""
    head: int = -1

    def seal(self) -> Node:
        """Set the digest; the entries' values have theirs already."""
        self.digest = _digest(self)
        return self

    def by_key(self) -> dict[str, Entry]:
        """The entries of a mapping under their keys."""
        return {entry.key: entry for entry in self.entries}


@dataclass(slots=True, eq=False)
class Entry:
    """A key with its value, or an item: the source text `text[start:end]` from the key (or a YAML list's dash) on.

    `key_end` is behind the key (in YAML behind its colon, or behind a list's dash). `flow`: between brackets; else it has
    its lines to itself, and `end` is behind the comment in the last of them. `form` tells keys apart that have the same
    text: YAML's `1` and `"1"`. `item`: of a sequence, its key is empty.
    """

    key: str
    start: int
    end: int
    node: Node
    key_end: int = -1
    form: str = ""
    flow: bool = True
    item: bool = False


def same(left: Node | None, right: Node | None) -> bool:
    """Whether two values are equal; None stands for a value that is absent."""
    return left is right or (left is not None and right is not None and left.digest == right.digest)


def plain(node: Node | None) -> Value | Absent:
    """The value as JSON has it: a `Literal` is its text, a tagged value is `{tag: value}`."""
    return ABSENT if node is None else _plain(node)


def _plain(node: Node) -> Value:
    value: Value
    match node.shape:
        case Shape.SCALAR:
            value = node.scalar.text if isinstance(node.scalar, Literal) else node.scalar
        case Shape.MAPPING:
            value = {entry.key: _plain(entry.node) for entry in node.entries}
        case Shape.SEQUENCE:
            value = [_plain(entry.node) for entry in node.entries]
    return {node.tag: value} if node.tag else value


def made(value: Value, depth: int = 0) -> Node:
    """The node of a value that a caller gave. Raises `UnreadableError` if JSON text in UTF-8 can't hold it."""
    if depth > MAX_DEPTH:
        raise UnreadableError(f"the value is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        entries = [Entry(checked(key), -1, -1, made(each, depth + 1)) for key, each in value.items()]
        return Node(-1, -1, Shape.MAPPING, entries=entries).seal()
    if isinstance(value, list):
        entries = [Entry("", -1, -1, made(each, depth + 1), item=True) for each in value]
        return Node(-1, -1, Shape.SEQUENCE, entries=entries).seal()
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableError("the value is no finite number")
    return Node(-1, -1, scalar=checked(value) if isinstance(value, str) else value).seal()


def check_size(count: int, depth: int) -> None:
    """Raises `UnreadableError` where a file holds more than `MAX_VALUES` values, or one deeper than `MAX_DEPTH`."""
    if count > MAX_VALUES:
        raise UnreadableError(f"it holds more than {MAX_VALUES} values")
    if depth > MAX_DEPTH:
        raise UnreadableError(f"it is nested deeper than {MAX_DEPTH} levels")


def checked(text: str) -> str:
    """The text itself. Raises `UnreadableError` for halves of surrogate pairs, which UTF-8 can't hold."""
    if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        raise UnreadableError("a text holds half a surrogate pair")
    return text


def integer(text: str, base: int = 10) -> Scalar:
    """The number that digits stand for; its text where it is absurdly long."""
    return int(text, base) if len(text) <= MAX_DIGITS else Literal("integer", text)


def real(text: str) -> Scalar:
    """The number that a decimal fraction stands for; its text where a float would not hold exactly that decimal."""
    if len(text) <= MAX_DIGITS:
        number = float(text)
        try:
            if math.isfinite(number) and Decimal(repr(number)) == Decimal(text):
                return number
        except InvalidOperation:  # An exponent beyond what decimals may have.
            pass
    return Literal("number", text)


def token(text: str) -> str:
    """A reference token of a JSON pointer (RFC 6901, section 3)."""
    return text.replace("~", "~0").replace("/", "~1")


def _digest(node: Node) -> bytes:
    parts = [f"{node.shape.value}\0{node.tag}\0".encode()]
    match node.shape:
        case Shape.SCALAR:
            scalar = node.scalar
            literal = isinstance(scalar, Literal)
            kind, text = (f"literal {scalar.kind}", scalar.text) if literal else (type(scalar).__name__, repr(scalar))
            parts.append(f"{kind}\0{text}".encode())
        case Shape.MAPPING:
            for entry in sorted(node.entries, key=lambda each: each.key):
                key = entry.key.encode()
                parts += (f"{len(key)} {entry.form}\0".encode(), key, entry.node.digest)
        case Shape.SEQUENCE:
            parts += [entry.node.digest for entry in node.entries]
    return blake2b(b"".join(parts), digest_size=20).digest()
