"""Deployments keep the table of `spec.md` 3 and the rules of section 12."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import AT, deployment, refused, uid

from conman.domain import deploy_moves as moves
from conman.domain import deployment as rules
from conman.domain.deploy_ending import Ending, decide_end
from conman.domain.deployment import (
    Approval,
    DeploymentState,
    EnvironmentView,
    Kind,
    Move,
    PastDeployment,
    Phase,
)
from conman.domain.errors import ErrorCode
from conman.domain.jobs import ReasonCode
from conman.domain.release import ReleaseState

S = DeploymentState
DEPLOYMENT = uid("deployment")

# `spec.md` 3: `pending → running → succeeded | failed | canceled`, `pending → failed | canceled`.
LEGAL = {
    ("pending", "start"): "running",
    ("pending", "fail"): "failed",
    ("pending", "cancel"): "canceled",
    ("running", "succeed"): "succeeded",
    ("running", "fail"): "failed",
    ("running", "cancel"): "canceled",
}
WALK = [
    pytest.param(state, move, id=f"{state.value} --{move.value}--> {LEGAL.get((state.value, move.value), 'refused')}")
    for state, move in product(S, Move)
]


@pytest.mark.parametrize(("state", "move"), WALK)
def test_a_deployment_moves_only_along_the_table(state: DeploymentState, move: Move) -> None:
    """`spec.md` 3: an illegal move is `invalid_transition`, naming both states."""
    wanted = LEGAL.get((state.value, move.value))
    if wanted is not None:
        assert rules.target(state, move).value == wanted
        return
    error = refused(ErrorCode.INVALID_TRANSITION, lambda: rules.target(state, move))
    (end,) = {to for (_, by), to in LEGAL.items() if by == move.value}
    assert state.value in error.message
    assert end in error.message
    assert error.details == {"from": state.value, "to": end, "command": move.value}


def test_the_walk_knows_every_row_of_the_table() -> None:
    """`spec.md` 3: the copy here and the table have the same rows."""
    assert {(state.value, move.value): to.value for (state, move), to in rules.TRANSITIONS.items()} == LEGAL
    assert {state.value for state in rules.TERMINAL} == {"succeeded", "failed", "canceled"}


def test_the_phases_are_those_of_the_contract_in_their_order() -> None:
    """`api.md` 4 and `spec.md` 12, order."""
    order = ["lock", "schedule", "approvals", "drift", "gate", "migrate", "switch", "verify", "done"]
    assert [phase.value for phase in Phase] == order


@pytest.mark.parametrize("state", list(ReleaseState), ids=lambda state: state.value)
def test_only_a_published_release_is_deployed(state: ReleaseState) -> None:
    """`spec.md` 12, and 3: what is rolled back is not deployable."""
    if state.value in ("published", "deployed_partial", "deployed_full"):
        assert rules.not_deployable(state) is None
    else:
        error = rules.not_deployable(state)
        assert error is not None
        assert error.code is ErrorCode.INVALID_TRANSITION
        assert state.value in error.message


# -- stage order -------------------------------------------------------------------------------------------------------------

STAGES = [EnvironmentView(id=name, name=name.upper(), position=index) for index, name in enumerate(["dev", "qa", "prod"])]


def past(*rows: tuple[str, str, str]) -> list[PastDeployment]:
    """Earlier deployments, newest first: environment, release, state."""
    return [PastDeployment(environment_id=where, release_id=what, state=S(state)) for where, what, state in rows]


def in_order(where: str, before: list[PastDeployment], stages: list[EnvironmentView] = STAGES) -> bool:
    target = next(stage for stage in stages if stage.id == where)
    answers = [rules.passes_stage_order("r", target, stages, before, promote=promote) for promote in (False, True)]
    assert answers[0] is answers[1]
    return answers[0]


def test_the_first_environment_is_free() -> None:
    """`spec.md` 12, stage order."""
    assert in_order("dev", [])


@pytest.mark.parametrize(
    ("before", "passes"),
    [
        (past(), False),
        (past(("dev", "r", "succeeded")), True),
        (past(("dev", "other", "succeeded")), False),
        (past(("dev", "r", "failed")), False),
        (past(("dev", "r", "failed"), ("dev", "r", "succeeded")), False),
        (past(("dev", "r", "canceled"), ("dev", "r", "succeeded")), False),
        (past(("dev", "r", "running"), ("dev", "r", "succeeded")), False),
        (past(("dev", "r", "pending"), ("dev", "r", "succeeded")), False),
        (past(("dev", "r", "succeeded"), ("dev", "r", "failed")), True),
        (past(("dev", "other", "succeeded"), ("dev", "r", "succeeded")), True),
        (past(("prod", "r", "succeeded")), False),
        (past(("qa", "r", "succeeded")), True),
        (past(("qa", "r", "failed"), ("qa", "r", "succeeded"), ("dev", "r", "failed")), True),
        (past(("qa", "r", "failed")), False),
    ],
)
def test_the_next_environment_needs_the_last_success_just_before_or_one_in_itself(
    before: list[PastDeployment], passes: bool
) -> None:
    """`spec.md` 12, stage order: this release's *last* deployment there, whatever else was deployed since."""
    assert in_order("qa", before) is passes


