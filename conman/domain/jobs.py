"""Jobs: their types, states, verdicts, attempts and deadlines (`spec.md` 3 and 9)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from conman.domain.errors import DomainError, ErrorCode, invalid


class JobType(StrEnum):
    """What a job does (`spec.md` 9)."""

    MSUITE_SUBMIT = "msuite_submit"
    MSUITE_MERGE = "msuite_merge"
    MSUITE_DEPLOY = "msuite_deploy"
    REVALIDATE_QUEUED_CHANGESET = "revalidate_queued_changeset"
    RELEASE_ASSEMBLE = "release_assemble"
    DEPLOY_RELEASE = "deploy_release"
    RUNTIME_PROFILE_DRIFT_CHECK = "runtime_profile_drift_check"
    TEMP_ENV_PROVISION = "temp_env_provision"
    TEMP_ENV_EXPIRE = "temp_env_expire"


class JobState(StrEnum):
    """The states of a job (`spec.md` 3)."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class ReasonCode(StrEnum):
    """Why a job ended as it did (`spec.md` 9).

    - `canceled` / `superseded`: somebody asked for the end → canceled; something newer made the job
      pointless → superseded.
    - `runner_error` / `infrastructure`: the command can't be started → runner_error; it can, and the
      machine under it gave way → infrastructure.
    - `tests_failed` / `baseline_failing`: the change broke it → tests_failed; it is broken without the
      change → baseline_failing.
    """

    OK = "ok"
    TESTS_FAILED = "tests_failed"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    SUPERSEDED = "superseded"
    RUNNER_ERROR = "runner_error"
    GIT_ERROR = "git_error"
    INFRASTRUCTURE = "infrastructure"
    BASELINE_FAILING = "baseline_failing"


TRANSITIONS: dict[JobState, tuple[JobState, ...]] = {
    JobState.QUEUED: (JobState.RUNNING, JobState.CANCELED),
    JobState.RUNNING: (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED),
    JobState.SUCCEEDED: (),
    JobState.FAILED: (),
    JobState.CANCELED: (),
}
"""The one table of legal moves (`spec.md` 3); what is not in it is refused. A state never moves to itself."""

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
"""The states that a job never leaves."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reason code means: the state that the job ends in, and whether it is run again by itself."""

    state: JobState
    runs_again: bool = False


OUTCOMES: dict[ReasonCode, Outcome] = {
    ReasonCode.OK: Outcome(JobState.SUCCEEDED),
    ReasonCode.TESTS_FAILED: Outcome(JobState.FAILED),
    ReasonCode.TIMEOUT: Outcome(JobState.FAILED),
    ReasonCode.CANCELED: Outcome(JobState.CANCELED),
    ReasonCode.SUPERSEDED: Outcome(JobState.CANCELED),
    ReasonCode.RUNNER_ERROR: Outcome(JobState.FAILED, runs_again=True),
    ReasonCode.GIT_ERROR: Outcome(JobState.FAILED, runs_again=True),
    ReasonCode.INFRASTRUCTURE: Outcome(JobState.FAILED, runs_again=True),
    ReasonCode.BASELINE_FAILING: Outcome(JobState.FAILED),
}
"""The table of `spec.md` 9: reason → state, and whether the job is run again by itself."""


@dataclass(frozen=True, slots=True)
class JobDefaults:
    """How often a type of job is run again by itself, and how long one suite (or its own work) may take."""

    retries: int
    timeout_seconds: int


DEFAULTS: dict[JobType, JobDefaults] = {
    JobType.MSUITE_SUBMIT: JobDefaults(retries=3, timeout_seconds=300),
    JobType.MSUITE_MERGE: JobDefaults(retries=3, timeout_seconds=300),
    JobType.MSUITE_DEPLOY: JobDefaults(retries=2, timeout_seconds=600),
    JobType.REVALIDATE_QUEUED_CHANGESET: JobDefaults(retries=3, timeout_seconds=300),
    JobType.RUNTIME_PROFILE_DRIFT_CHECK: JobDefaults(retries=2, timeout_seconds=300),
    JobType.RELEASE_ASSEMBLE: JobDefaults(retries=2, timeout_seconds=600),
    JobType.DEPLOY_RELEASE: JobDefaults(retries=1, timeout_seconds=900),
    JobType.TEMP_ENV_PROVISION: JobDefaults(retries=2, timeout_seconds=300),
    JobType.TEMP_ENV_EXPIRE: JobDefaults(retries=3, timeout_seconds=60),
}
"""The defaults of `spec.md` 9; an app's `validation_gates` may set another timeout for its suites."""

BACKOFF_FIRST_SECONDS = 2.0
"""The pause before the second attempt, seconds; each further one is twice as long."""

BACKOFF_CAP_SECONDS = 60.0
"""The longest pause between two attempts, seconds."""


def check_transition(before: JobState, after: JobState) -> None:
    """A job moves only along `TRANSITIONS` (`spec.md` 3).

    Raises `invalid_transition` naming both states.
    """
    if after not in TRANSITIONS[before]:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A job that is {before.value} can't become {after.value}.",
            {"from": before.value, "to": after.value},
        )


def end_state(reason: ReasonCode) -> JobState:
    """The state that a job with this reason code ends in (`spec.md` 9)."""
    return OUTCOMES[reason].state


def max_attempts(job_type: JobType) -> int:
    """How many attempts a job of this type has by default: N retries are N + 1 attempts (`spec.md` 9)."""
    return DEFAULTS[job_type].retries + 1


def timeout_seconds(job_type: JobType) -> int:
    """How long one suite of this type of job may take by default, seconds (`spec.md` 9)."""
    return DEFAULTS[job_type].timeout_seconds


def runs_again(reason: ReasonCode, attempt: int, attempts: int) -> bool:
    """Whether attempt `attempt` (from 1) of `attempts`, ended by `reason`, has a successor (`spec.md` 9)."""
    return OUTCOMES[reason].runs_again and attempt < attempts


def backoff_seconds(attempt: int) -> float:
    """The pause after failed attempt `attempt` (from 1), seconds: 2, 4, 8 … up to 60 (`spec.md` 9).

    It has no jitter, so that a workflow that replays computes the same pause. Raises `validation_error`
    below 1.
    """
    if attempt < 1:
        raise invalid("attempt", "counts from 1")
    doublings = min(attempt - 1, 16)
    return min(BACKOFF_FIRST_SECONDS * 2**doublings, BACKOFF_CAP_SECONDS)
