"""What a parsed file tells beyond its text: secrets under their keys, the names it defines, and what may refer to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from conman.domain.key_merge_rules import NATURAL_KEYS
from conman.domain.key_merge_tree import Node, Shape
from conman.domain.risk_rules_secrets import is_likely_value, is_secret_name
from conman.domain.semantic_diff_read import Parsed

_NAMING = ("name", "key")
"""`{name: DB_PASSWORD, value: …}`: as containers and pipelines list their variables."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar, and the keys that lead to it from the root; of an item the last one is its list's."""

    way: tuple[str, ...]
    node: Node

    @property
    def key(self) -> str:
        """The key that it stands under, "" at the root."""
        return self.way[-1] if self.way else ""


@dataclass(frozen=True, slots=True)
class TreeSecret:
    """A value under the name of a secret, with its lines in the file."""

    name: str
    text: str
    lines: tuple[int, int]
    likely: bool


def leaves(root: Node) -> Iterator[Leaf]:
    """Every scalar, in the order of the file."""
    waiting: list[tuple[Node, tuple[str, ...]]] = [(root, ())]
    while waiting:
        node, way = waiting.pop()
        if node.shape is Shape.SCALAR:
            yield Leaf(way, node)
            continue
        for entry in reversed(node.entries):
            waiting.append((entry.node, way if entry.item else (*way, entry.key)))


def tree_secrets(file: Parsed) -> Iterator[TreeSecret]:
    """The values that stand under the name of a secret, however they are written: over several lines, or beside their name."""
    waiting: list[tuple[Node, str | None]] = [(file.root, None)]
    while waiting:
        node, name = waiting.pop()
        if node.shape is Shape.SCALAR:
            if name is not None and isinstance(node.scalar, str | int) and not isinstance(node.scalar, bool):
                text = str(node.scalar)
                yield TreeSecret(name, _source(file, node), file.lines(node.start, node.end), is_likely_value(text))
            continue
        beside = _named_beside(node)
        for entry in reversed(node.entries):
            inner = name
            if not entry.item and (is_secret_name(entry.key) or (entry.key == "value" and beside is not None)):
                inner = beside if entry.key == "value" and beside is not None else entry.key
            waiting.append((entry.node, inner))


def _named_beside(node: Node) -> str | None:
    """The secret's name that stands beside a `value`."""
    if node.shape is not Shape.MAPPING:
        return None
    entries = node.by_key()
    for key in _NAMING:
        named = entries[key].node.scalar if key in entries else None
        if isinstance(named, str) and is_secret_name(named):
            return named
    return None


def _source(file: Parsed, node: Node) -> str:
    """The source text of a scalar, without its quotes or the sign of a block."""
    text = file.text[node.start : node.end].strip()
    for quote in ('"""', "'''", '"', "'"):
        if len(text) >= 2 * len(quote) and text.startswith(quote) and text.endswith(quote):
            return text[len(quote) : -len(quote)]
    return re.sub(r"\A[|>][-+0-9]{0,2}[^\n]*\n", "", text)


def natural_name(node: Node) -> str | None:
    """How a mapping names itself: its `id`, `name` or `key`."""
    if node.shape is not Shape.MAPPING:
        return None
    entries = node.by_key()
    for key in NATURAL_KEYS:
        named = entries[key].node.scalar if key in entries else None
        if isinstance(named, str | int) and not isinstance(named, bool) and named != "":
            return str(named)
    return None


def defined_things(root: Node) -> Iterator[str]:
    """The names of what a value defines: how its mappings name themselves, and the keys that mappings stand under."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        named = natural_name(node)
        if named is not None:
            yield named
        for entry in node.entries:
            if entry.node.shape is Shape.MAPPING and not entry.item:
                yield entry.key
            waiting.append(entry.node)


def defined_settings(root: Node) -> Iterator[str]:
    """All keys of a file."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for entry in node.entries:
            if not entry.item:
                yield entry.key
            waiting.append(entry.node)
