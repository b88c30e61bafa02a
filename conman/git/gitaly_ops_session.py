"""One call of the port on one repository of a Gitaly server: its commits by RPC, its trees and blobs in the local store.

Commits stay on the server (one that is signed or odd can't be rebuilt from what the RPCs say of it). Trees are rebuilt from
listings and blobs are streamed into the store, each verified by its name, whenever a step needs one that is not there yet.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import pygit2

from conman.git.adapter import GitError, ObjectMissing
from conman.git.checks import MODE_TREE
from conman.git.gitaly_channel import GitalyChannel
from conman.git.gitaly_objects import Item, ObjectStore, ObjectWriter, WrongObject, object_id, tree_bytes
from conman.git.gitaly_ops_remote import ALL_BYTES, BLOBS_AT_A_TIME, ROOT, Place, Remote, batches
from conman.git.library import run_in
from conman.git.proto import gitaly_pb2 as pb

_Result = TypeVar("_Result")

FOLDERS_AT_A_TIME = 16
"""Folders that are listed one by one, at once; when more are missing, the whole tree is listed in one call."""
BATCH_BYTES = 8 * 1024 * 1024
"""Content that is gathered in memory before it is written; a blob that is larger goes to the disk piece by piece."""
_UNLISTABLE = (b"", b".", b"..")
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


class Session(Remote):
    """What the steps of one call share. `thorough` is set when it is made again after the store was found damaged."""

    def __init__(
        self,
        operation: str,
        repo: str,
        channel: GitalyChannel,
        store: ObjectStore,
        threads: ThreadPoolExecutor,
        *,
        thorough: bool = False,
    ) -> None:
        super().__init__(operation, repo, channel)
        self.store = store
        self.thorough = thorough
        self._threads = threads

    async def run(self, work: Callable[[pygit2.Repository], _Result]) -> _Result:
        """Run `work` in a thread on the store. Raises `StoreDamaged`, or else only `GitError`."""
        return await self.aside(lambda: self.store.read(self.operation, work))

    async def aside(self, work: Callable[[], _Result]) -> _Result:
        """Run what blocks in a thread."""
        return await run_in(self._threads, self.operation, work)

    async def trees(self, *revisions: str) -> list[pb.GitCommit]:
        """`commits`, with their trees in the store."""
        found = await self.commits(*revisions)
        for commit in found:
            await self.fetch_tree(commit)
        return found

    async def fetch_tree(self, commit: pb.GitCommit) -> None:
        """Have a commit's whole tree in the store. Raises `GitError` for one that the server's listing can't express."""
        if not self.store.missing([commit.tree_id]):
            return
        if commit.tree_id == EMPTY_TREE:
            await self.aside(lambda: self.store.write("tree", b"", EMPTY_TREE))
            return
        folders = await self._missing_folders(commit, FOLDERS_AT_A_TIME) or await self._all_folders(commit)
        if await self.aside(partial(self._write_trees, folders, commit.tree_id)):
            return
        # What a listing of everything does not show: a folder without files, a name with a slash.
        folders = await self._missing_folders(commit, None) or {}
        if not await self.aside(partial(self._write_trees, folders, commit.tree_id)):
            message = f"the tree of {commit.id} holds what the server's listing does not show"
            raise GitError(self.operation, message, safe_to_repeat=True)

    async def fetch_blobs(self, wanted: Mapping[str, Place | None]) -> None:
        """Have blobs in the store; those with a place come many in one call. Raises `ObjectMissing`."""
        missing = await self.aside(lambda: self.store.missing(wanted))
        places = [place for place in (wanted[one] for one in missing) if place is not None]
        for batch in batches(places, BLOBS_AT_A_TIME):
            await self._fetch_placed(batch)
        for one in await self.aside(lambda: self.store.missing(missing)):
            await self._fetch_blob(one)

    async def _missing_folders(self, commit: pb.GitCommit, most: int | None) -> dict[bytes, list[Item]] | None:
        """The folders of a tree that the store lacks, level by level; None when a level lacks more than `most`.

        None too for a folder whose name, which no honest program writes, can't be asked for.
        """
        folders: dict[bytes, list[Item]] = {}
        pending = [b""]
        while pending:
            if most is not None and len(pending) > most:
                return None
            listed: list[list[Item]] = []
            for batch in batches(pending, FOLDERS_AT_A_TIME):
                listed += await asyncio.gather(*(self._folder(commit.id, path) for path in batch))
            folders.update(zip(pending, listed, strict=True))
            below = {
                path + item.name: item.id
                for path, items in zip(pending, listed, strict=True)
                for item in items
                if item.mode == MODE_TREE
            }
            if any(path.rsplit(b"/", 1)[-1] in _UNLISTABLE for path in below):
                return None
            lacking = set(self.store.missing(below.values()))
            pending = [path + b"/" for path, one in below.items() if one in lacking]
        return folders

    async def _folder(self, commit: str, path: bytes) -> list[Item]:
        listed = await self.listing(commit, path.rstrip(b"/") or ROOT, recursive=False)
        return [Item(entry.path[len(path) :], entry.mode, entry.oid) for entry in listed]

    async def _all_folders(self, commit: pb.GitCommit) -> dict[bytes, list[Item]]:
        folders: dict[bytes, list[Item]] = {b"": []}
        for entry in await self.listing(commit.id, ROOT, recursive=True):
            if entry.mode == MODE_TREE:
                # Not every server lists them, and their ids follow from what is in them.
                _folder_of(folders, entry.path + b"/")
            else:
                above, slash, name = entry.path.rpartition(b"/")
                _folder_of(folders, above + slash).append(Item(name, entry.mode, entry.oid))
        return folders

    def _write_trees(self, folders: Mapping[bytes, Sequence[Item]], root: str) -> bool:
        """Write folders from the leaves up, so that none is there before all that is in it; whether the root has its name.

        An item without an id stands for the folder of that path.
        """
        ids: dict[bytes, str] = {}
        made: list[bytes] = []
        for path in sorted(folders, key=lambda path: (-path.count(b"/"), path)):
            items = [Item(item.name, item.mode, item.id or ids[path + item.name + b"/"]) for item in folders[path]]
            made.append(tree_bytes(items))
            ids[path] = object_id("tree", made[-1])
        named = {path + item.name + b"/": item.id for path, items in folders.items() for item in items if item.id}
        if ids.get(b"") != root or any(ids[path] != one for path, one in named.items() if path in ids):
            return False
        for data in made:
            self.store.write("tree", data)
        return True

    async def _fetch_placed(self, places: Sequence[Place]) -> None:
        """Blobs one after another as the server sends them; one that does not come is not missed here."""

        async def once() -> None:
            async with self.channel.stream(
                self.operation, self.channel.stubs.blobs.GetBlobs, self.blobs_request(places, ALL_BYTES)
            ) as messages:
                await self._keep(messages)

        # A place that a server can't look up fails the call as a whole; then they are fetched by their ids.
        await self.unless_missing(lambda: self.channel.repeated(once))

    async def _fetch_blob(self, blob_id: str) -> None:
        async def once() -> None:
            async with self.blob(blob_id) as messages:
                await self._keep(messages)

        await self.unless_missing(lambda: self.channel.repeated(once))
        if self.store.missing([blob_id]):
            raise ObjectMissing(self.operation, f"blob {blob_id!r}")

    async def _keep(self, messages: AsyncIterator[Any]) -> None:
        """Write blobs as they arrive in pieces: small ones together, a large one piece by piece."""
        blob_id, small, held = "", defaultdict[str, list[bytes]](list), 0
        writing: ObjectWriter | None = None
        try:
            with ExitStack() as open_blob:
                async for message in messages:
                    if message.oid or getattr(message, "revision", ""):
                        await self.aside(open_blob.close)
                        blob_id, writing = message.oid, None
                        if held > BATCH_BYTES:
                            await self._write_blobs(small)
                            held = 0
                        if message.size > BATCH_BYTES:
                            store, size = self.store.writer, message.size
                            writing = await self.aside(partial(open_blob.enter_context, store("blob", size, blob_id)))
                    if writing is not None:
                        await self.aside(partial(writing.add, message.data))
                    elif blob_id:
                        small[blob_id].append(message.data)
                        held += len(message.data)
                await self.aside(open_blob.close)
            await self._write_blobs(small)
        except WrongObject as error:
            raise GitError(self.operation, f"the server sent another object: {error}", safe_to_repeat=True) from error

    async def _write_blobs(self, pieces: dict[str, list[bytes]]) -> None:
        blobs = {one: b"".join(parts) for one, parts in pieces.items()}
        pieces.clear()
        await self.aside(lambda: self.store.write_all(blobs))


def _folder_of(folders: dict[bytes, list[Item]], path: bytes) -> list[Item]:
    """The items of a folder (its path ends with a slash), which is put into the folders above it when it is new."""
    if path not in folders:
        folders[path] = []
        above, slash, name = path[:-1].rpartition(b"/")
        _folder_of(folders, above + slash).append(Item(name, MODE_TREE, ""))
    return folders[path]
