"""Runtime profiles: finding and showing them, their revisions, and what differs between two (`spec.md` 6).

`profiles` {_id, app_id, content, revision_id, revision_number, pins?, emergency?, deleted?, temp?}: the truth is the content.
`emergency` is environment → the revision by which the profile was edited though it had been deployed there. `temp` is that of a
temp env's own profile (`services/temp_profiles.py`).
`profile_revisions` {_id, profile_id, revision_number, previous_revision_id, content, change}: what it was, never changed again. A
revision is inserted before the profile's record names it, so one that a crash left beside is in no profile's history: the history
is what can be reached from `revision_id` by `previous_revision_id` (docs/adr/0009-the-history-of-a-profile.md).

A deleted profile keeps its record, revisions and secrets, since deployments went out with them and may be returned to; nobody is
shown it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from conman.domain.errors import invalid, not_found
from conman.domain.ids import is_uuid
from conman.domain.profile import Profile, Source, effective_variables
from conman.domain.profile_diff import Difference, changes, secrets_to_compare
from conman.domain.secrets import SecretRef
from conman.domain.temp_env import LIVE
from conman.services.call import record
from conman.services.platform import Platform
from conman.services.secrets import unseal
from conman.services.vault import VaultError
from conman.store import records
from conman.store.database import Database, Document
from conman.store.records import Page

log = structlog.get_logger(__name__)

PROFILES = "profiles"
REVISIONS = "profile_revisions"
_THERE: Document = {"deleted": {"$ne": True}}
_NUMBER = re.compile(r"[0-9]{1,9}")


async def find(platform: Platform, app: Document, profile_id: str) -> Document:
    """A profile of the app. Raises `not_found`, for a deleted one too."""
    found = await records.find(platform.db, PROFILES, profile_id, app_id=app["_id"])
    if found is None or found.get("deleted"):
        raise not_found("runtime profile")
    return found


async def page(platform: Platform, app: Document, number: int, limit: int) -> Page:
    """One page of the app's profiles, newest first."""
    return await records.page(platform.db, PROFILES, {"app_id": app["_id"], **_THERE}, number=number, limit=limit)


async def profile_records(platform: Platform, app: Document, documents: list[Document]) -> list[dict[str, Any]]:
    """Profiles as `api.md` 4 shows them: secrets masked, with what each environment runs with now."""
    applied = await _applied(platform.db, app["_id"], [document["_id"] for document in documents])
    return [
        record(
            document,
            revision_number=document["revision_number"],
            applied=applied[document["_id"]],
            **Profile.model_validate(document["content"]).masked(),
        )
        for document in documents
    ]


async def _applied(db: Database, app_id: str, profile_ids: list[str]) -> dict[str, dict[str, int]]:
    """Profile → environment → the number of the profile's revision that was last applied there."""
    by_environment = {
        row["_id"]: row["owned"]["applied_profile_revision_id"]
        async for row in db["environments"].find({"app_id": app_id, "archived": False}, {"owned.applied_profile_revision_id": 1})
        if row.get("owned", {}).get("applied_profile_revision_id")
    }
    wanted = {"_id": {"$in": list(by_environment.values())}, "profile_id": {"$in": profile_ids}}
    revisions = {row["_id"]: row async for row in db[REVISIONS].find(wanted, {"profile_id": 1, "revision_number": 1})}
    found: dict[str, dict[str, int]] = {profile_id: {} for profile_id in profile_ids}
    for environment_id, revision_id in by_environment.items():
        revision = revisions.get(revision_id)
        if revision is not None:
            found[revision["profile_id"]][environment_id] = revision["revision_number"]
    return found


async def history(db: Database, document: Document) -> dict[int, str]:
    """Revision number → revision id of all that the profile has been, the newest first."""
    query = {"profile_id": document["_id"]}
    rows = {row["_id"]: row async for row in db[REVISIONS].find(query, {"revision_number": 1, "previous_revision_id": 1})}
    found: dict[int, str] = {}
    revision_id: str | None = document["revision_id"]
    while revision_id is not None:
        row = rows[revision_id]
        found[row["revision_number"]] = revision_id
        revision_id = row.get("previous_revision_id")
    return found


async def revision_of(db: Database, document: Document, number: int) -> Document:
    """One revision of the profile. Raises `not_found`."""
    revision_id = (await history(db, document)).get(number)
    if revision_id is None:
        raise not_found("revision of this profile")
    return await records.get(db, REVISIONS, revision_id, what="revision of this profile")


async def revision_page(platform: Platform, document: Document, number: int, limit: int) -> tuple[list[dict[str, Any]], Page]:
    """One page of the profile's revisions, newest first, as they are shown."""
    ids = list((await history(platform.db, document)).values())
    shown = ids[(number - 1) * limit : number * limit]
    rows = {row["_id"]: row async for row in platform.db[REVISIONS].find({"_id": {"$in": shown}})}
    items = [_revision_record(document, rows[revision_id]) for revision_id in shown]
    return items, Page([], number, limit, len(ids))


