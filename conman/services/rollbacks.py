"""Rollbacks: the lock is taken, the deployment inserted, and all goes on by itself (`spec.md` 12, `durability.md` 15).

A undoes a release by a new one: the deployment is the recorded intent of both, `rollback:{id}` makes the release and sees it
through. B deploys an earlier release again, with the profile revision that it had here; Git is not touched.
"""

from __future__ import annotations

import asyncio

import structlog
from pymongo import DESCENDING

from conman.domain import deployment as states
from conman.domain.decision import Actor
from conman.domain.deploy_messages import ReleaseFailedCommand, ReleaseReadyCommand
from conman.domain.deployment import Deployment, DeploymentState, Kind, Rollback, RollbackMode
from conman.domain.errors import ConmanError, DomainError, ErrorCode
from conman.domain.ids import derived_uuid7
from conman.domain.release import Release
from conman.domain.rollback import ReleaseName, check_returnable, check_undoable, reverting_release_id
from conman.domain.rollback_messages import RollbackNews
from conman.domain.times import milliseconds
from conman.faults import fault_point
from conman.services.call import Call
from conman.services.clock import now
from conman.services.deploy_commands import start_of, tell_superseded
from conman.services.new_deployments import new_document, requested
from conman.services.platform import Platform
from conman.services.releases import refuse_unknown_release
from conman.services.rollback_trial import try_revert
from conman.store import locks, records
from conman.store.database import Database, Document
from conman.store.outgoing import deliver
from conman.workflows.client import Commands, EntityWorkflow
from conman.workflows.release import RevertCommand

log = structlog.get_logger(__name__)

MOST_TAKEN_ALONG = 50
"""How many newer releases a return names whose changes leave the environment with it."""
BEGINNING_SECONDS = 10.0
"""How long a request waits for the release of a rollback to be made; its own process makes one that is not there by then."""


async def roll_back(
    platform: Platform, call: Call, app: Document, environment: Document, release_id: str, mode: RollbackMode
) -> Document:
    """Undo a release, or return to one; the deployment that does it. A repeat of the same request finds its own.

    Raises `validation_error`, `invalid_transition`, `environment_locked`, `marked_bad`, or `conflict`; then nothing has changed.
    """
    deployment_id = call.derived_id("deployment", environment["_id"])
    made = await records.find(platform.db, "deployments", deployment_id)
    if made is None:
        release = refuse_unknown_release(await records.find(platform.db, "releases", release_id, app_id=app["_id"]))
        await _refuse_locked(platform, app, environment)
        rollback = await _judged(platform, app, environment, release, mode)
        made = await _locked_and_inserted(platform, call, environment, release, rollback, deployment_id)
    return await _started(platform, made)


async def _refuse_locked(platform: Platform, app: Document, environment: Document) -> None:
    """The lock comes first: who runs there is told before anything is tried. The write on the lock has the last word."""
    document = await locks.document_of(platform.db, app["_id"])
    if document.get("closed") or app.get("archived"):
        raise states.environment_closed(app_too=True)
    held = (await locks.active_in(platform.db, document["environments"], now())).get(environment["_id"])
    if held is not None and held.state == "running":
        raise states.environment_locked(held.deployment_id)


# -- Whether it may be


async def _judged(platform: Platform, app: Document, environment: Document, release: Document, mode: RollbackMode) -> Rollback:
    state = Release.model_validate(release["owned"])
    if mode is RollbackMode.REDEPLOY_PRIOR_TAG:
        return await _return(platform, environment, release, state)
    check_undoable(state)
    head = await platform.git.resolve(app["repo_path"], f"refs/heads/{app['integration_branch']}")
    if head is None:
        raise DomainError(ErrorCode.CONFLICT, f"The integration branch {app['integration_branch']} is gone: restore it first.")
    trial = await try_revert(platform, platform.git, app["repo_path"], head, release)
    if trial.refused is not None:
        raise trial.refused
    return Rollback(mode=mode, release_id=release["_id"])


