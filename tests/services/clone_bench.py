"""A base database with odd documents, clones of it, and processes that fill them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bson import (
    SON,
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from pymongo import AsyncMongoClient

from conman.domain.ids import random_uuid7
from conman.domain.temp_env import temp_database
from conman.services.clone_database import CloneDatabase, raw_collection
from conman.services.clone_source import CollectionPlan, plans_of
from conman.services.mongo_connections import connection_of

WORDS = "ünï.cödé 漢字"
ODD: list[dict[str, Any]] = [
    {"_id": MinKey(), "kind": "least"},
    {"_id": None, "nothing": None},
    {"_id": float("-inf"), "double": -0.0},
    {"_id": 7, "int": 2**31 - 1, "long": Int64(5), "long64": Int64(2**63 - 1)},
    {"_id": 7.5, "decimal": Decimal128("1.10"), "not a number": float("nan")},
    {"_id": Decimal128("9.90"), "text": "a\0b ü 漢字", "empty": ""},
    {"_id": "zz", "nested": {"b": 1, "a": [1, "x", [None, {"deep": True}]]}},
    {"_id": SON([("b", 1), ("a", 2)]), "binary": b"\x00\xff", "user": Binary(b"x", 128), "uuid": Binary(b"0" * 16, 4)},
    {"_id": Binary(b"\x01"), "code": Code("x()")},
    {"_id": ObjectId("65a0c0ffee65a0c0ffee65a0"), "regex": Regex("^a.*", "im"), "ref": DBRef("other", 3)},
    {"_id": False, "min": MinKey(), "max": MaxKey()},
    {"_id": True, "when": datetime(2024, 2, 29, 12, 0, 0, 123000, tzinfo=UTC), "before": datetime(1901, 1, 1, tzinfo=UTC)},
    {"_id": datetime(2020, 1, 1, tzinfo=UTC), "stamp": Timestamp(5, 9)},
    {"_id": MaxKey(), "kind": "greatest"},
]
"""Ids of every type that MongoDB sorts apart, in its order, and a value of every type but code with a scope, which the embedded
server does not know."""

INDEXES: list[dict[str, Any]] = [
    {"key": {"sku": 1}, "name": "sku_1", "unique": True},
    {"key": {"shelf": 1, "place": -1}, "name": "place", "sparse": True},
    {"key": {"seen_at": 1}, "name": "forget", "expireAfterSeconds": 3600},
    {"key": {"price": 1}, "name": "dear", "partialFilterExpression": {"price": {"$gt": 100}}},
    {"key": {"name": 1}, "name": "by_name", "collation": {"locale": "de", "strength": 1}},
]


@dataclass
class CloneBench:
    """One base and one clone on a server."""

    uri: str
    client: AsyncMongoClient[dict[str, Any]]
    temp_env_id: str = field(default_factory=lambda: random_uuid7(1_700_000_000_000))
    base_name: str = field(default_factory=lambda: f"base_{uuid.uuid4().hex[:12]}")
    told: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])

    @property
    def base(self) -> Any:
        return self.client[self.base_name]

    @property
    def clone_name(self) -> str:
        return temp_database(self.temp_env_id)

    async def tell(self, done: int, total: int, message: str) -> None:
        self.told.append((done, total, message))

    async def still_mine(self) -> None:
        """No other attempt is at a dump of this bench."""

    @asynccontextmanager
    async def clone(self, claim: str = "first", installation: str = "ours") -> AsyncIterator[CloneDatabase]:
        made = CloneDatabase(await connection_of(self.uri, "the server", trusted=True), self.clone_name, installation, claim)
        try:
            yield made
        finally:
            await made.close()

    async def plans(self) -> list[CollectionPlan]:
        return await plans_of(self.base)

    async def fill_base(self) -> None:
        """Odd documents, big ones, indexes of five kinds, and names in other scripts."""
        await self.base["odd"].insert_many(ODD)
        await self.base["goods"].insert_many(
            {"_id": number, "sku": f"s{number:04}", "shelf": number % 7, "price": number, "name": f"Größe {number}"}
            for number in range(300)
        )
        await self.base.command({"createIndexes": "goods", "indexes": INDEXES})
        await self.base["big"].insert_many({"_id": number, "data": bytes([number]) * 3_000_000} for number in range(3))
        await self.base[WORDS].insert_one({"_id": 1, "ä": "ö"})
        await self.base["x" * 90 + "ß" * 10].insert_one({"_id": 1})
        await self.base["empty"].insert_one({"_id": 1})
        await self.base["empty"].delete_one({"_id": 1})

    async def content(self, database: str) -> dict[str, list[bytes]]:
        """Collection → its documents, byte for byte, but for Conman's own."""
        found: dict[str, list[bytes]] = {}
        for name in await self.client[database].list_collection_names():
            if not name.startswith("_conman"):
                rows = await raw_collection(self.client[database], name).find({}).sort("_id", 1).to_list()
                found[name] = [bytes(row.raw) for row in rows]
        return found

    async def indexes(self, database: str) -> list[dict[str, Any]]:
        rows = await (await self.client[database]["goods"].list_indexes()).to_list()
        return sorted((dict(row) for row in rows if row["name"] != "_id_"), key=lambda row: row["name"])

    async def is_the_same(self) -> None:
        assert await self.content(self.clone_name) == await self.content(self.base_name)
        assert await self.indexes(self.clone_name) == await self.indexes(self.base_name)
