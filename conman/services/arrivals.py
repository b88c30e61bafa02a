"""What a release brings to the profile of an environment (`spec.md` 6).

The overrides that arrive are merged into a revision before the deployment's gate runs, so that gate and environment get what will
be. No profile names that revision until the deployment has succeeded: then it becomes the profile's own, and the releases whose
overrides it brought are `received_release_ids` of the profile. docs/adr/0021-overrides-by-reference.md
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from conman.domain import profile_audit
from conman.domain.app import ValidationGate
from conman.domain.decision import Actor
from conman.domain.errors import DomainError
from conman.domain.ids import derived_uuid7
from conman.domain.messages import GateProfile
from conman.domain.outgoing import audit_entry
from conman.domain.override_travel import Arrival, PublishedRelease, arriving
from conman.domain.overrides import frozen_of, overridden
from conman.domain.profile import Profile
from conman.domain.profile_audit import Revision
from conman.domain.profile_edit import check_sound
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.services.override_contents import contents_of
from conman.store import records
from conman.store.database import Database, Document

PROFILES = "profiles"
REVISIONS = "profile_revisions"


async def published_releases(db: Database, app_id: str) -> list[PublishedRelease]:
    """The app's releases that were published, in publish order."""
    query = {"app_id": app_id, "owned.published_sha": {"$ne": None}}
    wanted = {"owned.members": 1, "owned.overrides": 1, "owned.reverts_release_id": 1}
    rows = db["releases"].find(query, wanted).sort([("owned.published_at", 1), ("_id", 1)])
    return [
        PublishedRelease(
            row["_id"],
            [
                *(one for member in row["owned"]["members"] for one in frozen_of(member.get("overrides", []))),
                *frozen_of(row["owned"].get("overrides", [])),
            ],
            row["owned"].get("reverts_release_id"),
        )
        async for row in rows
    ]


async def gate_profiles(
    db: Database, app_id: str, overridden_ids: Collection[str], undoing: PublishedRelease | None = None
) -> list[GateProfile]:
    """With which profiles the suite of a release runs: the canonical environment's and those that the release overrides, or every
    environment's (`spec.md` 9); a profile that several environments share once. `undoing` is a release that undoes another one:
    the suite runs as if it were published.
    """
    app = await records.get(db, "apps", app_id, what="app")
    gate = ValidationGate.model_validate(app["settings"]["validation_gates"].get("release", {}))
    published = await published_releases(db, app_id)
    if undoing is not None:
        published = [*published, undoing]
    found: dict[str, GateProfile] = {}
    for environment in app["environments"]:
        profile_id: str = environment["runtime_profile_id"]
        canonical = environment["id"] == app["settings"]["canonical_env_id"]
        if profile_id in found or not (gate.profile_scope == "all" or canonical or profile_id in overridden_ids):
            continue
        profile = await records.get(db, PROFILES, profile_id, what="runtime profile")
        received: list[str] = profile.get("received_release_ids", [])
        waiting = arriving(profile_id, published[-1].id, published, received) if published else []
        found[profile_id] = GateProfile(
            environment=environment["name"],
            profile_id=profile_id,
            profile_revision_id=profile["revision_id"],
            waiting=[one.bare for arrival in waiting for one in arrival.overrides],
        )
    return list(found.values())


async def prepare(db: Database, profile_id: str, *, release_id: str, deployment_id: str, by: str | None, at: str) -> str:
    """The id of the revision with which a deployment goes out: the profile's present one, or one with what the release brings.

    A repeat finds the same. Raises `validation_error` when the profile would not be sound with it, and `LookupError` when the
    content of an override is missing.
    """
    profile = await records.get(db, PROFILES, profile_id, what="runtime profile")
    found = await arriving_of(db, profile, release_id)
    if not found:
        return profile["revision_id"]
    revision = await _next_revision(db, profile, found, deployment_id=deployment_id, by=by, at=at)
    check_sound(Profile.model_validate(revision["content"]))
    await records.insert_once(db, REVISIONS, revision)
    fault_point("arrival.kept")
    return revision["_id"]


