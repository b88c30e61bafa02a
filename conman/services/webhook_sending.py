"""Sending an app's deliveries to its webhook, one after the other (docs/webhooks.md).

One message of an app is under way at a time, in the order of the events; one that fails waits for its own next attempt and lets
the others pass. A round ends with the first attempt that fails, so that a receiver that hangs costs a round one attempt.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from pymongo import ASCENDING, ReturnDocument

from conman.config import Settings
from conman.domain.app import Webhook
from conman.domain.mail import harmless_reply
from conman.domain.times import later, milliseconds
from conman.domain.webhook import OPEN, PING, DeliveryState, EndReason, Problem, Round, before, next_attempt
from conman.domain.webhook_signature import signed_headers
from conman.faults import fault_point
from conman.services.app_settings import WEBHOOK_SECRET
from conman.services.clock import now
from conman.services.secrets import SecretStore, unseal
from conman.services.webhook_http import NoAnswerError, Poster
from conman.store import records
from conman.store.database import Database, Document
from conman.store.webhook_feed import DELIVERIES

log = structlog.get_logger(__name__)

MOST_IN_A_ROUND: Final = 50
ROUND_SECONDS: Final = 60.0
"""A round begins no further attempt after this time."""
MOST_LOGGED: Final = 30
"""So many attempts of a delivery are kept, the latest."""
_GONE: Final = 410
USER_AGENT: Final = "Conman-Webhooks/1"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How an attempt ended: whether the receiver answered for the message, and for how long it wants to be left alone."""

    taken: bool
    asked: timedelta = timedelta(0)


_TAKEN: Final = _Attempt(taken=True)


