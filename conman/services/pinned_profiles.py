"""Whether the runtime profiles with which a release's gate ran are still what it ran with (`spec.md` 11)."""

from __future__ import annotations

from collections.abc import Sequence

from conman.domain.release import PinnedProfile
from conman.services.arrivals import PROFILES, REVISIONS
from conman.store import records
from conman.store.database import Database

DELETED = ""
"""The revision of a profile that is gone."""


async def changed_since(db: Database, app_id: str, pinned: Sequence[PinnedProfile]) -> list[PinnedProfile]:
    """The pinned profiles that are other ones now, as they are now: edited, reverted, deleted, or their environment has another.

    A revision that only took in what a deployment brought is no change: those overrides are of releases that were published
    before, and the gate ran with them already. Overrides of a release that was published since are no concern of this: it has
    moved the integration head.
    """
    app = await records.get(db, "apps", app_id, what="app")
    linked = {environment["name"]: environment["runtime_profile_id"] for environment in app["environments"]}
    changed: list[PinnedProfile] = []
    for one in pinned:
        present_id: str = linked.get(one.environment, one.profile_id)
        profile = await records.find(db, PROFILES, present_id)
        revision_id: str = DELETED if profile is None or profile.get("deleted") else profile["revision_id"]
        if present_id != one.profile_id or not await _only_received(db, revision_id, one.profile_revision_id):
            changed.append(PinnedProfile(environment=one.environment, profile_id=present_id, profile_revision_id=revision_id))
    return changed


async def _only_received(db: Database, revision_id: str, since: str) -> bool:
    """Whether a revision is that of before, or came from it by what deployments brought alone."""
    while revision_id != since:
        revision = await records.find(db, REVISIONS, revision_id)
        if revision is None or revision.get("change") != "released":
            return False
        revision_id = revision["previous_revision_id"]
    return True
