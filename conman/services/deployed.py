"""What the record of an environment shows once a deployment there has ended (`spec.md` 12).

    owned: {fence, current_release_id, current_deployment_id, deployed_at, deployed_by, health, folder, bad_release_ids,
            applied_release_id, applied_deployment_id, applied_profile_revision_id, applied_at}

`current_…` is the last deployment that succeeded, `applied_…` what Conman has put in place last: they differ while a deployment
that failed its health check stands there.
"""

from __future__ import annotations

from conman.domain.decision import Actor, Event
from conman.domain.deploy_ending import Left
from conman.domain.deployment import Move
from conman.domain.ids import derived_uuid7
from conman.domain.messages import EndDeployment
from conman.domain.outgoing import audit_entry
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.store import records
from conman.store.database import Database, Document

ENVIRONMENTS = "environments"


async def environment_shows(db: Database, end: EndDeployment) -> None:
    """Show what a deployment leaves behind, if it touched the environment; a higher fence has the last word. Repeatable."""
    left = end.ending.left
    if end.ending.move is Move.SUCCEED:
        await _show(db, end, _succeeded(end))
    elif left is not None:
        await _show(db, end, _left(end, left))
        if left.marks_bad and end.release_id is not None:
            await _mark_bad(db, end, end.release_id)


async def _show(db: Database, end: EndDeployment, fields: Document) -> None:
    fence = end.persist.owned["fence"]
    shown = {f"owned.{name}": value for name, value in {"fence": fence, **fields}.items()}
    await db[ENVIRONMENTS].update_one({"_id": end.environment_id, "owned.fence": {"$lte": fence}}, {"$set": shown})


def _succeeded(end: EndDeployment) -> Document:
    at = end.persist.at
    return {
        "current_release_id": end.release_id,
        "current_deployment_id": end.deployment_id,
        "deployed_at": at,
        "deployed_by": end.requested_by,
        "health": "healthy",
        "folder": end.ending.folder,
        "applied_release_id": end.release_id,
        "applied_deployment_id": end.deployment_id,
        "applied_profile_revision_id": end.persist.owned.get("profile_revision_id"),
        "applied_at": at,
    }


def _left(end: EndDeployment, left: Left) -> Document:
    if left.release_id is None:
        return {"health": left.health}
    return {
        "health": left.health,
        "folder": left.folder,
        "applied_release_id": left.release_id,
        "applied_deployment_id": left.restored or end.deployment_id,
        "applied_profile_revision_id": left.profile_revision_id,
        "applied_at": end.persist.at,
    }


async def _mark_bad(db: Database, end: EndDeployment, release_id: str) -> None:
    """The release is bad for this environment until somebody clears it; in one write with its audit."""
    event_id = derived_uuid7(milliseconds(end.persist.at), "environment", "marked-bad", end.deployment_id)
    while True:
        environment = await records.get(db, ENVIRONMENTS, end.environment_id, what="environment")
        known: list[str] = environment["owned"].get("bad_release_ids", [])
        if release_id in known:
            return
        after = [*known, release_id]
        event = Event(
            "environment",
            end.environment_id,
            "release_marked_bad",
            before={"bad_release_ids": known},
            after={"bad_release_ids": after, "release_id": release_id, "deployment_id": end.deployment_id},
        )
        there = known if "bad_release_ids" in environment["owned"] else {"$exists": False}
        written = await records.write_where(
            db,
            ENVIRONMENTS,
            {"_id": end.environment_id, "owned.bad_release_ids": there},
            {"$set": {"owned.bad_release_ids": after}},
            outgoing=[audit_entry(event_id, event, app_id=end.app_id, actor=Actor(), at=end.persist.at)],
        )
        fault_point("end.marked")
        if written is not None:
            return
