"""What a temp env goes through: one pure decision for each step, and what it waits for (`spec.md` 3 and 13)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from conman.domain import temp_env_notices as notices
from conman.domain.decision import Decision, Event, JobEnd, JobProgress, NewJob
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.jobs import JobType, ReasonCode, end_state, max_attempts
from conman.domain.temp_env import (
    ENTITY_TYPE,
    EXTENSIONS_END,
    GRACE,
    LEAST_EXTENSION_SECONDS,
    LONGEST_EXTENSION_SECONDS,
    WARNING,
    TempEnv,
    TempEnvMove,
    TempEnvState,
    expires_at,
    moved,
)
from conman.domain.temp_env_messages import BranchMade, CleanUpReply, DatabaseMade, ProfileMade
from conman.domain.times import format_time, later, parse_time

Decided = Decision[TempEnv]

STEPS: Final = ("makes the snapshot branch", "derives its profile", "copies its database")
"""What provisioning does, in order."""

FIRST_PAUSE = timedelta(minutes=5)
LONGEST_PAUSE = timedelta(hours=1)
"""How long a clean-up that failed with all attempts of its job rests before the next job: the double each time."""
ALERT_EVERY = 24
"""After so many more failed jobs of a clean-up people are told again: once a day."""


class Cause(StrEnum):
    """Why a temp env is over, as its audit event `expired` says."""

    GRACE_ENDED = "grace_ended"
    DELETE = "delete"
    CANCELED = "canceled"
    """Somebody canceled its process in the Web UI."""
    APP_ARCHIVED = "app_archived"


# -- Times


def grace_of(temp: TempEnv) -> timedelta:
    """How long it can be brought back once it begins to expire."""
    return timedelta(hours=temp.grace_hours) if temp.grace_hours is not None else GRACE


def warns_at(temp: TempEnv, last_activity_at: str | None) -> str | None:
    """When its creator is warned: an hour before its deadline, or half way there where that is later. None if never active."""
    deadline = expires_at(temp, last_activity_at)
    if deadline is None or temp.active_since is None:
        return None
    since = max(temp.active_since, last_activity_at or "")
    if deadline == temp.extended_until and temp.extended_at is not None:
        since = max(since, temp.extended_at)
    half = (parse_time(deadline) - parse_time(since)) / 2
    return later(deadline, -min(WARNING, max(half, timedelta(0))))


def next_look(temp: TempEnv, last_activity_at: str | None) -> str | None:
    """When an active temp env is to be looked at again, if nothing happens: at its warning, then at its deadline."""
    deadline = expires_at(temp, last_activity_at)
    return deadline if temp.warned_for == deadline else warns_at(temp, last_activity_at)


def wakes_at(temp: TempEnv, last_activity_at: str | None) -> str | None:
    """When something is due, if nothing happens; None for what waits for somebody alone."""
    if temp.state is TempEnvState.ACTIVE:
        return next_look(temp, last_activity_at)
    return temp.grace_until if temp.state is TempEnvState.EXPIRING else None


def pause_after(failures: int) -> timedelta:
    """How long a clean-up rests that has failed with so many jobs."""
    return min(FIRST_PAUSE * 2 ** min(failures - 1, 8), LONGEST_PAUSE)


def is_due(temp: TempEnv, last_activity_at: str | None, at: str) -> bool:
    """Whether an active temp env is idle for too long at `at`."""
    deadline = expires_at(temp, last_activity_at)
    return deadline is not None and at >= deadline


def wants_clean_up(temp: TempEnv) -> bool:
    """Whether what it left is to be removed; an expired one may be kept until somebody deletes it (`auto_cleanup: false`)."""
    return temp.state is TempEnvState.FAILED or (temp.state is TempEnvState.EXPIRED and temp.expire_job_id is not None)


# -- Provisioning


def decide_begin(temp: TempEnv) -> Decided | None:
    """Its job starts."""
    if temp.state is not TempEnvState.PROVISIONING:
        return None
    return Decision(temp.model_copy(), job_starts=(temp.job_id,), progress=(_progress(temp, 0),))


def decide_branch_made(temp: TempEnv, made: BranchMade) -> Decided | None:
    """Its files stand on its branch."""
    if temp.state is not TempEnvState.PROVISIONING:
        return None
    after = temp.model_copy(update={"branch": made.branch, "head_sha": made.head_sha})
    return Decision(after, progress=(_progress(temp, 1),))


def decide_profile_made(temp: TempEnv, made: ProfileMade) -> Decided | None:
    """It has its profile, by which it lives from now on, whatever the base profile says later."""
    if temp.state is not TempEnvState.PROVISIONING:
        return None
    after = temp.model_copy(update=made.model_dump())
    return Decision(after, progress=(_progress(temp, 2),))


def decide_provisioned(temp_env_id: str, temp: TempEnv, made: DatabaseMade, at: str) -> Decided | None:
    """It can be used, and its idle time begins."""
    if temp.state is not TempEnvState.PROVISIONING:
        return None
    state = moved(temp.state, TempEnvMove.PROVISIONED)
    after = temp.model_copy(update={"state": state, "active_since": at, "db_name": made.db_name})
    shown: dict[str, Any] = {"url": after.url, "branch": after.branch, "db_name": after.db_name}
    event = _event(
        temp_env_id,
        "provisioned",
        before={"state": temp.state.value},
        after={
            "state": state.value,
            "expires_at": expires_at(after, None),
            "runtime_profile_id": after.runtime_profile_id,
            "head_sha": after.head_sha,
            "job_id": after.job_id,
            **shown,
        },
        git_sha=after.head_sha,
    )
    counted = made.model_dump(mode="json", exclude={"db_name"})
    end = JobEnd(id=temp.job_id, state=end_state(ReasonCode.OK), reason_code=ReasonCode.OK, result={**shown, **counted})
    return Decision(after, events=(event,), progress=(_progress(temp, len(STEPS)),), job_ends=(end,))


def decide_provision_failed(
    temp_env_id: str, temp: TempEnv, reason: ReasonCode, message: str, expire_job_id: str
) -> Decided | None:
    """It can't be made: what there is of it goes, by the job `expire_job_id`."""
    if temp.state is not TempEnvState.PROVISIONING:
        return None
    state = moved(temp.state, TempEnvMove.PROVISION_FAILED)
    after = temp.model_copy(update={"state": state, "reason_code": reason, "expire_job_id": expire_job_id})
    shown = {"state": state.value, "reason_code": reason.value, "job_id": temp.job_id}
    event = _event(temp_env_id, "provision_failed", before={"state": temp.state.value}, after=shown)
    end = JobEnd(id=temp.job_id, state=end_state(reason), reason_code=reason, summary={"message": message})
    notice = notices.provision_failed(temp_env_id, after, reason, message)
    return Decision(after, events=(event,), jobs=_expire_job(temp_env_id, after), job_ends=(end,), notices=(notice,))


