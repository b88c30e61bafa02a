"""`queue:{app}`: for ever, by continuing as new."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from conman.workflows import options
from conman.workflows.entity import Entity, now, whole
from conman.workflows.revalidation import RevalidationWorkflow

with workflow.unsafe.imports_passed_through():
    from conman.domain import queue as rules
    from conman.domain.decision import Actor, Decision
    from conman.domain.ids import derived_uuid7
    from conman.domain.messages import (
        EjectCommand,
        EnqueueCommand,
        EntityStart,
        PublishedCommand,
        RemoveCommand,
        ReorderCommand,
        ReserveCommand,
        RevalidateCommand,
        SweepStart,
        Telling,
    )
    from conman.domain.queue import EntryVerdict, News, Queue
    from conman.domain.times import milliseconds


@workflow.defn(name="queue")
class QueueWorkflow:
    """Arrives: enqueue, remove, reorder, reserve, eject, published, revalidate; verdicts of sweeps as signals.

    Waits for: nothing long. It starts one revalidation workflow per epoch and parents none of them, so that it can continue as
    new at any time (`durability.md` 18).
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.app_id = start.app_id
        self.entity = Entity(Queue, "queues", start.entity_id, start.app_id, carried=start.carried, describe=_describe)
        self.verdicts: list[EntryVerdict] = []

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """Start sweeps, take their verdicts, tell changesets; for ever."""
        fresh = start.carried is None
        while not self.entity.gone:
            try:
                if not self.entity.loaded:
                    await self.entity.load()
                    continue
                seen = self.entity.changes  # before the work: what changes during it is looked at again
                if fresh:
                    fresh = False
                    await whole(self._resume())
                await whole(self._work())
                await workflow.wait_condition(
                    lambda seen=seen: self.entity.changes != seen or bool(self.verdicts) or self.entity.should_continue_as_new()
                )
                if self.entity.should_continue_as_new():
                    self.entity.draining = True
                    await workflow.wait_condition(workflow.all_handlers_finished)
                    await whole(self._work())
                    while self.verdicts:  # they came meanwhile, and are not in what is carried
                        await whole(self._work())
                    workflow.continue_as_new(start.model_copy(update={"carried": self.entity.carry()}))
            except asyncio.CancelledError:
                # A queue has no end that a person could mean; reconcile would start it again.
                workflow.logger.warning("the queue of app %s was asked to cancel and goes on", self.app_id)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return "gone"

    async def _resume(self) -> None:
        """A fresh history beside a sweep, whose verdicts may have found nobody: what still runs is judged again."""
        state = self.entity.state
        if state.sweep_started and state.sweep is not None:
            await self._start_sweep(state)

    async def _work(self) -> None:
        if self.entity.gone:
            return
        while self.verdicts:
            batch, self.verdicts = self.verdicts, []
            marks = "+".join(f"{verdict.epoch}:{verdict.job_id}" for verdict in batch[:1]) + f"+{len(batch)}:{workflow.uuid4()}"
            await self.entity.apply(f"verdicts:{marks}", Actor(), lambda queue, batch=batch: rules.decide_verdicts(queue, batch))
        state = self.entity.state
        if not state.sweep_started and state.sweep is not None:
            await self._start_sweep(state)
        elif not state.sweep_started:
            await self._stop_superseded(state)
            await self._sweep_is_started(state.epoch)
        if state.undelivered:
            await self._deliver(state.undelivered)

    async def _start_sweep(self, state: Queue) -> None:
        await self._stop_superseded(state)
        sweep = state.sweep
        if sweep is None:
            return
        entries = [entry for entry in state.entries if entry.status is rules.EntryStatus.RUNNING]
        try:
            await workflow.start_child_workflow(
                RevalidationWorkflow.run,
                SweepStart(app_id=self.app_id, epoch=sweep.epoch, integration_sha=sweep.integration_sha, entries=entries),
                id=options.revalidation_workflow(self.app_id, sweep.epoch),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                task_timeout=options.WORKFLOW_TASK_TIMEOUT,
                search_attributes=options.search_attributes(self.app_id, "queue", self.app_id),
                static_summary=f"revalidate {len(entries)} queued changesets, epoch {sweep.epoch}",
                static_details=f"Each is merged onto {sweep.integration_sha[:12]} and runs the suite.",
            )
        except WorkflowAlreadyStartedError:
            workflow.logger.info("the sweep of epoch %s is there already", sweep.epoch)
        await self._sweep_is_started(sweep.epoch)

    async def _stop_superseded(self, state: Queue) -> None:
        for epoch in state.superseded_epochs:
            try:
                await workflow.get_external_workflow_handle(options.revalidation_workflow(self.app_id, epoch)).cancel()
            except (ApplicationError, ChildWorkflowError, FailureError) as error:
                workflow.logger.info("the sweep of epoch %s has ended by itself: %s", epoch, error)

    async def _sweep_is_started(self, epoch: int) -> None:
        await self.entity.apply(f"sweep:{epoch}", Actor(), lambda queue: rules.decide_sweep_started(queue, epoch))

    async def _deliver(self, news: list[News]) -> None:
        telling = Telling(app_id=self.app_id, by=f"queue:{self.app_id}", news=[(item.changeset_id, item.news) for item in news])
        await workflow.execute_activity("tell_changesets", telling, **options.call(summary=f"tell {len(news)} changesets"))
        await self.entity.apply(f"delivered:{workflow.uuid4()}", Actor(), lambda queue: rules.decide_delivered(queue, news))

    def _job_ids(self, command_id: str) -> rules.JobIds:
        at = milliseconds(now())
        return lambda changeset_id: derived_uuid7(at, "revalidation", command_id, changeset_id)

    @workflow.update
    async def enqueue(self, command: EnqueueCommand) -> dict[str, Any]:
        """A changeset enters; judged against an older head, it is revalidated at once."""
        return await self.entity.command(
            command, lambda queue: rules.decide_enqueue(queue, command.entry, self._job_ids(command.id))
        )

    @workflow.update
    async def remove(self, command: RemoveCommand) -> dict[str, Any]:
        """A changeset leaves, unless an open release holds it."""
        return await self.entity.command(command, lambda queue: rules.decide_remove(queue, command.changeset_id))

    @workflow.update
    async def reorder(self, command: ReorderCommand) -> dict[str, Any]:
        """An exact permutation, against the version that was read; an enqueue that interleaves makes it stale."""
        return await self.entity.command(
            command, lambda queue: rules.decide_reorder(queue, command.ordered_changeset_ids, command.expected_version)
        )

    @workflow.update
    async def reserve(self, command: ReserveCommand) -> dict[str, Any]:
        """A release takes exactly these, or nothing; two releases at once take the lock one after the other."""

        def decide(queue: Queue) -> Decision[Queue]:
            return rules.decide_reserve(queue, command.release_id, command.changeset_ids)

        return await self.entity.command(command, decide)

    @workflow.update
    async def eject(self, command: EjectCommand) -> dict[str, Any]:
        """An assembly blames one member."""

        def decide(queue: Queue) -> Decision[Queue]:
            return rules.decide_eject(
                queue, command.release_id, command.changeset_id, conflicted=command.conflicted, job_id=command.job_id
            )

        return await self.entity.command(command, decide)

    @workflow.update
    async def published(self, command: PublishedCommand) -> dict[str, Any]:
        """The integration branch has moved: a new epoch begins."""
        return await self.entity.command(
            command,
            lambda queue: rules.decide_published(queue, command.release_id, command.integration_sha, self._job_ids(command.id)),
        )

    @workflow.update
    async def revalidate(self, command: RevalidateCommand) -> dict[str, Any]:
        """One entry is judged again."""
        return await self.entity.command(
            command,
            lambda queue: rules.decide_revalidate(queue, command.changeset_id, self._job_ids(command.id), command.retried),
        )

    @enqueue.validator
    def _validate_enqueue(self, command: EnqueueCommand) -> None:
        self.entity.validate(command)

    @remove.validator
    def _validate_remove(self, command: RemoveCommand) -> None:
        self.entity.validate(command)

    @reorder.validator
    def _validate_reorder(self, command: ReorderCommand) -> None:
        self.entity.validate(command)

    @reserve.validator
    def _validate_reserve(self, command: ReserveCommand) -> None:
        self.entity.validate(command)

    @eject.validator
    def _validate_eject(self, command: EjectCommand) -> None:
        self.entity.validate(command)

    @published.validator
    def _validate_published(self, command: PublishedCommand) -> None:
        self.entity.validate(command)

    @revalidate.validator
    def _validate_revalidate(self, command: RevalidateCommand) -> None:
        self.entity.validate(command)

    @workflow.signal
    def take_verdicts(self, verdicts: list[EntryVerdict]) -> None:
        """Verdicts of a sweep; the loop takes them together."""
        self.verdicts.extend(verdicts)


def _describe(queue: Queue) -> tuple[str, str]:
    running = queue.progress_total - queue.progress_done
    details = f"{len(queue.entries)} in the queue, epoch {queue.epoch} on {queue.integration_sha[:12]}."
    if running:
        failed = sum(entry.status is rules.EntryStatus.FAILED for entry in queue.entries)
        details += f" Revalidating: {queue.progress_done} of {queue.progress_total} done, {failed} failed."
    return "revalidating" if running else "idle", details
