"""Saving files as pending edits: one at a time or many at once, with the guardrails of `spec.md` 7."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conman.domain.app import pending_ref
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.paths import check_blocked, normalise_path
from conman.domain.workspace import SAVE_TRAILER, save_message
from conman.faults import fault_point
from conman.git.adapter import ChangeRefused, DeleteFile, FileChange, MoveFile, StaleFile, StaleRef, WriteFile
from conman.services.call import Call, keep
from conman.services.platform import Platform
from conman.services.workspace_history import record_history
from conman.services.workspace_refs import TRIES, Tips, author_of, tips, turn
from conman.store.database import Document

LARGEST_BATCH = 1000
"""The most changes in one batch."""


@dataclass(frozen=True, slots=True)
class BatchChange:
    """One change of a batch as it was asked for; `content` is base64."""

    action: Literal["write", "delete", "move"]
    path: str
    to: str | None = None
    content: str | None = None
    expected_blob_id: str | None = None


def decode(content: str, limit: int, field: str = "content") -> bytes:
    """The bytes of base64 text. Raises `validation_error` for other text, or more than `limit` bytes."""
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(field, "must be base64") from error
    if len(data) > limit:
        raise invalid(field, f"has {len(data)} bytes; this app allows {limit}")
    return data


def checked_path(app: Document, raw: str) -> str:
    """The normalised path of a file that may be changed. Raises `validation_error` or `blocked_path`."""
    path = normalise_path(raw)
    check_blocked(path, app["settings"]["blocked_paths"])
    return path


def _limit(app: Document) -> int:
    return int(app["settings"]["file_size_limit_bytes"])


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
) -> dict[str, Any]:
    """Save one file as a pending edit. Raises `validation_error`, `blocked_path` or `stale_write`; then nothing is written."""
    clean = checked_path(app, path)
    change = WriteFile(clean, decode(content, _limit(app)), expected_blob_id=expected_blob_id)
    return await _save(platform, call, app, workspace, [change], message or f"Edit {clean}", _one_written)


async def delete_file(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    *,
    path: str,
    message: str | None,
    expected_blob_id: str | None,
) -> None:
    """Delete one file as a pending edit. Raises `not_found` when there is none."""
    clean = checked_path(app, path)
    change = DeleteFile(clean, expected_blob_id=expected_blob_id)
    await _save(platform, call, app, workspace, [change], message or f"Delete {clean}", _one_written)


async def write_batch(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    *,
    changes: Sequence[BatchChange],
    message: str | None,
) -> dict[str, Any]:
    """Save many changes as one pending edit, in their order, all or none.

    Raises `validation_error`, `blocked_path`, `stale_write`, `not_found` for a file that is not there to be deleted or moved, and
    `conflict` for a move to where something is; then nothing is written.
    """
    made = [_file_change(app, change, f"changes.{number}") for number, change in enumerate(changes)]
    return await _save(platform, call, app, workspace, made, message or f"Change {len(made)} files", _batch_written)


def _file_change(app: Document, change: BatchChange, field: str) -> FileChange:
    path = checked_path(app, change.path)
    given = {"to": change.to is not None, "content": change.content is not None}
    for name, allowed in (("to", change.action == "move"), ("content", change.action in ("write", "move"))):
        if given[name] and not allowed:
            raise invalid(f"{field}.{name}", f"has no meaning for {change.action}")
    data = decode(change.content, _limit(app), f"{field}.content") if change.content is not None else None
    match change.action:
        case "write":
            if data is None:
                raise invalid(f"{field}.content", "is needed to write a file")
            return WriteFile(path, data, expected_blob_id=change.expected_blob_id)
        case "delete":
            return DeleteFile(path, expected_blob_id=change.expected_blob_id)
        case "move":
            if change.to is None:
                raise invalid(f"{field}.to", "says where to move the file")
            to = checked_path(app, change.to)
            if to == path:
                raise invalid(f"{field}.to", "is where the file is already")
            return MoveFile(path, to, data=data, expected_blob_id=change.expected_blob_id)


_Answer = Callable[[Sequence[FileChange], Sequence[str | None], int], dict[str, Any]]
"""How a save is told: its changes, the blob ids that they left behind, and how many paths are pending now."""


def _one_written(changes: Sequence[FileChange], blob_ids: Sequence[str | None], pending: int) -> dict[str, Any]:
    return {"path": changes[0].path, "blob_id": blob_ids[0], "commit_sha": None, "pending_edits": pending}


def _batch_written(changes: Sequence[FileChange], blob_ids: Sequence[str | None], pending: int) -> dict[str, Any]:
    rows = [_changed(change, blob_id) for change, blob_id in zip(changes, blob_ids, strict=True)]
    return {"changes": rows, "commit_sha": None, "pending_edits": pending}


def _changed(change: FileChange, blob_id: str | None) -> dict[str, Any]:
    match change:
        case WriteFile():
            return {"action": "write", "path": change.path, "blob_id": blob_id}
        case DeleteFile():
            return {"action": "delete", "path": change.path, "blob_id": None}
        case MoveFile():
            return {"action": "move", "path": change.path, "to": change.to, "blob_id": blob_id}


async def _save(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    changes: Sequence[FileChange],
    title: str,
    answer: _Answer,
) -> dict[str, Any]:
    """Commit on top of what is pending, by compare-and-swap; a lost race is tried again on the winner's commit."""
    repo = app["repo_path"]
    kept = await platform.db["idempotency"].find_one({"_id": call.remembered_as}) if call.keyed else None
    if kept is not None and kept.get("answer") is not None:
        return kept["answer"]
    saved = kept is not None and kept.get("saved", False)
    moves = [(change.path, change.to) for change in changes if isinstance(change, MoveFile)]
    message = save_message(title, command_id=call.command_id, user_id=call.user_id, at=call.at, moves=moves)
    async with turn(workspace["_id"]):
        for _ in range(TRIES):
            at = await tips(platform, app, workspace)
            if saved or (call.keyed and await _is_saved(platform, repo, at, call)):
                break
            if not await _changes_something(platform, repo, at.pending, changes):
                break
            try:
                made = await platform.git.commit_files(
                    repo,
                    ref=pending_ref(workspace["_id"]),
                    expected_old=at.pending,
                    parent=at.pending,
                    changes=changes,
                    author=author_of(call),
                    message=message,
                )
            except StaleRef:
                continue
            except StaleFile as error:
                raise _stale(error.path, error.actual) from error
            except ChangeRefused as error:
                raise await _refusal(platform, repo, at.pending, changes, error) from error
            at = Tips(at.head, made, at.journal)
            break
        else:
            raise DomainError(ErrorCode.STALE_WRITE, "Others are saving into this workspace: try again.")
        fault_point("save.committed")
        await record_history(platform, app, workspace["_id"], call, known=(at.journal, at.pending))
    blob_ids = [await _blob_after(platform, repo, at.pending, change) for change in changes]
    told = answer(changes, blob_ids, await _pending(platform, repo, at))
    await keep(platform.db, call, told)
    return told