def _progress(temp: TempEnv, done: int, attempt: int | None = None) -> JobProgress:
    message = STEPS[done] if done < len(STEPS) else "is ready"
    return JobProgress(id=temp.job_id, done=done, total=len(STEPS), message=message, attempt=attempt)


# -- Idle time and grace


def decide_warned(temp_env_id: str, temp: TempEnv, last_activity_at: str | None, at: str) -> Decided | None:
    """Its creator is warned, once of each deadline."""
    deadline, warning = expires_at(temp, last_activity_at), warns_at(temp, last_activity_at)
    if temp.state is not TempEnvState.ACTIVE or deadline is None or warning is None or temp.warned_for == deadline:
        return None
    if not warning <= at < deadline:
        return None
    after = temp.model_copy(update={"warned_for": deadline})
    event = _event(temp_env_id, "warned", after={"expires_at": deadline})
    return Decision(after, events=(event,), notices=(notices.warning(temp_env_id, after, deadline),))


def decide_idle(temp_env_id: str, temp: TempEnv, last_activity_at: str | None, at: str) -> Decided | None:
    """Its deadline has come and nobody has used it: the grace begins. None for one that was used meanwhile."""
    if temp.state is not TempEnvState.ACTIVE or not is_due(temp, last_activity_at, at):
        return None
    state, until = moved(temp.state, TempEnvMove.IDLE), later(at, grace_of(temp))
    after = temp.model_copy(update={"state": state, "grace_until": until})
    shown = {"state": state.value, "grace_until": until}
    event = _event(temp_env_id, "expiring", before={"state": temp.state.value}, after=shown)
    return Decision(after, events=(event,), notices=(notices.expiring(temp_env_id, after),))


