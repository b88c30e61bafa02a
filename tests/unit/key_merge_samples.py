"""Random settings, random edits of them, files written in random styles, and the merge by key over plain values.

The writers share nothing with the code under test: what they write is read by the standard library's parsers or by
`ruamel.yaml` in `test_key_merge_properties.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from conman.domain.key_merge import ABSENT, Format

Tree = dict[str, Any]

KEYS = ["a", "b", "port", "a b", "x/y", "t~0", "ключ", "yes", "12", "q'\"", "with.dot", "#no", "back\\slash", ""]
WORDS = [
    "",
    "plain",
    "two words",
    "yes",
    "12",
    "1.0",
    "null",
    "# no comment",
    "a: b",
    "- c",
    "é ключ 😀",
    "tab\tand\\",
    "{x}",
    "l1\nl2\n",
    "'",
]
NAMES = ["web", "db", "a/b", "кэш", "x=y", "z z"]
NUMBERS = [0, 1, -7, 10**18, 0.5, 1.0, -2.5e-7, True, False]


def scalar(rng: Random, fmt: Format) -> Any:
    pool: list[Any] = [rng.choice(WORDS), rng.choice(NUMBERS)]
    return rng.choice([*pool, None] if fmt is not Format.TOML else pool)


def value(rng: Random, fmt: Format, depth: int) -> Any:
    kind = rng.random()
    if depth > 2 or kind < 0.5:
        return scalar(rng, fmt)
    if kind < 0.75:
        return mapping(rng, fmt, depth + 1)
    if kind < 0.88:
        names = rng.sample(NAMES, rng.randint(0, 3))
        return [{"name": name, **mapping(rng, fmt, depth + 1)} for name in names]
    return [value(rng, fmt, 3) for _ in range(rng.randint(0, 3))]


def mapping(rng: Random, fmt: Format, depth: int = 0) -> Tree:
    keys = rng.sample(KEYS, rng.randint(0 if depth else 2, 4))
    return {key: value(rng, fmt, depth) for key in keys}


def edited(rng: Random, fmt: Format, tree: Any, depth: int = 0) -> Any:
    """The tree with a few keys changed, added, removed and, in mappings, moved."""
    if isinstance(tree, dict):
        pairs = [(key, each if key == "name" else edited(rng, fmt, each, depth + 1)) for key, each in tree.items()]
        pairs = [pair for pair in pairs if pair[0] == "name" or rng.random() > 0.15]
        for key in rng.sample(KEYS, rng.choice([0, 0, 1])):
            if all(key != other for other, _ in pairs):
                pairs.insert(rng.randint(0, len(pairs)), (key, value(rng, fmt, depth)))
        if rng.random() < 0.1:
            rng.shuffle(pairs)
        return dict(pairs)
    if isinstance(tree, list) and tree and all(isinstance(each, dict) for each in tree):
        items = [edited(rng, fmt, each, depth + 1) for each in tree if rng.random() > 0.15]
        fresh = [name for name in NAMES if all(each.get("name") != name for each in tree)]
        if fresh and rng.random() < 0.3:
            items.insert(rng.randint(0, len(items)), {"name": rng.choice(fresh), **mapping(rng, fmt, depth + 1)})
        if rng.random() < 0.1:
            rng.shuffle(items)
        return items
    return value(rng, fmt, depth) if rng.random() < 0.25 else deepcopy(tree)


# The merge over plain values.


def equal(left: Any, right: Any) -> bool:
    """Equality that keeps `1`, `1.0` and `True` apart and does not look at the order of keys."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(each, right[key]) for key, each in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and left == right


