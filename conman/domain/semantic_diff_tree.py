"""What differs between two trees, value by value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from conman.domain.key_merge_tree import Entry, Node, Shape, same, token
from conman.domain.semantic_diff_lists import Name, match


class Kind(Enum):
    """How a value differs."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    MOVED = "moved"
    REORDERED = "reordered"


@dataclass(frozen=True, slots=True)
class Step:
    """One step into a tree: a key, or an item of a sequence."""

    token: str
    label: str
    item: bool = False


Way = tuple[Step, ...]
"""The steps from the root to a value."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs.

    `way` leads to it in the new tree, of a removed value in the old one. `index` is the place of an added item. `order` holds,
    for a reordered sequence, the tokens that its remaining items had in the old tree, as they stand now; `displaced` are the
    fewest items that account for it.
    """

    kind: Kind
    way: Way
    before: Entry | None
    after: Entry | None
    index: int | None = None
    order: tuple[str, ...] = ()
    displaced: tuple[Step, ...] = ()


def pointer(way: Way) -> str:
    """The JSON pointer (RFC 6901); items of sequences are named by their natural key where they have one."""
    return "".join(f"/{token(step.token)}" for step in way)


def differences(old: Node, new: Node) -> Iterator[Difference]:
    """What differs between two trees.

    Taken away the removed values first (of a sequence the last first), and then, in this order, all else done to the old tree,
    it is the new one: a sequence is put into its order before its items are added, and these come in the order of their
    indices, before anything in it changes.
    """
    return _between((), (), Entry("", old.start, old.end, old), Entry("", new.start, new.end, new))


def _between(was: Way, way: Way, before: Entry, after: Entry) -> Iterator[Difference]:
    old, new = before.node, after.node
    if same(old, new):
        if before.form != after.form:
            yield Difference(Kind.MODIFIED, way, before, after)
    elif before.form != after.form or old.shape is not new.shape or old.tag or new.tag:
        yield Difference(Kind.MODIFIED, way, before, after)
    elif old.shape is Shape.MAPPING:
        yield from _mappings(was, way, old, new)
    elif old.shape is Shape.SEQUENCE:
        yield from _sequences(was, way, old, new)
    else:
        yield Difference(Kind.MODIFIED, way, before, after)


def _mappings(was: Way, way: Way, old: Node, new: Node) -> Iterator[Difference]:
    here, there = old.by_key(), new.by_key()
    for key, before in here.items():
        if key not in there:
            yield Difference(Kind.REMOVED, (*was, Step(key, key)), before, None)
    for key, after in there.items():
        step = Step(key, key)
        before = here.get(key)
        if before is None:
            yield Difference(Kind.ADDED, (*way, step), None, after)
        else:
            yield from _between((*was, step), (*way, step), before, after)


def _sequences(was: Way, way: Way, old: Node, new: Node) -> Iterator[Difference]:
    matched = match(old, new)
    for index in matched.gone:
        yield Difference(Kind.REMOVED, (*was, _item(matched.old_names[index])), old.entries[index], None)
    displaced = matched.out_of_order
    if displaced:
        order = tuple(matched.old_names[index].token for index in matched.order)
        steps = tuple(_item(matched.new_names[index]) for index in displaced)
        before, after = Entry("", old.start, old.end, old), Entry("", new.start, new.end, new)
        yield Difference(Kind.REORDERED, way, before, after, order=order, displaced=steps)
    pairs = list(zip(matched.old_of_new, matched.new_names, new.entries, strict=True))
    for index, (before, name, entry) in enumerate(pairs):
        if before is None:
            yield Difference(Kind.ADDED, (*way, _item(name)), None, entry, index=index)
    for before, name, entry in pairs:
        if before is not None:
            steps = _item(matched.old_names[before]), _item(name)
            yield from _between((*was, steps[0]), (*way, steps[1]), old.entries[before], entry)


def _item(name: Name) -> Step:
    return Step(name.token, name.label, item=True)
