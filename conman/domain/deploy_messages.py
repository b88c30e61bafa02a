"""Messages between the workflows of deployments and rollbacks and their activities (`spec.md` 12)."""

from __future__ import annotations

from pydantic import Field

from conman.domain.decision import Command, Model
from conman.domain.deployment import DeploymentState
from conman.domain.drift import DriftItem
from conman.domain.jobs import ReasonCode
from conman.domain.messages import SwitchRequest


class ApproveCommand(Command):
    """One person's yes; `digest` says to what: the files, profile revision and overrides that they were shown."""

    digest: str | None = None


class RevalidateCommand(Command):
    """Look again at the drift for which it waits; `overwrite`: deploy over what was touched."""

    overwrite: bool = False


class SupersedeCommand(Command):
    """It waits only for drift, and another deployment has taken its lock."""

    by_deployment_id: str


class ReleaseReadyCommand(Command):
    """The release that undoes another one is published: the deployment that waits for it brings it."""

    release_id: str


class ReleaseFailedCommand(Command):
    """The release that undoes another one will not be: the deployment that waits for it fails."""

    reason_code: ReasonCode
    message: str


class LockQuestion(Model):
    """A deployment that waits in line asks for its environment's lock."""

    app_id: str
    environment_id: str
    deployment_id: str
    at: str


class LockReply(Model):
    """The fence when the lock is held now; else who holds it. `closed`: environment or app take no deployments any more."""

    fence: int | None = None
    holder_id: str | None = None
    concurrent: bool = False
    closed: bool = False
    approval_ttl_hours: int = 24


class Blocker(Model):
    """What stands in the way of a deployment: an error code of `api.md` 1, a sentence, who can clear it (a role, or `time`)."""

    code: str
    message: str
    who: str
    until: str | None = None


class StartQuestion(Model):
    """Whether a pending deployment may start, or could at `at`; asked at its time, after its approvals, and ahead of them."""

    app_id: str
    environment_id: str
    release_id: str
    deployment_id: str
    at: str
    approver_ids: list[str] = Field(default_factory=list[str])


class StartReply(Model):
    """The deciders' answer for a pending deployment, as things are now.

    `eligible_approvers` hold the role that is asked for now. `shown_digest` binds ordinary approvals to what they were given for:
    files, profile revision, and overrides that arrive. `approvals_required` and `approval_role` may have risen. `freeze_windows`
    are those that are open at the environment, until `frozen_until`.
    """

    published_sha: str
    tag: str
    profile_id: str
    profile_revision_id: str
    blockers: list[Blocker] = Field(default_factory=list[Blocker])
    eligible_approvers: list[str] = Field(default_factory=list[str])
    approvals_required: int = 0
    approval_role: str | None = None
    exceptional_reasons: list[str] = Field(default_factory=list[str])
    shown_digest: str = ""
    approval_ttl_hours: int = 24
    auto_rollback: bool = False
    health_command: str | None = None
    freeze_windows: list[str] = Field(default_factory=list[str])
    frozen_until: str | None = None


class DriftQuestion(Model):
    """What the environment's target observes against the revision last applied there. `deployment_id` None: a check by itself.

    A key that this deployment is about to set to the value that is there already is no drift. `profile_revision_id` is the one
    that it is about to set, without what its release brings (None: the profile's present one). `job_id` is the job of a check
    that somebody asked for.
    """

    app_id: str
    environment_id: str
    deployment_id: str | None = None
    profile_revision_id: str | None = None
    cleared_revision_id: str | None = None
    at: str
    job_id: str | None = None
    attempt: int = 1


class DriftReply(Model):
    """`report` is empty where nothing differs. `emergency_revision_id` is an emergency edit that was not applied yet, if any.

    `problem`: nobody could look, for the reason `reason_code`, and the report says nothing. `overtaken`: a deployment ran there
    meanwhile, or the asking one no longer holds the environment, and what was seen is worth nothing (`durability.md` 25).
    """

    report: list[DriftItem] = Field(default_factory=list[DriftItem])
    emergency_revision_id: str | None = None
    checked_at: str
    problem: str | None = None
    reason_code: ReasonCode = ReasonCode.OK
    overtaken: bool = False
    first_seen_at: str | None = None
    last_clean_at: str | None = None


class DriftCheckStart(Model):
    """How `job:{id}` of a check that somebody asked for is started."""

    job_id: str
    app_id: str
    environment_id: str
    environment: str = ""


class DriftPlace(Model):
    """An environment in which something is deployed."""

    app_id: str
    environment_id: str


class DriftRound(Model):
    """One page of a round through all environments: those after the environment `after`, in the order of their ids."""

    after: str = ""


class DriftPlaces(Model):
    """The environments of a page; `last` is where the next page goes on, None when there is none."""

    places: list[DriftPlace] = Field(default_factory=list[DriftPlace])
    last: str | None = None


class HealQuestion(Model):
    """Put back what was last applied in an environment, where its policy and the limits say so."""

    app_id: str
    environment_id: str
    at: str


class HealReply(Model):
    """The deployment that puts it back, None where none was started."""

    deployment_id: str | None = None


class BeginQuestion(Model):
    """A pending deployment is about to run with the revision that its checks looked at; `at` is the time of that look.

    `starts_at` is the time of the start, for which it is judged once more (empty: that of the look).
    """

    app_id: str
    environment_id: str
    release_id: str
    deployment_id: str
    profile_revision_id: str
    pinned: bool = False
    requested_by: str | None = None
    at: str
    starts_at: str = ""


class BeginReply(Model):
    """`holder_id`: who holds the environment, if not this one; `moved`: it was judged on what has changed, and nothing began.

    `previous_deployment_id` is what the environment runs as it begins.
    """

    held: bool = True
    holder_id: str | None = None
    moved: bool = False
    previous_deployment_id: str | None = None


class Ended(Model):
    """An environment whose lock has been given up by a deployment: those in its line are to ask for it."""

    app_id: str
    environment_id: str
    deployment_id: str


class Predecessor(Model):
    """The deployment of the same request that goes first."""

    app_id: str
    deployment_id: str


class Outcome(Model):
    """How a deployment ended; `name` says where it was to go."""

    state: DeploymentState
    name: str = ""


class ClearedEdit(Model):
    """The deploy gate has passed with an emergency edit, which blocks no deployment there any more."""

    environment_id: str
    profile_revision_id: str


class RaiseFence(Model):
    """A holder that puts back what was there before needs a fence above the one of what it replaces."""

    app_id: str
    environment_id: str
    deployment_id: str
    fence: int


class MigrateRequest(SwitchRequest):
    """Run the migrations of the profile's paths that have no recorded success in this environment, in order, before what is
    told here is put in place.
    """

    job_id: str


class MigrateReply(Model):
    """How many ran; `failed` names the one that did not succeed, with a sentence."""

    ran: int = 0
    skipped: int = 0
    failed: str | None = None
    message: str = ""
    infrastructure: bool = False


class PriorQuestion(Model):
    """What an environment ran before a deployment."""

    app_id: str
    environment_id: str
    deployment_id: str


class PriorReply(Model):
    """The deployment that was there before, None where there was none: its release, commit, and the profile that it applied."""

    deployment_id: str | None = None
    release_id: str | None = None
    tag: str = ""
    published_sha: str = ""
    profile_id: str = ""
    profile_revision_id: str | None = None