@dataclass
class Merged:
    """`conflicts`: base, ours and theirs by pointer. `kept`: the paths at which ours stays as it is, by pointer."""

    pick: Callable[[str, Any, Any, Any], Any]
    conflicts: dict[str, tuple[Any, Any, Any]] = field(default_factory=dict)

    def merge(self, pointer: str, base: Any, ours: Any, theirs: Any) -> Any:
        if equal(ours, theirs) or equal(base, theirs):
            return ours
        rows = [self.named(base, ours, theirs, each) for each in (base, ours, theirs)]
        if all(row is not None for row in rows) and not (ours is ABSENT or theirs is ABSENT):
            merged = self.rows(pointer, *rows)
            return list(merged.values()) if isinstance(ours, list) else {key[0]: each for key, each in merged.items()}
        if equal(base, ours):
            return theirs
        self.conflicts[pointer] = (base, ours, theirs)
        return self.pick(pointer, base, ours, theirs)

    def rows(self, pointer: str, base: Tree, ours: Tree, theirs: Tree) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        for name in ours:
            merged[name] = self.merge(self.step(pointer, name), base.get(name, ABSENT), ours[name], theirs.get(name, ABSENT))
        before: list[Any] = []
        for name in theirs:
            if name not in ours:
                found = self.merge(self.step(pointer, name), base.get(name, ABSENT), ABSENT, theirs[name])
                order = list(merged)
                at = max((order.index(each) + 1 for each in before if each in order and merged[each] is not ABSENT), default=0)
                order.insert(at, name)
                merged = {each: found if each == name else merged[each] for each in order}
            before.append(name)
        return {name: each for name, each in merged.items() if each is not ABSENT}

    @staticmethod
    def step(pointer: str, name: tuple[str, ...]) -> str:
        text = name[0] if len(name) == 1 else f"name={name[1]}"
        return f"{pointer}/{text.replace('~', '~0').replace('/', '~1')}"

    @staticmethod
    def named(base: Any, ours: Any, theirs: Any, version: Any) -> Any:
        """The entries of a version under their names; None where the versions are each one value."""
        versions = [each for each in (base, ours, theirs) if each is not ABSENT]
        if all(isinstance(each, dict) for each in versions):
            return {} if version is ABSENT else {(key,): each for key, each in version.items()}
        if not all(isinstance(each, list) and all(isinstance(item, dict) for item in each) for each in versions):
            return None
        names = [[item.get("name", ABSENT) for item in each] for each in versions]
        if any(ABSENT in each or len(set(each)) < len(each) for each in names):
            return None
        for one in names:
            for other in names:
                if [name for name in one if name in other] != [name for name in other if name in one]:
                    return None
        return {} if version is ABSENT else {("name", item["name"]): item for item in version}


# Writers.


def written(rng: Random, fmt: Format, tree: Tree) -> bytes:
    """The file of a tree in a random style."""
    newline = rng.choice(["\n", "\n", "\r\n"])
    match fmt:
        case Format.JSON:
            text = _json(rng, tree, "", rng.choice(["", "  ", "    ", "\t"])) + rng.choice(["", "\n"])
        case Format.YAML:
            text = _yaml_file(rng, tree)
        case Format.TOML:
            text = _toml_table(rng, tree, ()) + rng.choice(["", "# end\n"])
    if rng.random() < 0.2 and "|\n" not in text:
        text = text.removesuffix("\n")
    return (rng.choice(["", "", "\ufeff"]) + text.replace("\n", newline)).encode()


def _json(rng: Random, tree: Any, indent: str, unit: str) -> str:
    if not isinstance(tree, dict | list) or not tree:
        return json.dumps(tree, ensure_ascii=rng.random() < 0.3)
    by_line = bool(unit) and rng.random() < 0.8
    inner = indent + unit
    lead, end = (f"\n{inner}", f"\n{indent}") if by_line else ("", "")
    comma = f",{lead or rng.choice(['', ' '])}"
    colon = rng.choice([": ", ":", " : "])
    items = [
        f"{json.dumps(each)}{colon}{_json(rng, tree[each], inner, unit)}"
        if isinstance(tree, dict)
        else _json(rng, each, inner, unit)
        for each in tree
    ]
    return ("{" if isinstance(tree, dict) else "[") + lead + comma.join(items) + end + ("}" if isinstance(tree, dict) else "]")


def _comment(rng: Random, what: str) -> str:
    return f"  # {what}" if rng.random() < 0.3 else ""


def _above(rng: Random, indent: str) -> str:
    return rng.choice(["", "", "", "\n", f"{indent}# note {rng.randint(0, 99)}\n"])


def _yaml_file(rng: Random, tree: Tree) -> str:
    if not tree or rng.random() < 0.1:
        return f"{_yaml_flow(rng, tree)}\n"
    start = rng.choice(["", "", "---\n", "# file\n\n"])
    return start + _yaml_block(rng, tree, "") + rng.choice(["", "", "...\n", "# end\n", "\n"])


def _yaml_word(rng: Random, text: str) -> str:
    safe = text.isascii() and text.replace(" ", "").isalpha() and text not in ("yes", "null")
    choices = [json.dumps(text, ensure_ascii=rng.random() < 0.5 and text.isascii())]
    if safe:
        choices.append(text)
    if "\n" not in text and "\t" not in text:
        choices.append("'" + text.replace("'", "''") + "'")
    return rng.choice(choices)


def _yaml_scalar(rng: Random, each: Any) -> str:
    if isinstance(each, str):
        return _yaml_word(rng, each)
    return rng.choice(["null", "~", "Null"]) if each is None else json.dumps(each)


