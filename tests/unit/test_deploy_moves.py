"""What a pending deployment learns, and the steps of a running one (`spec.md` 12)."""

from __future__ import annotations

from typing import Any

import pytest
from rule_samples import AT, deployment, refused, uid

from conman.domain import deploy_moves as moves
from conman.domain.deploy_messages import Blocker, DriftReply, LockReply, StartReply
from conman.domain.deployment import Approval, DeploymentState, Kind, Phase, Revalidation, waits_for_drift_only
from conman.domain.drift import DriftItem
from conman.domain.errors import ErrorCode
from conman.domain.jobs import JobType

ID = uid("deployment")
TOUCHED = DriftItem(kind="env_var", key="LIMIT", expected="5", observed="50")
EDITED = DriftItem(kind="emergency_edit", expected=1, observed=2)


def vote(name: str, digest: str | None = None) -> Approval:
    return Approval(user_id=uid(name), at=AT, digest=digest)


def judged(**fields: Any) -> StartReply:
    base = {"published_sha": "0" * 40, "tag": "r1", "profile_id": uid("profile"), "profile_revision_id": uid("revision")}
    return StartReply.model_validate(base | fields)


def seen(*items: DriftItem, **fields: Any) -> DriftReply:
    return DriftReply(report=list(items), checked_at=AT, **fields)


# -- The lock


def test_the_lock_is_taken_once() -> None:
    assert moves.decide_locked(ID, deployment(fence=7), LockReply(fence=8), AT) is None
    assert moves.decide_locked(ID, deployment(fence=None), LockReply(holder_id=uid("holder")), AT) is None
    taken = moves.decide_locked(ID, deployment(fence=None, obstacle="the lock"), LockReply(fence=8), AT)
    assert taken is not None
    assert (taken.owned.fence, taken.owned.obstacle, taken.notices) == (8, None, ())


def test_what_is_concurrent_when_it_takes_the_lock_is_exceptional_from_then_on() -> None:
    """Its approvals have their whole time from then, and the requester counts as one."""
    reply = LockReply(fence=8, concurrent=True, approval_ttl_hours=2)
    taken = moves.decide_locked(ID, deployment(fence=None), reply, AT)
    assert taken is not None
    owned = taken.owned
    assert (owned.exceptional_reasons, owned.approvals_required) == (["concurrent"], 2)
    assert owned.approvals_expire_at == "2026-03-01T11:30:00.000Z"
    assert [one.user_id for one in owned.approvals] == [uid("manager")]
    assert [notice.kind.value for notice in taken.notices] == ["deployment_waits_for_approval"]


# -- Approvals


def test_what_the_deciders_say_again_changes_nothing() -> None:
    asked = deployment(approvals_required=2, approval_role="reviewer", shown_digest="a", approvals_expire_at=AT)
    reply = judged(approvals_required=2, approval_role="reviewer", shown_digest="a")
    assert moves.decide_judged(ID, asked, reply, AT) is None


def test_ordinary_votes_for_something_else_are_void_and_those_for_the_same_stay() -> None:
    asked = deployment(
        approvals_required=2,
        approval_role="reviewer",
        shown_digest="b",
        approvals=[vote("ann", "a"), vote("bea", "b")],
        approvals_expire_at=AT,
    )
    found = moves.decide_judged(ID, asked, judged(approvals_required=2, approval_role="reviewer", shown_digest="b"), AT)
    assert found is not None
    assert [one.user_id for one in found.owned.approvals] == [uid("bea")]
    assert len(found.notices) == 1


def test_an_exceptional_deployment_keeps_its_votes_when_what_is_shown_changes() -> None:
    """They are not bound to it (`spec.md` 12)."""
    asked = deployment(
        approvals_required=2,
        exceptional_reasons=["skip_stage"],
        shown_digest="a",
        approvals=[vote("ann", "a")],
        approvals_expire_at=AT,
    )
    found = moves.decide_judged(ID, asked, judged(shown_digest="b"), AT)
    assert found is not None
    assert (found.owned.approvals, found.notices) == (asked.approvals, ())


def test_whether_it_is_concurrent_is_not_decided_after_it_took_the_lock() -> None:
    assert moves.decide_judged(ID, deployment(), judged(exceptional_reasons=["concurrent"]), AT) is None


def test_what_only_now_makes_it_exceptional_asks_for_approvals() -> None:
    found = moves.decide_judged(ID, deployment(), judged(exceptional_reasons=["skip_stage"]), AT)
    assert found is not None
    assert (found.owned.exceptional_reasons, found.owned.approvals_required) == (["skip_stage"], 2)


