"""What the changeset takes away and files of the head still name: keys, things with an id or a name, and whole files.

A value of another file refers to something by these conventions:

- it is the name, under a key that speaks of such things (`provider: stripe`, `providerId`, `providers: [stripe]` for an item of
  `providers`, or a file in a folder of that name), or under one that says that it refers (`ref`, `source`, `uses`, …);
- it is the name, and that is too peculiar to be there by chance (`eu-west-2`, `PaymentProvider`);
- it has the name at the end of a path: `#/providers/stripe`, `providers.stripe`, `${providers.stripe}`, `{{ stripe }}`;
- it is the path of a file, from the root or from the folder of the file that it stands in.

Whatever the head still defines somewhere is not taken away.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from conman.domain.key_merge_rules import NATURAL_KEYS
from conman.domain.key_merge_tree import Shape
from conman.domain.risk_rules_facts import ChangedFile, Facts, Risk, Rule, Severity, read
from conman.domain.risk_rules_tree import Leaf, defined_settings, defined_things, leaves
from conman.domain.risk_rules_words import singular, words, words_of
from conman.domain.semantic_diff_read import Parsed
from conman.domain.semantic_diff_tree import Difference, Kind

MOST_PLACES = 5
"""Of one thing that is gone so many places are told."""

_REFERRING = words(
    """
    ref refs reference uses use using source target from to extends inherits parent requires depends include includes
    import imports field fields property attribute column bind binding next link
    """
)
_ENDINGS = words(
    """
    id ids ref refs name names key keys
    """
)
_INSERTED = re.compile(r"\$\{\s{0,8}([\w./-]{1,200})|\{\{-?\s{0,8}\.?([\w./-]{1,200})|%\(([\w.-]{1,200})\)s")
_BYTE_WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")
_PATH = re.compile(r"[\w-]+(?:[./][\w-]+)+")
_PECULIAR = re.compile(r"(?=.{5,})(?:.*[a-z][A-Z].*|.*[A-Za-z].*[-_:.0-9].*|.*[0-9].*[A-Za-z].*)")


@dataclass(frozen=True, slots=True)
class Gone:
    """Something that the head has not any more. `kinds` are words for what it is; a `setting` is a plain value under a key."""

    name: str
    path: str
    line: int | None
    kinds: frozenset[str]
    setting: bool = False

    @property
    def was(self) -> str:
        """Where it was, for people."""
        return self.path if self.line is None else f"{self.path} (line {self.line} of the base)"


def reference_risks(facts: Facts) -> Iterator[Risk]:
    """The places of the head that name what is gone."""
    gone: dict[str, Gone] = {}
    for each in (each for file in facts.files for each in _gone(file)):
        if each.name not in gone or gone[each.name].setting:
            gone[each.name] = each
    paths = {file.old_path or file.path: file for file in facts.files if file.gone or file.old_path is not None}
    paths_by_stem = {posixpath.splitext(path)[0]: path for path in reversed(paths)}
    head = _head(facts)
    things = frozenset(name for file in head.values() for name in defined_things(file.root))
    settings = frozenset(name for file in head.values() for name in defined_settings(file.root))
    still_gone = {name: each for name, each in gone.items() if name not in (settings if each.setting else things)}
    told: dict[str, int] = {}
    for path, file in head.items():
        for leaf in leaves(file.root):
            text = leaf.node.scalar
            if not isinstance(text, str) or len(text) > 2_000:
                continue
            line = file.lines(leaf.node.start, leaf.node.end)[0]
            for subject, risk in _of_leaf(path, line, leaf, text, still_gone, paths, paths_by_stem):
                told[subject] = told.get(subject, 0) + 1
                if told[subject] <= MOST_PLACES:
                    yield risk


def telling_words(facts: Facts) -> frozenset[bytes]:
    """Words of which one stands in each file that names what is gone; none where nothing is gone. See `may_name`."""
    named = [each.name for file in facts.files for each in _gone(file)]
    stems = [_stem(file.old_path or file.path) for file in facts.files if file.gone or file.old_path is not None]
    return frozenset(word for name in (*named, *stems) if (word := _telling(name)))


def may_name(data: bytes, telling: frozenset[bytes]) -> bool:
    """Whether a file has one of the words: all that are looked for in one pass over it, however many there are."""
    return not telling.isdisjoint(_BYTE_WORD.findall(data))


def _telling(name: str) -> bytes:
    """The longest word of a name, b"" of one without letters and digits: a file that has the name has that word by itself."""
    return max(_BYTE_WORD.findall(name.encode(errors="replace")), key=len, default=b"")


def _head(facts: Facts) -> Mapping[str, Parsed]:
    """The files of the head that may name what is gone, read."""
    telling = telling_words(facts)
    if not telling:
        return {}
    found: dict[str, Parsed] = {}
    changed = {file.path: file for file in facts.files if file.new is not None}
    for path in sorted((*changed, *facts.others)):
        file = changed.get(path)
        data = file.new if file is not None else facts.others[path]
        if data is None or not may_name(data, telling):
            continue
        tree = file.after if file is not None else read(path, data)
        if isinstance(tree, Parsed):
            found[path] = tree
    return found


def _gone(file: ChangedFile) -> Iterator[Gone]:
    """What one file has not any more."""
    folders = [singular(word) for word in file.path.split("/")[:-1]]
    stem = _stem(file.path)
    kinds = frozenset({*folders[-1:], *folders[:1], singular(stem)})
    if file.gone:
        yield Gone(stem, file.path, None, kinds)
        if isinstance(file.before, Parsed):
            for name in defined_things(file.before.root):
                yield Gone(name, file.path, None, kinds)
        return
    found = file.differences
    if found is None:
        return
    changes, old, _ = found
    for change in changes:
        yield from _gone_value(file, change, old, kinds)


def _gone_value(file: ChangedFile, change: Difference, old: Parsed, kinds: frozenset[str]) -> Iterator[Gone]:
    before = change.before
    if before is None:
        return
    line = old.lines(before.start, before.end)[0]
    above = [step.label for step in change.way[:-1] if not step.item]
    kinds = kinds | frozenset(singular(label) for label in above[-1:])
    if change.kind is Kind.REMOVED:
        if before.key and before.node.shape is not Shape.MAPPING:
            yield Gone(before.key, file.path, line, kinds, setting=True)
        elif before.key:
            yield Gone(before.key, file.path, line, kinds)
        elif isinstance(before.node.scalar, str):  # an item of a list of names
            yield Gone(before.node.scalar, file.path, line, kinds)
        inner = kinds | {singular(before.key)} if before.key else kinds
        for name in defined_things(before.node):
            yield Gone(name, file.path, line, inner)
    elif isinstance(before.node.scalar, str) and change.way and change.way[-1].label in NATURAL_KEYS:
        yield Gone(before.node.scalar, file.path, line, kinds)  # it has another name now


def _of_leaf(
    path: str,
    line: int,
    leaf: Leaf,
    text: str,
    gone: Mapping[str, Gone],
    paths: Mapping[str, ChangedFile],
    stems: Mapping[str, str],
) -> Iterator[tuple[str, Risk]]:
    """What one value refers to that is gone."""
    target = _path_of(text, path, paths, stems)
    if target is not None:
        file = paths[target]
        how = "was removed" if file.gone else f"is now {file.path}"
        message = f"`{leaf.key}` names {target}, which {how}."
        yield target, Risk(Rule.REFERENCE, Severity.HIGH, path, line, message)
        return
    for name, severity in _names_in(leaf, text, gone):
        found = gone[name]
        if found.path == path and found.setting:
            continue
        message = f"`{leaf.key}` still names `{name}`, which is gone from {found.was}."
        yield name, Risk(Rule.REFERENCE, severity, path, line, message)


def _names_in(leaf: Leaf, text: str, gone: Mapping[str, Gone]) -> Iterator[tuple[str, Severity]]:
    whole = gone.get(text)
    if whole is not None:
        if _speaks_of(leaf, whole):
            yield text, Severity.HIGH
        elif not whole.setting and leaf.key not in NATURAL_KEYS and _PECULIAR.fullmatch(text):
            yield text, Severity.MEDIUM
        return
    named: dict[str, None] = {}
    inserted = [next(filter(None, match.groups())) for match in _INSERTED.finditer(text)]
    if "#/" in text:
        inserted.append(text.partition("#/")[2])
    for each in inserted:
        named.update(dict.fromkeys(part for part in re.split(r"[./]", each) if part in gone))
    if _PATH.fullmatch(text):
        *above, last = re.split(r"[./]", text)
        found = gone.get(last)
        if found is not None and singular(above[-1]) in found.kinds:
            named[last] = None
    for name in named:
        yield name, Severity.HIGH


def _speaks_of(leaf: Leaf, gone: Gone) -> bool:
    """Whether the value's key says that it names such a thing."""
    parts = words_of(leaf.key)
    if parts and parts[-1] in _REFERRING:
        return True
    while len(parts) > 1 and parts[-1] in _ENDINGS:
        parts.pop()
    return bool(parts) and not gone.setting and singular(parts[-1]) in gone.kinds


def _path_of(text: str, within: str, paths: Mapping[str, ChangedFile], stems: Mapping[str, str]) -> str | None:
    """The path of a file that is gone which a value names, with or without its ending."""
    clean = text.partition("#")[0].strip()
    if not paths or not clean or "\n" in clean or "://" in clean:
        return None
    for candidate in (clean.lstrip("/"), posixpath.join(posixpath.dirname(within), clean)):
        normal = posixpath.normpath(candidate)
        if normal in paths:
            return normal
        if "/" in clean and normal in stems:
            return stems[normal]
    return None


def _stem(path: str) -> str:
    return posixpath.basename(path).partition(".")[0]