def decide_undo(temp_env_id: str, temp: TempEnv, at: str) -> Decided:
    """It is active again, with a fresh idle time.

    Raises `grace_ended` once its grace is over, `invalid_transition` for one that has not begun to expire.
    """
    over = temp.state in (TempEnvState.EXPIRED, TempEnvState.DELETED) and temp.active_since is not None
    if over or (temp.state is TempEnvState.EXPIRING and at >= (temp.grace_until or at)):
        raise DomainError(
            ErrorCode.GRACE_ENDED,
            "Its grace has ended: recreate it from what it recorded.",
            {"state": temp.state.value, "grace_until": temp.grace_until},
        )
    state = moved(temp.state, TempEnvMove.UNDO_EXPIRE)
    still = temp.extended_until if (temp.extended_until or "") > at else None
    fresh = {"active_since": at, "extended_until": still, "warned_for": None, "grace_until": None}
    after = temp.model_copy(update={"state": state, **fresh})
    deadlines = {"extended_until": temp.extended_until, "grace_until": temp.grace_until}
    event = _event(
        temp_env_id,
        "undo_expired",
        before={"state": temp.state.value, **deadlines},
        after={"state": state.value, "expires_at": expires_at(after, None)},
    )
    return Decision(after, events=(event,))


def decide_extend(
    temp_env_id: str, temp: TempEnv, seconds: int, last_activity_at: str | None, at: str, *, source_ended: bool
) -> Decided:
    """It does not begin to expire before `seconds` from now: also when it was extended further before.

    Raises `validation_error` for what is too short, too long, or reaches too far; `invalid_transition` unless it is active;
    `conflict` when what it was made from has ended.
    """
    if not LEAST_EXTENSION_SECONDS <= seconds <= LONGEST_EXTENSION_SECONDS:
        raise invalid("seconds", f"needs {LEAST_EXTENSION_SECONDS} to {LONGEST_EXTENSION_SECONDS}: one hour to 48")
    if temp.state is not TempEnvState.ACTIVE:
        hint = ": undo its expiry, which gives it a fresh idle time" if temp.state is TempEnvState.EXPIRING else ""
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A temp env that is {temp.state.value} can't be extended{hint}.",
            {"from": temp.state.value, "to": TempEnvState.ACTIVE.value, "command": "extend"},
        )
    if source_ended:
        message = f"Its {temp.kind.value} has ended: it lives on until its own deadline, but can't be extended."
        raise DomainError(ErrorCode.CONFLICT, message, {"kind": temp.kind.value, "source_id": temp.source_id})
    until, end = later(at, timedelta(seconds=seconds)), later(temp.created_at, EXTENSIONS_END)
    if until > end:
        hours = EXTENSIONS_END // timedelta(hours=1)
        raise invalid("seconds", f"reaches further than {hours} hours after it was made: until {end} at most")
    after = temp.model_copy(update={"extended_until": until, "extended_at": at})
    event = _event(
        temp_env_id,
        "extended",
        before={"expires_at": expires_at(temp, last_activity_at), "extended_until": temp.extended_until},
        after={"expires_at": expires_at(after, last_activity_at), "extended_until": until, "seconds": seconds},
    )
    return Decision(after, events=(event,))


