"""What should be in an environment: the release and the profile that Conman last applied there, and what is about to come
(`spec.md` 12).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from conman.domain.deploy_messages import DriftQuestion
from conman.domain.deployment import Deployment
from conman.domain.drift import Applied, DriftItem, emergency_edit
from conman.domain.in_place import in_place
from conman.domain.migrations import ExecutionState
from conman.domain.target import secret_digest
from conman.services.arrivals import arriving_of
from conman.services.migrations import executions_of
from conman.services.rendering import RenderedProfile, render
from conman.services.secrets import SecretStore
from conman.store import records
from conman.store.database import Database, Document

_REVISIONS = "profile_revisions"


@dataclass(frozen=True, slots=True)
class EmergencyEdit:
    """An edit of the profile by hand that the environment has not got yet; `revision_id` is what the profile is now."""

    item: DriftItem
    revision_id: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What should be there. `secrets` are all values that no report may hold; `applied` is None where nothing was applied yet."""

    deployment_id: str | None = None
    deployment: Deployment | None = None
    revision_number: int | None = None
    applied: Applied | None = None
    coming: Applied | None = None
    emergency: EmergencyEdit | None = None
    secrets: list[str] = field(default_factory=list[str], repr=False)


async def expected(
    store: SecretStore, app: Document, environment: Document, question: DriftQuestion, digest_key: bytes, cleared: list[str]
) -> Expected:
    """What should be in an environment, secrets as digests under the key of the question.

    `cleared` are revisions with which the deploy gate has passed: up to them no edit blocks. Raises `VaultError`, `not_found` and
    `LookupError` where a profile can't be rendered.
    """
    db, there = store.db, in_place(environment["owned"])
    if there is None:
        return Expected()
    deployment = await records.get(db, "deployments", there.deployment_id, what="deployment")
    revision = await records.find(db, _REVISIONS, there.revision_id) if there.revision_id is not None else None
    rendered = await render(store, await _as_it_was(db, app, there.at), None, there.revision_id)
    migrations = await _recorded_migrations(db, environment["_id"])
    applied = _applied(rendered, await _commit_of(db, there.release_id), migrations, digest_key)
    coming = await _coming(store, app, environment, question)
    return Expected(
        deployment_id=there.deployment_id,
        deployment=Deployment.model_validate(deployment["owned"]),
        revision_number=revision["revision_number"] if revision is not None else None,
        applied=applied,
        coming=_applied(coming[0], coming[1], migrations, digest_key) if coming is not None else None,
        emergency=await emergency_of(db, app, environment, revision, cleared),
        secrets=[*rendered.secrets.values(), *(coming[0].secrets.values() if coming is not None else ())],
    )


def _applied(rendered: RenderedProfile, commit_sha: str | None, migrations: list[str], digest_key: bytes) -> Applied:
    profile = rendered.profile
    return Applied(
        env_vars={key: value for key, value in rendered.variables.items() if key not in rendered.secrets},
        secrets={key: secret_digest(digest_key, value) for key, value in rendered.secrets.items()},
        base_url=profile.base_url,
        database=profile.database.model_dump(mode="json") if profile.database is not None else None,
        migrations=migrations,
        files=commit_sha,
    )


async def _commit_of(db: Database, release_id: str | None) -> str | None:
    release = await records.find(db, "releases", release_id) if release_id is not None else None
    return release["owned"].get("published_sha") if release is not None else None


async def _recorded_migrations(db: Database, environment_id: str) -> list[str]:
    """Those with a recorded success there, in the order in which they ran."""
    ran = await executions_of(db, environment_id)
    return [one.name for one in ran if one.state is ExecutionState.SUCCEEDED]


async def _as_it_was(db: Database, app: Document, at: str) -> Document:
    """The app with the default variables that it had then: those of the first change of them since, before it was made."""
    changes = {"entity_type": "app", "entity_id": app["_id"], "action": "settings_updated", "occurred_at": {"$gt": at}}
    rows = await db["audit"].find({**changes, "before.env_defaults": {"$exists": True}}).sort("_id").limit(1).to_list()
    if not rows:
        return app
    return {**app, "settings": {**app["settings"], "env_defaults": rows[0]["before"]["env_defaults"]}}


async def _coming(
    store: SecretStore, app: Document, environment: Document, question: DriftQuestion
) -> tuple[RenderedProfile, str | None] | None:
    """What the deployment that asks is about to put there: its profile with what its release brings, and its commit."""
    if question.deployment_id is None:
        return None
    db = store.db
    asking = await records.get(db, "deployments", question.deployment_id, what="deployment")
    release_id: str | None = asking["owned"]["release_id"]
    profile_id = profile_id_of(app, environment)
    profile = await records.get(db, "profiles", profile_id, what="runtime profile")
    found = await arriving_of(db, profile, release_id) if release_id is not None else []
    overrides = [one.bare for arrival in found for one in arrival.overrides]
    revision_id = question.profile_revision_id or profile["revision_id"]
    return await render(store, app, profile_id, revision_id, overrides), await _commit_of(db, release_id)


def profile_id_of(app: Document, environment: Document) -> str:
    """The profile that the app's list links now; the environment's own record may lag behind."""
    listed = (one["runtime_profile_id"] for one in app["environments"] if one["id"] == environment["_id"])
    return next(listed, environment["runtime_profile_id"])


async def emergency_of(
    db: Database, app: Document, environment: Document, applied: Document | None, cleared: list[str]
) -> EmergencyEdit | None:
    """The edit that was made since something was applied there, if it was never applied there and no gate passed with it.

    One that was applied once and is no longer in place, since a rollback went back behind it, is no news.
    """
    profile = await records.get(db, "profiles", profile_id_of(app, environment), what="runtime profile")
    number: int | None = profile.get("emergency", {}).get(environment["_id"])
    if number is None or applied is None:
        return None
    query = {"profile_id": profile["_id"], "revision_number": {"$gte": number}}
    since = [row["_id"] async for row in db[_REVISIONS].find(query, {"_id": 1})]
    if applied["_id"] in since or any(revision_id in since for revision_id in cleared):
        return None
    once: Document = {"owned.environment_id": environment["_id"], "owned.state": "succeeded"}
    once["owned.profile_revision_id"] = {"$in": since}
    if await db["deployments"].find_one(once, {"_id": 1}) is not None:
        return None
    return EmergencyEdit(emergency_edit(applied["revision_number"], number), profile["revision_id"])
