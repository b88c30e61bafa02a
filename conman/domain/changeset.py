"""Changesets: their states, and the rules for submit, review, queue and the ways out (`spec.md` 3 and 8)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from conman.domain.decision import Decision, Event, JobEnd, Model, NewJob, Owned, Verdict
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode, max_attempts
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
    """The submit gate of the current revision."""

    state: JobState
    job_id: str
    reason_code: ReasonCode | None = None


class Revision(Model):
    """A frozen proposal: what was submitted, judged and reviewed."""

    revision_number: int
    head_sha: str
    base_sha: str
    integration_sha: str
    job_id: str
    overrides: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    created_at: str
    created_by: str | None = None


class Vote(Model):
    """One reviewer's latest word on one revision; `void` votes stay on record and count no more."""

    id: str
    reviewer_user_id: str
    action: Literal["approve", "request_changes", "reject"]
    comment: str | None = None
    revision_number: int
    at: str
    void: bool = False


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

    @property
    def current_revision(self) -> int:
        """Number of the latest revision, 0 before the first submit."""
        return self.revisions[-1].revision_number if self.revisions else 0

    @property
    def approval_count(self) -> int:
        """Approvals of the current revision that count."""
        return len(self.counting("approve"))

    def counting(self, action: str) -> list[Vote]:
        """Votes of the current revision with this action that are not void."""
        return [vote for vote in self.counted() if vote.action == action]

    def counted(self) -> list[Vote]:
        """Votes of the current revision that are not void."""
        return [vote for vote in self.votes if vote.revision_number == self.current_revision and not vote.void]


class SubmitFacts(Model):
    """What the service found in Git before it asked (`durability.md` 1)."""

    head_sha: str
    base_sha: str
    integration_sha: str
    changed_files: int
    overrides: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    job_id: str
    at: str
    required_approvals: int


def _event(changeset_id: str, action: str, before: Changeset, after: Changeset, **more: Any) -> Event:
    return Event(
        "changeset",
        changeset_id,
        action,
        before={"state": before.state.value},
        after={"state": after.state.value, **more},
        git_sha=after.head_sha,
    )


def _superseded_gate(cs: Changeset) -> tuple[JobEnd, ...]:
    """The end of a gate that nobody waits for any more."""
    if cs.gate is None or cs.gate.state not in (JobState.QUEUED, JobState.RUNNING):
        return ()
    return (JobEnd(id=cs.gate.job_id, state=JobState.CANCELED, reason_code=ReasonCode.SUPERSEDED),)


def _gate_at_the_end(cs: Changeset) -> Gate | None:
    """The gate as a changeset that has ended shows it: a job ends only after the record says so (`spec.md` 9)."""
    ends = _superseded_gate(cs)
    return Gate(state=ends[0].state, job_id=ends[0].id, reason_code=ends[0].reason_code) if ends else cs.gate


def decide_submit(changeset_id: str, cs: Changeset, facts: SubmitFacts, by: str | None, *, again: bool) -> Decision[Changeset]:
    """Submit or resubmit freezes the head as the next revision and starts its gate (`spec.md` 3, first rule).

    Raises `invalid_transition`, or `conflict` when there is nothing (new) to submit.
    """
    state = target(cs.state, Move.RESUBMIT if again else Move.SUBMIT)
    if not facts.changed_files and not facts.overrides:
        raise DomainError(ErrorCode.CONFLICT, "There is nothing to submit: change at least one file or override first.")
    if again and facts.head_sha == cs.head_sha and facts.overrides == cs.revisions[-1].overrides:
        raise DomainError(
            ErrorCode.CONFLICT,
            "Nothing has changed since the last revision: edit the workspace, then resubmit.",
        )
    revision = Revision(
        revision_number=cs.current_revision + 1,
        head_sha=facts.head_sha,
        base_sha=facts.base_sha,
        integration_sha=facts.integration_sha,
        job_id=facts.job_id,
        overrides=facts.overrides,
        created_at=facts.at,
        created_by=by,
    )
    after = cs.model_copy(
        update={
            "state": state,
            "head_sha": facts.head_sha,
            "base_sha": facts.base_sha,
            "revisions": [*cs.revisions, revision],
            "gate": Gate(state=JobState.QUEUED, job_id=facts.job_id),
            "votes": [vote.model_copy(update={"void": True}) for vote in cs.votes],
            "required_approvals": facts.required_approvals,
            "conflicts": [],
            "last_revalidation_status": None,
            "last_revalidation_job_id": None,
        }
    )
    job = NewJob(
        facts.job_id,
        JobType.MSUITE_SUBMIT,
        "changeset",
        changeset_id,
        max_attempts(JobType.MSUITE_SUBMIT),
        created_by=by,
    )
    event = _event(
        changeset_id,
        "resubmitted" if again else "submitted",
        cs,
        after,
        revision_number=revision.revision_number,
        head_sha=facts.head_sha,
        base_sha=facts.base_sha,
    )
    return Decision(
        after,
        events=(event,),
        jobs=(job,),
        job_ends=_superseded_gate(cs),
        result={"revision_number": revision.revision_number, "job_id": facts.job_id},
    )


