"""Making commits in the local adapter: editing trees in memory, writing only the folders that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pygit2

from conman.git.adapter import (
    ChangeRefused,
    DeleteFile,
    FileChange,
    MoveFile,
    Signature,
    StaleFile,
    WriteFile,
)
from conman.git.checks import (
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_SUBMODULE,
    MODE_TREE,
    checked_message,
    checked_path,
    checked_signature,
    checked_target,
)
from conman.git.local_repo import find_commit


@dataclass(frozen=True, slots=True)
class _Leaf:
    mode: int
    id: pygit2.Oid


@dataclass(slots=True)
class _Folder:
    """A folder being edited. `items` holds what was looked at or changed; the rest is read from `tree` when needed."""

    tree: pygit2.Tree | None
    items: dict[str, _Folder | _Leaf | None] = field(default_factory=dict)

    def get(self, name: str) -> _Folder | _Leaf | None:
        if name not in self.items:
            self.items[name] = self._read(name)
        return self.items[name]

    def _read(self, name: str) -> _Folder | _Leaf | None:
        try:
            found = self.tree[name] if self.tree is not None else None
        except pygit2.GitError:
            raise
        except KeyError:
            found = None
        if found is None:
            return None
        if isinstance(found, pygit2.Tree):
            return _Folder(found)
        return _Leaf(int(found.filemode), found.id)

    def write(self, repository: pygit2.Repository) -> pygit2.Oid | None:
        """The id of this folder's tree, None when nothing is left in it (git keeps no empty folders)."""
        builder = repository.TreeBuilder(self.tree) if self.tree is not None else repository.TreeBuilder()
        for name, item in self.items.items():
            if isinstance(item, _Folder):
                if item.tree is not None and not item.items:
                    continue
                written = item.write(repository)
                item = None if written is None else _Leaf(MODE_TREE, written)
            if item is not None:
                builder.insert(name, item.id, item.mode)
            elif builder.get(name) is not None:
                builder.remove(name)
        return builder.write() if len(builder) else None

    def is_empty(self) -> bool:
        """Whether no file is left in it."""
        for name in self.items:
            item = self.items[name]
            if isinstance(item, _Leaf) or (isinstance(item, _Folder) and not item.is_empty()):
                return False
        return self.tree is None or all((item.name or "") in self.items for item in self.tree)


class TreeEdit:
    """File changes on top of a tree, applied one after another in memory until `write`."""

    def __init__(self, operation: str, repository: pygit2.Repository, tree: pygit2.Tree | None) -> None:
        self._operation = operation
        self._repository = repository
        self._root = _Folder(tree)

    def apply(self, change: FileChange) -> None:
        """Raises `StaleFile` or `ChangeRefused`."""
        match change:
            case WriteFile():
                self._write(change)
            case DeleteFile():
                self._file(change.path, change.expected_blob_id)
                self._put(change.path, None)
            case MoveFile():
                self._move(change)

    def put(self, path: str, file: tuple[int, pygit2.Oid] | None) -> None:
        """Set a path to a mode and an object that exists, or remove it, without the checks for what a user may change."""
        self._put(path, None if file is None else _Leaf(*file))

    def at(self, path: str) -> tuple[int, pygit2.Oid | None] | None:
        """Mode and object of what is at a path now (a folder has no object until it is written), None when nothing is.

        Raises `ChangeRefused` for a path that can't be written.
        """
        present = self._look(path)
        return (MODE_TREE, None) if isinstance(present, _Folder) else None if present is None else (present.mode, present.id)

    def write(self) -> pygit2.Oid:
        """Write the changed folders; the id of the root tree."""
        return self._root.write(self._repository) or self._repository.TreeBuilder().write()

    def _write(self, change: WriteFile) -> None:
        present = self._look(change.path)
        if change.expected_blob_id is not None:
            self._expect(change.path, present, change.expected_blob_id)
        if isinstance(present, _Folder):
            raise ChangeRefused(self._operation, change.path, "is a folder")
        if present is not None and present.mode == MODE_SUBMODULE:
            raise ChangeRefused(self._operation, change.path, "is a submodule")
        if change.executable is not None:
            mode = MODE_EXECUTABLE if change.executable else MODE_FILE
        else:
            mode = present.mode if present is not None else MODE_FILE
        self._put(change.path, _Leaf(mode, self._repository.create_blob(change.data)))

    def _move(self, change: MoveFile) -> None:
        source = self._file(change.path, change.expected_blob_id)
        self._put(change.path, None)
        checked_target(self._operation, change.to, source.mode)
        if change.to == change.path or self._look(change.to) is not None:
            raise ChangeRefused(self._operation, change.to, "exists already")
        blob = source.id if change.data is None else self._repository.create_blob(change.data)
        self._put(change.to, _Leaf(source.mode, blob))

    def _file(self, path: str, expected: str | None) -> _Leaf:
        """The file at a path that must hold one."""
        present = self._look(path)
        if expected is not None:
            self._expect(path, present, expected)
        if isinstance(present, _Folder):
            raise ChangeRefused(self._operation, path, "is a folder")
        if present is None:
            raise ChangeRefused(self._operation, path, "does not exist")
        if present.mode == MODE_SUBMODULE:
            raise ChangeRefused(self._operation, path, "is a submodule")
        return present

    def _expect(self, path: str, present: _Folder | _Leaf | None, expected: str) -> None:
        actual = str(present.id) if isinstance(present, _Leaf) else None
        if actual != (expected or None):
            raise StaleFile(self._operation, path, actual)

    def _look(self, path: str) -> _Folder | _Leaf | None:
        """What is at a path now; a folder whose last file has gone is gone too."""
        here: _Folder | _Leaf | None = self._root
        for name in checked_path(self._operation, path).split("/"):
            if isinstance(here, _Leaf):
                return None
            here = here.get(name) if here is not None else None
        return None if isinstance(here, _Folder) and here.is_empty() else here

    def _put(self, path: str, leaf: _Leaf | None) -> None:
        *folders, last = path.split("/")
        here = self._root
        for name in folders:
            below = here.get(name)
            if isinstance(below, _Leaf):
                raise ChangeRefused(self._operation, path, "a file is in the place of its folder")
            if below is None:
                below = here.items[name] = _Folder(None)
            here = below
        here.items[last] = leaf


def commit_files(
    operation: str,
    repository: pygit2.Repository,
    parent: str | None,
    changes: Sequence[FileChange],
    author: Signature,
    message: str,
    committer: Signature,
) -> str:
    """Write a commit of `changes` on top of `parent`; the sha, which no ref reaches yet."""
    base = None if parent is None else find_commit(operation, repository, parent)
    edit = TreeEdit(operation, repository, None if base is None else base.tree)
    for change in changes:
        edit.apply(change)
    parents = [] if base is None else [base.id]
    return write_commit(operation, repository, edit.write(), parents, author, message, committer)


def write_commit(
    operation: str,
    repository: pygit2.Repository,
    tree: pygit2.Oid,
    parents: Sequence[pygit2.Oid],
    author: Signature,
    message: str,
    committer: Signature,
) -> str:
    """Write a commit object; its sha, a function of the arguments alone."""
    made = repository.create_commit(
        None,
        library_signature(operation, author),
        library_signature(operation, committer),
        checked_message(operation, message),
        tree,
        list(parents),
    )
    return str(made)


def library_signature(operation: str, signature: Signature) -> pygit2.Signature:
    """The library's form of a signature."""
    name, email, seconds, minutes = checked_signature(operation, signature)
    return pygit2.Signature(name, email, seconds, minutes)
