"""The steps of an app's webhook: send what is due, cancel what is left."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.heartbeat import heartbeating
from conman.domain.webhook import DeliveryState, EndReason, Round, WebhookStart
from conman.services.vault import VaultError
from conman.services.webhook_sending import WebhookSending


class WebhookActivities:
    """Bound to the way out."""

    def __init__(self, sending: WebhookSending) -> None:
        self.sending = sending

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.send_webhooks, self.cancel_webhooks]

    @activity.defn
    async def send_webhooks(self, start: WebhookStart) -> Round:
        """One round of an app's deliveries; a second run goes on with those that have not ended."""
        async with heartbeating():
            try:
                return await self.sending.send_round(start.app_id)
            except VaultError as error:
                raise ApplicationError(str(error), type="misconfigured") from None

    @activity.defn
    async def cancel_webhooks(self, start: WebhookStart) -> int:
        """Cancel what an app's webhook was still to be told; how many deliveries."""
        async with heartbeating():
            return await self.sending.end_all(start.app_id, DeliveryState.CANCELED, EndReason.CANCELED)
