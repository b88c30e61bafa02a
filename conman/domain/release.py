"""Releases: an immutable, tagged selection of changesets, assembled, gated and published once (`spec.md` 3 and 11)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from conman.domain import release_notices
from conman.domain.decision import Decision, Event, JobEnd, Model, NewJob, Owned
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.exclusions import Exclusions
from conman.domain.jobs import JobState, JobType, ReasonCode, end_state, max_attempts
from conman.domain.overrides import FrozenOverride
from conman.domain.transitions import follow


class ReleaseState(StrEnum):
    """The states of `spec.md` 3."""

    DRAFT_RELEASE = "draft_release"
    ASSEMBLING = "assembling"
    VALIDATED = "validated"
    PUBLISHED = "published"
    DEPLOYED_PARTIAL = "deployed_partial"
    DEPLOYED_FULL = "deployed_full"
    ROLLED_BACK = "rolled_back"
    DROPPED = "dropped"


class Move(StrEnum):
    """What moves a release from one state to another."""

    EDIT = "edit"
    ASSEMBLE = "assemble"
    ASSEMBLED = "assembled"
    RETURN = "return"
    PUBLISH = "publish"
    DROP = "drop"
    DEPLOY_PARTIAL = "deploy_partial"
    DEPLOY_FULL = "deploy_full"
    ROLL_BACK = "roll_back"


_S = ReleaseState
TERMINAL = frozenset({_S.DROPPED, _S.ROLLED_BACK})
DEPLOYABLE = frozenset({_S.PUBLISHED, _S.DEPLOYED_PARTIAL, _S.DEPLOYED_FULL})
OPEN = frozenset({_S.DRAFT_RELEASE, _S.ASSEMBLING, _S.VALIDATED})

TRANSITIONS: dict[tuple[ReleaseState, Move], ReleaseState] = {
    (_S.DRAFT_RELEASE, Move.EDIT): _S.DRAFT_RELEASE,
    (_S.VALIDATED, Move.EDIT): _S.DRAFT_RELEASE,
    (_S.DRAFT_RELEASE, Move.ASSEMBLE): _S.ASSEMBLING,
    (_S.ASSEMBLING, Move.ASSEMBLED): _S.VALIDATED,
    (_S.ASSEMBLING, Move.RETURN): _S.DRAFT_RELEASE,
    (_S.VALIDATED, Move.RETURN): _S.DRAFT_RELEASE,
    (_S.VALIDATED, Move.PUBLISH): _S.PUBLISHED,
    (_S.DRAFT_RELEASE, Move.DROP): _S.DROPPED,
    (_S.VALIDATED, Move.DROP): _S.DROPPED,
    **{(state, Move.DEPLOY_PARTIAL): _S.DEPLOYED_PARTIAL for state in (_S.PUBLISHED, _S.DEPLOYED_PARTIAL, _S.DEPLOYED_FULL)},
    **{(state, Move.DEPLOY_FULL): _S.DEPLOYED_FULL for state in (_S.PUBLISHED, _S.DEPLOYED_PARTIAL, _S.DEPLOYED_FULL)},
    **{(state, Move.ROLL_BACK): _S.ROLLED_BACK for state in (_S.PUBLISHED, _S.DEPLOYED_PARTIAL, _S.DEPLOYED_FULL)},
}
"""The one table of legal moves; what is not in it is refused."""


def target(state: ReleaseState, move: Move) -> ReleaseState:
    """Where `move` leads from `state`. Raises `invalid_transition` naming both states."""
    return follow("release", TRANSITIONS, state, move)


class Member(Model):
    """A changeset of a release, as it was reserved."""

    changeset_id: str
    head_sha: str
    base_sha: str
    revision_number: int
    title: str = ""
    author_user_id: str = ""
    overrides: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])


class Failure(Model):
    """Why an assembly did not end in `validated`, or a candidate did not stay so; `details` are what a caller is told."""

    reason_code: str
    changeset_id: str | None = None
    paths: list[str] = Field(default_factory=list[str])
    message: str = ""
    details: Any = None


class PinnedProfile(Model):
    """The profile revision that the release gate rendered for an environment; publish compares it with the present one."""

    environment: str
    profile_id: str
    profile_revision_id: str


class PublishIntent(Model):
    """The ref moves of a publish, recorded before they are made: afterwards there is only forward (`durability.md` 19).

    `supersedes` is the release that was published last before it.
    """

    command_id: str
    actor: dict[str, Any]
    old_sha: str
    new_sha: str
    tag: str
    at: str
    supersedes: str | None = None


class Selection(Model):
    """What a selection is to be: `changeset_ids` as a whole, or as another order of the present one (`reorder`), or the present
    one without `remove` and with `add` at its end. It is applied under the release's lock, so that no edit undoes another.
    """

    kind: Literal["whole", "reorder", "change"] = "whole"
    changeset_ids: list[str] = Field(default_factory=list[str])
    add: list[str] = Field(default_factory=list[str])
    remove: list[str] = Field(default_factory=list[str])

    def of(self, present: Sequence[str]) -> list[str]:
        """The selection, from the present one. Raises `validation_error` when a reorder does not name exactly that."""
        if self.kind == "whole":
            return self.changeset_ids
        if self.kind == "reorder":
            if sorted(self.changeset_ids) != sorted(present):
                raise invalid("ordered_changeset_ids", "must name every changeset of the release, each once")
            return self.changeset_ids
        kept = [one for one in present if one not in self.remove]
        return kept + [one for one in self.add if one not in kept]


class EditIntent(Model):
    """A command that the queue must agree to first (`durability.md` 14)."""

    command_id: str
    kind: Literal["select", "drop", "assemble", "publish", "revert"]
    actor: dict[str, Any]
    changeset_ids: list[str] = Field(default_factory=list[str])
    selection: Selection | None = None
    facts: dict[str, Any] = Field(default_factory=dict[str, Any])


class Release(Owned):
    """What the workflow `release:{id}` owns of a release.

    One that undoes another (`reverts_release_id`) has no members: its candidate takes the other's difference back, and its
    `overrides` what the other set in profiles. `rollback_id` is the deployment that asked for it.
    """

    app_id: str
    tag: str | None = None
    state: ReleaseState = ReleaseState.DRAFT_RELEASE
    created: bool = False
    members: list[Member] = Field(default_factory=list[Member])
    base_sha: str | None = None
    candidate_sha: str | None = None
    prefix_shas: list[str] = Field(default_factory=list[str])
    pinned_profiles: list[PinnedProfile] = Field(default_factory=list[PinnedProfile])
    published_sha: str | None = None
    published_at: str | None = None
    published_by: str | None = None
    supersedes: str | None = None
    reverts_release_id: str | None = None
    rollback_id: str | None = None
    overrides: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])
    failure: Failure | None = None
    job_id: str | None = None
    edit: EditIntent | None = None
    publishing: PublishIntent | None = None
    told: bool = True

    @property
    def ordered_changeset_ids(self) -> list[str]:
        """The selection, in merge order."""
        return [member.changeset_id for member in self.members]


def _snapshot(release: Release) -> dict[str, Any]:
    return {"state": release.state.value, "ordered_changeset_ids": release.ordered_changeset_ids}


def release_event(
    release_id: str,
    action: str,
    before: Release | None,
    after: Release,
    git_sha: str | None = None,
    **more: Any,
) -> Event:
    """An audit event of a release: its state and selection before and after, and what else the action tells."""
    return Event(
        "release",
        release_id,
        action,
        before=_snapshot(before) if before is not None else None,
        after={**_snapshot(after), **more},
        git_sha=git_sha,
    )


def check_select(release: Release, selection: Selection) -> None:
    """A selection needs an open release that undoes no other.

    Raises `validation_error` for no order of the present one, `invalid_transition`, or `conflict`.
    """
    selection.of(release.ordered_changeset_ids)
    target(release.state, Move.EDIT)
    if release.reverts_release_id is not None:
        raise DomainError(ErrorCode.CONFLICT, "A release that undoes another one takes no changesets: make a release of them.")


def decide_selected(release_id: str, release: Release, members: Sequence[Member], tag: str | None) -> Decision[Release]:
    """The queue has reserved the selection; the first time, the release gets its tag and is created (`spec.md` 11)."""
    after = release.model_copy(
        update={
            "state": target(release.state, Move.EDIT),
            "members": list(members),
            "candidate_sha": None,
            "prefix_shas": [],
            "pinned_profiles": [],
            "edit": None,
            "created": True,
            "tag": release.tag or tag,
        }
    )
    if not release.created:
        event = release_event(release_id, "created", None, after, tag=after.tag)
        return Decision(after, events=(event,), notices=(release_notices.created(release_id, after),))
    same = sorted(release.ordered_changeset_ids) == sorted(after.ordered_changeset_ids)
    events = [release_event(release_id, "reordered" if same else "changesets_modified", release, after)]
    if release.state is ReleaseState.VALIDATED:
        events.append(release_event(release_id, "returned_to_draft", release, after, reason="the selection was edited"))
    return Decision(after, events=tuple(events))


def check_assemble(release: Release) -> None:
    """Assembling needs a draft with a selection. Raises `invalid_transition` or `conflict`."""
    target(release.state, Move.ASSEMBLE)
    if not release.members and release.reverts_release_id is None:
        raise DomainError(ErrorCode.CONFLICT, "The release has no changesets: add some from the queue, then assemble.")


def decide_assemble(release_id: str, release: Release, job_id: str, by: str | None) -> Decision[Release]:
    """Assembly starts: a job that composes the candidate and runs the release gate on it."""
    check_assemble(release)
    after = release.model_copy(
        update={
            "state": target(release.state, Move.ASSEMBLE),
            "job_id": job_id,
            "failure": None,
            "candidate_sha": None,
            "prefix_shas": [],
            "pinned_profiles": [],
            "edit": None,
        }
    )
    kind = JobType.RELEASE_ASSEMBLE
    job = NewJob(job_id, kind, "release", release_id, max_attempts(kind), created_by=by)
    return Decision(after, jobs=(job,), result={"job_id": job_id})


def check_revert(release: Release) -> None:
    """Undoing begins once, with a record made for it. Raises `invalid_transition` or `conflict`."""
    target(release.state, Move.ASSEMBLE)
    if release.created or release.reverts_release_id is None:
        raise DomainError(ErrorCode.CONFLICT, "This release is no new one that undoes another: ask for a rollback.")


def decide_reverting(release_id: str, release: Release, tag: str, job_id: str, by: str | None) -> Decision[Release]:
    """A release that undoes another gets its tag and is assembled at once, by itself (`spec.md` 12)."""
    created = release.model_copy(update={"created": True, "tag": tag, "edit": None})
    event = release_event(release_id, "created", None, created, tag=tag, reverts_release_id=release.reverts_release_id)
    assembling = decide_assemble(release_id, created, job_id, by)
    return Decision(
        assembling.owned,
        events=(event, *assembling.events),
        jobs=assembling.jobs,
        notices=(release_notices.created(release_id, created),),
        result=assembling.result,
    )


class AssemblyResult(Model):
    """What an assembly found: a candidate that passed its gate, or why there is none."""

    job_id: str
    base_sha: str
    candidate_sha: str | None = None
    prefix_shas: list[str] = Field(default_factory=list[str])
    head_moved: bool = False
    failure: Failure | None = None
    gate_job_ids: list[str] = Field(default_factory=list[str])
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    pinned_profiles: list[PinnedProfile] = Field(default_factory=list[PinnedProfile])
    exclusions: Exclusions | None = None
    overrides: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])


HEAD_MOVED = "head_moved"
"""The failure of an assembly, or the end of a validated candidate, whose integration head is no longer the present one."""


def _job_reason(failure: Failure) -> ReasonCode:
    """The reason code of the assembly's job: a head that moved made it pointless, what is no code of a job is a failed check."""
    if failure.reason_code == HEAD_MOVED:
        return ReasonCode.SUPERSEDED
    known = {reason.value for reason in ReasonCode}
    return ReasonCode(failure.reason_code) if failure.reason_code in known else ReasonCode.TESTS_FAILED


