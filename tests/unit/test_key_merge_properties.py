"""The merge by key over random settings, styles and edits (`spec.md` 7): against plain values, and against hostile files.

What comes out is read by parsers that are not the code under test.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from key_merge_samples import Merged, Tree, edited, equal, mapping, value, written
from ruamel.yaml import YAML

from conman.domain.errors import DomainError
from conman.domain.key_merge import ABSENT, Format, KeyChoice, Take, key_conflicts, resolve_keys

FORMATS = pytest.mark.parametrize("fmt", list(Format), ids=str)
SEEDS = st.integers(0, 2**32 - 1)
QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=40)

READERS: dict[Format, Callable[[str], Any]] = {
    Format.JSON: json.loads,
    Format.YAML: lambda text: YAML(typ="safe", pure=True).load(text),
    Format.TOML: tomllib.loads,
}


def read(fmt: Format, content: bytes) -> Any:
    return READERS[fmt](content.decode("utf-8-sig"))


class Case:
    """Three versions of random settings, and their files."""

    def __init__(self, seed: int, fmt: Format) -> None:
        self.rng = Random(seed)
        self.fmt = fmt
        self.base = mapping(self.rng, fmt)
        self.ours, self.theirs = edited(self.rng, fmt, self.base), edited(self.rng, fmt, self.base)
        self.files = [written(self.rng, fmt, each) for each in (self.base, self.ours, self.theirs)]

    def expected(self, take: Take | None = None) -> tuple[Tree, Merged, list[KeyChoice]]:
        """What the merge must give for one choice everywhere, or for random ones."""
        choices: list[KeyChoice] = []

        def pick(pointer: str, base: Any, ours: Any, theirs: Any) -> Any:
            taken = take or self.rng.choice(list(Take))
            item_of_tables = self.fmt is Format.TOML and "name=" in pointer.rpartition("/")[2]
            if taken is Take.VALUE:
                given = mapping(self.rng, self.fmt, 1) if item_of_tables else value(self.rng, self.fmt, 1)
                choices.append(KeyChoice(pointer, taken, given))
                return given
            choices.append(KeyChoice(pointer, taken))
            return {Take.BASE: base, Take.OURS: ours, Take.THEIRS: theirs}[taken]

        merged = Merged(pick)
        return merged.merge("", self.base, self.ours, self.theirs), merged, choices


@FORMATS
@given(SEEDS)
@QUICK
def test_conflicts_are_the_keys_that_both_sides_changed_differently(fmt: Format, seed: int) -> None:
    case = Case(seed, fmt)
    _, merged, _ = case.expected(Take.OURS)
    found = key_conflicts(fmt, *case.files)
    assert found is not None
    assert [each.pointer for each in found] == sorted(merged.conflicts)
    for each in found:
        for have, want in zip((each.base, each.ours, each.theirs), merged.conflicts[each.pointer], strict=True):
            assert have is want if want is ABSENT else equal(have, want)


@FORMATS
@given(SEEDS)
@QUICK
def test_any_complete_choice_gives_exactly_the_values_that_were_chosen(fmt: Format, seed: int) -> None:
    case = Case(seed, fmt)
    wanted, _, choices = case.expected()
    assert equal(read(fmt, resolve_keys(fmt, *case.files, choices)), wanted)


@FORMATS
@given(SEEDS)
@QUICK
def test_files_without_conflicts_merge_without_choices(fmt: Format, seed: int) -> None:
    case = Case(seed, fmt)
    settled, _, _ = case.expected(Take.OURS)
    theirs = written(case.rng, fmt, settled)
    merged = Merged(lambda pointer, base, ours, theirs: ours)
    wanted = merged.merge("", case.base, case.ours, settled)
    assume(not merged.conflicts)
    assert key_conflicts(fmt, case.files[0], case.files[1], theirs) == ()
    assert equal(read(fmt, resolve_keys(fmt, case.files[0], case.files[1], theirs, [])), wanted)


@FORMATS
@given(SEEDS)
@QUICK
def test_with_only_ours_changed_the_bytes_are_ours(fmt: Format, seed: int) -> None:
    case = Case(seed, fmt)
    base, ours, _ = case.files
    again = written(case.rng, fmt, case.base)  # Theirs changed the style alone.
    assert resolve_keys(fmt, base, ours, again, []) == ours
    assert resolve_keys(fmt, base, ours, ours, []) == ours


@FORMATS
@given(SEEDS)
@QUICK
def test_with_only_theirs_changed_the_values_are_theirs(fmt: Format, seed: int) -> None:
    case = Case(seed, fmt)
    base, _, theirs = case.files
    assert equal(read(fmt, resolve_keys(fmt, base, base, theirs, [])), case.theirs)


@FORMATS
@given(SEEDS)
@QUICK
def test_swapping_the_sides_swaps_the_conflicts(fmt: Format, seed: int) -> None:
    base, ours, theirs = Case(seed, fmt).files
    one, other = key_conflicts(fmt, base, ours, theirs), key_conflicts(fmt, base, theirs, ours)
    assert one is not None
    assert other is not None
    assert [(each.pointer, each.ours, each.theirs) for each in one] == [(each.pointer, each.theirs, each.ours) for each in other]


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """The values that are no mappings, by their paths."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {key: each for name in tree for key, each in leaves(tree[name], (*path, name)).items()}


