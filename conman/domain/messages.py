"""What workflows and activities say to each other. Every added field needs a default; nothing is renamed (`durability.md` 23)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from conman.domain.changeset_news import QueueNews
from conman.domain.decision import Actor, Command, Model
from conman.domain.deploy_ending import Ending
from conman.domain.jobs import JobType
from conman.domain.overrides import FrozenOverride
from conman.domain.queue import Entry, RetriedJob
from conman.domain.release import Member, PinnedProfile


class LoadRequest(Model):
    """Read what a workflow owns of a record."""

    collection: str
    entity_id: str


class OwnedReply(Model):
    """What was found: `owned` None means there is no such record."""

    owned: dict[str, Any] | None = None


class PersistRequest(Model):
    """One guarded write (`durability.md` 3)."""

    collection: str
    entity_id: str
    expected_version: int
    command_id: str
    owned: dict[str, Any]
    outgoing: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    at: str
    mirrored: dict[str, Any] = Field(default_factory=dict[str, Any])
    unset: list[str] = Field(default_factory=list[str])


class PersistReply(Model):
    """`saved`, or the record as somebody else left it."""

    status: Literal["saved", "repeat", "ahead", "missing"]
    owned: dict[str, Any] | None = None


class Answer(Model):
    """What another entity said to a command: its result, or its refusal (then nothing was written there)."""

    result: dict[str, Any] = Field(default_factory=dict[str, Any])
    refusal: dict[str, Any] | None = None


class EntityStart(Model):
    """How a workflow of one record is started; `carried` is its state when it continues as new."""

    app_id: str
    entity_id: str
    carried: dict[str, Any] | None = None


class GateStart(Model):
    """One gate: which commit is judged, by which command, with which profile: at the revision that is pinned, else as it is.

    `fresh`: it is never answered from an earlier result (a retry by hand, a doubt of a flaky suite).
    """

    job_id: str
    app_id: str
    job_type: JobType
    entity_type: str
    entity_id: str
    commit_sha: str
    scope: Literal["submit", "release", "deploy"]
    profile_id: str | None = None
    profile_revision_id: str | None = None
    overrides: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    tag: str | None = None
    what: str = ""
    fresh: bool = False


class GateRun(Model):
    """One attempt at a gate."""

    gate: GateStart
    attempt: int
    max_attempts: int
    timeout_seconds: int


class EnqueueCommand(Command):
    """A changeset asks for a place in the queue."""

    entry: Entry


class RemoveCommand(Command):
    """A changeset asks to leave the queue."""

    changeset_id: str


class ReorderCommand(Command):
    """A manager asks for another order."""

    ordered_changeset_ids: list[str]
    expected_version: int


class ReserveCommand(Command):
    """A release asks for exactly these changesets; an empty list frees all that it holds."""

    release_id: str
    changeset_ids: list[str]


class PublishedCommand(Command):
    """A release tells that the integration branch has moved."""

    release_id: str
    integration_sha: str


class IntegrationMovedCommand(Command):
    """Upkeep tells that the integration branch was moved outside Conman, from the head that the queue knew to another one."""

    old_sha: str
    new_sha: str


class RevalidateCommand(Command):
    """Somebody asks for a fresh verdict on one entry, or retries its job."""

    changeset_id: str
    retried: RetriedJob | None = None


class EjectCommand(Command):
    """A release tells which member its assembly blames."""

    release_id: str
    changeset_id: str
    conflicted: bool
    job_id: str


class QueueCall(Model):
    """An update of `queue:{app}` made by an activity.

    `needs_open_app`: it is refused for an app that is archived, or about to be, or about to move to another integration branch.
    `publishes`: it is refused for an app that is on hold.
    """

    app_id: str
    update: Literal["enqueue", "remove", "reserve", "published", "eject"]
    command_id: str
    actor: Actor = Field(default_factory=Actor)
    payload: dict[str, Any] = Field(default_factory=dict[str, Any])
    needs_open_app: bool = False
    publishes: bool = False


class NewsCommand(Command):
    """News for one changeset."""

    news: QueueNews


class Telling(Model):
    """News for several changesets, told in parallel and repeated until each has taken its own."""

    app_id: str
    by: str
    news: list[tuple[str, QueueNews]]


class ReminderSetting(Model):
    """An app's `review_reminder_hours` (0: never), and whether reminders have ended with the app."""

    hours: int
    archived: bool = False


