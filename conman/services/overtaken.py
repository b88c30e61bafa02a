"""Validated releases that can't be published any more: their head or a profile of their gate is another one, or a member is
no longer queued (`spec.md` 3).

They return to draft by themselves. Each looks when it is told; what was not told, since a process died or somebody moved the
branch outside, upkeep finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conman.domain.errors import DomainError
from conman.domain.queue import decide_reserve
from conman.domain.queue_records import Queue
from conman.domain.release import PinnedProfile, ReleaseState
from conman.services.pinned_profiles import changed_since
from conman.store import records
from conman.store.database import Database, Document
from conman.workflows import options
from conman.workflows.client import Commands, signal_if_running


async def look_again(db: Database, commands: Commands, query: Document, *, not_on: str | None = None) -> None:
    """Tell validated releases to look again, those aside that stand on the commit `not_on`."""
    validated = {"owned.state": ReleaseState.VALIDATED.value, **query}
    if not_on is not None:
        validated["owned.base_sha"] = {"$ne": not_on}
    for row in await db["releases"].find(validated, {"_id": 1}).to_list():
        await _tell(commands, row["_id"])


async def _tell(commands: Commands, release_id: str) -> None:
    """One that was lost is started by its next command, which is judged on what holds then."""
    await signal_if_running(commands.client, options.release_workflow(release_id), "look_again")


async def tell_of_profile(db: Database, commands: Commands, profile_id: str) -> None:
    """A profile has changed: validated releases whose gate rendered it look again."""
    await look_again(db, commands, {"owned.pinned_profiles.profile_id": profile_id})


async def tell_of_members(db: Database, commands: Commands, app_id: str, changeset_ids: Sequence[str]) -> None:
    """Changesets left the queue, or need a revalidation: the validated release that holds them looks again."""
    await look_again(db, commands, {"app_id": app_id, "owned.members.changeset_id": {"$in": list(changeset_ids)}})


async def members_left(db: Database, app_id: str, release_id: str, changeset_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Members of a release that are no longer `queued`, by the queue's own rule and in its words; [] where all are."""
    kept = await records.find(db, "queues", app_id)
    if kept is None:
        return []
    try:
        decide_reserve(Queue.model_validate(kept["owned"]), release_id, changeset_ids)
    except DomainError as error:
        return list(error.details)
    return []


async def find_overtaken(db: Database, commands: Commands) -> int:
    """Tell the validated releases that were overtaken and do not know it; returns how many."""
    told = 0
    wanted = {"app_id": 1, "owned.base_sha": 1, "owned.pinned_profiles": 1, "owned.members.changeset_id": 1}
    for row in await db["releases"].find({"owned.state": ReleaseState.VALIDATED.value}, wanted).limit(1000).to_list():
        owned = row["owned"]
        queue = await db["queues"].find_one({"_id": row["app_id"]}, {"owned.integration_sha": 1})
        moved = queue is not None and queue["owned"]["integration_sha"] not in ("", owned["base_sha"])
        pinned = [PinnedProfile.model_validate(one) for one in owned.get("pinned_profiles", [])]
        members = [member["changeset_id"] for member in owned.get("members", [])]
        left = await members_left(db, row["app_id"], row["_id"], members)
        if moved or left or await changed_since(db, row["app_id"], pinned):
            await _tell(commands, row["_id"])
            told += 1
    return told
