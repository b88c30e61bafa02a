"""Whether a chain of audit events is whole, and where it is not (docs/adr/0035-the-audit-is-a-chain.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from conman.domain.sealing import GENESIS, Seal, chain_of, content_of, digest_of, link_hash

MOST_TOLD_APART = 64
"""Among how many places that do not hold a change is told from a swap: each is compared with each."""


class ProblemKind(StrEnum):
    """What was done to an event after it was sealed (`api.md` 3)."""

    CHANGED = "changed"
    REMOVED = "removed"
    REORDERED = "reordered"


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold at one place of a chain; `event_id` is null where nothing says any more which event stood there."""

    event_id: str | None
    seq: int
    kind: ProblemKind
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"event_id": self.event_id, "seq": self.seq, "kind": self.kind.value, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class _Broken:
    """A place where event and seal do not belong together, kept to be compared with others like it."""

    index: int
    seal: Seal
    content: Mapping[str, Any]


class ChainCheck:
    """Walks the places of a chain in order, from the first; what it keeps grows with the problems, not with the chain.

    `known`: (place, the hash that it must have, who says so), from the chain's head and its anchor.
    """

    def __init__(self, known: Sequence[tuple[int, str, str]]) -> None:
        self.known = known
        self.checked = 0
        self.problems: list[Problem] = []
        self._hash: str | None = GENESIS
        self._seq = 0
        self._before: Seal | None = None
        self._broken: list[_Broken] = []

    def missing(self, seq: int) -> None:
        """Nothing says what stands at the next place."""
        self._seq, self._hash, self._before = seq, None, None
        self._tell(None, seq, ProblemKind.REMOVED, "The seal is gone that stood here, and mostly its event with it.")

    def place(self, seal: Seal, event: Mapping[str, Any] | None) -> None:
        """The next place, and the event of its seal, None when that is gone."""
        self.checked += 1
        if seal.seq <= self._seq:
            self._tell(seal.event_id, seal.seq, ProblemKind.CHANGED, "It has the place of another event.")
            return
        holds = seal.holds
        self._check_before(seal, holds)
        told = len(self.problems)
        if event is None:
            self._tell(seal.event_id, seal.seq, ProblemKind.REMOVED, "The event that was sealed here is gone.")
        elif not _is_as_sealed(seal, event):
            self._break(seal, event, "It is not what was sealed.")
        elif chain_of(event.get("app_id")) != seal.chain:
            self._tell(seal.event_id, seal.seq, ProblemKind.CHANGED, "It belongs to another app, and was sealed here.")
        elif not holds:
            self._break(seal, event, "Its hash is not made of it and its place.")
        whose = [who for seq, expected, who in self.known if seq == seal.seq and expected != seal.hash]
        if whose and len(self.problems) == told:
            detail = f"Its hash is not the one in {' and in '.join(whose)}: this event or one before it was rewritten."
            self._tell(seal.event_id, seal.seq, ProblemKind.CHANGED, detail)
        self._seq, self._hash, self._before = seal.seq, seal.hash if holds else None, seal if len(self.problems) == told else None

    def _check_before(self, seal: Seal, holds: bool) -> None:
        """A seal that holds shows whether the one before it was made anew."""
        if not holds or self._hash in (None, seal.previous_hash):
            return
        if self._seq == 0:
            self._tell(seal.event_id, seal.seq, ProblemKind.CHANGED, "It follows on something, and is the first.")
        elif self._before is not None:
            detail = "The event after it was sealed on another hash than it has: it was changed, and its seal with it."
            self._tell(self._before.event_id, self._seq, ProblemKind.CHANGED, detail)

    def _break(self, seal: Seal, event: Mapping[str, Any], detail: str) -> None:
        if len(self._broken) < MOST_TOLD_APART:
            self._broken.append(_Broken(len(self.problems), seal, content_of(event)))
        self._tell(seal.event_id, seal.seq, ProblemKind.CHANGED, detail)

    def _tell(self, event_id: str | None, seq: int, kind: ProblemKind, detail: str) -> None:
        self.problems.append(Problem(event_id, seq, kind, detail))

    def settled(self) -> list[Problem]:
        """All problems in the order of places; those are `reordered` whose event, or seal, belongs to another of the places."""
        for one in self._broken:
            other = next((two for two in self._broken if two is not one and _belong_together(one, two)), None)
            if other is not None:
                detail = f"It changed places with what was sealed at {other.seal.seq}."
                self.problems[one.index] = replace(self.problems[one.index], kind=ProblemKind.REORDERED, detail=detail)
        return sorted(self.problems, key=lambda problem: problem.seq)


def _is_as_sealed(seal: Seal, event: Mapping[str, Any]) -> bool:
    return _digest(content_of(event)) == seal.content


def _digest(content: Mapping[str, Any]) -> str | None:
    """None for what no event of Conman's holds."""
    try:
        return digest_of(content)
    except (TypeError, ValueError):
        return None


def _belong_together(one: _Broken, two: _Broken) -> bool:
    """Whether what stands at one place was sealed at the other: the event's fields, its seal, or its number."""
    return (
        _digest({**one.content, "id": two.seal.event_id}) == two.seal.content
        or _digest(one.content) == two.seal.content
        or link_hash(one.seal.chain, two.seal.seq, one.seal.previous_hash, one.seal.content) == one.seal.hash
    )
