"""Dumps of databases in files, as `mongodump` lays them out: `{database}/{collection}.bson` and `{collection}.metadata.json`.

A collection's documents come first and its metadata last, so that a dump without metadata is one that was cut short: the next
attempt goes on after the last whole document. A restore keeps in the clone how far it has come.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote, unquote

from bson import json_util
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from conman.domain.clone import is_copied
from conman.domain.jobs import ReasonCode
from conman.faults import fault_point
from conman.services.clone_copy import Tell
from conman.services.clone_database import RAW, CloneDatabase, Filled, problem_of, raw_collection
from conman.services.clone_source import BATCH_BYTES, CollectionPlan, documents, index_to_make, plans_of
from conman.services.mongo_connections import CloneError
from conman.store.database import Document

DOCUMENTS: Final = ".bson"
METADATA: Final = ".metadata.json"
_LONGEST_NAME = 200
_LENGTH_BYTES = 4
_SHORTEST = 5
_LARGEST_DOCUMENT = 16 * 1024 * 1024 + 16 * 1024
"""What MongoDB takes as one document, bytes: 16 MiB and a little more for what it adds itself."""
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600


_Step = Callable[[int], Awaitable[None]]
"""Shows how many documents of one collection are done."""


def _steps(tell: Tell, total: int) -> Callable[[int, str], _Step]:
    """For each collection what shows how far it is, given how many documents were done before it."""

    def of(before: int, message: str) -> _Step:
        return lambda done: tell(before + done, total, message)

    return of


@dataclass(frozen=True, slots=True)
class DumpedCollection:
    """One collection of a dump: its metadata, and its documents unless it is a view.

    `stamp` tells its file from one of another dump, made on another machine or later: a place in the one is none in the other.
    """

    plan: CollectionPlan
    file: Path
    stamp: str


# -- Dumping


async def dump(
    source: AsyncDatabase[Document], folder: Path, *, batch: int, tell: Tell, still_mine: Callable[[], Awaitable[None]]
) -> None:
    """Write a database below the folder; what an earlier attempt has written stays.

    `still_mine` is asked before each write: two attempts on one machine would write to the same files. Raises `CloneError`, and
    what `still_mine` raises.
    """
    place = folder / quote(source.name, safe="")
    doing = "the collections of the base were listed"
    try:
        plans = await plans_of(source)
        total, done = sum(plan.documents for plan in plans), 0
        step = _steps(tell, total)
        await asyncio.to_thread(_make_private, place)
        for plan in plans:
            doing = f"{plan.name!r} was dumped"
            if not (place / (file_name(plan.name) + METADATA)).exists():
                await _dump_one(source, plan, place, batch, step(done, f"dumps {plan.name}"), still_mine)
                fault_point("dump.collection")
            done += plan.documents
        await tell(done, total, "dumped")
    except PyMongoError as error:
        raise problem_of(error, doing) from None
    except OSError as error:
        raise CloneError(
            f"the dump can't be written: {error.strerror or type(error).__name__}", reason=ReasonCode.INFRASTRUCTURE, again=True
        ) from error


async def _dump_one(
    source: AsyncDatabase[Document],
    plan: CollectionPlan,
    place: Path,
    batch: int,
    tell: _Step,
    still_mine: Callable[[], Awaitable[None]],
) -> None:
    file = place / (file_name(plan.name) + DOCUMENTS)
    await still_mine()
    if not plan.is_view:
        last, done = await asyncio.to_thread(_cut_to_whole, file, plan.in_natural_order)
        read = raw_collection(source, plan.name)
        async for held in documents(read, plan, batch, after=last):
            await still_mine()
            await asyncio.to_thread(_append, file, held)
            fault_point("dump.batch")
            done += len(held)
            await tell(done)
        await asyncio.to_thread(_keep, file)
    metadata = {
        "options": plan.options,
        "indexes": plan.indexes,
        "collectionName": plan.name,
        "type": plan.kind,
    }
    await asyncio.to_thread(_write_metadata, place / (file_name(plan.name) + METADATA), metadata)


def file_name(collection: str) -> str:
    """The name of a collection's files without their ending; the metadata has the collection's own name."""
    escaped = quote(collection, safe="")
    if len(escaped) <= _LONGEST_NAME:
        return escaped
    digest = hashlib.sha256(collection.encode()).hexdigest()[:24]
    cut = escaped[: _LONGEST_NAME - len(digest) - 3]
    return f"{cut[: cut.rfind('%')] if '%' in cut[-2:] else cut}%24{digest}"


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
    folder.parent.chmod(_PRIVATE_FOLDER)


def _cut_to_whole(file: Path, anew: bool) -> tuple[RawBSONDocument | None, int]:
    """Cut what a kill left half-written; the last whole document, and how many there are."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
    with os.fdopen(descriptor, "r+b") as opened:
        if anew:
            opened.truncate(0)
            return None, 0
        last: tuple[int, int] | None = None
        count = 0
        for place, length in _places(opened):
            last, count = (place, length), count + 1
        end = sum(last) if last is not None else 0
        opened.truncate(end)
        if last is None:
            return None, 0
        opened.seek(last[0])
        return RawBSONDocument(opened.read(last[1]), RAW), count


def _append(file: Path, held: list[RawBSONDocument]) -> None:
    with file.open("ab") as opened:
        opened.writelines(document.raw for document in held)


