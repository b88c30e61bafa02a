"""What is where now: an app's environments as they are shown, and what was marked bad there (`spec.md` 12)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from conman.domain.decision import Event
from conman.domain.environment import DIRECTORY_TARGET, EnvironmentDefinition
from conman.domain.freeze import frozen_until
from conman.domain.times import format_time
from conman.faults import fault_point
from conman.services.call import Call, has_happened, record
from conman.services.drift import drift_view
from conman.services.environments import list_environments, zone_of
from conman.services.platform import Platform
from conman.services.releases import refuse_unknown_release
from conman.store import locks, records
from conman.store.database import Document


async def environment_records(platform: Platform, app: Document) -> list[dict[str, Any]]:
    """Environments with what is where now (`api.md` 4)."""
    environments = await list_environments(platform, app)
    app = await records.get(platform.db, "apps", app["_id"], what="app")
    entries = await locks.read(platform.db, app["_id"])
    moment = datetime.now(UTC)
    active = await locks.active_in(platform.db, entries, format_time(moment))
    shown: list[dict[str, Any]] = []
    for environment in environments:
        environment_id, owned = environment["_id"], environment["owned"]
        definition = EnvironmentDefinition.model_validate(environment)
        entry = entries.get(environment_id, {"fence": 0})
        holder = active.get(environment_id)
        line = await locks.line(platform.db, entry, format_time(moment))
        thaw = frozen_until(definition.freeze_windows, moment, zone_of)
        folder = None
        if definition.deploy_target == DIRECTORY_TARGET:
            folder = str(platform.settings.environments_folder / app["_id"] / environment_id / "current")
        shown.append(
            record(
                {**environment, "version": app["version"]},
                "position",
                **definition.document(),
                is_canonical=environment_id == app["settings"]["canonical_env_id"],
                current_release_id=owned.get("current_release_id"),
                current_deployment_id=owned.get("current_deployment_id"),
                deployed_at=owned.get("deployed_at"),
                deployed_by=owned.get("deployed_by"),
                health=owned.get("health", "unknown"),
                drift=drift_view(environment),
                lock=_lock(entry, holder),
                active_deployment_id=holder.deployment_id if holder is not None else None,
                waiting_deployment_ids=[one["deployment_id"] for one in line if not _is(holder, one["deployment_id"])],
                frozen_until=format_time(thaw) if thaw is not None else None,
                folder=folder,
                bad_release_ids=owned.get("bad_release_ids", []),
            )
        )
    return shown


def _is(holder: locks.Holder | None, deployment_id: str) -> bool:
    return holder is not None and holder.deployment_id == deployment_id


def _lock(entry: Document, holder: locks.Holder | None) -> dict[str, Any] | None:
    if holder is None:
        return None
    return {"deployment_id": holder.deployment_id, "state": holder.state, "since": holder.since, "fence": entry["fence"]}


async def clear(platform: Platform, call: Call, app: Document, environment_id: str, release_id: str) -> None:
    """A release may be deployed here again after it was marked bad; one that is not marked stays as it is.

    Raises `validation_error` for a release that is none of the app's.
    """
    refuse_unknown_release(await records.find(platform.db, "releases", release_id, app_id=app["_id"]))
    while True:
        environment = await records.get(platform.db, "environments", environment_id, app_id=app["_id"], what="environment")
        before: list[str] = environment["owned"].get("bad_release_ids", [])
        if release_id not in before or await has_happened(platform.db, call, environment):
            return
        after = [one for one in before if one != release_id]
        event = Event(
            "environment",
            environment_id,
            "release_cleared",
            before={"bad_release_ids": before},
            after={"bad_release_ids": after, "release_id": release_id},
        )
        query = {"_id": environment_id, "owned.bad_release_ids": before}
        change = {"$set": {"owned.bad_release_ids": after, "updated_at": call.at}}
        outgoing = call.audit(event, app_id=app["_id"])
        if await records.write_where(platform.db, "environments", query, change, outgoing=outgoing) is not None:
            fault_point("environment.cleared")
            return


async def environment_record(platform: Platform, app: Document, environment_id: str) -> dict[str, Any]:
    """One environment as it is shown."""
    return next(row for row in await environment_records(platform, app) if row["id"] == environment_id)
