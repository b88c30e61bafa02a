"""Publishing: what must be proved of a candidate, what refuses it, and the frozen record (`spec.md` 11, `durability.md` 19)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from conman.domain import release_notices
from conman.domain.decision import Decision
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.messages import PublishFacts
from conman.domain.release import (
    HEAD_MOVED,
    Failure,
    Move,
    PublishIntent,
    Release,
    ReleaseState,
    decide_returned,
    release_event,
    target,
)

PROFILE_CHANGED = "profile_changed"
"""The end of a validated candidate whose gate ran with a profile revision that is no longer the present one."""
UNPROVEN = "unproven"
"""The end of a validated candidate of which it can't be proved that it is its changesets' changes, all of them and no others."""
MEMBER_LEFT = "member_left"
"""The end of a validated candidate one of whose changesets is no longer `queued`."""


_TO_ASSEMBLE_AGAIN = frozenset({HEAD_MOVED, PROFILE_CHANGED, UNPROVEN, MEMBER_LEFT})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a validated release can't be published as it is: it returns to draft with `failure`, the audit says `reason`."""

    failure: Failure
    reason: str
    details: Any

    @property
    def error(self) -> DomainError:
        """What the caller is told."""
        return DomainError(ErrorCode.CONFLICT, self.failure.message, self.details)


def unexplained_paths(changed: Sequence[str], member_paths: Sequence[Sequence[str]]) -> list[str]:
    """Paths that differ between base and candidate although no changeset changed them: publish refuses when there are any."""
    explained = {path for paths in member_paths for path in paths}
    return sorted(path for path in changed if path not in explained)


def head_moved(release: Release, integration_sha: str) -> Refusal:
    """The integration branch is not where assembly found it."""
    message = "The integration branch moved since this release was assembled: assemble it again, then publish."
    details = {"reason_code": HEAD_MOVED, "assembled_on": release.base_sha, "integration_sha": integration_sha}
    return Refusal(Failure(reason_code=HEAD_MOVED, message=message), "the integration branch moved", details)


def member_left(details: list[dict[str, Any]]) -> Refusal:
    """A changeset of the selection left the queue; `details` are the queue's own."""
    message = "Some changesets of this release are no longer queued: take them out of it, assemble again, then publish."
    first = next((one["changeset_id"] for one in details if "changeset_id" in one), None)
    failure = Failure(reason_code=MEMBER_LEFT, changeset_id=first, message=message)
    return Refusal(failure, "a changeset left the queue", details)


def _left(_: Release, facts: PublishFacts) -> Refusal | None:
    return member_left(facts.left) if facts.left else None


def _uprooted(_: Release, facts: PublishFacts) -> Refusal | None:
    if not facts.uprooted:
        return None
    message = (
        f"Changeset {facts.uprooted[0]} was made on commits that the integration branch no longer has, and would bring them "
        "back: take it out of the release, return it to draft and submit it again."
    )
    failure = Failure(reason_code=UNPROVEN, changeset_id=facts.uprooted[0], paths=facts.unexplained[:50], message=message)
    details = {"reason_code": UNPROVEN, "changeset_ids": facts.uprooted, "paths": facts.unexplained[:50]}
    return Refusal(failure, "a changeset would bring back what the integration branch no longer has", details)


def _unexplained(_: Release, facts: PublishFacts) -> Refusal | None:
    if not facts.unexplained:
        return None
    message = "The candidate changes paths that none of its changesets changed: assemble it again, then publish."
    failure = Failure(reason_code=UNPROVEN, paths=facts.unexplained[:50], message=message)
    return Refusal(failure, "paths changed that no changeset changed", {"reason_code": UNPROVEN, "paths": facts.unexplained[:50]})


def _lost(_: Release, facts: PublishFacts) -> Refusal | None:
    if not facts.lost:
        return None
    message = "The candidate lacks changes of some of its changesets: assemble it again, then publish."
    failure = Failure(reason_code=UNPROVEN, changeset_id=facts.lost[0], message=message)
    details = {"reason_code": UNPROVEN, "changeset_ids": facts.lost}
    return Refusal(failure, "a changeset's change is not in the candidate", details)


def _head_moved(release: Release, facts: PublishFacts) -> Refusal | None:
    return head_moved(release, facts.integration_sha) if release.base_sha != facts.integration_sha else None


