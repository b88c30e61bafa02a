"""Writing a commit's files to a folder, without ever leaving it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pygit2

from conman.git.adapter import GitError
from conman.git.checks import MODE_EXECUTABLE, MODE_SYMLINK, is_dot_git, shown
from conman.git.local_repo import find_commit


def export(operation: str, repository: pygit2.Repository, commit: str, destination: Path) -> int:
    """Write a commit's tree below the empty folder `destination` (made when missing); the number of files."""
    return export_tree(operation, repository, find_commit(operation, repository, commit).tree, destination)


def export_tree(operation: str, repository: pygit2.Repository, tree: pygit2.Tree, destination: Path) -> int:
    """Write a tree below the empty folder `destination` (made when missing); the number of files.

    Folders are made and entered by descriptor, and no name is ever followed through a link. Links are written last, so
    that whatever a tree holds, no link of it exists while its files are written.
    """
    _check_names(operation, repository, tree)
    destination.mkdir(parents=True, exist_ok=True)
    with _folder(os.fspath(destination), None) as root:
        with os.scandir(root) as present:
            occupied = next(present, None) is not None
        if occupied:
            raise GitError(operation, "the folder to export to is not empty", safe_to_repeat=False)
        return _write(tree, root, links=False) + _write(tree, root, links=True)


def _check_names(operation: str, repository: pygit2.Repository, tree: pygit2.Tree) -> None:
    """Refuse a tree with names that git itself would never check out, before anything is written."""
    for item in tree:
        name = item.raw_name or b""
        if name in (b"", b".", b"..") or b"/" in name or is_dot_git(shown(name)):
            raise GitError(operation, f"the tree holds the name {shown(name)!r}", safe_to_repeat=False)
        if isinstance(item, pygit2.Tree):
            _check_names(operation, repository, item)


def _write(tree: pygit2.Tree, folder: int, *, links: bool) -> int:
    """Write a tree's links, or all but its links, into the folder that is open as `folder`; the number of files written."""
    count = 0
    for item in tree:
        name = item.raw_name or b""
        if isinstance(item, pygit2.Tree):
            if not links:
                os.mkdir(name, dir_fd=folder)
            with _folder(name, folder) as inner:
                count += _write(item, inner, links=links)
        elif not isinstance(item, pygit2.Blob):
            if not links:
                os.mkdir(name, dir_fd=folder)
        elif (item.filemode == MODE_SYMLINK) == links:
            if links:
                os.symlink(item.data, name, dir_fd=folder)
            else:
                _write_file(item, name, folder)
            count += 1
    return count


def _write_file(blob: pygit2.Blob, name: bytes, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = 0o755 if blob.filemode == MODE_EXECUTABLE else 0o644
    with os.fdopen(os.open(name, flags, mode, dir_fd=folder), "wb") as file:
        file.write(memoryview(blob))


@contextmanager
def _folder(name: str | bytes, parent: int | None) -> Iterator[int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