def line_by_line(fmt: Format, tree: Tree, side: str) -> str:
    """A file with one line for each value, each with something that no other line has: its path or a comment."""

    def json_lines(each: Any, path: str, indent: str) -> str:
        if not isinstance(each, dict):
            return json.dumps(each)
        inner = f",\n{indent}  ".join(f"{json.dumps(key)}: {json_lines(each[key], path, indent + '  ')}" for key in each)
        return f"{{\n{indent}  {inner}\n{indent}}}" if each else "{}"

    def yaml_lines(each: Tree, path: str, indent: str) -> str:
        return "".join(
            f"{indent}# about {side}{path}/{key}\n{indent}{json.dumps(key)}:"
            + (
                f"\n{yaml_lines(one, f'{path}/{key}', indent + '  ')}"
                if isinstance(one, dict) and one
                else f" {json.dumps(one)}  # {side}{path}/{key}\n"
            )
            for key, one in each.items()
        )

    def toml_lines(each: Tree, path: str, names: tuple[str, ...]) -> str:
        pairs = {key: one for key, one in each.items() if not isinstance(one, dict)}
        tables = {key: one for key, one in each.items() if isinstance(one, dict)}
        return "".join(f"{json.dumps(key)} = {json.dumps(one)}  # {side}{path}/{key}\n" for key, one in pairs.items()) + "".join(
            f"\n# about {side}{path}/{key}\n[{'.'.join(map(json.dumps, (*names, key)))}]  # {side}{path}/{key}\n"
            + toml_lines(one, f"{path}/{key}", (*names, key))
            for key, one in tables.items()
        )

    match fmt:
        case Format.JSON:
            return json_lines(tree, "", "") + "\n"
        case Format.YAML:
            return yaml_lines(tree, "", "") or "{}\n"
        case Format.TOML:
            return toml_lines(tree, "", ())


def settings_tree(rng: Random, depth: int = 0) -> Tree:
    names = [f"k{index}" for index in range(6)]
    chosen = rng.sample(names, rng.randint(1, 4))
    return {key: settings_tree(rng, depth + 1) if depth < 2 and rng.random() < 0.4 else rng.randint(0, 99) for key in chosen}


def changed(rng: Random, tree: Tree, depth: int = 0) -> Tree:
    result: Tree = {}
    for key, each in tree.items():
        if rng.random() < 0.15:
            continue
        result[key] = changed(rng, each, depth + 1) if isinstance(each, dict) else rng.choice([each, each, rng.randint(0, 99)])
    if rng.random() < 0.4:
        result[f"new{rng.randint(0, 9)}"] = rng.choice([7, {"x": 1, "y": 2}])
    return result


