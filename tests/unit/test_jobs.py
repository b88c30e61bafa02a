"""Jobs keep the tables of `spec.md` 3 and 9."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from conman.domain import jobs
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode

S = JobState
LEGAL = {
    (S.QUEUED, S.RUNNING),
    (S.QUEUED, S.CANCELED),
    (S.RUNNING, S.SUCCEEDED),
    (S.RUNNING, S.FAILED),
    (S.RUNNING, S.CANCELED),
}


@pytest.mark.parametrize(("before", "after"), [pytest.param(a, b, id=f"{a.value} -> {b.value}") for a, b in product(S, S)])
def test_a_job_moves_only_along_the_table(before: JobState, after: JobState) -> None:
    if (before, after) in LEGAL:
        jobs.check_transition(before, after)
        return
    with pytest.raises(DomainError) as refused:
        jobs.check_transition(before, after)
    assert refused.value.code is ErrorCode.INVALID_TRANSITION
    assert before.value in refused.value.message
    assert after.value in refused.value.message
    assert refused.value.details == {"from": before.value, "to": after.value}


def test_every_state_has_a_row_and_the_ends_have_none_after_them() -> None:
    assert set(jobs.TRANSITIONS) == set(S)
    assert {S.SUCCEEDED, S.FAILED, S.CANCELED} == jobs.TERMINAL


@pytest.mark.parametrize(
    ("reason", "state", "again"),
    [
        ("ok", "succeeded", False),
        ("tests_failed", "failed", False),
        ("timeout", "failed", False),
        ("canceled", "canceled", False),
        ("superseded", "canceled", False),
        ("runner_error", "failed", True),
        ("git_error", "failed", True),
        ("infrastructure", "failed", True),
        ("baseline_failing", "failed", False),
    ],
)
def test_a_reason_code_fixes_the_end_state_and_whether_the_job_runs_again(reason: str, state: str, again: bool) -> None:
    code = ReasonCode(reason)
    assert jobs.end_state(code) == state
    assert jobs.runs_again(code, 1, 2) is again


def test_every_reason_code_has_an_outcome_that_ends_the_job() -> None:
    assert set(jobs.OUTCOMES) == set(ReasonCode)
    assert {outcome.state for outcome in jobs.OUTCOMES.values()} == jobs.TERMINAL


@pytest.mark.parametrize(
    ("job_type", "attempts", "timeout"),
    [
        ("msuite_submit", 4, 300),
        ("msuite_merge", 4, 300),
        ("msuite_deploy", 3, 600),
        ("revalidate_queued_changeset", 4, 300),
        ("release_assemble", 3, 600),
        ("deploy_release", 2, 900),
        ("runtime_profile_drift_check", 3, 300),
        ("temp_env_provision", 3, 300),
        ("temp_env_expire", 4, 60),
    ],
)
def test_each_job_type_has_its_attempts_and_its_timeout(job_type: str, attempts: int, timeout: int) -> None:
    assert jobs.max_attempts(JobType(job_type)) == attempts
    assert jobs.timeout_seconds(JobType(job_type)) == timeout


def test_every_job_type_has_defaults() -> None:
    assert set(jobs.DEFAULTS) == set(JobType)


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, True), (4, False), (5, False)])
def test_three_retries_are_four_attempts(attempt: int, again: bool) -> None:
    assert jobs.runs_again(ReasonCode.INFRASTRUCTURE, attempt, 4) is again


def test_a_failed_suite_is_never_run_again_by_itself() -> None:
    assert not any(jobs.runs_again(ReasonCode.TESTS_FAILED, attempt, 4) for attempt in range(1, 5))


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2.0), (2, 4.0), (3, 8.0), (5, 32.0), (6, 60.0), (7, 60.0), (10_000, 60.0)])
def test_the_pause_doubles_up_to_its_cap(attempt: int, seconds: float) -> None:
    assert jobs.backoff_seconds(attempt) == seconds


def test_the_pause_never_shrinks() -> None:
    pauses = [jobs.backoff_seconds(attempt) for attempt in range(1, 40)]
    assert all(first <= second for first, second in pairwise(pauses))


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    with pytest.raises(DomainError):
        jobs.backoff_seconds(attempt)
