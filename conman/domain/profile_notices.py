"""What people are told of a change of a runtime profile (`spec.md` 14): which fields and keys, never a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conman.domain.decision import NewNotice
from conman.domain.notification import NoticeKind
from conman.domain.profile import Profile
from conman.domain.profile_diff import changes

MOST_NAMED = 20
"""How many fields and keys a mail names; the profile's history shows all."""


def changed(
    profile_id: str,
    number: int,
    before: Profile,
    after: Profile,
    *,
    deployed_in: Sequence[str] = (),
    reverted_to: int | None = None,
) -> NewNotice:
    """The app admins are told that somebody changed a profile; `deployed_in` names the environments whose deployments wait for
    it now, since they run with it (an emergency edit)."""
    named = list(dict.fromkeys(one.field if one.key is None else f"{one.field}.{one.key}" for one in changes(before, after)))
    data = {
        "profile_name": after.name,
        "revision_number": number,
        "fields": named[:MOST_NAMED],
        "more": max(len(named) - MOST_NAMED, 0),
        "environments": list(deployed_in),
        "reverted_to": reverted_to,
        "relinked": False,
        "deleted": False,
    }
    return NewNotice(NoticeKind.RUNTIME_PROFILE_CHANGED, "runtime_profile", profile_id, data=data)


def relinked(profile_id: str, number: int, before: Profile, after: Profile, environment: str) -> NewNotice:
    """The app admins are told that somebody gave an environment that was deployed another profile (an emergency edit)."""
    return _also(changed(profile_id, number, before, after, deployed_in=(environment,)), "relinked")


def deleted(profile_id: str, number: int, profile: Profile) -> NewNotice:
    """The app admins are told that somebody deleted a profile."""
    return _also(changed(profile_id, number, profile, profile), "deleted")


def _also(notice: NewNotice, fact: str) -> NewNotice:
    return replace(notice, data={**notice.data, fact: True})
