"""Edits of TOML: statements and whole tables come, go and get other values in place.

A table's statements come before the tables below it, so what is added goes to one of two places: a pair behind the pairs,
a table with its header behind the tables. Inside a table of dotted keys everything is a pair.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from conman.domain.key_merge_flow import Pen, rewritten
from conman.domain.key_merge_lines import Comments, Piece, assembled, attached, line_indent, moved, newline_of
from conman.domain.key_merge_rules import Added, Gone, Keep, Put, Sources, Within
from conman.domain.key_merge_tree import Entry, Literal, Node, Shape, UnreadableError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ONE_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|[A-Za-z0-9_-]+")
_BLANK_LINE = re.compile(r"\n[ \t]*\r?\n")


def edit(sources: Sources, change: Within, rendered: bool) -> str:
    """Ours' text with the changes in its root."""
    text, root = sources.ours, change.node
    editor = _Editor(sources, root, rendered)
    if not root.entries:
        before = text + (editor.newline if text and not text.endswith("\n") else "")
        return before + editor.table(change, (), ()) + editor.newline
    first = root.entries[0]
    start = editor.beginning(first) if not isinstance(change.outcomes[0], Gone) else first.start
    return editor.comments.above(text[:start], change) + editor.table(change, (), (), start) + text[root.end :]


@dataclass(frozen=True, slots=True)
class _Text:
    """What an entry becomes: a pair, or a table with its header."""

    text: str
    section: bool


