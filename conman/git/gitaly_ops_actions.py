"""The difference between two trees as the file actions of `UserCommitFiles`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pygit2
from pygit2.enums import DeltaStatus, DiffOption

from conman.git.checks import MODE_EXECUTABLE, MODE_FILE
from conman.git.gitaly_ops_session import Session
from conman.git.local_read import find_object
from conman.git.proto import gitaly_pb2 as pb

CHUNK_BYTES = 128 * 1024
"""Of a file, per message; servers take at most 4 MiB."""
_ATTRIBUTES = b".gitattributes"
_FILES = (MODE_FILE, MODE_EXECUTABLE)


@dataclass(frozen=True, slots=True)
class Action:
    """One action; `blob` is the content of a file that is made or written."""

    kind: pb.UserCommitFilesActionHeader.ActionType
    path: bytes
    blob: str | None = None
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Actions:
    """What makes one tree of another. `plain` is False when actions can't: then there are none."""

    actions: tuple[Action, ...]
    plain: bool
    attributes: bool
    """Git attributes lie beside or above a path that changes."""


def actions_between(old: pygit2.Tree, new: pygit2.Tree) -> Actions:
    """The actions, deletions first, each path but once (but for one whose content and mode change)."""
    deltas = list(old.diff_to_tree(new, DiffOption.INCLUDE_TYPECHANGE, 0, 0).deltas)
    deleted = {delta.old_file.raw_path for delta in deltas if delta.status == DeltaStatus.DELETED}
    added = {delta.new_file.raw_path for delta in deltas if delta.status == DeltaStatus.ADDED}
    swapped = any(above in added for path in deleted for above in _above(path))
    swapped = swapped or any(above in deleted for path in added for above in _above(path))
    if swapped or not all(map(_is_plain, deltas)):
        return Actions((), plain=False, attributes=False)
    found = [Action(pb.UserCommitFilesActionHeader.DELETE, path) for path in sorted(deleted)]
    for delta in deltas:
        if delta.status != DeltaStatus.DELETED:
            found += _writing(delta)
    folders = {b"", *(above + b"/" for action in found for above in _above(action.path))}
    attributes = any(_holds_attributes(tree, folder) for folder in folders for tree in (old, new))
    return Actions(tuple(found), plain=True, attributes=attributes)


async def messages(session: Session, actions: Sequence[Action]) -> AsyncIterator[pb.UserCommitFilesRequest]:
    """The requests that carry actions; a file's content is in memory only while it is sent."""
    for action in actions:
        header = pb.UserCommitFilesActionHeader(action=action.kind, file_path=action.path, execute_filemode=action.executable)
        yield pb.UserCommitFilesRequest(action=pb.UserCommitFilesAction(header=header))
        if action.blob is not None:
            data = await session.run(partial(_data, action.blob))
            for start in range(0, len(data), CHUNK_BYTES):
                content = data[start : start + CHUNK_BYTES]
                yield pb.UserCommitFilesRequest(action=pb.UserCommitFilesAction(content=content))


def _data(blob: str, repository: pygit2.Repository) -> bytes:
    return repository[blob].peel(pygit2.Blob).data


def _is_plain(delta: pygit2.DiffDelta) -> bool:
    """Whether there is a plain file on each side that has anything."""
    before = delta.status == DeltaStatus.ADDED or int(delta.old_file.mode) in _FILES
    after = delta.status == DeltaStatus.DELETED or int(delta.new_file.mode) in _FILES
    return before and after


def _writing(delta: pygit2.DiffDelta) -> Iterator[Action]:
    """A file that is made takes its mode along; one that is written keeps it, so that a new mode is an action of its own."""
    kinds = pb.UserCommitFilesActionHeader
    old, new = delta.old_file, delta.new_file
    executable = int(new.mode) == MODE_EXECUTABLE
    if delta.status == DeltaStatus.ADDED:
        yield Action(kinds.CREATE, new.raw_path, str(new.id), executable)
        return
    if old.id != new.id:
        yield Action(kinds.UPDATE, new.raw_path, str(new.id), executable)
    if int(old.mode) != int(new.mode):
        yield Action(kinds.CHMOD, new.raw_path, None, executable)


def _above(path: bytes) -> Iterator[bytes]:
    """The folders that a path is in, without a slash at the end."""
    names = path.split(b"/")
    for length in range(1, len(names)):
        yield b"/".join(names[:length])


def _holds_attributes(tree: pygit2.Tree, folder: bytes) -> bool:
    return find_object(tree, os.fsdecode(folder + _ATTRIBUTES).split("/")) is not None
