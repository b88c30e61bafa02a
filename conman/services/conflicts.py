"""Whether two heads conflict, where, and in which keys: one answer for sync, queue, assembly and revalidation (`spec.md` 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conman.domain.key_merge import ABSENT, Format, KeyConflict, format_of, key_conflicts
from conman.git.adapter import Conflict, ConflictKind, GitAdapter, Signature

KEYED_KINDS = frozenset({ConflictKind.CONTENT, ConflictKind.ADD_ADD})
"""Conflicts of two versions of one file; in the others there is nothing to choose key by key."""


@dataclass(frozen=True, slots=True)
class PathConflict:
    """A path that does not merge; `keys` where its format is known and keys say it all, else None."""

    conflict: Conflict
    keys: tuple[KeyConflict, ...] | None = None


@dataclass(frozen=True, slots=True)
class Versions:
    """The three versions of a conflicting file, None where a side has none."""

    base: bytes | None
    ours: bytes | None
    theirs: bytes | None


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge commit, or the conflicts for which there is none."""

    sha: str | None
    conflicts: tuple[Conflict, ...] = ()


async def conflicts_between(git: GitAdapter, repo: str, ours: str, theirs: str) -> tuple[Conflict, ...]:
    """Where two commits do not merge, sorted by path; () when they do. Nothing is written that a ref reaches."""
    return (await git.trial_merge(repo, ours, theirs)).conflicts


async def merge_under(
    git: GitAdapter, repo: str, *, ref: str, expected_old: str | None, ours: str, theirs: str, author: Signature, message: str
) -> Merged:
    """Merge `theirs` into `ours` under a ref of Conman's own; conflicts are those of `conflicts_between`.

    The same inputs make the same commit. Raises `StaleRef`.
    """
    made = await git.merge(repo, ref=ref, expected_old=expected_old, ours=ours, theirs=theirs, author=author, message=message)
    return Merged(made.sha, made.conflicts)


async def with_keys(git: GitAdapter, repo: str, conflicts: Sequence[Conflict]) -> list[PathConflict]:
    """The conflicts, with the conflicting keys of JSON, YAML and TOML files."""
    return [PathConflict(conflict, await _keys(git, repo, conflict)) for conflict in conflicts]


async def _keys(git: GitAdapter, repo: str, conflict: Conflict) -> tuple[KeyConflict, ...] | None:
    fmt = keyed_format(conflict)
    if fmt is None:
        return None
    versions = await versions_of(git, repo, conflict)
    # Parsing a large file takes long enough to hold up every other request.
    return await asyncio.to_thread(key_conflicts, fmt, versions.base, versions.ours, versions.theirs)


def keyed_format(conflict: Conflict) -> Format | None:
    """The format by whose keys a conflict can be told, if any."""
    return format_of(conflict.path) if conflict.kind in KEYED_KINDS else None


async def versions_of(git: GitAdapter, repo: str, conflict: Conflict) -> Versions:
    """The contents that meet in a conflict."""

    async def read(blob_id: str | None) -> bytes | None:
        return await git.read_blob(repo, blob_id) if blob_id is not None else None

    return Versions(await read(conflict.base_blob), await read(conflict.ours_blob), await read(conflict.theirs_blob))


def conflict_record(conflict: Conflict) -> dict[str, Any]:
    """A conflict as records and replies show it (`api.md` 3, sync-integration)."""
    return {**asdict(conflict), "kind": conflict.kind.value}


def keyed_record(found: PathConflict) -> dict[str, Any]:
    """A conflict with its keys, if it has any; a version that lacks a key has no field for it."""
    shown = conflict_record(found.conflict)
    if found.keys is not None:
        shown["keys"] = [_key_record(key) for key in found.keys]
    return shown


def _key_record(key: KeyConflict) -> dict[str, Any]:
    values = {"base": key.base, "ours": key.ours, "theirs": key.theirs}
    return {"pointer": key.pointer, **{name: value for name, value in values.items() if value is not ABSENT}}
