"""What people are told of a temp env, and when (`spec.md` 14): its creator, and where something stays behind the managers too."""

from __future__ import annotations

from typing import Any

from conman.domain.decision import NewNotice
from conman.domain.notification import NoticeKind
from conman.domain.temp_env import TempEnv


def _notice(kind: NoticeKind, temp_env_id: str, temp: TempEnv, **data: Any) -> NewNotice:
    known = {"label": temp.label, "url": temp.url, "source_kind": temp.kind.value, "source_id": temp.source_id}
    return NewNotice(kind, "temp_env", temp_env_id, user_ids=(temp.created_by,), data={**known, **data})


def warning(temp_env_id: str, temp: TempEnv, expires_at: str) -> NewNotice:
    """Its creator is warned, an hour before it begins to expire at `expires_at` (`spec.md` 13)."""
    return _notice(NoticeKind.TEMP_ENV_WARNING, temp_env_id, temp, expires_at=expires_at)


def expiring(temp_env_id: str, temp: TempEnv) -> NewNotice:
    """Its creator is told until when it can be brought back; `temp` has its `grace_until`."""
    return _notice(NoticeKind.TEMP_ENV_EXPIRING, temp_env_id, temp, grace_until=temp.grace_until)


def expired(temp_env_id: str, temp: TempEnv) -> NewNotice:
    """Its creator is told that it is served no more, and whether its database and branch are kept until it is deleted."""
    return _notice(NoticeKind.TEMP_ENV_EXPIRED, temp_env_id, temp, auto_cleanup=temp.auto_cleanup)


def provision_failed(temp_env_id: str, temp: TempEnv) -> NewNotice:
    """Its creator is told why there is none; `temp` has its `reason_code`."""
    reason = temp.reason_code.value if temp.reason_code is not None else None
    return _notice(NoticeKind.TEMP_ENV_PROVISION_FAILED, temp_env_id, temp, reason_code=reason, job_id=temp.job_id)


def clean_up_failed(temp_env_id: str, temp: TempEnv) -> NewNotice:
    """Its creator and the managers are told that something of it stayed behind; the job's log says what."""
    return _notice(
        NoticeKind.TEMP_ENV_CLEAN_UP_FAILED, temp_env_id, temp, failures=temp.failures, expire_job_id=temp.expire_job_id
    )