def _yaml_flow(rng: Random, tree: Any) -> str:
    space, newline = rng.choice(["", " "]), rng.choice(["", "", "\n      "])
    comma = "," + (newline or " ")
    if isinstance(tree, dict):
        pairs = [f"{_yaml_word(rng, key)}: {_yaml_flow(rng, each)}" for key, each in tree.items()]
        return "{" + space + comma.join(pairs) + space + "}"
    if isinstance(tree, list):
        return (
            "["
            + space
            + comma.join(_yaml_flow(rng, each) for each in tree)
            + rng.choice(["", ","] if tree else [""])
            + space
            + "]"
        )
    return _yaml_scalar(rng, tree)


def _yaml_block(rng: Random, tree: Any, indent: str) -> str:
    lines: list[str] = []
    for index, each in enumerate(tree):
        above = _above(rng, indent) if index else ""
        if isinstance(tree, dict):
            lines.append(f"{above}{indent}{_yaml_word(rng, each)}:{_yaml_behind_key(rng, tree[each], indent)}")
        else:
            lines.append(f"{above}{indent}-{_yaml_behind_dash(rng, each, indent)}")
    return "".join(lines)


def _yaml_behind_key(rng: Random, each: Any, indent: str) -> str:
    inner = indent + rng.choice(["  ", "    "])
    if each is None and rng.random() < 0.5:
        return _comment(rng, "empty") + "\n"
    if isinstance(each, str) and each.endswith("\n") and rng.random() < 0.7:
        return " |\n" + "".join(f"{inner}{line}\n" for line in each.splitlines())
    if not isinstance(each, dict | list) or not each or rng.random() < 0.2:
        return f" {_yaml_flow(rng, each)}{_comment(rng, 'one')}\n"
    if isinstance(each, list) and rng.random() < 0.5:
        inner = indent
    return f"{_comment(rng, 'many')}\n{_yaml_block(rng, each, inner)}"


def _yaml_behind_dash(rng: Random, each: Any, indent: str) -> str:
    if not isinstance(each, dict | list) or not each or rng.random() < 0.2:
        return f" {_yaml_flow(rng, each)}{_comment(rng, 'item')}\n"
    inner = f"{indent}  "
    block = _yaml_block(rng, each, inner)
    return f" {block.removeprefix(inner)}" if rng.random() < 0.8 else f"\n{block}"


def _toml_key(key: str) -> str:
    return key if key.isascii() and key.isalnum() else json.dumps(key, ensure_ascii=False)


def _toml_inline(rng: Random, each: Any) -> str:
    if isinstance(each, dict):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml_inline(rng, one)}" for key, one in each.items()) + " }"
    if isinstance(each, list):
        lead = rng.choice(["", "", "\n  ", "\n  # in\n  "]) if each else ""
        items = f",{lead or ' '}".join(_toml_inline(rng, one) for one in each)
        return f"[{lead}{items}{rng.choice(['', ',']) if each else ''}{rng.choice(['', chr(10)]) if lead else ''}]"
    if isinstance(each, str):
        literal = f"'{each}'" if "'" not in each and "\n" not in each else ""
        return rng.choice([json.dumps(each, ensure_ascii=False), literal or json.dumps(each)])
    return json.dumps(each)


def _toml_table(rng: Random, tree: Tree, path: tuple[str, ...], dotted: str = "") -> str:
    pairs: list[str] = []
    sections: list[str] = []
    for key, each in tree.items():
        name = ".".join(map(_toml_key, (*path, key)))
        style = rng.random()
        if isinstance(each, dict) and style < 0.25 and each and not any(isinstance(one, dict | list) for one in each.values()):
            pairs += [
                f"{_toml_key(key)}.{_toml_key(one)} = {_toml_inline(rng, each[one])}{_comment(rng, 'dotted')}\n" for one in each
            ]
        elif isinstance(each, dict) and style < 0.8:
            implied = each and style < 0.4 and all(isinstance(one, dict) for one in each.values())
            head = "" if implied else f"[{name}]{_comment(rng, 'table')}\n"
            below = _toml_table(rng, each, (*path, key)) if not implied else _toml_sections(rng, each, (*path, key))
            sections.append(f"{_above(rng, '') or chr(10)}{head}{below}")
        elif isinstance(each, list) and each and all(isinstance(one, dict) for one in each) and style < 0.8:
            sections += [f"{_above(rng, '') or chr(10)}[[{name}]]\n{_toml_table(rng, one, (*path, key))}" for one in each]
        else:
            pairs.append(f"{_above(rng, '')}{_toml_key(key)} = {_toml_inline(rng, each)}{_comment(rng, 'pair')}\n")
    return "".join(pairs) + "".join(sections)


def _toml_sections(rng: Random, tree: Tree, path: tuple[str, ...]) -> str:
    """Tables below one that has no header of its own."""
    parts = (f"[{'.'.join(map(_toml_key, (*path, key)))}]\n{_toml_table(rng, each, (*path, key))}" for key, each in tree.items())
    return "\n".join(parts)
