"""YAML for the built-in suite: composed from the parser's events, without building any object of a tag.

The C parser of `ruamel.yaml.clib` reads the events when it is installed, some twenty times as fast. What it refuses is
judged again by the one in pure Python, so that the findings do not depend on what is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module, util
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from conman.msuite.findings import (
    TOO_DEEP,
    Locate,
    OpaqueList,
    OpaqueMap,
    OpaqueText,
    Path,
    Place,
    Problem,
    Rule,
    nearest,
    place,
)

MOST_EXPANDED = 1_000_000
"""How many values the aliases of one document may stand for."""

_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOTHING = object()
_MERGE = object()
_C_PARSER: Any = import_module("_ruamel_yaml").CParser if util.find_spec("_ruamel_yaml") else None


def parse(text: str) -> tuple[list[Any], list[Problem]]:
    """The documents, as JSON has their values, and what is wrong; no documents when one does not parse."""
    composer = _Composer(None)
    try:
        for event in _events(text):
            composer.take(event)
    except ReaderError as error:
        reason = f"unacceptable character: {error.reason}"
        return [], [*composer.problems, Problem(place(text, error.position), Rule.SYNTAX, reason)]
    except MarkedYAMLError as error:
        return [], [*composer.problems, _problem(text, error)]
    except RecursionError:
        return [], [TOO_DEEP]
    return composer.documents, composer.problems


def locate(text: str, document: int = 0) -> Locate:
    """Finds the places of the values of one document of a text that parses."""
    composer = _Composer(document)
    for event in _events(text):
        composer.take(event)
    return lambda path: nearest(path, composer.places) or Place(1, 1)


def _events(text: str) -> Iterator[Any]:
    """The parser's events. Raises `MarkedYAMLError` or `ReaderError` where the text is no YAML."""
    if _C_PARSER is None:
        return YAML(typ="safe", pure=True).parse(text)
    parser = _C_PARSER(text)
    found: list[Any] = []
    try:
        while parser.check_event():
            found.append(parser.get_event())
    except (MarkedYAMLError, ReaderError):
        return YAML(typ="safe", pure=True).parse(text)
    return iter(found)


