"""The database of one temp env on a server that others use too: the only thing there that Conman writes to or drops.

Its collection `_conman` says whose it is, before anything else is in it: `mark` {installation, temp_env_id, claim, created_at,
filled?}. Several installations of Conman may share a server, and each removes only what carries its own mark. `claim` is the
attempt that fills it: one that was given up, and does not know it, stops at its next look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern

from conman.domain.clone import OWN_PREFIX, check_clone_name, temp_env_of_database
from conman.domain.jobs import ReasonCode
from conman.services.clock import new_id
from conman.services.mongo_connections import CloneError, Connection
from conman.store.database import Database, Document, only_duplicates

OWN: Final = OWN_PREFIX
"""Conman's own collection in a clone."""
MARK: Final = "mark"

INSTALLATIONS: Final = "installations"
_ID = "installation"

Raw = AsyncCollection[RawBSONDocument]
RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(
    document_class=RawBSONDocument, tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
"""Documents as the server sent them: no type is lost, since none is read."""

_SURE = WriteConcern(w="majority")
_MISSING = 26


async def installation_id(db: Database) -> str:
    """What tells this installation of Conman from others that use the same server; made by whoever asks first."""
    await db[INSTALLATIONS].update_one({"_id": _ID}, {"$setOnInsert": {"installation_id": new_id()}}, upsert=True)
    found = await db[INSTALLATIONS].find_one({"_id": _ID})
    if found is None:
        raise LookupError("the record of this installation is gone")
    return found["installation_id"]


async def is_conmans_own(database: Database) -> bool:
    """Whether it is the database of an installation of Conman, this one or another. Raises `PyMongoError`."""
    return await database[INSTALLATIONS].find_one({"_id": _ID, "installation_id": {"$exists": True}}) is not None


def problem_of(error: PyMongoError, doing: str) -> CloneError:
    """A library's error without its words: they may quote documents of the base, and addresses with passwords."""
    if isinstance(error, ConnectionFailure):
        return CloneError(f"MongoDB did not answer: {doing}", reason=ReasonCode.INFRASTRUCTURE, again=True)
    if isinstance(error, BulkWriteError):
        codes = sorted({str(one.get("code")) for one in error.details.get("writeErrors", [])}) if error.details else []
        return CloneError(
            f"MongoDB refused documents (code {', '.join(codes) or 'unknown'}): {doing}",
            reason=ReasonCode.INFRASTRUCTURE,
            again=True,
            refused=True,
        )
    if isinstance(error, OperationFailure):
        name = (error.details or {}).get("codeName")
        told = " ".join(str(part) for part in (error.code, name) if part) or "unknown"
        return CloneError(f"MongoDB refused (code {told}): {doing}", reason=ReasonCode.INFRASTRUCTURE, again=True, refused=True)
    return CloneError(f"{type(error).__name__}: {doing}", reason=ReasonCode.INFRASTRUCTURE, again=True)


def raw_collection(database: AsyncDatabase[Document], name: str) -> Raw:
    """A collection, its documents as they are sent."""
    found: Any = database.get_collection(name, codec_options=cast("CodecOptions[Any]", RAW))
    return found


@dataclass(frozen=True, slots=True)
class Filled:
    """How a clone was filled, and with how much."""

    how: str
    collections: int
    documents: int


class CloneDatabase:
    """One clone, as one attempt at filling or removing it sees it."""

    def __init__(self, connection: Connection, name: str, installation: str, claim: str = "") -> None:
        """Raises `ValueError` for a name that no clone has."""
        self.name = check_clone_name(name)
        self.connection = connection
        self.client = connection.client()
        self.installation = installation
        self.claim = claim
        # Whatever the string says for the app: a secondary that lags would show an older mark, and fewer documents.
        self._db: AsyncDatabase[Document] = self.client.get_database(
            self.name, read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("local"), write_concern=_SURE
        )

    async def close(self) -> None:
        """Close the connection."""
        await self.client.close()

    # -- Whose it is

    async def take(self, temp_env_id: str, at: str) -> Filled | None:
        """Make it this attempt's, and mark it first where it is not there yet. What a former attempt finished is returned.

        Raises `CloneError` where it is another installation's.
        """
        if temp_env_of_database(self.name) != temp_env_id:
            raise ValueError(f"{self.name!r} is the database of another temp env")
        mine = {"_id": MARK, "installation": self.installation}
        fresh = {"temp_env_id": temp_env_id, "created_at": at}
        try:
            await self._own.update_one(mine, {"$set": {"claim": self.claim}, "$setOnInsert": fresh}, upsert=True)
        except DuplicateKeyError:
            raise self._foreign() from None
        mark = await self.mark()
        filled = (mark or {}).get("filled")
        return Filled(**filled) if filled else None

    async def mark(self) -> Document | None:
        """What says whose it is; None when it is not there, or carries none."""
        return await self._own.find_one({"_id": MARK})

    async def note(self, **fields: Any) -> None:
        """Keep something in the mark. Raises `CloneError` when another attempt has taken the clone, or it is gone."""
        change = {"$set": fields} if fields else {"$inc": {"looks": 1}}
        noted = await self._own.update_one({"_id": MARK, "installation": self.installation, "claim": self.claim}, change)
        if noted.matched_count == 0:
            raise CloneError("another attempt fills the database now, or it is gone", reason=ReasonCode.SUPERSEDED)

    async def still_mine(self) -> None:
        """Raises `CloneError` when another attempt has taken the clone, or it is gone."""
        if await self._own.find_one({"_id": MARK, "installation": self.installation, "claim": self.claim}, {"_id": 1}) is None:
            raise CloneError("another attempt fills the database now, or it is gone", reason=ReasonCode.SUPERSEDED)

    async def finish(self, filled: Filled) -> None:
        """Say that it is whole. Raises `CloneError` as `note`."""
        await self.note(filled={"how": filled.how, "collections": filled.collections, "documents": filled.documents})

    async def drop(self) -> bool:
        """Remove it, if it is this installation's; False when there was none. Raises `CloneError` where it is another's.

        One without a mark has nothing in it but what a write under way put there after an earlier removal.
        """
        mark = await self.mark()
        if mark is not None and mark["installation"] != self.installation:
            raise self._foreign()
        there = mark is not None or bool(await self._db.list_collection_names())
        # Also where there seems to be none: the embedded server makes an empty one of a look at it.
        await self.client.drop_database(check_clone_name(self.name))
        return there

    def _foreign(self) -> CloneError:
        return CloneError(f"{self.name} on {self.connection.where} belongs to another installation of Conman")

    # -- What is in it

    @property
    def _own(self) -> AsyncCollection[Document]:
        return self._db[OWN]

    async def collections(self) -> set[str]:
        """The names of the collections and views that are there."""
        return set(await self._db.list_collection_names())

    def raw(self, collection: str) -> Raw:
        """A collection, its documents as they are sent."""
        return raw_collection(self._db, collection)

    async def create(self, collection: str, options: Document) -> None:
        """Make an empty collection or a view with its options."""
        await self._db.command({"create": collection, **options})

    async def drop_collection(self, collection: str) -> None:
        """Remove a collection; one that is not there is removed. Raises `CloneError` when another attempt has taken the clone."""
        await self.still_mine()
        try:
            await self._db.command({"drop": collection})
        except OperationFailure as error:
            if error.code != _MISSING and "ns not found" not in str(error):
                raise

    async def drop_unfinished(self) -> None:
        """Remove what was filled under other names and is not in its place. Raises `CloneError` as `drop_collection`."""
        for name in sorted(await self.collections()):
            if name.startswith(f"{OWN}."):
                await self.drop_collection(name)

    async def index(self, collection: str, indexes: list[Document]) -> None:
        """Make indexes as they were listed; those that are there stay."""
        if indexes:
            await self._db.command({"createIndexes": collection, "indexes": indexes})

    async def rename(self, collection: str, to: str) -> None:
        """Put a collection in place of another one, at once."""
        names = {"renameCollection": f"{self.name}.{collection}", "to": f"{self.name}.{to}", "dropTarget": True}
        await self.client.admin.command(names)

    async def insert(self, collection: str, documents: list[RawBSONDocument], *, ordered: bool = False) -> None:
        """Insert documents; one whose `_id` is there was inserted by an earlier run. Other indexes are made later."""
        try:
            await self.raw(collection).insert_many(documents, ordered=ordered, bypass_document_validation=True)
        except BulkWriteError as error:
            if ordered:
                raise
            only_duplicates(error)

    # -- How far a restore is

    async def restored(self, file: str) -> Document:
        """Where in a file an earlier attempt has come to."""
        return await self._own.find_one({"_id": f"file:{file}"}) or {}

    async def note_restored(self, file: str, **fields: Any) -> None:
        """Keep how far a file is restored."""
        await self._own.update_one({"_id": f"file:{file}"}, {"$set": fields}, upsert=True)
