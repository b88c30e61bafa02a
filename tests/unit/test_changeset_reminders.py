"""Who is asked to review, and when reviewers are told again (`api.md` 3, request-review; `spec.md` 3, reminders)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rule_samples import AT, AUTHOR, CHANGESET, changeset, refused, revision, submit_facts, uid, vote

from conman.domain.changeset import Changeset, ChangesetState
from conman.domain.changeset_reminders import MOST_REMINDERS, awaits_review, decide_reminder, due_at
from conman.domain.changeset_review import decide_request_review
from conman.domain.changeset_submit import decide_submit
from conman.domain.errors import ErrorCode
from conman.domain.notification import NoticeKind
from conman.domain.times import later

S = ChangesetState
REVIEWABLE = (S.SUBMITTED, S.IN_REVIEW, S.CHANGES_REQUESTED)


def hours(number: float) -> str:
    """So many hours after the submit."""
    return later(AT, timedelta(hours=number))


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_a_review_is_asked_for_only_where_one_can_be_given(state: ChangesetState) -> None:
    given = changeset(state)
    if state not in REVIEWABLE:
        refused(ErrorCode.INVALID_TRANSITION, lambda: decide_request_review(CHANGESET, given, uid("ann"), AUTHOR, AT))
        return
    decision = decide_request_review(CHANGESET, given, uid("ann"), AUTHOR, AT)
    (event,), (notice,) = decision.events, decision.notices
    assert (event.action, event.after) == ("review_requested", {"reviewer_user_id": uid("ann"), "revision_number": 1})
    assert (notice.kind, notice.user_ids) == (NoticeKind.REVIEW_REQUESTED, (uid("ann"),))
    assert decision.owned.state is state


def test_asking_the_same_reviewer_again_changes_nothing_until_the_next_revision() -> None:
    asked = decide_request_review(CHANGESET, changeset(), uid("ann"), AUTHOR, AT).owned
    again = decide_request_review(CHANGESET, asked, uid("ann"), AUTHOR, AT)
    assert (again.owned is asked, again.events, again.notices) == (True, (), ())
    assert decide_request_review(CHANGESET, asked, uid("bob"), AUTHOR, AT).notices
    renewed = decide_submit(CHANGESET, asked, submit_facts(), AUTHOR, again=True).owned
    assert decide_request_review(CHANGESET, renewed, uid("ann"), AUTHOR, AT).notices


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_the_author_is_never_asked_whatever_the_state(state: ChangesetState) -> None:
    """`api.md` 1: the body is judged before the state."""
    refused(ErrorCode.VALIDATION_ERROR, lambda: decide_request_review(CHANGESET, changeset(state), AUTHOR, AUTHOR, AT))


@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_reviewers_are_told_again_only_while_it_is_their_turn(state: ChangesetState) -> None:
    told = decide_reminder(CHANGESET, changeset(state), 48, hours(48)) is not None
    assert told is (state in (S.SUBMITTED, S.IN_REVIEW))


@pytest.mark.parametrize("gate", [None, "queued", "running", "failed", "canceled"])
def test_nobody_is_told_again_of_what_can_not_be_approved_yet(gate: str | None) -> None:
    assert not awaits_review(changeset(gate=gate))
    assert decide_reminder(CHANGESET, changeset(gate=gate), 48, hours(480)) is None


@pytest.mark.parametrize(("after", "told"), [(47.999, False), (48, True), (49, True)])
def test_they_are_told_again_after_the_hours_of_the_setting(after: float, told: bool) -> None:
    decision = decide_reminder(CHANGESET, changeset(), 48, hours(after))
    assert (decision is not None) is told
    if decision is not None:
        assert (decision.owned.reminders, decision.owned.reminded_at, decision.events) == (1, hours(after), ())
        (notice,) = decision.notices
        assert (notice.kind, notice.data["author_user_id"]) == (NoticeKind.REVIEW_REMINDER, AUTHOR)


def test_zero_hours_mean_never() -> None:
    assert decide_reminder(CHANGESET, changeset(), 0, hours(100_000)) is None


def test_a_review_of_this_revision_starts_the_hours_again() -> None:
    late = vote("ann").model_copy(update={"at": hours(10)})
    assert due_at(changeset(S.IN_REVIEW, votes=[late]), 48) == hours(58)
    assert due_at(changeset(votes=[late], revisions=[revision(1), revision(2)]), 48) == hours(48)


def test_they_are_told_at_most_three_times_of_one_revision() -> None:
    given: Changeset = changeset()
    for number in range(1, MOST_REMINDERS + 1):
        assert decide_reminder(CHANGESET, given, 48, hours(48 * number - 1)) is None
        decision = decide_reminder(CHANGESET, given, 48, hours(48 * number))
        assert decision is not None
        given = decision.owned
    assert MOST_REMINDERS == 3
    assert decide_reminder(CHANGESET, given, 48, hours(4800)) is None
    renewed = decide_submit(CHANGESET, given, submit_facts(), AUTHOR, again=True).owned
    assert (renewed.reminders, renewed.reminded_at) == (0, None)
