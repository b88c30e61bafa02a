"""Reading commits, trees and blobs in the local adapter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import islice

import pygit2
from pygit2.enums import SortMode

from conman.git.adapter import Commit, EntryType, FileContent, ObjectMissing, Signature, TreeEntry
from conman.git.checks import (
    MODE_TREE,
    checked_folder,
    entry_type,
    shown,
    trailers,
)
from conman.git.listings import MOST_ENTRIES, Folder, Listings
from conman.git.local_repo import find_commit

_LISTINGS = Listings(MOST_ENTRIES)


def commit_metadata(commit: pygit2.Commit) -> Commit:
    """Our view of a commit; text that is not in its encoding is shown with replacement characters."""
    message = _decoded(commit.raw_message, commit.message_encoding)
    return Commit(
        sha=str(commit.id),
        tree_id=str(commit.tree_id),
        parents=tuple(str(parent) for parent in commit.parent_ids),
        author=_signature(commit.author),
        committer=_signature(commit.committer),
        message=message,
        trailers=trailers(message),
    )


def log(
    operation: str,
    repository: pygit2.Repository,
    head: str,
    exclude: str | None,
    first_parent: bool,
    limit: int,
) -> list[Commit]:
    """Newest first, children before parents; with `first_parent`, the chain of first parents within the same commits."""
    start = find_commit(operation, repository, head)
    walker = repository.walk(start.id, SortMode.TOPOLOGICAL | SortMode.TIME)
    if exclude is not None:
        walker.hide(find_commit(operation, repository, exclude).id)
    if not first_parent:
        return [commit_metadata(commit) for commit in islice(walker, max(limit, 0))]
    if exclude is None:
        walker.simplify_first_parent()
        return [commit_metadata(commit) for commit in islice(walker, max(limit, 0))]
    within = {commit.id: commit for commit in walker}
    chain: list[Commit] = []
    commit = within.get(start.id)
    while commit is not None and len(chain) < limit:
        chain.append(commit_metadata(commit))
        commit = within.get(commit.parent_ids[0]) if commit.parent_ids else None
    return chain


def merge_base(operation: str, repository: pygit2.Repository, one: str, two: str) -> str | None:
    """The best common ancestor, None when there is none."""
    first = find_commit(operation, repository, one)
    second = find_commit(operation, repository, two)
    # The library answers None for unrelated commits, which its type stubs leave out.
    base: pygit2.Oid | None = repository.merge_base(first.id, second.id)
    return None if base is None else str(base)


def contains(repository: pygit2.Repository, descendant: pygit2.Commit, ancestor: pygit2.Commit) -> bool:
    """Whether a commit is, or descends from, another."""
    return descendant.id == ancestor.id or repository.descendant_of(descendant.id, ancestor.id)


def list_tree(operation: str, repository: pygit2.Repository, commit: str, path: str, recursive: bool) -> list[TreeEntry]:
    """Entries below a folder, sorted by the bytes of their paths. Raises `ObjectMissing`."""
    tree = find_commit(operation, repository, commit).tree

    def read() -> list[TreeEntry]:
        return [_entry(repository, shown(name), item) for name, item in items_below(operation, tree, path, recursive)]

    return _LISTINGS.get(Folder(str(repository.path), str(tree.id), path, recursive), read)


def items_below(operation: str, tree: pygit2.Tree, path: str, recursive: bool) -> list[tuple[bytes, pygit2.Object]]:
    """What a tree has below a folder (`recursive`: its leaves), with whole paths, sorted by their bytes.

    Raises `ObjectMissing` when no folder is there.
    """
    folder = find_object(tree, checked_folder(operation, path))
    if not isinstance(folder, pygit2.Tree):
        raise ObjectMissing(operation, f"folder {path!r}")
    found: list[tuple[bytes, pygit2.Object]] = []
    pending = [(f"{path}/".encode() if path else b"", folder)]
    while pending:
        prefix, tree = pending.pop()
        for item in tree:
            name = prefix + (item.raw_name or b"")
            if recursive and isinstance(item, pygit2.Tree):
                pending.append((name + b"/", item))
            else:
                found.append((name, item))
    found.sort(key=lambda pair: pair[0])
    return found


def entry(operation: str, repository: pygit2.Repository, commit: str, path: str) -> TreeEntry | None:
    """The entry at a path, None when there is none."""
    tree = find_commit(operation, repository, commit).tree
    names = checked_folder(operation, path)
    if not names:
        return TreeEntry("", EntryType.TREE, MODE_TREE, str(tree.id), None)
    found = find_object(tree, names)
    return None if found is None else _entry(repository, path, found)


def read_file(operation: str, repository: pygit2.Repository, commit: str, path: str) -> FileContent | None:
    """The content at a path, None when no blob is there."""
    found = find_object(find_commit(operation, repository, commit).tree, checked_folder(operation, path))
    if not isinstance(found, pygit2.Blob):
        return None
    return FileContent(path, str(found.id), int(found.filemode), found.data)


def read_blob(operation: str, repository: pygit2.Repository, blob_id: str) -> bytes:
    """A blob's bytes. Raises `ObjectMissing`."""
    found = repository.get(blob_id) if len(blob_id) == pygit2.GIT_OID_HEXSZ else None
    if not isinstance(found, pygit2.Blob):
        raise ObjectMissing(operation, f"blob {blob_id!r}")
    return found.data


def find_object(tree: pygit2.Tree, names: list[str]) -> pygit2.Object | None:
    """What is at a path below a tree, None when there is nothing."""
    found: pygit2.Object = tree
    for name in names:
        if not isinstance(found, pygit2.Tree):
            return None
        try:
            found = found[name]
        except pygit2.GitError:
            # The tree itself is missing or damaged, which the library says as a KeyError too.
            raise
        except KeyError:
            return None
    return found


def _entry(repository: pygit2.Repository, path: str, item: pygit2.Object) -> TreeEntry:
    mode = int(item.filemode)
    kind = entry_type(mode)
    size = None
    if kind in (EntryType.BLOB, EntryType.SYMLINK):
        # The header alone: opening each blob would read its content.
        size = repository.odb.read_header(item.id)[1]
    return TreeEntry(path, kind, mode, str(item.id), size)


def _signature(signature: pygit2.Signature) -> Signature:
    zone = timezone(timedelta(minutes=signature.offset)) if abs(signature.offset) < 24 * 60 else UTC
    when = datetime.fromtimestamp(signature.time, UTC).astimezone(zone)
    return Signature(shown(signature.raw_name), shown(signature.raw_email), when)


def _decoded(text: bytes, encoding: str | None) -> str:
    try:
        return text.decode(encoding or "utf-8", "replace")
    except LookupError:
        return shown(text)
