"""What the two versions of one file differ in: findings with all that is told of them, but for moves between files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from hashlib import blake2b
from itertools import islice

from conman.domain.key_merge import Format, format_of
from conman.domain.key_merge_rules import NATURAL_KEYS
from conman.domain.key_merge_tree import Entry, Literal, Node, Scalar, Shape, Value, plain
from conman.domain.semantic_diff_read import Parsed, Unparsed, alike, parse
from conman.domain.semantic_diff_tree import Difference, Kind, Step, Way, differences, pointer

MAX_SHOWN = 4_000
"""A value whose JSON text is longer, in characters, is shown by the beginning of its source text."""
MAX_FINDINGS = 10_000
"""A file that differs in more values is told as one change; it bounds memory and what anybody reads."""
MOST_FEATURES = 500
"""A value with more scalars is only found elsewhere when it is equal there, not when it is near-equal."""

_PREVIEW = 200
_LONGEST_NAME = 80


class ConfigType(StrEnum):
    """What a file configures, by its first folder."""

    ENTITY = "entity"
    PAGE = "page"
    QUEUE = "queue"
    PROVIDER = "provider"
    WORKFLOW = "workflow"
    TENANT = "tenant"
    MENU = "menu"
    ASSET = "asset"
    SCRIPT = "script"


_FOLDERS = {
    "entities": ConfigType.ENTITY,
    "pages": ConfigType.PAGE,
    "queues": ConfigType.QUEUE,
    "providers": ConfigType.PROVIDER,
    "workflows": ConfigType.WORKFLOW,
    "tenants": ConfigType.TENANT,
    "menus": ConfigType.MENU,
    "assets": ConfigType.ASSET,
    "scripts": ConfigType.SCRIPT,
}


class Type(Enum):
    """What stands at a path."""

    FILE = "file"
    EXECUTABLE = "executable file"
    SYMLINK = "symbolic link"
    SUBMODULE = "submodule"


@dataclass(frozen=True, slots=True)
class Version:
    """A file in one commit. `data` is None where its content is not compared; `unread` then says why, if there is a reason."""

    blob_id: str
    type: Type
    data: bytes | None = None
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class FilePair:
    """A file in two commits, None where it is not there; `old_path` where it was called otherwise."""

    path: str
    old: Version | None
    new: Version | None
    old_path: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The file that a change is in, as people call it; `known`: its folder tells what it configures."""

    path: str
    type: ConfigType
    name: str
    known: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A value of one version: what is told of it, its kind, and its lines in that version."""

    value: Value
    kind: str
    digest: bytes
    lines: tuple[int, int]
    size: int
    """How many entries a collection has."""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """By what a value is found elsewhere: how many scalars it holds, each with its way as a feature, and its longest text."""

    leaves: int
    longest: int
    features: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. A whole file's has no `way`; `note` says then what can't be told by values."""

    kind: Kind
    subject: Subject
    way: Way
    before: Shown | None = None
    after: Shown | None = None
    index: int | None = None
    order: tuple[str, ...] = ()
    displaced: tuple[Step, ...] = ()
    several: bool = False
    whole: bool = False
    note: str = ""
    blobs: tuple[str | None, ...] = ()
    """Of a whole file: its content's ids in the base and the head."""
    problem: tuple[str, str, int | None] | None = None
    """The side that can't be read (`base` or `head`), the reason, and the line."""
    key_kind_changed: bool = False
    trace: Trace | None = None
    source: Finding | None = None
    """Of a move: the value as it was removed elsewhere."""
    old_path: str | None = None

    @property
    def pointer(self) -> str:
        """The JSON pointer of the value."""
        return pointer(self.way)


def subject_of(path: str, root: Node | None) -> Subject:
    """What to call a file: by the natural key at its root, or by its name."""
    known = _FOLDERS.get(path.partition("/")[0]) if "/" in path else None
    stem = path.rpartition("/")[2]
    name = (stem.rpartition(".")[0] if format_of(path) is not None else stem) if known else path
    if known and root is not None and root.shape is Shape.MAPPING:
        entries = root.by_key()
        texts = [entries[key].node.scalar for key in ("name", *NATURAL_KEYS) if key in entries]
        name = next((text for text in texts if isinstance(text, str) and _is_name(text)), name)
    return Subject(path, known or ConfigType.ASSET, name, known is not None)


def compare(pair: FilePair, *, most_shown: int = MAX_SHOWN) -> tuple[Finding, ...]:
    """What differs. A file that is new, gone, or can't be read is one finding; so is a new name, besides what it changed."""
    return tuple(_Comparison(pair, most_shown).findings())


def _is_name(text: str) -> bool:
    return bool(text.strip()) and len(text) <= _LONGEST_NAME and text.isprintable()


