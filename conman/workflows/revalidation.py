"""`revalidation:{app}:{epoch}`: one sweep over what the queue shows, against one integration head."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.entity import finish
from conman.workflows.gate import run_gate

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Verdict
    from conman.domain.jobs import JobState, JobType, ReasonCode
    from conman.domain.messages import GateStart, SweepStart, TrialReply, TrialRequest
    from conman.domain.queue import Entry, EntryStatus, EntryVerdict

TRIAL_PAGE = 50
"""Trial merges asked for in one activity: enough to be cheap, few enough to heartbeat and to report early."""

DEFAULT_CONCURRENCY = 4


@workflow.defn(name="revalidation")
class RevalidationWorkflow:
    """Arrives: a cancel, when a newer publish supersedes it. Waits for: trial merges first, then bounded gates.

    Verdicts go to the queue by signal and carry what they judged; the queue drops those of an older epoch.
    """

    @workflow.run
    async def run(self, start: SweepStart) -> int:
        """Judge every entry once; returns how many verdicts were sent."""
        self.start = start
        self.sent = 0
        self.judged: list[str] = []
        try:
            await self._sweep(start)
        except (FailureError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            # Superseded, and the queue drops these; or canceled by somebody, and it must not wait for them for ever.
            left = [entry for entry in start.entries if entry.changeset_id not in self.judged]
            canceled = [self._verdict(entry, EntryStatus.UNKNOWN, JobState.CANCELED, ReasonCode.CANCELED) for entry in left]
            await self._send(canceled)
        return self.sent

    async def _sweep(self, start: SweepStart) -> None:
        workflow.set_current_details(f"Waits for trial merges of {len(start.entries)} changesets.")
        merged: dict[str, str] = {}
        for index in range(0, len(start.entries), TRIAL_PAGE):
            page = start.entries[index : index + TRIAL_PAGE]
            reply = await workflow.execute_activity(
                "trial_merges",
                TrialRequest(app_id=start.app_id, integration_sha=start.integration_sha, entries=page),
                result_type=TrialReply,
                **options.git(summary=f"trial merges {index + 1} to {index + len(page)}"),
            )
            merged |= reply.merged
            conflicted = [self._conflicted(entry, reply) for entry in page if entry.changeset_id in reply.conflicts]
            await self._send(conflicted)
        concurrency = await workflow.execute_activity(
            "revalidation_concurrency", start.app_id, result_type=int, **options.persist()
        )
        slots = asyncio.Semaphore(concurrency or DEFAULT_CONCURRENCY)
        gates = [self._judge(entry, merged[entry.changeset_id], slots) for entry in start.entries if entry.changeset_id in merged]
        # A cancel waits for the end of every suite that runs.
        for ended in await asyncio.gather(*gates, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def _judge(self, entry: Entry, commit_sha: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            verdict = await run_gate(
                GateStart(
                    job_id=entry.job_id or "",
                    app_id=self.start.app_id,
                    job_type=JobType.REVALIDATE_QUEUED_CHANGESET,
                    entity_type="changeset",
                    entity_id=entry.changeset_id,
                    commit_sha=commit_sha,
                    scope="submit",
                    overrides=[one.model_dump(mode="json") for one in entry.overrides],
                    what=f"{entry.title} on the new integration head",
                )
            )
        await self._send([self._judged(entry, verdict)])

    async def _send(self, verdicts: list[EntryVerdict]) -> None:
        if verdicts:
            await finish(self._signal(verdicts))

    async def _signal(self, verdicts: list[EntryVerdict]) -> None:
        self.judged.extend(verdict.changeset_id for verdict in verdicts)
        handle = workflow.get_external_workflow_handle(options.queue_workflow(self.start.app_id))
        try:
            await handle.signal("take_verdicts", verdicts)
        except FailureError as error:
            workflow.logger.warning("the queue is not there; its next start judges again what still runs: %s", error)
        self.sent += len(verdicts)
        workflow.set_current_details(f"{self.sent} of {len(self.start.entries)} verdicts sent; waits for suites.")

    def _conflicted(self, entry: Entry, reply: TrialReply) -> EntryVerdict:
        return self._verdict(
            entry, EntryStatus.CONFLICTED, JobState.FAILED, ReasonCode.TESTS_FAILED, conflicts=reply.conflicts[entry.changeset_id]
        )

    def _judged(self, entry: Entry, verdict: Verdict) -> EntryVerdict:
        status = {ReasonCode.OK: EntryStatus.VALID, ReasonCode.TESTS_FAILED: EntryStatus.FAILED}.get(
            verdict.reason_code, EntryStatus.UNKNOWN
        )
        found = self._verdict(entry, status, verdict.state, verdict.reason_code)
        return found.model_copy(update={"exit_code": verdict.exit_code, "summary": verdict.summary})

    def _verdict(
        self,
        entry: Entry,
        status: EntryStatus,
        state: JobState,
        reason: ReasonCode,
        *,
        conflicts: list[dict[str, object]] | None = None,
    ) -> EntryVerdict:
        return EntryVerdict(
            epoch=self.start.epoch,
            integration_sha=self.start.integration_sha,
            changeset_id=entry.changeset_id,
            head_sha=entry.head_sha,
            job_id=entry.job_id or "",
            status=status,
            job_state=state,
            reason_code=reason,
            conflicts=conflicts or [],
        )
