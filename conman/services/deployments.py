"""Deployments: the lock is taken, the record inserted, the workflow started; in this order (`durability.md` 15)."""

from __future__ import annotations

from typing import Any

from pymongo import DESCENDING

from conman.domain import deployment as rules
from conman.domain.decision import Event, NewJob
from conman.domain.deployment import Deployment, EnvironmentView, Kind, PastDeployment
from conman.domain.errors import not_found
from conman.domain.jobs import JobType, max_attempts
from conman.domain.outgoing import job_document
from conman.domain.release import Release
from conman.faults import fault_point
from conman.services.call import Call, record
from conman.services.environments import list_environments
from conman.services.platform import Platform
from conman.services.releases import refuse_unknown_release
from conman.store import locks, records
from conman.store.database import Document
from conman.workflows.client import EntityWorkflow
from conman.workflows.deployment import ApproveCommand, CancelCommand


def owned(document: Document) -> Deployment:
    """What the workflow owns of a deployment's document."""
    return Deployment.model_validate(document["owned"])


def _workflow(platform: Platform, document: Document, summary: str = "") -> EntityWorkflow:
    return platform.commands.deployment_start(document["app_id"], document["_id"], summary)


async def _views(platform: Platform, app: Document) -> list[EnvironmentView]:
    return [
        EnvironmentView(
            id=row["_id"],
            name=row["name"],
            position=row["position"],
            current_release_id=row["owned"].get("current_release_id"),
        )
        for row in await list_environments(platform, app)
    ]


async def _past(platform: Platform, release_id: str) -> list[PastDeployment]:
    """The release's deployments, newest first."""
    rows = platform.db["deployments"].find({"release_id": release_id}).sort([("_id", DESCENDING)])
    return [
        PastDeployment(environment_id=row["owned"]["environment_id"], release_id=release_id, state=row["owned"]["state"])
        async for row in rows
    ]


async def deploy(
    platform: Platform,
    call: Call,
    app: Document,
    environment: Document,
    *,
    release_id: str,
    kind: Kind,
    skip_stage: bool,
) -> Document:
    """Take the environment's lock and start a deployment; a repeat of the same request finds its own.

    Raises `validation_error`, `invalid_transition`, `stage_skipped` or `environment_locked`; then nothing is held.
    """
    deployment_id = call.derived_id("deployment", environment["_id"])
    there = await records.find(platform.db, "deployments", deployment_id)
    if there is not None:
        await platform.commands.start(_workflow(platform, there))
        return there
    release_document = refuse_unknown_release(await records.find(platform.db, "releases", release_id, app_id=app["_id"]))
    release = Release.model_validate(release_document["owned"])
    rules.check_deployable(release.state)
    views = await _views(platform, app)
    view = next((row for row in views if row.id == environment["_id"]), None)
    if view is None:
        raise not_found("environment")
    in_order = rules.passes_stage_order(release_id, view, views, await _past(platform, release_id), promote=kind is Kind.PROMOTE)
    if not in_order and not skip_stage:
        raise rules.stage_skipped(view, views)
    taken = await locks.take(platform.db, app["_id"], {environment["_id"]: deployment_id}, call.at)
    if taken.holder is not None:
        raise rules.environment_locked(taken.holder.deployment_id)
    if taken.closed is not None:
        raise rules.environment_closed(app_too=taken.closed == app["_id"])
    fault_point("deploy.locked")
    reasons = ["skip_stage"] if skip_stage and not in_order else []
    if taken.concurrent:
        reasons.append("concurrent")
    document = await _insert(platform, call, app, environment, release_document, kind, reasons, taken.fences[environment["_id"]])
    fault_point("deploy.inserted")
    summary = f"{kind.value} {release.tag} to {environment['name']}"
    await platform.commands.start(_workflow(platform, document, summary))
    return document


async def _insert(
    platform: Platform,
    call: Call,
    app: Document,
    environment: Document,
    release: Document,
    kind: Kind,
    reasons: list[str],
    fence: int,
) -> Document:
    deployment_id = call.derived_id("deployment", environment["_id"])
    job_id = call.derived_id("job", environment["_id"])
    needed = rules.approvals_needed(reasons)
    state = Deployment(
        app_id=app["_id"],
        environment_id=environment["_id"],
        release_id=release["_id"],
        kind=kind,
        requested_by=call.user_id,
        requested_at=call.at,
        skip_stage="skip_stage" in reasons,
        exceptional_reasons=reasons,
        approvals=[rules.Approval(user_id=call.user_id, at=call.at)] if needed else [],
        approvals_required=needed,
        approvals_expire_at=rules.approvals_deadline(call.at, app["settings"]["approval_ttl_hours"]) if needed else None,
        previous_deployment_id=environment["owned"].get("current_deployment_id"),
        job_id=job_id,
        fence=fence,
    )
    event = Event(
        "deployment",
        deployment_id,
        "requested",
        after={
            "environment_id": environment["_id"],
            "release_id": release["_id"],
            "kind": kind.value,
            "state": state.state.value,
            "skip_stage": state.skip_stage,
            "exceptional_reasons": reasons,
            "approvals_required": needed,
            "fence": fence,
            "job_id": job_id,
        },
    )
    job_type = JobType.DEPLOY_RELEASE
    job = NewJob(job_id, job_type, "deployment", deployment_id, max_attempts(job_type), created_by=call.user_id)
    outgoing = [
        *call.audit(event, app_id=app["_id"]),
        {"id": call.derived_id("outgoing-job"), "kind": "job", "doc": job_document(job, app_id=app["_id"], at=call.at)},
    ]
    document = {
        "_id": deployment_id,
        "app_id": app["_id"],
        "release_id": release["_id"],
        "created_at": call.at,
        "updated_at": call.at,
        "created_by": call.user_id,
        "version": 1,
        "owned": state.model_dump(mode="json"),
        "outgoing": outgoing,
    }
    made, _ = await records.insert_once(platform.db, "deployments", document)
    return made


async def approve(platform: Platform, call: Call, document: Document) -> None:
    """One person's yes."""
    command = ApproveCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after())
    await platform.commands.send(_workflow(platform, document), "approve", command)


async def cancel(platform: Platform, call: Call, document: Document) -> None:
    """Stop a deployment that has not switched yet; back when it has ended."""
    command = CancelCommand(id=call.command_id, actor=call.actor, not_after=platform.commands.not_after())
    await platform.commands.send(_workflow(platform, document), "cancel", command)


def deployment_record(document: Document) -> dict[str, Any]:
    """A deployment as `api.md` 4 shows it."""
    state = owned(document)
    return record(
        document,
        environment_id=state.environment_id,
        release_id=state.release_id,
        state=state.state.value,
        phase=state.phase.value,
        kind=state.kind.value,
        group_id=None,
        requested_by=state.requested_by,
        skip_stage=state.skip_stage,
        exceptional_reasons=state.exceptional_reasons,
        approvals=[approval.model_dump(mode="json") for approval in state.approvals],
        approvals_required=state.approvals_required,
        approvals_expire_at=state.approvals_expire_at,
        not_before=None,
        drift_report=None,
        profile_revision_id=state.profile_revision_id,
        previous_deployment_id=state.previous_deployment_id,
        reason_code=state.reason_code.value if state.reason_code else None,
        message=state.message,
        job_id=state.job_id,
        gate_job_id=state.gate_job_id,
        fence=state.fence,
        folder=state.folder,
        waiting_for=rules.waiting_for(state),
    )
