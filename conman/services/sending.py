"""One attempt at one mail: who gets it as things are now, what it says, and the way out (`spec.md` 5 and 14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from conman.config import Settings
from conman.domain.mail import (
    OPEN,
    Addressee,
    AnotherSecretError,
    MailEnd,
    MailReason,
    MailState,
    TokenRecord,
    dead_token,
    one_line,
    withheld,
)
from conman.domain.notification import ALWAYS_SENT, TOKEN_RECORDS, Notice
from conman.domain.tokens import make_token, token_hash
from conman.faults import fault_point
from conman.mail.links import notice_link, preferences_link, public_base, public_host, sender
from conman.mail.message import BadAddressError, Envelope, Outgoing, compose
from conman.mail.outbox import Outbox
from conman.mail.rendering import Words, render
from conman.mail.smtp import Smtp
from conman.mail.transport import NotSentError, Transport
from conman.services import mails
from conman.services.accounts import epoch_of
from conman.services.clock import now
from conman.store import memberships, records
from conman.store.database import Database, Document

log = structlog.get_logger(__name__)


class MisconfiguredError(Exception):
    """This worker can't make the mail's link; its text says which variable to mend, and no value."""


def make_transport(settings: Settings) -> Transport:
    """The SMTP server of the settings, else the outbox."""
    return Outbox(settings.data.resolve() / "outbox") if settings.smtp_host is None else Smtp(settings)


@dataclass(frozen=True, slots=True)
class _Token:
    """A token as it would stand in the link; `dead` says why it would lead nowhere."""

    text: str
    dead: MailReason | None
    record: Document


class Sending:
    """Mails on their way; one per process."""

    def __init__(self, settings: Settings, db: Database, transport: Transport) -> None:
        self.settings = settings
        self.db = db
        self.transport = transport

    async def attempt(self, mail: str) -> MailEnd:
        """Try to send a mail; one that has ended stays as it is. With its last mail the notice ends.

        Raises `NotSentError` when another try may succeed, `MisconfiguredError` when one on a mended worker may.
        """
        row, told = await mails.row_and_notice(self.db, mail)
        return await mails.with_notice(self.db, told, await self._attempt(row, Notice.model_validate(told["notice"])))

    async def _attempt(self, row: Document, notice: Notice) -> MailEnd:
        mail: str = row["_id"]
        if MailState(row["state"]) not in OPEN:
            return mails.end_of(row)
        account = await self._account(row)
        app = None if notice.app_id is None else await records.find(self.db, "apps", notice.app_id)
        withholding = withheld(
            await self._addressee(app, account), by_account=row["user_id"] is not None, always_sent=notice.kind in ALWAYS_SENT
        )
        if withholding is not None:
            return await mails.skipped(self.db, mail, withholding)
        token = await self._token(notice, account)
        if token is not None and token.dead is not None:
            return await mails.skipped(self.db, mail, token.dead)
        email: str = account["email"] if account is not None else row["email"]
        try:
            outgoing = await self._compose(row, notice, email, account, app, token)
        except BadAddressError:
            return await mails.failed(self.db, mail, MailReason.BAD_ADDRESS)
        if await mails.begin(self.db, mail, email) is None:
            return mails.end_of(await records.get(self.db, "mails", mail, what="mail"))
        return await self._hand_over(mail, outgoing)

    async def _hand_over(self, mail: str, outgoing: Outgoing) -> MailEnd:
        fault_point("mail.begun")
        try:
            await self.transport.send(outgoing)
        except NotSentError as error:
            await mails.note_refusal(self.db, mail, error.refusal)
            if not error.final:
                raise
            log.warning("mail_refused", mail_id=mail, step=error.refusal.step.value, code=error.refusal.code)
            return await mails.failed(self.db, mail, MailReason.REFUSED)
        # A crash from here to the next write sends it again, under the same Message-ID: at least once, not exactly once.
        fault_point("mail.given")
        return await mails.sent(self.db, mail, self.transport.name)

    async def _account(self, row: Document) -> Document | None:
        query = {"_id": row["user_id"]} if row["user_id"] is not None else {"email": row["email"]}
        return await self.db["users"].find_one(query)

    async def _addressee(self, app: Document | None, account: Document | None) -> Addressee:
        if account is None:
            return Addressee(has_account=False)
        return Addressee(
            has_account=True,
            disabled=account["disabled"],
            email_enabled=account.get("email_enabled", True),
            is_member=app is None or await memberships.of_app(self.db, app, account["_id"]) is not None,
        )

    async def _token(self, notice: Notice, account: Document | None) -> _Token | None:
        if notice.token is None:
            return None
        if self.settings.secret is None:
            raise MisconfiguredError("CONMAN_SECRET is missing on this worker: without it no link can be made")
        purpose, record_id, number = notice.token.purpose, notice.token.record_id, notice.token.number
        text = make_token(self.settings.secret.get_secret_value(), purpose, record_id, number)
        document = await records.find(self.db, TOKEN_RECORDS[purpose], record_id)
        kept = None
        if document is not None:
            # A password that was set since voids every token that was made before (`services/password_resets.py`).
            void = account is not None and document.get("session_epoch", epoch_of(account)) != epoch_of(account)
            kept = TokenRecord(
                number=document["token_number"],
                hash=None if void else document.get("token_hash"),
                expires_at=document["expires_at"],
            )
        try:
            dead = dead_token(kept, number=number, computed_hash=token_hash(text), at=now())
        except AnotherSecretError:
            raise MisconfiguredError("CONMAN_SECRET of this worker is not the API's: the link would not work") from None
        return _Token(text, dead, document or {})

    async def _compose(
        self, row: Document, notice: Notice, email: str, account: Document | None, app: Document | None, token: _Token | None
    ) -> Outgoing:
        base = public_base(self.settings)
        name = _name_of(account)
        words = Words(
            link=notice_link(base, notice, None if token is None else token.text),
            preferences_link=preferences_link(base),
            recipient_name=name,
            actor_name=await self._user_name(notice.actor_user_id, account),
            app_name=_name_of(app),
            role=None if token is None else token.record.get("role"),
            expires_at=None if token is None else token.record["expires_at"],
            data=_clean(notice.data),
            environment_name=_environment_name(notice, app),
            release_tag=await self._tag(notice.data.get("release_id")),
            requester_name=await self._user_name(notice.data.get("requested_by"), account),
            author_name=await self._user_name(notice.data.get("author_user_id"), account),
        )
        envelope = Envelope(
            mail_id=row["_id"],
            at=row["created_at"],
            sender=sender(self.settings),
            recipient=email,
            recipient_name=name,
            host=public_host(self.settings),
        )
        return compose(envelope, render(notice.kind, words))

    async def _user_name(self, user_id: str | None, known: Document | None) -> str | None:
        if user_id is None:
            return None
        return _name_of(known if known is not None and known["_id"] == user_id else await records.find(self.db, "users", user_id))

    async def _tag(self, release_id: str | None) -> str | None:
        release = None if release_id is None else await records.find(self.db, "releases", release_id)
        return None if release is None else release["owned"]["tag"]


def _name_of(document: Document | None) -> str | None:
    return None if document is None else one_line(document["name"]) or None


def _environment_name(notice: Notice, app: Document | None) -> str | None:
    """The name that it has now; None for one that is archived, or where the notice is about none."""
    wanted = notice.entity_id if notice.entity_type == "environment" else notice.data.get("environment_id")
    listed = [] if app is None or wanted is None else app["environments"]
    return next((one_line(one["name"]) or None for one in listed if one["id"] == wanted), None)


def _clean(value: Any) -> Any:
    """What a notice brings along, with each text on one line."""
    if isinstance(value, dict):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_clean(part) for part in value]
    return one_line(value) if isinstance(value, str) else value
