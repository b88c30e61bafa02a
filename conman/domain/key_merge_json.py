"""JSON for the merge by key: read with the place of each value, edited in place.

The standard library judges whether a text is JSON (RFC 8259; no comments, no `NaN`); the scan here then finds the places.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from conman.domain.key_merge_flow import Pen, rewritten
from conman.domain.key_merge_lines import moved, newline_of
from conman.domain.key_merge_rules import Added, Put, Sources, Within
from conman.domain.key_merge_tree import (
    Entry,
    Literal,
    Node,
    Scalar,
    Shape,
    UnreadableError,
    Value,
    check_size,
    checked,
    integer,
    plain,
    real,
)

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORD = re.compile(r"[^ \t\r\n,\]}]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]+")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_INDENTED = re.compile(r"[{\[][ \t]*\r?\n([ \t]+)")
_COMPACT = re.compile(r'"[ \t]*:[^ \t\r\n]')


def read(text: str) -> Node:
    """The tree of a text. Raises `UnreadableError`."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is no JSON") from error
    return _Scan(text).value(_after_blanks(text, 0), 0)


def edit(sources: Sources, change: Within, rendered: bool) -> str:
    """Ours' text with the changes in its root, an object."""
    text = sources.ours
    pen = _JsonPen(sources, rendered)
    return text[: change.node.start] + rewritten(text, change, pen) + text[change.node.end :]


def literal(text: str) -> Scalar:
    """What a number's text stands for, or the text."""
    return _number(text) if _NUMBER.fullmatch(text) else text


def _refuse(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is no JSON value")


def _number(word: str) -> Scalar:
    return integer(word) if _INTEGER.fullmatch(word) else real(word)


def _after_blanks(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


class _Scan:
    """One walk over a text that is JSON."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.count = 0

    def value(self, at: int, depth: int) -> Node:
        """The value that begins at a place."""
        self.count += 1
        check_size(self.count, depth)
        opening = self.text[at]
        if opening in "{[":
            return self._collection(at, depth, Shape.MAPPING if opening == "{" else Shape.SEQUENCE)
        if opening == '"':
            string, end = self._string(at)
            return Node(at, end, scalar=string).seal()
        word = _WORD.match(self.text, at)
        if word is None:
            raise AssertionError(f"no value at offset {at} of a text that is JSON")
        return Node(at, word.end(), scalar=_WORDS[word[0]] if word[0] in _WORDS else _number(word[0])).seal()

    def _collection(self, at: int, depth: int, shape: Shape) -> Node:
        text = self.text
        node = Node(at, -1, shape)
        seen: set[str] = set()
        end = _after_blanks(text, at + 1)
        while text[end] not in "}]":
            start = end = end if text[end] != "," else _after_blanks(text, end + 1)
            key, key_end = "", -1
            if shape is Shape.MAPPING:
                key, key_end = self._string(start)
                if key in seen:
                    raise UnreadableError(f"the key {key!r} stands twice")
                seen.add(key)
                end = _after_blanks(text, _after_blanks(text, key_end) + 1)
            value = self.value(end, depth + 1)
            node.entries.append(Entry(key, start, value.end, value, key_end, item=shape is Shape.SEQUENCE))
            end = _after_blanks(text, value.end)
        node.end = end + 1
        return node.seal()

    def _string(self, at: int) -> tuple[str, int]:
        found = _STRING.match(self.text, at)
        if found is None:
            raise AssertionError(f"no string at offset {at} of a text that is JSON")
        return checked(json.loads(found[0]) if "\\" in found[0] else found[0][1:-1]), found.end()


class _JsonPen(Pen):
    """Writes as the file does: its indent, its line ends, its blanks behind commas and colons."""

    def __init__(self, sources: Sources, rendered: bool) -> None:
        text = sources.ours
        self.newline = newline_of(sources)
        self.rendered = rendered
        self.gap = "" if _COMPACT.search(text) else " "
        indent = _INDENTED.search(text)
        self.unit = indent[1] if indent else None

    def put(self, put: Put, indent: str) -> str:
        if put.entry is None or self.rendered:
            return self._rendered(put.node, indent)
        return moved(put.source, put.node.start, put.node.end, indent, self.newline)

    def added(self, added: Added, indent: str) -> str:
        """A key as its source has it, with its value."""
        entry = added.entry
        return moved(added.source, entry.start, entry.node.start, indent, self.newline) + self.put(added.put, indent)

    def opened(self, node: Node, line: str) -> tuple[str, str]:
        if self.unit is None:
            return "", ""
        return self.newline + line + self.unit, self.newline + line

    def _rendered(self, node: Node, indent: str) -> str:
        if isinstance(node.scalar, Literal):
            return node.scalar.text
        value: Value = plain(node)  # pyright: ignore[reportAssignmentType]
        separators = (f",{self.gap}" if self.unit is None else ",", f":{self.gap}")
        dumped = json.dumps(value, ensure_ascii=False, indent=self.unit, separators=separators)
        return dumped.replace("\n", self.newline + indent)
