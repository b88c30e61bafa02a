"""`notify:{id}` of a notice: one event, one mail for each of its recipients (`spec.md` 14, `durability.md` 21)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from conman.workflows import options

with workflow.unsafe.imports_passed_through():
    from conman.domain.mail import MailEnd, NoticeEnd, Wave, counted, tally
    from conman.domain.notification import NotifyStart

LOOKS = 10
LOOK_AGAIN = timedelta(minutes=1)
"""How often and how long apart a notice that is not there is looked for: upkeep delivers it within a minute, if there is one."""

ENDS_WITH_LAST = "ends-with-its-last-mail"
"""Patch: a notice that starts with its mails does not look for them, and ends with the last of them; before, it looked."""


@workflow.defn(name="notify")
class NotifyWorkflow:
    """Arrives: a cancel of the workflow. Waits for: each mail to be sent, refused or given up.

    What is left to do stands in the rows of the mails: whichever run looks sends those that have not ended.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @workflow.run
    async def run(self, start: NotifyStart) -> dict[str, int]:
        """Send what has not ended; returns how many mails ended in which state."""
        try:
            ends_with_last = workflow.patched(ENDS_WITH_LAST)
            wave = (start.wave if ends_with_last else None) or await self._next(start)
            while wave is not None and wave.mail_ids:
                workflow.set_current_details(f"Sends {len(wave.mail_ids)} mails; each is tried for a day.")
                ends = await asyncio.gather(*(self._send(mail_id) for mail_id in wave.mail_ids))
                done = next((end.notice for end in ends if end.notice is not None), None)
                if done is not None and ends_with_last:
                    return self._show_end("Done", done)
                info = workflow.info()
                if info.is_continue_as_new_suggested() or info.get_current_history_length() >= options.CONTINUE_AFTER_EVENTS:
                    workflow.continue_as_new(NotifyStart(notice_id=start.notice_id))
                wave = await self._next(start)
        except (ActivityError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            return await self._end(start, canceled=True)
        if wave is None or wave.ended is None:
            return await self._end(start, canceled=False)
        return self._show_end("Done", wave.ended)

    async def _next(self, start: NotifyStart) -> Wave | None:
        """The next mails, or the end of the notice; None when there is no such notice."""
        for _ in range(LOOKS):
            wave = await workflow.execute_activity(
                "expand_notice", start, result_type=Wave, **options.bulk(summary=f"mails of notice {start.notice_id}")
            )
            if wave.found:
                break
            workflow.set_current_details("Waits for the notice, which is not there yet.")
            await workflow.sleep(LOOK_AGAIN)
        else:
            return None
        if wave.mail_ids and (updates := options.notice_is_of(wave.app_id, wave.actor_user_id)):
            workflow.upsert_search_attributes(updates)
        return wave

    async def _send(self, mail_id: str) -> MailEnd:
        end = await self._to_its_end(mail_id)
        self.counts = counted([end], self.counts)
        workflow.set_current_details(f"Sends mails, each tried for a day; so far: {tally(self.counts)}.")
        return end

    async def _to_its_end(self, mail_id: str) -> MailEnd:
        try:
            return await workflow.execute_activity(
                "send_mail", mail_id, result_type=MailEnd, **options.mail(summary=f"send mail {mail_id}")
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
        return await workflow.execute_activity(
            "give_up_mail", mail_id, result_type=MailEnd, **options.persist(summary=f"give up mail {mail_id}")
        )

    async def _end(self, start: NotifyStart, *, canceled: bool) -> dict[str, int]:
        counts = await workflow.execute_activity(
            "end_notice",
            NoticeEnd(notice_id=start.notice_id, canceled=canceled),
            result_type=dict[str, int],
            **options.bulk(summary=f"end notice {start.notice_id}"),
        )
        return self._show_end("Canceled" if canceled else "Done", counts)

    def _show_end(self, how: str, counts: dict[str, int]) -> dict[str, int]:
        workflow.set_current_details(f"{how}: {tally(counts) or 'nobody was to be told'}.")
        return counts
