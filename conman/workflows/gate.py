"""`job:{id}` of a gate: one suite on one commit, run again by the table of `spec.md` 9."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

from conman.workflows import options

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Verdict
    from conman.domain.jobs import ReasonCode, backoff_seconds, end_state, max_attempts, runs_again
    from conman.domain.jobs import timeout_seconds as default_timeout
    from conman.domain.messages import GateRun, GateStart


@workflow.defn(name="gate")
class GateWorkflow:
    """Arrives: a cancel of the workflow. Waits for: the suite, and pauses between attempts.

    It answers with a verdict and writes none: who asked for the gate writes the verdict with the records that it changes, and
    the job's end with them (`spec.md` 9: a job ends only after every record that its verdict changes shows it).
    """

    @workflow.run
    async def run(self, start: GateStart) -> Verdict:
        """Run the suite until there is a verdict or no attempt is left."""
        attempts = max_attempts(start.job_type)
        attempt = 1
        while True:
            what = start.what or start.entity_type
            workflow.set_current_details(f"Waits for the suite of {what}, attempt {attempt} of {attempts}.")
            verdict = await self._attempt(start, attempt, attempts)
            again = runs_again(verdict.reason_code, attempt, attempts)
            if again and workflow.cancellation_reason() is not None:
                # The worker was lost while the suite was being stopped: nobody waits for another attempt.
                return _verdict(start, ReasonCode.CANCELED, attempt)
            if not again:
                workflow.set_current_details(f"Ended: {verdict.reason_code.value}.")
                return verdict
            try:
                await workflow.sleep(timedelta(seconds=backoff_seconds(attempt)))
            except asyncio.CancelledError:
                return _verdict(start, ReasonCode.CANCELED, attempt)
            attempt += 1

    async def _attempt(self, start: GateStart, attempt: int, attempts: int) -> Verdict:
        timeout = default_timeout(start.job_type)
        try:
            return await workflow.execute_activity(
                "run_gate",
                GateRun(gate=start, attempt=attempt, max_attempts=attempts, timeout_seconds=timeout),
                result_type=Verdict,
                **options.gate(summary=f"{start.scope} gate, attempt {attempt}"),
            )
        except (ActivityError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                return _verdict(start, ReasonCode.CANCELED, attempt)
            cause = error.__cause__
            if isinstance(cause, ApplicationError) and cause.type == ReasonCode.GIT_ERROR.value:
                return _verdict(start, ReasonCode.GIT_ERROR, attempt)
            workflow.logger.warning("gate attempt %s of %s was lost: %s", attempt, start.job_id, cause)
            return _verdict(start, ReasonCode.INFRASTRUCTURE, attempt)


def _verdict(start: GateStart, reason: ReasonCode, attempt: int) -> Verdict:
    return Verdict(job_id=start.job_id, state=end_state(reason), reason_code=reason, attempt=attempt)


def canceled_verdict(start: GateStart) -> Verdict:
    """The verdict of a gate that was canceled before it started."""
    return _verdict(start, ReasonCode.CANCELED, 1)


async def run_gate(start: GateStart) -> Verdict:
    """Run a gate as a child and wait for its verdict; one that an earlier run of the caller started is joined.

    Cancelling the caller's task cancels the gate and waits for the end of its processes; the verdict is `canceled` then.
    """
    workflow_id = options.job_workflow(start.job_id)
    try:
        return await workflow.execute_child_workflow(
            GateWorkflow.run,
            start,
            id=workflow_id,
            task_timeout=options.WORKFLOW_TASK_TIMEOUT,
            search_attributes=options.search_attributes(start.app_id, "job", start.job_id),
            static_summary=f"{start.job_type.value}: {start.what or start.entity_type}",
            static_details=f"Gate `{start.scope}` on commit {start.commit_sha[:12]} for {start.entity_type} {start.entity_id}.",
        )
    except asyncio.CancelledError:
        return canceled_verdict(start)
    except ChildWorkflowError as error:
        if is_cancelled_exception(error):
            return canceled_verdict(start)
        workflow.logger.warning("the gate %s ended without a verdict: %s", start.job_id, error.__cause__)
        return _verdict(start, ReasonCode.INFRASTRUCTURE, 1)
    except WorkflowAlreadyStartedError:
        pass
    try:
        return await workflow.execute_activity("await_job", start, result_type=Verdict, **options.await_job())
    except (ActivityError, asyncio.CancelledError) as error:
        if not is_cancelled_exception(error):
            raise
        return canceled_verdict(start)
