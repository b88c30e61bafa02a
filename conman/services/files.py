"""Reading a workspace's files: folders, contents, raw bytes and the diff, pending edits in (`spec.md` 7)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from conman.domain.errors import not_found
from conman.domain.paths import normalise_path
from conman.git.adapter import EntryType, FileContent, ObjectMissing, TreeEntry
from conman.services.apps import integration_head
from conman.services.conflicts import conflicts_between
from conman.services.diffs import file_diff_record
from conman.services.platform import Platform
from conman.services.workspace_refs import Standing, look
from conman.store.database import Document


@dataclass(frozen=True, slots=True)
class FileShown:
    """A file and whether its bytes are a pending edit."""

    content: FileContent
    pending: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a folder's entries; `total` counts all."""

    entries: list[dict[str, Any]]
    total: int


async def read(
    platform: Platform, app: Document, workspace: Document, *, path: str, recursive: bool, page: int, limit: int
) -> FileShown | Listing:
    """A file with its bytes, or a folder's entries with their status against the branch. Raises `not_found`.

    A symbolic link is shown with its target as content, never followed. A branch that was deleted or moved outside Conman does
    not hide the owner's files.
    """
    repo = app["repo_path"]
    seen = await look(platform, app, workspace)
    shown_at = _shown(seen)
    clean = normalise_path(path, folder=True)
    if clean:
        content = await platform.git.read_file(repo, shown_at, clean)
        if content is not None:
            return FileShown(content, await _is_pending(platform, repo, seen, content))
    try:
        entries = await platform.git.list_tree(repo, shown_at, clean, recursive=recursive)
    except ObjectMissing as error:
        raise not_found("file or folder") from error
    part = entries[(page - 1) * limit : page * limit]
    changed = await _changes(platform, repo, seen) if part else {}
    folders = {path[:end] for path in changed for end, character in enumerate(path) if character == "/"}
    return Listing([_entry(entry, changed, folders) for entry in part], len(entries))


def _shown(seen: Standing) -> str:
    if seen.shown is None:
        raise not_found("file or folder")
    return seen.shown


async def _changes(platform: Platform, repo: str, seen: Standing) -> dict[str, str]:
    """Path → status of what is pending."""
    left_at = seen.known or seen.head
    if left_at is None or seen.pending is None or left_at == seen.pending:
        return {}
    return {row.path: row.status.value for row in await platform.git.changed_paths(repo, left_at, seen.pending)}


def _entry(entry: TreeEntry, changed: dict[str, str], folders: set[str]) -> dict[str, Any]:
    status = changed.get(entry.path, "unchanged")
    if entry.type is EntryType.TREE and entry.path in folders:
        status = "modified"
    return {"path": entry.path, "type": entry.type.value, "size": entry.size, "blob_id": entry.blob_id, "status": status}


async def _is_pending(platform: Platform, repo: str, seen: Standing, content: FileContent) -> bool:
    left_at = seen.known or seen.head
    if left_at is None or left_at == seen.pending:
        return False
    entry = await platform.git.entry(repo, left_at, content.path)
    return entry is None or entry.blob_id != content.blob_id


def file_record(shown: FileShown) -> dict[str, Any]:
    """A file as a reply shows it: UTF-8 text as it is, anything else as base64."""
    content = shown.content
    try:
        text, encoding = content.data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(content.data).decode("ascii"), "base64"
    return {
        "path": content.path,
        "content": text,
        "size": len(content.data),
        "blob_id": content.blob_id,
        "encoding": encoding,
        "pending": shown.pending,
    }


# -- Raw bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes of one version of a file."""

    path: str
    blob_id: str
    data: bytes


async def raw(platform: Platform, app: Document, workspace: Document, *, path: str, blob_id: str | None) -> Raw:
    """A file's bytes; with `blob_id` those of one of its versions. Raises `not_found`.

    Which versions: those that stand at this path in what the workspace shows, in its own commits, in its base and in the
    integration branch, and those that meet there in a conflict of the two. So an id alone opens nothing: whoever asks could have
    read the version anyway.
    """
    repo = app["repo_path"]
    clean = normalise_path(path)
    seen = await look(platform, app, workspace)
    if blob_id is None:
        content = await platform.git.read_file(repo, _shown(seen), clean)
        if content is None:
            raise not_found("file")
        return Raw(clean, content.blob_id, content.data)
    if not await _is_version(platform, app, seen, clean, blob_id):
        raise not_found("version of this file")
    return Raw(clean, blob_id, await platform.git.read_blob(repo, blob_id))


async def _is_version(platform: Platform, app: Document, seen: Standing, path: str, blob_id: str) -> bool:
    git, repo = platform.git, app["repo_path"]

    async def holds(commit: str) -> bool:
        entry = await git.entry(repo, commit, path)
        return entry is not None and entry.type in (EntryType.BLOB, EntryType.SYMLINK) and entry.blob_id == blob_id

    shown_at = _shown(seen)
    integration = await integration_head(platform, app)
    base = await git.merge_base(repo, shown_at, integration)
    for commit in dict.fromkeys(one for one in (shown_at, seen.known, integration, base) if one is not None):
        if await holds(commit):
            return True
    for commit in await git.log(repo, shown_at, exclude=base):
        if await holds(commit.sha):
            return True
    for conflict in await conflicts_between(git, repo, seen.known or shown_at, integration):
        if conflict.path == path and blob_id in (conflict.base_blob, conflict.ours_blob, conflict.theirs_blob):
            return True
    return False


# -- The diff


async def workspace_diff(platform: Platform, app: Document, workspace: Document, base: str | None) -> list[dict[str, Any]]:
    """What the workspace changes against its base, pending edits in."""
    shown_at = _shown(await look(platform, app, workspace))
    files = await platform.git.diff(app["repo_path"], base, shown_at) if base is not None else []
    return [file_diff_record(row, row.patch) for row in files]