class ReviewFacts(Model):
    """One reviewer's word."""

    review_id: str
    action: Literal["approve", "request_changes", "reject"]
    comment: str | None = None
    at: str
    required_approvals: int


_GATE_WORDS = {
    "missing": "is missing: submit first",
    "queued": "is queued: approve once it has succeeded",
    "running": "is still running: approve once it has succeeded",
    "failed": "has failed: its author must mend the files and resubmit before it can be approved",
    "canceled": "was canceled: it must run to success before it can be approved",
}


def decide_review(changeset_id: str, cs: Changeset, facts: ReviewFacts, by: str) -> Decision[Changeset]:
    """One vote per reviewer and revision, the latest counts; enough approvals approve (`spec.md` 3, second rule).

    Raises `invalid_transition`, `forbidden` for the author, `gate_not_passed` for an approval before the gate has passed.
    """
    if by == cs.author_user_id:  # who may comes before state (`api.md` 1, order of refusals)
        raise DomainError(ErrorCode.FORBIDDEN, "The author of a changeset can't review it; ask somebody else to.")
    action = Move(facts.action)
    passing = target(cs.state, action if cs.state is ChangesetState.APPROVED else Move.REVIEW)
    if action is Move.APPROVE and (cs.gate is None or cs.gate.state is not JobState.SUCCEEDED):
        found = "missing" if cs.gate is None else cs.gate.state.value
        raise DomainError(
            ErrorCode.GATE_NOT_PASSED,
            f"The gate of revision {cs.current_revision} {_GATE_WORDS[found]}.",
            {"job_id": cs.gate.job_id if cs.gate else None, "state": found},
        )
    vote = Vote(
        id=facts.review_id,
        reviewer_user_id=by,
        action=facts.action,
        comment=facts.comment,
        revision_number=cs.current_revision,
        at=facts.at,
    )
    others = [
        old.model_copy(update={"void": True})
        if old.revision_number == cs.current_revision and (old.reviewer_user_id == by or action is Move.REQUEST_CHANGES)
        else old
        for old in cs.votes
    ]
    voted = cs.model_copy(update={"votes": [*others, vote], "state": passing, "required_approvals": facts.required_approvals})
    if cs.state is not ChangesetState.APPROVED:
        enough = voted.approval_count >= facts.required_approvals
        if action is not Move.APPROVE or enough:
            voted = voted.model_copy(update={"state": target(passing, action)})
    name = {Move.APPROVE: "approved", Move.REQUEST_CHANGES: "changes_requested", Move.REJECT: "rejected"}[action]
    event = _event(
        changeset_id,
        name,
        cs,
        voted,
        revision_number=cs.current_revision,
        approval_count=voted.approval_count,
    )
    ends: tuple[JobEnd, ...] = ()
    if voted.state in TERMINAL:
        ends, voted = _superseded_gate(cs), voted.model_copy(update={"gate": _gate_at_the_end(cs)})
    return Decision(voted, events=(event,), job_ends=ends, result={"review_id": facts.review_id})


