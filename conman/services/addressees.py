"""Who is told of what: one rule per kind of notice (`spec.md` 14).

A later kind needs a line here, its templates in `conman/mail/templates`, and a place in `NoticeKind`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from conman.domain.membership import may_review
from conman.domain.notification import Notice, NoticeKind, Recipient, recipients
from conman.domain.roles import Role
from conman.store.database import Database

Rule = Callable[[Database, Notice], Awaitable[list[Recipient]]]
"""Who is to be told, as things are when the notice is looked at first; later it stays so."""


async def named(db: Database, notice: Notice) -> list[Recipient]:
    """Those whom the notice names."""
    accounts = {row["email"]: row["_id"] async for row in db["users"].find({"email": {"$in": notice.emails}}, {"email": 1})}
    return recipients(notice, notice.user_ids, notice.emails, accounts)


async def reviewers(db: Database, notice: Notice) -> list[Recipient]:
    """Those who may review what the notice is about: its app's reviewers and up, without its author."""
    members = await db["memberships"].find({"app_id": notice.app_id}, {"user_id": 1, "role": 1}).sort("_id").to_list()
    author = notice.data.get("author_user_id")
    told = [row["user_id"] for row in members if may_review(Role(row["role"])) and row["user_id"] != author]
    return recipients(notice, told, [], {})


RULES: Final[Mapping[NoticeKind, Rule]] = MappingProxyType(
    {
        NoticeKind.INVITE: named,
        NoticeKind.PASSWORD_RESET: named,
        NoticeKind.ACCOUNT_CREATED: named,
        NoticeKind.REVIEW_REQUESTED: named,
        NoticeKind.REVIEW_REMINDER: reviewers,
    }
)
