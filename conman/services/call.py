"""One person's request, as use cases see it: who, when, and under which command id (`durability.md` 4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, cast

from pymongo import ReturnDocument

from conman.domain.decision import Actor, Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.outgoing import audit_entry
from conman.domain.times import milliseconds
from conman.services.clock import new_id, now
from conman.store.database import Database, Document


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `keyed`: it has an `Idempotency-Key`, and a repeat with it has the same `command_id` and `at`."""

    command_id: str
    at: str
    actor: Actor
    user: Document = field(default_factory=dict)
    keyed: bool = False

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


def system_call(reason: str) -> Call:
    """What Conman does by itself, outside a workflow."""
    at = now()
    return Call(command_id=f"{reason}:{new_id(at)}", at=at, actor=Actor())


def command_id(user_id: str, method: str, path: str, key: str) -> str:
    """The id of a command that carries an `Idempotency-Key`."""
    text = "\0".join((user_id, method, path, key))
    return hashlib.sha256(text.encode()).hexdigest()


async def remember(db: Database, command: str, body_digest: str, at: str) -> str:
    """The time of the first request with this command id. Raises `conflict` when that one had another body."""
    found = await db["idempotency"].find_one_and_update(
        {"_id": command},
        {"$setOnInsert": {"body": body_digest, "at": at}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    document = cast("Document", found)  # an upsert that returns the document after it always finds one
    if document["body"] != body_digest:
        raise DomainError(
            ErrorCode.CONFLICT, "This Idempotency-Key was used with another body: use a fresh key for a fresh request."
        )
    return document["at"]


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
    found = await db["idempotency"].find_one({"_id": call.command_id}) if call.keyed else None
    return found.get("answer") if found else None


async def keep(db: Database, call: Call, answer: dict[str, Any]) -> None:
    """Keep references of an answer for a repeat with the same key; never tokens or secrets (`api.md` 1)."""
    if call.keyed:
        await db["idempotency"].update_one({"_id": call.command_id}, {"$set": {"answer": answer}})


def record(document: Document, *fields: str, **more: Any) -> dict[str, Any]:
    """The fields that every record has, with `fields` of the document and `more` (`api.md` 4)."""
    common = {"id": document["_id"]}
    for name in ("app_id", "created_at", "updated_at", "version", "created_by"):
        if name in document:
            common[name] = document[name]
    return {**common, **{name: document.get(name) for name in fields}, **more}
