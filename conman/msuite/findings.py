"""What the built-in suite finds, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

LONGEST_MESSAGE = 300
"""A longer message loses its middle, characters."""


class Rule(StrEnum):
    """The rules; the package's docstring says what each means."""

    UNREADABLE = "unreadable"
    ENCODING = "encoding"
    TOO_LARGE = "too-large"
    MERGE_MARKER = "merge-marker"
    SYNTAX = "syntax"
    DUPLICATE_KEY = "duplicate-key"
    YAML_ALIAS = "yaml-alias"
    SCHEMA = "schema"
    SCHEMA_INVALID = "schema-invalid"
    SCHEMA_REFERENCE = "schema-reference"
    DANGLING_REFERENCE = "dangling-reference"


class Place(NamedTuple):
    """A place in a text: line and column, both from 1; a column counts characters."""

    line: int
    column: int


class Problem(NamedTuple):
    """A finding before it is known in which file."""

    place: Place
    rule: Rule
    message: str


Path = tuple[str | int, ...]
"""Where a value is in a document: keys and indices from the root."""

Locate = Callable[[Path], Place]
"""Finds where a value stands; of a value that stands nowhere by itself, where the value around it does."""

T = TypeVar("T")


def walked(start: Iterable[str], name: str) -> list[str] | None:
    """Where a relative path leads from a folder, both within the repository; None when it leaves that."""
    parts = list(start)
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


TOO_DEEP = Problem(Place(1, 1), Rule.TOO_LARGE, "it is nested too deeply to be checked")
"""What a parser's recursion limit becomes."""


class OpaqueText(str):
    """A scalar with a custom tag: its value is known only to the program that reads the file."""


class OpaqueMap(dict[str, Any]):
    """A mapping with a custom tag."""


class OpaqueList(list[Any]):
    """A sequence with a custom tag."""


OPAQUE = (OpaqueText, OpaqueMap, OpaqueList)
"""The types of values with a custom tag."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `path` is relative to the checked folder; `pointer` is a JSON pointer (RFC 6901)."""

    path: str
    line: int
    column: int
    rule: Rule
    message: str
    pointer: str | None = None

    def text(self) -> str:
        """The finding as one line of output."""
        where = f"{_printable(self.path)}:{self.line}:{self.column}"
        return f"{where}: error: {self.rule.value}: {_printable(self.message)}"

    def record(self) -> dict[str, Any]:
        """The finding as an object of the report."""
        record = {**asdict(self), "severity": "error", "rule": self.rule.value}
        record |= {"path": _printable(self.path), "message": _printable(self.message)}
        if self.pointer is None:
            del record["pointer"]
        return record


def finding(path: str, problem: Problem, pointer: str | None = None) -> Finding:
    """The problem as a finding of a file, its message cut to a readable length."""
    message = problem.message
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:140]} … {message[-150:]}"
    return Finding(path, *problem.place, problem.rule, message, pointer)


def place(text: str, offset: int) -> Place:
    """The place of a character offset."""
    start = text.rfind("\n", 0, offset) + 1
    return Place(text.count("\n", 0, offset) + 1, offset - start + 1)


def pointer(path: Path) -> str:
    """The path as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def nearest(path: Path, known: Mapping[Path, T]) -> T | None:
    """What is known of the path, or else of the nearest value that it lies in."""
    for length in range(len(path), -1, -1):
        if path[:length] in known:
            return known[path[:length]]
    return None


def locator(text: str, offsets: Mapping[Path, int]) -> Locate:
    """Finds the place of a value by the offsets of the values."""
    return lambda path: place(text, nearest(path, offsets) or 0)


def _printable(text: str) -> str:
    """The text on one line and encodable: control characters and stray bytes of file names as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()