def _keep(file: Path) -> None:
    """Onto the disk, before its metadata says that it is whole: those must not outlive a loss of power without it."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _write_metadata(file: Path, metadata: dict[str, Any]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    text = json_util.dumps(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE), "w", encoding="utf-8") as opened:
        opened.write(text)
    partial.replace(file)


def _places(opened: BinaryIO) -> Iterator[tuple[int, int]]:
    """Place and length of each whole document, up to the end or to what is none."""
    size = os.fstat(opened.fileno()).st_size
    place = 0
    while place + _SHORTEST <= size:
        opened.seek(place)
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little", signed=True)
        if not _SHORTEST <= length <= _LARGEST_DOCUMENT or place + length > size:
            return
        yield place, length
        place += length


# -- Restoring


async def restore(folder: Path, clone: CloneDatabase, *, batch: int, tell: Tell) -> Filled:
    """Fill a clone from a dump; what an earlier attempt has restored stays. Raises `CloneError`."""
    doing = "the clone was looked at"
    try:
        dumped = await asyncio.to_thread(read_dump, folder)
        total, done = sum(one.plan.documents for one in dumped), 0
        step = _steps(tell, total)
        for one in dumped:
            doing = f"{one.plan.name!r} was restored"
            await _restore_one(one, clone, batch, step(done, f"restores {one.plan.name}"))
            done += one.plan.documents
        return Filled("restored", sum(not one.plan.is_view for one in dumped), done)
    except PyMongoError as error:
        raise problem_of(error, doing) from None
    except OSError as error:
        raise CloneError(f"the dump can't be read: {error.strerror or type(error).__name__}") from error


async def _restore_one(one: DumpedCollection, clone: CloneDatabase, batch: int, tell: _Step) -> None:
    plan, file = one.plan, file_name(one.plan.name)
    journal = await clone.restored(file)
    if journal.get("whole"):
        return
    goes_on = journal.get("of") == one.stamp and not plan.in_natural_order
    if not goes_on:
        await clone.drop_collection(plan.name)
        await clone.create(plan.name, plan.options)
        await clone.note_restored(file, of=one.stamp, place=0, documents=0)
    place: int = journal["place"] if goes_on else 0
    done: int = journal["documents"] if goes_on else 0
    while not plan.is_view:
        held, place = await asyncio.to_thread(_read_batch, one.file, place, batch)
        if not held:
            break
        await clone.still_mine()
        await clone.insert(plan.name, held, ordered=plan.in_natural_order)
        fault_point("restore.batch")
        done += len(held)
        await clone.note_restored(file, place=place, documents=done)
        await tell(done)
    await clone.still_mine()
    await clone.index(plan.name, plan.indexes)
    await clone.note_restored(file, whole=True)


def _read_batch(file: Path, place: int, batch: int) -> tuple[list[RawBSONDocument], int]:
    """The next documents from a place on, and the place after them. Raises `CloneError` for what is no document."""
    held: list[RawBSONDocument] = []
    size = 0
    with file.open("rb") as opened:
        opened.seek(place)
        while len(held) < batch and size < BATCH_BYTES:
            head = opened.read(_LENGTH_BYTES)
            if not head:
                break
            length = int.from_bytes(head, "little", signed=True)
            if not _SHORTEST <= length <= _LARGEST_DOCUMENT:
                raise _damaged(file, place + size)
            try:
                held.append(RawBSONDocument(head + opened.read(length - _LENGTH_BYTES), RAW))
            except BSONError:
                raise _damaged(file, place + size) from None
            size += length
    return held, place + size


def _damaged(file: Path, place: int) -> CloneError:
    return CloneError(f"{file.name} is damaged at byte {place}: make the dump anew")


def read_dump(folder: Path) -> list[DumpedCollection]:
    """The collections of the one database in a dump, views last. Raises `CloneError`, and `OSError` for what can't be read."""
    places = [folder, *(child for child in sorted(folder.iterdir()) if child.is_dir())]
    filled = [place for place in places if any(place.glob(f"*{METADATA}"))]
    if len(filled) != 1:
        what = "no collection" if not filled else f"{len(filled)} databases"
        raise CloneError(f"the dump {folder.name} holds {what}, and must hold one database, uncompressed")
    found = [_read_metadata(file) for file in sorted(filled[0].glob(f"*{METADATA}"))]
    copied = [one for one in found if is_copied(one.plan.name)]
    return sorted(copied, key=lambda one: (one.plan.is_view, one.plan.name))


def _read_metadata(file: Path) -> DumpedCollection:
    stem = file.name.removesuffix(METADATA)
    try:
        metadata: dict[str, Any] = json_util.loads(file.read_text(encoding="utf-8"))
        options: Document = metadata.get("options") or {}
        indexes = [dict(index) for index in metadata.get("indexes") or []]
        made = [index_to_make(index, options) for index in indexes if list(index["key"].items()) != [("_id", 1)]]
        name: str = metadata.get("collectionName") or unquote(stem)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CloneError(f"{file.name} is no metadata of a collection: make the dump anew") from None
    documents_file = file.with_name(stem + DOCUMENTS)
    plan = CollectionPlan(name, options, made, metadata.get("type") or "collection")
    if plan.is_view:
        return DumpedCollection(plan, documents_file, stamp="")
    with documents_file.open("rb") as opened:
        status = os.fstat(opened.fileno())
        count = sum(1 for _ in _places(opened))
    stamp = f"{status.st_size}:{status.st_mtime_ns}"
    return DumpedCollection(CollectionPlan(plan.name, options, made, plan.kind, count), documents_file, stamp)
