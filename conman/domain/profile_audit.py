"""What the audit says of a change of a runtime profile (`api.md` 5, `spec.md` 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conman.domain.decision import Event
from conman.domain.profile import Profile
from conman.domain.profile_diff import Change, changes

_ENTITY = "runtime_profile"


@dataclass(frozen=True, slots=True)
class Revision:
    """The content of a profile at one of its revisions."""

    number: int
    profile: Profile


def created(profile_id: str, revision: Revision) -> Event:
    """A profile was made."""
    return Event(_ENTITY, profile_id, "created", after=_whole(revision))


def deleted(profile_id: str, revision: Revision) -> Event:
    """A profile was deleted."""
    return Event(_ENTITY, profile_id, "deleted", before=_whole(revision))


def _whole(revision: Revision) -> dict[str, Any]:
    return {**revision.profile.masked(), "revision_number": revision.number}


def edited(
    profile_id: str, before: Revision, after: Revision, *, deployed_in: Sequence[str], reverted_to: int | None = None
) -> list[Event]:
    """A PATCH, or a revert to revision `reverted_to`; an emergency edit where the profile is `deployed_in` environments.

    An emergency edit is told as one event with all environments concerned; a revert that is one is told as both.
    """
    was, now = halves(before.profile, after.profile, changes(before.profile, after.profile))
    was["revision_number"], now["revision_number"] = before.number, after.number
    events: list[Event] = []
    if reverted_to is not None:
        events.append(Event(_ENTITY, profile_id, "reverted", before=was, after={**now, "reverted_to": reverted_to}))
    elif not deployed_in:
        events.append(Event(_ENTITY, profile_id, "updated", before=was, after=now))
    if deployed_in:
        events.append(
            Event(_ENTITY, profile_id, "emergency_edited", before=was, after={**now, "environment_ids": list(deployed_in)})
        )
    return events


def received(
    profile_id: str, before: Revision, after: Revision, releases_before: Sequence[str], releases_after: Sequence[str]
) -> Event:
    """A deployment that succeeded has brought overrides; the releases are those whose overrides the profile has (`spec.md` 6)."""
    was, now = halves(before.profile, after.profile, changes(before.profile, after.profile))
    was |= {"revision_number": before.number, "received_release_ids": list(releases_before)}
    now |= {"revision_number": after.number, "received_release_ids": list(releases_after)}
    return Event(_ENTITY, profile_id, "updated", before=was, after=now)


def relinked(environment_id: str, before_id: str, before: Revision, after_id: str, after: Revision) -> Event:
    """An environment that was deployed gets another profile: an emergency edit of what it runs with."""
    was, now = halves(before.profile, after.profile, changes(before.profile, after.profile))
    return Event(
        _ENTITY,
        after_id,
        "emergency_edited",
        before={**was, "runtime_profile_id": before_id, "revision_number": before.number},
        after={**now, "runtime_profile_id": after_id, "revision_number": after.number, "environment_ids": [environment_id]},
    )


def halves(one: Profile, other: Profile, found: Sequence[Change]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`before` and `after` of what changed: by key in `env_vars` and `secrets`, else whole."""
    both: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    wholes = (one.masked(), other.masked())
    for change in found:
        for half, whole, value in zip(both, wholes, (change.before, change.after), strict=True):
            if change.field in ("env_vars", "secrets"):
                half.setdefault(change.field, {})[change.key] = value
            else:
                half[change.field] = whole[change.field]
    return both