# -- Its end


def decide_grace_ended(temp_env_id: str, temp: TempEnv, expire_job_id: str, at: str) -> Decided | None:
    """Nobody has brought it back: it is no longer served, and what it has goes, unless its profile keeps that."""
    if temp.state is not TempEnvState.EXPIRING or at < (temp.grace_until or at):
        return None
    state = moved(temp.state, TempEnvMove.GRACE_ENDED)
    job_id = expire_job_id if temp.auto_cleanup else None
    return _over(temp_env_id, temp, temp.model_copy(update={"state": state, "expire_job_id": job_id}), Cause.GRACE_ENDED)


def decide_over(temp_env_id: str, temp: TempEnv, cause: Cause, expire_job_id: str) -> Decided | None:
    """It ends without grace and all of it goes, though nobody has deleted it. None for one whose clean-up is under way."""
    if temp.state not in (TempEnvState.ACTIVE, TempEnvState.EXPIRING, TempEnvState.EXPIRED) or wants_clean_up(temp):
        return None
    state = moved(temp.state, TempEnvMove.DELETE)
    return _over(temp_env_id, temp, temp.model_copy(update={"state": state, "expire_job_id": expire_job_id}), cause)


def decide_delete(temp_env_id: str, temp: TempEnv, expire_job_id: str, user_id: str | None) -> Decided:
    """Somebody ends it at once. Its clean-up is the job that the result names: the one that is under way, if there is one.

    Raises `invalid_transition` while it is provisioned and once it is deleted.
    """
    state = moved(temp.state, TempEnvMove.DELETE)
    if temp.state is TempEnvState.EXPIRED and temp.expire_job_id is not None:
        return Decision(temp.model_copy(), result={"job_id": temp.expire_job_id})  # it has ended already, and goes
    job_id = temp.expire_job_id or expire_job_id
    after = temp.model_copy(update={"state": state, "expire_job_id": job_id, "deleted_by": user_id})
    return _over(temp_env_id, temp, after, Cause.DELETE, result={"job_id": job_id})


def _over(temp_env_id: str, temp: TempEnv, after: TempEnv, cause: Cause, *, result: dict[str, Any] | None = None) -> Decided:
    shown: dict[str, Any] = {"state": after.state.value, "cause": cause.value, "job_id": after.expire_job_id}
    event = _event(temp_env_id, "expired", before={"state": temp.state.value}, after=shown)
    ends = temp.state in (TempEnvState.ACTIVE, TempEnvState.EXPIRING)
    return Decision(
        after,
        events=(event,),
        jobs=_expire_job(temp_env_id, after) if temp.expire_job_id is None else (),
        notices=(notices.expired(temp_env_id, after, cause.value),) if ends else (),
        result=result or {},
    )


# -- Clean-up


def decide_clean_up_begins(temp: TempEnv) -> Decided | None:
    """The job of its clean-up starts."""
    if not wants_clean_up(temp) or temp.expire_job_id is None:
        return None
    return Decision(temp.model_copy(), job_starts=(temp.expire_job_id,), progress=(_removes(temp.expire_job_id),))


def _removes(job_id: str, attempt: int | None = None) -> JobProgress:
    return JobProgress(id=job_id, done=0, total=1, message="removes its database, branch and profile", attempt=attempt)


