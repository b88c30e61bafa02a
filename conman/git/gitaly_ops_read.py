"""Reading in operations mode: history, folders, files, comparisons and exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import pygit2

from conman.git import local_diff, local_export
from conman.git.adapter import ChangedPath, Commit, EntryType, FileContent, FileDiff, TreeEntry
from conman.git.checks import MODE_TREE, checked_folder, entry_type, shown
from conman.git.gitaly_channel import GitalyError, Kind
from conman.git.gitaly_ops_commits import metadata
from conman.git.gitaly_ops_merge import Version, placed, version_of
from conman.git.gitaly_ops_needs import Needs, Side, of_tree, to_compare
from conman.git.gitaly_ops_remote import Place, Remote
from conman.git.gitaly_ops_session import Session
from conman.git.local_read import items_below
from conman.git.proto import gitaly_pb2 as pb

_MOST_COMMITS = 2**31 - 1


async def log(remote: Remote, head: str, exclude: str | None, first_parent: bool, limit: int) -> list[Commit]:
    """Newest first, children before parents; with `first_parent`, the chain of first parents within the same commits."""
    found = await remote.commits(head, *([] if exclude is None else [exclude]))
    if limit <= 0:
        return []
    request = pb.ListCommitsRequest(
        repository=remote.address,
        revisions=[found[0].id, *(f"^{commit.id}" for commit in found[1:])],
        # By time, but never a parent before its child: the order of every other backend.
        order=pb.ListCommitsRequest.DATE,
        first_parent=first_parent,
        pagination_params=pb.PaginationParameter(limit=min(limit, _MOST_COMMITS)),
    )
    method = remote.channel.stubs.commits.ListCommits
    replies = await remote.channel.read_all(remote.operation, method, request, kind=Kind.LONG)
    return [metadata(commit) for reply in replies for commit in reply.commits][:limit]


async def list_tree(session: Session, commit: str, path: str, recursive: bool) -> list[TreeEntry]:
    """Entries below a folder, sorted by the bytes of their paths. Raises `ObjectMissing`."""
    [found] = await session.trees(commit)

    def work(repository: pygit2.Repository) -> list[tuple[bytes, int, str]]:
        items = items_below(session.operation, _tree(repository, found.tree_id), path, recursive)
        return [(name, int(item.filemode), str(item.id)) for name, item in items]

    listed = await session.run(work)
    contents = {one: (found.id, name) for name, mode, one in listed if _has_size(mode)}
    sizes = await _sizes(session, contents)
    return [
        TreeEntry(shown(name), entry_type(mode), mode, one, sizes[one] if _has_size(mode) else None) for name, mode, one in listed
    ]


async def entry(remote: Remote, commit: str, path: str) -> TreeEntry | None:
    """The entry at a path, None when there is none."""
    [found] = await remote.commits(commit)
    if not checked_folder(remote.operation, path):
        return TreeEntry("", EntryType.TREE, MODE_TREE, found.tree_id, None)
    # One byte of a file is the least that can be asked for: a limit of zero means all of it.
    there = await _tree_entry(remote, found.id, path, limit=1)
    if there is None:
        return None
    first, _ = there
    size = first.size if _has_size(first.mode) else None
    return TreeEntry(path, entry_type(first.mode), first.mode, first.oid, size)


async def read_file(remote: Remote, commit: str, path: str) -> FileContent | None:
    """The content at a path, None when no blob is there."""
    [found] = await remote.commits(commit)
    if not checked_folder(remote.operation, path):
        return None
    there = await _tree_entry(remote, found.id, path, limit=0)
    if there is None or there[0].type != pb.TreeEntryResponse.BLOB:
        return None
    first, data = there
    return FileContent(path, first.oid, first.mode, data)


async def changed_paths(session: Session, base: str, head: str, renames: bool) -> list[ChangedPath]:
    """Paths that differ, sorted by the bytes of the path."""
    old, new = await session.trees(base, head)
    await _fetch_compared(session, old, new, renames=renames, paths=None, patches=False)

    def work(repository: pygit2.Repository) -> list[ChangedPath]:
        return local_diff.changed_between(_tree(repository, old.tree_id), _tree(repository, new.tree_id), renames)

    return await session.run(work)


async def diff(
    session: Session, base: str, head: str, paths: Sequence[str] | None, renames: bool, context: int
) -> list[FileDiff]:
    """Unified patches, sorted by the bytes of the path; only those of `paths` are computed."""
    old, new = await session.trees(base, head)
    await _fetch_compared(session, old, new, renames=renames, paths=paths, patches=True)

    def work(repository: pygit2.Repository) -> list[FileDiff]:
        before, after = _tree(repository, old.tree_id), _tree(repository, new.tree_id)
        return local_diff.diff_between(before, after, paths, renames, context)

    return await session.run(work)


async def export(session: Session, commit: str, destination: Path) -> int:
    """Write a commit's tree below a folder; the number of files."""
    [found] = await session.trees(commit)
    needs = await session.run(lambda repository: of_tree(_tree(repository, found.tree_id)))
    await session.fetch_blobs(placed(needs, {Side.NEW: version_of(found)}))

    def work(repository: pygit2.Repository) -> int:
        return local_export.export_tree(session.operation, repository, _tree(repository, found.tree_id), destination)

    return await session.run(work)


