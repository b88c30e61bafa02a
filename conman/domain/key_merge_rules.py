"""The three-way merge of two versions of a tree by key (`spec.md` 7), before any text is written.

A key that one side alone changed takes that side's value; a key that both changed to the same value has it. What both
changed differently is a conflict, at the smallest subtrees that express it: mappings on both sides are compared key by key
(a mapping that both added, too), and so are sequences whose items have a natural key. Anything else is one value.

A sequence is merged item by item when in each version every item is a mapping with the same natural key (`id`, `name` or
`key`, in this order), a text or an integer that is unique there, and the items that versions share stand in the same order.
In pointers an item is named by its natural key, `/servers/name=web-1/port`: unlike an index this means the same item in all
three versions, whichever side is called ours, and after one of them has moved on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from conman.domain.key_merge_tree import Entry, Node, Shape, UnreadableError, same, token

NATURAL_KEYS = ("id", "name", "key")
"""Which keys may identify an item of a sequence, the first that fits in all versions."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The three versions' source texts."""

    base: str
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Ours' value stays as it is."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Ours' key goes."""


@dataclass(frozen=True, slots=True)
class Put:
    """Another value comes, with the entry that has it in the text `source`; without them if a caller gave it."""

    node: Node
    entry: Entry | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Added:
    """A key or item that ours lacks: `entry` stands in the text `source`, its value is `put`'s."""

    entry: Entry
    source: str
    put: Put


@dataclass(frozen=True, slots=True)
class Within:
    """Ours' mapping or sequence stays and its entries change: one outcome for each, and what is added behind an entry.

    `added` is by the entry's index, -1 for what comes first.
    """

    node: Node
    outcomes: tuple[Outcome, ...]
    added: Mapping[int, tuple[Added, ...]]


Outcome: TypeAlias = Keep | Gone | Put | Within

KEEP = Keep()
GONE = Gone()


@dataclass(frozen=True, slots=True)
class Clash:
    """A conflict: the three versions' entries at one pointer, None where a version lacks the key."""

    pointer: str
    base: Entry | None
    ours: Entry | None
    theirs: Entry | None


Decide: TypeAlias = Callable[[Clash], Outcome]
"""What becomes of a conflict: `Keep` is for ours' state, present or absent."""


def merge(sources: Sources, base: Node | None, ours: Node, theirs: Node, decide: Decide) -> Outcome:
    """What becomes of ours' root. Raises `UnreadableError` where roots differ that are no mappings."""
    mappings = all(each is None or (each.shape is Shape.MAPPING and not each.tag) for each in (base, ours, theirs))
    if not mappings and not (same(base, ours) and same(ours, theirs)):
        raise UnreadableError("the whole file is no mapping")
    merger = _Merger(sources, decide)
    roots = (None if each is None else Entry("", each.start, each.end, each) for each in (base, ours, theirs))
    return merger.value("", *roots)


@dataclass(frozen=True, slots=True)
class _Merger:
    sources: Sources
    decide: Decide

    def value(self, pointer: str, base: Entry | None, ours: Entry | None, theirs: Entry | None) -> Outcome:
        nodes = [None if each is None else each.node for each in (base, ours, theirs)]
        if same(nodes[1], nodes[2]) or same(nodes[0], nodes[2]):
            return KEEP
        rows = self._rows(*nodes)
        if rows is not None and ours is not None:
            return self._within(pointer, ours.node, rows)
        if not same(nodes[0], nodes[1]):
            return self.decide(Clash(pointer, base, ours, theirs))
        return GONE if theirs is None else Put(theirs.node, theirs, self.sources.theirs)

    def _rows(self, base: Node | None, ours: Node | None, theirs: Node | None) -> _Rows | None:
        """The entries of three versions side by side; None where they are to be taken as one value."""
        if ours is None or theirs is None or any(each.tag for each in (base, ours, theirs) if each is not None):
            return None
        found = [each.shape for each in (base, ours, theirs) if each is not None]
        if all(shape is Shape.MAPPING for shape in found):
            rows = _Rows(*({} if each is None else each.by_key() for each in (base, ours, theirs)))
            rows.check_forms()
            return rows
        return _item_rows(base, ours, theirs) if all(shape is Shape.SEQUENCE for shape in found) else None

    def _within(self, pointer: str, node: Node, rows: _Rows) -> Outcome:
        outcomes: list[Outcome] = []
        for name, ours in rows.ours.items():
            outcomes.append(self.value(f"{pointer}/{token(name)}", rows.base.get(name), ours, rows.theirs.get(name)))
        where = {name: index for index, name in enumerate(rows.ours)}
        added: dict[int, list[Added]] = {}
        last = -1
        for name, theirs in rows.theirs.items():
            if name in where:
                last = last if isinstance(outcomes[where[name]], Gone) else where[name]
                continue
            outcome = self.value(f"{pointer}/{token(name)}", rows.base.get(name), None, theirs)
            if isinstance(outcome, Put):
                added.setdefault(last, []).append(Added(theirs, self.sources.theirs, outcome))
        if not added and all(isinstance(each, Keep) for each in outcomes):
            return KEEP
        return Within(node, tuple(outcomes), {index: tuple(each) for index, each in added.items()})


