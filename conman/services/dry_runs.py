"""What an assembly would do, told without doing any of it (`assemble?dry_run=true`, `spec.md` 11).

Merges are tried in the selection's order; one that conflicts is passed over, so that the next ones are told too. All that comes
of it is objects that no ref reaches, which Git itself clears away: no record, job, audit event or ref is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from conman.domain.app import BRANCHES
from conman.domain.errors import DomainError, ErrorCode, Unavailable
from conman.domain.jobs import JobType
from conman.domain.messages import GateProfile, GateStart
from conman.domain.queue import decide_reserve
from conman.domain.queue_records import Queue
from conman.domain.release import Release, ReleaseState, check_assemble
from conman.git.adapter import TrialMerge
from conman.services import arrivals
from conman.services.call import Call, keep, recall
from conman.services.exclusions import find_exclusions
from conman.services.platform import Platform
from conman.services.releases import owned
from conman.store import records
from conman.store.database import Document

MOST_MEMBERS = 1000
"""Members of a selection above which a dry run is refused: it answers within one request."""
MOST_PAIRS = 200
"""Pairs that a dry run tries; an assembly that conflicts tries more (`domain/exclusions.py`)."""
MOST_PATHS = 50
"""Paths that are named of one merge's conflicts."""
PATIENCE_SECONDS = 25.0

Kept = Callable[[GateStart, str], Awaitable[bool]]
"""Whether a gate on a tree would be answered from a result that is kept."""


async def dry_run(platform: Platform, call: Call, app: Document, document: Document, is_kept: Kept) -> dict[str, Any]:
    """What assembling the release would come to now; a repeat with the same `Idempotency-Key` is told what the first was.

    Raises `invalid_transition` unless the release is a draft or validated, `conflict` for an empty selection or one of more than
    1,000 changesets, and `unavailable` when the merges take too long for one request.
    """
    earlier = await recall(platform.db, call)
    if earlier is not None:
        return earlier["dry_run"]
    release = owned(document)
    _check(release)
    repo, branch = app["repo_path"], BRANCHES + app["integration_branch"]
    base = await platform.git.resolve(repo, branch)
    if base is None:
        raise DomainError(ErrorCode.CONFLICT, "The integration branch is gone: push it again, then assemble.")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            tried = await find_exclusions(platform.git, repo, base, release.members, MOST_PAIRS)
            tree = tried.merges[-1].tree_id if all(merge.clean for merge in tried.merges) else None
            gates = await _gates(platform, app, document["_id"], release, base, tree, is_kept) if tree is not None else []
    except TimeoutError as error:
        raise Unavailable(
            ErrorCode.UNAVAILABLE, "The merges take too long for one request: assemble it, which has all the time it needs."
        ) from error
    refusal = await _refusal(platform, app, document["_id"], release)
    merges = [_merge(id_, merge) for id_, merge in zip(release.ordered_changeset_ids, tried.merges, strict=True)]
    found = {
        "base_sha": base,
        "merges": merges,
        "candidate_tree": tree,
        "gates": gates,
        **tried.found.model_dump(mode="json"),
        "would": _would(refusal, tree),
        "refusal": refusal,
    }
    await keep(platform.db, call, {"dry_run": found})
    return found


def _check(release: Release) -> None:
    if release.state is not ReleaseState.VALIDATED:
        check_assemble(release)
    if len(release.members) > MOST_MEMBERS:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"A dry run takes {MOST_MEMBERS} changesets at most, and the release has {len(release.members)}: assemble it.",
        )


async def _refusal(platform: Platform, app: Document, release_id: str, release: Release) -> Document | None:
    """With what the queue would refuse the assembly now, since a member has left it; by the queue's own rule."""
    kept = await records.find(platform.db, "queues", app["_id"])
    queue = Queue.model_validate(kept["owned"]) if kept is not None else Queue(app_id=app["_id"], integration_sha="")
    try:
        decide_reserve(queue, release_id, release.ordered_changeset_ids)
    except DomainError as error:
        return {"code": error.code.value, "message": error.message, "details": error.details}
    return None


async def _gates(
    platform: Platform, app: Document, release_id: str, release: Release, base: str, tree: str, is_kept: Kept
) -> list[Document]:
    """The suites of the candidate, one per profile, and which of them a kept result would answer."""
    overridden = sorted({one.profile_id for member in release.members for one in member.overrides})
    profiles = await arrivals.gate_profiles(platform.db, app["_id"], overridden)
    return [
        {
            "environment": profile.environment,
            "profile_id": profile.profile_id,
            "profile_revision_id": profile.profile_revision_id,
            "reused": await is_kept(_gate(app, release_id, release, base, profile), tree),
        }
        for profile in profiles
    ]


def _gate(app: Document, release_id: str, release: Release, base: str, profile: GateProfile) -> GateStart:
    """A gate as the assembly would start it, but for its commit, which is not there."""
    return GateStart(
        job_id="",
        app_id=app["_id"],
        job_type=JobType.MSUITE_MERGE,
        entity_type="release",
        entity_id=release_id,
        commit_sha=base,
        scope="release",
        profile_id=profile.profile_id,
        profile_revision_id=profile.profile_revision_id,
        overrides=[one.model_dump(mode="json") for one in profile.overrides_with(release.members)],
        tag=release.tag,
    )


def _merge(changeset_id: str, merge: TrialMerge) -> Document:
    paths = sorted({conflict.path for conflict in merge.conflicts})[:MOST_PATHS]
    return {"changeset_id": changeset_id, "clean": merge.clean, "paths": paths}


def _would(refusal: Document | None, tree: str | None) -> str:
    """`refuse`: it would not even start. `conflict`: a member does not merge. `validate`: all do, and its suites decide."""
    if refusal is not None:
        return "refuse"
    return "validate" if tree is not None else "conflict"
