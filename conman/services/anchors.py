"""Where comments stand: finding the place that one is put on, and following it to later revisions (`domain/comment.py`).

A place is computed when it is read, so that a new revision costs nothing. It depends on two commits alone, which never change:
what was computed once is remembered for as long as there is room. docs/adr/0014-comments-follow-when-they-are-read.md
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from conman.domain.changeset import Changeset, Revision
from conman.domain.comment import Anchor, FileFate, Place, check_line, count_lines, follow, hunks_of, unmoved
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.paths import normalise_path
from conman.git.adapter import ChangeStatus, EntryType, FileDiff
from conman.git.checks import MODE_EXECUTABLE, MODE_FILE
from conman.services.kept import Kept
from conman.services.platform import Platform
from conman.store.database import Document

REMEMBERED_PLACES = 10_000
"""How many places a process remembers, some hundred bytes each."""

_REMEMBERED: Kept[tuple[str, str, Anchor], Place] = Kept(REMEMBERED_PLACES)
"""By the two heads and the anchor, which name content, so that no place is ever out of date."""


async def places_in(
    platform: Platform, app: Document, changeset: Changeset, revision_number: int | None, anchors: Iterable[Anchor]
) -> dict[Anchor, Place]:
    """Where each anchor stands in a revision of its changeset; one comparison for each revision that any was put on."""
    if revision_number is None:  # without a revision there are no files to comment on
        return {anchor: unmoved(anchor) for anchor in anchors}
    heads = {revision.revision_number: revision.head_sha for revision in changeset.revisions}
    new = heads[revision_number]
    found: dict[Anchor, Place] = {}
    missing: dict[str, list[Anchor]] = {}
    for anchor in dict.fromkeys(anchors):
        old = heads[anchor.revision_number] if anchor.revision_number is not None else None
        if anchor.file_path is None or old is None or old == new:
            found[anchor] = unmoved(anchor)
            continue
        place = _REMEMBERED.get((old, new, anchor))
        if place is None:
            missing.setdefault(old, []).append(anchor)
        else:
            found[anchor] = place
    for old, of_one in missing.items():
        followed = await _follow(platform, app["repo_path"], old, new, of_one)
        for anchor, place in followed.items():
            _REMEMBERED.put((old, new, anchor), place, 1)
        found |= followed
    return found


async def _follow(platform: Platform, repo: str, old: str, new: str, anchors: Collection[Anchor]) -> dict[Anchor, Place]:
    paths = sorted({anchor.file_path for anchor in anchors if anchor.file_path is not None})
    rows = await platform.git.diff(repo, old, new, paths=paths, context=0)
    fates: dict[str | None, FileFate] = {
        row.change.old_path or row.change.path: _fate(row) for row in rows if row.change.status is not ChangeStatus.ADDED
    }
    return {anchor: follow(anchor, fates.get(anchor.file_path, FileFate(anchor.file_path))) for anchor in anchors}


def _fate(row: FileDiff) -> FileFate:
    """What a difference says of the file that was there before."""
    match row.change.status:
        case ChangeStatus.DELETED:
            return FileFate(None)
        case ChangeStatus.TYPE_CHANGED:
            return FileFate(row.change.path, None)
        case _:
            return FileFate(row.change.path, None if row.binary else hunks_of(row.patch))


# -- Putting a comment somewhere


@dataclass(frozen=True, slots=True)
class _File:
    """What a path is in a revision's head; `blob_id` None: it is not there, since the revision deletes it."""

    path: str
    blob_id: str | None
    is_regular: bool


async def anchor_at(
    platform: Platform, app: Document, changeset: Changeset, file_path: str | None, line_number: int | None
) -> Anchor:
    """The place on the current revision that a new comment names.

    A file is one that the revision changes or that stands in its head. Raises `validation_error` for a place that is none.
    """
    revision = changeset.revisions[-1] if changeset.revisions else None
    if file_path is None:
        if line_number is not None:
            raise invalid("line_number", "needs a file_path: name the file that the line is in")
        return Anchor(changeset.current_revision or None)
    if revision is None:
        raise invalid("file_path", "nothing is submitted yet: submit the changeset, then comment on its files")
    file = await _file(platform, app["repo_path"], revision, file_path)
    if line_number is not None:
        lines = None
        if file.blob_id is not None and file.is_regular:
            lines = count_lines(await platform.git.read_blob(app["repo_path"], file.blob_id))
        check_line(file.path, line_number, lines, revision.revision_number)
    return Anchor(revision.revision_number, file.path, line_number)


async def _file(platform: Platform, repo: str, revision: Revision, file_path: str) -> _File:
    """A name that no user may write is found too, where the revision changes such a file."""
    changes = {change.path: change for change in await platform.git.changed_paths(repo, revision.base_sha, revision.head_sha)}
    path = file_path if file_path in changes else _normalised(file_path)
    change = changes.get(path)
    if change is not None:
        return _File(path, change.new_blob_id, change.new_mode in (MODE_FILE, MODE_EXECUTABLE))
    entry = await platform.git.entry(repo, revision.head_sha, path)
    if entry is None or entry.type is EntryType.TREE:
        raise invalid("file_path", f"is no file that revision {revision.revision_number} changes or has: name one of its files")
    return _File(path, entry.blob_id, entry.type is EntryType.BLOB)


def _normalised(file_path: str) -> str:
    try:
        return normalise_path(file_path)
    except DomainError as error:
        if error.code is not ErrorCode.VALIDATION_ERROR:
            raise
        raise invalid("file_path", error.details[0]["message"]) from error