async def _fetch_compared(
    session: Session, old: pb.GitCommit, new: pb.GitCommit, *, renames: bool, paths: Sequence[str] | None, patches: bool
) -> None:
    def work(repository: pygit2.Repository) -> Needs:
        before, after = _tree(repository, old.tree_id), _tree(repository, new.tree_id)
        return to_compare(before, after, renames=renames, paths=None if session.thorough else paths, patches=patches)

    versions: dict[Side, Version] = {Side.OLD: version_of(old), Side.NEW: version_of(new)}
    await session.fetch_blobs(placed(await session.run(work), versions))


async def _tree_entry(remote: Remote, commit: str, path: str, *, limit: int) -> tuple[pb.TreeEntryResponse, bytes] | None:
    """What the server has at a path, with the bytes of a blob (verified when they are all, with a limit of zero).

    None when nothing is there, as under a name that no bytes make.
    """
    try:
        name = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    request = pb.TreeEntryRequest(repository=remote.address, revision=commit.encode(), path=name, limit=limit)
    method = remote.channel.stubs.commits.TreeEntry

    async def once() -> tuple[pb.TreeEntryResponse, bytes] | None:
        async with remote.channel.stream(remote.operation, method, request) as messages:
            replies = [message async for message in messages]
        if not replies:
            raise GitalyError(remote.operation, grpc.StatusCode.OK, "it has no message")
        first, data = replies[0], b"".join(reply.data for reply in replies)
        if first.type == pb.TreeEntryResponse.BLOB and first.oid and not limit:
            remote.whole(first.oid, data)
        return (first, data) if first.oid else None

    try:
        return await remote.channel.repeated(once)
    except GitalyError as error:
        if error.code is not grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def _sizes(session: Session, contents: dict[str, Place]) -> dict[str, int]:
    """The sizes of blobs: of those in the store from there, of the others from the server."""
    known = session.store.sizes
    unknown = [one for one in contents if one not in known]

    def work(repository: pygit2.Repository) -> dict[str, int]:
        there = set(unknown) - set(session.store.missing(unknown))
        return {one: repository.odb.read_header(pygit2.Oid(hex=one))[1] for one in there}

    found = await session.run(work) if unknown else {}
    lacking = {one: contents[one] for one in unknown if one not in found}
    found |= await session.sizes(lacking)
    session.store.remember(found)
    return {one: known[one] if one in known else found[one] for one in contents}


def _has_size(mode: int) -> bool:
    return entry_type(mode) in (EntryType.BLOB, EntryType.SYMLINK)


def _tree(repository: pygit2.Repository, sha: str) -> pygit2.Tree:
    return repository[sha].peel(pygit2.Tree)