@dataclass(slots=True)
class _Comparison:
    pair: FilePair
    most_shown: int
    old: Parsed | Unparsed | None = field(init=False)
    new: Parsed | Unparsed | None = field(init=False)
    subject: Subject = field(init=False)

    def __post_init__(self) -> None:
        pair = self.pair
        same_blob = pair.old is not None and pair.new is not None and pair.old.blob_id == pair.new.blob_id
        self.old = _read(pair.old_path or pair.path, pair.old)
        self.new = self.old if same_blob and pair.old_path is None else _read(pair.path, pair.new)
        named = next((each.root for each in (self.new, self.old) if isinstance(each, Parsed)), None)
        self.subject = subject_of(pair.path, named)

    def findings(self) -> Iterator[Finding]:
        """What differs, the file as a whole first."""
        old, new = self.pair.old, self.pair.new
        if old is None or new is None:
            yield self._one_sided()
            return
        if self.pair.old_path is not None:
            yield replace(self._file(Kind.MOVED, self._unlike()), old_path=self.pair.old_path)
        if old.type is not new.type:
            yield self._file(Kind.MODIFIED, f"its type changed from {old.type.value} to {new.type.value}")
        if old.blob_id != new.blob_id:
            yield from self._contents(old, new)

    def _contents(self, old: Version, new: Version) -> Iterator[Finding]:
        if isinstance(self.old, Parsed) and isinstance(self.new, Parsed):
            yield from self._values(self.old, self.new)
            return
        problem = self._problem()
        note = next((each.unread for each in (new, old) if each.unread is not None), "")
        if problem is not None:
            yield replace(self._file(Kind.MODIFIED, ""), problem=problem)
        elif old.type is new.type and (self.pair.old_path is None or note):
            yield self._file(Kind.MODIFIED, note)

    def _values(self, old: Parsed, new: Parsed) -> Iterator[Finding]:
        old, new = alike(old, new)
        found = list(islice(differences(old.root, new.root), MAX_FINDINGS + 1))
        if len(found) > MAX_FINDINGS:
            yield self._file(Kind.MODIFIED, f"more than {MAX_FINDINGS} values differ, too many to list")
            return
        for each in found:
            yield self._value(each, old, new)

    def _value(self, found: Difference, old: Parsed, new: Parsed) -> Finding:
        before, after = found.before, found.after
        alone = before if after is None else after if before is None else None
        return Finding(
            found.kind,
            self.subject,
            found.way,
            before=self._shown(before, old),
            after=self._shown(after, new),
            index=found.index,
            order=found.order,
            displaced=found.displaced,
            several=new.several,
            key_kind_changed=before is not None and after is not None and before.form != after.form,
            trace=None if alone is None else trace(alone.node),
        )

    def _one_sided(self) -> Finding:
        """The whole file, which is in one version only."""
        kind, read, version = (Kind.ADDED, self.new, self.pair.new)
        if version is None:
            kind, read, version = (Kind.REMOVED, self.old, self.pair.old)
        found = self._file(kind, (version.unread if version is not None else None) or "")
        if not isinstance(read, Parsed):
            return replace(found, problem=self._problem())
        root = read.root
        shown = Shown(None, _kind(root), root.digest, read.lines(root.start, root.end), len(root.entries))
        before, after = (None, shown) if kind is Kind.ADDED else (shown, None)
        return replace(found, before=before, after=after, trace=trace(root))

    def _problem(self) -> tuple[str, str, int | None] | None:
        for side, read in (("head", self.new), ("base", self.old)):
            if isinstance(read, Unparsed):
                return side, read.reason, read.line
        return None

    def _unlike(self) -> str:
        """That a file which got another name also got another content which is not told by its values."""
        old, new = self.pair.old, self.pair.new
        told = isinstance(self.old, Parsed) and isinstance(self.new, Parsed)
        return "changed" if old and new and old.blob_id != new.blob_id and not told else ""

    def _file(self, kind: Kind, note: str) -> Finding:
        blobs = tuple(None if each is None else each.blob_id for each in (self.pair.old, self.pair.new))
        return Finding(kind, self.subject, (), whole=True, note=note, blobs=blobs)

    def _shown(self, entry: Entry | None, within: Parsed) -> Shown | None:
        if entry is None:
            return None
        node = entry.node
        value: Value = None
        cut = node.end - node.start > 4 * self.most_shown + _PREVIEW
        if not cut:
            value = plain(node)  # pyright: ignore[reportAssignmentType]
            cut = node.shape is not Shape.SCALAR or isinstance(value, str | dict)
            cut = cut and len(json.dumps(value, ensure_ascii=False)) > self.most_shown
        if cut:
            value = within.text[node.start : min(node.end, node.start + _PREVIEW)]
        lines = within.lines(entry.start, entry.end)
        return Shown(value, _kind(node), node.digest, lines, len(node.entries), cut=cut)


def _read(path: str, version: Version | None) -> Parsed | Unparsed | None:
    """The tree of a file that has one; None for other files, links and what is not compared."""
    fmt: Format | None = format_of(path)
    if version is None or version.data is None or fmt is None or version.type not in (Type.FILE, Type.EXECUTABLE):
        return None
    return parse(fmt, version.data)


def _kind(node: Node) -> str:
    """A value's kind in the words of people who write settings."""
    if node.tag:
        return node.tag
    if node.shape is not Shape.SCALAR:
        return "object" if node.shape is Shape.MAPPING else "list"
    return _scalar_kind(node.scalar)


def _scalar_kind(scalar: Scalar) -> str:
    match scalar:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "text"
        case Literal():
            return scalar.kind


def trace(node: Node) -> Trace:
    """By what a value is found elsewhere."""
    features: list[bytes] = []
    longest = 0
    leaves = 0
    waiting: list[tuple[Node, bytes]] = [(node, b"")]
    while waiting:
        each, way = waiting.pop()
        if each.shape is Shape.SCALAR or each.tag:
            leaves += 1
            longest = max(longest, len(each.scalar) if isinstance(each.scalar, str) else 0)
            if leaves <= MOST_FEATURES:
                features.append(blake2b(way + each.digest, digest_size=8).digest())
            continue
        for entry in each.entries:
            waiting.append((entry.node, blake2b(way + b"/" + entry.key.encode(), digest_size=8).digest()))
    return Trace(leaves, longest, frozenset(features) if leaves <= MOST_FEATURES else frozenset())