def decide_cleaned_up(temp_env_id: str, temp: TempEnv, reply: CleanUpReply) -> Decided | None:
    """Nothing of it is left but its record."""
    if not wants_clean_up(temp) or temp.expire_job_id is None:
        return None
    state = moved(temp.state, TempEnvMove.CLEANED_UP)
    gone = {"database_dropped": reply.database_dropped, "branch_deleted": reply.branch_deleted}
    events = (
        _event(
            temp_env_id,
            "cleaned_up",
            before={"db_name": temp.db_name, "branch": temp.branch},
            after={**gone, "job_id": temp.expire_job_id},
        ),
        _event(temp_env_id, "deleted", before={"state": temp.state.value}, after={"state": state.value}),
    )
    result = {**gone, "profile_deleted": reply.profile_deleted}
    end = JobEnd(id=temp.expire_job_id, state=end_state(ReasonCode.OK), reason_code=ReasonCode.OK, result=result)
    return Decision(temp.model_copy(update={"state": state}), events=events, job_ends=(end,))


def decide_clean_up_failed(temp_env_id: str, temp: TempEnv, reason: ReasonCode, message: str, next_job_id: str) -> Decided | None:
    """All attempts of the job have failed: another job waits for its turn, and people are told who can look into it."""
    if not wants_clean_up(temp) or temp.expire_job_id is None:
        return None
    after = temp.model_copy(update={"failures": temp.failures + 1, "expire_job_id": next_job_id})
    end = JobEnd(id=temp.expire_job_id, state=end_state(reason), reason_code=reason, summary={"message": message})
    alert = after.failures % ALERT_EVERY == 1
    return Decision(
        after,
        jobs=_expire_job(temp_env_id, after),
        job_ends=(end,),
        notices=(notices.clean_up_failed(temp_env_id, after, message),) if alert else (),
    )


def _expire_job(temp_env_id: str, temp: TempEnv) -> tuple[NewJob, ...]:
    if temp.expire_job_id is None:
        return ()
    kind = JobType.TEMP_ENV_EXPIRE
    return (NewJob(temp.expire_job_id, kind, ENTITY_TYPE, temp_env_id, max_attempts(kind), created_by=temp.deleted_by),)


def _event(
    temp_env_id: str,
    action: str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any],
    git_sha: str | None = None,
) -> Event:
    return Event(ENTITY_TYPE, temp_env_id, action, before=before, after=after, git_sha=git_sha)


def decide_next_attempt(temp: TempEnv, job_id: str, attempt: int) -> Decided | None:
    """An attempt at the job that is under way has failed, and another one begins."""
    if temp.state is TempEnvState.PROVISIONING and job_id == temp.job_id:
        return Decision(temp.model_copy(), progress=(_progress(temp, 0, attempt),))
    if wants_clean_up(temp) and job_id == temp.expire_job_id:
        return Decision(temp.model_copy(), progress=(_removes(job_id, attempt),))
    return None


# -- Words


def waiting_for(temp: TempEnv, last_activity_at: str | None = None) -> str:
    """What it is and waits for, in plain words."""
    match temp.state:
        case TempEnvState.PROVISIONING:
            return "Provisioning. Waits for its branch, its profile and its database."
        case TempEnvState.ACTIVE:
            until = _minute(expires_at(temp, last_activity_at))
            return f"Active until {until} unless it is used. Waits for that time, an extension or its deletion."
        case TempEnvState.EXPIRING:
            return f"Expiring: it was not used. Waits until {_minute(temp.grace_until)} for somebody to undo that."
        case TempEnvState.DELETED:
            return "Deleted: nothing of it is left."
        case TempEnvState.FAILED | TempEnvState.EXPIRED:
            what = "Expired" if temp.state is TempEnvState.EXPIRED else f"Not provisioned ({_reason(temp)})"
            if not wants_clean_up(temp):
                return f"{what}; its profile keeps its database and branch. Waits for its deletion."
            if temp.failures:
                return f"{what}; its clean-up has failed with {temp.failures} jobs: look at their logs. Waits to try again."
            return f"{what}. Waits for its database, branch and profile to be removed."


def _reason(temp: TempEnv) -> str:
    return temp.reason_code.value if temp.reason_code is not None else "unknown"


def _minute(at: str | None) -> str:
    return format_time(parse_time(at))[:16].replace("T", " ") + " UTC" if at is not None else "an unknown time"
