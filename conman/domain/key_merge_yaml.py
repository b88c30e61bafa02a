"""YAML for the merge by key: composed from the parser's events with the place of each value.

Scalars are read by YAML 1.2's core schema, with one precaution: a plain word that a reader of YAML 1.1 takes for something
else (`yes`, `010`, `1:30`, `2024-05-01`) is a `Literal`, so that `NO` and `"NO"` stay two values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from conman.domain.key_merge_tree import (
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

_PARSER: Any = import_module("_ruamel_yaml").CParser
"""The parser in C: its marks are offsets of characters, and it is some twenty times as fast as the one in Python."""

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_SWITCH = re.compile(r"y|n|yes|no|on|off", re.IGNORECASE)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?)?"
)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_UNLIKE_NUMBERS = re.compile(
    r"[-+]?0o?[0-7_]+|[-+]?0[0-9]+|0b[01_]+|[-+]?0x[0-9a-fA-F_]+"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"
)
"""Numbers that only YAML 1.1 reads as such, or as others: octals, binaries, base 60, underscores."""

_OTHER_BREAK = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_COLON = re.compile(r"[ \t]*:")
_BEFORE_KEY = re.compile(r"(?:[ ]|-[ \t])*")
_LINE_REST = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=\r?\n|\Z)")
_BETWEEN_ITEMS = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_TAG = re.compile(r"![^ \t\r\n]*")
_KEEPS_BREAKS = re.compile(r"[|>][0-9]?\+")
_BLANK_LINES = re.compile(r"(?:\r?\n[ \t]*)+\Z")


def read(text: str) -> Node:
    """The tree of a text. Raises `UnreadableError`."""
    if _OTHER_BREAK.search(text):
        raise UnreadableError("it has line breaks that not every reader takes for one")
    try:
        return _Composer(text).document()
    except (MarkedYAMLError, ReaderError) as error:
        raise UnreadableError("it is no YAML") from error


def literal(text: str) -> Scalar:
    """What a plain word stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if _SWITCH.fullmatch(text):
        return Literal("switch", text)
    if _TIMESTAMP.fullmatch(text):
        return Literal("timestamp", text)
    if _INTEGER.fullmatch(text):
        return integer(text)
    if _HEXADECIMAL.fullmatch(text):
        return integer(text, 16)
    if _SPECIAL.fullmatch(text):
        return Literal("special number", text)
    if _UNLIKE_NUMBERS.fullmatch(text) and not ("." in text and _FLOAT.fullmatch(text)):
        return Literal("number of YAML 1.1", text)
    return real(text) if _FLOAT.fullmatch(text) else text


def events(text: str) -> Iterator[Any]:
    """The parser's events. Raises `MarkedYAMLError` or `ReaderError` where the text is no YAML."""
    parser = _PARSER(text)
    while parser.check_event():
        yield parser.get_event()


def is_kind(event: Any, kind: type) -> bool:
    """`isinstance`, which would give the untyped attributes of the library's events to the type checker."""
    return isinstance(event, kind)


