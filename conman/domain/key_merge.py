"""Conflicts in JSON, YAML and TOML files by key, and their resolution in place (`spec.md` 7, `api.md` sync-integration).

People who do not know Git resolve settings, not lines. `key_conflicts` names the settings that two versions of a file
changed differently since their common base; `resolve_keys` makes the merged file from one choice for each. It edits the
text of ours where a value has to change, and only there: comments, order, indents, quotes, line ends and the byte order
mark elsewhere stay byte for byte. What was written is read again and compared with what was chosen before it is returned.

`conman.domain.key_merge_rules` says what is a conflict, and how items of lists are named in pointers.

A file is not merged by key (the caller then resolves it as a whole) when a version

- is missing (only the base may be), is larger than `MAX_BYTES`, is not UTF-8 or does not parse;
- holds more than `MAX_VALUES` values, nests deeper than `MAX_DEPTH`, has a key twice, or half a surrogate pair in a text;
- differs and is no mapping at its root;
- is YAML with several documents, directives, anchors, aliases, merge keys, keys that are not one scalar on their line,
  `[key: value]` pairs, block scalars that keep trailing line breaks (`|+`) or end the file without one, or line breaks
  other than LF and CRLF;
- writes one YAML key in two forms (`1` and `"1"`);
- is TOML with a table that is written in several separate places, or with dotted keys in an inline table.

Time and memory grow linearly; at `MAX_VALUES` changed values it is some ten seconds and 300 MB: callers run it off the
event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from conman.domain import key_merge_json, key_merge_toml, key_merge_toml_edit, key_merge_yaml, key_merge_yaml_edit
from conman.domain.errors import invalid
from conman.domain.key_merge_rules import (
    GONE,
    KEEP,
    Clash,
    Outcome,
    Put,
    Sources,
    Within,
    expected,
    merge,
)
from conman.domain.key_merge_tree import (
    ABSENT,
    MAX_BYTES,
    Absent,
    Entry,
    Literal,
    Node,
    Scalar,
    UnreadableError,
    Value,
    made,
    plain,
    same,
)

__all__ = [
    "ABSENT",
    "MAX_BYTES",
    "Absent",
    "Format",
    "KeyChoice",
    "KeyConflict",
    "Take",
    "Value",
    "format_of",
    "key_conflicts",
    "resolve_keys",
]


class Format(StrEnum):
    """A format whose files are merged by key."""

    JSON = "json"
    YAML = "yaml"
    TOML = "toml"


_ENDINGS = {".json": Format.JSON, ".yaml": Format.YAML, ".yml": Format.YAML, ".toml": Format.TOML}
_BOM = "\ufeff"
_FIELD = "resolutions"


def format_of(path: str) -> Format | None:
    """The format that a path's ending names, in any case; None for other files."""
    name = path.rpartition("/")[2]
    return _ENDINGS.get(f".{name.rpartition('.')[2].lower()}") if "." in name[1:] else None


class Take(StrEnum):
    """Which value a conflicting key gets: a version's (absent where that version lacks the key), or one that is given."""

    BASE = "base"
    OURS = "ours"
    THEIRS = "theirs"
    VALUE = "value"


@dataclass(frozen=True)
class KeyConflict:
    """A key that both sides changed differently; its pointer is RFC 6901's, items of lists by their natural key.

    Values are as JSON has them, `ABSENT` where a version lacks the key. What JSON has no kind for is the text that stands
    in the file: dates and times, infinities, numbers that no float holds exactly, words that YAML 1.1 and 1.2 read
    differently (`yes`, `010`). A YAML value with a tag is `{tag: value}`.
    """

    pointer: str
    base: Value | Absent
    ours: Value | Absent
    theirs: Value | Absent


@dataclass(frozen=True)
class KeyChoice:
    """What one conflicting key gets; `value` is for `Take.VALUE` alone.

    A given text is written as a text, except where every version that has the key holds a date or another value of one
    kind that `KeyConflict` shows as text, and the given text is of that kind too: then it is written as such.
    """

    pointer: str
    take: Take
    value: Value | Absent = ABSENT


@dataclass(frozen=True, slots=True)
class _Format:
    read: Callable[[str], Node]
    edit: Callable[[Sources, Within, bool], str]
    """The text with the changes of its root; the flag is for values from their sources (False) or written anew (True)."""
    literal: Callable[[str], Scalar]
    """What a plain word stands for."""


_FORMATS: Mapping[Format, _Format] = {
    Format.JSON: _Format(key_merge_json.read, key_merge_json.edit, key_merge_json.literal),
    Format.YAML: _Format(key_merge_yaml.read, key_merge_yaml_edit.edit, key_merge_yaml.literal),
    Format.TOML: _Format(key_merge_toml.read, key_merge_toml_edit.edit, key_merge_toml.literal),
}


@dataclass(frozen=True, slots=True)
class _Versions:
    sources: Sources
    base: Node | None
    ours: Node
    theirs: Node
    bom: bool


def key_conflicts(fmt: Format, base: bytes | None, ours: bytes | None, theirs: bytes | None) -> tuple[KeyConflict, ...] | None:
    """The keys that ours and theirs changed differently since base (None: both added the file), by pointer.

    None where the file has to be resolved as a whole; the module's text says when.
    """
    try:
        versions = _versions(fmt, base, ours, theirs)
        clashes = _clashes(versions)
    except UnreadableError:
        return None
    return tuple(
        KeyConflict(each.pointer, _value(each.base), _value(each.ours), _value(each.theirs))
        for each in sorted(clashes, key=lambda each: each.pointer)
    )


