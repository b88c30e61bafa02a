"""An app's environments: reading them, and replacing their list (`spec.md` 6).

The truth is one list in the app's record, changed by one guarded write with its audit event: `environments`, whose order is the
stage order, and the canonical one in the settings. The records of environments hold what workflows own, and beside it a copy of
what the list says, for queries. What a change of the list calls for there is recorded with it as `unsettled`, and done by steps
that may be repeated: by the same request, by the next one that reads the list, or by upkeep.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pymongo.errors import DuplicateKeyError

from conman.domain import profile_audit, profile_notices
from conman.domain.decision import Actor, Event
from conman.domain.environment import EnvironmentDefinition, Known, NewIds, ReplacedList, replace_list
from conman.domain.errors import DomainError, ErrorCode, not_found
from conman.domain.outgoing import audit_entry
from conman.domain.profile import Profile
from conman.domain.profile_audit import Revision
from conman.faults import fault_point
from conman.services.call import Call, has_happened
from conman.services.platform import Platform
from conman.services.profiles import PROFILES, REVISIONS
from conman.settings.programs import ProgramKind
from conman.store import locks, records
from conman.store.database import Database, Document

_COPIED = ("name", "runtime_profile_id", "deploy_target")
"""What an environment's record repeats of the list, beside its position."""


def definitions(app: Document) -> list[EnvironmentDefinition]:
    """The environments of an app's record, in stage order."""
    return [EnvironmentDefinition.model_validate(environment) for environment in app["environments"]]


async def list_environments(platform: Platform, app: Document) -> list[Document]:
    """The app's environments in stage order: each one's record, with what the list says of it now."""
    return await listed(platform.db, app)


async def listed(db: Database, app: Document) -> list[Document]:
    """As `list_environments`, for activities too."""
    present = await records.get(db, "apps", app["_id"], what="app")
    if present.get("unsettled") is not None:
        await settle(db, present)
    rows = db["environments"].find({"_id": {"$in": present["environment_ids"]}})
    documents = {row["_id"]: row async for row in rows}
    return [
        {**documents[environment["id"]], **environment, "_id": environment["id"], "position": position}
        for position, environment in enumerate(present["environments"])
    ]


async def find(platform: Platform, app: Document, environment_id: str) -> Document:
    """One listed environment of the app. Raises `not_found`."""
    for environment in await list_environments(platform, app):
        if environment["_id"] == environment_id:
            return environment
    raise not_found("environment")


