"""The steps of a notice: expand it into mails, send each, write its end (`durability.md` 21)."""

from __future__ import annotations

from typing import Any

import structlog
from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.heartbeat import heartbeating
from conman.domain.mail import MailEnd, MailReason, NoticeEnd, Wave
from conman.domain.notification import NotifyStart
from conman.mail.transport import NotSentError
from conman.services import mails
from conman.services.sending import MisconfiguredError, Sending
from conman.store.database import Database

log = structlog.get_logger(__name__)


class NoticeActivities:
    """Bound to one database."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.expand_notice, self.give_up_mail, self.end_notice]

    @activity.defn
    async def expand_notice(self, start: NotifyStart) -> Wave:
        """The mails of a notice that have not ended; a second run finds the rows of the first."""
        async with heartbeating():
            try:
                return await mails.next_wave(self.db, start.notice_id)
            except ValidationError as error:
                raise _unreadable(error) from None

    @activity.defn
    async def give_up_mail(self, mail_id: str) -> MailEnd:
        """End a mail that was tried for a day; one that has ended otherwise stays so."""
        _, notice = await mails.row_and_notice(self.db, mail_id)
        end = await mails.with_notice(self.db, notice, await mails.failed(self.db, mail_id, MailReason.GAVE_UP))
        log.warning("mail_given_up", mail_id=mail_id, state=end.state.value, code=end.code)
        return end

    @activity.defn
    async def end_notice(self, end: NoticeEnd) -> dict[str, int]:
        """Write a notice's end; how many of its mails ended in which state."""
        async with heartbeating():
            return await mails.end_notice(self.db, end.notice_id, canceled=end.canceled)


class MailActivities:
    """Bound to the way out."""

    def __init__(self, sending: Sending) -> None:
        self.sending = sending

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.send_mail]

    @activity.defn
    async def send_mail(self, mail_id: str) -> MailEnd:
        """One attempt at one mail. What fails it is told without addresses or the server's words: it goes into history."""
        async with heartbeating():
            try:
                return await self.sending.attempt(mail_id)
            except NotSentError as error:
                raise ApplicationError(str(error), type="mail_not_sent") from None
            except MisconfiguredError as error:
                raise ApplicationError(str(error), type="misconfigured") from None
            except ValidationError as error:
                raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> ApplicationError:
    """A record that this version can't read; the library's own words would quote it."""
    fields = ", ".join(".".join(str(part) for part in problem["loc"]) for problem in error.errors())
    return ApplicationError(f"the notice can't be read by this version of Conman: {fields}", type="unreadable")