class SweepStart(Model):
    """One revalidation of a queue.

    A sweep that continues as new knows what it has `merged` (job id → merge commit), and how many verdicts it has `sent`.
    """

    app_id: str
    epoch: int
    integration_sha: str
    entries: list[Entry]
    merged: dict[str, str] = Field(default_factory=dict[str, str])
    sent: int = 0


class SweepChange(Model):
    """What changed in the queue while a sweep is under way: entries that join it, jobs that leave it.

    `order` has the jobs of all that run, in the order of the queue.
    """

    joins: list[Entry]
    leaves: list[str]
    order: list[str]


def revalidation_gate(app_id: str, entry: Entry, commit_sha: str) -> GateStart:
    """The gate that judges a queued changeset on its merge onto the present integration head."""
    return GateStart(
        job_id=entry.job_id or "",
        app_id=app_id,
        job_type=JobType.REVALIDATE_QUEUED_CHANGESET,
        entity_type="changeset",
        entity_id=entry.changeset_id,
        commit_sha=commit_sha,
        scope="submit",
        overrides=[one.model_dump(mode="json") for one in entry.overrides],
        what=f"{entry.title} on the new integration head",
        fresh=entry.fresh,
    )


class TrialRequest(Model):
    """Trial merges of queued heads onto the integration head."""

    app_id: str
    integration_sha: str
    entries: list[Entry]


class TrialReply(Model):
    """changeset id → merge commit, or the conflicts."""

    merged: dict[str, str] = Field(default_factory=dict[str, str])
    conflicts: dict[str, list[dict[str, Any]]] = Field(default_factory=dict[str, list[dict[str, Any]]])


class AssembleStart(Model):
    """One assembly of a release: of its members, or of what undoes the release `reverts_release_id`."""

    app_id: str
    release_id: str
    job_id: str
    tag: str
    members: list[Member]
    reverts_release_id: str | None = None


class GateProfilesQuestion(Model):
    """With which profiles the suite of a release runs that overrides `profile_ids`.

    A release that undoes another one (`reverts_release_id`) says which it is, and what it takes back there.
    """

    app_id: str
    profile_ids: list[str]
    release_id: str | None = None
    reverts_release_id: str | None = None
    overrides: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])


class GateProfile(Model):
    """A profile with which a release's suite runs: an environment's, at the revision that is pinned for the whole assembly.

    `waiting` are overrides of earlier releases that are still to arrive there, in publish order.
    """

    environment: str
    profile_id: str
    profile_revision_id: str
    waiting: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])

    def overrides_with(self, members: Sequence[Member]) -> list[FrozenOverride]:
        """What arrives there with these members: what waits for it, then their own, in merge order."""
        brought = [one.bare for member in members for one in member.overrides]
        return [*self.waiting, *(one for one in brought if one.profile_id == self.profile_id)]


class GateProfiles(Model):
    """The profiles, in stage order of their environments."""

    profiles: list[GateProfile]


class ComposeReply(Model):
    """The merge commits, one per member; or which member conflicts.

    Of a release that undoes another: its one commit, and what it takes back in profiles; or `problem`, why it can't, with the
    `conflicts` in its files.
    """

    base_sha: str
    prefix_shas: list[str] = Field(default_factory=list[str])
    conflicted: str | None = None
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    overrides: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])
    problem: str | None = None


class ExclusionsQuestion(Model):
    """Which members of a selection that does not merge onto `base_sha` exclude each other."""

    app_id: str
    base_sha: str
    members: list[Member]


class JobProgress(Model):
    """How far a job that is running has come."""

    job_id: str
    done: int
    total: int
    message: str


class NewJobs(Model):
    """Jobs that a workflow starts by itself; `progress` is that of the job which they are a part of."""

    app_id: str
    job_type: JobType
    entity_type: str
    entity_id: str
    job_ids: list[str]
    at: str
    progress: JobProgress | None = None


