"""Changesets keep the table and the rules of `spec.md` 3."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import (
    AT,
    AUTHOR,
    BASE,
    CHANGESET,
    HEAD,
    MAIN,
    SUPERSEDED,
    changeset,
    refused,
    review_facts,
    revision,
    sha,
    submit_facts,
    uid,
    vote,
)

from conman.domain import changeset as rules
from conman.domain.changeset import Changeset, ChangesetState, Intent, Move
from conman.domain.changeset_gate import decide_gate_verdict
from conman.domain.changeset_news import QueueNews, decide_news
from conman.domain.changeset_queue import (
    QueueFacts,
    decide_move_to_draft,
    decide_queue,
    decide_queued,
    decide_withdraw,
    needs_the_queue,
)
from conman.domain.changeset_review import VOTES_COUNT_IN, decide_review, decide_take_back
from conman.domain.changeset_submit import decide_submit
from conman.domain.changeset_waits import waiting_for
from conman.domain.decision import Verdict
from conman.domain.errors import ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode

S = ChangesetState

# The table of `spec.md` 3, row by row. Three rows need a second sentence of the specification: an approval that is not yet
# enough leaves the changeset in review (section 3, the count), a revalidation judges `needs_revalidation` too (section 10), and
# what was approved by somebody whose vote counts no more is in review again (section 5).
SECTION_3 = """
draft                | submit             | submitted
submitted            | review             | in_review
changes_requested    | review             | in_review
in_review            | review             | in_review
in_review            | approve            | approved
in_review            | request_changes    | changes_requested
in_review            | reject             | rejected
approved             | request_changes    | changes_requested
approved             | reject             | rejected
submitted            | resubmit           | submitted
in_review            | resubmit           | submitted
changes_requested    | resubmit           | submitted
approved             | take-back-approval | in_review
approved             | queue              | queued
queued               | publish            | released
queued               | conflict           | conflicted
queued               | fail_revalidation  | needs_revalidation
needs_revalidation   | conflict           | conflicted
needs_revalidation   | pass_revalidation  | queued
submitted            | move-to-draft      | draft
in_review            | move-to-draft      | draft
changes_requested    | move-to-draft      | draft
approved             | move-to-draft      | draft
queued               | move-to-draft      | draft
conflicted           | move-to-draft      | draft
needs_revalidation   | move-to-draft      | draft
draft                | withdraw           | withdrawn
submitted            | withdraw           | withdrawn
in_review            | withdraw           | withdrawn
changes_requested    | withdraw           | withdrawn
approved             | withdraw           | withdrawn
conflicted           | withdraw           | withdrawn
needs_revalidation   | withdraw           | withdrawn
"""
LEGAL = {
    (row[0], row[1]): row[2] for row in ([cell.strip() for cell in line.split("|")] for line in SECTION_3.split("\n") if line)
}
WALK = [
    pytest.param(state, move, id=f"{state.value} --{move.value}--> {LEGAL.get((state.value, move.value), 'refused')}")
    for state, move in product(S, Move)
]


@pytest.mark.parametrize(("state", "move"), WALK)
def test_a_changeset_moves_only_along_the_table(state: ChangesetState, move: Move) -> None:
    """`spec.md` 3: an illegal move is `invalid_transition`, naming both states."""
    wanted = LEGAL.get((state.value, move.value))
    if wanted is not None:
        assert rules.target(state, move).value == wanted
        return
    error = refused(ErrorCode.INVALID_TRANSITION, lambda: rules.target(state, move))
    ends = {to for (_, by), to in LEGAL.items() if by == move.value}
    assert state.value in error.message
    assert any(end in error.message for end in ends)
    assert error.details["from"] == state.value
    assert error.details["to"] in ends


def test_the_walk_knows_every_row_of_the_table() -> None:
    """`spec.md` 3: the copy here and the table have the same rows."""
    assert {(state.value, move.value): to.value for (state, move), to in rules.TRANSITIONS.items()} == LEGAL


def test_released_rejected_and_withdrawn_are_terminal() -> None:
    """`spec.md` 3."""
    assert {state.value for state in rules.TERMINAL} == {"released", "rejected", "withdrawn"}
    assert not [row for row in rules.TRANSITIONS if row[0] in rules.TERMINAL]


# -- submit ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("files", "overrides", "accepted"), [(0, 0, False), (1, 0, True), (0, 1, True), (2, 2, True)])
def test_a_submit_needs_at_least_one_changed_file_or_override(files: int, overrides: int, accepted: bool) -> None:
    """`spec.md` 3."""
    facts = submit_facts(files=files, overrides=[{"target_profile_id": uid("profile")}] * overrides)
    draft = changeset(S.DRAFT)
    if accepted:
        assert decide_submit(CHANGESET, draft, facts, AUTHOR, again=False).owned.state is S.SUBMITTED
    else:
        refused(ErrorCode.CONFLICT, lambda: decide_submit(CHANGESET, draft, facts, AUTHOR, again=False))


def test_a_submit_freezes_head_and_base_as_the_next_revision_and_starts_its_gate() -> None:
    """`spec.md` 3 and 9."""
    facts = submit_facts()
    decision = decide_submit(CHANGESET, changeset(S.DRAFT), facts, AUTHOR, again=False)
    made = decision.owned
    assert (made.current_revision, made.head_sha, made.base_sha) == (1, facts.head_sha, BASE)
    assert (made.revisions[0].head_sha, made.revisions[0].integration_sha) == (facts.head_sha, MAIN)
    assert made.gate is not None
    assert (made.gate.state, made.gate.job_id) == (JobState.QUEUED, facts.job_id)
    (job,) = decision.jobs
    assert (job.id, job.job_type, job.entity_id, job.max_attempts) == (facts.job_id, JobType.MSUITE_SUBMIT, CHANGESET, 4)
    assert decision.result == {"revision_number": 1, "job_id": facts.job_id}


@pytest.mark.parametrize(
    ("head", "overrides", "accepted"),
    [("head", [], False), ("other head", [], True), ("head", [{"base_url": "http://x"}], True)],
    ids=["the same head and overrides", "a new head", "changed overrides"],
)
def test_a_resubmit_needs_a_new_head_or_changed_overrides(head: str, overrides: list[Any], accepted: bool) -> None:
    """`spec.md` 3."""
    facts = submit_facts(head, overrides=overrides)
    given_ = changeset(S.IN_REVIEW)
    if accepted:
        assert decide_submit(CHANGESET, given_, facts, AUTHOR, again=True).owned.current_revision == 2
    else:
        refused(ErrorCode.CONFLICT, lambda: decide_submit(CHANGESET, given_, facts, AUTHOR, again=True))


def test_what_was_returned_to_draft_may_be_submitted_again_unchanged() -> None:
    """`spec.md` 3: only a resubmit needs something new."""
    back = decide_move_to_draft(CHANGESET, changeset(S.APPROVED)).owned
    assert decide_submit(CHANGESET, back, submit_facts("head"), AUTHOR, again=False).owned.current_revision == 2


def test_a_resubmit_adds_a_revision_voids_all_votes_and_keeps_them_on_record() -> None:
    """`spec.md` 3."""
    before = changeset(S.IN_REVIEW, votes=[vote("ann"), vote("bob")], required_approvals=3)
    after = decide_submit(CHANGESET, before, submit_facts(), AUTHOR, again=True).owned
    assert [item.revision_number for item in after.revisions] == [1, 2]
    assert after.approval_count == 0
    assert [item.void for item in after.votes] == [True, True]
    assert after.state is S.SUBMITTED


@pytest.mark.parametrize(("gate", "ended"), [("queued", True), ("running", True), ("succeeded", False), ("failed", False)])
def test_a_gate_that_still_runs_is_superseded_by_a_resubmit_a_move_to_draft_and_a_withdrawal(gate: str, ended: bool) -> None:
    """`spec.md` 9: `superseded`."""
    given_ = changeset(S.IN_REVIEW, gate=gate)
    for decision in (
        decide_submit(CHANGESET, given_, submit_facts(), AUTHOR, again=True),
        decide_move_to_draft(CHANGESET, given_),
        decide_withdraw(CHANGESET, given_),
        decide_review(CHANGESET, given_, review_facts("reject"), uid("ann")),
    ):
        assert [(end.id, end.state, end.reason_code) for end in decision.job_ends] == ([(uid("gate 1"), *SUPERSEDED)] * ended)


@pytest.mark.parametrize("end", ["withdraw", "reject"])
def test_a_changeset_that_has_ended_shows_no_gate_that_runs(end: str) -> None:
    """`spec.md` 9: a job ends only after every record that its verdict changes shows it."""
    given_ = changeset(S.IN_REVIEW, gate="running")
    decision = (
        decide_withdraw(CHANGESET, given_)
        if end == "withdraw"
        else decide_review(CHANGESET, given_, review_facts("reject"), uid("ann"))
    )
    gate = decision.owned.gate
    assert gate is not None
    assert (gate.state, gate.reason_code) == SUPERSEDED
    late = Verdict(job_id=uid("gate 1"), state=JobState.SUCCEEDED, reason_code=ReasonCode.OK)
    assert decide_gate_verdict(CHANGESET, decision.owned, late) is None


# -- votes of who may review no more -------------------------------------------------------------------------------------------


def test_what_was_approved_is_in_review_again_without_the_vote_that_it_needed() -> None:
    """`spec.md` 5: votes on a current revision that is not yet queued no longer count."""
    decision = decide_take_back(CHANGESET, changeset(S.APPROVED, votes=[vote("ann")]), uid("ann"), None)
    assert decision is not None
    assert (decision.owned.state, decision.owned.approval_count) == (S.IN_REVIEW, 0)
    (event,) = decision.events
    assert (event.action, event.before, event.after) == (
        "updated",
        {"state": "approved", "approval_count": 1, "voter_user_ids": [uid("ann")]},
        {"state": "in_review", "approval_count": 0, "voter_user_ids": []},
    )
    again = decide_review(CHANGESET, decision.owned, review_facts(), uid("bob")).owned
    assert again.state is S.APPROVED


def test_what_has_enough_approvals_without_the_vote_stays_approved() -> None:
    decision = decide_take_back(CHANGESET, changeset(S.APPROVED, votes=[vote("ann"), vote("bob")]), uid("ann"), None)
    assert decision is not None
    assert (decision.owned.state, decision.owned.approval_count) == (S.APPROVED, 1)


@pytest.mark.parametrize("state", [S.SUBMITTED, S.IN_REVIEW, S.CHANGES_REQUESTED], ids=lambda state: state.value)
def test_before_the_approval_only_the_vote_goes(state: ChangesetState) -> None:
    action = "request_changes" if state is S.CHANGES_REQUESTED else "approve"
    decision = decide_take_back(CHANGESET, changeset(state, votes=[vote("ann", action)]), uid("ann"), None)
    assert decision is not None
    assert decision.owned.state is state and decision.owned.counted() == []


@pytest.mark.parametrize("state", sorted(set(S) - set(VOTES_COUNT_IN)), ids=lambda state: state.value)
def test_what_is_queued_or_further_keeps_its_votes(state: ChangesetState) -> None:
    assert decide_take_back(CHANGESET, changeset(state, votes=[vote("ann")]), uid("ann"), None) is None


def test_votes_of_others_of_earlier_revisions_and_cast_after_a_return_stay() -> None:
    given_ = changeset(S.IN_REVIEW, revisions=[revision(1), revision(2)], votes=[vote("ann", number=1), vote("bob", number=2)])
    assert decide_take_back(CHANGESET, given_, uid("ann"), None) is None
    assert decide_take_back(CHANGESET, given_, uid("bob"), "2020-01-01T00:00:00.000Z") is None
    assert decide_take_back(CHANGESET, given_, uid("bob"), AT) is not None


# -- review ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("required", [1, 2, 3])
def test_enough_approvals_approve_and_one_less_does_not(required: int) -> None:
    """`spec.md` 3: approvals ≥ the required count."""
    given_ = changeset(S.SUBMITTED)
    for number in range(1, required + 1):
        given_ = decide_review(CHANGESET, given_, review_facts(required=required), uid(f"reviewer {number}")).owned
        assert given_.approval_count == number
        assert given_.state is (S.APPROVED if number >= required else S.IN_REVIEW)


def test_more_approvals_than_the_count_asks_for_are_enough_too() -> None:
    """`spec.md` 3: the count may have been lowered since."""
    given_ = changeset(S.IN_REVIEW, votes=[vote("ann"), vote("bob")], required_approvals=3)
    assert decide_review(CHANGESET, given_, review_facts(required=2), uid("eve")).owned.state is S.APPROVED


def test_one_reviewer_has_one_vote_and_the_latest_counts() -> None:
    """`spec.md` 3."""
    given_ = changeset(S.SUBMITTED)
    for _ in range(3):
        given_ = decide_review(CHANGESET, given_, review_facts(required=2), uid("ann")).owned
    assert (given_.approval_count, given_.state) == (1, S.IN_REVIEW)


def test_a_request_for_changes_voids_all_votes_of_the_revision() -> None:
    """`spec.md` 3."""
    given_ = changeset(S.APPROVED, votes=[vote("ann"), vote("bob")])
    after = decide_review(CHANGESET, given_, review_facts("request_changes"), uid("eve")).owned
    assert (after.state, after.approval_count) == (S.CHANGES_REQUESTED, 0)
    assert [item.void for item in after.votes] == [True, True, False]


def test_votes_of_an_earlier_revision_never_count() -> None:
    """`spec.md` 3: one vote per reviewer and revision."""
    given_ = changeset(S.SUBMITTED, revisions=[revision(1), revision(2)], votes=[vote("ann", number=1)])
    after = decide_review(CHANGESET, given_, review_facts(required=2), uid("bob")).owned
    assert (after.approval_count, after.state) == (1, S.IN_REVIEW)


@pytest.mark.parametrize("action", ["approve", "request_changes", "reject"])
@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_the_author_never_reviews_whatever_the_state(state: ChangesetState, action: str) -> None:
    """`spec.md` 3 (403), and `api.md` 1: who may is judged before the state."""
    refused(ErrorCode.FORBIDDEN, lambda: decide_review(CHANGESET, changeset(state), review_facts(action), AUTHOR))


@pytest.mark.parametrize("gate", [None, "queued", "running", "failed", "canceled"])
def test_an_approval_needs_the_gate_of_the_current_revision_to_have_succeeded(gate: str | None) -> None:
    """`spec.md` 3: `gate_not_passed`."""
    given_ = changeset(S.SUBMITTED, gate=gate)
    error = refused(ErrorCode.GATE_NOT_PASSED, lambda: decide_review(CHANGESET, given_, review_facts(), uid("ann")))
    assert (gate or "missing") in error.message


@pytest.mark.parametrize("gate", [None, "queued", "running", "failed", "canceled"])
@pytest.mark.parametrize("action", ["request_changes", "reject"])
def test_a_no_needs_no_gate(gate: str | None, action: str) -> None:
    """`spec.md` 3: only approve waits for the gate."""
    after = decide_review(CHANGESET, changeset(S.SUBMITTED, gate=gate), review_facts(action), uid("ann")).owned
    assert after.state is {"request_changes": S.CHANGES_REQUESTED, "reject": S.REJECTED}[action]


REVIEWABLE = {
    (state, action): end
    for state in ("submitted", "in_review", "changes_requested", "approved")
    for action, end in (("approve", "approved"), ("request_changes", "changes_requested"), ("reject", "rejected"))
    if (state, action) != ("approved", "approve")
}


@pytest.mark.parametrize(
    ("state", "action"),
    [
        pytest.param(state, action, id=f"{state.value} --{action}--> {REVIEWABLE.get((state.value, action), 'refused')}")
        for state, action in product(S, ("approve", "request_changes", "reject"))
    ],
)
def test_one_review_may_pass_through_in_review_to_its_action(state: ChangesetState, action: str) -> None:
    """`spec.md` 3: one request may pass both."""
    given_ = changeset(state)
    wanted = REVIEWABLE.get((state.value, action))
    if wanted is None:
        refused(ErrorCode.INVALID_TRANSITION, lambda: decide_review(CHANGESET, given_, review_facts(action), uid("ann")))
    else:
        assert decide_review(CHANGESET, given_, review_facts(action), uid("ann")).owned.state.value == wanted


REVIEWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "eve", "author"]), st.sampled_from(["approve", "approve", "request_changes", "resubmit"])
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=150)
@given(REVIEWS, st.integers(1, 3))
def test_votes_add_up_as_a_plain_tally_says(steps: list[tuple[str, str]], required: int) -> None:
    """`spec.md` 3: one vote per reviewer and revision, a request for changes voids all, the author's is refused."""
    given_ = changeset(S.SUBMITTED)
    approvers: set[str] = set()
    for index, (who, action) in enumerate(steps):
        reviewer = AUTHOR if who == "author" else uid(who)
        if action == "resubmit":
            if given_.state is S.APPROVED:
                continue
            given_ = decide_submit(CHANGESET, given_, submit_facts(f"head {index}"), AUTHOR, again=True).owned
            passed = Verdict(job_id=uid("next gate"), state=JobState.SUCCEEDED, reason_code=ReasonCode.OK)
            judged = decide_gate_verdict(CHANGESET, given_, passed)
            assert judged is not None
            given_ = judged.owned
            approvers.clear()
        elif who == "author":
            refused(ErrorCode.FORBIDDEN, lambda g=given_, a=action: decide_review(CHANGESET, g, review_facts(a), AUTHOR))
        elif given_.state is S.APPROVED and action == "approve":
            continue
        else:
            facts = review_facts(action, required, f"review {index}")
            given_ = decide_review(CHANGESET, given_, facts, reviewer).owned
            approvers = approvers | {who} if action == "approve" else set()
            wanted = {True: S.APPROVED, False: S.IN_REVIEW}[len(approvers) >= required]
            assert given_.state is (wanted if action == "approve" else S.CHANGES_REQUESTED)
        current = [item for item in given_.votes if item.revision_number == given_.current_revision and not item.void]
        assert given_.approval_count == len(approvers)
        assert len({item.reviewer_user_id for item in current}) == len(current)
        assert AUTHOR not in [item.reviewer_user_id for item in given_.votes]