async def _return(platform: Platform, environment: Document, release: Document, state: Release) -> Rollback:
    past = await _successes(platform.db, environment["_id"])
    name = ReleaseName(release_id=release["_id"], tag=state.tag or "")
    bad: list[str] = environment["owned"].get("bad_release_ids", [])
    check_returnable(name, state, environment["name"], await _named(platform.db, past), bad)
    then = next(row for row in past if row["release_id"] == release["_id"])
    current: str | None = environment["owned"].get("current_release_id")
    replaced = current if current != release["_id"] else None
    return Rollback(
        mode=RollbackMode.REDEPLOY_PRIOR_TAG,
        release_id=release["_id"],
        profile_revision_id=then["owned"]["profile_revision_id"],
        replaced_release_id=replaced,
        takes_along=await _newer(platform.db, release, replaced),
    )


async def _successes(db: Database, environment_id: str) -> list[Document]:
    """The deployments that succeeded in an environment, newest first: the fence orders them there."""
    query = {"owned.environment_id": environment_id, "owned.state": DeploymentState.SUCCEEDED.value}
    wanted = {"release_id": 1, "owned.profile_revision_id": 1, "owned.fence": 1}
    return await db["deployments"].find(query, wanted).sort([("owned.fence", DESCENDING)]).to_list()


async def _named(db: Database, past: list[Document]) -> list[ReleaseName]:
    """The releases of deployments, each once, in their order."""
    ids = list(dict.fromkeys(row["release_id"] for row in past))
    rows = db["releases"].find({"_id": {"$in": ids}}, {"owned.tag": 1})
    tags = {row["_id"]: row["owned"]["tag"] async for row in rows}
    return [ReleaseName(release_id=one, tag=tags[one]) for one in ids if one in tags]


async def _newer(db: Database, release: Document, replaced: str | None) -> list[str]:
    """The tags of the releases after this one, up to the replaced one: their changes leave the environment too."""
    rows = {row["_id"]: row async for row in db["releases"].find({"_id": {"$in": [release["_id"], replaced]}})}
    if replaced not in rows:
        return []
    since, until = (rows[one]["owned"]["published_at"] for one in (release["_id"], replaced))
    between = {"app_id": release["app_id"], "owned.published_at": {"$gt": since, "$lte": until}}
    found = db["releases"].find(between, {"owned.tag": 1}).sort([("owned.published_at", DESCENDING)]).limit(MOST_TAKEN_ALONG)
    return [row["owned"]["tag"] async for row in found]


# -- The recorded intent


async def _locked_and_inserted(
    platform: Platform, call: Call, environment: Document, release: Document, rollback: Rollback, deployment_id: str
) -> Document:
    db, app_id, environment_id = platform.db, environment["app_id"], environment["_id"]
    taken = await locks.take(db, app_id, {environment_id: deployment_id}, now(), over_pending=True)
    if taken.holder is not None:
        raise states.environment_locked(taken.holder.deployment_id)
    if taken.closed is not None:
        raise states.environment_closed(app_too=taken.closed == app_id)
    fault_point("rollback.locked")
    present = await records.get(db, "environments", environment_id, what="environment")
    if rollback.mode is RollbackMode.REDEPLOY_PRIOR_TAG:
        # Read again under the lock: a deployment that was at its end may have ended since.
        current: str | None = present["owned"].get("current_release_id")
        rollback = rollback.model_copy(update={"replaced_release_id": current if current != rollback.release_id else None})
    document = _document(call, present, release, rollback, deployment_id, taken.fences[environment_id])
    if environment_id in taken.superseded:
        document["supersedes_untold"] = taken.superseded[environment_id]
    made, _ = await records.insert_once(db, "deployments", document)
    fault_point("rollback.inserted")
    return made


def _document(
    call: Call, environment: Document, release: Document, rollback: Rollback, deployment_id: str, fence: int
) -> Document:
    undoes = rollback.mode is RollbackMode.REVERT_AND_RELEASE
    state = Deployment(
        app_id=environment["app_id"],
        environment_id=environment["_id"],
        release_id=None if undoes else release["_id"],
        kind=Kind.ROLLBACK,
        requested_by=call.user_id,
        requested_at=call.at,
        rollback=rollback,
        previous_deployment_id=environment["owned"].get("current_deployment_id"),
        job_id=call.derived_id("job", environment["_id"]),
        fence=fence,
    )
    audit = call.audit(requested(deployment_id, state), app_id=state.app_id)
    document = new_document(deployment_id, state, audit=audit, job_entry_id=call.derived_id("outgoing-job"))
    document["title"] = f"{'undo' if undoes else 'return to'} {release['owned']['tag']} in {environment['name']}"
    return document