class _Editor(Pen):
    """Writes as the file does: its line ends, its blank lines between tables."""

    gap = " "

    def __init__(self, sources: Sources, root: Node, rendered: bool) -> None:
        self.text = sources.ours
        self.newline = newline_of(sources)
        self.rendered = rendered
        self.comments = Comments(sources)
        pairs = zip(root.entries, root.entries[1:], strict=False)
        gaps = [self.text[one.end : other.start] for one, other in pairs if _is_section(other, self.text)]
        self.between = self.newline * (2 if not gaps or any(map(_BLANK_LINE.search, gaps)) else 1)

    def put(self, put: Put, indent: str) -> str:
        piece = put.source[put.node.start : put.node.end]
        if put.entry is None or self.rendered or not put.node.flow:
            return _inline(put.node)
        if '"""' in piece or "'''" in piece:
            return _with_newlines(piece, self.newline)
        return moved(put.source, put.node.start, put.node.end, indent, self.newline)

    def added(self, added: Added, indent: str) -> str:
        """A key, or nothing for an item, and the value."""
        value = self.put(added.put, indent)
        return value if added.entry.item else f"{self._key(added)} = {value}"

    def opened(self, node: Node, line: str) -> tuple[str, str]:
        return (" ", " ") if node.shape is Shape.MAPPING else ("", "")

    def beginning(self, first: Entry) -> int:
        """Where a file's first table begins with the comments above it, which a pair must not come between."""
        start = attached(self.text, first.start)
        return start if start and _is_section(first, self.text) else first.start

    def table(self, within: Within, path: tuple[str, ...], dotted: tuple[str, ...], start: int = -1) -> str:
        """The text of a table, from its first statement to the end of its last; nothing if no statement is left.

        `path` leads to the table from the root, `dotted` from the header above it; `start` is where the first entry begins.
        """
        node, text = within.node, self.text
        pairs: list[Piece] = []
        sections: list[Piece] = []
        indent = self._indent(node)
        end = node.head if path else -1

        def place(found: _Text) -> None:
            gap = self.between if found.section else self.newline + indent
            (sections if found.section else pairs).append(Piece(gap, found.text, fresh=True))

        for added in within.added.get(-1, ()):
            place(self._added(added, path, dotted, indent))
        for index, (entry, outcome) in enumerate(zip(node.entries, within.outcomes, strict=True)):
            at = start if index == 0 and start >= 0 else entry.start
            gap = text[end:at] if end >= 0 else ""
            gap = self.comments.above(gap, outcome) if isinstance(outcome, Within) else gap
            end = entry.end
            section = _is_section(entry, text)
            found = None
            if isinstance(outcome, Keep):
                found = _Text(text[entry.start : entry.end], section)
            elif not isinstance(outcome, Gone):
                found = self._changed(entry, outcome, (*path, entry.key), (*dotted, entry.key))
            stays = found is not None and found.section == section
            body = text[at : entry.start] + found.text if found is not None and stays else None
            (sections if section else pairs).append(Piece(gap, body))
            if found is not None and not stays:
                place(found)
            for added in within.added.get(index, ()):
                place(self._added(added, path, dotted, indent))
        between = self.between if node.entries and _is_section(node.entries[0], text) else self.newline + indent
        return assembled(self._headed(node, path, pairs, sections), between, self.comments)

    def _headed(self, node: Node, path: tuple[str, ...], pairs: list[Piece], sections: list[Piece]) -> list[Piece]:
        """The pieces of a table behind its header; a table that had none gets one where it needs it now."""
        if node.head >= 0:
            return [Piece("", self.text[node.start : node.head]), *pairs, *sections]
        implied = bool(path) and self.text[node.start] == "["
        empty = all(piece.body is None for piece in sections)
        header = [Piece("", f"[{_dotted(path)}]", fresh=True)] if implied and (pairs or empty) else []
        return [*header, *pairs, *sections]

    def _array(self, within: Within, path: tuple[str, ...]) -> str:
        """The text of an array of tables; nothing if no item is left."""
        node = within.node
        pieces = [self._added_item(each, path) for each in within.added.get(-1, ())]
        for index, (entry, outcome) in enumerate(zip(node.entries, within.outcomes, strict=True)):
            gap = self.text[node.entries[index - 1].end : entry.start] if index else ""
            match outcome:
                case Keep():
                    body = self.text[entry.start : entry.end]
                case Gone():
                    body = None
                case Put():
                    body = self._item(outcome, path)
                case Within():
                    body = self.table(outcome, path, ())
            pieces.append(Piece(gap, body))
            pieces.extend(self._added_item(each, path) for each in within.added.get(index, ()))
        return assembled(pieces, self.between, self.comments)

    def _added_item(self, added: Added, path: tuple[str, ...]) -> Piece:
        lines = self._coming(added, "")
        return Piece(self.between, lines + self._item(added.put, path), fresh=True)

    def _coming(self, added: Added, indent: str) -> str:
        """The lines of the comments that come with an added entry."""
        entry = added.entry
        above = self.comments.coming(added.source, entry.start) if not entry.flow else []
        return "".join(line + self.newline + indent for line in above)

    def _item(self, put: Put, path: tuple[str, ...]) -> str:
        """An item with its header."""
        if put.entry is not None and _is_section(put.entry, put.source) and not self.rendered:
            return self._copied(put.entry, put.source)
        if put.node.shape is not Shape.MAPPING:
            raise UnreadableError(f"the items of {_dotted(path)} are tables, and can be nothing else")
        return self._fresh_table(put.node, f"[[{_dotted(path)}]]")

    def _changed(self, entry: Entry, outcome: Put | Within, path: tuple[str, ...], dotted: tuple[str, ...]) -> _Text:
        """What an entry becomes that does not stay as it is."""
        text, node = self.text, entry.node
        section = _is_section(entry, text)
        if isinstance(outcome, Put):
            if not node.flow:
                return self._value(outcome, path, dotted, section=section)
            value = self.put(outcome, line_indent(text, entry.start))
            return _Text(text[entry.start : node.start] + value + text[node.end : entry.end], section=False)
        if node.flow:
            changed = rewritten(text, outcome, self)
            return _Text(text[entry.start : node.start] + changed + text[node.end : entry.end], section=False)
        if node.shape is Shape.SEQUENCE:
            changed = self._array(outcome, path)
            return _Text(changed, section=True) if changed else _Text(f"{_dotted(dotted)} = []", section=False)
        changed = self.table(outcome, path, () if section else dotted)
        return _Text(changed or f"{_dotted(dotted)} = {{}}", section)

    def _value(self, put: Put, path: tuple[str, ...], dotted: tuple[str, ...], *, section: bool) -> _Text:
        """A key with a value; `section`: a mapping may be a table with its header."""
        node = put.node
        if section and put.entry is not None and _is_section(put.entry, put.source) and not self.rendered:
            return _Text(self._copied(put.entry, put.source), section=True)
        if section and node.shape is Shape.MAPPING:
            return _Text(self._fresh_table(node, f"[{_dotted(path)}]"), section=True)
        if section and node.entries and all(each.node.shape is Shape.MAPPING for each in node.entries):
            tables = (self._fresh_table(each.node, f"[[{_dotted(path)}]]") for each in node.entries)
            return _Text(self.between.join(tables), section=True)
        return _Text(f"{_dotted(dotted)} = {self.put(put, '')}", section=False)

    def _added(self, added: Added, path: tuple[str, ...], dotted: tuple[str, ...], indent: str) -> _Text:
        entry, put = added.entry, added.put
        path, inner = (*path, entry.key), (*dotted, entry.key)
        lines = self._coming(added, indent)
        taken = put.node is entry.node and not entry.flow and not self.rendered
        if taken and not dotted and not _is_section(entry, added.source) and _leads(entry, added.source):
            return _Text(lines + self._copied(entry, added.source), section=False)
        section = _is_section(put.entry or entry, put.source or added.source) and not dotted
        found = self._value(put, path, inner, section=section)
        comment = added.source[entry.node.end : entry.end] if taken and entry.node.flow else ""
        return _Text(lines + found.text + comment, found.section)

    def _copied(self, entry: Entry, source: str) -> str:
        return _with_newlines(source[entry.start : entry.end], self.newline)

    def _fresh_table(self, node: Node, header: str) -> str:
        pairs = (f"{_key(each.key)} = {_inline(each.node)}" for each in node.entries)
        return self.newline.join([header, *pairs])

    def _key(self, added: Added) -> str:
        """A key as its source has it."""
        piece = added.source[added.entry.start : added.entry.key_end]
        return piece if _ONE_KEY.fullmatch(piece) and not self.rendered else _key(added.entry.key)

    def _indent(self, node: Node) -> str:
        """The indent of a table's pairs: as the first has it, or as its header or the first table below it."""
        first = next((entry for entry in node.entries if not _is_section(entry, self.text)), None)
        return line_indent(self.text, first.start if first else node.entries[0].start if node.entries else node.start)


