"""What operators do with deliveries to webhooks: look at them, send one again, send a ping (`conman webhooks`)."""

from __future__ import annotations

from typing import Any

from pymongo import DESCENDING, ReturnDocument

from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.webhook import DeliveryState, ping_message
from conman.services.clock import new_id, now
from conman.store import records
from conman.store.database import Database, Document
from conman.store.webhook_feed import DELIVERIES, delivery
from conman.workflows.client import Commands


async def listed(db: Database, *, app_id: str | None, state: str | None, limit: int) -> list[Document]:
    """The latest deliveries, of an app or in a state where one is given. Raises `validation_error` for a state that is none."""
    query: Document = {}
    if app_id is not None:
        query["app_id"] = app_id
    if state is not None:
        if state not in [known.value for known in DeliveryState]:
            raise invalid("state", f"is none of {', '.join(known.value for known in DeliveryState)}")
        query["state"] = state
    return await db[DELIVERIES].find(query).sort([("_id", DESCENDING)]).limit(limit).to_list()


async def found(db: Database, delivery_id: str) -> Document:
    """A delivery with its attempts. Raises `not_found`."""
    return await records.get(db, DELIVERIES, delivery_id, what="delivery")


async def app_named(db: Database, name_or_id: str) -> Document:
    """An app by its id or its name. Raises `not_found`."""
    app = await db["apps"].find_one({"$or": [{"_id": name_or_id}, {"name": name_or_id}]})
    if app is None:
        raise not_found("app")
    return app


async def send_again(db: Database, commands: Commands, delivery_id: str) -> Document:
    """Begin a delivery anew, with all its patience: one that has ended, in whichever way, or one that waits for its next attempt.

    Raises `not_found`, and `conflict` for one that is being sent.
    """
    row = await found(db, delivery_id)
    again: Document = {"state": DeliveryState.PENDING.value, "open": row["app_id"], "next_at": now(), "since": None}
    begun = await db[DELIVERIES].find_one_and_update(
        {"_id": delivery_id, "state": {"$ne": DeliveryState.SENDING.value}},
        {
            "$set": {**again, "updated_at": now(), "attempts": 0},
            "$unset": {"reason": "", "ended_at": "", "delivered_at": "", "forget_at": ""},
        },
        return_document=ReturnDocument.AFTER,
    )
    if begun is None:
        raise DomainError(ErrorCode.CONFLICT, "This delivery is being sent: wait for the end of the attempt.")
    await commands.start_webhook(row["app_id"])
    return begun


async def ping(db: Database, commands: Commands, app: Document) -> str:
    """Send a message of type `webhook.ping`, whatever the webhook subscribes to; its id.

    Raises `conflict` when the app has no webhook, or that has no secret.
    """
    webhook: dict[str, Any] | None = app["settings"]["webhook"]
    if webhook is None or webhook.get("secret") is None:
        lacks = "has no webhook" if webhook is None else "has a webhook without a secret, and nothing leaves unsigned"
        raise DomainError(ErrorCode.CONFLICT, f"The app {lacks}: set it in the app's settings.")
    at = now()
    row = delivery(ping_message(new_id(at), app["_id"], app["name"], at), at=at)
    await db[DELIVERIES].insert_one(row)
    await commands.start_webhook(app["_id"])
    return row["_id"]