@FORMATS
@given(SEEDS, st.sampled_from(["\n", "\r\n"]))
@QUICK
def test_lines_of_keys_that_are_not_touched_stay_byte_for_byte_and_in_order(fmt: Format, seed: int, newline: str) -> None:
    rng = Random(seed)
    base = settings_tree(rng)
    ours, theirs = changed(rng, base), changed(rng, base)
    files = [
        line_by_line(fmt, tree, side).replace("\n", newline).encode() for tree, side in ((base, "b"), (ours, "o"), (theirs, "t"))
    ]
    conflicts = key_conflicts(fmt, *files)
    assert conflicts is not None
    result = resolve_keys(fmt, *files, [KeyChoice(each.pointer, Take.THEIRS) for each in conflicts])
    after = leaves(read(fmt, result))
    kept = {path for path, each in leaves(ours).items() if path in after and equal(after[path], each)}
    lines = result.decode().split(newline)
    if fmt is Format.JSON:
        rest = iter([line.rstrip(",") for line in lines])
        wanted = [f'{"  " * len(path)}"{path[-1]}": {json.dumps(each)}' for path, each in leaves(ours).items() if path in kept]
    else:
        rest = iter(lines)
        marks = {"o/" + "/".join(path) for path in kept}
        wanted = [line for line in files[1].decode().split(newline) if line.rpartition("# ")[2].removeprefix("about ") in marks]
    assert all(line in rest for line in wanted), (wanted, lines)
    assert "\n" not in result.decode().replace("\r\n", "") or newline == "\n"


@FORMATS
@given(SEEDS)
@QUICK
def test_hostile_files_are_answered_with_none_or_a_refusal_and_never_with_another_error(fmt: Format, seed: int) -> None:
    rng = Random(seed)
    files = [bytearray(each) for each in Case(seed, fmt).files]
    shards = [
        b"{",
        b"[",
        b"]",
        b"}",
        b"\n",
        b"\r",
        b"\t",
        b"&a ",
        b"*a",
        b"!t ",
        b"? ",
        b": ",
        b"- ",
        b"|+\n",
        b"'",
        b'"',
        b"\\",
        b"#",
    ]
    shards += [
        b"\xff",
        b"\x00",
        b"\xe2\x80\xa8",
        b"[[a]]\n",
        b"[a.b]\n",
        b"=",
        b"<<: ",
        b"---\n",
        b"%YAML 1.1\n",
        b"0" * 5000,
        b"1e999",
    ]
    for content in files:
        for _ in range(rng.randint(0, 3)):
            at = rng.randint(0, len(content))
            content[at : at + rng.choice([0, 0, 1, 4])] = rng.choice(shards)
    base, ours, theirs = map(bytes, files)
    conflicts = key_conflicts(fmt, base, ours, theirs)
    choices = [KeyChoice(each.pointer, rng.choice([Take.BASE, Take.OURS, Take.THEIRS])) for each in conflicts or ()]
    try:
        result = resolve_keys(fmt, base, ours, theirs, choices)
    except DomainError as refused:
        assert refused.details[0]["field"] == "resolutions"
    else:
        assert conflicts is not None
        assert key_conflicts(fmt, result, result, result) == ()


@FORMATS
@given(st.binary(max_size=40) | st.text(alphabet="ab1:-[]{}\"'#=.,!&*|>?%~ \n\r\t\\", max_size=40).map(str.encode))
@settings(derandomize=True, database=None, deadline=None, max_examples=150)
def test_any_bytes_are_answered(fmt: Format, content: bytes) -> None:
    found = key_conflicts(fmt, content, content, content)
    assert found in (None, ())
    if found is not None:
        assert resolve_keys(fmt, content, content, content, []) == content
