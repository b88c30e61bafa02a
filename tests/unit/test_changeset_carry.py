"""Votes that go along with a pure rebase, and a gate that is run again (`spec.md` 3, `carry_votes` and the second rule)."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from rule_samples import AUTHOR, CHANGESET, changeset, refused, review_facts, revision, submit_facts, uid, vote

from conman.domain.changeset import Changeset, ChangesetState
from conman.domain.changeset_gate import decide_gate_verdict, decide_retry
from conman.domain.changeset_queue import decide_move_to_draft
from conman.domain.changeset_review import decide_review, decide_take_back
from conman.domain.changeset_submit import decide_submit
from conman.domain.decision import Decision, Verdict
from conman.domain.errors import ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode, end_state

S = ChangesetState


def submitted(before: Changeset, **facts: Any) -> Decision[Changeset]:
    """A submit, or a resubmit, whose files are those of the present revision on another base."""
    found = submit_facts().model_copy(update={"same_patch_as": before.current_revision, **facts})
    return decide_submit(CHANGESET, before, found, AUTHOR, again=before.state is not S.DRAFT)


def said(decision: Decision[Changeset]) -> str:
    return (decision.events[0].after or {})["votes"]


def judged(cs: Changeset, reason: ReasonCode = ReasonCode.OK) -> Decision[Changeset]:
    verdict = Verdict(job_id=uid("next gate"), state=end_state(reason), reason_code=reason)
    decision = decide_gate_verdict(CHANGESET, cs, verdict)
    assert decision is not None
    return decision


def test_a_pure_rebase_keeps_its_votes_and_the_gate_runs_again() -> None:
    decision = submitted(changeset(S.IN_REVIEW, votes=[vote("ann")], required_approvals=2))
    after = decision.owned
    assert (after.state, after.approval_count, said(decision)) == (S.SUBMITTED, 1, "carried")
    assert after.gate is not None and after.gate.state is JobState.QUEUED
    assert (after.votes[0].revision_number, after.votes[0].carried_to, after.votes[0].void) == (1, 2, False)


def test_votes_are_carried_over_several_rebases() -> None:
    first = submitted(changeset(S.IN_REVIEW, votes=[vote("ann")], required_approvals=2)).owned
    second = submitted(first, head_sha=revision(3, "c" * 40).head_sha).owned
    assert (second.current_revision, second.approval_count, second.votes[0].carried_to) == (3, 1, 3)


@pytest.mark.parametrize(
    "facts",
    [{"same_patch_as": None}, {"same_patch_as": 7}, {"overrides": [{"base_url": "http://x"}]}],
    ids=["another patch, or the setting never", "the patch of another revision", "other overrides"],
)
def test_anything_else_than_the_same_patch_and_overrides_voids_the_votes(facts: dict[str, Any]) -> None:
    decision = submitted(changeset(S.IN_REVIEW, votes=[vote("ann")], required_approvals=2), **facts)
    assert (decision.owned.approval_count, said(decision)) == (0, "voided")
    assert decision.owned.votes[0].void


def test_without_votes_there_is_nothing_to_carry_or_to_void() -> None:
    assert said(submitted(changeset())) == "none"
    void = vote("ann", void=True)
    assert said(submitted(changeset(votes=[void]))) == "none"


def test_who_may_review_no_more_has_no_vote_to_carry() -> None:
    votes = [vote("ann"), vote("bob")]
    decision = submitted(changeset(S.IN_REVIEW, votes=votes, required_approvals=3), ineligible_user_ids=[uid("ann")])
    assert [item.void for item in decision.owned.votes] == [True, False]
    assert (decision.owned.approval_count, said(decision)) == (1, "carried")


def test_a_request_for_changes_that_is_carried_is_no_approval() -> None:
    asked = vote("ann", "request_changes")
    after = submitted(changeset(S.CHANGES_REQUESTED, votes=[vote("bob", void=True), asked])).owned
    assert (after.state, after.approval_count) == (S.SUBMITTED, 0)
    assert judged(after).owned.state is S.SUBMITTED


def test_one_reviewer_has_one_vote_also_where_an_earlier_one_was_carried() -> None:
    carried = judged(submitted(changeset(S.IN_REVIEW, votes=[vote("ann")]), required_approvals=2).owned).owned
    again = decide_review(CHANGESET, carried, review_facts(required=2), uid("ann")).owned
    assert (again.approval_count, again.state) == (1, S.IN_REVIEW)
    enough = decide_review(CHANGESET, carried, review_facts(required=2), uid("bob")).owned
    assert (enough.approval_count, enough.state) == (2, S.APPROVED)


def approved_and_behind() -> Changeset:
    """It was approved, the branch moved on, and it went back to draft to be submitted again."""
    return decide_move_to_draft(CHANGESET, changeset(S.APPROVED, votes=[vote("ann")])).owned


def test_in_a_draft_no_vote_counts() -> None:
    assert (approved_and_behind().approval_count, approved_and_behind().counted()) == (0, [])


def test_what_was_approved_and_is_submitted_again_as_a_pure_rebase_waits_for_its_gate_alone() -> None:
    decision = submitted(approved_and_behind())
    assert (decision.events[0].action, said(decision)) == ("submitted", "carried")
    assert (decision.owned.state, decision.owned.approval_count) == (S.SUBMITTED, 1)
    passed = judged(decision.owned)
    assert passed.owned.state is S.APPROVED
    assert [(event.action, event.before, (event.after or {})["state"]) for event in passed.events] == [
        ("approved", {"state": "submitted"}, "approved")
    ]
    assert [end.reason_code for end in passed.job_ends] == [ReasonCode.OK]


@pytest.mark.parametrize("reason", sorted(set(ReasonCode) - {ReasonCode.OK}), ids=lambda reason: reason.value)
def test_votes_that_were_carried_approve_nothing_whose_gate_has_not_passed(reason: ReasonCode) -> None:
    assert judged(submitted(approved_and_behind()).owned, reason).owned.state is S.SUBMITTED


def test_votes_that_were_carried_and_are_not_enough_any_more_approve_nothing() -> None:
    after = submitted(approved_and_behind(), required_approvals=2).owned
    assert (judged(after).owned.state, judged(after).events) == (S.SUBMITTED, ())


def test_a_draft_that_is_submitted_with_other_files_has_lost_its_votes() -> None:
    after = submitted(approved_and_behind(), same_patch_as=None).owned
    assert (after.approval_count, judged(after).owned.state) == (0, S.SUBMITTED)


def test_a_vote_is_taken_back_from_a_draft_too() -> None:
    """`spec.md` 5: so that it is not carried from there."""
    decision = decide_take_back(CHANGESET, approved_and_behind(), uid("ann"), None)
    assert decision is not None
    assert submitted(decision.owned).owned.approval_count == 0


# -- retry -------------------------------------------------------------------------------------------------------------------

WITHOUT_VERDICT = sorted(set(ReasonCode) - {ReasonCode.OK, ReasonCode.TESTS_FAILED})
OPEN = (S.SUBMITTED, S.IN_REVIEW, S.CHANGES_REQUESTED)


def ended(state: ChangesetState, reason: ReasonCode) -> Changeset:
    given = changeset(state, gate=end_state(reason).value, votes=[vote("ann")], required_approvals=3)
    assert given.gate is not None
    return given.model_copy(update={"gate": given.gate.model_copy(update={"reason_code": reason})})


@pytest.mark.parametrize(
    ("state", "reason"), [pytest.param(s, r, id=f"{s.value}, {r.value}") for s, r in product(OPEN, WITHOUT_VERDICT)]
)
def test_a_gate_without_a_verdict_is_run_again_and_votes_stay(state: ChangesetState, reason: ReasonCode) -> None:
    given = ended(state, reason)
    decision = decide_retry(CHANGESET, given, uid("gate 1"), uid("again"), AUTHOR)
    after = decision.owned
    assert after.gate is not None
    assert (after.gate.state, after.gate.job_id, after.gate.reason_code) == (JobState.QUEUED, uid("again"), None)
    assert after.gate.fresh, "no earlier result will do"
    assert (after.state, after.votes, after.current_revision) == (state, given.votes, 1)
    assert after.revisions[0].job_id == uid("again")
    assert [(job.id, job.job_type, job.max_attempts) for job in decision.jobs] == [(uid("again"), JobType.MSUITE_SUBMIT, 4)]
    (event,) = decision.events
    assert (event.entity_type, event.entity_id, event.action) == ("job", uid("gate 1"), "retried")
    assert event.before == {"job_id": uid("gate 1"), "state": end_state(reason).value, "reason_code": reason.value}


@pytest.mark.parametrize(
    ("gate", "reason", "words"),
    [
        ("queued", None, "wait for its end"),
        ("running", None, "wait for its end"),
        ("succeeded", ReasonCode.OK, "has passed it"),
        ("failed", ReasonCode.TESTS_FAILED, "mend the files"),
    ],
)
def test_a_gate_that_runs_or_has_a_verdict_is_not_run_again(gate: str, reason: ReasonCode | None, words: str) -> None:
    given = changeset(gate=gate)
    assert given.gate is not None
    given = given.model_copy(update={"gate": given.gate.model_copy(update={"reason_code": reason})})
    error = refused(ErrorCode.INVALID_TRANSITION, lambda: decide_retry(CHANGESET, given, uid("gate 1"), uid("again"), AUTHOR))
    assert error.details == {"from": gate, "to": "queued"}
    assert gate in error.message.replace("has failed", "failed") and words in error.message


@pytest.mark.parametrize(
    "given",
    [
        changeset(gate="canceled", revisions=[revision(1), revision(2)]).model_copy(update={"gate": None}),
        decide_move_to_draft(CHANGESET, changeset(gate="canceled")).owned,
        changeset(S.WITHDRAWN, gate="canceled"),
        changeset(S.REJECTED, gate="canceled"),
    ],
    ids=["no gate", "draft", "withdrawn", "rejected"],
)
def test_a_gate_of_what_is_not_current_is_not_run_again(given: Changeset) -> None:
    error = refused(ErrorCode.CONFLICT, lambda: decide_retry(CHANGESET, given, uid("gate 1"), uid("again"), AUTHOR))
    assert given.state.value in error.message


def test_of_two_retries_of_one_gate_the_second_names_the_job_that_runs() -> None:
    given = ended(S.SUBMITTED, ReasonCode.TIMEOUT)
    first = decide_retry(CHANGESET, given, uid("gate 1"), uid("again"), AUTHOR).owned
    error = refused(ErrorCode.CONFLICT, lambda: decide_retry(CHANGESET, first, uid("gate 1"), uid("once more"), AUTHOR))
    assert error.details["job_id"] == uid("again")
