"""YAML for the semantic diff: all documents of a file, aliases and merge keys replaced by what they stand for.

The merge by key edits YAML in place and refuses what it could not edit; a comparison only has to know what a program reads.
Scalars are read as there (`conman.domain.key_merge_yaml`). A value that an alias brings has its place at the anchor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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

from conman.domain.key_merge_tree import Entry, Node, Shape, UnreadableError, check_size, plain
from conman.domain.key_merge_yaml import events, is_kind, literal

_MERGE_TAG = "tag:yaml.org,2002:merge"


def read(text: str) -> list[Node]:
    """The documents of a text; one that is null where there is none. Raises `UnreadableError`."""
    try:
        found = _Composer(text).documents()
    except (MarkedYAMLError, ReaderError) as error:
        raise UnreadableError("it is no YAML") from error
    return found or [Node(0, 0).seal()]


def complaint(error: MarkedYAMLError | ReaderError, text: str) -> tuple[str, int]:
    """What the parser says of a text that is no YAML, and the line, from 1."""
    found: Any = error
    if isinstance(error, ReaderError):
        return f"unacceptable character: {found.reason}", text.count("\n", 0, found.position) + 1
    mark = found.problem_mark or found.context_mark
    reason = ", ".join(part for part in (found.problem, found.context) if part)
    return reason or "it is no YAML", mark.line + 1 if mark else text.count("\n") + 1


class _Composer:
    """Puts the parser's events together."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.events: Iterator[Any] = events(text)
        self.tagged = "!" in text
        """Whether there can be tags: the library takes its time to tell each event's."""
        self.count = 0
        self.anchors: dict[str, tuple[Node, int] | None] = {}
        """What each anchor names, and how many values that is; None while it is being read."""

    def documents(self) -> list[Node]:
        """The roots, in order."""
        found: list[Node] = []
        for event in self.events:
            if is_kind(event, DocumentStartEvent):
                self.anchors = {}
                found.append(self._value(next(self.events), 0))
        return found

    def _value(self, event: Any, depth: int) -> Node:
        if is_kind(event, AliasEvent):
            return self._alias(event)
        before = self.count
        self.count += 1
        check_size(self.count, depth)
        anchor = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None
        if is_kind(event, MappingStartEvent):
            node = self._mapping(event, depth)
        elif is_kind(event, SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            node = self._scalar(event)
        if anchor is not None:
            self.anchors[anchor] = node, self.count - before
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            raise UnreadableError(f"the alias *{event.anchor} names no anchor")
        named = self.anchors[event.anchor]
        if named is None:
            raise UnreadableError(f"the alias *{event.anchor} names the value that it stands in")
        node, weight = named
        self.count += weight
        check_size(self.count, 0)
        return node

    def _scalar(self, event: Any) -> Node:
        start, end, tag = event.start_mark.index, event.end_mark.index, self._tag(event)
        if event.style in ("|", ">"):  # its end is behind the line breaks that follow it
            end = start + len(self.text[start:end].rstrip())
        scalar = literal(event.value) if event.implicit[0] and not tag else event.value
        return Node(start, end, scalar=scalar, tag=tag).seal()

    def _opened(self, event: Any, shape: Shape) -> Node:
        return Node(event.start_mark.index, event.end_mark.index, shape, flow=bool(event.flow_style), tag=self._tag(event))

    def _tag(self, event: Any) -> str:
        return (event.tag or "") if self.tagged else ""

    def _mapping(self, event: Any, depth: int) -> Node:
        node = self._opened(event, Shape.MAPPING)
        seen: dict[str, int] = {}
        merged: list[Node] = []
        while not is_kind(key := next(self.events), MappingEndEvent):
            start = key.start_mark.index
            if _is_merge(key):
                merged.append(self._value(next(self.events), depth + 1))
                node.end = max(node.end, merged[-1].end)
                continue
            name, form = self._key(key, depth)
            if name in seen:
                raise UnreadableError(f"the key {name!r} stands twice, in the lines {seen[name]} and {key.start_mark.line + 1}")
            seen[name] = key.start_mark.line + 1
            following = next(self.events)
            value = self._value(following, depth + 1)
            end = following.end_mark.index if is_kind(following, AliasEvent) else value.end
            node.entries.append(Entry(name, start, max(end, start), value, form=form))
            node.end = max(node.end, end)
        if node.flow:
            node.end = key.end_mark.index
        for brought in merged:
            self._merge(node, brought)
        return node.seal()

    def _key(self, event: Any, depth: int) -> tuple[str, str]:
        """A key's text and form; what is no scalar becomes the JSON text of its value."""
        node = self._value(event, depth + 1)
        if node.shape is not Shape.SCALAR or node.tag:
            return json.dumps(plain(node), ensure_ascii=False, sort_keys=True), "complex"
        if is_kind(event, ScalarEvent):
            return event.value, "" if isinstance(node.scalar, str) else "word"
        return (node.scalar, "") if isinstance(node.scalar, str) else (json.dumps(plain(node)), "word")

    def _merge(self, node: Node, brought: Node) -> None:
        """Add the entries that `<<` brings; the mapping's own keys win, and of several sources the first."""
        sources = [item.node for item in brought.entries] if brought.shape is Shape.SEQUENCE else [brought]
        own = {entry.key for entry in node.entries}
        for source in sources:
            if source.shape is not Shape.MAPPING:
                raise UnreadableError("`<<` takes a mapping, or a list of mappings")
            added = [entry for entry in source.entries if entry.key not in own]
            node.entries.extend(added)
            own.update(entry.key for entry in added)

    def _sequence(self, event: Any, depth: int) -> Node:
        node = Node(
            event.start_mark.index, event.end_mark.index, Shape.SEQUENCE, flow=bool(event.flow_style), tag=event.tag or ""
        )
        while not is_kind(item := next(self.events), SequenceEndEvent):
            start = item.start_mark.index
            value = self._value(item, depth + 1)
            end = item.end_mark.index if is_kind(item, AliasEvent) else value.end
            node.entries.append(Entry("", start, max(end, start), value, item=True))
            node.end = max(node.end, end)
        if node.flow:
            node.end = item.end_mark.index
        return node.seal()


def _is_merge(event: Any) -> bool:
    if not is_kind(event, ScalarEvent) or event.value != "<<":
        return False
    return event.tag == _MERGE_TAG or (event.tag is None and event.implicit[0])