def test_a_freeze_that_was_not_there_at_the_request_is_told_as_overridden_once() -> None:
    """One that was is audited with the request."""
    frozen = judged(exceptional_reasons=["override_freeze"], freeze_windows=["season"], frozen_until=AT)
    found = moves.decide_judged(ID, deployment(override_freeze=True), frozen, AT)
    assert found is not None
    (event,) = found.events
    assert event.action == "freeze_overridden"
    assert event.after is not None
    assert (event.after["windows"], event.after["frozen_until"]) == (["season"], AT)
    again = moves.decide_judged(ID, found.owned, frozen, AT)
    assert again is None or again.events == ()


def test_fewer_approvals_that_are_asked_now_are_enough() -> None:
    asked = deployment(approvals_required=3, approval_role="app_admin", approvals_expire_at=AT)
    found = moves.decide_judged(ID, asked, judged(approvals_required=1, approval_role="reviewer"), AT)
    assert found is not None
    assert (found.owned.approvals_required, found.owned.approval_role, found.notices) == (1, "reviewer", ())


# -- The warning


def test_each_new_warning_is_told_once_and_one_that_is_no_more_is_taken_back() -> None:
    frozen = Blocker(code="environment_frozen", message="Live is frozen.", who="time")
    first = moves.decide_warning(ID, deployment(), [frozen])
    assert first is not None
    assert (first.owned.warning, len(first.notices)) == ("Live is frozen.", 1)
    assert moves.decide_warning(ID, first.owned, [frozen]) is None
    over = moves.decide_warning(ID, first.owned, [])
    assert over is not None
    assert (over.owned.warning, over.notices) == (None, ())


# -- Drift


@pytest.mark.parametrize(
    ("reply", "stands"),
    [
        (seen(), False),
        (seen(TOUCHED), True),
        (seen(EDITED, emergency_revision_id="edit"), True),
        (seen(problem="It hangs."), True),
        (seen(overtaken=True), True),
    ],
    ids=["clean", "touched", "edited", "nobody could look", "overtaken"],
)
def test_what_stands_in_the_way(reply: DriftReply, stands: bool) -> None:
    assert moves.drift_in_the_way(deployment(), reply) is stands


def test_a_cleared_edit_stands_in_no_way_and_a_later_one_does() -> None:
    cleared = deployment(cleared_revision_id="edit")
    assert not moves.drift_in_the_way(cleared, seen(EDITED, emergency_revision_id="edit"))
    assert moves.drift_in_the_way(cleared, seen(EDITED, emergency_revision_id="later"))
    assert moves.drift_in_the_way(cleared, seen(EDITED, TOUCHED, emergency_revision_id="edit"))


def test_overwriting_lets_out_no_emergency_edit_that_nobody_saw() -> None:
    assert moves.drift_in_the_way(deployment(overwrites=True), seen(EDITED, TOUCHED, emergency_revision_id="later"))
    assert not moves.drift_in_the_way(deployment(overwrites=True), seen(TOUCHED))


def test_a_block_is_told_once_for_each_report_and_its_day_is_counted_from_the_first() -> None:
    first = moves.decide_drift(ID, deployment(), seen(TOUCHED), None, AT)
    assert ([event.action for event in first.events], len(first.notices)) == (["blocked_by_drift"], 1)
    assert waits_for_drift_only(first.owned)
    until = first.owned.drift_waits_until
    assert until == "2026-03-02T09:30:00.000Z"
    later = "2026-03-01T12:00:00.000Z"
    again = moves.decide_drift(ID, first.owned, seen(TOUCHED), None, later)
    assert (again.owned is first.owned, again.events) == (True, ())
    other = TOUCHED.model_copy(update={"observed": "51"})
    more = moves.decide_drift(ID, first.owned, seen(other), None, later)
    assert (len(more.events), more.owned.drift_waits_until) == (1, until)


@pytest.mark.parametrize("then", [seen(TOUCHED), seen(problem="It hangs.")], ids=["touched", "nobody could look"])
def test_a_look_that_is_overtaken_counts_for_its_day_and_tells_nothing_until_one_finds_something(then: DriftReply) -> None:
    first = moves.decide_drift(ID, deployment(), seen(overtaken=True), None, AT)
    until = first.owned.drift_waits_until
    assert (first.events, first.notices, until) == ((), (), "2026-03-02T09:30:00.000Z")
    later = "2026-03-01T12:00:00.000Z"
    again = moves.decide_drift(ID, first.owned, seen(overtaken=True), None, later)
    assert again.owned.drift_waits_until == until
    found = moves.decide_drift(ID, again.owned, then, None, later)
    assert ([event.action for event in found.events], len(found.notices)) == (["blocked_by_drift"], 1)
    assert found.owned.drift_waits_until == until


