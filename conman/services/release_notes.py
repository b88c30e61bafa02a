"""What the notes of a release tell: its changesets, who made and approved them, and what each of them changes (`api.md` 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from conman.domain.changeset import Vote
from conman.domain.overrides import FrozenOverride, Override
from conman.domain.profile import ProfileMigrations
from conman.domain.release import Member, Release
from conman.domain.release_notes import (
    Changes,
    ChangesetNotes,
    OverrideNotes,
    Person,
    ReleaseNotes,
    changes_of,
    changes_record,
    fitted,
    record_of,
    text_of,
)
from conman.services.diffs import Sides
from conman.services.kept import Kept
from conman.services.override_contents import load_contents
from conman.services.platform import Platform
from conman.services.release_diffs import commit_of, release_before
from conman.services.releases import owned
from conman.services.semantic_diffs import semantic_diff
from conman.store.database import Document

MOST_COMPARED = 200
"""Changesets of one release whose changes are looked for, two commits compared for each. Those behind are listed by title."""
COMPARED_AT_A_TIME = 4
MOST_KEPT_CHANGES = 50_000
"""Changes in all kept answers together, some 20 MiB."""

_kept: Kept[tuple[str, Sides], Changes] = Kept(MOST_KEPT_CHANGES)
"""By the repository and the two commits, so that the notes of a published release are compared once."""


@dataclass(frozen=True, slots=True)
class _Names:
    """How records are called."""

    people: Mapping[str, str]
    environments: Mapping[str, str]
    profiles: Mapping[str, str]

    def person(self, user_id: str) -> Person:
        """Who that is; an account that is gone goes by its id."""
        return Person(user_id, self.people.get(user_id, user_id))

    def target(self, override: FrozenOverride) -> str:
        """What an override is for, by the name under which it was given."""
        if override.target_environment_id is not None:
            return self.environments.get(override.target_environment_id, override.target_environment_id)
        return self.profiles.get(override.profile_id, override.profile_id)


async def release_notes(platform: Platform, app: Document, document: Document) -> dict[str, Any]:
    """The notes as they are shown: `text` in Markdown, and its parts. An open release's tell what it brings as it is now."""
    state = owned(document)
    notes = fitted(await _gathered(platform, app, state))
    return {
        "release_id": document["_id"],
        "tag": state.tag,
        "state": state.state.value,
        "release_before": notes.before,
        "text": text_of(notes),
        "changesets": [record_of(one) for one in notes.changesets],
        "changes": changes_record(notes.own),
    }


async def _gathered(platform: Platform, app: Document, state: Release) -> ReleaseNotes:
    before = await release_before(platform, app, state)
    undone = await _release(platform, state.reverts_release_id)
    approvers = await _approvers(platform, state.members)
    overrides = [one for member in state.members for one in member.overrides]
    names = await _names(platform, state, approvers, overrides)
    contents = await load_contents(platform.db, [one for one in overrides if one.keys.get("migrations") is not None])
    compared = await _compared(platform, app["repo_path"], _ends(state))
    listed = [*compared, *[None] * (len(state.members) - len(compared))]
    return ReleaseNotes(
        tag=state.tag or "",
        state=state.state,
        changesets=tuple(
            _notes_of(member, approvers[member.changeset_id], changes, names, contents)
            for member, changes in zip(state.members, listed, strict=True)
        ),
        published_at=state.published_at,
        published_by=names.person(state.published_by) if state.published_by is not None else None,
        before=before["owned"]["tag"] if before is not None else None,
        undoes=undone["owned"]["tag"] if undone is not None else None,
        outside=before is not None and state.published_sha is not None and before["owned"]["published_sha"] != state.base_sha,
        own=await _own(platform, app["repo_path"], state),
    )


async def _release(platform: Platform, release_id: str | None) -> Document | None:
    return await platform.db["releases"].find_one({"_id": release_id}) if release_id is not None else None


