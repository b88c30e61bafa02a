"""`queue:{app}`: for ever, by continuing as new."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from conman.workflows import options
from conman.workflows.entity import Entity, now, whole
from conman.workflows.resync import Resynced
from conman.workflows.revalidation import RevalidationWorkflow

with workflow.unsafe.imports_passed_through():
    from conman.domain import queue as rules
    from conman.domain.decision import Actor, Decision
    from conman.domain.errors import DomainError
    from conman.domain.ids import derived_uuid7
    from conman.domain.messages import (
        EjectCommand,
        EnqueueCommand,
        EntityStart,
        IntegrationMovedCommand,
        PublishedCommand,
        RemoveCommand,
        ReorderCommand,
        ReserveCommand,
        RevalidateCommand,
        SweepChange,
        SweepStart,
        Telling,
    )
    from conman.domain.queue_records import Entry, EntryStatus, Queue
    from conman.domain.queue_verdicts import EntryVerdict, decide_verdicts, first_batch
    from conman.domain.times import milliseconds


SWEEPS_ADAPT = "sweeps-adapt"
"""Patch: a sweep's process takes in what joins it and lets go of what leaves; verdicts are taken in batches of bounded size."""

FAILED_SHOWN = 5
"""How many that failed are named in the Web UI."""


@workflow.defn(name="queue")
class QueueWorkflow(Resynced):
    """Arrives: enqueue, remove, reorder, reserve, eject, published, integration_moved, revalidate; verdicts of sweeps as signals;
    upkeep's word that a sweep was lost.

    Waits for: nothing long. It starts one revalidation workflow per epoch, tells it what joins and leaves meanwhile, and parents
    none of them, so that it can continue as new at any time (`durability.md` 18).
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.app_id = start.app_id
        self.entity = Entity(Queue, "queues", start.entity_id, start.app_id, carried=start.carried, describe=_describe)
        self.verdicts: list[EntryVerdict] = []
        self.lost: int | None = None

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
                await workflow.wait_condition(lambda seen=seen: self.entity.changes != seen or self._has_work())
                if self.entity.should_continue_as_new():
                    self.entity.draining = True
                    await workflow.wait_condition(workflow.all_handlers_finished)
                    await whole(self._work())
                    while self.verdicts and not self.entity.gone:  # they came meanwhile, and are not in what is carried
                        await whole(self._work())
                    if self.entity.gone:
                        break
                    workflow.continue_as_new(start.model_copy(update={"carried": self.entity.carry()}))
            except DomainError:
                if not self.entity.gone:
                    raise
            except asyncio.CancelledError:
                # A queue has no end that a person could mean; reconcile would start it again.
                workflow.logger.warning("the queue of app %s was asked to cancel and goes on", self.app_id)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return "gone"

    def _has_work(self) -> bool:
        return bool(self.verdicts) or self.lost is not None or self.entity.should_continue_as_new()

    async def _resume(self) -> None:
        """A fresh history beside a sweep, whose verdicts may have found nobody: what still runs is judged again."""
        state = self.entity.state
        if state.sweep_started and state.sweep is not None:
            await self._start_sweep(state)

    async def _work(self) -> None:
        if self.entity.gone:
            return
        await self._take_verdicts()
        state = self.entity.state
        lost, self.lost = self.lost, None
        if state.sweep is not None and (not state.sweep_started or lost == state.epoch):
            await self._start_sweep(state)
        elif not state.sweep_started:
            await self._stop_superseded(state)
            await self._sweep_is_told(state.epoch, [])
        elif state.joining or state.leaving:
            await self._change_sweep(state)
        await self._deliver()

    async def _take_verdicts(self) -> None:
        """Take them together; what one batch brings to tell is told before the next, where it would make the record large."""
        while self.verdicts:
            batch = first_batch(self.verdicts)
            if len(batch) < len(self.verdicts) and not self._adapts():
                batch = self.verdicts
            self.verdicts = self.verdicts[len(batch) :]
            marks = "+".join(f"{verdict.epoch}:{verdict.job_id}" for verdict in batch[:1]) + f"+{len(batch)}:{workflow.uuid4()}"
            await self.entity.apply(f"verdicts:{marks}", Actor(), lambda queue, batch=batch: decide_verdicts(queue, batch))
            news = self.entity.state.undelivered
            if self.verdicts and len(first_batch(news)) < len(news) and self._adapts():
                await self._deliver()

    async def _start_sweep(self, state: Queue) -> None:
        """The process of the present epoch, for all that runs; one that is there already takes in what it does not know."""
        await self._stop_superseded(state)
        sweep = state.sweep
        if sweep is None:
            return
        entries = _running(state)
        told = [*(entry.job_id or "" for entry in entries), *state.leaving]
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
            if sweep.adapts and not await self._signal_sweep(state, entries):
                return  # it ended just now: the loop takes its last verdicts first, then looks again
        await self._sweep_is_told(sweep.epoch, told)

    async def _change_sweep(self, state: Queue) -> None:
        """Tell the process of the present epoch what joins it and what leaves it; where it has ended, another one begins."""
        joins = [entry for entry in _running(state) if entry.job_id in state.joining]
        if await self._signal_sweep(state, joins) or not joins:
            await self._sweep_is_told(state.epoch, [*state.joining, *state.leaving])
            return
        await self._take_verdicts()  # the last ones came before it ended
        if self.entity.state.epoch == state.epoch:
            await self._start_sweep(self.entity.state)

    async def _signal_sweep(self, state: Queue, joins: list[Entry]) -> bool:
        """Whether the process of the present epoch could still be told."""
        order = [entry.job_id or "" for entry in _running(state)]
        handle = workflow.get_external_workflow_handle(options.revalidation_workflow(self.app_id, state.epoch))
        try:
            await handle.signal("change", SweepChange(joins=joins, leaves=state.leaving, order=order))
        except FailureError as error:
            workflow.logger.info("the sweep of epoch %s has ended: %s", state.epoch, error)
            return False
        return True

    async def _stop_superseded(self, state: Queue) -> None:
        for epoch in state.superseded_epochs:
            try:
                await workflow.get_external_workflow_handle(options.revalidation_workflow(self.app_id, epoch)).cancel()
            except (ApplicationError, ChildWorkflowError, FailureError) as error:
                workflow.logger.info("the sweep of epoch %s has ended by itself: %s", epoch, error)

    async def _sweep_is_told(self, epoch: int, told: list[str]) -> None:
        command_id = f"sweep:{epoch}:{workflow.uuid4()}" if told else f"sweep:{epoch}"
        await self.entity.apply(command_id, Actor(), lambda queue: rules.decide_sweep_told(queue, epoch, told))

    async def _deliver(self) -> None:
        news = self.entity.state.undelivered
        if not news:
            return
        telling = Telling(app_id=self.app_id, by=f"queue:{self.app_id}", news=[(item.changeset_id, item.news) for item in news])
        await workflow.execute_activity("tell_changesets", telling, **options.call(summary=f"tell {len(news)} changesets"))
        await self.entity.apply(f"delivered:{workflow.uuid4()}", Actor(), lambda queue: rules.decide_delivered(queue, news))

    def _job_ids(self, command_id: str) -> rules.JobIds:
        at = milliseconds(now())
        return lambda changeset_id: derived_uuid7(at, "revalidation", command_id, changeset_id)

    def _adapts(self) -> bool:
        return workflow.patched(SWEEPS_ADAPT)

    @workflow.update
    async def enqueue(self, command: EnqueueCommand) -> dict[str, Any]:
        """A changeset enters; judged against an older head, it is revalidated at once."""

        def decide(queue: Queue) -> Decision[Queue]:
            return rules.decide_enqueue(queue, command.entry, self._job_ids(command.id), adapts=self._adapts())

        return await self.entity.command(command, decide)

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

        def decide(queue: Queue) -> Decision[Queue]:
            job_ids = self._job_ids(command.id)
            return rules.decide_published(queue, command.release_id, command.integration_sha, job_ids, adapts=self._adapts())

        return await self.entity.command(command, decide)

    @workflow.update
    async def integration_moved(self, command: IntegrationMovedCommand) -> dict[str, Any]:
        """The integration branch was moved outside Conman; a publish that was told meanwhile makes it old news."""

        def decide(queue: Queue) -> Decision[Queue]:
            return rules.decide_integration_moved(
                queue, command.old_sha, command.new_sha, self._job_ids(command.id), adapts=self._adapts()
            )

        return await self.entity.command(command, decide)

    @workflow.update
    async def revalidate(self, command: RevalidateCommand) -> dict[str, Any]:
        """One entry is judged again."""

        def decide(queue: Queue) -> Decision[Queue]:
            job_ids = self._job_ids(command.id)
            return rules.decide_revalidate(queue, command.changeset_id, job_ids, command.retried, adapts=self._adapts())

        return await self.entity.command(command, decide)

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

    @integration_moved.validator
    def _validate_integration_moved(self, command: IntegrationMovedCommand) -> None:
        self.entity.validate(command)

    @revalidate.validator
    def _validate_revalidate(self, command: RevalidateCommand) -> None:
        self.entity.validate(command)

    @workflow.signal
    def take_verdicts(self, verdicts: list[EntryVerdict]) -> None:
        """Verdicts of a sweep; the loop takes them together."""
        self.verdicts.extend(verdicts)

    @workflow.signal
    def sweep_lost(self, epoch: int) -> None:
        """The record waits for the sweep of an epoch, and no process of it runs: somebody terminated it."""
        self.lost = epoch


def _running(queue: Queue) -> list[Entry]:
    return [entry for entry in queue.entries if entry.status is EntryStatus.RUNNING]


def _describe(queue: Queue) -> tuple[str, str]:
    """Titles stand here as they do in the changesets' own details: the codec encodes both (`durability.md` 24)."""
    running = queue.progress_total - queue.progress_done
    details = f"{len(queue.entries)} in the queue, epoch {queue.epoch} on {queue.integration_sha[:12]}."
    if queue.progress_total:
        details += f" Revalidated: {queue.progress_done} of {queue.progress_total}."
    failed = [entry.title or entry.changeset_id for entry in queue.entries if entry.status is EntryStatus.FAILED]
    if failed:
        more = f" and {len(failed) - FAILED_SHOWN} more" if len(failed) > FAILED_SHOWN else ""
        details += f" Failed: {', '.join(failed[:FAILED_SHOWN])}{more}."
    return "revalidating" if running else "idle", details
