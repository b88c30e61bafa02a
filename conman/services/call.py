"""One person's request, as use cases see it: who, when, and under which command id (`durability.md` 4)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from pymongo import ReturnDocument

from conman.domain.decision import Actor, Event, NewNotice
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.notification import notice_entry
from conman.domain.outgoing import audit_entry, notice_of
from conman.domain.times import later, milliseconds
from conman.services.clock import new_id, now
from conman.store.database import Database, Document

KEYS_LAST = timedelta(hours=24)
"""How long an `Idempotency-Key` stands for one request; after that it is a fresh one's (`api.md` 1)."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `keyed`: it has an `Idempotency-Key`, and a repeat with it has the same `command_id` and `at`."""

    command_id: str
    at: str
    actor: Actor
    user: Document = field(default_factory=dict)
    keyed: bool = False
    key_id: str = ""
    """Where the key is remembered; "": under the command's own id."""

    @property
    def remembered_as(self) -> str:
        """The id of the record of this call's key."""
        return self.key_id or self.command_id

    @property
    def user_id(self) -> str:
        """The caller's id."""
        return self.user["_id"]

    def derived_id(self, *parts: str) -> str:
        """An id that a repeat of this call makes again."""
        return derived_uuid7(milliseconds(self.at), self.command_id, *parts)

    def event_id(self, number: int) -> str:
        """The id of this call's audit event `number`."""
        return derived_uuid7(milliseconds(self.at), self.command_id, "audit", str(number), order=number)

    def audit(self, *events: Event, app_id: str | None) -> list[Document]:
        """Audit events of this call as outgoing entries."""
        return [
            audit_entry(self.event_id(number), event, app_id=app_id, actor=self.actor, at=self.at)
            for number, event in enumerate(events)
        ]

    def notice_id(self, about: str) -> str:
        """The id of this call's notice about a record, by which `start_notices` starts it."""
        return self.derived_id("notice", about)

    def tell(self, notice: NewNotice, about: str | None = None, *, app_id: str | None) -> Document:
        """A notice of this call as an outgoing entry; `about` tells it from others of the same call and record."""
        told = notice_of(notice, app_id=app_id, actor=self.actor, at=self.at)
        return notice_entry(self.notice_id(about or notice.entity_id), told)


def system_call(reason: str) -> Call:
    """What Conman does by itself, outside a workflow."""
    at = now()
    return Call(command_id=f"{reason}:{new_id(at)}", at=at, actor=Actor())


def key_id(user_id: str, method: str, path: str, key: str) -> str:
    """Where an `Idempotency-Key` is remembered: the same key of another person, or for another route, is another one."""
    text = "\0".join((user_id, method, path, key))
    return hashlib.sha256(text.encode()).hexdigest()


def body_digest(secret: str, content: bytes) -> str:
    """What is kept of a body, to tell another one: keyed, since the plain hash of one with a password lets it be guessed."""
    key = hmac.digest(secret.encode(), b"conman idempotency v1", hashlib.sha256)
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def command_id(remembered_as: str, at: str) -> str:
    """The id of a command that carries a key first used at that time: a key that is used again after a day is another command."""
    return hashlib.sha256(f"{remembered_as}\0{at}".encode()).hexdigest()


async def remember(db: Database, remembered_as: str, body_digest: str, at: str) -> str:
    """The time of the first request with this key. Raises `conflict` when that one had another body, else what refused it."""
    keys = db["idempotency"]
    first = {"body": body_digest, "at": at, "command": command_id(remembered_as, at)}
    found = await keys.find_one_and_update(
        {"_id": remembered_as}, {"$setOnInsert": first}, upsert=True, return_document=ReturnDocument.AFTER
    )
    document = cast("Document", found)  # an upsert that returns the document after it always finds one
    if later(document["at"], KEYS_LAST) <= at:
        of_old = {"_id": remembered_as, "at": document["at"]}
        await keys.replace_one(of_old, first)
        return await remember(db, remembered_as, body_digest, at)
    if document["body"] != body_digest:
        raise DomainError(
            ErrorCode.CONFLICT, "This Idempotency-Key was used with another body: use a fresh key for a fresh request."
        )
    refusal = document.get("refusal")
    if refusal is not None:
        raise DomainError(ErrorCode(refusal["code"]), refusal["message"], refusal["details"])
    return document["at"]


async def is_repeat(db: Database, remembered_as: str) -> bool:
    """Whether the key has been used before."""
    return await db["idempotency"].find_one({"_id": remembered_as}, {"_id": 1}) is not None


async def has_succeeded(db: Database, remembered_as: str) -> bool:
    """Whether a request with the key has succeeded."""
    return await db["idempotency"].find_one({"_id": remembered_as, "succeeded": True}, {"_id": 1}) is not None


async def keep_refusal(db: Database, call: Call, refusal: DomainError) -> None:
    """Let repeats with the same key meet the same refusal, unless one of them has succeeded meanwhile."""
    kept = {"code": refusal.code.value, "message": refusal.message, "details": refusal.details}
    await db["idempotency"].update_one(
        {"_id": call.remembered_as, "succeeded": {"$ne": True}, "refusal": {"$exists": False}}, {"$set": {"refusal": kept}}
    )


async def keep_success(db: Database, call: Call) -> None:
    """Repeats find their answer by its references: no refusal of one that ran beside this may stand for it."""
    await db["idempotency"].update_one(
        {"_id": call.remembered_as, "succeeded": {"$ne": True}}, {"$set": {"succeeded": True}, "$unset": {"refusal": ""}}
    )


async def forget_keys(db: Database, at: str) -> int:
    """Remove the keys that have had their time. Returns how many there were."""
    gone = await db["idempotency"].delete_many({"at": {"$lte": later(at, -KEYS_LAST)}})
    return gone.deleted_count


async def has_happened(db: Database, call: Call, document: Document) -> bool:
    """Whether an earlier request with this call's `Idempotency-Key` changed the document: its first audit event says so."""
    if not call.keyed:
        return False
    event_id = call.event_id(0)
    if any(entry["id"] == event_id for entry in document.get("outgoing") or []):
        return True
    return await db["audit"].find_one({"_id": event_id}, {"_id": 1}) is not None


async def recall(db: Database, call: Call) -> dict[str, Any] | None:
    """The answer that `keep` kept for this call's `Idempotency-Key`."""
    found = await db["idempotency"].find_one({"_id": call.remembered_as}) if call.keyed else None
    return found.get("answer") if found else None


async def keep(db: Database, call: Call, answer: dict[str, Any]) -> None:
    """Keep references of an answer for a repeat with the same key; never tokens or secrets (`api.md` 1)."""
    if call.keyed:
        await db["idempotency"].update_one({"_id": call.remembered_as}, {"$set": {"answer": answer}})


def record(document: Document, *fields: str, **more: Any) -> dict[str, Any]:
    """The fields that every record has, with `fields` of the document and `more` (`api.md` 4)."""
    common = {"id": document["_id"]}
    for name in ("app_id", "created_at", "updated_at", "version", "created_by"):
        if name in document:
            common[name] = document[name]
    return {**common, **{name: document.get(name) for name in fields}, **more}
