"""Merging with what the user decided for each conflicting path (`spec.md` 7, `api.md` 3 sync-integration).

The Git port merges whole trees. So each conflict is taken out of the way first: where one side has a file, the other gets the
same one under a private ref, and what both have, or neither, does not conflict. The merge of these two stand-ins is the true
merge everywhere else; the resolutions are written on top, and its tree becomes one merge commit of the two real heads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.key_merge import KeyChoice, resolve_keys
from conman.domain.paths import check_blocked, normalise_path
from conman.git.adapter import (
    ChangeRefused,
    Conflict,
    DeleteFile,
    EntryType,
    FileChange,
    GitAdapter,
    TreeEntry,
    WriteFile,
)
from conman.git.checks import MODE_EXECUTABLE
from conman.services.call import Call
from conman.services.conflicts import conflicts_between, keyed_format, versions_of
from conman.services.platform import Platform
from conman.services.workspace_refs import Scratch, author_of
from conman.store.database import Document


@dataclass(frozen=True, slots=True)
class Resolution:
    """What becomes of one conflicting path: new content, one choice per key, or (both None) its deletion."""

    path: str
    content: bytes | None = None
    keys: tuple[KeyChoice, ...] | None = None


async def merge_resolved(
    platform: Platform,
    call: Call,
    app: Document,
    making: Scratch,
    ours: str,
    theirs: str,
    resolutions: Sequence[Resolution],
    message: str,
) -> str:
    """One merge commit of `ours` and `theirs` with the resolved files; its sha.

    Raises `validation_error` unless each conflicting path, and no other, is resolved once, and `blocked_path`.
    """
    git, repo = platform.git, app["repo_path"]
    conflicts = {one.path: one for one in await conflicts_between(git, repo, ours, theirs)}
    _check_all_resolved(conflicts, resolutions)
    changes = [await _change(git, app, conflicts[one.path], one) for one in resolutions]
    author = author_of(call)
    stand_ins = await _stand_ins(git, repo, making, ours, theirs, conflicts, call)
    made = await making.merge(*stand_ins, author, message)
    if made.sha is None:
        raise DomainError(
            ErrorCode.CONFLICT,
            "These conflicts hang together and can't be resolved path by path: make the files alike in the workspace first.",
            {"paths": [one.path for one in made.conflicts]},
        )
    present = [change for change in changes if not await _gone(git, repo, made.sha, change)]
    try:
        resolved = await making.commit_files(made.sha, present, author, message) if present else made.sha
    except ChangeRefused as error:
        raise invalid("resolutions", f"{error.path}: {error.reason}") from error
    return await making.commit_tree_of(resolved, [ours, theirs], author, message)


def _check_all_resolved(conflicts: dict[str, Conflict], resolutions: Sequence[Resolution]) -> None:
    named = [one.path for one in resolutions]
    problems = [f"{path}: is resolved twice" for path in sorted({path for path in named if named.count(path) > 1})]
    problems += [f"{path}: does not conflict" for path in sorted(set(named) - set(conflicts))]
    problems += [f"{path}: conflicts and is not resolved" for path in sorted(set(conflicts) - set(named))]
    if problems:
        raise DomainError(
            ErrorCode.VALIDATION_ERROR,
            f"resolutions: {'; '.join(problems[:3])}. Sync without resolutions to see all conflicts.",
            [{"field": "resolutions", "message": problem} for problem in problems],
        )


async def _change(git: GitAdapter, app: Document, conflict: Conflict, resolution: Resolution) -> FileChange:
    """The resolution as a change of the merged tree, within the guardrails of any save."""
    check_blocked(normalise_path(resolution.path), app["settings"]["blocked_paths"])
    data = resolution.content
    if resolution.keys is not None:
        fmt = keyed_format(conflict)
        if fmt is None:
            raise invalid("resolutions", f"{conflict.path}: has no keys to choose; give its content")
        versions = await versions_of(git, app["repo_path"], conflict)
        data = await asyncio.to_thread(resolve_keys, fmt, versions.base, versions.ours, versions.theirs, list(resolution.keys))
    if data is None:
        return DeleteFile(conflict.path)
    limit = app["settings"]["file_size_limit_bytes"]
    if len(data) > limit:
        raise invalid("resolutions", f"{conflict.path}: has {len(data)} bytes; this app allows {limit}")
    return WriteFile(conflict.path, data)


async def _stand_ins(
    git: GitAdapter, repo: str, making: Scratch, ours: str, theirs: str, conflicts: dict[str, Conflict], call: Call
) -> tuple[str, str]:
    """The two heads with the same at every conflicting path."""
    to_ours: list[FileChange] = []
    to_theirs: list[FileChange] = []
    for path in conflicts:
        mine, other = await git.entry(repo, ours, path), await git.entry(repo, theirs, path)
        if _is_alike(mine, other) or (_is_file(other) and mine is None):
            to_ours += await _copy(git, repo, path, other)
        elif _is_file(mine) and other is None:
            to_theirs += await _copy(git, repo, path, mine)
        else:  # a file against a folder, a link against a file: neither can be put in the other's place
            to_ours += _removal(path, mine)
            to_theirs += _removal(path, other)
    author = author_of(call)
    made = [ours, theirs]
    for side, changes in enumerate((to_ours, to_theirs)):
        if changes:
            made[side] = await making.commit_files(made[side], changes, author, "Set conflicts aside\n")
    return made[0], made[1]


def _is_alike(one: TreeEntry | None, two: TreeEntry | None) -> bool:
    return one is not None and two is not None and one.type is two.type and one.type in (EntryType.BLOB, EntryType.SYMLINK)


def _is_file(entry: TreeEntry | None) -> bool:
    return entry is not None and entry.type is EntryType.BLOB


async def _copy(git: GitAdapter, repo: str, path: str, source: TreeEntry | None) -> list[FileChange]:
    if source is None:
        return []
    data = await git.read_blob(repo, source.blob_id)
    executable = source.mode == MODE_EXECUTABLE if source.type is EntryType.BLOB else None
    return [WriteFile(path, data, executable=executable)]


def _removal(path: str, entry: TreeEntry | None) -> list[FileChange]:
    match entry.type if entry is not None else None:
        case EntryType.BLOB | EntryType.SYMLINK:
            return [DeleteFile(path)]
        case EntryType.SUBMODULE:
            raise DomainError(
                ErrorCode.CONFLICT, f"{path}: a submodule can't be resolved here: reset the workspace, or settle it with git."
            )
        case _:
            return []


async def _gone(git: GitAdapter, repo: str, commit: str, change: FileChange) -> bool:
    """Whether a deletion has nothing left to delete."""
    if not isinstance(change, DeleteFile):
        return False
    entry = await git.entry(repo, commit, change.path)
    return entry is None or entry.type is EntryType.TREE
