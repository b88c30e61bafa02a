"""Sending commands to workflows: each entity's way to be started, and the front door's patience (`durability.md` 4-8, 10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.api.workflowservice.v1 import DescribeScheduleRequest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from conman.domain.decision import Command
from conman.domain.deploy_messages import DriftCheckStart
from conman.domain.errors import DomainError, ErrorCode, Unavailable
from conman.domain.mail import Wave
from conman.domain.messages import EntityStart
from conman.domain.notification import NotifyStart
from conman.domain.temp_env import ENTITY_TYPE
from conman.domain.times import format_time
from conman.domain.webhook import WebhookStart
from conman.workflows import options
from conman.workflows.codec import CodecError, KeyringCodec, data_converter
from conman.workflows.entity import DRAINING
from conman.workflows.upkeep import UPKEEP_ID

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""Commands per entity that one front door lets through at once; the rest wait briefly (`durability.md` 7)."""


async def connect(address: str, namespace: str, codec: KeyringCodec) -> Client:
    """A Temporal client that speaks pydantic behind the codec; workers made from it do too.

    Raises `RuntimeError` or `RPCError` when the server is not there.
    """
    return await Client.connect(address, namespace=namespace, data_converter=data_converter(codec))


async def check_codec(client: Client, codec: KeyringCodec) -> None:
    """Read the upkeep schedule, which every worker writes anew when it starts, so that a key that others use is missed at once.

    Raises `CodecError` for a missing or wrong key, and `RPCError`. A namespace without the schedule is fresh.
    """
    request = DescribeScheduleRequest(namespace=client.namespace, schedule_id=UPKEEP_ID)
    try:
        described = await client.workflow_service.describe_schedule(request)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return
        raise
    await codec.decode([described.schedule.action.start_workflow.user_metadata.summary])


@dataclass(frozen=True, slots=True)
class EntityWorkflow:
    """How the workflow of one record is named and started."""

    workflow: str
    workflow_id: str
    start: EntityStart
    entity_type: str
    summary: str

    def operation(self) -> WithStartWorkflowOperation[Any, Any]:
        """A fresh start operation: one is good for one call."""
        return WithStartWorkflowOperation(
            self.workflow,
            self.start,
            id=self.workflow_id,
            task_queue=options.queue_name(options.Queue.MAIN),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            task_timeout=options.WORKFLOW_TASK_TIMEOUT,
            search_attributes=options.search_attributes(self.start.app_id, self.entity_type, self.start.entity_id),
            static_summary=self.summary,
            static_details=f"{self.entity_type} {self.start.entity_id} of app {self.start.app_id}",
        )


async def signal_if_running(client: Client, workflow_id: str, name: str) -> None:
    """Tell a workflow; one that has ended, or was lost, has no use for it: what comes back from its record looks by itself."""
    try:
        await client.get_workflow_handle(workflow_id).signal(name)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


