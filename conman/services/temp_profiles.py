"""The derived profile of a temp env (`spec.md` 6 and 13): what its base is now, with a changeset's overrides, its own URL and its
own database.

It is a record like every other profile, with secrets sealed under a data key of its own. `temp` {temp_env_id, overridden,
database?} tells it from them: `overridden` are the variables that do not come from the base profile, `database` is how its
database is reached and filled, pinned so that every attempt clones the same one and the clean-up finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from conman.config import Settings
from conman.domain import profile_audit
from conman.domain.clone import check_clone_name
from conman.domain.decision import Actor, Event
from conman.domain.ids import derived_uuid7, time_of
from conman.domain.outgoing import audit_entry
from conman.domain.overrides import FrozenOverride, frozen_of, overlaid, overridden_names
from conman.domain.profile import Profile, ProfileDatabase, ProfileKind
from conman.domain.profile_audit import Revision
from conman.domain.profile_edit import check_sound
from conman.domain.secrets import SecretRef, mask
from conman.domain.temp_env import LIVE, TempEnv, TempEnvKind, temp_database
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.services.clock import now
from conman.services.mongo_connections import CloneError, Connection, connection_of
from conman.services.override_contents import contents_of, owners_of, unseal_each
from conman.services.overrides import overrides_in_force
from conman.services.secrets import SecretStore, seal, unseal
from conman.store import records
from conman.store.database import Database, Document

PROFILES: Final = "profiles"
REVISIONS: Final = "profile_revisions"
SOURCE_KEY: Final = "CONMAN_TEMP_SOURCE"
"""The name of the connection to the cloned database among the profile's values; no secret of a member's can have it."""

_KINDS: Final[Mapping[TempEnvKind, ProfileKind]] = {
    TempEnvKind.WORKSPACE: "temp_workspace",
    TempEnvKind.CHANGESET: "temp_changeset",
}
_FILLED_BY: Final = {"existing": "clone_from_base"}
"""How a temp env's database is filled where its base says otherwise: it never gets the base's own one."""


@dataclass(frozen=True, slots=True)
class _Derived:
    """A derived profile to be, with the values of its secrets."""

    profile: Profile
    made_of: str
    """What tells it from one that an earlier attempt prepared of something else."""
    overridden: list[str]
    values: dict[str, str] = field(repr=False)
    source: str | None = field(default=None, repr=False)

    def value_id(self, profile_id: str, key: str) -> str:
        """Under which id a value is kept."""
        return derived_uuid7(time_of(profile_id), "temp-env-secret", profile_id, self.made_of, key)


def derived_id(temp_env_id: str, temp: TempEnv) -> str:
    """The id of a temp env's profile."""
    return derived_uuid7(milliseconds(temp.created_at), "temp-env-profile", temp_env_id)


async def derive(store: SecretStore, settings: Settings, app_id: str, temp_env_id: str, temp: TempEnv) -> Document:
    """The derived profile, made from what the base profile is now; a repeat finds the first one.

    Raises `CloneError` when its database can't be had, `VaultError` when a secret can't be read, `DomainError` when the base
    profile is gone or the overrides make no sound profile, and `LookupError` when the content of an override is missing.
    """
    profile_id = derived_id(temp_env_id, temp)
    there = await records.find(store.db, PROFILES, profile_id)
    if there is not None:
        return there
    base = await records.get(store.db, PROFILES, temp.base_profile_id, app_id=app_id, what="base profile")
    derived = await _derived(store, settings, base, temp_env_id, temp)
    values = dict(derived.values)
    if derived.source is not None:
        values[SOURCE_KEY] = derived.source
    await seal(store, profile_id, values, {key: derived.value_id(profile_id, key) for key in values})
    fault_point("temp_env.sealed")
    return await _insert(store.db, app_id, profile_id, temp_env_id, temp, derived)


