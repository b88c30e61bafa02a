"""Activities that call other workflows; they have a task queue of their own (`durability.md` 14)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError, RPCStatusCode

from conman.activities.heartbeat import heartbeating
from conman.domain.changeset_news import QueueNews
from conman.domain.decision import Actor, Verdict
from conman.domain.deploy_messages import Ended, Outcome, Predecessor
from conman.domain.deployment import TERMINAL, DeploymentState
from conman.domain.errors import ErrorCode
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.messages import Answer, GateStart, Overtaken, QueueCall, Telling
from conman.domain.times import format_time
from conman.faults import fault_point
from conman.services import deploy_commands, holds
from conman.services.overtaken import look_again, tell_of_members
from conman.services.standstill import closing_conflict
from conman.store import records
from conman.store.database import Database
from conman.workflows import options
from conman.workflows.client import Commands, raise_if_canceled
from conman.workflows.entity import DRAINING

LOOK_AGAIN_SECONDS = 1.0
"""Between two looks at a deployment whose process has ended and whose record has not yet, seconds."""
PATIENCE = timedelta(minutes=1)
"""How long one try of a call may take; the activity is repeated after it."""


class CallActivities:
    """Bound to one Temporal client, and to the records of apps."""

    def __init__(self, client: Client, db: Database) -> None:
        self.client = client
        self.db = db
        self.commands = Commands(client)

    def all(self) -> list[Any]:
        """The activities to register."""
        return [
            self.call_queue,
            self.tell_changesets,
            self.tell_releases,
            self.await_job,
            self.await_deployment,
            self.tell_the_line,
        ]

    @activity.defn
    async def call_queue(self, call: QueueCall) -> Answer:
        """An update of the app's queue: its result, or its refusal as data; anything else is tried again."""
        if call.needs_open_app:
            refused = closing_conflict(await records.get(self.db, "apps", call.app_id, what="app"))
            if refused is None and call.publishes:
                refused = await holds.refuse(self.db, call.app_id)
            if refused is not None:
                return Answer(refusal={"code": refused.code.value, "message": refused.message, "details": refused.details})
        command = {
            "id": call.command_id,
            "actor": call.actor.model_dump(mode="json"),
            "not_after": _not_after(),
            **call.payload,
        }
        start = self.commands.queue_start(call.app_id)
        async with heartbeating():
            answer = await self._ask(start, call.update, command)
            if call.update == "published":
                await deploy_commands.look_again(self.db, self.commands, call.app_id)
        fault_point("queue.answered")
        return answer

    async def _ask(self, start: Any, update: str, command: dict[str, Any]) -> Answer:
        while True:
            try:
                result = await self.client.execute_update_with_start_workflow(
                    update, command, start_workflow_operation=start.operation(), result_type=dict
                )
            except WorkflowUpdateFailedError as error:
                cause = error.cause
                if isinstance(cause, ApplicationError) and cause.type == DRAINING:
                    await asyncio.sleep(0.2)
                    continue
                if not isinstance(cause, ApplicationError) or cause.type not in _REFUSALS:
                    raise
                details = cause.details[0] if cause.details else None
                return Answer(refusal={"code": cause.type, "message": cause.message, "details": details})
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                raise_if_canceled(error)
                raise
            return Answer(result=result or {})

    @activity.defn
    async def tell_changesets(self, telling: Telling) -> None:
        """Each changeset takes its news, or says that it no longer waits for it; all of them, before this ends."""
        slots = asyncio.Semaphore(16)

        async def tell(changeset_id: str, news: QueueNews) -> None:
            async with slots:
                command = {
                    "id": f"{telling.by}:{news.kind}:{news.job_id or news.release_id}:{news.head_sha}",
                    "actor": Actor().model_dump(mode="json"),
                    "not_after": _not_after(),
                    "news": news.model_dump(mode="json"),
                }
                answer = await self._ask(self.commands.changeset_start(telling.app_id, changeset_id), "take_news", command)
                if answer.refusal is not None and answer.refusal["code"] == ErrorCode.COMMAND_EXPIRED.value:
                    raise ApplicationError("the news waited too long; they are told again")
                fault_point("tell.one")

        async with heartbeating():
            await asyncio.gather(*(tell(changeset_id, news) for changeset_id, news in telling.news))
            left = [changeset_id for changeset_id, news in telling.news if news.kind in ("conflicted", "needs_revalidation")]
            if left:
                await tell_of_members(self.db, self.commands, telling.app_id, left)

    @activity.defn
    async def tell_releases(self, overtaken: Overtaken) -> None:
        """The app's validated releases that were assembled on another head look whether they can still be published."""
        async with heartbeating():
            await look_again(self.db, self.commands, {"app_id": overtaken.app_id}, not_on=overtaken.integration_sha)

    @activity.defn
    async def await_job(self, gate: GateStart) -> Verdict:
        """The verdict of a gate that an earlier run of the asking workflow started."""
        handle: WorkflowHandle[Any, Verdict] = self.client.get_workflow_handle(
            options.job_workflow(gate.job_id), result_type=Verdict
        )
        async with heartbeating():
            try:
                return await handle.result()
            except (CancelledError, asyncio.CancelledError):
                await handle.cancel()
                raise
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                return Verdict(job_id=gate.job_id, state=JobState.FAILED, reason_code=ReasonCode.INFRASTRUCTURE)

    @activity.defn
    async def await_deployment(self, before: Predecessor) -> Outcome:
        """How the deployment ended that goes first; its record has the word, its process only says when to look."""
        handle = self.client.get_workflow_handle(options.deployment_workflow(before.deployment_id))
        async with heartbeating():
            while True:
                document = await records.get(self.db, "deployments", before.deployment_id, what="deployment")
                state = DeploymentState(document["owned"]["state"])
                if state in TERMINAL:
                    environment = await records.find(self.db, "environments", document["owned"]["environment_id"])
                    return Outcome(state=state, name=environment["name"] if environment is not None else "")
                with suppress(WorkflowFailureError, RPCError):  # one that is missing comes back from its record
                    await handle.result()
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    @activity.defn
    async def tell_the_line(self, ended: Ended) -> None:
        """Those who wait for the lock that was given up ask for it; `locks.take` knows whose turn it is."""
        place = {"app_id": ended.app_id, "owned.environment_id": ended.environment_id, "owned.fence": None}
        async with heartbeating():
            await deploy_commands.tell_pending(self.db, self.commands, "lock_granted", place)
        fault_point("line.told")


_REFUSALS = frozenset(code.value for code in ErrorCode) - {ErrorCode.OUTCOME_UNKNOWN.value, ErrorCode.COMMAND_EXPIRED.value}
"""Only these mean that nothing was written there; everything else is asked again under the same command id."""


def _not_after() -> str:
    return format_time(datetime.now(UTC) + PATIENCE)
