"""What the rules look at, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from conman.domain.key_merge import format_of
from conman.domain.semantic_diff_read import Parsed, Unparsed, alike, parse
from conman.domain.semantic_diff_tree import Difference, differences


class Severity(StrEnum):
    """How much a risk matters: `high` breaks or leaks something, `medium` may, `low` is worth a look."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Rule(StrEnum):
    """What a risk is about."""

    SECRET = "secret"
    MERGE_MARKER = "merge_marker"
    UNREADABLE = "unreadable"
    REFERENCE = "reference"
    JUMP = "jump"
    TYPE = "type"
    CANONICAL = "canonical"


@dataclass(frozen=True, slots=True)
class Risk:
    """A risk. `line` is one of the head's file, from 1; None where it has none."""

    rule: Rule
    severity: Severity
    file_path: str
    line: int | None
    message: str


@dataclass(frozen=True)
class ChangedFile:
    """A file of the changeset. A side is None where the file is not there, or is no text to be read (binary, a link, too large).

    `gone`: the head has no file at this path. `added` are the numbers of the head's lines that are new.
    """

    path: str
    old: bytes | None
    new: bytes | None
    old_path: str | None = None
    gone: bool = False
    added: frozenset[int] = frozenset()

    @cached_property
    def before(self) -> Parsed | Unparsed | None:
        """The base's file, read; None where there is none, or no format that is."""
        return read(self.old_path or self.path, self.old)

    @cached_property
    def after(self) -> Parsed | Unparsed | None:
        """The head's file, read."""
        return read(self.path, self.new)

    @cached_property
    def differences(self) -> tuple[tuple[Difference, ...], Parsed, Parsed] | None:
        """The values that differ, with the two trees that they are of; None where not both sides can be read."""
        if not isinstance(self.before, Parsed) or not isinstance(self.after, Parsed):
            return None
        old, new = alike(self.before, self.after)
        return tuple(differences(old.root, new.root)), old, new


@dataclass(frozen=True, slots=True)
class OverrideFact:
    """A change that the changeset makes to a runtime profile: the names of what it sets, never a value."""

    target: str
    is_canonical: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CanonicalEnvironment:
    """The environment that end users see, and the folders or files whose migrations run there."""

    name: str
    migration_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """A changeset for the rules. `others` are the head's JSON, YAML and TOML files that it leaves alone."""

    files: tuple[ChangedFile, ...]
    others: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    overrides: tuple[OverrideFact, ...] = ()
    canonical: CanonicalEnvironment | None = None


def read(path: str, data: bytes | None) -> Parsed | Unparsed | None:
    """A file's tree; None where it has no format with one."""
    fmt = format_of(path)
    return None if data is None or fmt is None else parse(fmt, data)
