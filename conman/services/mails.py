"""The rows of a notice's mails: made once, moved by guarded writes, ended for good (`spec.md` 14, `durability.md` 21)."""

from __future__ import annotations

from datetime import timedelta

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.ids import first_id_of
from conman.domain.mail import OPEN, MailEnd, MailReason, MailState, Refusal, Wave, before, counted, mail_id
from conman.domain.notification import Notice, NoticeState, Recipient
from conman.domain.times import later, milliseconds
from conman.faults import fault_point
from conman.services.addressees import RULES
from conman.services.clock import now
from conman.store import records
from conman.store.database import Database, Document, only_duplicates

WAVE = 1000
"""Mails of one notice that are under way at once: a workflow may have 2,000 activities open."""

FEW = 50
"""Up to so many mails of a notice look, each as it ends, whether it was the last."""


async def next_wave(db: Database, notice_id: str) -> Wave:
    """The rows of a notice that have not ended, at most `WAVE`; the first time, they are made. With none left, it ends."""
    document = await db["notifications"].find_one({"_id": notice_id})
    if document is None:
        return Wave(found=False)
    notice = Notice.model_validate(document["notice"])
    if document["state"] == NoticeState.PENDING and "mail_ids" not in document:
        document = await _settled(db, document, notice)
        mail_ids = await _make_rows(db, document, notice)
        fault_point("notice.expanded")
        document["mail_ids"] = mail_ids
        await db["notifications"].update_one({"_id": notice_id}, {"$set": {"mail_ids": mail_ids}})
    left = db["mails"].find(_left(document), {"_id": 1})
    ids = [row["_id"] async for row in left.sort("_id").limit(WAVE)]
    ended = None if ids else await _end_notice(db, document, canceled=False)
    return Wave(app_id=notice.app_id, actor_user_id=notice.actor_user_id, mail_ids=ids, ended=ended)


async def _settled(db: Database, document: Document, notice: Notice) -> Document:
    """The notice with who is told of it: settled once, since a second look may find other members."""
    if "told" not in document:
        told = [recipient.model_dump() for recipient in await RULES[notice.kind](db, notice)]
        open_still = {"_id": document["_id"], "told": {"$exists": False}}
        settled = await db["notifications"].find_one_and_update(
            open_still, {"$set": {"told": told}}, return_document=ReturnDocument.AFTER
        )
        fault_point("notice.settled")
        document = settled or await records.get(db, "notifications", document["_id"])  # else another look was first
    return document


def _mails_of(notice: Document) -> Document:
    """A notice's mails, by their ids: on some servers a look by anything else takes the longer the more mails there are.

    A notice that an earlier version expanded does not name them.
    """
    return {"_id": {"$in": notice["mail_ids"]}} if "mail_ids" in notice else {"notice_id": notice["_id"]}


def _left(notice: Document) -> Document:
    return {**_mails_of(notice), "state": {"$in": [state.value for state in OPEN]}}


async def _make_rows(db: Database, document: Document, notice: Notice) -> list[str]:
    told = [Recipient.model_validate(recipient) for recipient in document["told"]]
    rows = [_row(document["_id"], document["created_at"], notice, recipient) for recipient in told]
    upserts = [UpdateOne({"_id": row["_id"]}, {"$setOnInsert": row}, upsert=True) for row in rows]
    ids = [row["_id"] for row in rows]
    if not upserts:
        return ids
    try:
        await db["mails"].bulk_write(upserts, ordered=False)
    except BulkWriteError as error:
        only_duplicates(error)  # Another attempt of the same step, which was thought dead, has made the rows.
    return ids


def _row(notice_id: str, at: str, notice: Notice, recipient: Recipient) -> Document:
    return {
        "_id": mail_id(notice_id, at, recipient.key),
        "notice_id": notice_id,
        "recipient": recipient.key,
        "user_id": recipient.user_id,
        "email": recipient.email,
        "kind": notice.kind.value,
        "app_id": notice.app_id,
        "state": MailState.PENDING.value,
        "attempts": 0,
        "created_at": at,
        "updated_at": at,
    }


async def row_and_notice(db: Database, mail: str) -> tuple[Document, Document]:
    """A mail's row and the record of its notice. Raises `not_found`."""
    row = await records.get(db, "mails", mail, what="mail")
    return row, await records.get(db, "notifications", row["notice_id"], what="notice")


async def begin(db: Database, mail: str, email: str) -> Document | None:
    """Note that an attempt at a mail begins; None when it has ended already."""
    return await _move(db, mail, MailState.SENDING, {"email": email}, count=True)


async def note_refusal(db: Database, mail: str, refusal: Refusal) -> None:
    """Keep what the server said last, for people who look why a mail has not arrived."""
    await _move(db, mail, MailState.SENDING, {"refusal": {**refusal.model_dump(mode="json"), "at": now()}})


async def sent(db: Database, mail: str, via: str) -> MailEnd:
    """End a mail that was handed over."""
    return await _end(db, mail, MailState.SENT, {"sent_at": now(), "via": via})


async def skipped(db: Database, mail: str, reason: MailReason) -> MailEnd:
    """End a mail that is not to be sent."""
    return await _end(db, mail, MailState.SKIPPED, {"reason": reason.value})


