"""The semantic diff: what two commits differ in, value by value, in the words of those who write settings (`spec.md` 8).

JSON, YAML and TOML files are compared by their values: comments, indents and the order of keys make no change. Other files,
and those that can't be read, are one change each. `conman.domain.semantic_diff_files` compares one file, which is a function
of its two blobs and its path, so that callers may keep the answer; `summarised` puts the files' answers together.

How a change is told in `details`, besides what is there for its place and its kind:

- `pointer` (RFC 6901) leads to the value in the head's file, of a removed one in the base's. Items of lists are named by
  their natural key, `/servers/name=web-1/port`, else by their index. Of several YAML documents the first token is the index.
- `before` and `after` are the values, `beforeType` and `afterType` their kinds. What JSON has no kind for (a date, a number
  that no float holds) is the text that stands in the file. A long value is the beginning of its source text, and
  `beforeTruncated` or `afterTruncated` is true.
- `index` is the place of an added item. `order` holds, where a list has another order, the items that were there before, by
  their tokens in the base, as they stand now. `from` is where a moved value or file was.

Applying them gives the head's values: first every removal (and every `from`), of a list the last first; then the others in
their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from conman.domain.semantic_diff_files import ConfigType, Finding, Shown
from conman.domain.semantic_diff_moves import with_moves
from conman.domain.semantic_diff_tree import Kind
from conman.domain.semantic_diff_words import sentence

MOST_ORDERED = 1_000
"""Longer orders of lists are told without the items."""


@dataclass(frozen=True, slots=True)
class SemanticDiff:
    """What two commits differ in: all changes, by file, and their number by what they configure (every key is there)."""

    changes: tuple[Finding, ...]
    by_config_type: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """The summary over all changes, as it is shown."""
        return {"totalChanges": len(self.changes), "byConfigType": self.by_config_type}


def summarised(files: Iterable[Sequence[Finding]]) -> SemanticDiff:
    """The findings of all files, in the files' order, with moves found between them."""
    changes = with_moves([finding for findings in files for finding in findings])
    counts = dict.fromkeys((each.value for each in ConfigType), 0)
    for change in changes:
        counts[change.subject.type.value] += 1
    return SemanticDiff(tuple(changes), counts)


def change_record(finding: Finding) -> dict[str, Any]:
    """A change as it is shown (`spec.md` 8)."""
    operation = Kind.MOVED if finding.kind is Kind.REORDERED else finding.kind
    record: dict[str, Any] = {
        "id": change_id(finding),
        "configType": finding.subject.type.value,
        "operation": operation.value,
        "target": finding.subject.name,
        "description": sentence(finding),
        "filePath": finding.subject.path,
    }
    lines = _head_lines(finding)
    if lines is not None:
        record["lineStart"], record["lineEnd"] = lines
    record["details"] = _details(finding)
    return record


def change_id(finding: Finding) -> str:
    """The same for the same change, whenever and however often it is asked for."""
    source = finding.source
    told = [
        finding.kind.value,
        finding.subject.path,
        finding.pointer,
        finding.whole,
        finding.note,
        finding.old_path,
        [source.subject.path, source.pointer] if source is not None else None,
        [side.digest.hex() if side is not None else None for side in (finding.before, finding.after)],
        finding.blobs,
        finding.index,
        finding.order,
    ]
    return blake2b(json.dumps(told).encode(), digest_size=12).hexdigest()


def _head_lines(finding: Finding) -> tuple[int, int] | None:
    """The lines in the head's file; of what can't be read the line that is wrong."""
    if finding.problem is not None:
        side, _, line = finding.problem
        return (line, line) if side == "head" and line is not None else None
    return finding.after.lines if finding.after is not None else None


def _details(finding: Finding) -> dict[str, Any]:
    details: dict[str, Any] = {"pointer": finding.pointer}
    if finding.whole:
        details |= _of_file(finding)
    elif finding.kind is not Kind.REORDERED:
        details |= _side("before", finding.before) | _side("after", finding.after)
    if finding.before is not None:
        details["baseLineStart"], details["baseLineEnd"] = finding.before.lines
    if finding.index is not None:
        details["index"] = finding.index
    if finding.kind is Kind.REORDERED:
        details["reordered"] = True
        details["order"] = list(finding.order[:MOST_ORDERED])
        details["orderTruncated"] = len(finding.order) > MOST_ORDERED
    if finding.source is not None:
        details["from"] = {"filePath": finding.source.subject.path, "pointer": finding.source.pointer}
    elif finding.old_path is not None:
        details["from"] = {"filePath": finding.old_path, "pointer": ""}
    if finding.several:
        details["multiDocument"] = True
    return details


def _of_file(finding: Finding) -> dict[str, Any]:
    told: dict[str, Any] = {"wholeFile": True}
    if finding.note:
        told["note"] = finding.note
    if finding.problem is not None:
        side, reason, line = finding.problem
        told["problem"] = {"side": side, "reason": reason, "line": line}
    return told


def _side(name: str, shown: Shown | None) -> dict[str, Any]:
    if shown is None:
        return {}
    side: dict[str, Any] = {name: shown.value, f"{name}Type": shown.kind}
    return side | {f"{name}Truncated": True} if shown.cut else side