@dataclass(frozen=True, slots=True)
class _Rows:
    """The entries of a mapping or sequence in three versions, each under the token that names it in a pointer."""

    base: dict[str, Entry]
    ours: dict[str, Entry]
    theirs: dict[str, Entry]

    def check_forms(self) -> None:
        """Raises `UnreadableError` where versions write one key in forms that are different keys to some readers."""
        for name, entry in (*self.base.items(), *self.ours.items()):
            for others in (self.ours, self.theirs):
                other = others.get(name)
                if other is not None and other.form != entry.form:
                    raise UnreadableError(f"the key {name!r} is written in two forms")

    def in_one_order(self) -> bool:
        """Whether the entries that versions share stand in the same order in all of them."""
        pairs = ((self.base, self.ours), (self.ours, self.theirs), (self.base, self.theirs))
        return all([name for name in one if name in other] == [name for name in other if name in one] for one, other in pairs)


def _item_rows(base: Node | None, ours: Node, theirs: Node) -> _Rows | None:
    found = natural_items([each for each in (base, ours, theirs) if each is not None])
    if found is None:
        return None
    rows = _Rows(*found) if base is not None else _Rows({}, *found)
    return rows if rows.in_one_order() else None


def natural_items(versions: Sequence[Node]) -> list[dict[str, Entry]] | None:
    """The items of a sequence's versions under the tokens that name them (`id=7`), by the first natural key that fits in all.

    None where no key does.
    """
    for natural in NATURAL_KEYS:
        found = [_named(each, natural) for each in versions]
        named = [each for each in found if each is not None]
        if len(named) == len(found) and _kinds(named) is not None:
            return named
    return None


def _named(node: Node, natural: str) -> dict[str, Entry] | None:
    """The items under their tokens; None if one is no mapping, lacks the natural key or shares it."""
    found: dict[str, Entry] = {}
    for item in node.entries:
        value = _natural(item.node, natural)
        name = f"{natural}={value}"
        if value is None or name in found:
            return None
        found[name] = item
    return found


def _natural(node: Node, natural: str) -> str | int | None:
    if node.shape is not Shape.MAPPING or node.tag:
        return None
    value = next((entry.node for entry in node.entries if entry.key == natural), None)
    if value is None or value.tag or isinstance(value.scalar, bool) or not isinstance(value.scalar, (str, int)):
        return None
    return value.scalar


def _kinds(versions: Iterable[dict[str, Entry]]) -> dict[str, bytes] | None:
    """None where one token stands for a number in one version and for a text in another."""
    found: dict[str, bytes] = {}
    for version in versions:
        for name, item in version.items():
            natural = name.partition("=")[0]
            digest = next(entry.node.digest for entry in item.node.entries if entry.key == natural)
            if found.setdefault(name, digest) != digest:
                return None
    return found


def expected(ours: Node, outcome: Outcome) -> Node | None:
    """The value that the merged file must have, without places; None if it is to be absent."""
    match outcome:
        case Keep():
            return ours
        case Gone():
            return None
        case Put():
            return outcome.node
        case Within():
            return _expected_within(outcome)


def _expected_within(within: Within) -> Node:
    entries = [_entry(each.entry, each.put.node) for each in within.added.get(-1, ())]
    for index, (entry, outcome) in enumerate(zip(within.node.entries, within.outcomes, strict=True)):
        node = expected(entry.node, outcome)
        if node is not None:
            entries.append(_entry(entry, node))
        entries.extend(_entry(each.entry, each.put.node) for each in within.added.get(index, ()))
    return Node(-1, -1, within.node.shape, entries=entries, tag=within.node.tag).seal()


def _entry(entry: Entry, node: Node) -> Entry:
    return Entry(entry.key, -1, -1, node, form=entry.form, item=entry.item)
