"""Changesets: their states, the table of their moves, and what is kept of one (`spec.md` 3).

The rules stand beside, by concept: `changeset_submit`, `changeset_gate`, `changeset_review`, `changeset_reminders`,
`changeset_queue`, `changeset_news`, and `changeset_waits` for what one waits for.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from conman.domain.decision import Event, Model, Owned
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.transitions import follow


class ChangesetState(StrEnum):
    """The states of `spec.md` 3."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    IN_REVIEW = "in_review"
    CHANGES_REQUESTED = "changes_requested"
    APPROVED = "approved"
    QUEUED = "queued"
    CONFLICTED = "conflicted"
    NEEDS_REVALIDATION = "needs_revalidation"
    RELEASED = "released"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


class Move(StrEnum):
    """What moves a changeset from one state to another."""

    SUBMIT = "submit"
    RESUBMIT = "resubmit"
    REVIEW = "review"
    APPROVE = "approve"
    REQUEST_CHANGES = "request_changes"
    REJECT = "reject"
    QUEUE = "queue"
    PUBLISH = "publish"
    CONFLICT = "conflict"
    FAIL_REVALIDATION = "fail_revalidation"
    PASS_REVALIDATION = "pass_revalidation"
    MOVE_TO_DRAFT = "move-to-draft"
    WITHDRAW = "withdraw"
    TAKE_BACK_APPROVAL = "take-back-approval"


_S = ChangesetState
TERMINAL = frozenset({_S.RELEASED, _S.REJECTED, _S.WITHDRAWN})

TRANSITIONS: dict[tuple[ChangesetState, Move], ChangesetState] = {
    (_S.DRAFT, Move.SUBMIT): _S.SUBMITTED,
    (_S.SUBMITTED, Move.REVIEW): _S.IN_REVIEW,
    (_S.CHANGES_REQUESTED, Move.REVIEW): _S.IN_REVIEW,
    (_S.IN_REVIEW, Move.REVIEW): _S.IN_REVIEW,
    (_S.IN_REVIEW, Move.APPROVE): _S.APPROVED,
    (_S.IN_REVIEW, Move.REQUEST_CHANGES): _S.CHANGES_REQUESTED,
    (_S.IN_REVIEW, Move.REJECT): _S.REJECTED,
    (_S.APPROVED, Move.REQUEST_CHANGES): _S.CHANGES_REQUESTED,
    (_S.APPROVED, Move.REJECT): _S.REJECTED,
    (_S.SUBMITTED, Move.RESUBMIT): _S.SUBMITTED,
    (_S.IN_REVIEW, Move.RESUBMIT): _S.SUBMITTED,
    (_S.CHANGES_REQUESTED, Move.RESUBMIT): _S.SUBMITTED,
    # By Conman itself, when somebody whose approval is needed may review no more (`spec.md` 5): without it nobody could approve
    # it again. docs/adr/0012-votes-of-who-may-review-no-more.md
    (_S.APPROVED, Move.TAKE_BACK_APPROVAL): _S.IN_REVIEW,
    (_S.APPROVED, Move.QUEUE): _S.QUEUED,
    (_S.QUEUED, Move.PUBLISH): _S.RELEASED,
    (_S.QUEUED, Move.CONFLICT): _S.CONFLICTED,
    (_S.NEEDS_REVALIDATION, Move.CONFLICT): _S.CONFLICTED,
    (_S.QUEUED, Move.FAIL_REVALIDATION): _S.NEEDS_REVALIDATION,
    (_S.NEEDS_REVALIDATION, Move.PASS_REVALIDATION): _S.QUEUED,
    **{
        (state, Move.MOVE_TO_DRAFT): _S.DRAFT
        for state in (
            _S.SUBMITTED,
            _S.IN_REVIEW,
            _S.CHANGES_REQUESTED,
            _S.APPROVED,
            _S.QUEUED,
            _S.CONFLICTED,
            _S.NEEDS_REVALIDATION,
        )
    },
    **{
        (state, Move.WITHDRAW): _S.WITHDRAWN
        for state in (
            _S.DRAFT,
            _S.SUBMITTED,
            _S.IN_REVIEW,
            _S.CHANGES_REQUESTED,
            _S.APPROVED,
            _S.CONFLICTED,
            _S.NEEDS_REVALIDATION,
        )
    },
}
"""The one table of legal moves; what is not in it is refused."""


