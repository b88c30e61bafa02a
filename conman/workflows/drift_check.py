"""Looking for drift: `job:{id}` of a look that somebody asked for, and the scheduled round (`spec.md` 9 and 12)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.entity import finish, now

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import JobEnd
    from conman.domain.deploy_messages import (
        DriftCheckStart,
        DriftPlace,
        DriftPlaces,
        DriftQuestion,
        DriftReply,
        DriftRound,
        HealQuestion,
        HealReply,
    )
    from conman.domain.jobs import JobState, JobType, ReasonCode, backoff_seconds, end_state, max_attempts, runs_again
    from conman.domain.messages import JobEnds

DRIFT_ROUND_ID = "conman-drift-round"

AT_ONCE = 4
"""How many environments a round looks at at once."""

LOOK_AGAIN_AFTER = timedelta(minutes=2)
"""How long after it a healing is looked at: whether it holds."""

_CHECK = JobType.RUNTIME_PROFILE_DRIFT_CHECK


async def _one_look(question: DriftQuestion) -> DriftReply:
    """One attempt; what went wrong with it is the reply's problem."""
    try:
        return await workflow.execute_activity(
            "check_drift",
            question,
            result_type=DriftReply,
            **options.drift_check(summary=f"look for drift, attempt {question.attempt}"),
        )
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("a look at %s was lost: %s", question.environment_id, error.cause)
        return DriftReply(checked_at=question.at, problem="The look was lost.", reason_code=ReasonCode.INFRASTRUCTURE)


async def _looked(place: DriftPlace, job_id: str | None = None) -> DriftReply:
    """Look, and again by the table of `spec.md` 9, until somebody could look or no attempt is left."""
    attempts = max_attempts(_CHECK)
    attempt = 1
    while True:
        question = DriftQuestion(
            app_id=place.app_id, environment_id=place.environment_id, at=now(), job_id=job_id, attempt=attempt
        )
        reply = await _one_look(question)
        if not runs_again(reply.reason_code, attempt, attempts):
            return reply
        await workflow.sleep(timedelta(seconds=backoff_seconds(attempt)))
        attempt += 1


@workflow.defn(name="drift_check")
class DriftCheckWorkflow:
    """Arrives: a cancel. Waits for: the look, and pauses between attempts. The job ends once the record shows it."""

    @workflow.run
    async def run(self, start: DriftCheckStart) -> str:
        """Look once; returns the reason code with which the job ended."""
        workflow.set_current_details(f"Looks whether {start.environment} is as it was left.")
        try:
            end = await self._look(start)
        except (ActivityError, asyncio.CancelledError) as error:
            if not is_cancelled_exception(error):
                raise
            end = _end(start, ReasonCode.CANCELED)
        ended = JobEnds(ends=[end.model_dump(mode="json")], at=now())
        await finish(workflow.execute_activity("end_jobs", ended, **options.persist()))
        workflow.set_current_details(f"Ended: {end.reason_code.value}.")
        return end.reason_code.value

    async def _look(self, start: DriftCheckStart) -> JobEnd:
        if not await workflow.execute_activity("begin_drift_check", start, result_type=bool, **options.persist()):
            return _end(start, ReasonCode.INFRASTRUCTURE, "Its process was lost while it ran: check for drift again.")
        reply = await _looked(DriftPlace(app_id=start.app_id, environment_id=start.environment_id), start.job_id)
        if reply.overtaken:
            return _end(start, ReasonCode.SUPERSEDED, "A deployment is at work there, or was meanwhile: check again after it.")
        if reply.problem is not None:
            return _end(start, reply.reason_code, reply.problem)
        result = {
            "drifted": bool(reply.report),
            "report": [item.model_dump(mode="json") for item in reply.report],
            "checked_at": reply.checked_at,
            "first_seen_at": reply.first_seen_at,
            "last_clean_at": reply.last_clean_at,
        }
        return JobEnd(id=start.job_id, state=JobState.SUCCEEDED, reason_code=ReasonCode.OK, result=result)


def _end(start: DriftCheckStart, reason: ReasonCode, message: str = "") -> JobEnd:
    summary = {"message": message} if message else None
    return JobEnd(id=start.job_id, state=end_state(reason), reason_code=reason, summary=summary)


@workflow.defn(name="drift_round")
class DriftRoundWorkflow:
    """Arrives: nothing. Waits for: looks at all environments, page by page, and healings, at which it looks again.

    It makes no jobs: what is new stands in the records of environments and in the audit, and people are told.
    """

    @workflow.run
    async def run(self, page: DriftRound) -> int:
        """One page, then the next in a new history; returns in how many environments of the last page something has drifted."""
        found = await workflow.execute_activity("drift_places", page, result_type=DriftPlaces, **options.persist())
        slots = asyncio.Semaphore(AT_ONCE)
        drifted = [place for place in await asyncio.gather(*(_in_turn(slots, place) for place in found.places)) if place]
        healed = [place for place in drifted if await _heal(place)]
        if healed:
            await workflow.sleep(LOOK_AGAIN_AFTER, summary="healings take hold")
            await asyncio.gather(*(_in_turn(slots, place) for place in healed))
        if found.last is not None:
            workflow.continue_as_new(DriftRound(after=found.last))
        return len(drifted)


async def _in_turn(slots: asyncio.Semaphore, place: DriftPlace) -> DriftPlace | None:
    """The place when something differs there."""
    async with slots:
        reply = await _looked(place)
        return place if reply.report else None


async def _heal(place: DriftPlace) -> bool:
    question = HealQuestion(app_id=place.app_id, environment_id=place.environment_id, at=now())
    try:
        reply = await workflow.execute_activity("heal_environment", question, result_type=HealReply, **options.heal())
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("%s could not be healed: %s", place.environment_id, _message(error))
        return False
    return reply.deployment_id is not None


def _message(error: ActivityError) -> str:
    return error.cause.message if isinstance(error.cause, ApplicationError) else str(error.cause)
