"""Submit and resubmit: what is frozen, and which votes go along with it (`spec.md` 3, first rule and `carry_votes`)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from conman.domain.changeset import Changeset, Gate, Move, Revision, Vote, state_event, target
from conman.domain.changeset_gate import new_gate_job, superseded_gate
from conman.domain.changeset_notices import submitted
from conman.domain.decision import Decision, Model
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState


class SubmitFacts(Model):
    """What the service found in Git before it asked (`durability.md` 1).

    `same_patch_as` is the revision that this one repeats on another base, where the app carries votes; the votes of
    `ineligible_user_ids`, who may review no more, are not carried.
    """

    head_sha: str
    base_sha: str
    integration_sha: str
    changed_files: int
    overrides: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    job_id: str
    at: str
    required_approvals: int
    patch_id: str | None = None
    same_patch_as: int | None = None
    ineligible_user_ids: list[str] = Field(default_factory=list[str])


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
            f"Nothing has changed since revision {cs.current_revision}: edit the workspace, then resubmit.",
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
        patch_id=facts.patch_id,
    )
    votes, became = _votes(cs, facts, revision.revision_number)
    after = cs.model_copy(
        update={
            "state": state,
            "head_sha": facts.head_sha,
            "base_sha": facts.base_sha,
            "revisions": [*cs.revisions, revision],
            "gate": Gate(state=JobState.QUEUED, job_id=facts.job_id),
            "votes": votes,
            "required_approvals": facts.required_approvals,
            "conflicts": [],
            "last_revalidation_status": None,
            "last_revalidation_job_id": None,
            "reminders": 0,
            "reminded_at": None,
        }
    )
    event = state_event(
        changeset_id,
        "resubmitted" if again else "submitted",
        cs,
        after,
        revision_number=revision.revision_number,
        head_sha=facts.head_sha,
        base_sha=facts.base_sha,
        job_id=facts.job_id,
        files_changed=facts.changed_files,
        votes=became,
    )
    return Decision(
        after,
        events=(event,),
        jobs=(new_gate_job(changeset_id, facts.job_id, by),),
        job_ends=superseded_gate(cs),
        notices=(submitted(changeset_id, after, again=again),),
        result={"revision_number": revision.revision_number, "job_id": facts.job_id},
    )


def _votes(cs: Changeset, facts: SubmitFacts, number: int) -> tuple[list[Vote], str]:
    """The votes as revision `number` finds them, and in a word what became of those that stood."""
    standing = {vote.id for vote in cs.standing()}
    rebased = bool(cs.revisions) and facts.same_patch_as == cs.current_revision
    kept: set[str] = set()
    if rebased and facts.overrides == cs.revisions[-1].overrides:
        kept = {vote.id for vote in cs.standing() if vote.reviewer_user_id not in facts.ineligible_user_ids}
    votes = [vote.model_copy(update={"carried_to": number} if vote.id in kept else {"void": True}) for vote in cs.votes]
    if not standing:
        return votes, "none"
    return votes, "carried" if kept else "voided"
