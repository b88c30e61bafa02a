"""The timer by which reviewers are told again of a changeset that nobody reviews (`spec.md` 3)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

from conman.workflows import options
from conman.workflows.entity import Entity, now

with workflow.unsafe.imports_passed_through():
    from conman.domain import changeset_reminders as rules
    from conman.domain.changeset import Changeset
    from conman.domain.decision import Actor
    from conman.domain.messages import ReminderSetting
    from conman.domain.times import parse_time

LOOK_AGAIN = timedelta(hours=24)
"""The longest sleep: an app's changed `review_reminder_hours` takes effect within it, also where it was 0."""

PATCH = "review-reminders"
"""Runs that began before there were reminders go on without them until they continue as new (`durability.md` 22)."""


class Reminders:
    """At most one timer, as long as it is the reviewers' turn; what it waits for follows from the record alone."""

    def __init__(self, entity: Entity[Changeset]) -> None:
        self.entity = entity
        self._timer: asyncio.Task[None] | None = None
        self._ended = False

    def follow(self) -> None:
        """Start the timer that the state calls for, stop one that it no longer calls for."""
        timer = self._timer
        if timer is not None and timer.done():
            self._timer = None
            if not timer.cancelled():
                timer.result()
        if not rules.awaits_review(self.entity.state):
            if self._timer is not None:
                self._timer.cancel()
        elif self._timer is None and not self._ended and workflow.patched(PATCH):
            self._timer = asyncio.create_task(self._remind())
            self._timer.add_done_callback(lambda _: self.entity.touch())

    async def stop(self) -> None:
        """Stop the timer; a reminder that is being written is written."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)
            self._timer = None

    async def _remind(self) -> None:
        """Look at the setting, tell the reviewers if it is time, and sleep until it may be."""
        while not self.entity.gone and rules.awaits_review(self.entity.state):
            setting = await workflow.execute_activity(
                "review_reminder_hours", self.entity.app_id, result_type=ReminderSetting, **options.persist()
            )
            if setting.archived:
                self._ended = True
                return
            # A review, a resubmit or a withdrawal may interleave before the lock: decided again inside.
            await self.entity.apply(
                f"remind:{workflow.uuid4()}",
                Actor(),
                lambda cs, hours=setting.hours: rules.decide_reminder(self.entity.entity_id, cs, hours, now()),
            )
            if not self.entity.gone and rules.awaits_review(self.entity.state):
                await workflow.sleep(self._until_due(setting.hours), summary="review reminder")

    def _until_due(self, hours: int) -> timedelta:
        if not hours:
            return LOOK_AGAIN
        rest = parse_time(rules.due_at(self.entity.state, hours)) - workflow.now()
        return min(max(rest, timedelta(seconds=1)), LOOK_AGAIN)
