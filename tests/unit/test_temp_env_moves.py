"""The lifecycle and the deadlines of a temp env (`spec.md` 3 and 13)."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_samples import AT, refused, sha, uid

from conman.domain import temp_env_moves as moves
from conman.domain.decision import Actor, Decision
from conman.domain.errors import ErrorCode
from conman.domain.jobs import ReasonCode
from conman.domain.outgoing import outgoing_entries
from conman.domain.temp_env import TempEnv, TempEnvKind, TempEnvMove, TempEnvState, expires_at, moved
from conman.domain.temp_env_messages import BranchMade, CleanUpReply, DatabaseMade, ProfileMade
from conman.domain.times import later

S, M = TempEnvState, TempEnvMove
ID = uid("temp env")
H = timedelta(hours=1)
# `spec.md` 3, temp env.
LEGAL = {
    ("provisioning", "provisioned"): "active",
    ("provisioning", "provision_failed"): "failed",
    ("active", "idle"): "expiring",
    ("active", "delete"): "expired",
    ("expiring", "undo_expire"): "active",
    ("expiring", "grace_ended"): "expired",
    ("expiring", "delete"): "expired",
    ("expired", "delete"): "expired",
    ("expired", "cleaned_up"): "deleted",
    ("failed", "delete"): "expired",
    ("failed", "cleaned_up"): "deleted",
}
ALL = list(S)


def temp_env(state: TempEnvState = S.ACTIVE, **fields: Any) -> TempEnv:
    given_: dict[str, Any] = {
        "kind": TempEnvKind.CHANGESET,
        "source_id": uid("changeset"),
        "state": state,
        "created_at": AT,
        "created_by": uid("ann"),
        "base_profile_id": uid("base"),
        "head_sha": sha("head"),
        "label": "app-cs-calm-heron",
        "url": "http://app-cs-calm-heron.localhost",
        "branch": "conman/temp/app-cs-calm-heron",
        "job_id": uid("job"),
        "runtime_profile_id": uid("derived"),
        "active_since": None if state is S.PROVISIONING else AT,
        "grace_until": later(AT, H) if state is S.EXPIRING else None,
    }
    return TempEnv(**{**given_, **fields})


def hours(count: float, at: str = AT) -> str:
    return later(at, timedelta(hours=count))


def written(decision: Decision[TempEnv] | None) -> TempEnv:
    """What is kept by a decision, whose audit events must have the shapes of the audit table."""
    assert decision is not None
    outgoing_entries(decision, app_id=uid("app"), entity=ID, version=1, actor=Actor(), at=AT, workflow_id=None)
    return decision.owned


# -- The table


@pytest.mark.parametrize(("state", "move"), list(product(S, M)), ids=str)
def test_only_the_moves_of_the_specification_are_legal(state: TempEnvState, move: TempEnvMove) -> None:
    wanted = LEGAL.get((state.value, move.value))
    if wanted is not None:
        assert moved(state, move).value == wanted
    else:
        refused(ErrorCode.INVALID_TRANSITION, lambda: moved(state, move))


@pytest.mark.parametrize("state", ALL, ids=str)
def test_its_source_may_have_another_one_as_soon_as_it_lives_no_more(state: TempEnvState) -> None:
    live = state in (S.PROVISIONING, S.ACTIVE, S.EXPIRING)
    assert temp_env(state).live_slot == (f"changeset:{uid('changeset')}" if live else None)


@pytest.mark.parametrize("state", ALL, ids=str)
def test_what_the_process_finds_in_another_state_than_it_expects_changes_nothing(state: TempEnvState) -> None:
    """A command may interleave before each of its decisions."""
    temp, late, job = temp_env(state, expire_job_id=None), hours(1000), uid("expire")
    decided = {
        S.PROVISIONING: moves.decide_provisioned(ID, temp, DatabaseMade(), AT),
        S.ACTIVE: moves.decide_idle(ID, temp, None, late),
        S.EXPIRING: moves.decide_grace_ended(ID, temp, job, late),
    }
    assert {one for one, decision in decided.items() if decision is not None} == {state} & set(decided)
    if state is not S.PROVISIONING:
        assert moves.decide_begin(temp) is None
        assert moves.decide_branch_made(temp, BranchMade(branch="b", head_sha=sha("head"))) is None
        assert moves.decide_profile_made(temp, ProfileMade(runtime_profile_id=uid("p"))) is None
        assert moves.decide_provision_failed(ID, temp, ReasonCode.TIMEOUT, "late", job) is None
    if state is not S.FAILED:
        assert moves.decide_clean_up_begins(temp) is None
        assert moves.decide_cleaned_up(ID, temp, CleanUpReply(database_dropped=True, branch_deleted=True)) is None
        assert moves.decide_clean_up_failed(ID, temp, ReasonCode.TIMEOUT, "late", job) is None


# -- Deadlines

TIMES = st.integers(min_value=0, max_value=10**7).map(lambda seconds: later(AT, timedelta(seconds=seconds)))
TEMPS = st.builds(
    lambda ttl, until, at: temp_env(ttl_idle_hours=ttl, extended_until=until, extended_at=min(until, at) if until else None),
    st.one_of(st.none(), st.integers(1, 500)),
    st.one_of(st.none(), TIMES),
    TIMES,
)


@given(TEMPS, st.one_of(st.none(), TIMES), TIMES)
def test_it_is_warned_once_before_its_deadline_and_expires_at_it_whenever_one_looks(
    temp: TempEnv, used: str | None, at: str
) -> None:
    deadline, warning = expires_at(temp, used), moves.warns_at(temp, used)
    assert deadline is not None
    assert warning is not None
    assert later(deadline, -H) <= warning <= deadline
    idle, warned = moves.decide_idle(ID, temp, used, at), moves.decide_warned(ID, temp, used, at)
    assert (idle is not None) == (at >= deadline)
    assert (warned is not None) == (warning <= at < deadline)
    if warned is not None:
        after = written(warned)
        assert moves.decide_warned(ID, after, used, at) is None
        assert moves.next_look(after, used) == deadline
    elif idle is None:
        assert moves.next_look(temp, used) == warning


@given(TEMPS, TIMES, TIMES)
def test_a_later_use_never_brings_the_deadline_nearer(temp: TempEnv, one: str, other: str) -> None:
    first, second = sorted((one, other))
    assert (expires_at(temp, first) or "") <= (expires_at(temp, second) or "")


@pytest.mark.parametrize(
    ("fields", "warned", "deadline"),
    [
        ({}, 23, 24),
        ({"ttl_idle_hours": 2}, 1, 2),
        ({"ttl_idle_hours": 1}, 0.5, 1),
        ({"extended_until": hours(30), "extended_at": hours(3)}, 29, 30),
        ({"extended_until": hours(24.5), "extended_at": hours(23.5)}, 24, 24.5),
        ({"extended_until": hours(5), "extended_at": hours(3)}, 23, 24),
    ],
    ids=["a day", "two hours", "an hour", "extended", "extended by an hour", "extended by less than it has"],
)
def test_the_warning_comes_an_hour_before_the_deadline_or_half_way_to_one_that_is_near(
    fields: dict[str, Any], warned: float, deadline: float
) -> None:
    temp = temp_env(**fields)
    assert (moves.warns_at(temp, None), expires_at(temp, None)) == (hours(warned), hours(deadline))


def test_what_expires_late_has_its_whole_grace_all_the_same() -> None:
    """As after an outage of days: who comes back may still undo it."""
    assert written(moves.decide_idle(ID, temp_env(), None, hours(100))).grace_until == hours(101)
    assert written(moves.decide_idle(ID, temp_env(grace_hours=0), None, hours(100))).grace_until == hours(100)


# -- Extension


@pytest.mark.parametrize("seconds", [3600, 172_800])
def test_an_extension_counts_from_now(seconds: int) -> None:
    decision = moves.decide_extend(ID, temp_env(), seconds, None, hours(20), source_ended=False)
    after = written(decision)
    assert after.extended_until == later(hours(20), timedelta(seconds=seconds))
    shown = decision.events[0]
    assert (shown.before or {})["expires_at"] == hours(24)
    assert (shown.after or {})["expires_at"] == max(hours(24), after.extended_until or "")


@pytest.mark.parametrize(
    ("state", "seconds", "at", "ended", "code"),
    [
        (S.ACTIVE, 3599, 0, False, ErrorCode.VALIDATION_ERROR),
        (S.ACTIVE, 172_801, 0, False, ErrorCode.VALIDATION_ERROR),
        (S.ACTIVE, 3601, 71, False, ErrorCode.VALIDATION_ERROR),
        (S.ACTIVE, 3600, 0, True, ErrorCode.CONFLICT),
        *[(state, 3600, 0, False, ErrorCode.INVALID_TRANSITION) for state in S if state is not S.ACTIVE],
        (S.EXPIRED, 1, 0, True, ErrorCode.VALIDATION_ERROR),
    ],
)
def test_an_extension_is_refused(state: TempEnvState, seconds: int, at: float, ended: bool, code: ErrorCode) -> None:
    refused(code, lambda: moves.decide_extend(ID, temp_env(state), seconds, None, hours(at), source_ended=ended))


def test_an_extension_may_reach_to_72_hours_after_it_was_made() -> None:
    assert written(moves.decide_extend(ID, temp_env(), 3600, None, hours(71), source_ended=False)).extended_until == hours(72)


# -- Undo


@pytest.mark.parametrize(
    ("state", "at", "code"),
    [
        (S.PROVISIONING, 0, ErrorCode.INVALID_TRANSITION),
        (S.ACTIVE, 0, ErrorCode.INVALID_TRANSITION),
        (S.FAILED, 0, ErrorCode.INVALID_TRANSITION),
        (S.EXPIRING, 1, ErrorCode.GRACE_ENDED),
        (S.EXPIRED, 0, ErrorCode.GRACE_ENDED),
        (S.DELETED, 0, ErrorCode.GRACE_ENDED),
    ],
)
def test_only_the_grace_can_be_undone(state: TempEnvState, at: float, code: ErrorCode) -> None:
    refused(code, lambda: moves.decide_undo(ID, temp_env(state), hours(at)))


@pytest.mark.parametrize(("until", "kept"), [(None, False), (0.5, False), (5, True)])
def test_an_undo_gives_a_fresh_idle_time_and_keeps_what_it_was_extended_to(until: float | None, kept: bool) -> None:
    extended = hours(until) if until is not None else None
    after = written(moves.decide_undo(ID, temp_env(S.EXPIRING, extended_until=extended, warned_for=hours(0)), hours(0.5)))
    assert (after.state, after.grace_until, after.warned_for) == (S.ACTIVE, None, None)
    assert expires_at(after, hours(0.1)) == hours(24.5)
    assert after.extended_until == (extended if kept else None)


# -- Its end


@pytest.mark.parametrize("keeps", [True, False])
def test_what_its_profile_keeps_waits_for_a_delete(keeps: bool) -> None:
    ended = moves.decide_grace_ended(ID, temp_env(S.EXPIRING, auto_cleanup=not keeps), uid("expire"), hours(1))
    after = written(ended)
    assert ended is not None
    assert [job.id for job in ended.jobs] == ([] if keeps else [uid("expire")])
    assert moves.wants_clean_up(after) is not keeps
    deleted = moves.decide_delete(ID, after, uid("delete"), uid("max"))
    assert moves.wants_clean_up(written(deleted))
    assert deleted.result == {"job_id": uid("delete" if keeps else "expire")}
    assert [event.action for event in deleted.events] == (["expired"] if keeps else [])
    again = moves.decide_delete(ID, written(deleted), uid("again"), uid("ann"))
    assert (again.events, again.jobs, again.result) == ((), (), deleted.result)


@pytest.mark.parametrize("state", ALL, ids=str)
def test_a_delete_is_refused_while_it_is_made_and_once_it_is_gone(state: TempEnvState) -> None:
    if state in (S.PROVISIONING, S.DELETED):
        refused(ErrorCode.INVALID_TRANSITION, lambda: moves.decide_delete(ID, temp_env(state), uid("delete"), None))
        return
    after = written(moves.decide_delete(ID, temp_env(state), uid("delete"), uid("max")))
    assert (after.state, after.deleted_by, after.expire_job_id) == (S.EXPIRED, uid("max"), uid("delete"))


@pytest.mark.parametrize("state", ALL, ids=str)
def test_with_its_app_it_is_over_also_when_it_was_kept(state: TempEnvState) -> None:
    decision = moves.decide_over(ID, temp_env(state), moves.Cause.APP_ARCHIVED, uid("expire"))
    assert (decision is not None) == (state in (S.ACTIVE, S.EXPIRING, S.EXPIRED))
    if decision is not None:
        assert moves.wants_clean_up(written(decision))
    assert moves.decide_over(ID, temp_env(S.EXPIRED, expire_job_id=uid("x")), moves.Cause.DELETE, uid("expire")) is None


# -- Clean-up


def test_a_clean_up_rests_longer_each_time_and_people_are_told_once_a_day() -> None:
    temp = temp_env(S.FAILED, active_since=None, expire_job_id=uid("job 0"))
    pauses: list[timedelta] = []
    told: list[int] = []
    for number in range(1, 51):
        failed = moves.decide_clean_up_failed(ID, temp, ReasonCode.INFRASTRUCTURE, "away", uid(f"job {number}"))
        temp = written(failed)
        assert failed is not None
        assert [end.id for end in failed.job_ends] == [uid(f"job {number - 1}")]
        assert [job.id for job in failed.jobs] == [temp.expire_job_id] == [uid(f"job {number}")]
        pauses.append(moves.pause_after(temp.failures))
        told += [number] if failed.notices else []
    assert [pause // timedelta(minutes=1) for pause in pauses[:6]] == [5, 10, 20, 40, 60, 60]
    assert pauses[-1] == H
    assert told == [1, 25, 49]


@pytest.mark.parametrize("state", ALL, ids=str)
def test_it_says_in_words_what_it_waits_for(state: TempEnvState) -> None:
    words = moves.waiting_for(temp_env(state, expire_job_id=uid("expire"), reason_code=ReasonCode.TIMEOUT))
    assert words.endswith(".")
    assert "None" not in words


def test_its_words_name_the_deadline_as_it_is_by_the_last_use() -> None:
    assert "Active until 2026-03-02 12:30 UTC" in moves.waiting_for(temp_env(), hours(3))
