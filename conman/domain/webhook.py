"""An app's webhook: which events it is told, what a message of it says, and when an attempt is made again.

An event is an audit event of the app; its delivery has the same id, so that one event is one delivery however often the step that
makes it runs. What a message says is chosen by kind: ids, states, times and Git object ids leave, words of people never do.
docs/adr/0033-webhooks-are-sent-from-the-audit.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, cast

from conman.domain.audit import ACTIONS
from conman.domain.audit_schema import CODE, COUNT, DIGEST, FLAG, ID, SHA, TIME, Either, Kind, ListOf, Nullable, OneOf, Record
from conman.domain.decision import Model
from conman.domain.times import later

PING: Final = "webhook.ping"
"""The type of a message that an operator asks for, to see whether the receiver takes messages."""

_OF_AN_APP: Final = ("archived", "held", "released_from_hold")
_ENTITIES: Final = (
    "changeset",
    "queue",
    "release",
    "deployment",
    "environment",
    "runtime_profile",
    "temp_environment",
    "job",
)

EVENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"app": _OF_AN_APP, **{entity: tuple(ACTIONS[entity]) for entity in _ENTITIES}}
)
"""Entity type → its actions that a webhook can be told; an event's type is `entity_type.action`, by the names of the audit."""


def is_known(pattern: str) -> bool:
    """Whether some event matches the pattern: `*`, `release.*` (or `release`), or `release.published`."""
    entity, _, action = pattern.partition(".")
    return pattern == "*" or (entity in EVENTS and (action in ("", "*") or action in EVENTS[entity]))


def is_told(patterns: Sequence[str], entity_type: str, action: str) -> bool:
    """Whether a webhook with these patterns is told of an event."""
    if action not in EVENTS.get(entity_type, ()):
        return False
    return any(pattern in ("*", entity_type, f"{entity_type}.*", f"{entity_type}.{action}") for pattern in patterns)


# -- What a message says


_TOLD: Final = (ID, SHA, CODE, COUNT, FLAG, TIME, DIGEST)
_TOLD_TEXTS: Final = frozenset({"tag", "entity_id"})
"""Fields that the audit table has as text, and that hold what Conman made itself."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """An app that has a webhook, and the patterns of what that is told."""

    app_id: str
    app_name: str
    events: tuple[str, ...]


def message(event: Mapping[str, Any], app_name: str) -> dict[str, Any]:
    """What an audit event, as it is kept, tells a receiver."""
    entry = ACTIONS.get(event["entity_type"], {}).get(event["action"])
    data: dict[str, Any] = {}
    if entry is not None:
        data = _told_fields(entry.after, event["after"])
        previous = _told_fields(entry.before, event["before"]).get("state")
        if previous is not None:
            data["previous_state"] = previous
    if event["git_sha"] is not None:
        data["git_sha"] = event["git_sha"]
    return {
        "id": event["_id"],
        "type": f"{event['entity_type']}.{event['action']}",
        "occurred_at": event["occurred_at"],
        "app": {"id": event["app_id"], "name": app_name},
        "entity_type": event["entity_type"],
        "entity_id": event["entity_id"],
        "actor_user_id": event["actor_user_id"],
        "data": data,
    }


def ping_message(ping_id: str, app_id: str, app_name: str, at: str) -> dict[str, Any]:
    """What a ping says: as much of a message as an event of nothing has."""
    return {
        "id": ping_id,
        "type": PING,
        "occurred_at": at,
        "app": {"id": app_id, "name": app_name},
        "entity_type": "app",
        "entity_id": app_id,
        "actor_user_id": None,
        "data": {},
    }


def _told_fields(kind: Kind, value: Any) -> dict[str, Any]:
    """The fields of a half of an event that may leave; none where it is no record."""
    told = _told(kind, value)
    return cast("dict[str, Any]", told[0]) if told and isinstance(told[0], dict) else {}


def _told(kind: Kind, value: Any) -> list[Any]:
    """The value as it may leave, alone in a list; an empty list when it may not. A kind that is not named here stays."""
    if isinstance(kind, Nullable):
        return [None] if value is None else _told(kind.kind, value)
    if kind in _TOLD or isinstance(kind, OneOf):
        return [value]
    if isinstance(kind, ListOf):
        items = [_told(kind.item, item) for item in value]
        return [[item[0] for item in items]] if all(items) else []
    if isinstance(kind, Either):
        return _told(kind.first if next(kind.first.problems(value, ""), None) is None else kind.second, value)
    if isinstance(kind, Record):
        kinds = {**kind.optional, **kind.required}
        fields = {
            name: [item] if name in _TOLD_TEXTS else _told(kinds[name], item) for name, item in value.items() if name in kinds
        }
        return [{name: told[0] for name, told in fields.items() if told}]
    return []


# -- A delivery and its attempts


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    SENDING = "sending"
    """An attempt has begun; the receiver may have the message even where another attempt begins."""
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


MOVES: Final[Mapping[DeliveryState, tuple[DeliveryState, ...]]] = MappingProxyType(
    {
        DeliveryState.PENDING: (DeliveryState.SENDING, DeliveryState.FAILED, DeliveryState.CANCELED),
        DeliveryState.SENDING: (
            DeliveryState.SENDING,
            DeliveryState.PENDING,
            DeliveryState.DELIVERED,
            DeliveryState.FAILED,
            DeliveryState.CANCELED,
        ),
        DeliveryState.DELIVERED: (),
        DeliveryState.FAILED: (),
        DeliveryState.CANCELED: (),
    }
)
"""What a delivery becomes by itself; one that has ended begins anew only when an operator says so."""

OPEN: Final = tuple(state for state in DeliveryState if MOVES[state])


def before(state: DeliveryState) -> list[str]:
    """The states that a delivery may be in just before it comes to be in `state`."""
    return [origin.value for origin in DeliveryState if state in MOVES[origin]]


class EndReason(StrEnum):
    """Why a delivery failed or was canceled."""

    GAVE_UP = "gave_up"
    """It was tried for as long as the operator allows; the last attempt says why it failed."""
    GONE = "gone"
    """The receiver answered 410: it wants no more of this."""
    NO_SECRET = "no_secret"
    """The webhook has no secret: nothing leaves unsigned."""
    WEBHOOK_REMOVED = "webhook_removed"
    CANCELED = "canceled"
    """Somebody canceled the workflow."""


class Problem(StrEnum):
    """Why an attempt failed, as its delivery keeps it."""

    DNS = "dns"
    """The receiver's name has no address."""
    FORBIDDEN_ADDRESS = "forbidden_address"
    """The receiver's name leads into a network that webhooks may not reach, or to a public address without TLS."""
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    BROKEN = "broken"
    """The connection ended, or what came was no HTTP."""
    STATUS = "status"
    """The answer was not 2xx."""


FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(hours=6)
_GROWTH: Final = 4
_SPREAD: Final = 0.2
"""A pause is up to this part shorter or longer, so that what failed together does not come back together."""


def next_attempt(now: str, attempts: int, since: str, patience: timedelta, *, chance: float, asked: timedelta) -> str | None:
    """When a delivery that has failed so many `attempts` is tried again; None when it was tried for long enough.

    `since` is when it began to be tried, `chance` a random number from 0 to 1, `asked` how long the receiver wants no more.
    """
    grown = FIRST_PAUSE * _GROWTH ** min(max(attempts, 1) - 1, 10)
    pause = min(grown, LONGEST_PAUSE) * (1 - _SPREAD + 2 * _SPREAD * chance)
    at = later(now, max(pause, min(asked, LONGEST_PAUSE)))
    return at if at <= later(since, patience) else None


_FIRST_REST: Final = timedelta(seconds=5)
_LONGEST_REST: Final = timedelta(minutes=5)


def rest(fruitless: int, asked: timedelta) -> timedelta:
    """How long an app's receiver is left alone after so many rounds in a row in which it took nothing, or when it has `asked`.

    Else one that hangs would hold a place that other apps wait for, one delivery after the other.
    """
    grown = timedelta(0) if fruitless == 0 else _FIRST_REST * 2 ** min(fruitless - 1, 10)
    return min(max(grown, asked), _LONGEST_REST)


# -- What the process is told


class WebhookStart(Model):
    """How `webhook:{app_id}` is started. `fruitless`: rounds in a row in which the receiver took nothing."""

    app_id: str
    fruitless: int = 0


class Round(Model):
    """One round of an app's deliveries. `wait_seconds`: until the next one is due; None: none is left."""

    taken: int = 0
    """Messages that the receiver answered for: it took them, or wants no more of them."""
    failed: int = 0
    """Attempts that failed, of which a round has one at most."""
    wait_seconds: float | None = None
    asked_seconds: float = 0
    """How long the receiver wants to be left alone."""