VOTES_COUNT_IN = (
    ChangesetState.SUBMITTED,
    ChangesetState.IN_REVIEW,
    ChangesetState.CHANGES_REQUESTED,
    ChangesetState.APPROVED,
)
"""The states in which votes on the current revision still decide something; what is queued stays so (`spec.md` 5)."""


def decide_take_back(changeset_id: str, cs: Changeset, reviewer_user_id: str, until: str | None) -> Decision[Changeset] | None:
    """The votes of somebody who may review no more count no more; an approval that needed them is none (`spec.md` 5).

    Only votes on the current revision of what is not yet queued; with `until` only those that were cast by then, since who has
    come back votes anew. None when there is none.
    """
    lost = [vote.id for vote in cs.counted() if vote.reviewer_user_id == reviewer_user_id and (until is None or vote.at <= until)]
    if not lost or cs.state not in VOTES_COUNT_IN:
        return None
    votes = [vote.model_copy(update={"void": True}) if vote.id in lost else vote for vote in cs.votes]
    after = cs.model_copy(update={"votes": votes})
    if cs.state is ChangesetState.APPROVED and after.approval_count < cs.required_approvals:
        after = after.model_copy(update={"state": target(cs.state, Move.TAKE_BACK_APPROVAL)})
    event = Event("changeset", changeset_id, "updated", before=_tally(cs), after=_tally(after), git_sha=cs.head_sha)
    return Decision(after, events=(event,))


def _tally(cs: Changeset) -> dict[str, Any]:
    voters = [vote.reviewer_user_id for vote in cs.counted()]
    return {"state": cs.state.value, "approval_count": cs.approval_count, "voter_user_ids": voters}


def decide_gate_verdict(cs: Changeset, verdict: Verdict) -> Decision[Changeset] | None:
    """The verdict of the current revision's gate is recorded; None when nobody waits for it any more (`durability.md` 17)."""
    if cs.gate is None or cs.gate.job_id != verdict.job_id or cs.gate.state not in (JobState.QUEUED, JobState.RUNNING):
        return None
    gate = Gate(state=verdict.state, job_id=verdict.job_id, reason_code=verdict.reason_code)
    return Decision(cs.model_copy(update={"gate": gate}), job_ends=(verdict.end(),))


class QueueFacts(Model):
    """What the service found in Git for the gate of the queue."""

    integration_sha: str
    up_to_date: bool
    at: str


def decide_queue(cs: Changeset, facts: QueueFacts) -> None:
    """Only an approved changeset on the integration head enters the queue (`spec.md` 3, `queue_gate: up_to_date`).

    Raises `invalid_transition` or `out_of_date`.
    """
    target(cs.state, Move.QUEUE)
    if not facts.up_to_date:
        raise DomainError(
            ErrorCode.OUT_OF_DATE,
            "The integration branch has moved on since this was submitted: return to draft and submit again.",
            {"base_sha": cs.base_sha, "integration_sha": facts.integration_sha},
        )


def decide_queued(changeset_id: str, cs: Changeset, at: str) -> Decision[Changeset]:
    """The queue has taken it."""
    after = cs.model_copy(update={"state": target(cs.state, Move.QUEUE), "queued_at": at, "intent": None, "release_id": None})
    return Decision(after, events=(_event(changeset_id, "queued", cs, after),))


def decide_move_to_draft(changeset_id: str, cs: Changeset) -> Decision[Changeset]:
    """Back to draft: votes stay on record and count no more; a running gate is superseded (`spec.md` 3)."""
    after = cs.model_copy(
        update={
            "state": target(cs.state, Move.MOVE_TO_DRAFT),
            "votes": [vote.model_copy(update={"void": True}) for vote in cs.votes],
            "queued_at": None,
            "conflicts": [],
            "intent": None,
            "gate": None,
            "last_revalidation_status": None,
            "last_revalidation_job_id": None,
        }
    )
    return Decision(after, events=(_event(changeset_id, "moved_to_draft", cs, after),), job_ends=_superseded_gate(cs))


