"""Records in the states that the tests start from, and the commands that they send."""

from __future__ import annotations

from typing import Any

from workflow_names import sha, uid
from workflow_world import World

from conman.domain.changeset import Changeset, ChangesetState, Gate, Move, Revision
from conman.domain.changeset_commands import (
    LeaveCommand,
    QueueCommand,
    RequestReviewCommand,
    RetryCommand,
    ReviewCommand,
    SubmitCommand,
    TakeBackCommand,
)
from conman.domain.changeset_submit import SubmitFacts
from conman.domain.decision import Command
from conman.domain.deployment import Deployment
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import NewsCommand
from conman.domain.queue import Entry, Queue
from conman.domain.release import Member, Release, ReleaseState
from conman.workflows.client import EntityWorkflow

AT = "2026-03-01T09:30:00.000Z"


def revision(world: World, number: int = 1) -> Revision:
    return Revision(
        revision_number=number,
        head_sha=sha(f"head-{number}"),
        base_sha=sha("main-1"),
        integration_sha=sha("main-1"),
        job_id=world.id(f"gate {number}"),
        created_at=AT,
    )


def changeset(world: World, state: ChangesetState = ChangesetState.DRAFT, **fields: Any) -> EntityWorkflow:
    """A changeset's record in a state, and its workflow."""
    submitted = state is not ChangesetState.DRAFT
    owned = Changeset(
        app_id=world.app_id,
        author_user_id=world.id("author"),
        workspace_id=world.id("workspace"),
        title="Higher limits",
        state=state,
        head_sha=sha("head-1") if submitted else None,
        base_sha=sha("main-1") if submitted else None,
        revisions=[revision(world)] if submitted else [],
        gate=Gate(state=JobState.SUCCEEDED, job_id=world.id("gate 1"), reason_code=ReasonCode.OK) if submitted else None,
    ).model_copy(update=fields)
    world.store.insert("changesets", world.id("changeset"), owned.model_dump(mode="json"))
    return world.commands.changeset_start(world.app_id, world.id("changeset"))


def shown(world: World) -> Changeset:
    """The changeset's record now."""
    return Changeset.model_validate(world.store.owned("changesets", world.id("changeset")))


async def submit(world: World, number: int = 1, *, command_id: str | None = None, again: bool = False) -> Command:
    facts = SubmitFacts(
        head_sha=sha(f"head-{number}"),
        base_sha=sha("main-1"),
        integration_sha=sha("main-1"),
        changed_files=1,
        job_id=world.id(f"gate {number}"),
        at=AT,
        required_approvals=1,
    )
    return await world.command(SubmitCommand, command_id=command_id, by="author", facts=facts.model_dump(), again=again)


async def review(world: World, action: str = "approve", *, by: str = "reviewer", required: int = 1) -> Command:
    facts = {"review_id": world.id(f"review {by}"), "action": action, "at": AT, "required_approvals": required}
    return await world.command(ReviewCommand, by=by, facts=facts)


async def ask_review(world: World, *, of: str = "reviewer", command_id: str | None = None) -> Command:
    return await world.command(RequestReviewCommand, command_id=command_id, by="author", reviewer_user_id=world.id(of), at=AT)


async def retry(world: World, job: str = "gate 1", *, new: str = "gate again", command_id: str | None = None) -> Command:
    ids = {"job_id": world.id(job), "new_job_id": world.id(new)}
    return await world.command(RetryCommand, command_id=command_id, by="author", **ids)


async def queue_up(world: World, *, command_id: str | None = None) -> Command:
    facts = {"integration_sha": sha("main-1"), "up_to_date": True, "at": AT}
    return await world.command(QueueCommand, command_id=command_id, facts=facts)


async def take_back(world: World, *, of: str = "reviewer", until: str | None = None) -> Command:
    return await world.command(TakeBackCommand, reviewer_user_id=world.id(of), until=until)


async def leave(world: World, move: Move = Move.WITHDRAW, *, command_id: str | None = None) -> Command:
    return await world.command(LeaveCommand, command_id=command_id, move=move)


async def news(world: World, kind: str, head: str = "head-1") -> Command:
    return await world.command(
        NewsCommand, news={"kind": kind, "head_sha": sha(head), "job_id": uid("job"), "release_id": uid("release")}
    )


def entry(name: str, **fields: Any) -> Entry:
    """An entry of a queue that is judged on its integration head."""
    base: dict[str, Any] = {"changeset_id": uid(name), "author_user_id": uid("ada"), "title": name, "revision_number": 1}
    base |= {"head_sha": sha(name), "base_sha": sha("main-1"), "queued_at": AT, "judged_sha": sha("main-1")}
    return Entry.model_validate(base | fields)


def queue(world: World, *entries: Entry, **fields: Any) -> EntityWorkflow:
    """A queue's record, and its workflow."""
    owned = Queue(app_id=world.app_id, integration_sha=sha("main-1"), entries=list(entries)).model_copy(update=fields)
    world.store.insert("queues", world.app_id, owned.model_dump(mode="json"))
    return world.commands.queue_start(world.app_id)


def queue_shown(world: World) -> Queue:
    return Queue.model_validate(world.store.owned("queues", world.app_id))


def member(name: str) -> Member:
    return Member(changeset_id=uid(name), head_sha=sha(name), base_sha=sha("main-1"), revision_number=1, title=name)


def release(world: World, state: ReleaseState = ReleaseState.DRAFT_RELEASE, *names: str, **fields: Any) -> EntityWorkflow:
    """A release's record in a state, and its workflow."""
    created = bool(names)
    validated = state is ReleaseState.VALIDATED
    owned = Release(
        app_id=world.app_id,
        state=state,
        created=created,
        tag="r2026.03.01.1" if created else None,
        members=[member(name) for name in names],
        base_sha=sha("main-1") if validated else None,
        candidate_sha=sha("candidate") if validated else None,
        prefix_shas=[*(sha(f"prefix-{number}") for number in range(1, len(names))), sha("candidate")] if validated else [],
    ).model_copy(update=fields)
    world.store.insert("releases", world.id("release"), owned.model_dump(mode="json"))
    return world.commands.release_start(world.app_id, world.id("release"))


def release_shown(world: World) -> Release:
    return Release.model_validate(world.store.owned("releases", world.id("release")))


def deployment(world: World, **fields: Any) -> EntityWorkflow:
    """A deployment's record that has its lock, and its workflow."""
    owned = Deployment(
        app_id=world.app_id,
        environment_id=world.id("environment"),
        release_id=world.id("release"),
        requested_by=world.id("manager"),
        requested_at=AT,
        job_id=world.id("job"),
        fence=7,
    ).model_copy(update=fields)
    world.store.insert("deployments", world.id("deployment"), owned.model_dump(mode="json"))
    return world.commands.deployment_start(world.app_id, world.id("deployment"))


def deployment_shown(world: World) -> Deployment:
    return Deployment.model_validate(world.store.owned("deployments", world.id("deployment")))
