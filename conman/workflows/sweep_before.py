"""A sweep as it was begun before others could join one: for the histories of those that are still under way."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.entity import finish
from conman.workflows.gate import run_gate

with workflow.unsafe.imports_passed_through():
    from conman.domain.messages import SweepStart, TrialReply, TrialRequest, revalidation_gate
    from conman.domain.queue_records import Entry
    from conman.domain.queue_verdicts import EntryVerdict, Judged

TRIAL_PAGE = 50
DEFAULT_CONCURRENCY = 4


class SweepBefore:
    """Trial merges of all, then bounded gates, each verdict sent by itself. Its commands are those of recorded histories."""

    def __init__(self, start: SweepStart) -> None:
        self.start = start
        self.judges = Judged(start.epoch, start.integration_sha)
        self.sent = 0
        self.judged: list[str] = []

    async def run(self) -> int:
        """Judge every entry once; returns how many verdicts were sent."""
        try:
            await self._sweep(self.start)
        except (FailureError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            left = [entry for entry in self.start.entries if entry.changeset_id not in self.judged]
            await self._send([self.judges.canceled(entry) for entry in left])
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
            found = [entry for entry in page if entry.changeset_id in reply.conflicts]
            await self._send([self.judges.conflicted(entry, reply.conflicts[entry.changeset_id]) for entry in found])
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
            verdict = await run_gate(revalidation_gate(self.start.app_id, entry, commit_sha))
        await self._send([self.judges.by_suite(entry, verdict)])

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
