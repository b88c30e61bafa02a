"""Messages between `rollback:{id}` and its activities (`spec.md` 12)."""

from __future__ import annotations

from conman.domain.decision import Model
from conman.domain.jobs import ReasonCode
from conman.domain.release import Release
from conman.domain.rollback import Step


class RollbackQuestion(Model):
    """Which rollback: its deployment, and the release that undoes the other."""

    app_id: str
    deployment_id: str
    release_id: str


class RollbackBegun(Model):
    """Whether there is a release that is being assembled; `refused` says why there is none."""

    refused: str | None = None


class RollbackView(Model):
    """How the release is; `wanted`: its deployment, which `user_id` asked for, has not ended."""

    release: Release
    wanted: bool
    user_id: str | None = None


class RollbackStep(Model):
    """What is to be done of the release, in the name of who asked for the rollback; `job_id` is that of an assembly."""

    app_id: str
    release_id: str
    kind: Step
    command_id: str
    user_id: str | None = None
    job_id: str = ""


class RollbackNews(Model):
    """To the deployment: its release is published (`release_id`), or it ends without one."""

    deployment_id: str
    release_id: str | None = None
    reason_code: ReasonCode = ReasonCode.OK
    message: str = ""
