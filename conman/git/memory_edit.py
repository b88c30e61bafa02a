"""Applying file changes to a set of files in the in-memory adapter."""

from __future__ import annotations

from collections.abc import Sequence

from conman.git.adapter import ChangeRefused, DeleteFile, FileChange, MoveFile, StaleFile, WriteFile
from conman.git.checks import MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, checked_path, checked_target
from conman.git.memory_objects import Files, Leaf, ObjectStore


def edited(operation: str, store: ObjectStore, files: Files, changes: Sequence[FileChange]) -> Files:
    """The files after all changes, in order. Raises `StaleFile` or `ChangeRefused`."""
    edit = _Edit(operation, store, dict(files))
    for change in changes:
        match change:
            case WriteFile():
                edit.write(change)
            case DeleteFile():
                edit.take(change.path, change.expected_blob_id)
            case MoveFile():
                edit.move(change)
    return edit.files


class _Edit:
    def __init__(self, operation: str, store: ObjectStore, files: Files) -> None:
        self._operation = operation
        self._store = store
        self.files = files

    def write(self, change: WriteFile) -> None:
        path = checked_path(self._operation, change.path).encode()
        present = self.files.get(path)
        self._expect(change.path, present, change.expected_blob_id)
        self._refuse_folder(change.path)
        if present is not None and present.mode == MODE_SUBMODULE:
            raise ChangeRefused(self._operation, change.path, "is a submodule")
        if change.executable is not None:
            mode = MODE_EXECUTABLE if change.executable else MODE_FILE
        else:
            mode = MODE_FILE if present is None else present.mode
        self._put(change.path, mode, change.data)

    def move(self, change: MoveFile) -> None:
        source = self.take(change.path, change.expected_blob_id)
        to = checked_target(self._operation, change.to, source.mode).encode()
        if change.to == change.path or to in self.files or self._is_folder(change.to):
            raise ChangeRefused(self._operation, change.to, "exists already")
        data = self._store.blob(source.sha) if change.data is None else change.data
        self._put(change.to, source.mode, data)

    def take(self, path: str, expected: str | None) -> Leaf:
        """Remove a file that must be there."""
        present = self.files.get(checked_path(self._operation, path).encode())
        self._expect(path, present, expected)
        self._refuse_folder(path)
        if present is None:
            raise ChangeRefused(self._operation, path, "does not exist")
        if present.mode == MODE_SUBMODULE:
            raise ChangeRefused(self._operation, path, "is a submodule")
        return self.files.pop(path.encode())

    def _put(self, path: str, mode: int, data: bytes) -> None:
        names = path.split("/")
        for length in range(1, len(names)):
            if "/".join(names[:length]).encode() in self.files:
                raise ChangeRefused(self._operation, path, "a file is in the place of its folder")
        self.files[path.encode()] = Leaf(mode, self._store.put("blob", data))

    def _expect(self, path: str, present: Leaf | None, expected: str | None) -> None:
        actual = None if present is None else present.sha
        if expected is not None and actual != (expected or None):
            raise StaleFile(self._operation, path, actual)

    def _refuse_folder(self, path: str) -> None:
        if self._is_folder(path):
            raise ChangeRefused(self._operation, path, "is a folder")

    def _is_folder(self, path: str) -> bool:
        below = f"{path}/".encode()
        return any(other.startswith(below) for other in self.files)
