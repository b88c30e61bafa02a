"""How things are where a deployment is to go: what its request, its plan and its start are all judged on (`spec.md` 12)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from pymongo import DESCENDING

from conman.domain.deploy_rules import LockView, Surroundings
from conman.domain.deployment import DeploymentState, EnvironmentView, PastDeployment, Phase
from conman.domain.environment import EnvironmentDefinition
from conman.domain.errors import not_found
from conman.domain.freeze import frozen_until
from conman.domain.hold import Hold
from conman.domain.release import Release
from conman.domain.times import format_time, parse_time
from conman.services.arrivals import arriving_of
from conman.services.environments import listed, zone_of
from conman.services.profiles import PROFILES
from conman.store import locks, records
from conman.store.database import Database, Document


@dataclass(frozen=True, slots=True)
class Scene:
    """An app's environments as they were read at one moment, and a release's way through them."""

    app: Document
    release: Release
    environments: list[Document]
    past: list[PastDeployment]
    locked: Document
    active: dict[str, locks.Holder]
    superseding: frozenset[str]
    """Holders that wait only for drift, in environments where nobody else waits."""

    @property
    def hold(self) -> Hold | None:
        """The hold that somebody has set, whether it still stands or not."""
        kept = self.locked.get("hold")
        return Hold.model_validate(kept) if kept is not None else None

    def environment(self, environment_id: str) -> Document:
        """One listed environment. Raises `not_found`."""
        found = next((row for row in self.environments if row["_id"] == environment_id), None)
        if found is None:
            raise not_found("environment")
        return found

    def definition(self, environment_id: str) -> EnvironmentDefinition:
        """One environment as the app's admins define it."""
        return EnvironmentDefinition.model_validate(self.environment(environment_id))

    def frozen_until(self, environment_id: str, at: str) -> str | None:
        """When an environment thaws that is frozen at this time."""
        thaw = frozen_until(self.definition(environment_id).freeze_windows, parse_time(at), zone_of)
        return format_time(thaw) if thaw is not None else None

    def freeze_names(self, environment_id: str, at: str) -> list[str]:
        """The names of the freeze windows that are open there at this time."""
        windows = self.definition(environment_id).freeze_windows
        return [window.name for window in windows if window.end_at(parse_time(at), zone_of) is not None]

    def of(self, environment_id: str, start_at: str, besides: Collection[str] = ()) -> Surroundings:
        """The surroundings of a start in this environment at this time; `besides` are the deployments that are asked about."""
        environment = self.environment(environment_id)
        entries: dict[str, Document] = self.locked["environments"]
        holder = self.active.get(environment_id)
        if holder is not None and holder.deployment_id in besides:
            holder = None
        running = [
            other
            for other in self.active.values()
            if other.environment_id != environment_id and other.deployment_id not in besides and other.state == "running"
        ]
        return Surroundings(
            release_state=self.release.state,
            environment=_view(environment),
            environments=[_view(row) for row in self.environments],
            past=self.past,
            lock=LockView(
                holder_id=holder.deployment_id if holder is not None else None,
                waits_for_drift_only=holder is not None and holder.deployment_id in self.superseding,
                others_running=bool(running),
                closed=bool(entries.get(environment_id, {}).get("closed")),
                app_closed=bool(self.locked.get("closed")) or bool(self.app.get("archived")),
            ),
            frozen_until=self.frozen_until(environment_id, start_at),
            hold=self.hold,
            bad_release_ids=environment["owned"].get("bad_release_ids", []),
            required=self.definition(environment_id).required_approvals,
        )


def _view(row: Document) -> EnvironmentView:
    return EnvironmentView(
        id=row["_id"], name=row["name"], position=row["position"], current_release_id=row["owned"].get("current_release_id")
    )


async def look(db: Database, app: Document, release: Document, at: str) -> Scene:
    """Read it all, what the app's record says included."""
    app = await records.get(db, "apps", app["_id"], what="app")
    environments = await listed(db, app)
    locked = await locks.peek(db, app["_id"])
    active = await locks.active_in(db, locked["environments"], at)
    return Scene(
        app=app,
        release=Release.model_validate(release["owned"]),
        environments=environments,
        past=await _past(db, release["_id"]),
        locked=locked,
        active=active,
        superseding=await _superseding(db, locked["environments"], active),
    )


async def _past(db: Database, release_id: str) -> list[PastDeployment]:
    """The release's deployments, newest first."""
    rows = db["deployments"].find({"release_id": release_id}).sort([("_id", DESCENDING)])
    return [
        PastDeployment(environment_id=row["owned"]["environment_id"], release_id=release_id, state=row["owned"]["state"])
        async for row in rows
    ]


async def _superseding(db: Database, entries: dict[str, Document], active: dict[str, locks.Holder]) -> frozenset[str]:
    alone = [
        holder.deployment_id
        for environment_id, holder in active.items()
        if holder.state == "pending" and not entries[environment_id].get("waiting")
    ]
    waiting = {
        "_id": {"$in": alone},
        "owned.state": DeploymentState.PENDING.value,
        "owned.phase": Phase.DRIFT.value,
        "owned.drift_waits_until": {"$ne": None},
    }
    return frozenset([row["_id"] async for row in db["deployments"].find(waiting, {"_id": 1})])


async def shown_digest(db: Database, environment: Document, release_id: str, published_sha: str | None) -> str:
    """What an ordinary approval is bound to: the files, the profile's revision, and the overrides that arrive."""
    profile = await records.get(db, PROFILES, environment["runtime_profile_id"], what="runtime profile")
    parts = [published_sha or "", profile["revision_id"]]
    if published_sha is not None:
        found = await arriving_of(db, profile, release_id)
        parts += [one.content_id for arrival in found for one in arrival.overrides]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