def _profile_changed(release: Release, facts: PublishFacts) -> Refusal | None:
    if not facts.changed_profiles:
        return None
    named = ", ".join(one.environment for one in facts.changed_profiles)
    message = (
        f"The runtime profile of {named} changed since the release gate ran with it: assemble the release again, then publish."
    )
    pinned = {one.profile_id: one.profile_revision_id for one in release.pinned_profiles}
    changed = [{**one.model_dump(), "assembled_with": pinned.get(one.profile_id)} for one in facts.changed_profiles]
    details = {"reason_code": PROFILE_CHANGED, "profiles": changed}
    return Refusal(Failure(reason_code=PROFILE_CHANGED, message=message), "a runtime profile changed", details)


_GUARDS: tuple[Callable[[Release, PublishFacts], Refusal | None], ...] = (
    _left,
    _uprooted,  # before what it explains: which of its paths are not its own
    _unexplained,
    _lost,
    _head_moved,  # before the profiles: what a newer release brings them is in no present revision yet
    _profile_changed,
)


def refusal(release: Release, facts: PublishFacts) -> Refusal | None:
    """What speaks against publishing the candidate, the first that does; None when nothing does. All end in re-assembly."""
    return next((found for guard in _GUARDS if (found := guard(release, facts)) is not None), None)


def check_may_publish(release: Release) -> None:
    """A release is published from `validated`; one whose candidate was overtaken says so, and offers to be assembled again.

    Raises `invalid_transition` or `conflict`.
    """
    failure = release.failure
    if release.state is ReleaseState.DRAFT_RELEASE and failure is not None and failure.reason_code in _TO_ASSEMBLE_AGAIN:
        details = failure.details or {"reason_code": failure.reason_code, "assembled_on": release.base_sha}
        raise DomainError(ErrorCode.CONFLICT, failure.message, details)
    target(release.state, Move.PUBLISH)


def decide_overtaken(release_id: str, release: Release, refused: Refusal) -> Decision[Release] | None:
    """A validated candidate that could not be published any more returns to draft at once (`spec.md` 3), unless a command works
    on it: that finds the same.
    """
    if release.state is not ReleaseState.VALIDATED or release.edit is not None or release.publishing is not None:
        return None
    return decide_refused(release_id, release, refused)


def check_publish(release: Release, integration_sha: str) -> None:
    """Publishing needs a validated candidate on the present integration head. Raises `invalid_transition` or `conflict`."""
    target(release.state, Move.PUBLISH)
    if release.base_sha != integration_sha:
        raise head_moved(release, integration_sha).error


def decide_refused(release_id: str, release: Release, refused: Refusal) -> Decision[Release]:
    """A validated release that is refused returns to draft, so that it can be assembled again (`spec.md` 3)."""
    failure = refused.failure.model_copy(update={"details": refused.details})
    return decide_returned(release_id, release, failure, refused.reason)


def decide_publishing(release: Release, intent: PublishIntent) -> Decision[Release]:
    """The intent of a publish is recorded before any ref moves (`durability.md` 19)."""
    check_publish(release, intent.old_sha)
    return Decision(release.model_copy(update={"publishing": intent, "edit": None, "tag": intent.tag}))


def decide_published(release_id: str, release: Release, tag: str) -> Decision[Release]:
    """The refs have moved, under this tag: the record is frozen, and the queue is still to be told."""
    intent = release.publishing
    if intent is None:
        raise ValueError("a release is published by its recorded intent only")
    after = release.model_copy(
        update={
            "state": target(release.state, Move.PUBLISH),
            "tag": tag,
            "published_sha": intent.new_sha,
            "published_at": intent.at,
            "published_by": intent.actor.get("user_id"),
            "supersedes": intent.supersedes,
            "publishing": None,
            "told": False,
        }
    )
    undoes = {"reverts_release_id": after.reverts_release_id} if after.reverts_release_id is not None else {}
    event = release_event(release_id, "published", release, after, git_sha=intent.new_sha, tag=after.tag, **undoes)
    notice = release_notices.published(release_id, after)
    return Decision(after, events=(event,), notices=(notice,), result={"published_sha": intent.new_sha, "tag": after.tag})
