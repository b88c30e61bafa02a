"""How overrides travel: which of them a release brings to a profile (`spec.md` 6)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from conman.domain.overrides import FrozenOverride


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """What the rule must know of a release: the overrides that it brings, in merge order, and which release it undid."""

    id: str
    overrides: Sequence[FrozenOverride]
    reverts_release_id: str | None = None

    def of(self, profile_id: str) -> list[FrozenOverride]:
        """Its overrides of one profile."""
        return [one for one in self.overrides if one.profile_id == profile_id]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one release brings to a profile."""

    release_id: str
    overrides: Sequence[FrozenOverride]


def arriving(profile_id: str, release_id: str, published: Sequence[PublishedRelease], received: Collection[str]) -> list[Arrival]:
    """A release brings a profile its own overrides and those of every release published before it that the profile has not
    received, in publish order, but not those of a release that one of these has undone (`spec.md` 6).

    What a release takes back that undid another is for profiles that have received the other; to the rest it brings nothing.
    `published` is in publish order and has the release itself. Raises `ValueError` when it does not.
    """
    numbers = {release.id: number for number, release in enumerate(published)}
    if release_id not in numbers:
        raise ValueError(f"release {release_id} is not published")
    until = published[: numbers[release_id] + 1]
    gone = undone(until)
    return [
        Arrival(release.id, overrides)
        for release in until
        if release.id not in received
        and release.id not in gone
        and release.reverts_release_id in (None, *received)
        and (overrides := release.of(profile_id))
    ]


def undone(published: Sequence[PublishedRelease]) -> set[str]:
    """The releases that later ones have undone, in publish order; what undoes one that undid another puts that in force again."""
    found: set[str] = set()
    for release in reversed(published):
        if release.reverts_release_id is not None and release.id not in found:
            found.add(release.reverts_release_id)
    return found
