"""A model of what releases do to settings, that knows nothing of lines or trees: files have identities, and values have keys.

A key's name is used once in a whole history, so that where its value stands can be asked of any tree. What two sides changed is
merged key by key, and a file's path like a value; what both changed differently has no merge.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from conman.git.adapter import DeleteFile, FileChange, MoveFile, WriteFile

Value = str | int | bool
_FOLDERS = ("entities", "pages/home", "menus", "providers")
_KEYS = 24
_PER_SECTION = 8
_YAML_SECTION = re.compile(r"(\w+):")
_YAML_VALUE = re.compile(r"  (\w+): (.+)")


@dataclass(frozen=True)
class File:
    path: str
    values: Mapping[str, Value]


State = Mapping[int, File]
"""The files by their identities, which they keep when they move."""


class NoMerge(Exception):
    """Both sides changed the same thing, each otherwise."""


def text_of(file: File) -> bytes:
    """The file's text: one line a key, keys in order, in sections."""
    sections = {name: list(keys) for name, keys in groupby(sorted(file.values), key=lambda key: key[:-2])}
    if file.path.endswith(".json"):
        nested = {name: {key: file.values[key] for key in keys} for name, keys in sections.items()}
        return (json.dumps(nested, indent=2) + "\n").encode()
    lines = [
        f"{name}:\n" + "".join(f"  {key}: {json.dumps(file.values[key])}\n" for key in keys) for name, keys in sections.items()
    ]
    return "".join(lines).encode()


def values_in(path: str, text: str) -> dict[str, Value]:
    """The values of a file by key. Fails for what is no sound file, or has a key twice."""
    found: list[tuple[str, Value]] = []
    if path.endswith(".json"):
        sections = json.loads(text, object_pairs_hook=list)
        found = [pair for _, pairs in sections for pair in pairs]
        names = [name for name, _ in sections]
    else:
        names = []
        for line in text.splitlines():
            if section := _YAML_SECTION.fullmatch(line):
                names.append(section[1])
            elif value := _YAML_VALUE.fullmatch(line):
                found.append((value[1], json.loads(value[2])))
            else:
                raise AssertionError(f"{path} has the line {line!r}")
    values = dict(found)
    assert len(values) == len(found), f"{path} has a key twice"
    assert len(set(names)) == len(names), f"{path} has a section twice"
    return values


def merged(base: State, ours: State, theirs: State) -> State:
    """Our state with what they changed since the base. Raises `NoMerge`."""
    found: dict[int, File] = {}
    for identity in base.keys() | ours.keys() | theirs.keys():
        file = _merged_file(base.get(identity), ours.get(identity), theirs.get(identity))
        if file is not None:
            found[identity] = file
    if len({file.path for file in found.values()}) < len(found):
        raise NoMerge
    return found


def _merged_file(base: File | None, ours: File | None, theirs: File | None) -> File | None:
    if theirs == base:
        return ours
    if ours in (base, theirs):
        return theirs
    if base is None or ours is None or theirs is None:
        raise NoMerge
    keys = base.values.keys() | ours.values.keys() | theirs.values.keys()
    values = {key: _merged_value(base.values.get(key), ours.values.get(key), theirs.values.get(key)) for key in keys}
    path = _merged_value(base.path, ours.path, theirs.path)
    return File(str(path), {key: value for key, value in values.items() if value is not None})


def _merged_value(base: Value | None, ours: Value | None, theirs: Value | None) -> Value | None:
    if theirs == base:
        return ours
    if ours in (base, theirs):
        return theirs
    raise NoMerge


def all_values(state: State) -> dict[str, Value]:
    """Every key of a state with its value, in whichever file."""
    return {key: value for file in state.values() for key, value in file.values.items()}


def changes_between(before: State, after: State) -> list[FileChange]:
    """What makes the one state of the other: first what goes, so that its path is free."""
    gone: list[FileChange] = [DeleteFile(file.path) for identity, file in before.items() if identity not in after]
    kept: list[FileChange] = []
    for identity, file in after.items():
        was = before.get(identity)
        if was is None or (was.path == file.path and was != file):
            kept.append(WriteFile(file.path, text_of(file)))
        elif was.path != file.path:
            kept.append(MoveFile(was.path, file.path, text_of(file) if was.values != file.values else None))
    return gone + kept


@dataclass
class Editor:
    """Somebody who changes settings at random."""

    rng: random.Random
    files: int = 0
    """How many identities were given."""

    def first_state(self) -> State:
        return dict(self._new_file() for _ in range(6))

    def _new_file(self) -> tuple[int, File]:
        identity = self.files = self.files + 1
        keys = [self._key(identity, number) for number in self.rng.sample(range(100), _KEYS)]
        return identity, File(self._path(identity), {key: self._value() for key in keys})

    def _path(self, identity: int) -> str:
        """Never two files' at once, maybe one that the file had before. A file keeps its format."""
        ending = "json" if identity % 2 else "yaml"
        return f"{self.rng.choice(_FOLDERS)}/file{identity}-{self.rng.randrange(3)}.{ending}"

    @staticmethod
    def _key(identity: int, number: int) -> str:
        return f"f{identity}s{number * _PER_SECTION // 100}k{number:02}"

    def _value(self) -> Value:
        return self.rng.choice((self.rng.randrange(1000), self.rng.random() < 0.5, f"text {self.rng.randrange(1000)}"))

    def edited(self, before: State) -> State:
        """The state after one to four edits, which do change something."""
        after = dict(before)
        while after == before:
            for _ in range(self.rng.randint(1, 4)):
                self._edit(after)
        return after

    def _edit(self, state: dict[int, File]) -> None:
        identity = self.rng.choice(sorted(state))
        file = state[identity]
        values = dict(file.values)
        match self.rng.choices(("set", "add", "remove", "move", "new", "delete"), (60, 15, 12, 8, 3, 2))[0]:
            case "set" if values:
                values[self.rng.choice(sorted(values))] = self._value()
            case "add":
                values[self._key(identity, self.rng.randrange(100))] = self._value()
            case "remove" if len(values) > _KEYS // 2:
                del values[self.rng.choice(sorted(values))]
            case "move":
                state[identity] = replace(file, path=self._path(identity))
                return
            case "new":
                made, new = self._new_file()
                state[made] = new
                return
            case "delete" if len(state) > 4:
                del state[identity]
                return
            case _:
                return
        state[identity] = replace(file, values=values)