async def arriving_of(db: Database, profile: Document, release_id: str) -> list[Arrival]:
    """What a release that is published would bring to a profile as it is now."""
    published = await published_releases(db, profile["app_id"])
    return arriving(profile["_id"], release_id, published, profile.get("received_release_ids", []))


async def receive(db: Database, revision_id: str, *, deployment_id: str, by: str | None, at: str) -> None:
    """The profile becomes what a deployment that succeeded has brought; a repeat changes nothing.

    The revision follows the one that the profile had when it was prepared. Where another environment with the same profile was
    deployed meanwhile, what is still to arrive is brought to the profile as it is now.
    """
    prepared = await records.get(db, REVISIONS, revision_id, what="revision of the runtime profile")
    while prepared.get("arrivals"):
        profile = await records.get(db, PROFILES, prepared["profile_id"], what="runtime profile")
        received: list[str] = profile.get("received_release_ids", [])
        left = [one for one in _arrivals_of(prepared) if one.release_id not in received]
        if not left:
            return
        revision = prepared
        if profile["revision_id"] != prepared["previous_revision_id"]:
            revision = await _next_revision(db, profile, left, deployment_id=deployment_id, by=by, at=at)
            revision, _ = await records.insert_once(db, REVISIONS, revision)
        if await _name(db, profile, revision, deployment_id=deployment_id, by=by, at=at):
            return


async def _name(db: Database, profile: Document, revision: Document, *, deployment_id: str, by: str | None, at: str) -> bool:
    """Make the revision the profile's own, in one write with its audit; False when the profile has changed meanwhile."""
    before: list[str] = profile.get("received_release_ids", [])
    after = [*before, *(one.release_id for one in _arrivals_of(revision))]
    event = profile_audit.received(
        profile["_id"],
        Revision(profile["revision_number"], Profile.model_validate(profile["content"])),
        Revision(revision["revision_number"], Profile.model_validate(revision["content"])),
        before,
        after,
    )
    event_id = derived_uuid7(milliseconds(at), "arrival", "audit", deployment_id, revision["_id"])
    entry = audit_entry(event_id, event, app_id=profile["app_id"], actor=Actor(user_id=by), at=at)
    fields = {
        "content": revision["content"],
        "revision_id": revision["_id"],
        "revision_number": revision["revision_number"],
        "received_release_ids": after,
        "updated_at": at,
    }
    query = {"_id": profile["_id"], "version": profile["version"], "revision_id": profile["revision_id"]}
    change = {"$set": fields, "$inc": {"version": 1}}
    return await records.write_where(db, PROFILES, query, change, outgoing=[entry]) is not None


async def _next_revision(
    db: Database, profile: Document, arrivals: Sequence[Arrival], *, deployment_id: str, by: str | None, at: str
) -> Document:
    """The revision after the profile's present one, with these overrides; not kept yet."""
    contents = await contents_of(db, [one for arrival in arrivals for one in arrival.overrides])
    merged = overridden(Profile.model_validate(profile["content"]), contents)
    return {
        "_id": derived_uuid7(milliseconds(at), "arrival", deployment_id, profile["revision_id"]),
        "app_id": profile["app_id"],
        "profile_id": profile["_id"],
        "revision_number": profile["revision_number"] + 1,
        "previous_revision_id": profile["revision_id"],
        "profile_version": profile["version"] + 1,
        "content": merged.model_dump(mode="json"),
        "change": "released",
        "arrivals": [_kept(arrival) for arrival in arrivals],
        "created_at": at,
        "created_by": by,
        "version": 1,
    }


def _kept(arrival: Arrival) -> dict[str, Any]:
    return {"release_id": arrival.release_id, "overrides": [one.model_dump(mode="json") for one in arrival.overrides]}


def _arrivals_of(revision: Document) -> list[Arrival]:
    return [Arrival(one["release_id"], frozen_of(one["overrides"])) for one in revision["arrivals"]]


def problem_of(error: DomainError) -> str:
    """Why a deployment can't go out with what its release brings, and what to do."""
    return f"The overrides that the release brings do not fit the environment's profile. {error.message} Then deploy again."