class WebhookSending:
    """The way out; one per process."""

    def __init__(self, settings: Settings, store: SecretStore, poster: Poster) -> None:
        self.db: Database = store.db
        self._store = store
        self._poster = poster
        self._patience = timedelta(hours=settings.webhook_patience_hours)
        self._days = settings.webhook_delivery_days

    async def send_round(self, app_id: str) -> Round:
        """Send what is due of an app, until an attempt fails or the round is over. Raises `VaultError` before any attempt."""
        app = await records.find(self.db, "apps", app_id)
        if app is None or app["settings"].get("webhook") is None:
            await self.end_all(app_id, DeliveryState.CANCELED, EndReason.WEBHOOK_REMOVED)
            return Round()
        webhook = Webhook.model_validate(app["settings"]["webhook"])
        secrets = await self._secrets(app_id, webhook)
        if not secrets:
            await self.end_all(app_id, DeliveryState.FAILED, EndReason.NO_SECRET)
            return Round()
        taken, failed, began = 0, None, time.monotonic()
        for row in await self._due(app_id):
            if failed or time.monotonic() - began > ROUND_SECONDS:
                break
            made = await self._attempt(row["_id"], webhook.url, secrets)
            if made is not None:
                taken, failed = taken + made.taken, None if made.taken else made
        if failed is not None and not taken:
            await self._wait_with_it(app_id)
        return Round(
            taken=taken,
            failed=int(failed is not None),
            wait_seconds=await self._wait(app_id),
            asked_seconds=failed.asked.total_seconds() if failed is not None else 0,
        )

    async def _wait_with_it(self, app_id: str) -> None:
        """The patience for all that waits begins while the receiver takes nothing; what has waited for long enough is given up.

        Else an app whose receiver is gone would pile up events faster than each can have an attempt of its own.
        """
        at = now()
        await self.db[DELIVERIES].update_many({"open": app_id, "since": None}, {"$set": {"since": at}})
        over = {"open": app_id, "state": DeliveryState.PENDING.value, "since": {"$lt": later(at, -self._patience)}}
        given_up = 0
        async for row in self.db[DELIVERIES].find(over, {"_id": 1}):
            given_up += await self._end(row["_id"], DeliveryState.FAILED, EndReason.GAVE_UP) is not None
        if given_up:
            log.warning("webhook_given_up_waiting", app_id=app_id, deliveries=given_up)

    async def _due(self, app_id: str) -> list[Document]:
        due = self.db[DELIVERIES].find({"open": app_id, "next_at": {"$lte": now()}}, {"_id": 1})
        return await due.sort([("_id", ASCENDING)]).limit(MOST_IN_A_ROUND).to_list()

    async def _wait(self, app_id: str) -> float | None:
        first = await self.db[DELIVERIES].find_one({"open": app_id}, {"next_at": 1}, sort=[("next_at", ASCENDING)])
        return None if first is None else max(0.0, (milliseconds(first["next_at"]) - milliseconds(now())) / 1000)

    async def _secrets(self, app_id: str, webhook: Webhook) -> list[str]:
        """The secrets that sign now, the newest first; none: the webhook has none."""
        if webhook.secret is None:
            return []
        refs = [webhook.secret]
        if webhook.previous is not None and (webhook.previous_until or "") > now():
            refs.append(webhook.previous)
        return [(await unseal(self._store, app_id, {WEBHOOK_SECRET: ref}))[WEBHOOK_SECRET] for ref in refs]

    async def _attempt(self, delivery_id: str, url: str, secrets: list[str]) -> _Attempt | None:
        """One attempt; None: the delivery had ended before."""
        began = now()
        row = await self._begin(delivery_id, began)
        if row is None:
            return None
        fault_point("webhook.begun")
        body = json.dumps(row["message"], separators=(",", ":"), ensure_ascii=False).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "accept-encoding": "identity",
            **signed_headers(delivery_id, milliseconds(began) // 1000, body, secrets),
        }
        try:
            answer = await self._poster.post(url, headers, body)
        except NoAnswerError as error:
            await self._failed(row, began, {"problem": error.problem.value, "text": str(error)}, timedelta(0))
            return _Attempt(taken=False)
        # A crash from here to the next write sends it again, under the same id: at least once, not exactly once.
        fault_point("webhook.answered")
        if answer.is_yes:
            tried = _tried(began, {"status": answer.status})
            await _move(self.db, delivery_id, DeliveryState.DELIVERED, {**self._ended(), "delivered_at": now()}, tried)
            return _TAKEN
        outcome = {"problem": Problem.STATUS.value, "status": answer.status, "text": harmless_reply(answer.text)}
        if answer.status == _GONE:
            await self._end(delivery_id, DeliveryState.FAILED, EndReason.GONE, _tried(began, outcome))
            return _TAKEN  # It has answered for this one message, and may be asked for the next.
        await self._failed(row, began, outcome, answer.rest)
        return _Attempt(taken=False, asked=answer.rest)

    async def _begin(self, delivery_id: str, at: str) -> Document | None:
        await self.db[DELIVERIES].update_one({"_id": delivery_id, "since": None}, {"$set": {"since": at}})
        return await _move(self.db, delivery_id, DeliveryState.SENDING, {}, count=True)

    async def _failed(self, row: Document, began: str, outcome: Document, asked: timedelta) -> None:
        chance = random.random()
        # Somebody waits for the end of a ping, and sends another one where that helps.
        patience = timedelta(0) if row["type"] == PING else self._patience
        again = next_attempt(now(), row["attempts"], row["since"], patience, chance=chance, asked=asked)
        tried = _tried(began, outcome)
        if again is None:
            log.warning("webhook_given_up", delivery_id=row["_id"], app_id=row["app_id"], problem=outcome["problem"])
            await self._end(row["_id"], DeliveryState.FAILED, EndReason.GAVE_UP, tried)
        else:
            await _move(self.db, row["_id"], DeliveryState.PENDING, {"next_at": again}, tried)

    async def end_all(self, app_id: str, state: DeliveryState, reason: EndReason) -> int:
        """End everything that an app's webhook was still to be told; how many."""
        ended = 0
        async for row in self.db[DELIVERIES].find({"open": app_id}, {"_id": 1}):
            ended += await self._end(row["_id"], state, reason) is not None
        return ended

    async def _end(
        self, delivery_id: str, state: DeliveryState, reason: EndReason, tried: Document | None = None
    ) -> Document | None:
        return await _move(self.db, delivery_id, state, {**self._ended(), "reason": reason.value}, tried)

    def _ended(self) -> Document:
        at = now()
        return {"ended_at": at} if self._days == 0 else {"ended_at": at, "forget_at": later(at, timedelta(days=self._days))}


def _tried(began: str, outcome: Document) -> Document:
    """One attempt as its delivery keeps it."""
    return {"at": began, "milliseconds": milliseconds(now()) - milliseconds(began), **outcome}


async def _move(
    db: Database, delivery_id: str, state: DeliveryState, fields: Document, tried: Document | None = None, *, count: bool = False
) -> Document | None:
    """One guarded step of a delivery; None when it may not take it, since it has ended."""
    change: dict[str, Any] = {"$set": {"state": state.value, "updated_at": now(), **fields}}
    if count:
        change["$inc"] = {"attempts": 1}
    if tried is not None:
        change["$push"] = {"log": {"$each": [tried], "$slice": -MOST_LOGGED}}
    if state not in OPEN:
        change["$unset"] = {"open": ""}
    query = {"_id": delivery_id, "state": {"$in": before(state)}}
    return await db[DELIVERIES].find_one_and_update(query, change, return_document=ReturnDocument.AFTER)
