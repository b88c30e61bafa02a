"""Reviews: who is asked, what they say, and whose votes count no more (`spec.md` 3, second rule, and 5)."""

from __future__ import annotations

from typing import Any, Literal

from conman.domain.changeset import TERMINAL, Changeset, ChangesetState, Move, ReviewRequest, Vote, state_event, target
from conman.domain.changeset_gate import gate_at_the_end, superseded_gate
from conman.domain.changeset_notices import about, reviewed
from conman.domain.decision import Decision, Event, JobEnd, Model
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.jobs import JobState
from conman.domain.notification import NoticeKind


class ReviewFacts(Model):
    """One reviewer's word, on the revision that was current when they gave it."""

    review_id: str
    action: Literal["approve", "request_changes", "reject"]
    comment: str | None = None
    at: str
    required_approvals: int
    revision_number: int | None = None


AUTHOR_REVIEWS = "The author of a changeset can't review it; ask somebody else to."

_GATE_WORDS = {
    "missing": "is missing: submit first",
    "queued": "is queued: approve once it has succeeded",
    "running": "is still running: approve once it has succeeded",
    "failed": "has failed: its author must mend the files and resubmit before it can be approved",
    "canceled": "was canceled: it must run to success before it can be approved",
}


def decide_review(changeset_id: str, cs: Changeset, facts: ReviewFacts, by: str) -> Decision[Changeset]:
    """One vote per reviewer and revision, the latest counts; enough approvals approve (`spec.md` 3, second rule).

    Raises `forbidden` for the author, `conflict` for a word on another revision, `invalid_transition`, and `gate_not_passed` for
    an approval before the gate has passed.
    """
    if by == cs.author_user_id:  # who may comes before state (`api.md` 1, order of refusals)
        raise DomainError(ErrorCode.FORBIDDEN, AUTHOR_REVIEWS)
    if facts.revision_number not in (None, cs.current_revision):
        raise DomainError(
            ErrorCode.CONFLICT,
            f"Revision {cs.current_revision} came after revision {facts.revision_number}, which you reviewed: look at it first.",
            {"revision_number": cs.current_revision},
        )
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
        if old.stands_for == cs.current_revision and (old.reviewer_user_id == by or action is Move.REQUEST_CHANGES)
        else old
        for old in cs.votes
    ]
    voted = cs.model_copy(update={"votes": [*others, vote], "state": passing, "required_approvals": facts.required_approvals})
    if cs.state is not ChangesetState.APPROVED:
        enough = voted.approval_count >= facts.required_approvals
        if action is not Move.APPROVE or enough:
            voted = voted.model_copy(update={"state": target(passing, action)})
    name = {Move.APPROVE: "approved", Move.REQUEST_CHANGES: "changes_requested", Move.REJECT: "rejected"}[action]
    event = state_event(
        changeset_id,
        name,
        cs,
        voted,
        revision_number=cs.current_revision,
        approval_count=voted.approval_count,
        **_passed(cs, action),
    )
    ends: tuple[JobEnd, ...] = ()
    if voted.state in TERMINAL:
        ends, voted = superseded_gate(cs), voted.model_copy(update={"gate": gate_at_the_end(cs)})
    told = reviewed(changeset_id, voted, action)
    return Decision(voted, events=(event,), job_ends=ends, notices=told, result={"review_id": facts.review_id})


def _passed(cs: Changeset, action: Move) -> dict[str, Any]:
    """The gate without whose success nobody approves, and what it judged: so that the audit holds the verdict."""
    if action is not Move.APPROVE or cs.gate is None:
        return {}
    return {"head_sha": cs.head_sha, "gate_job_id": cs.gate.job_id}


def decide_request_review(
    changeset_id: str, cs: Changeset, reviewer_user_id: str, by: str | None, at: str
) -> Decision[Changeset]:
    """Somebody who may review is asked to, once per revision; asking again changes nothing (`api.md` 3).

    Raises `validation_error` for the author, `invalid_transition` where nothing can be reviewed.
    """
    if reviewer_user_id == cs.author_user_id:
        raise invalid("user_id", "is the author's, who can't review it: ask somebody else")
    target(cs.state, Move.REVIEW)
    number = cs.current_revision
    if any((one.reviewer_user_id, one.revision_number) == (reviewer_user_id, number) for one in cs.review_requests):
        return Decision(cs)
    asked = ReviewRequest(reviewer_user_id=reviewer_user_id, revision_number=number, at=at, requested_by=by)
    event = Event(
        "changeset",
        changeset_id,
        "review_requested",
        after={"reviewer_user_id": reviewer_user_id, "revision_number": number},
        git_sha=cs.head_sha,
    )
    notice = about(NoticeKind.REVIEW_REQUESTED, changeset_id, cs, reviewer_user_id)
    after = cs.model_copy(update={"review_requests": [*cs.review_requests, asked]})
    return Decision(after, events=(event,), notices=(notice,))


VOTES_COUNT_IN = (
    ChangesetState.DRAFT,
    ChangesetState.SUBMITTED,
    ChangesetState.IN_REVIEW,
    ChangesetState.CHANGES_REQUESTED,
    ChangesetState.APPROVED,
)
"""The states in which votes on the current revision still decide something; what is queued stays so (`spec.md` 5).

In a draft they do where votes are carried to what is submitted from it.
"""


def decide_take_back(changeset_id: str, cs: Changeset, reviewer_user_id: str, until: str | None) -> Decision[Changeset] | None:
    """The votes of somebody who may review no more count no more; an approval that needed them is none (`spec.md` 5).

    Only votes on the current revision of what is not yet queued; with `until` only those that were cast by then, since who has
    come back votes anew. None when there is none.
    """
    lost = [
        vote.id for vote in cs.standing() if vote.reviewer_user_id == reviewer_user_id and (until is None or vote.at <= until)
    ]
    if not lost or cs.state not in VOTES_COUNT_IN:
        return None
    votes = [vote.model_copy(update={"void": True}) if vote.id in lost else vote for vote in cs.votes]
    after = cs.model_copy(update={"votes": votes})
    if cs.state is ChangesetState.APPROVED and after.approval_count < cs.required_approvals:
        after = after.model_copy(update={"state": target(cs.state, Move.TAKE_BACK_APPROVAL)})
    event = Event("changeset", changeset_id, "updated", before=_tally(cs), after=_tally(after), git_sha=cs.head_sha)
    return Decision(after, events=(event,))


def _tally(cs: Changeset) -> dict[str, Any]:
    voters = [vote.reviewer_user_id for vote in cs.standing()]
    return {"state": cs.state.value, "approval_count": cs.approval_count, "voter_user_ids": voters}
