"""Edits of YAML that is written by lines: entries of block mappings and lists come, go and get other values in place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from conman.domain.key_merge_flow import Pen, rewritten
from conman.domain.key_merge_lines import Comments, Piece, assembled, moved, newline_of, shifted
from conman.domain.key_merge_rules import Added, Gone, Keep, Outcome, Put, Sources, Within
from conman.domain.key_merge_tree import Entry, Literal, Node, Shape
from conman.domain.key_merge_yaml import literal

_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./@+ -]*[A-Za-z0-9_./@+-])?")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_COMMENT = re.compile(r"[ \t]+#[^\r\n]*")


def edit(sources: Sources, change: Within, rendered: bool) -> str:
    """Ours' text with the changes in its root, a mapping."""
    text, node = sources.ours, change.node
    editor = _Editor(sources, node, rendered)
    changed = rewritten(text, change, editor) if node.flow else editor.block(change) or "{}"
    return editor.comments.above(text[: node.start], change) + changed + text[node.end :]


class _Editor(Pen):
    """Writes as the file does: its indents and its line ends."""

    gap = " "

    def __init__(self, sources: Sources, root: Node, rendered: bool) -> None:
        self.text = sources.ours
        self.newline = newline_of(sources)
        self.rendered = rendered
        self.comments = Comments(sources)
        self.units = {shape: _unit(self.text, root, shape) for shape in (Shape.MAPPING, Shape.SEQUENCE)}

    def put(self, put: Put, indent: str) -> str:
        if put.entry is None or self.rendered or not put.entry.flow or not put.node.flow:
            return _inline(put.node)
        return moved(put.source, put.node.start, put.node.end, indent, self.newline)

    def added(self, added: Added, indent: str) -> str:
        """A key, or nothing for an item, and the value."""
        key = "" if added.entry.item else self._key(added)
        value = self.put(added.put, indent)
        return f"{key} {value}" if key and value else key or value

    def block(self, within: Within) -> str:
        """The text of a block collection, from its first entry to the end of its last; nothing if no entry is left."""
        entries = within.node.entries
        indent = " " * _column(self.text, entries[0].start)
        between = self.newline + indent
        pieces = [Piece(between, line, fresh=True) for line in self._added_lines(within, -1, indent)]
        for index, (entry, outcome) in enumerate(zip(entries, within.outcomes, strict=True)):
            gap = self.text[entries[index - 1].end : entry.start] if index else ""
            pieces.append(Piece(gap, None if isinstance(outcome, Gone) else self._body(entry, outcome)))
            pieces.extend(Piece(between, line, fresh=True) for line in self._added_lines(within, index, indent))
        return assembled(pieces, between, self.comments)

    def _added_lines(self, within: Within, index: int, indent: str) -> Iterator[str]:
        """The added entries behind an entry, with their comments; the first line of each without its indent."""
        for added in within.added.get(index, ()):
            entry = added.entry
            above = [] if entry.flow else self.comments.coming(added.source, entry.start)
            head = "-" if entry.item else self._key(added)
            tail = self._tail(added.put, indent, entry.item)
            with_comment = added.put.node is entry.node and not entry.flow and entry.node.flow and not self.rendered
            comment = added.source[entry.node.end : entry.end] if with_comment else ""
            yield (self.newline + indent).join([*above, head + tail + comment])

    def _body(self, entry: Entry, outcome: Outcome) -> str:
        """An entry of a block collection with its outcome."""
        text, old = self.text, entry.node
        if isinstance(outcome, Keep | Gone):
            return text[entry.start : entry.end]
        if isinstance(outcome, Within):
            changed = rewritten(text, outcome, self) if old.flow else self.block(outcome)
            if changed:
                before = self.comments.above(text[entry.key_end : old.start], outcome)
                return text[entry.start : entry.key_end] + before + changed + text[old.end : entry.end]
            return text[entry.start : entry.key_end] + _empty(old) + self._comment(entry)
        indent = " " * _column(text, entry.start)
        tail = self._tail(outcome, indent, entry.item)
        if old.flow and old.start < old.end and "\n" not in tail and tail:
            return text[entry.start : old.start] + tail.lstrip(" ") + text[old.end : entry.end]
        comment = self._comment(entry)
        first, line_break, rest = tail.partition(self.newline)
        if outcome.node.flow or "#" in first or not line_break:
            return text[entry.start : entry.key_end] + tail + ("" if "#" in first else comment)
        return text[entry.start : entry.key_end] + first + comment + line_break + rest

    def _comment(self, entry: Entry) -> str:
        """The comment that stays with a key when its value is replaced."""
        if entry.node.flow:
            return self.text[entry.node.end : entry.end]
        found = _COMMENT.match(self.text, entry.key_end)
        return found[0] if found else ""

    def _tail(self, put: Put, indent: str, item: bool) -> str:
        """What stands behind a key's colon or a list's dash that stands at an indent."""
        entry = put.entry
        if entry is None or self.rendered:
            return self._fresh_tail(put.node, indent, item)
        if entry.flow:
            piece = moved(put.source, put.node.start, put.node.end, indent, self.newline)
            return f" {piece}" if piece else ""
        piece = put.source[entry.key_end : put.node.end]
        return shifted(piece, " " * _column(put.source, entry.start), indent, self.newline).rstrip(" ")

    def _key(self, added: Added) -> str:
        """A key with its colon, as its source has it."""
        entry = added.entry
        if not self.rendered:
            return added.source[entry.start : entry.key_end]
        return f"{entry.key if entry.form else _quoted(entry.key)}:"

    def _fresh_tail(self, node: Node, indent: str, item: bool) -> str:
        if node.shape is Shape.SCALAR or not node.entries or node.tag:
            return f" {_inline(node)}"
        if item:
            return f" {self._fresh_block(node, indent + '  ')}"
        inner = indent + self.units[node.shape]
        return self.newline + inner + self._fresh_block(node, inner)

    def _fresh_block(self, node: Node, indent: str) -> str:
        lines = [
            f"{entry.key if entry.form else _quoted(entry.key)}:{self._fresh_tail(entry.node, indent, False)}"
            if node.shape is Shape.MAPPING
            else f"-{self._fresh_tail(entry.node, indent, True)}"
            for entry in node.entries
        ]
        return (self.newline + indent).join(lines)


