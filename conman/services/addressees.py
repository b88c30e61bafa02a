"""Who is told of what: one rule per kind of notice (`spec.md` 14).

A later kind needs a line here, its templates in `conman/mail/templates`, and a place in `NoticeKind`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from conman.domain.notification import Notice, NoticeKind, Recipient, recipients
from conman.store.database import Database

Rule = Callable[[Database, Notice], Awaitable[list[Recipient]]]
"""Who is to be told, as things are when the notice is looked at first; later it stays so."""


async def named(db: Database, notice: Notice) -> list[Recipient]:
    """Those whom the notice names."""
    accounts = {row["email"]: row["_id"] async for row in db["users"].find({"email": {"$in": notice.emails}}, {"email": 1})}
    return recipients(notice, notice.user_ids, notice.emails, accounts)


RULES: Final[Mapping[NoticeKind, Rule]] = MappingProxyType(
    {
        NoticeKind.INVITE: named,
        NoticeKind.PASSWORD_RESET: named,
        NoticeKind.ACCOUNT_CREATED: named,
    }
)