def decide_assembly_result(release_id: str, release: Release, found: AssemblyResult) -> Decision[Release] | None:
    """The end of an assembly: `validated`, or back to draft with the reason and without the changeset that is to blame."""
    if release.state is not ReleaseState.ASSEMBLING or release.job_id != found.job_id:
        return None
    failure = found.failure
    if failure is None and found.head_moved:
        failure = Failure(
            reason_code=HEAD_MOVED,
            message="The integration branch moved while this was assembled; assemble again.",
        )
    result = {
        "gate_job_ids": found.gate_job_ids,
        "candidate_sha": found.candidate_sha,
        "conflicts": found.conflicts,
        **(found.exclusions.model_dump(mode="json") if found.exclusions is not None else {}),
    }
    if failure is None:
        after = release.model_copy(
            update={
                "state": target(release.state, Move.ASSEMBLED),
                "base_sha": found.base_sha,
                "candidate_sha": found.candidate_sha,
                "prefix_shas": found.prefix_shas,
                "pinned_profiles": found.pinned_profiles,
                "overrides": found.overrides,
            }
        )
        end = JobEnd(id=found.job_id, state=JobState.SUCCEEDED, reason_code=ReasonCode.OK, result=result)
        events = tuple(
            release_event(
                release_id,
                action,
                release,
                after,
                git_sha=found.candidate_sha,
                base_sha=found.base_sha,
                job_ids=found.gate_job_ids,  # all of them judged the candidate, or it would not be valid
            )
            for action in ("assembled", "validated")
        )
        return Decision(after, events=events, job_ends=(end,))
    after = release.model_copy(
        update={
            "state": target(release.state, Move.RETURN),
            "failure": failure,
            "members": [member for member in release.members if member.changeset_id != failure.changeset_id],
        }
    )
    reason = _job_reason(failure)
    end = JobEnd(
        id=found.job_id,
        state=end_state(reason),
        reason_code=reason,
        summary={"message": failure.message},
        result={**result, "failure": failure.model_dump(mode="json")},
    )
    event = release_event(
        release_id,
        "assembly_failed",
        release,
        after,
        reason_code=failure.reason_code,
        changeset_id=failure.changeset_id,
        paths=failure.paths,
    )
    return Decision(after, events=(event,), job_ends=(end,))