def zone_of(name: str) -> ZoneInfo:
    """A zone of the IANA database. Raises `ValueError` for one that this machine does not have."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no zone of the IANA database") from error


# -- Replacing the list


async def replace(platform: Platform, call: Call, app_id: str, wanted: list[dict[str, Any]], version: int) -> Document:
    """Replace the list; returns the app's record. Leaving an environment out archives it.

    Raises `validation_error`, `stale_write`, `conflict` for an environment with an active deployment that is left out, and
    `environment_locked` for another profile while a deployment runs.
    """
    app = await records.get(platform.db, "apps", app_id, what="app")
    if await has_happened(platform.db, call, app):
        return await _settled(platform.db, app)
    app = await _settled(platform.db, app)
    present = definitions(app)
    after = replace_list(present, wanted, await _known(platform, app), _new_ids(call))
    if app["version"] != version:
        raise records.stale(app["version"])
    before = _shown(present, app["settings"]["canonical_env_id"])
    now = _shown(after.environments, after.canonical_id)
    if before == now:
        return app
    await _refuse_running(platform, app, after, call.at)
    await _close(platform, call, app_id, after.archived)
    fault_point("environments.closed")
    event = Event("app", app_id, "environments_updated", before={"environments": before}, after={"environments": now})
    try:
        changed = await records.update_part(
            platform.db,
            "apps",
            app_id,
            set_fields={
                "environments": [definition.document() for definition in after.environments],
                "environment_ids": [definition.id for definition in after.environments],
                "settings.canonical_env_id": after.canonical_id,
                "unsettled": _unsettled(call, present, after),
            },
            at=call.at,
            outgoing=call.audit(event, app_id=app_id),
            expected_version=version,
        )
    except DomainError:
        there = await records.get(platform.db, "apps", app_id, what="app")
        if await has_happened(platform.db, call, there):  # a repeat of this request was faster
            return await _settled(platform.db, there)
        await locks.reopen(platform.db, app_id, by=call.command_id)
        raise
    fault_point("environments.listed")
    if after.archived:
        await locks.settle(platform.db, app_id, by=call.command_id)
    return await _settled(platform.db, changed)


async def _known(platform: Platform, app: Document) -> Known:
    query = {"app_id": app["_id"], "deleted": {"$ne": True}, "content.kind": "persistent_env"}
    profiles = [row["_id"] async for row in platform.db[PROFILES].find(query, {"_id": 1})]
    zones = available_timezones()
    return Known(
        profile_ids=frozenset(profiles),
        deploy_targets=platform.settings.program_names(ProgramKind.TARGET),
        health_commands=platform.settings.program_names(ProgramKind.HEALTH),
        is_timezone=lambda name: name in zones,
    )


def _new_ids(call: Call) -> NewIds:
    return NewIds(
        environment=lambda number: call.derived_id("environment", str(number)),
        profile=lambda number: call.derived_id("profile", str(number)),
    )


def _shown(environments: Any, canonical_id: str | None) -> list[dict[str, Any]]:
    return [
        {**definition.document(), "position": position, "is_canonical": definition.id == canonical_id}
        for position, definition in enumerate(environments)
    ]


async def _refuse_running(platform: Platform, app: Document, after: ReplacedList, at: str) -> None:
    """A running deployment keeps its profile (`spec.md` 6)."""
    held = await locks.read(platform.db, app["_id"])
    for environment_id in after.relinked:
        holder = held.get(environment_id, {}).get("holder")
        if holder is not None and holder["state"] == "running" and not await locks.is_free(platform.db, holder, at):
            raise DomainError(
                ErrorCode.ENVIRONMENT_LOCKED,
                "A deployment runs with the environment's present profile: link another one when it has ended.",
                {"deployment_id": holder["deployment_id"]},
            )


async def _close(platform: Platform, call: Call, app_id: str, environment_ids: tuple[str, ...]) -> None:
    if not environment_ids:
        return
    holder = await locks.close(platform.db, app_id, environment_ids, by=call.command_id, at=call.at)
    if holder is not None:
        raise DomainError(
            ErrorCode.CONFLICT,
            "An environment that is left out has an active deployment: wait for its end, or cancel it.",
            {"environment_id": holder.environment_id, "deployment_id": holder.deployment_id},
        )


def _unsettled(call: Call, present: list[EnvironmentDefinition], after: ReplacedList) -> Document:
    """What is to be done beside the list, with all that its steps need to be the same whoever takes them."""
    profiles_before = {definition.id: definition.runtime_profile_id for definition in present}
    return {
        "by": call.command_id,
        "at": call.at,
        "actor": call.actor.model_dump(mode="json"),
        "user_id": call.user_id,
        "new_profiles": [{"id": profile_id, "name": name} for profile_id, name in after.new_profiles.items()],
        "relinked": [{"environment_id": one, "before_profile_id": profiles_before[one]} for one in after.relinked],
    }


async def make_defaults(platform: Platform, call: Call, app: Document) -> None:
    """The environments and profiles that a new app's list names; what is there stays as it is."""
    for position, environment in enumerate(app["environments"]):
        await insert_profile(platform.db, call, app["_id"], environment["runtime_profile_id"], environment["name"])
        await insert_environment(platform.db, call, app["_id"], environment, position)


# -- What the list calls for elsewhere


async def _settled(db: Database, app: Document) -> Document:
    if app.get("unsettled") is None:
        return app
    await settle(db, app)
    return await records.get(db, "apps", app["_id"], what="app")


async def settle(db: Database, app: Document) -> None:
    """Take the steps that the app's list calls for; each may be repeated, and an older list undoes nothing of a newer one."""
    unsettled = app["unsettled"]
    call = Call(
        command_id=unsettled["by"],
        at=unsettled["at"],
        actor=Actor.model_validate(unsettled["actor"]),
        user={"_id": unsettled["user_id"]},
    )
    for profile in unsettled["new_profiles"]:
        await insert_profile(db, call, app["_id"], profile["id"], profile["name"])
    fault_point("environments.profiles")
    for relink in unsettled["relinked"]:
        await _relink(db, call, app, relink)
    fault_point("environments.relinked")
    for position, environment in enumerate(app["environments"]):
        await _copy(db, call, app, environment, position)
    unlisted = {"app_id": app["_id"], "archived": False, "_id": {"$nin": app["environment_ids"]}}
    await db["environments"].update_many(
        {**unlisted, **_not_newer(app)}, {"$set": {"archived": True, "updated_at": call.at, "list_version": app["version"]}}
    )
    fault_point("environments.copied")
    await db["apps"].update_one({"_id": app["_id"], "unsettled.by": unsettled["by"]}, {"$unset": {"unsettled": ""}})


