"""Jobs and their logs (`spec.md` 9)."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.changeset_commands import RetryCommand
from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode
from conman.domain.messages import RevalidateCommand
from conman.domain.queue import RetriedJob
from conman.domain.temp_env_messages import CancelProvision
from conman.services import deploy_commands
from conman.services.call import Call, has_happened, keep, recall, record
from conman.services.platform import Platform
from conman.store import records
from conman.store.database import Database, Document
from conman.workflows import options
from conman.workflows.client import Commands

FIELDS = (
    "job_type",
    "state",
    "reason_code",
    "entity_type",
    "entity_id",
    "attempt",
    "max_attempts",
    "queued_at",
    "started_at",
    "finished_at",
    "exit_code",
    "summary",
    "progress",
    "result",
)
ENDED = ("succeeded", "failed", "canceled")
START_SECONDS = 3.0
"""How long a cancel waits for the process of a job that was queued just now."""
MOST_CANCELS = 200
"""So many jobs are stopped in one round of upkeep."""
WITH_A_PROCESS = frozenset(
    {
        JobType.MSUITE_SUBMIT,
        JobType.MSUITE_MERGE,
        JobType.MSUITE_DEPLOY,
        JobType.REVALIDATE_QUEUED_CHANGESET,
        JobType.RELEASE_ASSEMBLE,
        JobType.TEMP_ENV_PROVISION,
    }
)
"""Types of jobs that get a process, sooner or later: of their own, or that of the temp env that is provisioned."""
_CANCEL_INSTEAD = {
    JobType.RUNTIME_PROFILE_DRIFT_CHECK: "it changes nothing and ends by itself",
    JobType.TEMP_ENV_EXPIRE: "it is tried until nothing is left",
}


async def author_of(platform: Platform, job: Document) -> str:
    """A gate is the author's whose changeset it judges; no other job is anybody's own."""
    if job["entity_type"] != "changeset":
        return ""
    changeset = await records.get(platform.db, "changesets", job["entity_id"], what="changeset")
    return changeset["owned"]["author_user_id"]


def job_record(job: Document) -> dict[str, Any]:
    """A job as `api.md` 4 shows it."""
    return record(job, *FIELDS)


async def cancel(platform: Platform, call: Call, job: Document) -> None:
    """Stop a job; its verdict is `canceled` once its process has ended. Audited once, however often it is asked.

    One that is queued and has no process yet is stopped as soon as it has one. The job of a deployment is canceled with the
    deployment, as `deploy_commands.cancel` does and audits it. Raises `invalid_transition` for one that has ended, `conflict` for
    one that nothing can stop, saying what to do.
    """
    kind = JobType(job["job_type"])
    if kind is JobType.DEPLOY_RELEASE:
        deployment = await records.get(platform.db, "deployments", job["entity_id"], what="deployment")
        await deploy_commands.cancel(platform, call, deployment)
        return
    if await _was_asked(platform.db, call, job):
        await _stop(platform.commands, job, call.user_id)
        return
    if job["state"] in ENDED:
        raise _ended(job)
    await _await_process(platform.commands, job)
    asked = await _ask(platform.db, call, job)
    await _stop(platform.commands, asked, call.user_id)


async def _was_asked(db: Database, call: Call, job: Document) -> bool:
    """Whether an earlier request with this `Idempotency-Key` has asked for the end."""
    return await recall(db, call) is not None or await has_happened(db, call, job)


async def _ask(db: Database, call: Call, job: Document) -> Document:
    """Keep that the job is to end, with the audit of who asked first. Raises `invalid_transition` when it has ended meanwhile."""
    event = Event(
        "job",
        job["_id"],
        "canceled",
        before={"state": job["state"]},
        after={"state": "canceled", "job_type": job["job_type"]},
    )
    first = {"_id": job["_id"], "state": {"$nin": list(ENDED)}, "cancel_asked_at": {"$exists": False}}
    change = {"$set": {"cancel_asked_at": call.at}}
    outgoing = call.audit(event, app_id=job["app_id"])
    asked = await records.write_where(db, "jobs", first, change, outgoing=outgoing)
    if asked is None:
        asked = await records.get(db, "jobs", job["_id"], what="job")
        if "cancel_asked_at" not in asked:
            raise _ended(asked)
    await keep(db, call, {"job_id": job["_id"]})
    return asked


async def _await_process(commands: Commands, job: Document) -> None:
    """Wait a moment for the process of a job that was queued just now. Raises `conflict` for one that nothing can stop.

    A queued job without one may wait for its turn, as revalidations do: then upkeep stops its process when there is one.
    """
    handle = commands.client.get_workflow_handle(_process(job))
    patience = START_SECONDS if job["state"] == JobState.QUEUED.value else 0.0
    until = asyncio.get_running_loop().time() + patience
    while True:
        try:
            found = await handle.describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        else:
            if found.status is WorkflowExecutionStatus.RUNNING:
                return
            raise DomainError(ErrorCode.CONFLICT, "The job's process has just ended: look at the job again.")
        if asyncio.get_running_loop().time() >= until:
            break
        await asyncio.sleep(0.1)
    kind = JobType(job["job_type"])
    if job["state"] != JobState.QUEUED.value or kind not in WITH_A_PROCESS:
        instead = _CANCEL_INSTEAD.get(kind, "cancel what it works for")
        raise DomainError(ErrorCode.CONFLICT, f"This job of type {kind.value} has no process to stop: {instead}.")


def _process(job: Document) -> str:
    """The workflow id of what carries the job out."""
    provisions = job["job_type"] == JobType.TEMP_ENV_PROVISION.value
    return options.temp_env_workflow(job["entity_id"]) if provisions else options.job_workflow(job["_id"])


async def _stop(commands: Commands, job: Document, user_id: str | None = None) -> bool:
    """Ask the job's process to end; False: it has none now. One that was asked before, or has ended, stays as it is.

    A temp env is told of its job: a cancel of its process would end it also when it has been provisioned meanwhile.
    """
    if job["state"] in ENDED:
        return False
    handle = commands.client.get_workflow_handle(_process(job))
    try:
        if job["job_type"] == JobType.TEMP_ENV_PROVISION.value:
            await handle.signal("cancel_provision", CancelProvision(job_id=job["_id"], user_id=user_id))
        else:
            await handle.cancel()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def finish_cancels(db: Database, commands: Commands) -> int:
    """Stop the processes of jobs that are to end, where a crash or a job that had none yet left them: upkeep's part.

    Returns how many were asked to end.
    """
    query = {"cancel_asked_at": {"$exists": True}, "state": {"$nin": list(ENDED)}}
    rows = await db["jobs"].find(query, {"state": 1, "job_type": 1, "entity_id": 1}).limit(MOST_CANCELS).to_list()
    return sum([await _stop(commands, row) for row in rows])


_RETRY_INSTEAD = {
    JobType.MSUITE_MERGE: "assemble the release again",
    JobType.RELEASE_ASSEMBLE: "assemble the release again",
    JobType.MSUITE_DEPLOY: "deploy again",
    JobType.DEPLOY_RELEASE: "deploy again",
    JobType.RUNTIME_PROFILE_DRIFT_CHECK: "check for drift again",
    JobType.TEMP_ENV_PROVISION: "recreate the temporary environment",
    JobType.TEMP_ENV_EXPIRE: "delete the temporary environment",
}


async def retry(platform: Platform, call: Call, job: Document) -> Document:
    """Run a changeset's gate again that ended without a verdict, or its latest revalidation: the new job (`spec.md` 3 and 10).

    A repeat with the same `Idempotency-Key` finds the first one's. Raises `invalid_transition` for one that runs or has a verdict
    (of a revalidation: that passed), `conflict` for what is no longer current, or is no such gate.
    """
    earlier = await recall(platform.db, call)
    if earlier is not None:
        return await records.get(platform.db, "jobs", earlier["job_id"], what="job")
    kind = JobType(job["job_type"])
    if kind in _RETRY_INSTEAD:
        raise DomainError(ErrorCode.CONFLICT, f"A job of type {kind.value} is not retried: {_RETRY_INSTEAD[kind]}.")
    commands, changeset_id = platform.commands, job["entity_id"]
    changeset = await records.get(platform.db, "changesets", changeset_id, what="changeset")
    said = {"id": call.command_id, "actor": call.actor, "not_after": commands.not_after()}
    if kind is JobType.MSUITE_SUBMIT:
        again = RetryCommand(**said, job_id=job["_id"], new_job_id=call.derived_id("job"))
        start = commands.changeset_start(job["app_id"], changeset_id, changeset["title"])
        result = await commands.send(start, "retry", again)
    else:
        if job["state"] not in ENDED:
            raise DomainError(
                ErrorCode.INVALID_TRANSITION,
                f"A revalidation that is {job['state']} can't become queued again: wait for its end, or cancel it first.",
                {"from": job["state"], "to": JobState.QUEUED.value},
            )
        if job["state"] == JobState.SUCCEEDED.value:
            raise DomainError(
                ErrorCode.INVALID_TRANSITION,
                "A revalidation that is succeeded can't become queued again: revalidate the changeset to have it judged anew.",
                {"from": job["state"], "to": JobState.QUEUED.value},
            )
        retried = RetriedJob(job_id=job["_id"], state=JobState(job["state"]), reason_code=ReasonCode(job["reason_code"]))
        revalidate = RevalidateCommand(**said, changeset_id=changeset_id, retried=retried)
        result = await commands.send(commands.queue_start(job["app_id"]), "revalidate", revalidate)
    # The queue remembers its latest commands only, its own among them: a sweep makes it forget this one within a minute.
    await keep(platform.db, call, {"job_id": result["job_id"]})
    return await records.get(platform.db, "jobs", result["job_id"], what="job")


def _ended(job: Document) -> DomainError:
    return DomainError(
        ErrorCode.INVALID_TRANSITION,
        f"A job that is {job['state']} can't become canceled.",
        {"from": job["state"], "to": "canceled"},
    )
