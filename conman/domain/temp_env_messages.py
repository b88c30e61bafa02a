"""Messages between `temp-env:{id}`, the front door and its activities (`spec.md` 13)."""

from __future__ import annotations

from pydantic import Field

from conman.domain.decision import Command, Model
from conman.domain.jobs import JobType, timeout_seconds


class ExtendCommand(Command):
    """Update `extend`: it may not begin to expire before `seconds` from now (`spec.md` 13).

    `source_ended`: its workspace or changeset has ended, as the front door saw it.
    """

    seconds: int
    source_ended: bool = False


class UndoExpireCommand(Command):
    """Update `undo_expire`: back from the grace, with a fresh idle time."""


class DeleteCommand(Command):
    """Update `delete`: end it now, without grace. `expire_job_id` is the clean-up job that the reply names."""

    expire_job_id: str


class CancelProvision(Model):
    """Signal `cancel_provision`: the job is to end, and with it the temp env that it provisions; who asked, if it is known."""

    job_id: str
    user_id: str | None = None


class TempEnvRef(Model):
    """Which temp env an activity is about, and which attempt of which job asks."""

    app_id: str
    temp_env_id: str
    job_id: str
    attempt: int = 1


class UseQuestion(Model):
    """When was it used last?"""

    app_id: str
    temp_env_id: str


class UseReply(Model):
    """The last use, if there was one; `source_ended`: what it was made from has ended. `archived`: its app has."""

    last_activity_at: str | None = None
    source_ended: bool = False
    archived: bool = False


class BranchMade(Model):
    """Reply of `provision_branch(TempEnvRef)`: the snapshot branch and the private ref stand at `head_sha`.

    `limit_seconds`: how long each later step of this attempt may take, as the operator has set it.
    """

    branch: str
    head_sha: str
    limit_seconds: int = timeout_seconds(JobType.TEMP_ENV_PROVISION)


class ProfileMade(Model):
    """Reply of `provision_profile(TempEnvRef)`: the derived profile, and how long it lets its temp env live."""

    runtime_profile_id: str
    ttl_idle_hours: int | None = None
    grace_hours: int | None = None
    auto_cleanup: bool = True


class DatabaseMade(Model):
    """Reply of `provision_database(TempEnvRef)`; no `db_name` where the profile has no database of its own.

    `how`: `copied` from collection to collection, or `restored` from files.
    """

    db_name: str | None = None
    how: str | None = None
    collections: int = 0
    documents: int = 0


class CleanUpReply(Model):
    """Reply of `clean_up_temp_env(TempEnvRef)`: what was removed; what was not there counts as removed."""

    database_dropped: bool
    branch_deleted: bool
    profile_deleted: bool = True
    left: list[str] = Field(default_factory=list[str])
    """What could not be removed, in words; empty when all is gone."""