def _is_section(entry: Entry, text: str) -> bool:
    """Whether an entry is a table with a header, or with headers below it, or an array of such."""
    return not entry.flow and not entry.node.flow and text[entry.start] == "["


def _leads(entry: Entry, source: str) -> bool:
    """Whether an entry's source text begins with its own key, not with that of a table of dotted keys around it."""
    if entry.node.flow:
        return bool(_ONE_KEY.fullmatch(source, entry.start, entry.key_end))
    first = _ONE_KEY.match(source, entry.start)
    return first is not None and first[0].strip("\"'") == entry.key


def _with_newlines(piece: str, newline: str) -> str:
    return piece.replace("\r\n", "\n").replace("\n", newline)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _dotted(keys: tuple[str, ...]) -> str:
    return ".".join(map(_key, keys))


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(node: Node) -> str:
    """A value in one line."""
    match node.shape:
        case Shape.SCALAR:
            value = node.scalar
            return value.text if isinstance(value, Literal) else _text(value) if isinstance(value, str) else json.dumps(value)
        case Shape.MAPPING:
            pairs = ", ".join(f"{_key(each.key)} = {_inline(each.node)}" for each in node.entries)
            return f"{{ {pairs} }}" if pairs else "{}"
        case Shape.SEQUENCE:
            return f"[{', '.join(_inline(each.node) for each in node.entries)}]"
