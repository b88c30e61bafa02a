"""An app's deliveries in memory, behind a receiver by script; the answers are those of the real activities."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.domain.webhook import Round, WebhookStart


@dataclass
class Hook:
    """`script` is how rounds go, one after the other; then nothing is left. `hangs` lets a round never come to its end."""

    script: list[Round] = field(default_factory=list)
    rounds: list[WebhookStart] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    hangs: bool = False

    @activity.defn
    async def send_webhooks(self, start: WebhookStart) -> Round:
        self.rounds.append(start)
        async with heartbeating():
            if self.hangs:
                await asyncio.sleep(60)
        return self.script.pop(0) if self.script else Round()

    @activity.defn
    async def cancel_webhooks(self, start: WebhookStart) -> int:
        self.canceled.append(start.app_id)
        return 2

    def way_out(self) -> list[Any]:
        return [self.send_webhooks, self.cancel_webhooks]
