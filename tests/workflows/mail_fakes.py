"""Notices and their mails in memory, behind a mail server by script; the answers are those of the real activities."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.heartbeat import heartbeating
from conman.domain.mail import OPEN, MailEnd, MailReason, MailState, NoticeEnd, Wave
from conman.domain.notification import NotifyStart

Script = Callable[[str, int], Awaitable[MailEnd]]
"""How one attempt at a mail ends, by mail and attempt; what it raises is tried again."""


async def accepts(_mail: str, _attempt: int) -> MailEnd:
    return MailEnd(state=MailState.SENT)


def not_taken() -> ApplicationError:
    return ApplicationError("the mail server answered 451 at the step `recipient`", type="mail_not_sent")


@dataclass
class Mailroom:
    """One notice: its mails by id, and what was done."""

    mails: dict[str, MailState] = field(default_factory=dict)
    reasons: dict[str, MailReason | None] = field(default_factory=dict)
    there: bool = True
    wave: int = 1000
    few: bool = True
    """Whether the notice ends with its last mail; where there are many, it ends with a last look."""
    app_id: str | None = None
    actor: str | None = None
    server: Script = accepts
    attempts: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    ended: list[NoticeEnd] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    on_look: Callable[[int], None] = lambda _: None

    def expects(self, *mail_ids: str) -> None:
        self.mails = dict.fromkeys(mail_ids, MailState.PENDING)

    def _end(self, mail_id: str, end: MailEnd) -> MailEnd:
        self.mails[mail_id], self.reasons[mail_id] = end.state, end.reason
        return end

    @activity.defn
    async def expand_notice(self, start: NotifyStart) -> Wave:
        self.looks += 1
        self.on_look(self.looks)
        if not self.there:
            return Wave(found=False)
        left = [mail for mail, state in self.mails.items() if state in OPEN][: self.wave]
        ended = None if left else self._ended(NoticeEnd(notice_id=start.notice_id))
        return Wave(app_id=self.app_id, actor_user_id=self.actor, mail_ids=left, ended=ended)

    @activity.defn
    async def send_mail(self, mail_id: str) -> MailEnd:
        self.attempts[mail_id] += 1
        self.mails[mail_id] = MailState.SENDING
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with heartbeating():
                end = await self.server(mail_id, self.attempts[mail_id])
        finally:
            self.under_way -= 1
        return self._with_notice(self._end(mail_id, end))

    @activity.defn
    async def give_up_mail(self, mail_id: str) -> MailEnd:
        if self.mails[mail_id] in OPEN:
            return self._with_notice(self._end(mail_id, MailEnd(state=MailState.FAILED, reason=MailReason.GAVE_UP)))
        return self._with_notice(MailEnd(state=self.mails[mail_id], reason=self.reasons[mail_id]))

    def _with_notice(self, end: MailEnd) -> MailEnd:
        if not self.few or any(state in OPEN for state in self.mails.values()):
            return end
        return end.model_copy(update={"notice": self._ended(NoticeEnd(notice_id=""))})

    @activity.defn
    async def end_notice(self, end: NoticeEnd) -> dict[str, int]:
        return self._ended(end)

    def _ended(self, end: NoticeEnd) -> dict[str, int]:
        self.ended.append(end)
        for mail, state in self.mails.items():
            if end.canceled and state in OPEN:
                self._end(mail, MailEnd(state=MailState.SKIPPED, reason=MailReason.CANCELED))
        return dict(Counter(state.value for state in self.mails.values()))

    def store(self) -> list[Any]:
        return [self.expand_notice, self.give_up_mail, self.end_notice]

    def way_out(self) -> list[Any]:
        return [self.send_mail]


async def hangs(_mail: str, _attempt: int) -> MailEnd:
    await asyncio.sleep(60)
    raise AssertionError("it was never canceled")