class Commands:
    """The front door to workflows."""

    def __init__(self, client: Client, *, timeout_seconds: float = 30.0) -> None:
        self.client = client
        self.timeout_seconds = timeout_seconds
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    def changeset_start(self, app_id: str, changeset_id: str, title: str = "") -> EntityWorkflow:
        """The workflow of a changeset."""
        start = EntityStart(app_id=app_id, entity_id=changeset_id)
        return EntityWorkflow(
            "changeset", options.changeset_workflow(changeset_id), start, "changeset", f"changeset {title or changeset_id}"
        )

    def queue_start(self, app_id: str) -> EntityWorkflow:
        """The workflow of an app's queue."""
        start = EntityStart(app_id=app_id, entity_id=app_id)
        return EntityWorkflow("queue", options.queue_workflow(app_id), start, "queue", f"queue of app {app_id}")

    def release_start(self, app_id: str, release_id: str, tag: str = "") -> EntityWorkflow:
        """The workflow of a release."""
        start = EntityStart(app_id=app_id, entity_id=release_id)
        return EntityWorkflow("release", options.release_workflow(release_id), start, "release", f"release {tag or release_id}")

    def deployment_start(self, app_id: str, deployment_id: str, summary: str = "") -> EntityWorkflow:
        """The workflow of a deployment."""
        start = EntityStart(app_id=app_id, entity_id=deployment_id)
        return EntityWorkflow(
            "deployment",
            options.deployment_workflow(deployment_id),
            start,
            "deployment",
            summary or f"deployment {deployment_id}",
        )

    def rollback_start(self, app_id: str, deployment_id: str, summary: str = "") -> EntityWorkflow:
        """The workflow that makes the release which undoes another, for a deployment."""
        start = EntityStart(app_id=app_id, entity_id=deployment_id)
        workflow_id = options.rollback_workflow(deployment_id)
        return EntityWorkflow("rollback", workflow_id, start, "rollback", summary or f"rollback {deployment_id}")

    def temp_env_start(self, app_id: str, temp_env_id: str, label: str = "") -> EntityWorkflow:
        """The workflow of a temp env."""
        start = EntityStart(app_id=app_id, entity_id=temp_env_id)
        workflow_id = options.temp_env_workflow(temp_env_id)
        return EntityWorkflow("temp-env", workflow_id, start, ENTITY_TYPE, f"temp env {label or temp_env_id}")

    async def start_notice(self, notice_id: str, wave: Wave | None = None, *, again: bool = False) -> None:
        """Start the workflow that sends a notice, once and for all (`durability.md` 21); one that runs already is healthy.

        `wave` are its first mails, where they are known: they are not looked for again. `again` starts another one after one that
        has ended, for mails that somebody wants tried again. Raises `WorkflowAlreadyStartedError` when one has ended and `again`
        is False, `TimeoutError` or `RPCError` when Temporal does not answer.
        """
        await self.client.start_workflow(
            "notify",
            NotifyStart(notice_id=notice_id, wave=wave),
            id=options.notify_workflow(notice_id),
            task_queue=options.queue_name(options.Queue.MAIN),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE if again else WorkflowIDReusePolicy.REJECT_DUPLICATE,
            task_timeout=options.WORKFLOW_TASK_TIMEOUT,
            search_attributes=options.notice_search_attributes(notice_id, *((wave.app_id, wave.actor_user_id) if wave else ())),
            static_summary=f"notice {notice_id}",
            static_details=f"Tells people by mail what the record `{notice_id}` in `notifications` says.",
        )

    async def start_webhook(self, app_id: str) -> None:
        """Have an app's webhook told what is due: start its process, or wake the one that runs.

        Raises `RPCError` when Temporal does not answer.
        """
        await self.client.start_workflow(
            "webhook",
            WebhookStart(app_id=app_id),
            id=options.webhook_workflow(app_id),
            task_queue=options.queue_name(options.Queue.MAIN),
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="wake",
            task_timeout=options.WORKFLOW_TASK_TIMEOUT,
            search_attributes=options.search_attributes(app_id, "webhook", app_id),
            static_summary=f"webhook of app {app_id}",
            static_details="Tells the app's webhook what `webhook_deliveries` has for it (`conman webhooks list`).",
        )

    async def start_drift_check(self, start: DriftCheckStart) -> None:
        """Start the process of a look at an environment, unless the job's has ended by itself. Raises `outcome_unknown`."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self.client.start_workflow(
                    "drift_check",
                    start,
                    id=options.job_workflow(start.job_id),
                    task_queue=options.queue_name(options.Queue.MAIN),
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                    task_timeout=options.WORKFLOW_TASK_TIMEOUT,
                    search_attributes=options.search_attributes(start.app_id, "job", start.job_id),
                    static_summary=f"drift check: {start.environment or start.environment_id}",
                    static_details=f"Looks whether environment {start.environment_id} is as Conman left it.",
                )
        except WorkflowAlreadyStartedError:
            log.debug("drift_check_has_ended", job_id=start.job_id)
        except (TimeoutError, RPCError) as error:
            raise _unknown() from error

    def not_after(self) -> str:
        """The time after which the command that is about to be sent must not be carried out."""
        return format_time(datetime.now(UTC) + timedelta(seconds=self.timeout_seconds))

    async def start(self, entity: EntityWorkflow) -> None:
        """Start the workflow of a record that was inserted; one that runs already is healthy."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self.client.start_workflow(
                    entity.workflow,
                    entity.start,
                    id=entity.workflow_id,
                    task_queue=options.queue_name(options.Queue.MAIN),
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    task_timeout=options.WORKFLOW_TASK_TIMEOUT,
                    search_attributes=options.search_attributes(entity.start.app_id, entity.entity_type, entity.start.entity_id),
                    static_summary=entity.summary,
                    static_details=f"{entity.entity_type} {entity.start.entity_id} of app {entity.start.app_id}",
                )
        except (TimeoutError, RPCError) as error:
            raise _unknown() from error

    async def send(
        self, entity: EntityWorkflow, update: str, command: Command, *, timeout_seconds: float | None = None
    ) -> Mapping[str, Any]:
        """Send one command and wait for its answer.

        Raises `DomainError` for a refusal (nothing was written), `Unavailable` when the outcome is not known.
        """
        try:
            async with asyncio.timeout(timeout_seconds or self.timeout_seconds), self._slot(entity.workflow_id):
                return await self._send(entity, update, command)
        except TimeoutError as error:
            raise _unknown() from error

    async def _send(self, entity: EntityWorkflow, update: str, command: Command) -> Mapping[str, Any]:
        while True:
            try:
                result = await self.client.execute_update_with_start_workflow(
                    update, command, start_workflow_operation=entity.operation(), result_type=dict
                )
                return result or {}
            except WorkflowUpdateFailedError as error:
                cause = error.cause
                if not isinstance(cause, ApplicationError):
                    raise _unknown() from error
                if cause.type == DRAINING:
                    await asyncio.sleep(0.1)
                    continue
                raise _from_failure(cause) from error
            except RPCError as error:
                # The run ended between start and update, or the server restarts: ask again under the same command id.
                if error.status in _TRANSIENT:
                    await asyncio.sleep(0.25)
                    continue
                raise _unknown() from error
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                raise_if_canceled(error)
                await asyncio.sleep(0.25)
            except CodecError as error:
                # It was answered, under a key that workers have and this process lacks.
                log.error("answer_not_readable", workflow_id=entity.workflow_id, update=update, error=str(error))
                raise _unknown() from error

    @asynccontextmanager
    async def _slot(self, workflow_id: str) -> AsyncIterator[None]:
        slot = self._slots.setdefault(workflow_id, asyncio.Semaphore(AT_ONCE))
        self._users[workflow_id] = self._users.get(workflow_id, 0) + 1
        try:
            async with slot:
                yield
        finally:
            self._users[workflow_id] -= 1
            if not self._users[workflow_id]:
                del self._users[workflow_id], self._slots[workflow_id]


def raise_if_canceled(error: WorkflowUpdateRPCTimeoutOrCancelledError) -> None:
    """The SDK wraps the cancellation of a waiting caller too; that one must stay what it is, or no deadline is seen as one."""
    task = asyncio.current_task()
    if isinstance(error.__cause__, asyncio.CancelledError) or (task is not None and task.cancelling()):
        raise asyncio.CancelledError from error


_TRANSIENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.NOT_FOUND,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.INTERNAL,
    }
)
_CODES = frozenset(code.value for code in ErrorCode)


def _from_failure(cause: ApplicationError) -> DomainError | Unavailable:
    if cause.type == ErrorCode.OUTCOME_UNKNOWN.value or cause.type not in _CODES:
        return _unknown()
    details = cause.details[0] if cause.details else None
    return DomainError(ErrorCode(cause.type), cause.message, details)


def _unknown() -> Unavailable:
    return Unavailable(
        ErrorCode.OUTCOME_UNKNOWN,
        "No answer in time: it may have happened. Read the record, or repeat with the same Idempotency-Key.",
    )
