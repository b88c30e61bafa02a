"""What operators ask about mails: which went to whom, how each ended, and to try one again (`conman mails`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo import DESCENDING

from conman.domain.mail import MailState
from conman.services import mails
from conman.store import records
from conman.store.database import Database, Document
from conman.workflows.client import Commands


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which mails are asked for; what is None narrows nothing. `to` is an address, an account's or one that has none."""

    state: MailState | None = None
    to: str | None = None
    app_id: str | None = None
    notice_id: str | None = None
    kind: str | None = None


async def listed(db: Database, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """The mails, newest first, at most `limit`."""
    asked = {"app_id": wanted.app_id, "notice_id": wanted.notice_id, "kind": wanted.kind}
    query: Document = {name: value for name, value in asked.items() if value is not None}
    if wanted.state is not None:
        query["state"] = wanted.state.value
    if wanted.to is not None:
        address = wanted.to.strip().lower()
        account = await db["users"].find_one({"email": address}, {"_id": 1})
        named = [address] if account is None else [address, account["_id"]]
        query["recipient"] = {"$in": named}
    rows = await db["mails"].find(query).sort("_id", DESCENDING).limit(limit).to_list()
    unsent = [row["user_id"] for row in rows if row["email"] is None]
    accounts = db["users"].find({"_id": {"$in": unsent}}, {"email": 1})
    addresses = {row["_id"]: row["email"] async for row in accounts}
    return [_shown(row, addresses) for row in rows]


async def found(db: Database, mail: str) -> dict[str, Any]:
    """One mail, and the event that it tells of. Raises `not_found`."""
    row, record = await mails.row_and_notice(db, mail)
    account = None if row["user_id"] is None else await records.find(db, "users", row["user_id"])
    about = {name: record["notice"][name] for name in ("entity_type", "entity_id", "actor_user_id")}
    return {**_shown(row, {} if account is None else {account["_id"]: account["email"]}), **about}


async def try_again(db: Database, commands: Commands, mail: str) -> None:
    """Have a mail that failed tried again, for a day as at first; it may be asked for any number of times.

    Raises `not_found`, `invalid_transition` for a mail that was sent or is not to be sent.
    """
    row = await mails.reopen(db, mail)
    await commands.start_notice(row["notice_id"], again=True)


_FIELDS = ("notice_id", "kind", "app_id", "state", "attempts", "created_at", "updated_at")
_LATER = ("reason", "sent_at", "via", "refusal")
"""What a row has once something has happened to it."""


def _shown(row: Document, addresses: dict[str, str]) -> dict[str, Any]:
    to = row["email"] or addresses.get(row["user_id"])
    return {
        "id": row["_id"],
        "to": to,
        "user_id": row["user_id"],
        **{name: row[name] for name in _FIELDS},
        **{name: row.get(name) for name in _LATER},
    }
