"""The submit gate of a changeset's current revision: its verdict, its end, and running it again (`spec.md` 3 and 9)."""

from __future__ import annotations

from conman.domain.changeset import TERMINAL, Changeset, ChangesetState, Gate, Move, Revision, state_event, target
from conman.domain.changeset_notices import approved as approved_notice
from conman.domain.changeset_notices import gate_failed
from conman.domain.decision import Decision, Event, JobEnd, NewJob, Verdict
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode, max_attempts

RUNNING = (JobState.QUEUED, JobState.RUNNING)
"""The states of a gate that somebody still waits for."""

JUDGED = frozenset({ReasonCode.OK, ReasonCode.TESTS_FAILED})
"""The suite itself has spoken: running it on the same files again is asking for another answer (`spec.md` 9: never)."""


def new_gate_job(changeset_id: str, job_id: str, by: str | None) -> NewJob:
    """The job of a submit gate."""
    kind = JobType.MSUITE_SUBMIT
    return NewJob(job_id, kind, "changeset", changeset_id, max_attempts(kind), created_by=by)


def superseded_gate(cs: Changeset) -> tuple[JobEnd, ...]:
    """The end of a gate that nobody waits for any more."""
    if cs.gate is None or cs.gate.state not in RUNNING:
        return ()
    return (JobEnd(id=cs.gate.job_id, state=JobState.CANCELED, reason_code=ReasonCode.SUPERSEDED),)


def gate_at_the_end(cs: Changeset) -> Gate | None:
    """The gate as a changeset that has ended shows it: a job ends only after the record says so (`spec.md` 9)."""
    ends = superseded_gate(cs)
    return Gate(state=ends[0].state, job_id=ends[0].id, reason_code=ends[0].reason_code) if ends else cs.gate


def decide_gate_verdict(changeset_id: str, cs: Changeset, verdict: Verdict) -> Decision[Changeset] | None:
    """The verdict of the current revision's gate is recorded; None when nobody waits for it any more (`durability.md` 17).

    Where votes that were carried are enough already, it was the gate alone that the approval waited for (`spec.md` 3).
    """
    if cs.gate is None or cs.gate.job_id != verdict.job_id or cs.gate.state not in RUNNING:
        return None
    gate = Gate(state=verdict.state, job_id=verdict.job_id, reason_code=verdict.reason_code)
    judged = cs.model_copy(update={"gate": gate})
    carried = cs.state is ChangesetState.SUBMITTED and 0 < cs.required_approvals <= cs.approval_count
    if gate.state is not JobState.SUCCEEDED or not carried:
        return Decision(judged, job_ends=(verdict.end(),), notices=gate_failed(changeset_id, judged, gate))
    approved = judged.model_copy(update={"state": target(target(cs.state, Move.REVIEW), Move.APPROVE)})
    event = state_event(
        changeset_id,
        "approved",
        cs,
        approved,
        revision_number=cs.current_revision,
        approval_count=cs.approval_count,
        required_approval_count=cs.required_approvals,
        head_sha=cs.head_sha,
        gate_job_id=gate.job_id,
    )
    notice = approved_notice(changeset_id, approved)
    return Decision(approved, events=(event,), job_ends=(verdict.end(),), notices=(notice,))


def decide_retry(changeset_id: str, cs: Changeset, job_id: str, new_job_id: str, by: str | None) -> Decision[Changeset]:
    """A gate that ended without a verdict is run again under a new job; votes stay as they are (`spec.md` 3).

    Raises `conflict` for a job that judges no current revision, `invalid_transition` for one that runs or has a verdict.
    """
    gate = cs.gate
    if gate is None or gate.job_id != job_id or cs.state in TERMINAL:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"This job is not the gate of the changeset's current revision, which is {cs.state.value}: retry the current one.",
            {"job_id": gate.job_id if gate else None, "state": cs.state.value},
        )
    if gate.state in RUNNING or gate.reason_code in JUDGED or gate.state is JobState.SUCCEEDED:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            _NO_RETRY.get(gate.state, _NO_RETRY[JobState.RUNNING]).format(state=gate.state.value, number=cs.current_revision),
            {"from": gate.state.value, "to": JobState.QUEUED.value},
        )
    again = Gate(state=JobState.QUEUED, job_id=new_job_id, fresh=True)
    revision: Revision = cs.revisions[-1].model_copy(update={"job_id": new_job_id})
    after = cs.model_copy(update={"gate": again, "revisions": [*cs.revisions[:-1], revision]})
    event = retried_event(job_id, gate.state, gate.reason_code, new_job_id, JobType.MSUITE_SUBMIT, changeset_id, cs.head_sha)
    job = new_gate_job(changeset_id, new_job_id, by)
    return Decision(after, events=(event,), jobs=(job,), result={"job_id": new_job_id})


_NO_RETRY = {
    JobState.RUNNING: "A gate that is {state} can't become queued again: wait for its end, or cancel it first.",
    JobState.SUCCEEDED: "A gate that has succeeded can't become queued again: revision {number} has passed it.",
    JobState.FAILED: "A gate that has failed by its suite's verdict can't become queued again: mend the files and resubmit.",
}


def retried_event(
    job_id: str, state: JobState, reason: ReasonCode | None, new_job_id: str, kind: JobType, changeset_id: str, sha: str | None
) -> Event:
    """A gate of a changeset is run again, as the audit says it."""
    return Event(
        "job",
        job_id,
        "retried",
        before={"job_id": job_id, "state": state.value, "reason_code": reason.value if reason else None},
        after={
            "job_id": new_job_id,
            "state": JobState.QUEUED.value,
            "job_type": kind.value,
            "entity_type": "changeset",
            "entity_id": changeset_id,
        },
        git_sha=sha,
    )