def _revision_record(document: Document, revision: Document) -> dict[str, Any]:
    return {
        "id": revision["_id"],
        "app_id": document["app_id"],
        "profile_id": document["_id"],
        "revision_number": revision["revision_number"],
        "change": revision.get("change", "created"),
        "reverted_to": revision.get("reverted_to"),
        "release_ids": [arrival["release_id"] for arrival in revision.get("arrivals", [])],
        "created_at": revision["created_at"],
        "updated_at": revision["created_at"],
        "created_by": revision["created_by"],
        "version": 1,
        **Profile.model_validate(revision["content"]).masked(),
    }


@dataclass(frozen=True, slots=True)
class Chosen:
    """A revision of some profile of the app."""

    profile_id: str
    number: int
    profile: Profile

    def record(self) -> dict[str, Any]:
        """Which one it is."""
        return {"profile_id": self.profile_id, "revision_number": self.number}


async def choose(platform: Platform, app: Document, document: Document, text: str | None, field: str) -> Chosen:
    """The revision that `text` names: `3` of this profile, `<profile id>:3` of another one, `<profile id>` as it is now; None is
    this profile as it is now. Raises `validation_error` for what names none, `not_found` for what is not there.
    """
    other, number = _named(text, field)
    if other is not None and other != document["_id"]:
        document = await find(platform, app, other)
    revision = document if number is None else await revision_of(platform.db, document, number)
    return Chosen(document["_id"], revision["revision_number"], Profile.model_validate(revision["content"]))


def _named(text: str | None, field: str) -> tuple[str | None, int | None]:
    if text is None or is_uuid(text):
        return text, None
    profile_id, colon, number = text.rpartition(":")
    if not _NUMBER.fullmatch(number) or (colon and not is_uuid(profile_id)):
        raise invalid(field, "must be a revision's number, or <profile id>:<number> of another profile")
    return profile_id or None, int(number)


async def difference(platform: Platform, one: Chosen, other: Chosen) -> dict[str, Any]:
    """What is added, removed and changed from one revision to the other, secrets masked."""
    keys = secrets_to_compare(one.profile, other.profile)
    same = [key for key in keys if await _are_equal(platform, one, other, key)]
    found = changes(one.profile, other.profile, same_secrets=same)
    summary = {kind.value: sum(change.difference is kind for change in found) for kind in Difference}
    return {
        "from": one.record(),
        "to": other.record(),
        "summary": summary,
        "changes": [change.record() for change in found],
    }


async def _are_equal(platform: Platform, one: Chosen, other: Chosen, key: str) -> bool:
    values = [await read_secret(platform, chosen.profile_id, key, chosen.profile.secrets[key]) for chosen in (one, other)]
    return None not in values and is_same_text(*values)


async def read_secret(platform: Platform, profile_id: str, key: str, ref: SecretRef) -> str | None:
    """The value of a secret to compare another one with, None when it can't be decrypted any more: then nothing equals it."""
    try:
        return (await unseal(platform, profile_id, {key: ref}))[key]
    except VaultError as error:
        log.warning("secret_not_compared", profile_id=profile_id, key=key, error=error.message)
        return None


def is_same_text(one: str | None, other: str | None) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return one is not None and other is not None and hmac.compare_digest(one.encode(), other.encode())


def effective_record(app: Document, document: Document) -> dict[str, Any]:
    """What a process gets with this profile, each with where it comes from; secrets masked (`spec.md` 6).

    In the profile of a temp env what does not come from its base profile is an override: what its changeset overrides, its URL
    and the connection to its own database.
    """
    profile = Profile.model_validate(document["content"])
    temp: Document | None = document.get("temp")
    overridden: list[str] = temp["overridden"] if temp is not None else []
    variables = effective_variables(app["settings"]["env_defaults"], profile, overridden)
    source = Source.PROFILE if temp is None else Source.OVERRIDE
    return {
        "profile_id": document["_id"],
        "revision_number": document["revision_number"],
        "variables": [variable.record() for variable in variables],
        "base_url": {"value": profile.base_url, "source": source.value},
        "database": None if profile.database is None else {"value": profile.database.model_dump(), "source": source.value},
    }


async def live_temp_env_of(db: Database, profile: Document) -> str | None:
    """The id of the temp env that a profile is derived for, while that is live."""
    temp = profile.get("temp")
    if temp is None:
        return None
    states = [state.value for state in LIVE]
    found = await db["temp_envs"].find_one({"_id": temp["temp_env_id"], "owned.state": {"$in": states}}, {"_id": 1})
    return found["_id"] if found is not None else None


def names_of(documents: Iterable[Document]) -> str:
    """The names of environments or profiles, for a message."""
    return ", ".join(document.get("name") or document["content"]["name"] for document in documents)