def test_a_success_two_stages_before_is_not_enough() -> None:
    """`spec.md` 12: the environment just before."""
    assert not in_order("prod", past(("dev", "r", "succeeded")))


def test_the_order_is_by_position_not_by_the_list() -> None:
    """`spec.md` 6: the list's order is the stage order, kept as positions; gaps do not matter."""
    stages = [EnvironmentView(id=name, name=name, position=at) for name, at in (("prod", 9), ("dev", 2), ("qa", 5))]
    assert in_order("dev", [], stages)
    assert in_order("prod", past(("qa", "r", "succeeded")), stages)
    assert not in_order("prod", past(("dev", "r", "succeeded")), stages)


ROWS = st.lists(
    st.tuples(st.sampled_from(["dev", "qa", "prod"]), st.sampled_from(["r", "other"]), st.sampled_from([s.value for s in S])),
    max_size=7,
)


@settings(deadline=None, max_examples=200)
@given(ROWS, st.sampled_from(["dev", "qa", "prod"]), st.permutations(STAGES))
def test_stage_order_agrees_with_a_reading_of_its_sentence(
    oldest_first: list[tuple[str, str, str]], where: str, stages: list[EnvironmentView]
) -> None:
    """`spec.md` 12, stage order: told forward in time, once per environment."""
    last: dict[str, str] = {}
    ever: set[str] = set()
    for environment, what, state in oldest_first:
        if what == "r":
            last[environment] = state
            ever |= {environment} if state == "succeeded" else set()
    just_before = {"dev": None, "qa": "dev", "prod": "qa"}[where]
    wanted = just_before is None or where in ever or last.get(just_before) == "succeeded"
    assert in_order(where, past(*reversed(oldest_first)), stages) is wanted


@pytest.mark.parametrize(("where", "first"), [("qa", "DEV"), ("prod", "QA")])
def test_the_refusal_names_the_environment_to_deploy_to_first_and_the_way_past_it(where: str, first: str) -> None:
    """`spec.md` 12: 409 `stage_skipped` unless `skip_stage: true`."""
    error = rules.stage_skipped(next(stage for stage in STAGES if stage.id == where), STAGES[::-1])
    assert error.code is ErrorCode.STAGE_SKIPPED
    assert first in error.message
    assert "skip_stage: true" in error.message
    assert error.details["environment"] == first


def test_the_refusal_of_a_locked_environment_names_the_holder() -> None:
    """`spec.md` 12 and `api.md` 1: `details: {deployment_id}`."""
    error = rules.environment_locked(uid("holder"))
    assert (error.code, error.details) == (ErrorCode.ENVIRONMENT_LOCKED, {"deployment_id": uid("holder")})


# -- approvals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reasons", [(), ("skip_stage",), ("concurrent",), ("skip_stage", "concurrent", "override_freeze")])
def test_an_exceptional_deployment_needs_two_approvals_whatever_the_number_of_reasons(reasons: tuple[str, ...]) -> None:
    """`spec.md` 12, exceptional."""
    assert rules.approvals_needed(reasons) == (2 if reasons else 0)


@pytest.mark.parametrize(
    ("hours", "deadline"), [(1, "2026-03-01T10:30:00.000Z"), (24, "2026-03-02T09:30:00.000Z"), (8760, "2027-03-01T09:30:00.000Z")]
)
def test_approvals_expire_a_number_of_hours_after_the_request(hours: int, deadline: str) -> None:
    """`spec.md` 12, `approval_ttl_hours`."""
    assert rules.approvals_deadline(AT, hours) == deadline


def test_approvals_are_by_distinct_users_and_a_repeat_changes_nothing() -> None:
    """`spec.md` 12: the requester counts as one, given with the request."""
    asked = deployment(approvals_required=2, approvals=[Approval(user_id=uid("manager"), at=AT)])
    assert rules.decide_approve(DEPLOYMENT, asked, uid("manager"), AT).owned is asked
    decision = rules.decide_approve(DEPLOYMENT, asked, uid("reviewer"), AT)
    assert [item.user_id for item in decision.owned.approvals] == [uid("manager"), uid("reviewer")]
    assert [event.action for event in decision.events] == ["approved"]


def test_what_needs_no_approval_takes_none() -> None:
    """`api.md` 3: 409 `conflict`."""
    refused(ErrorCode.CONFLICT, lambda: rules.decide_approve(DEPLOYMENT, deployment(), uid("reviewer"), AT))


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "canceled"])
def test_only_what_is_pending_takes_approvals(state: str) -> None:
    """`spec.md` 3: `pending` covers approvals."""
    given_ = deployment(state, approvals_required=2)
    refused(ErrorCode.INVALID_TRANSITION, lambda: rules.decide_approve(DEPLOYMENT, given_, uid("reviewer"), AT))


