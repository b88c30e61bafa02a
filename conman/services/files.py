"""Files of a workspace: read, write, delete, with the guardrails of `spec.md` 7."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any

from conman.domain.app import pending_ref
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.paths import check_blocked, normalise_path
from conman.git.adapter import (
    ChangeRefused,
    DeleteFile,
    EntryType,
    FileChange,
    FileContent,
    ObjectMissing,
    StaleFile,
    StaleRef,
    TreeEntry,
    WriteFile,
)
from conman.services.call import Call, keep, recall
from conman.services.platform import Platform
from conman.services.workspaces import (
    COMMAND_TRAILER,
    TIME_TRAILER,
    TRIES,
    USER_TRAILER,
    Tips,
    author_of,
    pending_edits,
    record_edits,
    tips,
)
from conman.store.database import Document


@dataclass(frozen=True, slots=True)
class Written:
    """What a save left behind."""

    path: str
    blob_id: str | None
    pending_edits: int


def decode(content: str, limit: int) -> bytes:
    """The bytes of base64 text. Raises `validation_error` for other text, or more than `limit` bytes."""
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("content", "must be base64") from error
    if len(data) > limit:
        raise invalid("content", f"has {len(data)} bytes; this app allows {limit}")
    return data


def checked_path(app: Document, raw: str) -> str:
    """The normalised path of a file that may be changed. Raises `validation_error` or `blocked_path`."""
    path = normalise_path(raw)
    check_blocked(path, app["settings"]["blocked_paths"])
    return path


async def write_file(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    *,
    path: str,
    content: str,
    message: str | None,
    expected_blob_id: str | None,
) -> Written:
    """Save one file as a pending edit. Raises `validation_error`, `blocked_path` or `stale_write`; then nothing is written."""
    clean = checked_path(app, path)
    data = decode(content, app["settings"]["file_size_limit_bytes"])
    change = WriteFile(clean, data, expected_blob_id=expected_blob_id)
    return await _save(platform, call, app, workspace, change, message or f"Edit {clean}")


async def delete_file(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    *,
    path: str,
    message: str | None,
    expected_blob_id: str | None,
) -> Written:
    """Delete one file as a pending edit. Raises `not_found` when there is none."""
    clean = checked_path(app, path)
    change = DeleteFile(clean, expected_blob_id=expected_blob_id)
    return await _save(platform, call, app, workspace, change, message or f"Delete {clean}")


async def _save(platform: Platform, call: Call, app: Document, workspace: Document, change: FileChange, message: str) -> Written:
    """Commit on top of what is pending, by compare-and-swap; a lost race is tried again on the winner's commit."""
    repo = app["repo_path"]
    ref = pending_ref(workspace["_id"])
    trailers = f"{COMMAND_TRAILER}: {call.command_id}\n{USER_TRAILER}: {call.user_id}\n{TIME_TRAILER}: {call.at}\n"
    text = f"{_one_line(message)}\n\n{trailers}"
    kept = await recall(platform.db, call)
    if kept is not None:
        return Written(**kept)
    for _ in range(TRIES):
        at = await tips(platform, app, workspace)
        if call.keyed and await _is_saved(platform, repo, at, call):
            break
        if not await _is_new(platform, repo, at.pending, change):
            break
        try:
            made = await platform.git.commit_files(
                repo,
                ref=ref,
                expected_old=at.pending,
                parent=at.pending,
                changes=[change],
                author=author_of(call),
                message=text,
            )
        except StaleRef:
            continue
        except StaleFile as error:
            raise DomainError(
                ErrorCode.STALE_WRITE,
                f"{error.path} has changed since you read it: read it again, then save.",
                {"path": error.path, "blob_id": error.actual},
            ) from error
        except ChangeRefused as error:
            if isinstance(change, DeleteFile):
                raise not_found("file") from error
            raise invalid("path", error.reason) from error
        at = Tips(at.head, made)
        break
    else:
        raise DomainError(ErrorCode.STALE_WRITE, "Others are saving into this workspace: try again.")
    await record_edits(platform, app, workspace["_id"], call)
    entry = await platform.git.entry(repo, at.pending, change.path)
    blob_id = entry.blob_id if entry is not None else None
    written = Written(change.path, blob_id, await pending_edits(platform, app, at))
    await keep(platform.db, call, asdict(written))
    return written


async def _is_saved(platform: Platform, repo: str, at: Tips, call: Call) -> bool:
    """Whether a commit that is still pending was made by this very command: by a repeat, or before a crash."""
    trailer = (COMMAND_TRAILER, call.command_id)
    return any(trailer in commit.trailers for commit in await platform.git.log(repo, at.pending, exclude=at.head))


async def _is_new(platform: Platform, repo: str, commit: str, change: FileChange) -> bool:
    """Whether a save would change anything; a repeat of the same save does not."""
    if not isinstance(change, WriteFile):
        return True
    there = await platform.git.read_file(repo, commit, change.path)
    if there is None or there.data != change.data:
        return True
    if change.expected_blob_id not in (None, there.blob_id):
        raise DomainError(
            ErrorCode.STALE_WRITE,
            f"{change.path} has changed since you read it: read it again, then save.",
            {"path": change.path, "blob_id": there.blob_id},
        )
    return False


def _one_line(message: str) -> str:
    return " ".join(message.split())[:200] or "Edit"


async def read(
    platform: Platform, app: Document, workspace: Document, *, path: str, recursive: bool
) -> FileContent | list[dict[str, Any]]:
    """A file with its bytes, or a folder's entries with their status against the branch. Raises `not_found`."""
    repo = app["repo_path"]
    at = await tips(platform, app, workspace)
    clean = normalise_path(path, folder=True)
    if clean:
        content = await platform.git.read_file(repo, at.pending, clean)
        if content is not None:
            return content
    try:
        entries = await platform.git.list_tree(repo, at.pending, clean, recursive=recursive)
    except ObjectMissing as error:
        raise not_found("file or folder") from error
    changed: dict[str, str] = {}
    if at.head != at.pending:
        changed = {row.path: row.status.value for row in await platform.git.changed_paths(repo, at.head, at.pending)}
    return [_entry(entry, changed) for entry in entries]


def _entry(entry: TreeEntry, changed: dict[str, str]) -> dict[str, Any]:
    status = changed.get(entry.path, "unchanged")
    if entry.type is EntryType.TREE and any(path.startswith(entry.path + "/") for path in changed):
        status = "modified"
    return {"path": entry.path, "type": entry.type.value, "size": entry.size, "blob_id": entry.blob_id, "status": status}


def shown(content: FileContent, *, pending: bool) -> dict[str, Any]:
    """A file as a reply shows it: UTF-8 text as it is, anything else as base64."""
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
        "pending": pending,
    }


async def is_pending(platform: Platform, app: Document, workspace: Document, content: FileContent) -> bool:
    """Whether the shown bytes are a pending edit."""
    at = await tips(platform, app, workspace)
    if at.head == at.pending:
        return False
    entry = await platform.git.entry(app["repo_path"], at.head, content.path)
    return entry is None or entry.blob_id != content.blob_id


async def workspace_diff(platform: Platform, app: Document, workspace: Document, base: str) -> list[dict[str, Any]]:
    """What the workspace changes against its base, pending edits in."""
    at = await tips(platform, app, workspace)
    files = await platform.git.diff(app["repo_path"], base, at.pending)
    return [
        {
            "path": row.change.path,
            "old_path": row.change.old_path,
            "status": row.change.status.value,
            "additions": row.additions,
            "deletions": row.deletions,
            "binary": row.binary,
            "patch": row.patch,
            "truncated": False,
        }
        for row in files
    ]