async def _insert(db: Database, app_id: str, profile_id: str, temp_env_id: str, temp: TempEnv, derived: _Derived) -> Document:
    """The revision, then the record with its audit; a repeat changes nothing."""
    at = now()
    revision: Document = {
        "_id": derived_uuid7(milliseconds(temp.created_at), "temp-env-profile-revision", temp_env_id, derived.made_of),
        "app_id": app_id,
        "profile_id": profile_id,
        "revision_number": 1,
        "previous_revision_id": None,
        "profile_version": 1,
        "content": derived.profile.model_dump(mode="json"),
        "change": "created",
        "reverted_to": None,
        "created_at": at,
        "created_by": temp.created_by,
        "version": 1,
    }
    revision, _ = await records.insert_once(db, REVISIONS, revision)
    fault_point("temp_env.profiled")
    event = profile_audit.created(profile_id, Revision(1, Profile.model_validate(revision["content"])))
    document: Document = {
        "_id": profile_id,
        "app_id": app_id,
        "content": revision["content"],
        "revision_id": revision["_id"],
        "revision_number": 1,
        "temp": {
            "temp_env_id": temp_env_id,
            "overridden": derived.overridden,
            "database": _database_of(profile_id, derived),
        },
        "created_at": at,
        "updated_at": at,
        "created_by": temp.created_by,
        "version": 1,
        "outgoing": [_entry(event, app_id, temp_env_id, temp.created_by, at)],
    }
    made, _ = await records.insert_once(db, PROFILES, document)
    return made


def _database_of(profile_id: str, derived: _Derived) -> Document | None:
    database = derived.profile.database
    if database is None:
        return None
    return {
        "mode": database.provisioning_mode,
        "snapshot": derived.profile.data_strategy.seed_source_ref,
        "connection": {database.connection_ref: derived.value_id(profile_id, database.connection_ref)},
        "source": None if derived.source is None else {SOURCE_KEY: derived.value_id(profile_id, SOURCE_KEY)},
    }


def _entry(event: Event, app_id: str, temp_env_id: str, user_id: str | None, at: str) -> Document:
    entry_id = derived_uuid7(milliseconds(at), "temp-env-profile", temp_env_id, "audit", event.action)
    return audit_entry(entry_id, event, app_id=app_id, actor=Actor(user_id=user_id), at=at, workflow_id=f"temp-env:{temp_env_id}")


# -- What it is made of


async def _derived(store: SecretStore, settings: Settings, base: Document, temp_env_id: str, temp: TempEnv) -> _Derived:
    overrides = await _overrides(store.db, temp)
    contents = await contents_of(store.db, overrides)
    profile = overlaid(Profile.model_validate(base["content"]), contents)
    values = await unseal_each(store, profile.secrets, owners_of(overrides, contents), base["_id"])
    profile = profile.model_copy(update={"name": temp.label, "kind": _KINDS[temp.kind], "base_url": temp.url})
    made_of = ":".join([base["revision_id"], *(one.content_id for one in overrides)])
    derived = _Derived(profile, made_of, sorted(overridden_names(contents)), values)
    if profile.database is not None:
        derived = await _with_own_database(store, settings, base, profile.database, temp_env_id, derived)
    profile_id = derived_id(temp_env_id, temp)
    refs = {key: SecretRef(value_id=derived.value_id(profile_id, key), mask=mask(value)) for key, value in derived.values.items()}
    derived = replace(derived, profile=derived.profile.model_copy(update={"secrets": refs}))
    check_sound(derived.profile)
    return derived


async def _overrides(db: Database, temp: TempEnv) -> list[FrozenOverride]:
    """Those of the changeset for its base profile."""
    if temp.kind is not TempEnvKind.CHANGESET:
        return []
    changeset = await records.get(db, "changesets", temp.source_id, what="changeset")
    return [one for one in frozen_of(overrides_in_force(changeset)) if one.profile_id == temp.base_profile_id]


async def _with_own_database(
    store: SecretStore, settings: Settings, base: Document, database: ProfileDatabase, temp_env_id: str, derived: _Derived
) -> _Derived:
    """The same with a connection to a database of its own, and what that is to be filled from."""
    mode = _FILLED_BY.get(database.provisioning_mode, database.provisioning_mode)
    key = database.connection_ref
    own = await _connection(settings, derived.values.get(key), f"the secret {key} of its base profile")
    target = own
    if settings.temp_database_uri is not None:
        uri = settings.temp_database_uri.get_secret_value()
        target = await connection_of(uri, "CONMAN_TEMP_DATABASE_URI", trusted=True)
    source: str | None = None
    source_profile_id: str | None = base["_id"] if mode == "clone_from_base" else database.base_profile_id
    if mode == "clone_from_base":
        source, source_profile_id = own.uri, base["_id"]
        if database.provisioning_mode == "clone_from_base" and database.base_profile_id not in (None, base["_id"]):
            source_profile_id = database.base_profile_id
            source = await _connection_of_profile(store, settings, base["app_id"], str(source_profile_id))
    rewritten = target.to(check_clone_name(temp_database(temp_env_id)))
    section = database.model_copy(update={"provisioning_mode": mode, "base_profile_id": source_profile_id})
    return replace(
        derived,
        profile=derived.profile.model_copy(update={"database": section}),
        values={**derived.values, key: rewritten.uri},
        overridden=sorted({*derived.overridden, key}),
        source=source,
    )


