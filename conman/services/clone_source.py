"""What is to be copied of a base database: its collections with their options and indexes, and their documents in order."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from conman.domain.clone import is_copied
from conman.services.clone_database import Raw
from conman.store.database import Document

BATCH_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of documents that are held at once, a largest document more: what bounds the worker's memory."""

_ORDER: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("minKey", (MinKey,)),
    ("null", (type(None),)),
    ("double", (float,)),
    ("int", (int,)),
    ("long", (Int64,)),
    ("decimal", (Decimal128, Decimal)),
    ("string", (str,)),
    ("object", (Mapping,)),
    ("array", (list,)),
    ("binData", (Binary, bytes)),
    ("objectId", (ObjectId,)),
    ("bool", (bool,)),
    ("date", ()),
    ("timestamp", (Timestamp,)),
    ("regex", (Regex,)),
    ("javascript", (Code,)),
    ("maxKey", (MaxKey,)),
)
"""MongoDB's types in the order in which it sorts values of different ones; numbers are one place."""
_NUMBERS: Final = frozenset({"double", "int", "long", "decimal"})


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """One collection or view of a base."""

    name: str
    options: Document = field(default_factory=dict[str, Any])
    indexes: list[Document] = field(default_factory=list[Document])
    kind: str = "collection"
    documents: int = 0

    @property
    def is_view(self) -> bool:
        """Whether it only shows others."""
        return "viewOn" in self.options

    @property
    def in_natural_order(self) -> bool:
        """Whether its documents come in the order in which they were written, and have no order of ids to go on in."""
        return bool(self.options.get("capped")) or "timeseries" in self.options

    @property
    def can_be_renamed(self) -> bool:
        """Whether it can be made under another name first."""
        return "timeseries" not in self.options


async def plans_of(database: AsyncDatabase[Document]) -> list[CollectionPlan]:
    """What goes into a clone, views last, since they show the rest. Raises `PyMongoError`."""
    found: list[CollectionPlan] = []
    async for listed in await database.list_collections():
        name: str = listed["name"]
        if not is_copied(name):
            continue
        options = {key: value for key, value in listed.get("options", {}).items() if key not in ("autoIndexId", "temp")}
        kind: str = listed.get("type", "collection")
        if kind == "view":
            found.append(CollectionPlan(name, options, kind=kind))
            continue
        indexes = [index_to_make(row, options) for row in await _listed_indexes(database, name) if not _comes_by_itself(row)]
        documents = await database[name].estimated_document_count()
        found.append(CollectionPlan(name, options, indexes, kind, documents))
    return sorted(found, key=lambda plan: (plan.is_view, plan.name))


async def _listed_indexes(database: AsyncDatabase[Document], name: str) -> list[Document]:
    rows = [dict(row) for row in await (await database[name].list_indexes()).to_list()]
    return sorted(rows, key=lambda row: str(row["name"]))


def _comes_by_itself(index: Document) -> bool:
    return list(index["key"].items()) == [("_id", 1)] or bool(index.get("clustered"))


def index_to_make(listed: Document, options: Document) -> Document:
    """An index as it is made, from how it was listed.

    Where the collection has a collation, an index without one compares plainly, and has to say so.
    """
    made = {key: value for key, value in listed.items() if key not in ("ns", "background")}
    if "collation" in options and "collation" not in made:
        made["collation"] = {"locale": "simple"}
    return made


async def size_of(database: AsyncDatabase[Document]) -> int:
    """Bytes of its documents, uncompressed. Raises `PyMongoError`."""
    return int((await database.command("dbStats"))["dataSize"])


async def documents(
    collection: Raw, plan: CollectionPlan, batch: int, *, after: RawBSONDocument | None = None
) -> AsyncIterator[list[RawBSONDocument]]:
    """Its documents in batches, in the order of their ids where they have one, those after `after` only.

    Raises `PyMongoError`.
    """
    query = {} if after is None else after_id(after["_id"])
    cursor = collection.find(query, batch_size=min(batch, 1000), no_cursor_timeout=False)
    if not plan.in_natural_order:
        cursor = cursor.sort([("_id", ASCENDING)])
    held: list[RawBSONDocument] = []
    size = 0
    async for document in cursor:
        held.append(document)
        size += len(document.raw)
        if len(held) >= batch or size >= BATCH_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


async def last_of(collection: Raw) -> RawBSONDocument | None:
    """The document with the greatest id, None of an empty collection."""
    try:
        return await collection.find_one({}, sort=[("_id", -1)])
    except OperationFailure:
        return None


def after_id(last: Any) -> Document:
    """What finds the documents whose ids sort after `last`, of whatever type these are.

    MongoDB's `$gt` finds values of the same type only; those of the types that sort later are added.
    """
    names = [name for name, _ in _ORDER]
    type_name = next((name for name, types in _ORDER if types and isinstance(last, types) and _is_it(name, last)), "date")
    place = max(names.index(name) for name in _NUMBERS) if type_name in _NUMBERS else names.index(type_name)
    if type_name == "maxKey":
        return {"_id": {"$in": []}}
    of_later_type = {"_id": {"$not": {"$type": names[: place + 1]}}}
    if type_name in ("minKey", "null"):
        return of_later_type
    return {"$or": [{"_id": {"$gte": -math.inf} if _is_nan(last) else {"$gt": last}}, of_later_type]}


def _is_it(name: str, value: Any) -> bool:
    """A `bool` is an `int` too in Python, and a `Code` a `str`."""
    return isinstance(value, bool) == (name == "bool") and isinstance(value, Code) == (name == "javascript")


def _is_nan(value: Any) -> bool:
    if isinstance(value, Decimal128):
        return value.to_decimal().is_nan()
    return isinstance(value, float) and math.isnan(value)
