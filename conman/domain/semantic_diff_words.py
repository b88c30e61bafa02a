"""The sentences of the semantic diff."""

from __future__ import annotations

import json
import re

from conman.domain.semantic_diff_files import Finding, Shown, Subject
from conman.domain.semantic_diff_tree import Kind, Step, Way

_LONGEST_VALUE = 60
_PLAIN_KEY = re.compile(r"[^\s.\[\]`\"]+")
_MOST_NAMED = 5


def sentence(finding: Finding) -> str:
    """What changed, for people: "`retryCount` of entity `PaymentProvider` changed from 3 to 5"."""
    told = _file(finding) if finding.whole else _value(finding)
    if finding.whole and finding.note:
        told += f": {finding.note}" if finding.kind is not Kind.MOVED else f", and {finding.note}"
    if finding.problem is not None:
        side, reason, line = finding.problem
        place = f" (line {line})" if line is not None else ""
        told += f"; it can't be compared by value, since the {side} version can't be read: {reason}{place}"
    return told


def place_of(way: Way) -> str:
    """A value's place as people write it: `servers[web-1].port`."""
    told = ""
    for step in way:
        if step.item:
            told += f"[{step.label if step.label.isprintable() else json.dumps(step.label)}]"
        else:
            key = step.label if _PLAIN_KEY.fullmatch(step.label) else json.dumps(step.label, ensure_ascii=False)
            told += f".{key}" if told else key
    return told


def thing(subject: Subject) -> str:
    """A file as people call it."""
    return f"{subject.type.value} `{subject.name}`" if subject.known else f"file `{subject.path}`"


def _file(finding: Finding) -> str:
    what = thing(finding.subject)
    match finding.kind:
        case Kind.ADDED:
            return f"{what} was added"
        case Kind.REMOVED:
            return f"{what} was removed"
        case Kind.MOVED:
            return f"{what} moved from `{finding.old_path}` to `{finding.subject.path}`"
        case _:
            return f"{what} changed"


def _value(finding: Finding) -> str:
    what = _of(finding.way, finding)
    match finding.kind:
        case Kind.ADDED:
            return _added(finding)
        case Kind.REMOVED:
            return f"{what} was removed; it was {_told(finding.before)}"
        case Kind.MOVED:
            return _moved(finding)
        case Kind.REORDERED:
            return _reordered(finding, what)
        case Kind.MODIFIED:
            return _modified(finding, what)


def _of(way: Way, finding: Finding) -> str:
    """A value as people call it; the first step among several YAML documents is the document."""
    what = thing(finding.subject)
    if finding.several and way:
        first, *rest = way
        what = f"document {int(first.label) + 1 if first.label.isdigit() else f'`{first.label}`'} of {what}"
        way = tuple(rest)
    return f"`{place_of(way)}` of {what}" if way else what


def _added(finding: Finding) -> str:
    *around, last = finding.way
    value = _told(finding.after)
    if last.item and (around or not finding.several):
        return f"{_item(last, finding.index)} was added to {_of(tuple(around), finding)}: {value}"
    return f"{_of(finding.way, finding)} was added: {value}"


def _item(step: Step, index: int | None) -> str:
    return "an item" if index is not None and step.label == str(index) else f"`{step.label}`"


def _modified(finding: Finding, what: str) -> str:
    before, after = finding.before, finding.after
    if before is None or after is None:
        return f"{what} changed"
    if finding.key_kind_changed:
        return f"the key of {what} is of another type; its value was {_told(before)} and is {_told(after)}"
    if before.kind != after.kind:
        return f"{what} changed its type, from {_typed(before)} to {_typed(after)}"
    if before.cut or after.cut:
        return f"{what} changed"
    return f"{what} changed from {_told(before)} to {_told(after)}"


def _moved(finding: Finding) -> str:
    source = finding.source
    if source is None:
        return f"{_of(finding.way, finding)} moved"
    there = f"`{place_of(finding.way)}`"
    if source.subject.path != finding.subject.path or finding.several:
        there = _of(finding.way, finding)
    told = f"{_of(source.way, source)} moved to {there}"
    before, after = finding.before, finding.after
    return told if before and after and before.digest == after.digest else f"{told}, and changed"


def _reordered(finding: Finding, what: str) -> str:
    named = [f"`{step.label}`" for step in finding.displaced if not step.label.isdigit()]
    told = f"the items of {what} were reordered"
    few = len(named) == len(finding.displaced) <= _MOST_NAMED
    return f"{told}: {', '.join(named)} moved" if few else told


def _typed(value: Shown) -> str:
    tells_it = value.kind in ("object", "list", "null") or isinstance(value.value, dict)
    return _told(value) if tells_it else f"{_told(value)} ({value.kind})"


def _told(value: Shown | None) -> str:
    """A value in a sentence."""
    if value is None:
        return "nothing"
    if value.kind in ("object", "list"):
        what = "key" if value.kind == "object" else "item"
        return f"{'an object' if value.kind == 'object' else 'a list'} with {value.size} {what}{'' if value.size == 1 else 's'}"
    if isinstance(value.value, str) and (value.cut or value.kind != "text"):
        text = " ".join(value.value.split())
    elif isinstance(value.value, dict):  # only a YAML value with a tag is shown by one
        [(tag, tagged)] = value.value.items()
        text = f"{tag} {json.dumps(tagged, ensure_ascii=False)}"
    else:
        text = json.dumps(value.value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
