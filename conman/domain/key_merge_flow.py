"""Edits inside brackets: JSON's objects and arrays, YAML's flow collections, TOML's arrays and inline tables.

Everything between the entries stays as it stands, comments included; only what has to follow from a removed or added entry
(one comma, the line that it stood in) changes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from conman.domain.key_merge_lines import line_indent
from conman.domain.key_merge_rules import Added, Gone, Keep, Outcome, Put, Within
from conman.domain.key_merge_tree import Entry, Node

_COMMENT_BEHIND = re.compile(r"[ \t]*#[^\r\n]*")
_LAST_BREAK = re.compile(r"[ \t]*\r?\n[ \t]*\Z")
_LEADING_BREAK = re.compile(r"[ \t]*\r?\n")


class Pen(ABC):
    """How one format writes values between brackets."""

    newline: str
    gap: str
    """What stands behind a comma where the file gives no example."""

    @abstractmethod
    def put(self, put: Put, indent: str) -> str:
        """The text of a value; `indent` is that of the line that it begins in."""

    @abstractmethod
    def added(self, added: Added, indent: str) -> str:
        """The text of an entry, key and value; `indent` is that of the line that it begins in."""

    def opened(self, node: Node, line: str) -> tuple[str, str]:
        """What stands before the first and behind the last entry that an empty collection gets; `line` is its line's indent."""
        return "", ""


@dataclass(slots=True)
class _Part:
    """An entry between its blanks; `lead` stands behind the bracket or comma before it, `trail` before the one after it."""

    lead: str
    body: str
    trail: str


def rewritten(text: str, within: Within, pen: Pen, line: str | None = None) -> str:
    """The text of a collection, from bracket to bracket, with the outcomes of its entries.

    `line` is the indent of the line that it begins in, where that is known.
    """
    node = within.node
    line = line_indent(text, node.start) if line is None else line
    parts, closing, comma = _parts(text, node)
    if not parts:
        return _filled(text, within, pen, line)
    fresh = _fresh_lead(parts, pen)
    kept: list[_Part] = []
    removed: _Part | None = None
    for index in range(-1, len(parts)):
        if index >= 0:
            part, outcome = parts[index], within.outcomes[index]
            part.lead = part.lead if removed is None else _inherited(removed, part.lead)
            removed = part if isinstance(outcome, Gone) else None
            if removed is None:
                part.body = _body(text, node.entries[index], outcome, pen, _indent_behind(part.lead, line))
                kept.append(part)
        for added in within.added.get(index, ()):
            following = parts[index + 1].lead if index + 1 < len(parts) else closing
            behind = _COMMENT_BEHIND.match(following)
            if not kept:
                lead, following = following, fresh
            elif behind:
                lead = behind[0] + (fresh if "\n" in fresh else pen.newline + line + "  ")
                following = following[behind.end() :]
            else:
                lead = fresh
            if index + 1 < len(parts):
                parts[index + 1].lead = following
            else:
                closing = following
            kept.append(_Part(lead, pen.added(added, _indent_behind(lead, line)), ""))
    if removed is not None and "#" in removed.lead + removed.trail:
        closing = _joined(removed.lead + removed.trail, closing)
    opening, ending = text[node.start], text[node.end - 1]
    if not kept:
        return opening + (closing if "#" in closing else "") + ending
    inner = ",".join(part.lead + part.body + part.trail for part in kept)
    return opening + inner + ("," if comma else "") + closing + ending


def _parts(text: str, node: Node) -> tuple[list[_Part], str, bool]:
    """The entries, what stands behind the last of them (and its comma), and whether it has a comma."""
    parts: list[_Part] = []
    at = node.start + 1
    for entry in node.entries:
        parts.append(_Part(text[at : entry.start], text[entry.start : entry.end], ""))
        end = _comma(text, entry.end)
        parts[-1].trail = text[entry.end : end]
        at = end + 1
    if not parts:
        return parts, "", False
    last = node.entries[-1]
    comma = at <= node.end - 1 and text[at - 1] == "," and _comma(text, last.end) < node.end - 1
    if comma:
        return parts, text[at : node.end - 1], True
    parts[-1].trail = ""
    return parts, text[last.end : node.end - 1], False


def _comma(text: str, at: int) -> int:
    """Where the next comma outside of comments is, from a place between entries."""
    while at < len(text) and text[at] not in ",]}":
        at = text.find("\n", at) if text[at] == "#" else at + 1
        at = len(text) if at < 0 else at
    return at


def _filled(text: str, within: Within, pen: Pen, line: str) -> str:
    node = within.node
    inner = text[node.start + 1 : node.end - 1]
    lead, closing = (inner, "") if "#" in inner else pen.opened(node, line)
    indent = _indent_behind(lead, line)
    bodies = [pen.added(each, indent) for each in within.added.get(-1, ())]
    between = lead if "\n" in lead and "#" not in lead else pen.gap
    return text[node.start] + lead + f",{between}".join(bodies) + closing + text[node.end - 1]


def _body(text: str, entry: Entry, outcome: Outcome, pen: Pen, line: str) -> str:
    if isinstance(outcome, Keep | Gone):
        return text[entry.start : entry.end]
    before = text[entry.start : entry.node.start]
    after = text[entry.node.end : entry.end]
    if isinstance(outcome, Within):
        return before + rewritten(text, outcome, pen, line) + after
    blank = " " if before.endswith(":") and entry.node.start == entry.node.end else ""
    return before + blank + pen.put(outcome, line) + after


def _fresh_lead(parts: list[_Part], pen: Pen) -> str:
    """The blanks before an added entry, as its siblings have them."""
    for part in (*parts[1:2], parts[0]):
        broken = _LAST_BREAK.search(part.lead)
        if broken:
            return pen.newline + broken[0].rpartition("\n")[2]
    return parts[1].lead if len(parts) > 1 and "#" not in parts[1].lead else pen.gap


def _inherited(removed: _Part, lead: str) -> str:
    """The blanks before the entry behind a removed one: comments stay, the place in the line is the removed one's."""
    if "#" in lead or "#" in removed.trail:
        return _joined(removed.lead + removed.trail, lead) if "#" in removed.lead + removed.trail else lead
    return removed.lead


def _joined(first: str, second: str) -> str:
    """Two stretches of blanks and comments, with one line break between them."""
    return (_LAST_BREAK.sub("", first) if _LEADING_BREAK.match(second) else first) + second


def _indent_behind(lead: str, line: str) -> str:
    return lead.rpartition("\n")[2] if "\n" in lead else line