@pytest.mark.parametrize("action", ["approve", "request_changes", "reject"])
def test_a_word_on_an_earlier_revision_is_not_one_on_this_one(action: str) -> None:
    """`spec.md` 3: a vote is on what its reviewer saw."""
    given_ = changeset(S.IN_REVIEW, revisions=[revision(1), revision(2)])
    facts = review_facts(action).model_copy(update={"revision_number": 1})
    error = refused(ErrorCode.CONFLICT, lambda: decide_review(CHANGESET, given_, facts, uid("ann")))
    assert "Revision 2 came after revision 1" in error.message
    current = facts.model_copy(update={"revision_number": 2})
    assert decide_review(CHANGESET, given_, current, uid("ann")).owned.votes[0].revision_number == 2


# -- gate --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(ReasonCode), ids=lambda reason: reason.value)
def test_a_verdict_of_the_current_gate_is_recorded_and_ends_its_job(reason: ReasonCode) -> None:
    """`spec.md` 9."""
    verdict = Verdict(job_id=uid("gate 1"), state=JobState.FAILED, reason_code=reason, exit_code=3)
    decision = decide_gate_verdict(CHANGESET, changeset(gate="queued"), verdict)
    assert decision is not None
    assert decision.owned.gate is not None
    assert (decision.owned.gate.state, decision.owned.gate.reason_code) == (JobState.FAILED, reason)
    assert [(end.id, end.exit_code) for end in decision.job_ends] == [(uid("gate 1"), 3)]