def decide_withdraw(changeset_id: str, cs: Changeset) -> Decision[Changeset]:
    """The end by the author's or a manager's wish."""
    update = {"state": target(cs.state, Move.WITHDRAW), "intent": None, "queued_at": None, "gate": _gate_at_the_end(cs)}
    after = cs.model_copy(update=update)
    return Decision(after, events=(_event(changeset_id, "withdrawn", cs, after),), job_ends=_superseded_gate(cs))


def needs_the_queue(cs: Changeset) -> bool:
    """Whether leaving this state must first win `queue.remove` (`durability.md` 14)."""
    return cs.state in (ChangesetState.QUEUED, ChangesetState.NEEDS_REVALIDATION)


class QueueNews(Model):
    """What the queue or a release tells one changeset; `head_sha` is what was judged (`durability.md` 17)."""

    kind: Literal["released", "conflicted", "needs_revalidation", "revalidated"]
    head_sha: str
    job_id: str | None = None
    release_id: str | None = None
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


_NEWS_MOVES = {
    "released": Move.PUBLISH,
    "conflicted": Move.CONFLICT,
    "needs_revalidation": Move.FAIL_REVALIDATION,
    "revalidated": Move.PASS_REVALIDATION,
}


def decide_news(changeset_id: str, cs: Changeset, news: QueueNews) -> Decision[Changeset] | None:
    """News about what is still queued moves it; anything else is dropped (None), since it judged what is no more."""
    move = _NEWS_MOVES[news.kind]
    # Once the refs of a release have moved there is only forward: a verdict that came in between keeps no member back.
    late = move is Move.PUBLISH and cs.state in (ChangesetState.NEEDS_REVALIDATION, ChangesetState.CONFLICTED)
    state = ChangesetState.QUEUED if late else cs.state
    if (state, move) not in TRANSITIONS or news.head_sha != cs.head_sha:
        return None
    update: dict[str, Any] = {"state": TRANSITIONS[state, move], "intent": None}
    if news.kind == "released":
        update |= {"release_id": news.release_id, "last_revalidation_status": None, "conflicts": []}
    else:
        status = {"conflicted": "conflicted", "needs_revalidation": "failed", "revalidated": "valid"}[news.kind]
        update |= {
            "conflicts": news.conflicts,
            "last_revalidation_status": status,
            "last_revalidation_job_id": news.job_id,
        }
    after = cs.model_copy(update=update)
    more: dict[str, Any] = {"release_id": news.release_id} if news.kind == "released" else {"job_id": news.job_id}
    if news.conflicts:
        more["paths"] = [str(conflict["path"]) for conflict in news.conflicts]
    return Decision(after, events=(_event(changeset_id, news.kind, cs, after, **more),))


def waiting_for(cs: Changeset) -> str | None:
    """One sentence on what this changeset waits for; None when it is at an end."""
    if cs.intent is not None:
        return f"the queue to answer {cs.intent.move.value}"
    gate = cs.gate
    match cs.state:
        case ChangesetState.DRAFT:
            return "its author to submit it"
        case ChangesetState.SUBMITTED | ChangesetState.IN_REVIEW:
            if gate is not None and gate.state in (JobState.QUEUED, JobState.RUNNING):
                return f"the gate of revision {cs.current_revision} ({gate.state.value})"
            if gate is not None and gate.state is not JobState.SUCCEEDED:
                reason = gate.reason_code.value if gate.reason_code else gate.state.value
                return f"a new revision: the gate ended with {reason}"
            missing = cs.required_approvals - cs.approval_count
            return f"{missing} more approval{'s' if missing != 1 else ''}"
        case ChangesetState.CHANGES_REQUESTED:
            return "its author to resubmit it"
        case ChangesetState.APPROVED:
            return "somebody to put it into the queue"
        case ChangesetState.QUEUED:
            return "a release to take it"
        case ChangesetState.CONFLICTED:
            return "its author: it no longer merges; return it to draft, sync and submit again"
        case ChangesetState.NEEDS_REVALIDATION:
            return "a revalidation that passes"
        case _:
            return None