async def settle_all(db: Database) -> int:
    """Finish what crashes have left of changed lists. Returns in how many apps."""
    found = await db["apps"].find({"unsettled.by": {"$exists": True}}).to_list()
    for app in found:
        await settle(db, app)
    return len(found)


def _not_newer(app: Document) -> Document:
    return {"$or": [{"list_version": {"$exists": False}}, {"list_version": {"$lte": app["version"]}}]}


async def _copy(db: Database, call: Call, app: Document, environment: Document, position: int) -> None:
    copied = {name: environment[name] for name in _COPIED} | {"position": position, "archived": False}
    await insert_environment(db, call, app["_id"], environment, position)
    await db["environments"].update_one(
        {"_id": environment["id"], **_not_newer(app)}, {"$set": {**copied, "updated_at": call.at, "list_version": app["version"]}}
    )


async def insert_environment(db: Database, call: Call, app_id: str, environment: Document, position: int) -> None:
    """Make the record of a new environment; one that is there stays as it is."""
    document: Document = {
        "_id": environment["id"],
        "app_id": app_id,
        **{name: environment[name] for name in _COPIED},
        "position": position,
        "archived": False,
        "owned": {"fence": 0, "version": 0, "commands": []},
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
    }
    with suppress(DuplicateKeyError):
        await db["environments"].insert_one(document)


async def insert_profile(db: Database, call: Call, app_id: str, profile_id: str, name: str) -> None:
    """Make the empty profile of a new environment, with its first revision; what is there stays as it is."""
    profile = Profile(name=name)
    common: Document = {
        "app_id": app_id,
        "revision_number": 1,
        "content": profile.model_dump(mode="json"),
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
    }
    revision_id = call.derived_id("profile-revision", profile_id)
    revision = {"_id": revision_id, "profile_id": profile_id, "previous_revision_id": None, "change": "created", **common}
    await records.insert_once(db, REVISIONS, revision)
    event = profile_audit.created(profile_id, Revision(1, profile))
    entry = audit_entry(call.derived_id("audit-profile", profile_id), event, app_id=app_id, actor=call.actor, at=call.at)
    await records.insert_once(db, PROFILES, {"_id": profile_id, "revision_id": revision_id, "outgoing": [entry], **common})


async def _relink(db: Database, call: Call, app: Document, relink: Document) -> None:
    """Another profile for what was deployed already is an emergency edit (`spec.md` 6)."""
    environment_id = relink["environment_id"]
    environment = await records.get(db, "environments", environment_id, what="environment")
    listed = next((one for one in app["environments"] if one["id"] == environment_id), None)
    if listed is None or not environment["owned"].get("current_deployment_id"):
        return
    before = await records.get(db, PROFILES, relink["before_profile_id"], what="runtime profile")
    after = await records.get(db, PROFILES, listed["runtime_profile_id"], what="runtime profile")
    was, now_is = _revision(before), _revision(after)
    event = profile_audit.relinked(environment_id, before["_id"], was, after["_id"], now_is)
    entry_id = call.derived_id("audit-relinked", environment_id)
    entry = audit_entry(entry_id, event, app_id=app["_id"], actor=call.actor, at=call.at)
    told = profile_notices.relinked(after["_id"], now_is.number, was.profile, now_is.profile, listed["name"])
    notice = call.tell(told, environment_id, app_id=app["_id"])
    marked = {"$set": {f"emergency.{environment_id}": after["revision_number"]}}
    await records.write_where(db, PROFILES, {"_id": after["_id"]}, marked, outgoing=[entry, notice])


def _revision(document: Document) -> Revision:
    return Revision(document["revision_number"], Profile.model_validate(document["content"]))
