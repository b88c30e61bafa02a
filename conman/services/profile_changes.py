"""Changing runtime profiles: each change is a new revision, in one guarded write with its audit (`spec.md` 6, `durability.md` 3).

The secrets are encrypted and the revision is kept first, under ids that a repeat makes again; the profile's record then names the
revision, if nobody was faster. What a crash leaves before that write is in no profile's history.

A change is refused while a deployment with the profile runs. `pins` counts the deployments that began to run with it: it guards
the write beside the version, so that none begins between the look at the locks and the write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from conman.domain import profile_audit, profile_notices
from conman.domain.decision import Event, NewNotice
from conman.domain.errors import DomainError, ErrorCode, invalid, not_found
from conman.domain.profile import Profile
from conman.domain.profile_audit import Revision
from conman.domain.profile_diff import changes
from conman.domain.profile_edit import NewProfile, ProfileEdit, check_sound, merge, refuse_masks
from conman.domain.secrets import SecretRef, mask
from conman.faults import fault_point
from conman.services.call import Call, keep, recall
from conman.services.environments import list_environments
from conman.services.notices import start_notices
from conman.services.overtaken import tell_of_profile
from conman.services.platform import Platform
from conman.services.profiles import (
    PROFILES,
    REVISIONS,
    history,
    is_same_text,
    live_temp_env_of,
    names_of,
    read_secret,
    revision_of,
)
from conman.services.secrets import seal
from conman.settings.programs import ProgramKind
from conman.store import locks, records
from conman.store.database import Database, Document


@dataclass(frozen=True, slots=True)
class _Plan:
    """The next revision: its content, the secrets to encrypt for it, and how it comes about."""

    profile: Profile
    change: str
    values: dict[str, str] = field(default_factory=dict[str, str])
    reverted_to: int | None = None


async def create(platform: Platform, call: Call, app: Document, new: NewProfile) -> Document:
    """Make a profile. Raises `validation_error`."""
    profile_id = call.derived_id("profile")
    if (there := await records.find(platform.db, PROFILES, profile_id)) is not None:
        return await _as_of(platform.db, there, 1)
    values = new.new_secrets()
    profile = merge(Profile(name=new.name), new, _refs(call, values))
    await check_references(platform, app, profile_id, None, profile)
    revision = await _keep_revision(platform, call, {"_id": profile_id, "app_id": app["_id"]}, _Plan(profile, "created", values))
    document: Document = {
        "_id": profile_id,
        "app_id": app["_id"],
        "content": revision["content"],
        "revision_id": revision["_id"],
        "revision_number": 1,
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "outgoing": call.audit(profile_audit.created(profile_id, Revision(1, profile)), app_id=app["_id"]),
    }
    made, _ = await records.insert_once(platform.db, PROFILES, document)
    return await _as_of(platform.db, made, 1)


async def edit(platform: Platform, call: Call, app: Document, profile_id: str, change: ProfileEdit, version: int) -> Document:
    """Merge a change in; one that changes nothing makes no revision.

    Raises `stale_write`, `validation_error` (also for a secret's mask that is written back), `environment_locked` while a
    deployment with this profile runs.
    """

    async def plan(document: Document) -> _Plan | None:
        profile = Profile.model_validate(document["content"])
        refuse_masks(profile, change)
        values = change.new_secrets()
        kept: dict[str, SecretRef] = {}
        for key in values.keys() & profile.secrets.keys():
            if is_same_text(values[key], await read_secret(platform, profile_id, key, profile.secrets[key])):
                kept[key] = profile.secrets[key]
        values = {key: value for key, value in values.items() if key not in kept}
        merged = merge(profile, change, {**_refs(call, values), **kept})
        await check_references(platform, app, profile_id, profile, merged)
        return _Plan(merged, "updated", values) if changes(profile, merged) else None

    return await _change(platform, call, app, profile_id, version, plan)


async def revert(platform: Platform, call: Call, app: Document, profile_id: str, number: int, version: int | None) -> Document:
    """Make a new revision from an old one, its secrets included. Raises as `edit`, and `not_found` for a number that is none."""

    async def plan(document: Document) -> _Plan:
        old = Profile.model_validate((await revision_of(platform.db, document, number))["content"])
        check_sound(old)
        await check_references(platform, app, profile_id, Profile.model_validate(document["content"]), old)
        return _Plan(old, "reverted", reverted_to=number)

    return await _change(platform, call, app, profile_id, version, plan)


async def delete(platform: Platform, call: Call, app: Document, profile_id: str, version: int | None) -> None:
    """Delete a profile that nothing builds on. Raises `stale_write`, and `conflict` naming what it is linked to."""
    while True:
        document = await _present(platform, call, app, profile_id, version)
        if document is None:
            return
        await _refuse_linked(platform, app, document)
        revision = Revision(document["revision_number"], Profile.model_validate(document["content"]))
        event = profile_audit.deleted(profile_id, revision)
        told = profile_notices.deleted(profile_id, revision.number, revision.profile)
        if await _write(platform, call, document, {"deleted": True}, [event], told) is not None:
            return


# -- One change


async def _change(
    platform: Platform,
    call: Call,
    app: Document,
    profile_id: str,
    version: int | None,
    plan: Callable[[Document], Awaitable[_Plan | None]],
) -> Document:
    """Plan and write the next revision, again when somebody was faster and no version was named."""
    while True:
        document = await _present(platform, call, app, profile_id, version)
        if document is None:
            return await _answer_again(platform, call, app, profile_id)
        planned = await plan(document)
        if planned is None:
            await keep(platform.db, call, {"revision_number": document["revision_number"], "version": document["version"]})
            return document
        held = await locks.read(platform.db, app["_id"])  # before the environments: a lock goes after its environment's record
        environments = await _linked_environments(platform, app, profile_id)
        await _refuse_while_running(platform.db, held, environments, call.at)
        _refuse_other_kind(planned.profile, environments)
        _refuse_other_use(document, planned.profile)
        deployed_in = [environment["_id"] for environment in environments if environment["owned"].get("current_deployment_id")]
        revision = await _keep_revision(platform, call, document, planned)
        fault_point("profile.kept")
        number = revision["revision_number"]
        before = Profile.model_validate(document["content"])
        events = profile_audit.edited(
            profile_id,
            Revision(document["revision_number"], before),
            Revision(number, planned.profile),
            deployed_in=deployed_in,
            reverted_to=planned.reverted_to,
        )
        fields: Document = {"content": revision["content"], "revision_id": revision["_id"], "revision_number": number}
        # Deployments there are to be blocked until the revision is revalidated (`spec.md` 12).
        fields.update({f"emergency.{environment_id}": number for environment_id in deployed_in})
        told = profile_notices.changed(
            profile_id,
            number,
            before,
            planned.profile,
            deployed_in=[environment["name"] for environment in environments if environment["_id"] in deployed_in],
            reverted_to=planned.reverted_to,
        )
        written = await _write(platform, call, document, fields, events, told)
        if written is not None:
            await tell_of_profile(platform.db, platform.commands, profile_id)
            return written


async def _present(platform: Platform, call: Call, app: Document, profile_id: str, version: int | None) -> Document | None:
    """The profile to change, None when an earlier request with this call's key was carried out.

    Raises `not_found` and `stale_write`.
    """
    document = await records.get(platform.db, PROFILES, profile_id, app_id=app["_id"], what="runtime profile")
    if await _event_of(platform.db, call, document) is not None or await recall(platform.db, call) is not None:
        return None
    if document.get("deleted"):
        raise not_found("runtime profile")
    if version not in (None, document["version"]):
        raise records.stale(document["version"])
    return document


async def _write(
    platform: Platform, call: Call, document: Document, fields: Document, events: list[Event], told: NewNotice
) -> Document | None:
    """The one write that makes a change true, None when the profile has changed meanwhile."""
    query = {"_id": document["_id"], "version": document["version"], "pins": document.get("pins"), "deleted": None}
    change = {"$set": {**fields, "updated_at": call.at}, "$inc": {"version": 1}}
    app_id = document["app_id"]
    outgoing = [*call.audit(*events, app_id=app_id), call.tell(told, app_id=app_id)]
    written = await records.write_where(platform.db, PROFILES, query, change, outgoing=outgoing)
    if written is not None:
        await start_notices(platform, call.notice_id(document["_id"]))
    return written


async def _keep_revision(platform: Platform, call: Call, document: Document, plan: _Plan) -> Document:
    """Encrypt what is new and keep the revision that follows what `document` holds, which may be nothing yet."""
    await seal(platform, document["_id"], plan.values, {key: _value_id(call, key) for key in plan.values})
    version = document.get("version", 0)
    revision: Document = {
        "_id": call.derived_id("profile-revision", str(version)),
        "app_id": document["app_id"],
        "profile_id": document["_id"],
        "revision_number": document.get("revision_number", 0) + 1,
        "previous_revision_id": document.get("revision_id"),
        "profile_version": version + 1,
        "content": plan.profile.model_dump(mode="json"),
        "change": plan.change,
        "reverted_to": plan.reverted_to,
        "created_at": call.at,
        "created_by": call.user_id,
        "version": 1,
    }
    kept, _ = await records.insert_once(platform.db, REVISIONS, revision)
    return kept


def _value_id(call: Call, key: str) -> str:
    return call.derived_id("secret", key)


def _refs(call: Call, values: dict[str, str]) -> dict[str, SecretRef]:
    return {key: SecretRef(value_id=_value_id(call, key), mask=mask(value)) for key, value in values.items()}


# -- Repeats


async def _event_of(db: Database, call: Call, document: Document) -> Document | None:
    """The audit event of an earlier request with this call's `Idempotency-Key`, if that one has changed the profile."""
    if not call.keyed:
        return None
    event_id = call.event_id(0)
    for entry in document.get("outgoing") or []:
        if entry["id"] == event_id:
            return entry["doc"]
    return await db["audit"].find_one({"_id": event_id})


async def _answer_again(platform: Platform, call: Call, app: Document, profile_id: str) -> Document:
    """The profile as the first request with this call's key left it."""
    document = await records.get(platform.db, PROFILES, profile_id, app_id=app["_id"], what="runtime profile")
    answer = await recall(platform.db, call)
    if answer is not None:  # that one changed nothing
        return {**await _as_of(platform.db, document, answer["revision_number"]), "version": answer["version"]}
    event = await _event_of(platform.db, call, document)
    if event is None:
        raise not_found("change of this profile")
    return await _as_of(platform.db, document, event["after"]["revision_number"])


async def _as_of(db: Database, document: Document, number: int) -> Document:
    """The profile as the change that made its revision `number` left it."""
    revision = await records.get(db, REVISIONS, (await history(db, document))[number], what="revision of this profile")
    return {
        **document,
        "content": revision["content"],
        "revision_number": number,
        "updated_at": revision["created_at"],
        "version": revision.get("profile_version", number),
    }


# -- What stands against a change


async def _refuse_while_running(db: Database, held: dict[str, Document], environments: list[Document], at: str) -> None:
    for environment in environments:
        holder = held.get(environment["_id"], {}).get("holder")
        if holder is not None and holder["state"] == "running" and not await locks.is_free(db, holder, at):
            raise DomainError(
                ErrorCode.ENVIRONMENT_LOCKED,
                f"A deployment to {environment['name']} runs with this profile: change it when that has ended.",
                {"deployment_id": holder["deployment_id"]},
            )


def _refuse_other_kind(profile: Profile, environments: list[Document]) -> None:
    if environments and profile.kind != "persistent_env":
        raise DomainError(
            ErrorCode.CONFLICT,
            f"The profile is linked to {names_of(environments)}, which take persistent_env only: link another one there first.",
            {"environment_ids": [environment["_id"] for environment in environments]},
        )


def _refuse_other_use(document: Document, profile: Profile) -> None:
    """What was derived for a temp env stays its profile, so that no environment is ever linked to one that goes away."""
    if "temp" in document and profile.kind != document["content"]["kind"]:
        raise DomainError(
            ErrorCode.CONFLICT,
            "The profile is that of a temporary environment, and its kind stays: make another profile instead.",
        )


async def _linked_environments(platform: Platform, app: Document, profile_id: str) -> list[Document]:
    """The environments that the profile is linked to, in stage order."""
    listed = await list_environments(platform, app)
    return [environment for environment in listed if environment["runtime_profile_id"] == profile_id]


async def _refuse_linked(platform: Platform, app: Document, document: Document) -> None:
    db, profile_id = platform.db, document["_id"]
    temp_env_id = await live_temp_env_of(db, document)
    if temp_env_id is not None:
        raise DomainError(
            ErrorCode.CONFLICT,
            "The profile is that of a temporary environment: delete that one, and the profile goes with it.",
            {"temp_env_id": temp_env_id},
        )
    environments = await _linked_environments(platform, app, profile_id)
    if environments:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"The profile is linked to {names_of(environments)}: link another one there, then delete this one.",
            {"environment_ids": [environment["_id"] for environment in environments]},
        )
    present = await records.get(db, "apps", app["_id"], what="app")
    if present["settings"]["default_base_profile_id"] == profile_id:
        raise DomainError(
            ErrorCode.CONFLICT,
            "The profile is the app's default_base_profile_id: choose another one in the settings, then delete this one.",
            {"setting": "default_base_profile_id"},
        )
    based_on_it = {"app_id": app["_id"], "content.database.base_profile_id": profile_id, "deleted": {"$ne": True}}
    others = await db[PROFILES].find({**based_on_it, "_id": {"$ne": profile_id}}).to_list()
    if others:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"The profile is the base of {names_of(others)}: choose another base_profile_id there, then delete this one.",
            {"profile_ids": [other["_id"] for other in others]},
        )


async def check_references(platform: Platform, app: Document, profile_id: str, before: Profile | None, after: Profile) -> None:
    """What a change newly names must be there: the base profile in this app, the command in the operator's configuration.

    Raises `validation_error`.
    """

    def new(name: Callable[[Profile], Any]) -> Any:
        named = name(after)
        return named if before is None or name(before) != named else None

    base = new(lambda profile: profile.database.base_profile_id if profile.database else None)
    if base is not None:
        if base == profile_id:
            raise invalid("database.base_profile_id", "is this profile itself: name another one")
        found = await records.find(platform.db, PROFILES, base, app_id=app["_id"])
        if found is None or found.get("deleted"):
            raise invalid("database.base_profile_id", "is no profile of this app")
    command = new(lambda profile: profile.migrations.command_ref if profile.migrations else None)
    if command is not None and platform.settings.program(ProgramKind.MIGRATION, command) is None:
        names = platform.settings.program_names(ProgramKind.MIGRATION)
        known = f"known are {', '.join(names)}" if names else "the operator has configured none"
        raise invalid("migrations.command_ref", f"is no migration command of the operator's configuration; {known}")