async def _approvers(platform: Platform, members: Sequence[Member]) -> dict[str, list[str]]:
    """Changeset → who approved the revision that the release has, by votes that were not voided since."""
    revisions = {member.changeset_id: member.revision_number for member in members}
    found: dict[str, list[str]] = {changeset_id: [] for changeset_id in revisions}
    async for row in platform.db["changesets"].find({"_id": {"$in": list(revisions)}}, {"owned.votes": 1}):
        votes = [Vote.model_validate(vote) for vote in row["owned"]["votes"]]
        found[row["_id"]] = [
            vote.reviewer_user_id
            for vote in votes
            if vote.action == "approve" and not vote.void and vote.stands_for == revisions[row["_id"]]
        ]
    return found


async def _own(platform: Platform, repo: str, state: Release) -> Changes | None:
    """What a release without changesets changes: one that undoes another."""
    head = commit_of(state)
    if state.members or head is None or state.base_sha is None:
        return None
    return await _changes(platform, repo, Sides(state.base_sha, head))


def _ends(state: Release) -> list[Sides]:
    """Of each changeset what its merge brought; before there is a candidate, what it changed where it was made."""
    prefixes = state.prefix_shas
    if commit_of(state) is None or state.base_sha is None or len(prefixes) != len(state.members):
        return [Sides(member.base_sha, member.head_sha) for member in state.members]
    return [Sides(base, head) for base, head in pairwise([state.base_sha, *prefixes])]


async def _compared(platform: Platform, repo: str, ends: Sequence[Sides]) -> list[Changes]:
    free = asyncio.Semaphore(COMPARED_AT_A_TIME)

    async def one(sides: Sides) -> Changes:
        async with free:
            return await _changes(platform, repo, sides)

    return await asyncio.gather(*(one(sides) for sides in ends[:MOST_COMPARED]))


async def _changes(platform: Platform, repo: str, sides: Sides) -> Changes:
    known = _kept.get((repo, sides))
    if known is None:
        known = changes_of(await semantic_diff(platform.git, repo, sides))
        _kept.put((repo, sides), known, len(known.told) + 1)
    return known


async def _names(
    platform: Platform, state: Release, approvers: Mapping[str, Sequence[str]], overrides: Sequence[FrozenOverride]
) -> _Names:
    people = {member.author_user_id for member in state.members} | {one for each in approvers.values() for one in each}
    people |= {state.published_by} if state.published_by is not None else set()
    environments = {one.target_environment_id for one in overrides if one.target_environment_id is not None}
    profiles = {one.profile_id for one in overrides}
    return _Names(
        await _named(platform, "users", people),
        await _named(platform, "environments", environments),
        await _named(platform, "profiles", profiles),
    )


async def _named(platform: Platform, collection: str, ids: Iterable[str]) -> dict[str, str]:
    """Id → name; a profile has its own among its content."""
    wanted = sorted(ids)
    if not wanted:
        return {}
    rows = platform.db[collection].find({"_id": {"$in": wanted}}, {"name": 1, "content.name": 1})
    return {row["_id"]: row["name"] if "name" in row else row["content"]["name"] async for row in rows}


def _notes_of(
    member: Member, approvers: Sequence[str], changes: Changes | None, names: _Names, contents: Mapping[str, Override]
) -> ChangesetNotes:
    return ChangesetNotes(
        changeset_id=member.changeset_id,
        title=member.title,
        author=names.person(member.author_user_id),
        approvers=tuple(names.person(user_id) for user_id in approvers),
        changes=changes,
        overrides=tuple(_override_notes(one, names, contents) for one in member.overrides),
    )


def _override_notes(one: FrozenOverride, names: _Names, contents: Mapping[str, Override]) -> OverrideNotes:
    content = contents.get(one.content_id)
    return OverrideNotes(
        target=names.target(one),
        sets=tuple(sorted(key for key, digest in one.keys.items() if digest is not None)),
        removes=tuple(sorted(key for key, digest in one.keys.items() if digest is None)),
        migrations=_migrations(content.migrations) if content is not None else None,
    )


def _migrations(migrations: ProfileMigrations | None) -> str | None:
    if migrations is None:
        return None
    places = ", ".join(f"`{path}`" for path in migrations.repo_paths)
    return f"`{migrations.command_ref}` runs what is in {places or 'no folder'}"