class JobEnds(Model):
    """Jobs that end with no other record to write."""

    ends: list[dict[str, Any]]
    at: str


class PublishFacts(Model):
    """What Git and the records say just before a publish.

    `unexplained` paths differ between base and candidate though no member changed them; `uprooted` members were made on commits
    that the base does not contain; commits of `lost` members are not in the candidate. `changed_profiles`: those that the gate
    used and that have changed, as they are now. `left`: members that are no longer `queued`, as the queue tells them.
    `supersedes`: the release that was published last.
    """

    integration_sha: str
    contained: bool = False
    tag: str
    unexplained: list[str] = Field(default_factory=list[str])
    uprooted: list[str] = Field(default_factory=list[str])
    lost: list[str] = Field(default_factory=list[str])
    changed_profiles: list[PinnedProfile] = Field(default_factory=list[PinnedProfile])
    left: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    supersedes: str | None = None


class PublishQuestion(Model):
    """What is asked before a publish."""

    app_id: str
    release_id: str
    tag: str
    base_sha: str
    candidate_sha: str
    members: list[Member]
    pinned_profiles: list[PinnedProfile] = Field(default_factory=list[PinnedProfile])
    reverts_release_id: str | None = None


class UndoRelease(Model):
    """A release was undone by another that is published now; `user_id` is who asked for it."""

    app_id: str
    release_id: str
    by_release_id: str
    user_id: str | None = None
    at: str


class Overtaken(Model):
    """The integration branch of an app is here now: validated releases that were assembled elsewhere are to look again."""

    app_id: str
    integration_sha: str


class MoveRefs(Model):
    """The integration branch and the tag, in one transaction, for the release that has reserved the tag's number."""

    app_id: str
    old_sha: str
    new_sha: str
    tag: str
    release_id: str = ""


class MoveRefsReply(Model):
    """`moved` False: the integration branch was not at `old_sha` any more, and nothing moved. `tag` is the one that was made:
    another than was asked for where somebody else had made that meanwhile.
    """

    moved: bool
    integration_sha: str
    tag: str | None = None


class TagRequest(Model):
    """The next free tag of the day, for a release."""

    app_id: str
    release_id: str


class DeployQuestion(Model):
    """What a deployment needs to know as its gate starts."""

    app_id: str
    environment_id: str
    release_id: str
    deployment_id: str
    approver_ids: list[str] = Field(default_factory=list[str])


class DeployFacts(Model):
    """The release's commit and tag, the profile that is pinned, and who of the approvers still may."""

    published_sha: str
    tag: str
    profile_id: str
    profile_revision_id: str
    eligible_approvers: list[str] = Field(default_factory=list[str])


class ProfileQuestion(Model):
    """With which revision of its environment's profile a deployment goes out: what it is now, or the one that is pinned."""

    app_id: str
    environment_id: str
    release_id: str
    deployment_id: str
    requested_by: str | None = None
    at: str
    pinned_revision_id: str | None = None


class ProfileReply(Model):
    """The revision, which has what the release brings; or why the profile can't take that."""

    profile_id: str
    profile_revision_id: str
    problem: str | None = None


class StartDeployment(Model):
    """The lock's holder becomes `running`."""

    app_id: str
    environment_id: str
    deployment_id: str


class SwitchRequest(Model):
    """Put a release's tree and its profile, rendered at the pinned revision, in place, under the fence."""

    app_id: str
    environment_id: str
    deployment_id: str
    release_id: str
    tag: str
    commit_sha: str
    profile_id: str
    fence: int
    profile_revision_id: str | None = None


class SwitchReply(Model):
    """The folder that the environment shows now, None where its target has none on this machine."""

    folder: str | None
    files: int


class EndDeployment(Model):
    """The end of a deployment: environment, release, deployment, lock and job, in this order."""

    persist: PersistRequest
    app_id: str
    environment_id: str
    release_id: str | None
    deployment_id: str
    ending: Ending
    requested_by: str | None = None