def _column(text: str, at: int) -> int:
    return at - text.rfind("\n", 0, at) - 1


def _unit(text: str, root: Node, shape: Shape) -> str:
    """How far the entries of a collection are indented below its key, by the file's first example."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.flow:
            continue
        for entry in node.entries:
            child = entry.node
            if node.shape is Shape.MAPPING and child.shape is shape and not child.flow and not child.tag:
                return " " * (_column(text, child.start) - _column(text, entry.start))
        waiting.extend(entry.node for entry in reversed(node.entries))
    return "  "


def _empty(node: Node) -> str:
    return " {}" if node.shape is Shape.MAPPING else " []"


def _inline(node: Node) -> str:
    """A value in one line."""
    tag = "" if not node.tag else f"{node.tag} " if node.tag.startswith("!") else f"!<{node.tag}> "
    match node.shape:
        case Shape.SCALAR:
            return tag + _scalar(node)
        case Shape.MAPPING:
            pairs = (f"{each.key if each.form else _quoted(each.key)}: {_inline(each.node)}" for each in node.entries)
            return f"{tag}{{{', '.join(pairs)}}}"
        case Shape.SEQUENCE:
            return f"{tag}[{', '.join(_inline(each.node) for each in node.entries)}]"


def _scalar(node: Node) -> str:
    value = node.scalar
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, str):
        return json.dumps(value) if node.tag else _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    """A text as a plain word where every reader takes it for a text, else in double quotes."""
    if _PLAIN.fullmatch(text) and isinstance(literal(text), str):
        return text
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
