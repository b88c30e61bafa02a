"""The hash chain over audit events: what an event's seal is made of (docs/adr/0035-the-audit-is-a-chain.md).

Each app has a chain of its own, and events without an app share one. A seal is `seq`, its place in the chain from 1 on, and
`hash`, a SHA-256 over the hash before it, its place and the digest of the event: whoever has the one hash can tell whether
anything before it was changed, removed or put elsewhere. The event's digest stands in between so that a chain can be followed
where only digests of some of its events are shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from conman.domain.times import later

PLATFORM: Final = "platform"
"""The chain of events without an app."""

GENESIS: Final = "0" * 64
"""What stands for the hash before a chain's first one."""

AUDIT_REF: Final = "refs/conman/audit"
"""The private ref of an app's repository that holds the chain's last hash, outside the database."""

ANCHOR_FILE: Final = "audit.json"
"""The one file in the commits of that ref."""

NOTE_EVERY: Final = timedelta(hours=24)
"""How often the audit itself says up to where it is sealed (`audit.sealed`), where anything else happened since."""


def chain_of(app_id: str | None) -> str:
    """The id of the chain to which an event belongs."""
    return app_id if app_id is not None else PLATFORM


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value as bytes: keys sorted, no spaces, ASCII.

    Raises `TypeError` or `ValueError` for what is no JSON value.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def content_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """What is sealed of an event as it is kept: all its fields, `_id` as `id`."""
    return {("id" if name == "_id" else name): value for name, value in event.items()}


def digest_of(content: Mapping[str, Any]) -> str:
    """The digest of what `content_of` gives. Raises `TypeError` or `ValueError` where it holds what is no JSON value."""
    return hashlib.sha256(canonical(content)).hexdigest()


def is_sealable(event: Mapping[str, Any]) -> bool:
    """Whether an event as it is kept is JSON, as all are that Conman writes: nothing else has a digest."""
    try:
        digest_of(content_of(event))
    except (TypeError, ValueError):
        return False
    return True


def link_hash(chain: str, seq: int, previous_hash: str, content: str) -> str:
    """The hash at one place of a chain, from the hash before it and the digest of the event there."""
    link = {"chain": chain, "content": content, "previous_hash": previous_hash, "seq": seq}
    return hashlib.sha256(canonical(link)).hexdigest()


@dataclass(frozen=True, slots=True)
class Seal:
    """One event's place in its chain; `content` is the event's digest."""

    event_id: str
    chain: str
    seq: int
    previous_hash: str
    content: str
    hash: str

    @property
    def holds(self) -> bool:
        """Whether its hash is made of what it says."""
        return link_hash(self.chain, self.seq, self.previous_hash, self.content) == self.hash

    def document(self) -> dict[str, Any]:
        """The seal as it is kept, under the event's id."""
        fields = asdict(self)
        return {"_id": fields.pop("event_id"), **fields}


def seal_of(document: Mapping[str, Any]) -> Seal:
    """A seal as it was kept; one that lacks something holds nothing."""
    previous_hash, content, found = (str(document.get(name)) for name in ("previous_hash", "content", "hash"))
    return Seal(str(document["_id"]), document["chain"], document["seq"], previous_hash, content, found)


def seals(chain: str, seq: int, last_hash: str, entries: Iterable[tuple[str, str]]) -> list[Seal]:
    """What follows on the place `seq` with the hash `last_hash`: a seal for each (event id, content digest), in order."""
    made: list[Seal] = []
    for event_id, content in entries:
        seq += 1
        found = link_hash(chain, seq, last_hash, content)
        made.append(Seal(event_id, chain, seq, last_hash, content, found))
        last_hash = found
    return made


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that are sealed together, as it is recorded at the chain's head before any seal is kept.

    `tells`: whether there is anything else in it than what sealing itself wrote.
    """

    chain: str
    first: int
    previous_hash: str
    ids: Sequence[str]
    contents: Sequence[str]
    at: str
    tells: bool

    @property
    def seals(self) -> list[Seal]:
        """The seals of its events, in order."""
        return seals(self.chain, self.first - 1, self.previous_hash, zip(self.ids, self.contents, strict=True))

    def document(self) -> dict[str, Any]:
        """Its fields as they are kept."""
        return asdict(self)


def batch_of(document: Mapping[str, Any]) -> Batch:
    """A batch as it was kept."""
    return Batch(**document)


def plan(chain: str, seq: int, last_hash: str, events: Iterable[Mapping[str, Any]], at: str) -> Batch:
    """The next batch of a chain that stands at `seq` with `last_hash`: events that have no seal, in the order of their ids.

    An event that comes late goes behind those that were sealed before it: a chain is in the order of sealing.
    """
    ordered = sorted(events, key=lambda event: event["_id"])
    return Batch(
        chain=chain,
        first=seq + 1,
        previous_hash=last_hash,
        ids=[event["_id"] for event in ordered],
        contents=[digest_of(content_of(event)) for event in ordered],
        at=at,
        tells=any((event["entity_type"], event["action"]) != ("audit", "sealed") for event in ordered),
    )


def is_noted(batch: Batch, last_noted_at: str) -> bool:
    """Whether the audit says now that it is sealed up to here: once a day, and never on account of its own word alone."""
    return batch.tells and later(last_noted_at, NOTE_EVERY) <= batch.at


def anchor_bytes(*, chain: str, seq: int, last_hash: str, at: str, platform: Mapping[str, Any] | None) -> bytes:
    """The content of the anchor's file: where an app's chain stood at a time, and the platform's (`seq`, `hash`) beside it."""
    return canonical({"chain": chain, "seq": seq, "hash": last_hash, "at": at, "platform": platform}) + b"\n"


@dataclass(frozen=True, slots=True)
class AnchorFile:
    """What an anchor's file says."""

    chain: str
    seq: int
    hash: str
    platform: tuple[int, str] | None


def read_anchor(data: bytes) -> AnchorFile:
    """What `anchor_bytes` wrote. Raises `ValueError` for anything else."""
    try:
        found = json.loads(data)
        beside = found["platform"]
        platform = None if beside is None else (int(beside["seq"]), str(beside["hash"]))
        return AnchorFile(str(found["chain"]), int(found["seq"]), str(found["hash"]), platform)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("this is no anchor of an audit") from error
