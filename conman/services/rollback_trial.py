"""Whether a release can be undone now, and what that takes back: tried, with nothing written that anybody sees (`spec.md` 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conman.domain.errors import DomainError
from conman.domain.override_travel import PublishedRelease, arriving
from conman.domain.overrides import FrozenOverride, Override, frozen, frozen_of, overridden
from conman.domain.profile import Profile
from conman.domain.release import Release
from conman.domain.rollback import (
    Builder,
    KeyClash,
    Touched,
    clashes,
    inverse,
    newer_than,
    refusal,
    secrets_to_restore,
)
from conman.git.adapter import Conflict, GitAdapter
from conman.services.arrivals import PROFILES, REVISIONS, published_releases
from conman.services.override_contents import contents_of, digests, keep_content
from conman.services.secrets import SecretStore, unseal
from conman.store import records
from conman.store.database import Database, Document

MOST_BUILDERS = 100
"""How many newer releases are looked through for the paths that conflict, the oldest first."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What undoing a release would do: the `overrides` that take back what it set, or why it can't be (`refused`)."""

    conflicts: tuple[Conflict, ...] = ()
    overrides: tuple[tuple[FrozenOverride, Override], ...] = ()
    refused: DomainError | None = None


async def try_revert(store: SecretStore, git: GitAdapter, repo: str, head: str, release: Document) -> Trial:
    """Try to take a published release back from `head`, in its files and in the profiles that it overrides.

    Raises `GitError`, `VaultError`, and `LookupError` where the content of an override is missing.
    """
    state = Release.model_validate(release["owned"])
    if state.base_sha is None or state.published_sha is None:
        raise ValueError(f"release {release['_id']} is not published")
    tried = await git.trial_revert(repo, head, state.base_sha, state.published_sha)
    published = await published_releases(store.db, release["app_id"])
    newer = newer_than(release["_id"], published)
    touched = await _touched(store.db, release["_id"], published, newer)
    keys = [clash for one in touched for clash in clashes(one)]
    if tried.conflicts or keys:
        paths = sorted({conflict.path for conflict in tried.conflicts})
        builders = await _builders(store.db, git, repo, newer, paths, keys)
        return Trial(tried.conflicts, refused=refusal(state.tag or "", paths, keys, builders))
    return Trial(overrides=tuple([made for one in touched if (made := await _inverse(store, one)) is not None]))


async def keep_overrides(db: Database, app_id: str, trial: Trial, at: str) -> list[FrozenOverride]:
    """Keep what the overrides of a trial change, so that a release may name them; a repeat changes nothing."""
    for one, content in trial.overrides:
        await keep_content(db, app_id, one, content, at)
    return [one for one, _ in trial.overrides]


async def _inverse(store: SecretStore, touched: Touched) -> tuple[FrozenOverride, Override] | None:
    names = secrets_to_restore(touched)
    values = await unseal(store, touched.profile_id, {name: touched.before.secrets[name] for name in names})
    made = inverse(touched, await digests(store, touched.profile_id, values))
    return (frozen(touched.profile_id, made), made) if made is not None else None


async def _touched(
    db: Database, release_id: str, published: Sequence[PublishedRelease], newer: Sequence[PublishedRelease]
) -> list[Touched]:
    """The profiles that the release overrides and that are there still."""
    release = next(one for one in published if one.id == release_id)
    tags = await _tags(db, [one.id for one in newer])
    found: list[Touched] = []
    for profile_id in dict.fromkeys(one.profile_id for one in release.overrides):
        profile = await records.find(db, PROFILES, profile_id)
        if profile is None or profile.get("deleted"):
            continue
        before = await _received(db, profile, release_id)
        received = before is not None
        if before is None:
            waiting = arriving(profile_id, release_id, published, profile.get("received_release_ids", []))
            earlier = [one for arrival in waiting if arrival.release_id != release_id for one in arrival.overrides]
            before = overridden(Profile.model_validate(profile["content"]), await contents_of(db, earlier))
        found.append(
            Touched(
                profile_id=profile_id,
                before=before,
                present=Profile.model_validate(profile["content"]),
                overrides=await contents_of(db, release.of(profile_id)),
                received=received,
                newer={
                    key: tags[one.id] for one in reversed(newer) for frozen_one in one.of(profile_id) for key in frozen_one.keys
                },
            )
        )
    return found


async def _received(db: Database, profile: Document, release_id: str) -> Profile | None:
    """The profile just before it took the release's overrides in; None when it has not."""
    if release_id not in profile.get("received_release_ids", []):
        return None
    revision_id: str | None = profile["revision_id"]
    while revision_id is not None:
        revision = await records.get(db, REVISIONS, revision_id, what="revision of the runtime profile")
        revision_id = revision.get("previous_revision_id")
        arrivals: list[Document] = revision.get("arrivals") or []
        number = next((number for number, one in enumerate(arrivals) if one["release_id"] == release_id), None)
        if number is None or revision_id is None:
            continue
        previous = await records.get(db, REVISIONS, revision_id, what="revision of the runtime profile")
        first = [one for arrival in arrivals[:number] for one in frozen_of(arrival["overrides"])]
        return overridden(Profile.model_validate(previous["content"]), await contents_of(db, first))
    raise LookupError(f"the revision with which profile {profile['_id']} received release {release_id} is missing")


async def _tags(db: Database, release_ids: Sequence[str]) -> dict[str, str]:
    rows = db["releases"].find({"_id": {"$in": list(release_ids)}}, {"owned.tag": 1})
    return {row["_id"]: row["owned"]["tag"] async for row in rows}


async def _builders(
    db: Database,
    git: GitAdapter,
    repo: str,
    newer: Sequence[PublishedRelease],
    paths: Sequence[str],
    keys: Sequence[KeyClash],
) -> list[Builder]:
    """The newer releases that changed what conflicts."""
    wanted: dict[str, Any] = {"owned.tag": 1, "owned.base_sha": 1, "owned.published_sha": 1}
    looked = [one.id for one in newer[:MOST_BUILDERS]]
    rows = {row["_id"]: row["owned"] async for row in db["releases"].find({"_id": {"$in": looked}}, wanted)}
    found: list[Builder] = []
    for release_id in looked:
        owned = rows[release_id]
        changed = (
            {row.path for row in await git.changed_paths(repo, owned["base_sha"], owned["published_sha"])} if paths else set()
        )
        same = [path for path in paths if path in changed]
        clashing = [clash for clash in keys if clash.tag == owned["tag"]]
        if same or clashing:
            found.append(Builder(release_id=release_id, tag=owned["tag"], paths=same, keys=clashing))
    return found