async def _started(platform: Platform, document: Document) -> Document:
    await deliver(platform.db, "deployments", document)
    await platform.commands.start(start_of(platform.commands, document, document.get("title", "")))
    if waits_for_release(document):
        await _begin_soon(platform, document)
        await platform.commands.start(platform.commands.rollback_start(document["app_id"], document["_id"], document["title"]))
    if document.get("supersedes_untold") is not None:
        await tell_superseded(platform.db, platform.commands, document)
    return document


def waits_for_release(document: Document) -> bool:
    """Whether a deployment undoes a release and its new one is still to be published."""
    owned = document["owned"]
    mode = (owned.get("rollback") or {}).get("mode")
    undoes = mode == RollbackMode.REVERT_AND_RELEASE.value
    return undoes and owned["release_id"] is None and owned["state"] == DeploymentState.PENDING.value


async def _begin_soon(platform: Platform, document: Document) -> None:
    """Make the new release, so that the answer can name it; never fails, since the rollback's process does it too."""
    try:
        async with asyncio.timeout(BEGINNING_SECONDS):
            await begin_release(platform.db, platform.commands, document)
    except (TimeoutError, ConmanError) as error:
        log.warning("release_left_to_the_rollback", deployment_id=document["_id"], error=str(error))


# -- The steps that the rollback's process repeats


async def begin_release(db: Database, commands: Commands, deployment: Document) -> None:
    """Make the record of the release that undoes another, and have it assembled; a repeat changes nothing.

    Raises `DomainError` for what refuses it, `Unavailable` when its process does not answer.
    """
    state = Deployment.model_validate(deployment["owned"])
    rollback = state.rollback
    if rollback is None:
        raise ValueError(f"deployment {deployment['_id']} is no rollback")
    release_id = reverting_release_id(deployment["_id"])
    owned = Release(app_id=state.app_id, reverts_release_id=rollback.release_id, rollback_id=deployment["_id"])
    document: Document = {
        "_id": release_id,
        "app_id": state.app_id,
        "created_at": state.requested_at,
        "updated_at": state.requested_at,
        "created_by": state.requested_by,
        "version": 1,
        "owned": owned.model_dump(mode="json"),
        "outgoing": [],
    }
    made, _ = await records.insert_once(db, "releases", document)
    fault_point("rollback.release_inserted")
    if made["owned"]["created"]:
        return
    command = RevertCommand(
        id=f"rollback:{deployment['_id']}:revert",
        actor=Actor(user_id=state.requested_by),
        not_after=commands.not_after(),
        job_id=derived_uuid7(milliseconds(state.requested_at), "revert-assembly", deployment["_id"]),
    )
    await commands.send(release_workflow(commands, made), "revert", command)


def release_workflow(commands: Commands, release: Document) -> EntityWorkflow:
    """The process of a release's record."""
    return commands.release_start(release["app_id"], release["_id"], release["owned"].get("tag") or "")


async def tell_deployment(commands: Commands, deployment: Document, news: RollbackNews) -> None:
    """The deployment goes on with its release, or fails without one; one that has ended meanwhile needs no news."""
    actor, not_after = Actor(), commands.not_after()
    command_id = f"rollback:{deployment['_id']}:{news.release_id or 'failed'}"
    if news.release_id is not None:
        update = "release_ready"
        command = ReleaseReadyCommand(id=command_id, actor=actor, not_after=not_after, release_id=news.release_id)
    else:
        update = "release_failed"
        command = ReleaseFailedCommand(
            id=command_id, actor=actor, not_after=not_after, reason_code=news.reason_code, message=news.message
        )
    try:
        await commands.send(start_of(commands, deployment), update, command)
    except DomainError as error:
        if error.code not in (ErrorCode.INVALID_TRANSITION, ErrorCode.CONFLICT):
            raise
        log.info("rollback_news_came_late", deployment_id=deployment["_id"], error=error.message)


async def release_of(platform: Platform, deployment: Document) -> Document | None:
    """The release that undoes another for a deployment, once it is made."""
    found = await records.find(platform.db, "releases", reverting_release_id(deployment["_id"]))
    return found if found is not None and found["owned"]["created"] else None
