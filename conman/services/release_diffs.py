"""Which two commits the diff of a release compares (`api.md` 3: against the release before it)."""

from __future__ import annotations

from conman.domain.errors import DomainError, ErrorCode
from conman.domain.release import Release, ReleaseState
from conman.services.diffs import Sides
from conman.services.platform import Platform
from conman.services.releases import owned
from conman.store.database import Document


async def compared(platform: Platform, app: Document, document: Document) -> Sides:
    """A release against the one published before it, an open one as its candidate is now.

    The base is the commit that it was assembled on where no release was published before. Raises `conflict` when there is no
    candidate. The ends of a published release stay what they are.
    """
    state = owned(document)
    head = _commit(state)
    before = await release_before(platform, app, state)
    base = before["owned"]["published_sha"] if before is not None else state.base_sha
    return Sides(base or head, head)


async def compared_with(platform: Platform, app: Document, document: Document, against: str) -> Sides:
    """A release against any other one, by its id or tag. Raises `not_found`, and `conflict` where one has no candidate."""
    query = {"app_id": app["_id"], "owned.created": True, "$or": [{"_id": against}, {"owned.tag": against}]}
    other = await platform.db["releases"].find_one(query)
    if other is None:
        raise DomainError(ErrorCode.NOT_FOUND, f"There is no release {against!r} to compare with: name one by its id or tag.")
    return Sides(_commit(owned(other)), _commit(owned(document)))


async def release_before(platform: Platform, app: Document, state: Release) -> Document | None:
    """The release that was published last before this one; before one that is not published, the last of all.

    None where what this one has does not contain that: of a dropped one its own changes are told, not what was published since.
    """
    releases = platform.db["releases"]
    if state.supersedes is not None:
        return await releases.find_one({"_id": state.supersedes})
    query: Document = {"app_id": app["_id"], "owned.published_sha": {"$ne": None}}
    if state.published_at is not None:
        query["owned.published_at"] = {"$lt": state.published_at}
    found = await releases.find_one(query, sort=[("owned.published_at", -1), ("_id", -1)])
    head = commit_of(state)
    if found is None or head is None:
        return found
    contained = await platform.git.is_ancestor(app["repo_path"], found["owned"]["published_sha"], head)
    return found if contained else None


def commit_of(state: Release) -> str | None:
    """What was published, else the candidate."""
    return state.published_sha or state.candidate_sha


def _commit(state: Release) -> str:
    found = commit_of(state)
    if found is not None:
        return found
    match state.state:
        case ReleaseState.ASSEMBLING:
            told = "is being assembled: ask again when its job has ended."
        case ReleaseState.DROPPED:
            told = "was dropped before it had a candidate: there is nothing to compare."
        case _:
            told = "has no candidate to compare: assemble it, then ask again."
    raise DomainError(ErrorCode.CONFLICT, f"The release {state.tag} {told}", {"state": state.state.value})
