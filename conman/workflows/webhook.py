"""`webhook:{app_id}` of an app: tells its webhook what is due until nothing is left (docs/webhooks.md)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from conman.workflows import options

with workflow.unsafe.imports_passed_through():
    from conman.domain.webhook import Round, WebhookStart, rest


@workflow.defn(name="webhook")
class WebhookWorkflow:
    """Arrives: `wake`, when there are new deliveries; a cancel of the workflow. Waits for: each delivery of the app to end.

    What is left to do stands in the deliveries: whichever run looks sends those that are due.
    """

    def __init__(self) -> None:
        self._woken = False

    @workflow.signal
    def wake(self) -> None:
        """There may be something new that is due."""
        self._woken = True

    @workflow.run
    async def run(self, start: WebhookStart) -> None:
        """Send what has not ended."""
        try:
            await self._send_all(start)
        except (ActivityError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            canceled = await workflow.execute_activity(
                "cancel_webhooks", start, result_type=int, **options.webhook(summary="cancel what is left")
            )
            workflow.set_current_details(f"Canceled, and {canceled} deliveries with it.")

    async def _send_all(self, start: WebhookStart) -> None:
        fruitless = start.fruitless
        while True:
            self._woken = False
            done = await workflow.execute_activity(
                "send_webhooks", start, result_type=Round, **options.webhook(summary="send what is due")
            )
            fruitless = fruitless + 1 if done.failed and not done.taken else 0
            if done.wait_seconds is None and not self._woken:
                workflow.set_current_details("Done: nothing is left to tell.")
                return
            await self._pause(done, fruitless)
            info = workflow.info()
            if info.is_continue_as_new_suggested() or info.get_current_history_length() >= options.CONTINUE_AFTER_EVENTS:
                workflow.continue_as_new(WebhookStart(app_id=start.app_id, fruitless=fruitless))

    async def _pause(self, done: Round, fruitless: int) -> None:
        """Leave a receiver alone that takes nothing, or asks for that; else wait until something is due or new."""
        pause = rest(fruitless, timedelta(seconds=done.asked_seconds))
        if pause:
            why = f"took nothing in {fruitless} rounds" if fruitless else "asks for a rest"
            workflow.set_current_details(f"The receiver {why}: it is left alone for {pause}.")
            await workflow.sleep(pause)
            return
        if not done.wait_seconds:
            return
        workflow.set_current_details(f"Waits for the next attempt, in {done.wait_seconds:.0f} s.")
        try:
            await workflow.wait_condition(lambda: self._woken, timeout=timedelta(seconds=done.wait_seconds))
        except TimeoutError:
            return
