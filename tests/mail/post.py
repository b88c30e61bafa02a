"""People, records of tokens, and notices in a real store, with a way out by script."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from conman.config import Settings
from conman.domain.mail import MailEnd
from conman.domain.notification import TOKEN_RECORDS, Notice, NoticeKind, TokenRef, notice_entry
from conman.domain.roles import Role
from conman.domain.times import later
from conman.domain.tokens import TokenPurpose, make_token, token_hash
from conman.mail.message import Outgoing
from conman.mail.transport import NotSentError, Transport
from conman.services import mails
from conman.services.clock import new_id, now
from conman.services.sending import Sending
from conman.store.database import Database, Document

SECRET = "a secret that signs, of 32 bytes or more"
PUBLIC = "https://conman.test"


@dataclass
class Way(Transport):
    """What was handed over; `refuses` is asked first."""

    name: str = "smtp"
    handed_over: list[Outgoing] = field(default_factory=list)
    refuses: list[NotSentError | None] = field(default_factory=list)

    async def send(self, mail: Outgoing) -> None:
        refusal = self.refuses.pop(0) if self.refuses else None
        if refusal is not None:
            raise refusal
        self.handed_over.append(mail)

    async def probe(self) -> str:
        return "always open"


@dataclass
class Post:
    """One test's people and mails."""

    db: Database
    folder: Path
    way: Way = field(default_factory=Way)

    def settings(self, **more: Any) -> Settings:
        return Settings(**{"data": self.folder, "secret": SECRET, "public_url": PUBLIC, **more})

    def sending(self, **settings: Any) -> Sending:
        return Sending(self.settings(**settings), self.db, self.way)

    async def person(self, name: str = "Bob", **fields: Any) -> Document:
        user = {
            "_id": new_id(),
            "email": f"{new_id()}@example.com",
            "name": name,
            "disabled": False,
            "email_enabled": True,
            "session_epoch": 0,
            **fields,
        }
        await self.db["users"].insert_one(user)
        return user

    async def app(self) -> Document:
        """The one app of the test."""
        if (there := await self.db["apps"].find_one({})) is not None:
            return there
        app = {"_id": new_id(), "name": "Shop", "repo_path": "shop.git", "admin_ids": [], "environments": []}
        await self.db["apps"].insert_one(app)
        return app

    async def member(self, role: Role, **fields: Any) -> str:
        """Somebody with a role in the app; their user id."""
        app, user = await self.app(), await self.person(**fields)
        await self.db["memberships"].insert_one(
            {"_id": new_id(), "app_id": app["_id"], "user_id": user["_id"], "role": role.value}
        )
        return user["_id"]

    async def token(self, purpose: TokenPurpose, *, secret: str = SECRET, number: int = 1, **fields: Any) -> TokenRef:
        """A record whose token is good for an hour."""
        record_id = new_id()
        made = make_token(secret, purpose, record_id, number)
        await self.db[TOKEN_RECORDS[purpose]].insert_one(
            {
                "_id": record_id,
                "token_number": number,
                "token_hash": token_hash(made),
                "expires_at": later(now(), timedelta(hours=1)),
                **fields,
            }
        )
        return TokenRef(purpose=purpose, record_id=record_id, number=number)

    async def notice(self, kind: NoticeKind, **fields: Any) -> str:
        """A notice as `deliver` leaves it; its id."""
        at = now()
        notice_id = new_id(at)
        notice = Notice(**{"kind": kind, "at": at, "entity_type": "user", "entity_id": new_id(), **fields})
        await self.db["notifications"].insert_one(notice_entry(notice_id, notice)["doc"])
        return notice_id

    async def invite(self, email: str = "new@example.com", **token: Any) -> str:
        """The notice of an invite to an address."""
        app = await self.app()
        ref = await self.token(TokenPurpose.INVITE, role="reviewer", **token)
        return await self.notice(NoticeKind.INVITE, app_id=app["_id"], emails=[email], token=ref)

    async def reset(self, user: Document, **token: Any) -> str:
        """The notice of a password reset."""
        ref = await self.token(TokenPurpose.PASSWORD_RESET, **token)
        return await self.notice(NoticeKind.PASSWORD_RESET, user_ids=[user["_id"]], token=ref)

    async def mails(self, notice_id: str) -> list[str]:
        return (await mails.next_wave(self.db, notice_id)).mail_ids

    async def rows(self, notice_id: str) -> list[Document]:
        return await self.db["mails"].find({"notice_id": notice_id}).sort("recipient").to_list()

    async def send(self, notice_id: str) -> MailEnd:
        """One attempt at a notice's only mail; how the mail ended, without what the notice counts then."""
        (row,) = await self.rows(notice_id) or [{"_id": (await self.mails(notice_id))[0]}]
        return (await self.sending().attempt(row["_id"])).model_copy(update={"notice": None})
