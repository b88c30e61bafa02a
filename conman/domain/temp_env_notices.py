"""What people are told of a temp env (`spec.md` 14): its creator of its end coming, config managers too of what stays behind."""

from __future__ import annotations

from typing import Any

from conman.domain.decision import NewNotice
from conman.domain.jobs import ReasonCode
from conman.domain.notification import NoticeKind
from conman.domain.temp_env import ENTITY_TYPE, TempEnv


def warning(temp_env_id: str, temp: TempEnv, expires_at: str) -> NewNotice:
    """It begins to expire then, unless it is used or extended before."""
    return _notice(NoticeKind.TEMP_ENV_WARNING, temp_env_id, temp, expires_at=expires_at)


def expiring(temp_env_id: str, temp: TempEnv) -> NewNotice:
    """It was idle for too long; until `grace_until` somebody may bring it back."""
    return _notice(NoticeKind.TEMP_ENV_EXPIRING, temp_env_id, temp, grace_until=temp.grace_until)


def expired(temp_env_id: str, temp: TempEnv, cause: str) -> NewNotice:
    """It is over; `cause` as in the audit. `cleaned_up`: whether its database and branch go by themselves."""
    cleans = temp.expire_job_id is not None
    return _notice(NoticeKind.TEMP_ENV_EXPIRED, temp_env_id, temp, cause=cause, cleaned_up=cleans)


def provision_failed(temp_env_id: str, temp: TempEnv, reason: ReasonCode, message: str) -> NewNotice:
    """There is none, and why."""
    return _notice(NoticeKind.TEMP_ENV_PROVISION_FAILED, temp_env_id, temp, reason_code=reason.value, message=message)


def clean_up_failed(temp_env_id: str, temp: TempEnv, message: str) -> NewNotice:
    """Something of it can't be removed: somebody has to look, while Conman goes on trying."""
    left = {"db_name": temp.db_name, "branch": temp.branch, "failures": temp.failures, "message": message}
    return _notice(NoticeKind.TEMP_ENV_CLEAN_UP_FAILED, temp_env_id, temp, **left)


def _notice(kind: NoticeKind, temp_env_id: str, temp: TempEnv, **data: Any) -> NewNotice:
    about = {"kind": temp.kind.value, "source_id": temp.source_id, "label": temp.label, "url": temp.url}
    return NewNotice(kind, ENTITY_TYPE, temp_env_id, user_ids=(temp.created_by,), data={**about, **data})