async def _pending(platform: Platform, repo: str, at: Tips) -> int:
    return len(await platform.git.changed_paths(repo, at.head, at.pending)) if at.head != at.pending else 0


async def _blob_after(platform: Platform, repo: str, commit: str, change: FileChange) -> str | None:
    """The blob that a change left behind."""
    if isinstance(change, DeleteFile):
        return None
    if change.data is not None:
        return _blob_id(change.data)
    entry = await platform.git.entry(repo, commit, change.to)
    return entry.blob_id if entry is not None else None


async def _is_saved(platform: Platform, repo: str, at: Tips, call: Call) -> bool:
    """Whether a commit that is still pending was made by this very command: by a repeat, or before a crash."""
    trailer = (SAVE_TRAILER, call.command_id)
    return any(trailer in commit.trailers for commit in await platform.git.log(repo, at.pending, exclude=at.head))


async def _changes_something(platform: Platform, repo: str, commit: str, changes: Sequence[FileChange]) -> bool:
    """Whether a save would change anything; a repeat of the same writes does not. Raises `stale_write`."""
    for change in changes:
        if not isinstance(change, WriteFile):
            return True
        there = await platform.git.entry(repo, commit, change.path)
        if there is None or there.blob_id != _blob_id(change.data):
            return True
        if change.expected_blob_id not in (None, there.blob_id):
            raise _stale(change.path, there.blob_id)
    return False


def _blob_id(data: bytes) -> str:
    """Git's name for these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _stale(path: str, actual: str | None) -> DomainError:
    return DomainError(
        ErrorCode.STALE_WRITE,
        f"{path} has changed since you read it: read it again, then save.",
        {"path": path, "blob_id": actual},
    )


async def _refusal(
    platform: Platform, repo: str, commit: str, changes: Sequence[FileChange], error: ChangeRefused
) -> DomainError:
    """A change that Git could not apply, as a client is told."""
    if any(isinstance(change, MoveFile) and change.to == error.path for change in changes):
        return DomainError(
            ErrorCode.CONFLICT, f"{error.path} {error.reason}: move the file somewhere else.", {"path": error.path}
        )
    written = any(isinstance(change, WriteFile) and change.path == error.path for change in changes)
    if not written and await platform.git.entry(repo, commit, error.path) is None:
        return not_found(f"file as {error.path}")
    return invalid("path", f"{error.path} {error.reason}")