def test_a_look_without_a_revalidation_clears_nothing() -> None:
    found = moves.decide_drift(ID, deployment(), seen(EDITED, emergency_revision_id="edit"), None, AT)
    assert found.owned.cleared_revision_id is None


def test_a_revalidation_that_came_during_a_look_is_answered_by_the_next_one() -> None:
    asked = deployment(phase=Phase.DRIFT, drift_report=[TOUCHED], drift_waits_until=AT, revalidation=Revalidation.OVERWRITE)
    found = moves.decide_drift(ID, asked, seen(TOUCHED), None, AT)
    assert (found.owned.revalidation, found.owned.overwrites) == (Revalidation.OVERWRITE, False)
    answered = moves.decide_drift(ID, found.owned, seen(TOUCHED), Revalidation.OVERWRITE, AT)
    assert (answered.owned.revalidation, answered.owned.overwrites, answered.owned.drift_waits_until) == (None, True, None)


@pytest.mark.parametrize("state", list(DeploymentState), ids=str)
def test_only_a_pending_deployment_that_drift_blocks_is_revalidated(state: DeploymentState) -> None:
    blocked = deployment(state, phase=Phase.DRIFT, drift_waits_until=AT)
    if state is DeploymentState.PENDING:
        decision = moves.decide_revalidate(ID, blocked, overwrite=False)
        assert (decision.owned.revalidation, decision.events[0].action) == (Revalidation.LOOK, "revalidated")
        refused(ErrorCode.CONFLICT, lambda: moves.decide_revalidate(ID, deployment(), overwrite=True))
    else:
        refused(ErrorCode.INVALID_TRANSITION, lambda: moves.decide_revalidate(ID, blocked, overwrite=False))


def test_who_asks_to_look_takes_no_overwriting_back_that_another_has_asked_for() -> None:
    asked = deployment(phase=Phase.DRIFT, drift_waits_until=AT, revalidation=Revalidation.OVERWRITE)
    assert moves.decide_revalidate(ID, asked, overwrite=False).owned.revalidation is Revalidation.OVERWRITE


# -- The release of a rollback


def test_a_release_comes_once() -> None:
    waiting = deployment(release_id=None, kind=Kind.ROLLBACK)
    ready = moves.decide_release_ready(waiting, uid("new")).owned
    assert ready.release_id == uid("new")
    assert moves.decide_release_ready(ready, uid("new")).owned is ready
    refused(ErrorCode.CONFLICT, lambda: moves.decide_release_ready(ready, uid("another")))


# -- Running


@pytest.mark.parametrize(("wait", "comes_after"), [(True, "now"), (False, "then")], ids=["in line", "at once"])
def test_one_that_waited_in_line_comes_after_what_is_there_as_it_starts(wait: bool, comes_after: str) -> None:
    asked = deployment(wait=wait, previous_deployment_id=uid("then"))
    there = {"profile_revision_id": uid("revision"), "previous_deployment_id": uid("now")}
    assert moves.decide_start(ID, asked, gate_job_id=None, **there).owned.previous_deployment_id == uid(comes_after)


def test_a_start_makes_the_job_of_its_gate_and_one_without_a_gate_begins_with_the_switch() -> None:
    gated = moves.decide_start(ID, deployment(), gate_job_id=uid("gate"), profile_revision_id=uid("revision"))
    assert [(job.id, job.job_type) for job in gated.jobs] == [(uid("gate"), JobType.MSUITE_DEPLOY)]
    assert (gated.owned.phase, gated.progress[0].done, gated.progress[0].total) == (Phase.GATE, 0, 4)
    heal = moves.decide_start(ID, deployment(kind=Kind.HEAL), gate_job_id=None, profile_revision_id=uid("revision"))
    assert (heal.jobs, heal.owned.phase, heal.progress[0].total) == ((), Phase.SWITCH, 2)


@pytest.mark.parametrize(
    ("overwrites", "report", "actions"),
    [(True, [TOUCHED], ["drift_overwritten"]), (False, [TOUCHED], []), (True, [EDITED], []), (True, None, [])],
)
def test_what_a_switch_goes_over_is_audited_with_it(overwrites: bool, report: list[DriftItem] | None, actions: list[str]) -> None:
    running = deployment("running", phase=Phase.MIGRATE, overwrites=overwrites, drift_report=report)
    assert [event.action for event in moves.decide_step(ID, running, Phase.SWITCH).events] == actions
    assert moves.decide_step(ID, running, Phase.VERIFY).events == ()