class _Composer:
    """Puts the events of one document together."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.events = events(text)
        self.count = 0

    def document(self) -> Node:
        """The root of the only document."""
        root: Node | None = None
        for event in self.events:
            if is_kind(event, DocumentStartEvent):
                if root is not None:
                    raise UnreadableError("it has several documents")
                if event.version or event.tags:
                    raise UnreadableError("it has directives")
                root = self._value(next(self.events), 0, flow=False)
        if root is None:
            raise UnreadableError("it has no document")
        return root

    def _value(self, event: Any, depth: int, *, flow: bool) -> Node:
        self.count += 1
        check_size(self.count, depth)
        if is_kind(event, AliasEvent) or event.anchor is not None:
            raise UnreadableError("it has anchors")
        if is_kind(event, MappingStartEvent):
            return self._mapping(event, depth, flow)
        if is_kind(event, SequenceStartEvent):
            return self._sequence(event, depth, flow)
        return self._scalar(event)

    def _scalar(self, event: Any) -> Node:
        start, end, tag = event.start_mark.index, event.end_mark.index, event.tag or ""
        by_line = event.style in ("|", ">")
        if by_line:
            if _KEEPS_BREAKS.search(self.text, start, _line_end(self.text, start)):
                raise UnreadableError("it has a block scalar that keeps trailing line breaks")
            if end == len(self.text) and event.value and not self.text.endswith("\n"):
                raise UnreadableError("it ends in a block scalar without a line end")
            end = start + len(_BLANK_LINES.sub("", self.text[start:end]))
        scalar = literal(event.value) if event.implicit[0] and not tag else event.value
        return Node(start, end, scalar=scalar, flow=not by_line, tag=tag).seal()

    def _mapping(self, event: Any, depth: int, flow: bool) -> Node:
        node = Node(event.start_mark.index, -1, Shape.MAPPING, flow=bool(event.flow_style), tag=event.tag or "")
        if flow and not self.text.startswith(("{", "!"), node.start):
            raise UnreadableError("it has a pair without braces")
        seen: set[str] = set()
        while not is_kind(key := next(self.events), MappingEndEvent):
            entry = self._entry(key, depth, node.flow)
            if entry.key in seen:
                raise UnreadableError(f"the key {entry.key!r} stands twice")
            seen.add(entry.key)
            node.entries.append(entry)
            node.end = entry.end
        if node.flow:
            node.end = key.end_mark.index
        return node.seal()

    def _entry(self, key: Any, depth: int, flow: bool) -> Entry:
        if not is_kind(key, ScalarEvent) or key.anchor is not None or key.tag is not None:
            raise UnreadableError("it has a key that is no plain scalar")
        start, end = key.start_mark.index, key.end_mark.index
        colon = _COLON.match(self.text, end)
        if colon is None or start == end or "\n" in self.text[start:end] or not self._is_alone(start, flow):
            raise UnreadableError("it has a key that is not one scalar on its line")
        plain = key.implicit[0]
        if plain and key.value == "<<":
            raise UnreadableError("it has a merge key")
        form = "" if not plain or isinstance(literal(key.value), str) else "word"
        value = self._value(next(self.events), depth + 1, flow=flow)
        return Entry(key.value, start, self._entry_end(value, flow), value, colon.end(), form, flow)

    def _is_alone(self, at: int, flow: bool) -> bool:
        """Whether nothing stands before a key but brackets and commas, or indents and dashes: no `?` above all."""
        if not flow:
            return bool(_BEFORE_KEY.fullmatch(self.text, self.text.rfind("\n", 0, at) + 1, at))
        before = at - 1
        while self.text[before] in " \t\r\n":
            before -= 1
        return self.text[before] != "?"

    def _sequence(self, event: Any, depth: int, flow: bool) -> Node:
        node = Node(event.start_mark.index, -1, Shape.SEQUENCE, flow=bool(event.flow_style), tag=event.tag or "")
        tag = _TAG.match(self.text, node.start)
        at = tag.end() if tag else node.start
        while not is_kind(item := next(self.events), SequenceEndEvent):
            start = -1 if node.flow else self._dash(at)
            value = self._value(item, depth + 1, flow=node.flow)
            start = value.start if node.flow else start
            entry = Entry("", start, self._entry_end(value, node.flow), value, start + 1, flow=node.flow, item=True)
            node.entries.append(entry)
            node.end = at = entry.end
        if node.flow:
            node.end = item.end_mark.index
        return node.seal()

    def _dash(self, at: int) -> int:
        """Where the next item's dash is."""
        blanks = _BETWEEN_ITEMS.match(self.text, at)
        at = blanks.end() if blanks else at
        if not self.text.startswith("-", at):
            raise UnreadableError("it has a list in a form that is not known")
        return at

    def _entry_end(self, value: Node, flow: bool) -> int:
        if flow:
            return value.end
        if not value.flow:
            return value.end
        rest = _LINE_REST.match(self.text, value.end)
        if rest is None:
            raise UnreadableError("it has a value that shares its line")
        return rest.end()


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
