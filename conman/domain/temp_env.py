"""Temp environments: their states, deadlines and names (`spec.md` 3 and 13).

`temp-env:{id}` owns what `TempEnv` holds. When a temp env was last used is no part of it: each use writes
`last_activity_at` at the record's top level, by the one who serves it, and the process reads it when it wakes. So a use
costs no history.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from conman.domain.decision import Owned
from conman.domain.jobs import ReasonCode
from conman.domain.times import later
from conman.domain.transitions import follow


class TempEnvKind(StrEnum):
    """What a temp env is made from."""

    WORKSPACE = "workspace"
    CHANGESET = "changeset"


class TempEnvState(StrEnum):
    """Where a temp env is (`spec.md` 3)."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    EXPIRING = "expiring"
    """In its grace: intact and served, but requests don't revive it."""
    EXPIRED = "expired"
    """No longer served; its database and branch go, unless its profile keeps them until it is deleted."""
    DELETED = "deleted"
    FAILED = "failed"
    """It could not be provisioned, and cleans up after itself."""


class TempEnvMove(StrEnum):
    """What changes a temp env's state."""

    PROVISIONED = "provisioned"
    PROVISION_FAILED = "provision_failed"
    IDLE = "idle"
    GRACE_ENDED = "grace_ended"
    UNDO_EXPIRE = "undo_expire"
    DELETE = "delete"
    CLEANED_UP = "cleaned_up"


_S, _M = TempEnvState, TempEnvMove
TRANSITIONS: Final[Mapping[tuple[TempEnvState, TempEnvMove], TempEnvState]] = MappingProxyType(
    {
        (_S.PROVISIONING, _M.PROVISIONED): _S.ACTIVE,
        (_S.PROVISIONING, _M.PROVISION_FAILED): _S.FAILED,
        (_S.ACTIVE, _M.IDLE): _S.EXPIRING,
        (_S.EXPIRING, _M.UNDO_EXPIRE): _S.ACTIVE,
        (_S.EXPIRING, _M.GRACE_ENDED): _S.EXPIRED,
        (_S.ACTIVE, _M.DELETE): _S.EXPIRED,
        (_S.EXPIRING, _M.DELETE): _S.EXPIRED,
        (_S.FAILED, _M.DELETE): _S.EXPIRED,
        (_S.EXPIRED, _M.DELETE): _S.EXPIRED,
        (_S.EXPIRED, _M.CLEANED_UP): _S.DELETED,
        (_S.FAILED, _M.CLEANED_UP): _S.DELETED,
    }
)
"""The table of `spec.md` 3. A DELETE of what is expired starts the clean-up that `auto_cleanup: false` left out."""

ENTITY_TYPE: Final = "temp_environment"
"""What audit events, jobs and notices call a temp env."""

LIVE: Final = frozenset({TempEnvState.PROVISIONING, TempEnvState.ACTIVE, TempEnvState.EXPIRING})
"""The states of which a source has at most one temp env (`live_slot`)."""

SERVED: Final = frozenset({TempEnvState.ACTIVE, TempEnvState.EXPIRING})
"""The states in which a temp env's URL answers with its files."""

IDLE_TTL = timedelta(hours=24)
GRACE = timedelta(hours=1)
"""Conman's own, where a profile's `lifecycle` says nothing (`spec.md` 13)."""
WARNING = timedelta(hours=1)
"""How long before its deadline a temp env's creator is warned (`spec.md` 13)."""
LEAST_EXTENSION_SECONDS = 3_600
LONGEST_EXTENSION_SECONDS = 48 * 3_600
"""The bounds of one extension, in seconds."""
EXTENSIONS_END = timedelta(hours=72)
"""An extension may not reach further than this after a temp env was made."""


class TempEnv(Owned):
    """What `temp-env:{id}` owns. Times are RFC 3339 UTC; hours are those of the derived profile, pinned when it was made."""

    kind: TempEnvKind
    source_id: str
    state: TempEnvState = TempEnvState.PROVISIONING
    created_at: str
    created_by: str
    base_profile_id: str
    head_sha: str
    """The commit whose files it serves: pending edits of a workspace are in it."""
    label: str
    """The first label of its host name, never given to another temp env."""
    url: str
    branch: str
    """The snapshot branch, without `refs/heads/`."""
    db_name: str | None = None
    runtime_profile_id: str | None = None
    job_id: str
    """The job that provisions it."""
    expire_job_id: str | None = None
    """The job of its clean-up."""
    reason_code: ReasonCode | None = None
    ttl_idle_hours: int | None = None
    grace_hours: int | None = None
    auto_cleanup: bool = True
    active_since: str | None = None
    """When it became usable, or was brought back by an undo: its idle time counts from here at the earliest."""
    extended_until: str | None = None
    extended_at: str | None = None
    """When somebody extended it last."""
    warned_for: str | None = None
    """The deadline that its creator was warned of."""
    grace_until: str | None = None
    deleted_by: str | None = None
    """Who asked for its end: the clean-up is that person's act."""
    recreated_from: str | None = None
    failures: int = 0
    """How often its clean-up has failed."""

    @property
    def live_slot(self) -> str | None:
        """The value of the unique index that keeps one live temp env per source; None once it is not live."""
        return f"{self.kind.value}:{self.source_id}" if self.state in LIVE else None


def moved(state: TempEnvState, move: TempEnvMove) -> TempEnvState:
    """Where `move` leads from `state`. Raises `invalid_transition`."""
    return follow("temp env", TRANSITIONS, state, move)


def expires_at(temp: TempEnv, last_activity_at: str | None) -> str | None:
    """When it begins to expire, as things are: its last use plus the idle time, or what it was extended to (`spec.md` 13).

    None before it was active.
    """
    if temp.active_since is None:
        return None
    used = max(temp.active_since, last_activity_at or "")
    ttl = timedelta(hours=temp.ttl_idle_hours) if temp.ttl_idle_hours is not None else IDLE_TTL
    return max(later(used, ttl), temp.extended_until or "")


def temp_branch(label: str) -> str:
    """The snapshot branch of the temp env with this label; below `conman/`, where people can't make branches."""
    return f"conman/temp/{label}"


def temp_snapshot_ref(temp_env_id: str) -> str:
    """The private ref that keeps the commit of a temp env for ever, so that it can be made again after its branch is gone."""
    return f"refs/conman/temp-envs/{temp_env_id}"


def temp_database(temp_env_id: str) -> str:
    """The name of a temp env's database on its server: within MongoDB's 63 bytes, and told from all that Conman did not make."""
    return f"conman_temp_{temp_env_id.replace('-', '')}"
