"""`revalidation:{app}:{epoch}`: one sweep over what the queue shows, against one integration head."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.entity import finish
from conman.workflows.gate import run_gate
from conman.workflows.sweep_before import SweepBefore

with workflow.unsafe.imports_passed_through():
    from conman.domain.messages import SweepChange, SweepStart, TrialReply, TrialRequest, revalidation_gate
    from conman.domain.queue_records import Entry
    from conman.domain.queue_verdicts import EntryVerdict, Judged, first_batch

OTHERS_JOIN = "others-join-a-sweep"
"""Patch: one workflow per head, which others join while it is under way."""

TRIAL_PAGE = 50
"""Trial merges asked for in one activity: enough to be cheap, few enough to heartbeat and to report early."""

SETTING_HOLDS = timedelta(seconds=10)
"""A change of the app's `revalidation_concurrency` counts for gates that start this long after it, at the latest."""


@workflow.defn(name="revalidation")
class RevalidationWorkflow:
    """Arrives: what joins or leaves the sweep; a cancel, when a newer publish supersedes it.

    Waits for: trial merges of all that it starts with, then bounded gates, started in the order of the queue. Verdicts go to the
    queue by signal, those that are ready at once together, and carry what they judged; the queue drops those of an older epoch.
    It starts a fresh history where its own grows long; gates that run then end first.
    """

    @workflow.init
    def __init__(self, start: SweepStart) -> None:
        self.start = start
        self.judges = Judged(start.epoch, start.integration_sha)
        self.unjudged: dict[str, Entry] = {}
        self.order: list[str] = []
        self.merged = dict(start.merged)
        self.page: list[Entry] = []
        self.merging: asyncio.Task[None] | None = None
        self.all_merged = bool(start.merged)
        self.at_once = 0
        self.read_at: datetime | None = None
        self.reading: asyncio.Task[None] | None = None
        self.gates: dict[str, asyncio.Task[None]] = {}
        self.outbox: list[EntryVerdict] = []
        self.sending: asyncio.Task[None] | None = None
        self.sent = start.sent
        self.failure: FailureError | None = None
        self.moved = False

    @workflow.run
    async def run(self, start: SweepStart) -> int:
        """Judge every entry once; returns how many verdicts were sent."""
        if workflow.patched(OTHERS_JOIN):
            self.order = self.order or [entry.job_id or "" for entry in start.entries]
            self._take(start.entries)
        else:
            self.sent = await SweepBefore(start).run()
        try:
            await self._sweep()
        except (FailureError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            # Superseded, and the queue drops these; or canceled by somebody, and it must not wait for them for ever.
            await finish(self._stop())
        return self.sent

    @workflow.signal
    def change(self, change: SweepChange) -> None:
        """The queue tells what joins and what leaves, and how all that run stand in it."""
        self.order = change.order
        self._take(change.joins)
        for job_id in change.leaves:
            if self.unjudged.pop(job_id, None) is not None and job_id in self.gates:
                self.gates[job_id].cancel()
        self.moved = True

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.unjudged.setdefault(entry.job_id or "", entry)

    async def _sweep(self) -> None:
        while True:
            self.moved = False
            if self.failure is not None:
                raise self.failure
            if self._history_is_long():
                if not (self.page or self.gates or self.outbox or self.sending or self.reading):
                    entries = [self.unjudged[job_id] for job_id in self._in_order()]
                    left = {job_id: sha for job_id, sha in self.merged.items() if job_id in self.unjudged}
                    workflow.continue_as_new(
                        self.start.model_copy(update={"entries": entries, "merged": left, "sent": self.sent})
                    )
            else:
                self._merge()
                self._read_setting()
                self._start_gates()
            self._send()
            if not (self.unjudged or self.page or self.gates or self.sending or self.reading):
                return
            self._show()
            await workflow.wait_condition(lambda: self.moved)

    def _history_is_long(self) -> bool:
        info = workflow.info()
        return info.is_continue_as_new_suggested() or info.get_current_history_length() >= options.CONTINUE_AFTER_EVENTS

    def _in_order(self) -> list[str]:
        """The jobs that have no verdict, in the order of the queue as it was last told."""
        place = {job_id: number for number, job_id in enumerate(self.order)}
        return sorted(self.unjudged, key=lambda job_id: place.get(job_id, len(place)))

    # Trial merges

    def _merge(self) -> None:
        if self.merging is not None:
            return
        ahead = [job_id for job_id in self._in_order() if job_id not in self.merged]
        if ahead:
            self.page = [self.unjudged[job_id] for job_id in ahead[:TRIAL_PAGE]]
            self.merging = asyncio.create_task(self._merge_page(self.page))
        else:
            self.all_merged = True

    async def _merge_page(self, page: list[Entry]) -> None:
        try:
            reply = await workflow.execute_activity(
                "trial_merges",
                TrialRequest(app_id=self.start.app_id, integration_sha=self.start.integration_sha, entries=page),
                result_type=TrialReply,
                **options.git(summary=f"trial merges of {len(page)}"),
            )
            self._take_merges(page, reply)
        except (FailureError, asyncio.CancelledError) as error:
            self._failed(error)
        finally:
            self.page, self.merging, self.moved = [], None, True

    def _take_merges(self, page: list[Entry], reply: TrialReply) -> None:
        for entry in page:
            job_id = entry.job_id or ""
            if job_id not in self.unjudged:
                continue
            if entry.changeset_id in reply.conflicts:
                del self.unjudged[job_id]
                self.outbox.append(self.judges.conflicted(entry, reply.conflicts[entry.changeset_id]))
            elif entry.changeset_id in reply.merged:  # else the reply was full before it: the next page has it
                self.merged[job_id] = reply.merged[entry.changeset_id]

    def _failed(self, error: BaseException) -> None:
        """A task that was stopped is no failure: who stopped it knows."""
        if isinstance(error, FailureError) and not is_cancelled_exception(error):
            self.failure = error

    # Gates

    def _read_setting(self) -> None:
        if self.reading is None and self.unjudged and (self.read_at is None or workflow.now() - self.read_at >= SETTING_HOLDS):
            self.reading = asyncio.create_task(self._reading())

    async def _reading(self) -> None:
        try:
            self.at_once = await workflow.execute_activity(
                "revalidation_concurrency", self.start.app_id, result_type=int, **options.persist()
            )
            self.read_at = workflow.now()
        except (FailureError, asyncio.CancelledError) as error:
            self._failed(error)
        finally:
            self.reading, self.moved = None, True

    def _start_gates(self) -> None:
        """Conflicts are told before any suite runs: of those that join later too, where their merges end first."""
        if not self.all_merged or self.reading is not None:
            return
        for job_id in self._in_order():
            if len(self.gates) >= self.at_once:
                return
            if job_id in self.merged and job_id not in self.gates:
                entry = self.unjudged[job_id]
                self.gates[job_id] = asyncio.create_task(self._judge(job_id, entry, self.merged[job_id]))

    async def _judge(self, job_id: str, entry: Entry, commit_sha: str) -> None:
        try:
            verdict = await run_gate(revalidation_gate(self.start.app_id, entry, commit_sha))
            if self.unjudged.pop(job_id, None) is not None:
                self.outbox.append(self.judges.by_suite(entry, verdict))
        except (FailureError, asyncio.CancelledError) as error:
            self._failed(error)
        finally:
            del self.gates[job_id]
            self.moved = True

    # Verdicts

    def _send(self) -> None:
        if self.outbox and self.sending is None:
            batch = first_batch(self.outbox)
            self.outbox = self.outbox[len(batch) :]
            self.sending = asyncio.create_task(self._signal(batch))

    async def _signal(self, verdicts: list[EntryVerdict]) -> None:
        handle = workflow.get_external_workflow_handle(options.queue_workflow(self.start.app_id))
        try:
            await handle.signal("take_verdicts", verdicts)
        except FailureError as error:
            workflow.logger.warning("the queue is not there; its next start judges again what still runs: %s", error)
        self.sent += len(verdicts)
        self.sending, self.moved = None, True

    async def _stop(self) -> None:
        """Stop what runs, wait for the end of its processes, and say of all that is left that it has no verdict."""
        for task in (*self.gates.values(), self.merging, self.reading):
            if task is not None:
                task.cancel()
        await workflow.wait_condition(lambda: not (self.gates or self.merging or self.reading))
        while self.unjudged or self.outbox or self.sending:
            self.outbox += [self.judges.canceled(self.unjudged[job_id]) for job_id in self._in_order()]
            self.unjudged.clear()
            self._send()
            await workflow.wait_condition(lambda: self.sending is None)

    def _show(self) -> None:
        """What an operator sees in the Web UI."""
        left = len(self.unjudged)
        lines = [f"{self.sent} of {self.sent + len(self.outbox) + left} verdicts sent."]
        if self.page:
            lines.append(f"Merges {len(self.page)} onto {self.start.integration_sha[:12]}.")
        if self.gates:
            running = [self.unjudged[job_id].title or job_id for job_id in self.gates if job_id in self.unjudged]
            lines.append(f"Runs {len(self.gates)} of at most {self.at_once} suites: {', '.join(running)}.")
        workflow.set_current_details(" ".join(lines))