async def failed(db: Database, mail: str, reason: MailReason) -> MailEnd:
    """End a mail that can't be sent, or was tried for too long."""
    return await _end(db, mail, MailState.FAILED, {"reason": reason.value})


async def _end(db: Database, mail: str, state: MailState, fields: Document) -> MailEnd:
    moved = await _move(db, mail, state, fields)
    return end_of(moved or await db["mails"].find_one({"_id": mail}) or {"state": state, **fields})


def end_of(row: Document) -> MailEnd:
    """How a mail ended, without a word of what it said to whom."""
    refusal = row.get("refusal") or {}
    failed_by_server = row.get("reason") in (MailReason.REFUSED, MailReason.GAVE_UP)
    return MailEnd(state=row["state"], reason=row.get("reason"), code=refusal.get("code") if failed_by_server else None)


async def _move(db: Database, mail: str, state: MailState, fields: Document, *, count: bool = False) -> Document | None:
    change: Document = {"$set": {"state": state.value, "updated_at": now(), **fields}}
    if count:
        change["$inc"] = {"attempts": 1}
    return await db["mails"].find_one_and_update(
        {"_id": mail, "state": {"$in": before(state)}}, change, return_document=ReturnDocument.AFTER
    )


async def end_notice(db: Database, notice_id: str, *, canceled: bool) -> dict[str, int]:
    """End a notice whose mails have ended; of a canceled one, what has not left is skipped. How many ended in which state."""
    document = await db["notifications"].find_one({"_id": notice_id})
    return await _end_notice(db, document or {"_id": notice_id}, canceled=canceled)


async def _end_notice(db: Database, notice: Document, *, canceled: bool) -> dict[str, int]:
    notice_id: str = notice["_id"]
    if canceled:
        async for row in db["mails"].find(_left(notice), {"_id": 1}):
            await skipped(db, row["_id"], MailReason.CANCELED)
    rows = db["mails"].find(_mails_of(notice), {"state": 1, "reason": 1, "refusal": 1})
    counts = counted([end_of(row) async for row in rows])
    state = NoticeState.CANCELED if canceled else NoticeState.DONE
    if not await close_notice(db, notice_id, state, counts):
        # It had ended before; some of its mails were tried again since.
        await db["notifications"].update_one({"_id": notice_id}, {"$set": {"counts": counts}})
    fault_point("notice.ended")
    return counts


async def with_notice(db: Database, notice: Document, end: MailEnd) -> MailEnd:
    """A mail's end; when it was the last of its notice that had not ended, the notice ends with it.

    Of several that end at the same moment at least one finds none left. Where a notice has many mails they don't each look
    through all others: its workflow does, in the end.
    """
    if len(notice.get("mail_ids", ())) > FEW or await db["mails"].find_one(_left(notice), {"_id": 1}) is not None:
        return end
    return end.model_copy(update={"notice": await _end_notice(db, notice, canceled=False)})


async def close_notice(db: Database, notice_id: str, state: NoticeState, counts: dict[str, int] | None = None) -> bool:
    """Write a notice's end, once; whether this call did."""
    fields: Document = {"state": state.value, "ended_at": now()}
    if counts is not None:
        fields["counts"] = counts
    result = await db["notifications"].update_one({"_id": notice_id, "state": NoticeState.PENDING.value}, {"$set": fields})
    return result.modified_count == 1


async def reopen(db: Database, mail: str) -> Document:
    """A mail that failed is to be tried again, by whoever looks for what has not ended; one that is open stays as it is.

    Raises `not_found`, `invalid_transition` for one that was sent or is not to be sent.
    """
    change: Document = {"$set": {"state": MailState.PENDING.value, "updated_at": now()}, "$unset": {"reason": ""}}
    failed_one = {"_id": mail, "state": MailState.FAILED.value}
    row = await db["mails"].find_one_and_update(failed_one, change, return_document=ReturnDocument.AFTER)
    row = row or await records.get(db, "mails", mail, what="mail")
    state = MailState(row["state"])
    if state not in OPEN:
        why = f" ({row['reason']})" if row.get("reason") else ""
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A mail that is {state.value}{why} is not tried again: only one that failed is.",
            {"from": state.value, "to": MailState.PENDING.value},
        )
    return row


async def forget_old(db: Database, at: str, days: int) -> int:
    """Remove mails, and notices, that have ended and are older than so many days, 0 for none; how many documents.

    Their ids begin with the time of their event. What has not ended stays, and a notice as long as there is a mail of it.
    """
    if days == 0:
        return 0
    first_kept = first_id_of(milliseconds(later(at, -timedelta(days=days))))
    old: Document = {"_id": {"$lt": first_kept}}
    gone = await db["mails"].delete_many({**old, "state": {"$nin": [state.value for state in OPEN]}})
    # Only now, when nobody can reopen what has ended: a mail that is left is tried, or may be tried again.
    needed = {row["notice_id"] async for row in db["mails"].find(old, {"notice_id": 1})}
    ended: Document = {"_id": {"$lt": first_kept, "$nin": sorted(needed)}, "state": {"$ne": NoticeState.PENDING.value}}
    notices = await db["notifications"].delete_many(ended)
    return gone.deleted_count + notices.deleted_count