def resolve_keys(
    fmt: Format, base: bytes | None, ours: bytes | None, theirs: bytes | None, choices: Sequence[KeyChoice]
) -> bytes:
    """Ours with what only theirs changed, and with each conflicting key as chosen (`spec.md` 7).

    Raises `validation_error` for the field `resolutions` where a conflict has no choice or two, a choice names no
    conflict, a value can't be written in this format, or the file has to be resolved as a whole.
    """
    try:
        versions = _versions(fmt, base, ours, theirs)
        chosen = _chosen(fmt, versions, choices)
        outcome = _merged(versions, lambda clash: chosen[clash.pointer])
        text = _written(_FORMATS[fmt], versions, outcome) if isinstance(outcome, Within) else versions.sources.ours
    except UnreadableError as error:
        raise invalid(_FIELD, f"this file can't be resolved by key ({error}); give its whole content.") from error
    return ((_BOM if versions.bom else "") + text).encode()


def _merged(versions: _Versions, decide: Callable[[Clash], Outcome]) -> Outcome:
    return merge(versions.sources, versions.base, versions.ours, versions.theirs, decide)


def _clashes(versions: _Versions) -> list[Clash]:
    found: list[Clash] = []

    def note(clash: Clash) -> Outcome:
        found.append(clash)
        return KEEP

    _merged(versions, note)
    return found


def _value(entry: Entry | None) -> Value | Absent:
    return ABSENT if entry is None else plain(entry.node)


def _versions(fmt: Format, base: bytes | None, ours: bytes | None, theirs: bytes | None) -> _Versions:
    if ours is None or theirs is None:
        raise UnreadableError("a side deleted it")
    texts = [_text(each) for each in (base or b"", ours, theirs)]
    read = _FORMATS[fmt].read
    return _Versions(
        Sources(texts[0], texts[1], texts[2]),
        None if base is None else read(texts[0]),
        read(texts[1]),
        read(texts[2]),
        bom=ours.startswith(_BOM.encode()),
    )


def _text(content: bytes) -> str:
    """The text behind a byte order mark."""
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"it is larger than {MAX_BYTES} bytes")
    try:
        return content.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not UTF-8") from error


def _chosen(fmt: Format, versions: _Versions, choices: Sequence[KeyChoice]) -> dict[str, Outcome]:
    """The outcome of each conflict. Raises `validation_error`."""
    found = {each.pointer: each for each in _clashes(versions)}
    chosen: dict[str, Outcome] = {}
    for choice in choices:
        clash = found.get(choice.pointer)
        if clash is None:
            raise invalid(_FIELD, f"{choice.pointer!r} is no conflict of this file.")
        if choice.pointer in chosen:
            raise invalid(_FIELD, f"{choice.pointer!r} has more than one choice.")
        chosen[choice.pointer] = _outcome(fmt, versions.sources, clash, choice)
    missing = sorted(pointer for pointer in found if pointer not in chosen)
    if missing:
        raise invalid(_FIELD, f"{', '.join(map(repr, missing))}: no choice is given for this conflict.")
    return chosen


def _outcome(fmt: Format, sources: Sources, clash: Clash, choice: KeyChoice) -> Outcome:
    if (choice.take is Take.VALUE) is (choice.value is ABSENT):
        raise invalid(_FIELD, f"{choice.pointer!r}: a value belongs to `take: value`, and to no other.")
    match choice.take:
        case Take.BASE:
            return _taken(clash.base, sources.base)
        case Take.OURS:
            return KEEP
        case Take.THEIRS:
            return _taken(clash.theirs, sources.theirs)
        case Take.VALUE:
            return _given(fmt, sources, clash, choice)


def _taken(entry: Entry | None, source: str) -> Outcome:
    return GONE if entry is None else Put(entry.node, entry, source)


def _given(fmt: Format, sources: Sources, clash: Clash, choice: KeyChoice) -> Outcome:
    """A given value; a version that has the same one lends it its source text."""
    assert choice.value is not ABSENT
    entries = [each for each in (clash.base, clash.ours, clash.theirs) if each is not None]
    try:
        node = _like(fmt, made(choice.value), [each.node for each in entries])
        if fmt is Format.TOML:
            key_merge_toml.check(node)
    except UnreadableError as error:
        raise invalid(_FIELD, f"{choice.pointer!r}: {error}.") from error
    if clash.ours is not None and same(node, clash.ours.node):
        return KEEP
    for entry, source in ((clash.theirs, sources.theirs), (clash.base, sources.base)):
        if entry is not None and same(node, entry.node):
            return Put(entry.node, entry, source)
    return Put(node)


def _like(fmt: Format, node: Node, versions: Sequence[Node]) -> Node:
    """A text becomes a literal, such as a date, where all versions are literals of its kind."""
    if isinstance(node.scalar, str):
        literal = _FORMATS[fmt].literal(node.scalar)
        kinds = [each.scalar.kind if isinstance(each.scalar, Literal) and not each.tag else None for each in versions]
        if isinstance(literal, Literal) and all(kind == literal.kind for kind in kinds):
            return Node(-1, -1, scalar=literal).seal()
    return node


def _written(fmt: _Format, versions: _Versions, outcome: Within) -> str:
    """The text with the outcome; values come as their sources have them, or are written anew where that does not fit.

    Raises `UnreadableError` if neither reads as what was chosen.
    """
    wanted = expected(versions.ours, outcome)
    for rendered in (False, True):
        text = fmt.edit(versions.sources, outcome, rendered)
        try:
            if same(fmt.read(text), wanted):
                return text
        except UnreadableError:
            continue
    raise UnreadableError("what was chosen does not fit into its text")