@pytest.mark.parametrize(("gate", "job"), [("queued", "gate 0"), ("succeeded", "gate 1"), ("failed", "gate 1"), (None, "gate 1")])
def test_a_verdict_that_nobody_waits_for_is_dropped(gate: str | None, job: str) -> None:
    """`durability.md` 17."""
    verdict = Verdict(job_id=uid(job), state=JobState.SUCCEEDED, reason_code=ReasonCode.OK)
    assert decide_gate_verdict(CHANGESET, changeset(gate=gate), verdict) is None


# -- queue and the ways out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_only_what_is_approved_and_up_to_date_enters_the_queue(state: ChangesetState) -> None:
    """`spec.md` 3, `queue_gate: up_to_date`; the state is judged before that."""
    current = QueueFacts(integration_sha=MAIN, up_to_date=True, at=AT)
    behind = QueueFacts(integration_sha=MAIN, up_to_date=False, at=AT)
    given_ = changeset(state)
    if state is S.APPROVED:
        decide_queue(given_, current)
        error = refused(ErrorCode.OUT_OF_DATE, lambda: decide_queue(given_, behind))
        assert "return to draft and submit again" in error.message
    else:
        refused(ErrorCode.INVALID_TRANSITION, lambda: decide_queue(given_, current))
        refused(ErrorCode.INVALID_TRANSITION, lambda: decide_queue(given_, behind))