async def _connection_of_profile(store: SecretStore, settings: Settings, app_id: str, profile_id: str) -> str:
    document = await records.get(store.db, PROFILES, profile_id, app_id=app_id, what="base profile of the database")
    profile = Profile.model_validate(document["content"])
    key = profile.database.connection_ref if profile.database is not None else None
    ref = profile.secrets.get(key) if key is not None else None
    if key is None or ref is None:
        raise CloneError(f"The profile {profile.name} has no database to clone: give it one, or choose another base profile.")
    value = (await unseal(store, profile_id, {key: ref}))[key]
    return (await _connection(settings, value, f"the secret {key} of {profile.name}")).uri


async def _connection(settings: Settings, value: str | None, what: str) -> Connection:
    if value is None:
        raise CloneError(f"{what} is missing, and its database names it as connection_ref: set it.")
    return await connection_of(value, what, allowed=settings.temp_database_server_patterns)


# -- What others ask of it


@dataclass(frozen=True, slots=True)
class OwnDatabase:
    """A temp env's database: where it is, how it is filled, and from which database or dump."""

    connection: Connection
    mode: str
    source: Connection | None
    snapshot: str | None


async def own_database(store: SecretStore, profile: Document) -> OwnDatabase | None:
    """The database of a derived profile, deleted or not; None where it has none.

    Raises `CloneError`, and `VaultError` when its connection can't be read.
    """
    kept: Document | None = profile["temp"]["database"]
    if kept is None:
        return None
    ids: dict[str, str] = {**kept["connection"], **(kept["source"] or {})}
    values = await unseal(store, profile["_id"], {key: SecretRef(value_id=value_id, mask="") for key, value_id in ids.items()})
    source = values.get(SOURCE_KEY)
    return OwnDatabase(
        connection=await connection_of(values[next(iter(kept["connection"]))], "the connection of the temp env", trusted=True),
        mode=kept["mode"],
        source=None if source is None else await connection_of(source, "the connection of its base", trusted=True),
        snapshot=kept["snapshot"],
    )


async def delete(db: Database, profile: Document) -> bool:
    """Delete a derived profile, hidden as every deleted one is; False while something else needs it. A repeat changes nothing."""
    while not profile.get("deleted"):
        if await is_needed(db, profile):
            return False
        at = now()
        revision = Revision(profile["revision_number"], Profile.model_validate(profile["content"]))
        event = profile_audit.deleted(profile["_id"], revision)
        entry = _entry(event, profile["app_id"], profile["temp"]["temp_env_id"], None, at)
        query = {"_id": profile["_id"], "version": profile["version"], "deleted": None}
        change = {"$set": {"deleted": True, "updated_at": at}, "$inc": {"version": 1}}
        written = await records.write_where(db, PROFILES, query, change, outgoing=[entry])
        profile = written or await records.get(db, PROFILES, profile["_id"], what="runtime profile")
    return True


async def is_needed(db: Database, profile: Document) -> bool:
    """Whether another profile builds on it, the app has it as its default base, or another live temp env was made from it."""
    profile_id = profile["_id"]
    live = {"owned.base_profile_id": profile_id, "owned.state": {"$in": [state.value for state in LIVE]}}
    based = {"content.database.base_profile_id": profile_id, "deleted": {"$ne": True}, "_id": {"$ne": profile_id}}
    default = {"_id": profile["app_id"], "settings.default_base_profile_id": profile_id}
    for collection, query in (("temp_envs", live), (PROFILES, based), ("apps", default)):
        if await db[collection].find_one(query, {"_id": 1}) is not None:
            return True
    return False
