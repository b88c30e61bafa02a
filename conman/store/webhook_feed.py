"""Which events become deliveries to a webhook: they are made with the audit events, as these leave a document.

`webhook_deliveries` {_id, app_id, type, state, message, attempts, log, since, next_at, open?, …}: the id is the audit event's,
`open` the app's id until the delivery has ended.

Each process knows for a few seconds which apps have webhooks, so that what happens in other apps costs nothing. A process that
has not heard yet of a webhook makes no deliveries for it: what happened meanwhile is found again in the audit (`backfill`), by
the times that the record of the app keeps: `webhook_changed_from` of the first and `webhook_changed_at` of the last change that
is still to be looked at. docs/adr/0033-webhooks-are-sent-from-the-audit.md
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from weakref import finalize

from pymongo import ASCENDING, UpdateOne
from pymongo.errors import BulkWriteError

from conman.domain.ids import first_id_of
from conman.domain.times import later, milliseconds
from conman.domain.webhook import EVENTS, DeliveryState, Subscription, is_told, message
from conman.store.database import Database, Document, only_duplicates

DELIVERIES: Final = "webhook_deliveries"

KNOWN_FOR_SECONDS: Final = 5.0
"""How long a process believes what it has read of webhooks; it reads them once in this time, if anything happens at all."""
_EVERYBODY_KNOWS: Final = timedelta(minutes=1)
"""After this time each process knows of a change of a webhook, also where its clock differs a little and a write took long."""


@dataclass(slots=True)
class _Known:
    """What one process knows of the webhooks of a database; `tell` hears of apps that have new deliveries."""

    read_at: float = float("-inf")
    subscriptions: dict[str, Subscription] = field(default_factory=dict[str, Subscription])
    tell: Callable[[Collection[str]], None] | None = None


_known: dict[tuple[int, str], _Known] = {}
"""By client and database. Clients of one server are equal to each other, and yet each belongs to an event loop of its own."""


def _known_of(db: Database) -> _Known:
    key = (id(db.client), db.name)
    if key not in _known:
        _known[key] = _Known()
        finalize(db.client, _known.pop, key, None)
    return _known[key]


def hear_of_new(db: Database, tell: Callable[[Collection[str]], None] | None) -> None:
    """Have this process tell somebody for which apps it has just made deliveries; a tell may get lost, since upkeep looks too."""
    _known_of(db).tell = tell


def read_again(db: Database) -> None:
    """Let this process read anew which apps have webhooks, since it has just changed one."""
    _known_of(db).read_at = float("-inf")


async def subscriptions(db: Database) -> Mapping[str, Subscription]:
    """The webhooks of all apps, by app, as this process knows them."""
    known = _known_of(db)
    asked_at = time.monotonic()
    if asked_at - known.read_at >= KNOWN_FOR_SECONDS:
        found = db["apps"].find({"settings.webhook.url": {"$exists": True}}, {"name": 1, "settings.webhook.events": 1})
        known.subscriptions = {app["_id"]: _subscription(app) async for app in found}
        known.read_at = asked_at
    return known.subscriptions


def _subscription(app: Document) -> Subscription:
    return Subscription(app["_id"], app["name"], tuple(app["settings"]["webhook"]["events"]))


def _can_be_told(event: Document) -> bool:
    return event["action"] in EVENTS.get(event["entity_type"], ())


async def keep_deliveries(db: Database, events: Iterable[Document]) -> None:
    """Make the deliveries that audit events call for, as far as this process knows; a second time changes nothing."""
    concerned = [event for event in events if event["app_id"] is not None and _can_be_told(event)]
    if not concerned:
        return
    by_app = await subscriptions(db)
    wanted = [(event, by_app[event["app_id"]]) for event in concerned if event["app_id"] in by_app]
    await _keep(db, wanted)


async def _keep(db: Database, wanted: Sequence[tuple[Document, Subscription]]) -> int:
    rows = [
        delivery(message(event, subscription.app_name), at=event["occurred_at"])
        for event, subscription in wanted
        if is_told(subscription.events, event["entity_type"], event["action"])
    ]
    if not rows:
        return 0
    upserts = [UpdateOne({"_id": row["_id"]}, {"$setOnInsert": row}, upsert=True) for row in rows]
    try:
        made = (await db[DELIVERIES].bulk_write(upserts, ordered=False)).upserted_count
    except BulkWriteError as error:
        only_duplicates(error)
        made = error.details["nUpserted"]  # Another process that delivers the same events made the others.
    tell = _known_of(db).tell
    if tell is not None:
        tell({row["app_id"] for row in rows})
    return made


def delivery(told: Document, *, at: str) -> Document:
    """The record of a message that nobody has sent yet."""
    app_id = told["app"]["id"]
    return {
        "_id": told["id"],
        "app_id": app_id,
        "open": app_id,
        "type": told["type"],
        "state": DeliveryState.PENDING.value,
        "message": told,
        "attempts": 0,
        "log": [],
        "created_at": at,
        "updated_at": at,
        "since": None,
        "next_at": at,
    }


async def backfill(db: Database, at: str) -> int:
    """Make the deliveries that processes missed which had not heard of a webhook yet, once they all have; how many."""
    made = 0
    changed = {"webhook_changed_at": {"$lte": later(at, -_EVERYBODY_KNOWS)}}
    fields = {"name": 1, "settings.webhook": 1, "webhook_changed_from": 1, "webhook_changed_at": 1}
    async for app in db["apps"].find(changed, fields):
        changed_at = app["webhook_changed_at"]
        if app["settings"].get("webhook") is not None:
            subscription = _subscription(app)
            until = later(changed_at, _EVERYBODY_KNOWS)
            since = app.get("webhook_changed_from", changed_at)
            period = {"$gte": first_id_of(milliseconds(since)), "$lt": first_id_of(milliseconds(until))}
            events = await db["audit"].find({"app_id": app["_id"], "_id": period}).sort([("_id", ASCENDING)]).to_list()
            made += await _keep(db, [(event, subscription) for event in events])
        mine = {"_id": app["_id"], "webhook_changed_at": changed_at}
        await db["apps"].update_one(mine, {"$unset": {"webhook_changed_from": "", "webhook_changed_at": ""}})
    return made