def _problem(text: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = Place(mark.line + 1, mark.column + 1) if mark else place(text, len(text))
    reason = ", ".join(part for part in (error.problem, error.context) if part)
    return Problem(where, Rule.SYNTAX, reason or "it is no YAML")


class _Frame:
    """A mapping or sequence that is not at its end yet."""

    def __init__(self, value: dict[str, Any] | list[Any], path: Path, anchor: str | None) -> None:
        self.value = value
        self.path = path
        self.anchor = anchor
        self.key: Any = _NOTHING
        self.seen: dict[tuple[type, Any], tuple[int, Any]] = {}
        self.merged: list[tuple[Any, Any]] = []
        self.weight = 1


class _Composer:
    """Puts events together to documents; `located` is the document whose places are kept, if any."""

    def __init__(self, located: int | None) -> None:
        self.located = located
        self.documents: list[Any] = []
        self.problems: list[Problem] = []
        self.places: dict[Path, Place] = {}
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.root: Any = None
        self.expanded = 0

    def take(self, event: Any) -> None:
        """Take the next event."""
        if isinstance(event, ScalarEvent):
            value = _scalar(event)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1)
            if self._is_merge_key(event):
                self._key(_MERGE, (_Frame, "<<"), event)
            else:
                self._add(value, event)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            self._open(event)
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self._close()
        elif isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, DocumentStartEvent):
            self.anchors, self.root, self.expanded = {}, None, 0
        elif isinstance(event, DocumentEndEvent):
            self.documents.append(self.root)

    def _is_merge_key(self, event: Any) -> bool:
        frame = self.stack[-1] if self.stack else None
        plain = event.tag is None and event.implicit[0]
        awaited = frame is not None and isinstance(frame.value, dict) and frame.key is _NOTHING
        return awaited and event.value == "<<" and (plain or event.tag == f"{_CORE}merge")

    def _open(self, event: Any) -> None:
        custom = event.tag is not None and not event.tag.startswith(_CORE) and event.tag != "!"
        plain, opaque = ({}, OpaqueMap()) if isinstance(event, MappingStartEvent) else ([], OpaqueList())
        value: Any = opaque if custom else plain
        frame = _Frame(value, self._path(), event.anchor)
        if event.anchor:
            self.anchors[event.anchor] = (frame, 0)
        self._add(value, event)
        self.stack.append(frame)

    def _close(self) -> None:
        frame = self.stack.pop()
        if frame.merged:
            self._merge(frame)
        if frame.anchor and self.anchors.get(frame.anchor, (None,))[0] is frame:
            self.anchors[frame.anchor] = (frame.value, frame.weight)
        if self.stack:
            self.stack[-1].weight += frame.weight

    def _alias(self, event: Any) -> None:
        name = event.anchor
        value, weight = self.anchors.get(name, (_NOTHING, 0))
        if value is _NOTHING:
            self._wrong(event, f"the alias *{name} names no anchor")
            value = None
        elif isinstance(value, _Frame):
            self._wrong(event, f"the alias *{name} names the value that it stands in")
            value = None
        elif self.expanded <= MOST_EXPANDED < self.expanded + weight:
            self._wrong(event, f"the aliases expand to more than {MOST_EXPANDED} values")
        self.expanded += weight
        if self.expanded > MOST_EXPANDED:
            value = None
        elif self.stack:
            self.stack[-1].weight += weight
        self._add(value, event)

    def _add(self, value: Any, event: Any) -> None:
        """Put a value where the innermost open value waits for one."""
        if not self.stack:
            self._note(event)
            self.root = value
            return
        frame = self.stack[-1]
        if isinstance(frame.value, dict) and frame.key is _NOTHING:
            scalar = value is None or isinstance(value, (str, int, float))
            self._key(value if scalar else f"line {event.start_mark.line + 1}", (type(value), value), event, scalar)
            return
        self._note(event)
        frame.weight += 1
        if isinstance(frame.value, list):
            frame.value.append(value)
            return
        if frame.key is _MERGE:
            frame.merged.append((value, event))
        else:
            frame.value[frame.key] = value
        frame.key = _NOTHING

    def _key(self, key: Any, identity: tuple[type, Any], event: Any, comparable: bool = True) -> None:
        """Take a key; of mappings and sequences as keys only the line is kept, and they are not compared."""
        frame = self.stack[-1]
        frame.key = key if key is _MERGE or isinstance(key, str) else _key_text(key)
        if not comparable:
            return
        line = event.start_mark.line + 1
        first = frame.seen.setdefault(identity, (line, event))
        if first[1] is not event:
            shown = "<<" if key is _MERGE else key
            message = f"the key {shown!r} stands in line {first[0]} already"
            self.problems.append(Problem(_place(event), Rule.DUPLICATE_KEY, message))

    def _merge(self, frame: _Frame) -> None:
        """Bring in what `<<` names; the mapping's own keys win."""
        assert isinstance(frame.value, dict)
        for named, event in frame.merged:
            for source in named if isinstance(named, list) else [named]:
                if not isinstance(source, dict):
                    self._wrong(event, "`<<` takes a mapping, or a sequence of mappings")
                    continue
                for key, value in source.items():
                    frame.value.setdefault(key, value)

    def _path(self) -> Path:
        """The path of the value that comes next."""
        if not self.stack:
            return ()
        frame = self.stack[-1]
        if isinstance(frame.value, list):
            return (*frame.path, len(frame.value))
        return (*frame.path, frame.key if isinstance(frame.key, str) else "<<")

    def _note(self, event: Any) -> None:
        if self.located == len(self.documents):
            self.places[self._path()] = _place(event)

    def _wrong(self, event: Any, message: str) -> None:
        self.problems.append(Problem(_place(event), Rule.YAML_ALIAS, message))


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _scalar(event: Any) -> Any:
    """The value of a scalar: by the core schema of YAML 1.2 where it is plain, else its text."""
    tag, text = event.tag, str(event.value)
    if tag is None:
        return _plain(text) if event.implicit[0] else text
    if tag == "!" or tag == f"{_CORE}str":
        return text
    return _plain(text) if tag.startswith(_CORE) else OpaqueText(text)


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > 1000:
        return text
    if _INT.fullmatch(text):
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _SPECIAL.fullmatch(text) else text


def _key_text(key: Any) -> str:
    """A key that is no text as JSON would write it."""
    return json.dumps(key) if key is None or isinstance(key, (bool, int, float)) else str(key)