CONFLICT = [{"path": "a.json"}, {"path": "b.json"}]


def test_what_enters_by_a_clean_merge_need_not_be_up_to_date_and_must_merge() -> None:
    """`spec.md` 3, `queue_gate: clean_merge`; a hotpatch enters so in every app."""
    clean = QueueFacts(integration_sha=MAIN, up_to_date=False, at=AT, gate="clean_merge", head_sha=HEAD)
    decide_queue(changeset(S.APPROVED), clean)
    error = refused(
        ErrorCode.CONFLICT, lambda: decide_queue(changeset(S.APPROVED), clean.model_copy(update={"conflicts": CONFLICT}))
    )
    assert "a.json, b.json" in error.message and error.details["conflicts"] == CONFLICT
    refused(ErrorCode.INVALID_TRANSITION, lambda: decide_queue(changeset(S.IN_REVIEW), clean))


def test_facts_about_another_head_let_nothing_into_the_queue() -> None:
    """`durability.md` 1: the handler compares what the service has looked at."""
    other = QueueFacts(integration_sha=MAIN, up_to_date=True, at=AT, head_sha=sha("another head"))
    refused(ErrorCode.CONFLICT, lambda: decide_queue(changeset(S.APPROVED), other))


def test_what_is_queued_says_since_when_and_forgets_its_intent() -> None:
    """`durability.md` 14: the intent ends with the command."""
    intent = Intent(command_id="c", move=Move.QUEUE, actor={})
    after = decide_queued(CHANGESET, changeset(S.APPROVED, intent=intent), AT).owned
    assert (after.state, after.queued_at, after.intent) == (S.QUEUED, AT, None)


