"""TOML for the merge by key: read with the place of each value; tables are stretches of statements.

The standard library judges whether a text is TOML 1.0. A table is a node with `flow=False`; it has its own header
(`[a]`, `[[a]]`: `head` is set), or is implied by the headers below it (`[a.b]`), or is made by dotted keys (`a.b = 1`).
An array of tables is a sequence with `flow=False`, its items have headers.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field

from conman.domain.key_merge_tree import (
    MAX_DEPTH,
    Entry,
    Literal,
    Node,
    Scalar,
    Shape,
    UnreadableError,
    check_size,
    integer,
    real,
)

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_LINE_REST = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=\r?\n|\Z)")
_SPACES = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r'[ \t]*("(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|[A-Za-z0-9_-]+)")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2}(?!"))|' + r"'''.*?'''(?:'{0,2}(?!'))|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_WORD = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[^\s,\]}#]+|[^\s,\]}#]+")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0[xob][0-9A-Fa-f]+")
_FLOAT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?(?:inf|nan)")
_TEMPORAL = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})?[Tt ]?([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)?([Zz]|[-+][0-9]{2}:[0-9]{2})?"
)
_BASES = {"x": 16, "o": 8, "b": 2}
_WORDS: dict[str, Scalar] = {"true": True, "false": False}
_LARGEST = 2**63


def read(text: str, *, scattered: bool = False) -> Node:
    """The tree of a text. Raises `UnreadableError`.

    `scattered` is for readers that edit nothing: a table may be written in several places, and is then where its first is (its
    end is the last one's); so may dotted keys stand in inline tables.
    """
    scan = _Scan(text, scattered)
    scan.run()
    try:
        tomllib.loads(text, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is no TOML") from error
    return _sealed(scan.root)


def literal(text: str) -> Scalar:
    """What a word that is no string stands for, or the text."""
    try:
        tomllib.loads(f"word = {text}", parse_float=str)
    except (ValueError, RecursionError):
        return text
    return _scalar(text) if _WORD.fullmatch(text) and text[0] not in "\"'[{" else text


def check(node: Node) -> None:
    """Raises `UnreadableError` for a value that TOML has not."""
    value = node.scalar
    if node.shape is Shape.SCALAR and value is None:
        raise UnreadableError("TOML has no null")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise UnreadableError("TOML's integers have 64 bits")
    for entry in node.entries:
        check(entry.node)


def _scalar(word: str) -> Scalar:
    if word in _WORDS:
        return _WORDS[word]
    digits = word.replace("_", "")
    if _PREFIXED.fullmatch(digits):
        return integer(digits[2:], _BASES[digits[1]])
    if _INTEGER.fullmatch(digits):
        return integer(digits)
    if _FLOAT.fullmatch(digits):
        return real(digits)
    if _SPECIAL.fullmatch(word):
        return Literal("special number", word)
    temporal = _TEMPORAL.fullmatch(word)
    if temporal is None:
        raise UnreadableError("it is no TOML")
    day, hour, offset = temporal.groups()
    kind = "date" if not hour else "time" if not day else "local date-time" if not offset else "date-time"
    return Literal(kind, f"{day or ''}{'T' if day and hour else ''}{hour or ''}{(offset or '').upper()}")


def _sealed(node: Node) -> Node:
    """The node with its digest; values have theirs already, tables get them when they are whole."""
    if not node.flow:
        for entry in node.entries:
            _sealed(entry.node)
        node.seal()
    return node


@dataclass(slots=True, eq=False)
class _Table:
    """A table that may still grow: its node, its entries under their keys, and the entries that it stands in."""

    node: Node
    entry: Entry
    """What stands for it in the table around it."""
    entries: dict[str, _Table | None] = field(default_factory=dict["str", "_Table | None"])
    last: _Table | None = None
    """Of an array of tables the last item."""


class _Scan:
    """One walk over a text, statement by statement."""

    def __init__(self, text: str, scattered: bool) -> None:
        self.text = text
        self.scattered = scattered
        self.at = 0
        self.count = 0
        self.root = Node(0, 0, Shape.MAPPING, flow=False)
        self.top = _Table(self.root, Entry("", 0, 0, self.root, flow=False))
        self.section = self.top
        self.around: list[Entry] = []
        """The entries that the section stands in, outermost first."""

    def run(self) -> None:
        """Walk over all statements."""
        while self._skip() < len(self.text):
            if self.text[self.at] == "[":
                self._header()
            else:
                self._pair()

    def _skip(self) -> int:
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.at

    def _take(self, token: str) -> None:
        """Step over a token that has to stand here."""
        spaces = _SPACES.match(self.text, self.at)
        self.at = spaces.end() if spaces else self.at
        if not self.text.startswith(token, self.at):
            raise UnreadableError("it is no TOML")
        self.at += len(token)

    def _line_end(self) -> int:
        rest = _LINE_REST.match(self.text, self.at)
        if rest is None:
            raise UnreadableError("it is no TOML")
        self.at = rest.end()
        return self.at

    def _keys(self) -> list[str]:
        """The parts of a dotted key; stands behind it then."""
        parts: list[str] = []
        while True:
            part = _KEY_PART.match(self.text, self.at)
            if part is None or len(parts) >= MAX_DEPTH:
                raise UnreadableError("it is no TOML, or is nested too deep")
            self.at = part.end()
            parts.append(self._string(part[1]) if part[1][0] in "\"'" else part[1])
            spaces = _SPACES.match(self.text, self.at)
            dot = spaces.end() if spaces else self.at
            if not self.text.startswith(".", dot):
                return parts
            self.at = dot + 1

    @staticmethod
    def _string(source: str) -> str:
        if "\\" not in source and source[:3] not in ('"""', "'''"):
            return source[1:-1]
        try:
            return tomllib.loads(f"text = {source}")["text"]
        except ValueError as error:
            raise UnreadableError("it is no TOML") from error

    def _header(self) -> None:
        start = self.at
        several = self.text.startswith("[[", start)
        self.at += 2 if several else 1
        *outer, last = self._keys()
        self._take("]]" if several else "]")
        end = self._line_end()
        table, self.around = self.top, []
        for key in outer:
            table = self._below(table, key, start, Shape.MAPPING)
            table = table.last or table
        table = self._below(table, last, start, Shape.SEQUENCE if several else Shape.MAPPING)
        if several:
            item = Node(start, end, Shape.MAPPING, flow=False)
            self.around.append(Entry("", start, end, item, start, flow=False, item=True))
            table.node.entries.append(self.around[-1])
            table.last = table = _Table(item, self.around[-1])
        if table.node.head >= 0 or (table.node.start != start and not self.scattered):
            raise UnreadableError("a table is written in several places")
        table.node.head = end
        self.section = table
        self._grow(self.around, end)

    def _below(self, table: _Table, key: str, start: int, shape: Shape) -> _Table:
        """The table of a key in another table, the innermost of an array's; made if it is not there."""
        below = self._table(table, key, start, shape)
        if self.text[below.entry.start] != "[" and not self.scattered:
            raise UnreadableError("a table is written in several places")
        self.around.append(below.entry)
        if below.last is not None and shape is Shape.MAPPING:
            self.around.append(below.node.entries[-1])
        return below

    def _table(self, table: _Table, key: str, start: int, shape: Shape) -> _Table:
        """The table of a key in another table; made if it is not there."""
        below = table.entries.get(key)
        if key not in table.entries:
            self._count()
            node = Node(start, start, shape, flow=False)
            table.entries[key] = below = _Table(node, Entry(key, start, start, node, flow=False))
            table.node.entries.append(below.entry)
        if below is None or (below.entry is not table.node.entries[-1] and not self.scattered):
            raise UnreadableError("a table is written in several places")
        return below

    def _pair(self) -> None:
        start = self.at
        keys = self._keys()
        key_end = self.at
        self._take("=")
        value = self._value(len(keys))
        end = self._line_end()
        table, within = self.section, list(self.around)
        for key in keys[:-1]:
            table = self._table(table, key, start, Shape.MAPPING)
            within.append(table.entry)
        if keys[-1] in table.entries:
            raise UnreadableError("a key stands twice")
        table.entries[keys[-1]] = None
        table.node.entries.append(Entry(keys[-1], start, end, value, key_end, flow=False))
        self._grow(within, end)

    def _grow(self, entries: list[Entry], end: int) -> None:
        for entry in entries:
            entry.end = entry.node.end = end
        self.root.end = end

    def _count(self) -> None:
        self.count += 1
        check_size(self.count, 0)

    def _value(self, depth: int) -> Node:
        self._count()
        spaces = _SPACES.match(self.text, self.at)
        self.at = spaces.end() if spaces else self.at
        start = self.at
        opening = self.text[start : start + 1]
        check_size(self.count, depth)
        if opening == "[":
            return self._collection(Node(start, -1, Shape.SEQUENCE), "]", depth)
        if opening == "{":
            return self._collection(Node(start, -1, Shape.MAPPING), "}", depth)
        quoted = opening in ('"', "'")
        found = (_STRING if quoted else _WORD).match(self.text, start)
        if found is None:
            raise UnreadableError("it is no TOML")
        self.at = found.end()
        return Node(start, self.at, scalar=self._string(found[0]) if quoted else _scalar(found[0])).seal()

    def _collection(self, node: Node, closing: str, depth: int) -> Node:
        self.at += 1
        seen: set[str] = set()
        while not self.text.startswith(closing, self._skip()):
            if node.entries:
                self._take(",")
                if self.text.startswith(closing, self._skip()):
                    break
            start = self.at
            keys = self._keys() if node.shape is Shape.MAPPING else [""]
            if len(keys) > 1 and not self.scattered:
                raise UnreadableError("an inline table has dotted keys")
            if node.shape is Shape.MAPPING and len(keys) == 1 and keys[0] in seen:
                raise UnreadableError("a key stands twice")
            seen.add(keys[0])
            within = self._dotted(node, keys[:-1], start)
            key_end = self.at
            if node.shape is Shape.MAPPING:
                self._take("=")
            value = self._value(depth + len(keys))
            within.entries.append(Entry(keys[-1], start, self.at, value, key_end, item=node.shape is Shape.SEQUENCE))
        self.at += 1
        node.end = self.at
        return _with_dotted_sealed(node)

    def _dotted(self, node: Node, keys: list[str], start: int) -> Node:
        """The table that the first parts of a dotted key name in an inline table; made if it is not there."""
        for key in keys:
            entry = next((each for each in node.entries if each.key == key), None)
            if entry is None:
                self._count()
                entry = Entry(key, start, start, Node(start, start, Shape.MAPPING))
                node.entries.append(entry)
            if entry.node.shape is not Shape.MAPPING:
                raise UnreadableError("it is no TOML")
            node = entry.node
        return node


def _with_dotted_sealed(node: Node) -> Node:
    for entry in node.entries:
        if not entry.node.digest:  # made by dotted keys: it is whole only now
            _with_dotted_sealed(entry.node)
    return node.seal()
