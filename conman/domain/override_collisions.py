"""Collisions of overrides: two changesets that give the same key of the same profile different values (`spec.md` 6 and 10).

Values are compared by the digests of their type and value, secrets by keyed digests; docs/adr/0021-overrides-by-reference.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conman.domain.overrides import FrozenOverride


@dataclass(frozen=True, slots=True, order=True)
class Collision:
    """A key of a profile that another changeset, which comes first, overrides with another value."""

    profile_id: str
    key: str
    changeset_id: str

    def record(self) -> dict[str, Any]:
        """As a changeset's `conflicts` show it."""
        return {"kind": KIND, "profile_id": self.profile_id, "key": self.key, "changeset_id": self.changeset_id}


KIND = "override_collision"
"""The kind of a collision among a changeset's `conflicts`."""


def colliding_keys(ours: Sequence[FrozenOverride], theirs: Sequence[FrozenOverride]) -> list[tuple[str, str]]:
    """Profile and key of each collision between two sets of overrides, in their order; the same whichever set comes first.

    Equal typed values do not collide, and a deletion collides with a value. A variable and a secret of one name collide too: a
    profile can't have both.
    """
    pairs = [(one, other) for one in ours for other in theirs if one.profile_id == other.profile_id]
    found = {(one.profile_id, key) for one, other in pairs for key in _differing(one.keys, other.keys)}
    return sorted(found)


def _differing(ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> list[str]:
    same_key = [key for key, digest in ours.items() if key in theirs and theirs[key] != digest]
    return same_key + _as_both(ours, theirs) + _as_both(theirs, ours)


def _as_both(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> list[str]:
    """Names that one sets as a variable and the other as a secret."""
    names = [key.removeprefix("env_vars.") for key, digest in one.items() if key.startswith("env_vars.") and digest is not None]
    return [f"secrets.{name}" for name in names if other.get(f"secrets.{name}") is not None]


def collisions_with(
    overrides: Sequence[FrozenOverride], before: Sequence[tuple[str, Sequence[FrozenOverride]]]
) -> list[Collision]:
    """The collisions of one changeset with those that come before it, each given by its id and its overrides."""
    return [
        Collision(profile_id, key, changeset_id)
        for changeset_id, theirs in before
        for profile_id, key in colliding_keys(overrides, theirs)
    ]


def collided(order: Sequence[tuple[str, Sequence[FrozenOverride]]]) -> dict[str, list[Collision]]:
    """Who of these changesets leaves the queue, and why, judged in the queue's order: the later of two that collide. What has
    left collides with nothing any more.
    """
    staying: list[tuple[str, Sequence[FrozenOverride]]] = []
    leaving: dict[str, list[Collision]] = {}
    for changeset_id, overrides in order:
        found = collisions_with(overrides, staying)
        if found:
            leaving[changeset_id] = found
        else:
            staying.append((changeset_id, overrides))
    return leaving