def test_back_to_draft_voids_votes_and_forgets_gate_place_and_conflicts() -> None:
    """`spec.md` 3."""
    given_ = changeset(S.CONFLICTED, votes=[vote("ann")], queued_at=AT, conflicts=[{"path": "a"}], last_revalidation_status="x")
    after = decide_move_to_draft(CHANGESET, given_).owned
    assert (after.state, after.gate, after.queued_at, after.conflicts, after.approval_count) == (S.DRAFT, None, None, [], 0)
    assert after.last_revalidation_status is None
    assert after.current_revision == 1


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_only_what_the_queue_lists_must_leave_it_first(state: ChangesetState) -> None:
    """`spec.md` 10: the list shows `queued` and `needs_revalidation`; `conflicted` has left."""
    assert needs_the_queue(changeset(state)) is (state.value in ("queued", "needs_revalidation"))


NEWS_MOVES = {
    ("queued", "released"): "released",
    ("queued", "conflicted"): "conflicted",
    ("queued", "needs_revalidation"): "needs_revalidation",
    ("needs_revalidation", "conflicted"): "conflicted",
    ("needs_revalidation", "revalidated"): "queued",
    # After the refs of its release moved there is only forward (`spec.md` 11).
    ("needs_revalidation", "released"): "released",
    ("conflicted", "released"): "released",
}


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        pytest.param(state, kind, id=f"{state.value} hears {kind}: {NEWS_MOVES.get((state.value, kind), 'dropped')}")
        for state, kind in product(S, ("released", "conflicted", "needs_revalidation", "revalidated"))
    ],
)
def test_news_moves_what_it_judged_and_is_dropped_elsewhere(state: ChangesetState, kind: Any) -> None:
    """`spec.md` 10 and `durability.md` 17."""
    news = QueueNews(kind=kind, head_sha=HEAD, job_id=uid("job"), release_id=uid("release"), conflicts=[{"path": "a.json"}])
    given_ = changeset(state) if state is not S.DRAFT else changeset(state, head_sha=HEAD)
    decision = decide_news(CHANGESET, given_, news)
    wanted = NEWS_MOVES.get((state.value, kind))
    if wanted is None:
        assert decision is None
        return
    assert decision is not None
    assert decision.owned.state.value == wanted
    assert [event.action for event in decision.events] == [kind]
    other = given_.model_copy(update={"head_sha": sha("a newer head")})
    assert decide_news(CHANGESET, other, news) is None