def target(state: ChangesetState, move: Move) -> ChangesetState:
    """Where `move` leads from `state`. Raises `invalid_transition` naming both states."""
    return follow("changeset", TRANSITIONS, state, move)


class Gate(Model):
    """The submit gate of the current revision. `fresh`: somebody asked for the run itself, no earlier result will do."""

    state: JobState
    job_id: str
    reason_code: ReasonCode | None = None
    fresh: bool = False


class Revision(Model):
    """A frozen proposal: what was submitted, judged and reviewed. `job_id` is its gate's: the latest one, when it was retried.

    `patch_id` names what it changes, wherever the lines stand; it is known where the app's `carry_votes` asks for it.
    """

    revision_number: int
    head_sha: str
    base_sha: str
    integration_sha: str
    job_id: str
    overrides: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    created_at: str
    created_by: str | None = None
    patch_id: str | None = None


class Vote(Model):
    """One reviewer's latest word on one revision; `void` votes stay on record and count no more.

    `carried_to` is the later revision that it stands for too, since that one changes the same (`carry_votes`).
    """

    id: str
    reviewer_user_id: str
    action: Literal["approve", "request_changes", "reject"]
    comment: str | None = None
    revision_number: int
    at: str
    void: bool = False
    carried_to: int | None = None

    @property
    def stands_for(self) -> int:
        """The number of the revision that it stands for now."""
        return self.carried_to or self.revision_number


class ReviewRequest(Model):
    """Somebody was asked to review a revision."""

    reviewer_user_id: str
    revision_number: int
    at: str
    requested_by: str | None = None


class Intent(Model):
    """A command that needs another entity first, recorded before that one is asked (`durability.md` 14)."""

    command_id: str
    move: Move
    actor: dict[str, Any]
    facts: dict[str, Any] = Field(default_factory=dict[str, Any])


class Changeset(Owned):
    """What the workflow `changeset:{id}` owns of a changeset."""

    app_id: str
    author_user_id: str
    workspace_id: str
    title: str = ""
    hotpatch: bool = False
    state: ChangesetState = ChangesetState.DRAFT
    head_sha: str | None = None
    base_sha: str | None = None
    revisions: list[Revision] = Field(default_factory=list[Revision])
    gate: Gate | None = None
    votes: list[Vote] = Field(default_factory=list[Vote])
    required_approvals: int = 1
    queued_at: str | None = None
    release_id: str | None = None
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    last_revalidation_status: str | None = None
    last_revalidation_job_id: str | None = None
    intent: Intent | None = None
    review_requests: list[ReviewRequest] = Field(default_factory=list[ReviewRequest])
    reminders: int = 0
    """How often the reviewers were told again of the current revision."""
    reminded_at: str | None = None

    @property
    def current_revision(self) -> int:
        """Number of the latest revision, 0 before the first submit."""
        return self.revisions[-1].revision_number if self.revisions else 0

    @property
    def approval_count(self) -> int:
        """Approvals of the current revision that count."""
        return len(self.counting("approve"))

    def counting(self, action: str) -> list[Vote]:
        """Votes with this action that count now."""
        return [vote for vote in self.counted() if vote.action == action]

    def counted(self) -> list[Vote]:
        """Votes that count now: of a draft none does."""
        return [] if self.state is ChangesetState.DRAFT else self.standing()

    def standing(self) -> list[Vote]:
        """Votes on the current revision that are not void; those of a draft may count for what it becomes (`carry_votes`)."""
        return [vote for vote in self.votes if vote.stands_for == self.current_revision and not vote.void]


def state_event(changeset_id: str, action: str, before: Changeset, after: Changeset, **more: Any) -> Event:
    """The audit event of a move, with both states."""
    return Event(
        "changeset",
        changeset_id,
        action,
        before={"state": before.state.value},
        after={"state": after.state.value, **more},
        git_sha=after.head_sha,
    )
