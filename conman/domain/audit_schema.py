"""The small language in which the audit table states what `before` and `after` hold (`api.md` 5).

A kind says which JSON values it takes and describes each that it does not. A `Record` refuses fields that it
does not name. There is no kind for a secret's value: secrets appear as `MASK` (`spec.md` 6) or by their key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from conman.domain.ids import is_uuid


class Kind(Protocol):
    """What a value must be."""

    def problems(self, value: object, where: str) -> Iterator[str]:
        """One sentence for each way in which `value`, found at `where`, is not of this kind."""
        ...


@dataclass(frozen=True)
class Scalar:
    """A single value that passes `accepts`; `name` says in words what is wanted."""

    name: str
    accepts: Callable[[object], bool]

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if not self.accepts(value):
            yield f"{where}: needs {self.name}, not {type(value).__name__}"


@dataclass(frozen=True)
class OneOf:
    """One of a closed list of words."""

    words: tuple[str, ...]

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if value not in self.words:
            yield f"{where}: needs one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Nullable:
    """A value of the kind, or null."""

    kind: Kind

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if value is not None:
            yield from self.kind.problems(value, where)


@dataclass(frozen=True)
class ListOf:
    """A list, each item of the kind."""

    item: Kind

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if not isinstance(value, list):
            yield f"{where}: needs a list, not {type(value).__name__}"
            return
        for index, item in enumerate(cast("list[object]", value)):
            yield from self.item.problems(item, f"{where}[{index}]")


@dataclass(frozen=True)
class MapOf:
    """An object with any keys, each value of the kind."""

    item: Kind

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if not isinstance(value, dict):
            yield f"{where}: needs an object, not {type(value).__name__}"
            return
        for key, item in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                yield f"{where}: has a key that is not text"
            yield from self.item.problems(item, f"{where}.{key}")


@dataclass(frozen=True)
class Record:
    """An object with the `required` fields, any of the `optional` ones, and no other."""

    required: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    optional: Mapping[str, Kind] = field(default_factory=dict[str, Kind])

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if not isinstance(value, dict):
            yield f"{where}: needs an object, not {type(value).__name__}"
            return
        fields = cast("dict[object, object]", value)
        for name in self.required:
            if name not in fields:
                yield f"{where}.{name}: is missing"
        for name, item in fields.items():
            kind = self._kind_of(name)
            if kind is None:
                yield f"{where}.{name}: is not a field here; known are {', '.join(self.names())}"
            else:
                yield from kind.problems(item, f"{where}.{name}")

    def names(self) -> tuple[str, ...]:
        """The fields that may stand here, the required ones first."""
        return (*self.required, *self.optional)

    def _kind_of(self, name: object) -> Kind | None:
        if not isinstance(name, str):
            return None
        return self.required.get(name) or self.optional.get(name)


@dataclass(frozen=True)
class Either:
    """A record of one of two forms; what matches neither is described by the second's problems."""

    first: Record
    second: Record

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if next(self.first.problems(value, where), None) is not None:
            yield from self.second.problems(value, where)


@dataclass(frozen=True)
class Absent:
    """No value: `before` of what did not exist, `after` of what is gone."""

    def problems(self, value: object, where: str) -> Iterator[str]:
        """See `Kind`."""
        if value is not None:
            yield f"{where}: must be null"


@dataclass(frozen=True)
class Entry:
    """What one action's `before` and `after` hold.

    With `mirrored`, both name the same optional fields, those that changed: at least one, unless there are required
    fields that say what changed.
    """

    before: Kind
    after: Kind
    mirrored: bool = False

    def problems(self, before: object, after: object) -> Iterator[str]:
        """One sentence for each way in which the two values are wrong."""
        yield from self.before.problems(before, "before")
        yield from self.after.problems(after, "after")
        if self.mirrored and isinstance(before, dict) and isinstance(after, dict):
            changed = self._changed(self.before, cast("dict[str, object]", before))
            if changed != self._changed(self.after, cast("dict[str, object]", after)):
                yield "before and after: must name the same changed fields"
            elif not changed and not self._required(self.before):
                yield "before and after: name no changed field"

    @staticmethod
    def _required(kind: Kind) -> Mapping[str, Kind]:
        return kind.required if isinstance(kind, Record) else {}

    @staticmethod
    def _changed(kind: Kind, value: dict[str, object]) -> list[str]:
        optional: Mapping[str, Kind] = kind.optional if isinstance(kind, Record) else {}
        return sorted(name for name in value if name in optional)


def changes(
    fields: Mapping[str, Kind],
    *,
    both: Mapping[str, Kind] | None = None,
    after: Mapping[str, Kind] | None = None,
) -> Entry:
    """An entry that shows changed `fields`, each before and after.

    The `both` fields are required in either half, the `after` ones in the second only.
    """
    shared = dict(both or {})
    return Entry(Record(shared, fields), Record({**shared, **(after or {})}, fields), mirrored=True)


def _text_like(pattern: str) -> Callable[[object], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_json(value: object) -> bool:
    """Whether `value` is JSON: objects with text keys, lists, text, finite numbers, booleans and null."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return all(isinstance(key, str) and is_json(item) for key, item in items)
    if isinstance(value, list):
        return all(is_json(item) for item in cast("list[object]", value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


TEXT = Scalar("text", lambda value: isinstance(value, str))
FLAG = Scalar("true or false", lambda value: isinstance(value, bool))
COUNT = Scalar("a whole number from 0", _is_count)
CODE = Scalar("a word in lower_snake_case", _text_like(r"[a-z][a-z0-9_]*"))
SHA = Scalar("a full Git object id", _text_like(r"[0-9a-f]{40}(?:[0-9a-f]{24})?"))
DIGEST = Scalar("a hex digest", _text_like(r"(?:[a-z0-9-]+:)?[0-9a-f]{12,128}"))
ID = Scalar("a UUID", lambda value: isinstance(value, str) and is_uuid(value))
TIME = Scalar("an RFC 3339 time in UTC with Z", _text_like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z"))
MASK = Scalar("a secret's mask (spec.md 6)", _text_like(r".{0,4}\*{4,}.{0,4}"))
JSON = Scalar("a JSON value", is_json)
ABSENT = Absent()