def test_a_conflict_is_told_with_its_paths_and_a_release_with_its_id() -> None:
    """`spec.md` 10: `conflicted` with the paths."""
    news = QueueNews(kind="conflicted", head_sha=HEAD, job_id=uid("job"), conflicts=[{"path": "a.json"}, {"path": "b.json"}])
    decision = decide_news(CHANGESET, changeset(S.QUEUED), news)
    assert decision is not None
    assert decision.owned.conflicts == news.conflicts
    assert (decision.owned.last_revalidation_status, decision.owned.last_revalidation_job_id) == ("conflicted", uid("job"))
    assert (decision.events[0].after or {})["paths"] == ["a.json", "b.json"]
    released = decide_news(CHANGESET, decision.owned, QueueNews(kind="released", head_sha=HEAD, release_id=uid("release")))
    assert released is not None
    assert (released.owned.release_id, released.owned.conflicts) == (uid("release"), [])


# -- what it waits for -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_what_has_not_ended_waits_for_something_and_what_has_ended_for_nothing(state: ChangesetState) -> None:
    """`api.md` 4, `waiting_for`."""
    assert (waiting_for(changeset(state)) is None) is (state in rules.TERMINAL)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (changeset(gate="queued"), "gate of revision 1"),
        (changeset(gate="failed"), "to be run again"),
        (changeset(required_approvals=1), "1 more approval"),
        (changeset(required_approvals=3), "3 more approvals"),
        (changeset(S.APPROVED, intent=Intent(command_id="c", move=Move.QUEUE, actor={})), "the queue to answer"),
    ],
    ids=["gate runs", "gate failed", "one approval", "three approvals", "intent"],
)
def test_what_is_waited_for_is_said_in_words(given_: Changeset, words: str) -> None:
    """`api.md` 4, `waiting_for`."""
    assert words in (waiting_for(given_) or "")