# -- start and end -----------------------------------------------------------------------------------------------------------


def test_running_starts_with_the_gate_and_starts_its_job() -> None:
    """`spec.md` 3 and 9: the job is `queued` while the deployment is `pending`."""
    decision = moves.decide_start(DEPLOYMENT, deployment(), gate_job_id=uid("gate"), profile_revision_id=uid("revision"))
    assert (decision.owned.state, decision.owned.phase) == (S.RUNNING, Phase.GATE)
    assert (decision.owned.gate_job_id, decision.owned.profile_revision_id) == (uid("gate"), uid("revision"))
    assert decision.job_starts == (uid("deploy job"),)


ENDS = {
    ("pending", "fail"): "failed",
    ("pending", "cancel"): "canceled",
    ("running", "succeed"): "succeeded",
    ("running", "fail"): "failed",
    ("running", "cancel"): "canceled",
}


@pytest.mark.parametrize(
    ("state", "move"),
    [
        pytest.param(state.value, move, id=f"{state.value} --{move.value}--> {ENDS.get((state.value, move.value), 'refused')}")
        for state, move in product(S, (Move.SUCCEED, Move.FAIL, Move.CANCEL))
    ],
)
def test_the_end_of_a_deployment_is_the_end_of_its_job(state: str, move: Move) -> None:
    """`spec.md` 12: the job that the request returned ends with the record."""
    reason = {Move.SUCCEED: ReasonCode.OK, Move.FAIL: ReasonCode.TIMEOUT, Move.CANCEL: ReasonCode.CANCELED}[move]
    given_ = deployment(state, phase=Phase.VERIFY)
    ending = Ending(move=move, reason_code=reason, message="why", folder="f")
    wanted = ENDS.get((state, move.value))
    if wanted is None:
        refused(ErrorCode.INVALID_TRANSITION, lambda: decide_end(DEPLOYMENT, given_, ending))
        return
    decision = decide_end(DEPLOYMENT, given_, ending)
    after = decision.owned
    assert (after.state.value, after.reason_code, after.message, after.folder) == (wanted, reason, "why", "f")
    assert after.phase is (Phase.DONE if wanted == "succeeded" else Phase.VERIFY)
    assert [(end.id, end.state.value, end.reason_code) for end in decision.job_ends] == [(uid("deploy job"), wanted, reason)]
    assert [event.action for event in decision.events] == [wanted]


@pytest.mark.parametrize(
    ("kind", "ending", "actions"),
    [
        (Kind.DEPLOY, Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK), ["succeeded"]),
        (Kind.PROMOTE, Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK), ["succeeded", "promoted"]),
        (Kind.PROMOTE, Ending(move=Move.FAIL, reason_code=ReasonCode.TIMEOUT), ["failed"]),
        (
            Kind.DEPLOY,
            Ending(move=Move.CANCEL, reason_code=ReasonCode.CANCELED, approval_expired=True),
            ["approval_expired", "canceled"],
        ),
    ],
    ids=["deployed", "promoted", "failed promotion", "approvals expired"],
)
def test_the_audit_says_how_it_ended(kind: Kind, ending: Ending, actions: list[str]) -> None:
    """`api.md` 5, deployment."""
    decision = decide_end(DEPLOYMENT, deployment("running", kind=kind), ending)
    assert [event.action for event in decision.events] == actions


@pytest.mark.parametrize(
    ("approvals", "words"),
    [(0, "2 more approvals until"), (1, "1 more approval until"), (2, "approvals of people who still may")],
)
@pytest.mark.parametrize("phase", [Phase.APPROVALS, Phase.SCHEDULE], ids=str)
def test_missing_approvals_are_said_with_their_deadline_whatever_else_it_waits_for(
    phase: Phase, approvals: int, words: str
) -> None:
    """`api.md` 4, `waiting_for`; `spec.md` 12: they are collected from the request on."""
    given_ = [Approval(user_id=uid(str(number)), at=AT) for number in range(approvals)]
    said = rules.waiting_for(deployment(phase=phase, approvals_required=2, approvals=given_, approvals_expire_at=AT)) or ""
    expected = approvals < 2 or phase is Phase.APPROVALS
    assert (words in said, AT in said) == (expected, expected)


@pytest.mark.parametrize(("state", "phase"), list(product(S, Phase)), ids=lambda item: item.value)
def test_what_has_not_ended_waits_for_something_and_what_has_ended_for_nothing(state: Any, phase: Phase) -> None:
    """`api.md` 4, `waiting_for`."""
    assert (rules.waiting_for(deployment(state, phase=phase)) is None) is (state in rules.TERMINAL)
