"""What others change of a release after its own process has ended (`spec.md` 3 and 12)."""

from __future__ import annotations

from conman.domain.decision import Actor
from conman.domain.deployment import RollbackMode
from conman.domain.messages import UndoRelease
from conman.domain.release import DEPLOYABLE, Release
from conman.domain.rollback import rolled_back
from conman.store.database import Database, Document
from conman.store.outgoing import change_release, release_entry


async def roll_back(db: Database, request: UndoRelease) -> None:
    """The release is `rolled_back`, since another one that undoes it is published; a repeat changes nothing."""

    async def decide(release: Release) -> tuple[Release, Document] | None:
        if release.state not in DEPLOYABLE:
            return None
        mode = RollbackMode.REVERT_AND_RELEASE
        after, event = rolled_back(request.release_id, release, mode, by_release_id=request.by_release_id)
        actor = Actor(user_id=request.user_id)
        return after, release_entry(
            request.app_id, request.release_id, event, request.at, "undone", request.by_release_id, actor=actor
        )

    await change_release(db, request.release_id, f"undone:{request.by_release_id}", request.at, decide)
