"""What is between two commits, for reviewers: patches by file (`spec.md` 8), and which commits a changeset's diff compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conman.domain.changeset import Changeset
from conman.domain.errors import DomainError, ErrorCode
from conman.git.adapter import ChangeStatus, FileDiff, GitAdapter
from conman.services.apps import integration_head
from conman.services.kept import Kept
from conman.services.platform import Platform
from conman.services.workspace_refs import look
from conman.store.database import Document

MOST_PATCH_BYTES = 200 * 1024
"""A file's patch is cut at the last line that ends within; its numbers of lines stay those of the whole."""
MOST_PAGE_BYTES = 5 * 1024 * 1024
"""What the patches of one page have together; from there on the rest of the page has none (`truncated`)."""
FILES_AT_A_TIME = 200
"""Files whose patches are in memory at once while the lines of a whole diff are counted."""
MOST_COUNTED_FILES = 200_000
"""Files in all diffs together whose paths and numbers of lines are kept in memory, some 40 MiB."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The two commits of a diff."""

    base: str
    head: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A whole diff without its patches: the paths in their order (in the base for those that are gone), and the lines."""

    paths: tuple[str, ...]
    renames: bool
    additions: int
    deletions: int


_counted: Kept[tuple[str, Sides], Counted] = Kept(MOST_COUNTED_FILES)


def revision_sides(changeset: Changeset, revision: int | None, against: int | None) -> Sides | None:
    """A revision (the latest by default) against its base, or against another revision of the same changeset.

    None when nothing was submitted yet and no revision is named. Raises `not_found` for a revision that there is not.
    """
    revisions = changeset.revisions
    if not revisions and revision is None and against is None:
        return None
    by_number = {each.revision_number: each for each in revisions}
    for number in (revision, against):
        if number is not None and number not in by_number:
            there = f"it has 1 to {len(revisions)}" if revisions else "nothing of it was submitted yet"
            raise DomainError(ErrorCode.NOT_FOUND, f"This changeset has no revision {number}: {there}.")
    chosen = revisions[-1] if revision is None else by_number[revision]
    other = None if against is None else by_number[against]
    return Sides(other.head_sha if other is not None else chosen.base_sha, chosen.head_sha)


async def draft_sides(platform: Platform, app: Document, workspace: Document) -> Sides:
    """What a submit of this workspace would freeze now, pending edits in. Raises `not_found` when its branch is gone."""
    shown = (await look(platform, app, workspace)).shown
    if shown is None:
        raise nothing_submitted()
    base = await platform.git.merge_base(app["repo_path"], shown, await integration_head(platform, app))
    return Sides(base or shown, shown)


def nothing_submitted() -> DomainError:
    """The answer of a changeset without a revision where its workspace is not to be shown, or is gone."""
    return DomainError(
        ErrorCode.NOT_FOUND,
        "Nothing of this changeset was submitted yet, so there is no revision to compare: its author sees what the workspace"
        " changes, others see it after the submit.",
    )


async def raw_diff(git: GitAdapter, repo: str, sides: Sides, page: int, limit: int) -> dict[str, Any]:
    """One page of the files that differ, with their patches, and the numbers of the whole.

    Only the page's patches are computed once the whole was counted; what counts it is kept by the two commits.
    """
    counted = _counted.get((repo, sides))
    if counted is None:
        counted = await _count(git, repo, sides)
        _counted.put((repo, sides), counted, len(counted.paths) + 1)
    wanted = counted.paths[(page - 1) * limit : page * limit]
    rows = await _patches(git, repo, sides, wanted, renames=counted.renames)
    return {
        "data": {
            "base_sha": sides.base,
            "head_sha": sides.head,
            "stats": {"files": len(counted.paths), "additions": counted.additions, "deletions": counted.deletions},
            "files": _shown(rows),
        },
        "pagination": {"page": page, "limit": limit, "total": len(counted.paths)},
    }


async def _count(git: GitAdapter, repo: str, sides: Sides) -> Counted:
    changed = await git.changed_paths(repo, sides.base, sides.head, renames=True)
    renames = any(each.status is ChangeStatus.RENAMED for each in changed)
    paths = tuple(each.path for each in changed)
    additions = deletions = 0
    for start in range(0, len(paths), FILES_AT_A_TIME):
        for row in await _patches(git, repo, sides, paths[start : start + FILES_AT_A_TIME], renames=renames):
            additions += row.additions
            deletions += row.deletions
    return Counted(paths, renames, additions, deletions)


async def _patches(git: GitAdapter, repo: str, sides: Sides, paths: tuple[str, ...], *, renames: bool) -> list[FileDiff]:
    """The patches of these files. Git looks for renames only where there are some: it takes most of the time."""
    if not paths:
        return []
    wanted = frozenset(paths)
    # A name that is not UTF-8 is shown with replacement characters: by that it can't be asked for.
    all_named = not any("\ufffd" in path for path in paths)
    rows = await git.diff(repo, sides.base, sides.head, paths=paths if all_named else None, renames=renames)
    return [row for row in rows if row.change.path in wanted]


def _shown(rows: list[FileDiff]) -> list[dict[str, Any]]:
    left = MOST_PAGE_BYTES
    shown: list[dict[str, Any]] = []
    for row in rows:
        patch = cut(row.patch, min(MOST_PATCH_BYTES, left))
        left -= len(patch.encode())
        shown.append(file_diff_record(row, patch))
    return shown


def file_diff_record(row: FileDiff, patch: str) -> dict[str, Any]:
    """A file of a raw diff as `api.md` 3 shows it, with as much of its patch as is given."""
    return {
        "path": row.change.path,
        "old_path": row.change.old_path,
        "status": row.change.status.value,
        "additions": row.additions,
        "deletions": row.deletions,
        "binary": row.binary,
        "patch": patch,
        "truncated": patch != row.patch,
    }


def cut(patch: str, most: int) -> str:
    """The patch, or its whole lines that fit into `most` bytes."""
    data = patch.encode()
    if len(data) <= most:
        return patch
    return data[: data.rfind(b"\n", 0, most) + 1].decode()
