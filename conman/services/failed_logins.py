"""Failed logins are counted per email in MongoDB, so that the cool-down holds across API processes (`spec.md` 5).

One document per email, under a hash of it, whether or not there is an account. Each change is one guarded write together with
its audit events: whatever runs at the same time, an email has at most five answered failures between two cool-downs, and who
guesses right as one of many requests at once is let in only while the cool-down has not begun.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from pymongo.errors import DuplicateKeyError

from conman.domain.cooldown import FailedLogins, after_failure, is_cooling
from conman.domain.decision import Event
from conman.domain.errors import RateLimited
from conman.domain.times import milliseconds
from conman.services.call import Call
from conman.services.clock import now
from conman.store import records
from conman.store.database import Database, Document

COLLECTION = "failed_logins"
Reason = Literal["unknown_email", "wrong_password", "disabled"]
_SHOWN_OF_EMAIL = 320


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is being looked at: of which email, and whose account that is, if anybody's."""

    email: str
    user_id: str | None = None

    @property
    def key(self) -> str:
        """What the email is counted under."""
        return hashlib.sha256(self.email.encode()).hexdigest()

    def event(self, action: str, **after: str | int) -> Event:
        """What the audit says of it, about the account or else about the email's counter."""
        return Event("user", self.user_id or self.key, action, after={"email": self.email[:_SHOWN_OF_EMAIL], **after})


async def refuse_while_cooling(db: Database, call: Call, attempt: Attempt) -> None:
    """Raises `rate_limited` during a cool-down, and notes that somebody tried."""
    document = await db[COLLECTION].find_one({"_id": attempt.key})
    await _refuse(db, call, attempt, document)


async def note_failure(db: Database, call: Call, attempt: Attempt, reason: Reason) -> None:
    """Count a failed login. Raises `rate_limited` when a cool-down has begun meanwhile: then nothing is told of this one."""
    while True:
        document = await db[COLLECTION].find_one({"_id": attempt.key})
        await _refuse(db, call, attempt, document)
        known = _known(document)
        found = after_failure(known, now())
        events = [attempt.event("login_failed", reason=reason)]
        if found.cooling_until is not None:
            events.append(attempt.event("locked_out", until=found.cooling_until, failed_logins=found.failures))
        if await _replace(db, attempt, document, found, call.audit(*events, app_id=None)):
            return


async def forget(db: Database, call: Call, attempt: Attempt) -> None:
    """The right password forgets the failures before it. Raises `rate_limited` when a cool-down has begun meanwhile."""
    while True:
        document = await db[COLLECTION].find_one({"_id": attempt.key})
        await _refuse(db, call, attempt, document)
        if document is None or not document["failures"] or await _replace(db, attempt, document, FailedLogins(), []):
            return


async def lift(db: Database, email: str) -> None:
    """End the cool-down of an account's email, if there is one: its owner has proved to be who they are by other means."""
    free = {**FailedLogins().model_dump(), "forget_at": now()}
    await db[COLLECTION].update_one({"_id": Attempt(email).key}, {"$set": free, "$inc": {"version": 1}})


def _known(document: Document | None) -> FailedLogins:
    return FailedLogins() if document is None else FailedLogins.model_validate(document)


async def _refuse(db: Database, call: Call, attempt: Attempt, document: Document | None) -> None:
    at = now()
    known = _known(document)
    if known.cooling_until is None or not is_cooling(known, at):
        return
    entries = call.audit(attempt.event("login_failed", reason="cooling_down"), app_id=None)
    await records.write_where(db, COLLECTION, {"_id": attempt.key}, {}, outgoing=entries)
    seconds = -(-(milliseconds(known.cooling_until) - milliseconds(at)) // 1000)
    raise RateLimited(f"Too many failed logins for this email: try again in {-(-seconds // 60)} minutes.", seconds)


async def _replace(db: Database, attempt: Attempt, before: Document | None, after: FailedLogins, entries: list[Document]) -> bool:
    """Whether the counter is now `after`; False when somebody else changed it since `before` was read."""
    fields = {**after.model_dump(), "forget_at": after.forget_at or now()}
    if before is None:
        try:
            _, fresh = await records.insert_once(
                db, COLLECTION, {"_id": attempt.key, "version": 1, **fields, "outgoing": entries}
            )
        except DuplicateKeyError:
            return False
        return fresh
    change = {"$set": fields, "$inc": {"version": 1}}
    guard = {"_id": attempt.key, "version": before["version"]}
    return await records.write_where(db, COLLECTION, guard, change, outgoing=entries) is not None