def decide_returned(release_id: str, release: Release, failure: Failure, reason: str) -> Decision[Release]:
    """A validated release that can't be published as it is returns to draft with its members (`spec.md` 3).

    `reason` is what the audit says of it.
    """
    after = release.model_copy(
        update={
            "state": target(release.state, Move.RETURN),
            "candidate_sha": None,
            "prefix_shas": [],
            "pinned_profiles": [],
            "edit": None,
            "publishing": None,
            "failure": failure,
        }
    )
    return Decision(after, events=(release_event(release_id, "returned_to_draft", release, after, reason=reason),))


def decide_dropped(release_id: str, release: Release) -> Decision[Release]:
    """The selection is free again; the tag's number stays used."""
    after = release.model_copy(update={"state": target(release.state, Move.DROP), "edit": None})
    events = (release_event(release_id, "dropped", release, after),) if release.created else ()
    return Decision(after, events=events)


def deployed_state(environments: Sequence[str], succeeded: Sequence[str]) -> ReleaseState:
    """What a published release is, from the listed environments and those in which it has succeeded (`spec.md` 3)."""
    reached = [environment for environment in environments if environment in succeeded]
    if not reached:
        return ReleaseState.PUBLISHED
    return ReleaseState.DEPLOYED_FULL if len(reached) == len(environments) else ReleaseState.DEPLOYED_PARTIAL


def waiting_for(release: Release) -> str | None:
    """One sentence on what this release waits for; None when nothing is left to wait for."""
    if release.publishing is not None:
        return "its refs to move"
    if release.edit is not None:
        return f"the queue to answer {release.edit.kind}"
    if not release.told:
        return "the queue to be told that it is published"
    return {
        ReleaseState.DRAFT_RELEASE: "somebody to assemble it",
        ReleaseState.ASSEMBLING: "the assembly and its gate",
        ReleaseState.VALIDATED: "somebody to publish it",
    }.get(release.state)
