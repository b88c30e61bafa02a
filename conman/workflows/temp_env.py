"""`temp-env:{id}`: from its provisioning to its clean-up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType, is_cancelled_exception

from conman.workflows import options
from conman.workflows.entity import Decide, Entity, now
from conman.workflows.resync import Resynced

with workflow.unsafe.imports_passed_through():
    from conman.domain import temp_env_moves as moves
    from conman.domain.decision import Actor
    from conman.domain.errors import DomainError
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import JobType, ReasonCode, backoff_seconds, max_attempts, runs_again, timeout_seconds
    from conman.domain.messages import EntityStart
    from conman.domain.temp_env import TempEnv, TempEnvState
    from conman.domain.temp_env_messages import (
        BranchMade,
        CancelProvision,
        CleanUpReply,
        DatabaseMade,
        DeleteCommand,
        ExtendCommand,
        ProfileMade,
        TempEnvRef,
        UndoExpireCommand,
        UseQuestion,
        UseReply,
    )
    from conman.domain.times import later, milliseconds, parse_time

T = TypeVar("T")

_SHORTEST = timedelta(milliseconds=1)
"""What is slept at least, so that a timer that fires early by a fraction of that does not wake it twice."""
_REASONS = frozenset(reason.value for reason in ReasonCode)


@dataclass(frozen=True)
class _Failure:
    """Why an attempt did not succeed; `final`: another one can't either."""

    reason: ReasonCode
    message: str
    final: bool = False


@workflow.defn(name="temp-env")
class TempEnvWorkflow(Resynced):
    """Arrives: extend, undo_expire, delete; word that its job is to be canceled, or that something it can't see has changed; a
    cancel of the workflow. Waits for: branch, profile and database to be made, its deadline, its grace, its clean-up.

    It sleeps until the deadline that it knew and then asks when it was used last: a use is one write to the record, and nothing
    here. All that it waits for follows from the record, so that it goes on from there when its history is lost.
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.id = start.entity_id
        self.app_id = start.app_id
        self.entity = Entity(
            TempEnv,
            "temp_envs",
            start.entity_id,
            start.app_id,
            carried=start.carried,
            mirror=_mirror,
            describe=self._describe,
        )
        self.use = UseReply()
        self.canceled = False
        self.job_cancel: CancelProvision | None = None
        self.looks = 0
        self.making: asyncio.Task[None] | None = None

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """Do what the state calls for until it is deleted; returns the last state."""
        work = asyncio.create_task(self._run())
        while True:
            try:
                goes_on = await asyncio.shield(work)
            except asyncio.CancelledError:
                # Somebody canceled it in the Web UI: that means its end, without grace; a clean-up goes on.
                self.canceled = True
                self._stop_making()
                continue
            if goes_on:
                workflow.continue_as_new(start.model_copy(update={"carried": self.entity.carry()}))
            return "gone" if self.entity.gone else self.entity.state.state.value

    async def _run(self) -> bool:
        """Whether it goes on in a fresh history."""
        if await self.entity.load():
            while not self.entity.gone and self.entity.state.state is not TempEnvState.DELETED:
                if self.entity.should_continue_as_new() and not self.canceled:
                    self.entity.draining = True
                    await workflow.wait_condition(lambda: self.canceled or workflow.all_handlers_finished())
                    if not self.canceled and not self.entity.gone:
                        return True
                    self.entity.draining = False
                await self._step()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return False

    async def _step(self) -> None:
        try:
            await self._by_state()
        except DomainError:
            if not self.entity.gone:
                raise

    async def _by_state(self) -> None:
        if self.entity.state.state is TempEnvState.PROVISIONING:
            await self._provision()
        elif moves.wants_clean_up(self.entity.state):
            self.canceled = False  # it is ending
            await self._clean_up()
        else:
            await self._live()

    async def _apply(self, command_id: str, decide: Decide[TempEnv], user_id: str | None = None) -> None:
        """Persist what the process decides by itself, or for somebody who asked for it before."""
        await self.entity.apply(command_id, Actor(user_id=user_id), decide)

    async def _begin_again(self, job_id: str, attempt: int) -> None:
        await self._apply(f"again:{job_id}:{attempt}", lambda temp: moves.decide_next_attempt(temp, job_id, attempt))

    def _expire_job_id(self) -> str:
        """The id of the next job of its clean-up."""
        return derived_uuid7(milliseconds(now()), "temp-env-expire", self.id, str(self.entity.state.failures))

    # -- Provisioning

    async def _provision(self) -> None:
        """Attempts by the table of `spec.md` 9; the steps of one find what an earlier one has made."""
        job_id, attempts, attempt = self.entity.state.job_id, max_attempts(JobType.TEMP_ENV_PROVISION), 1
        await self._apply(f"begin:{job_id}", moves.decide_begin)
        while True:
            failure = await self._attempt(attempt)
            if failure is None:
                return
            if failure.final or not runs_again(failure.reason, attempt, attempts):
                break
            workflow.logger.warning("attempt %s to provision %s: %s", attempt, self.id, failure.message)
            with suppress(asyncio.TimeoutError):
                pause = timedelta(seconds=backoff_seconds(attempt))
                await workflow.wait_condition(self._must_stop, timeout=pause, timeout_summary="the next attempt")
            attempt += 1
            await self._begin_again(job_id, attempt)
        asked_by = self.job_cancel.user_id if self.job_cancel is not None else None
        expire_job_id = self._expire_job_id()
        await self._apply(
            f"failed:{job_id}",
            lambda temp: moves.decide_provision_failed(self.id, temp, failure.reason, failure.message, expire_job_id),
            asked_by if failure.reason is ReasonCode.CANCELED else None,
        )
        if self.entity.state.state is TempEnvState.FAILED:
            self.canceled = False  # what was asked for is done; one that was ready first is over in the next step

    async def _attempt(self, attempt: int) -> _Failure | None:
        """None when it is ready. What was asked for last is heard first: a cancel ends what is being made, then the attempt."""
        if self._must_stop():
            return _CANCELED
        self.making = asyncio.create_task(self._make(attempt))
        try:
            await self.making
        except (ActivityError, asyncio.CancelledError) as error:
            # A step whose worker was lost, or that failed, before it heard of the cancel was canceled all the same.
            return _CANCELED if self._must_stop() or is_cancelled_exception(error) else _failure(error, _TOO_LONG)
        finally:
            self.making = None
        return None

    async def _make(self, attempt: int) -> None:
        job_id = self.entity.state.job_id
        ref = TempEnvRef(app_id=self.app_id, temp_env_id=self.id, job_id=job_id, attempt=attempt)
        branch = await self._made("provision_branch", ref, BranchMade, timeout_seconds(JobType.TEMP_ENV_PROVISION))
        await self._apply(f"branch:{job_id}:{attempt}", lambda temp: moves.decide_branch_made(temp, branch))
        profile = await self._made("provision_profile", ref, ProfileMade, branch.limit_seconds)
        await self._apply(f"profile:{job_id}:{attempt}", lambda temp: moves.decide_profile_made(temp, profile))
        database = await self._made("provision_database", ref, DatabaseMade, branch.limit_seconds)
        await self._apply(f"provisioned:{job_id}", lambda temp: moves.decide_provisioned(self.id, temp, database, now()))

    async def _made(self, activity: str, ref: TempEnvRef, answer: type[T], seconds: int) -> T:
        """One step. Its time runs while a worker is at it: what waits because workers are busy or away has not taken too long."""
        limit = timedelta(seconds=seconds)
        summary = f"{activity.replace('_', ' ')}, attempt {ref.attempt}"
        made = await workflow.execute_activity(activity, ref, result_type=answer, **options.provision(limit, summary=summary))
        if self._must_stop():  # the step was done before it heard of the cancel
            raise asyncio.CancelledError
        return made

    def _must_stop(self) -> bool:
        asked = self.job_cancel is not None and self.entity.loaded and self.job_cancel.job_id == self.entity.state.job_id
        return self.canceled or asked

    def _stop_making(self) -> None:
        if self.making is not None and self._must_stop():
            self.making.cancel()

    # -- Idle time and grace

    async def _live(self) -> None:
        """Look when it was used last, do what is due by that, and sleep until the next thing is due or somebody speaks."""
        heard = self.looks
        self.use = await self._last_use()
        expire_job_id, act = self._expire_job_id(), workflow.uuid4()
        if self.use.archived or self.canceled:
            cause = moves.Cause.APP_ARCHIVED if self.use.archived else moves.Cause.CANCELED
            self.canceled = False
            await self._apply(f"over:{act}", lambda temp: moves.decide_over(self.id, temp, cause, expire_job_id))
            return
        used = self.use.last_activity_at
        # A command may interleave before each of these: decided again inside, from the state that it left.
        await self._apply(f"grace:{act}", lambda temp: moves.decide_grace_ended(self.id, temp, expire_job_id, now()))
        await self._apply(f"idle:{act}", lambda temp: moves.decide_idle(self.id, temp, used, now()))
        await self._apply(f"warn:{act}", lambda temp: moves.decide_warned(self.id, temp, used, now()))
        if not moves.wants_clean_up(self.entity.state):
            await self._sleep(moves.wakes_at(self.entity.state, used), heard)

    async def _sleep(self, until: str | None, heard: int) -> None:
        """Until then, or until its record changes, or somebody asks for a look or for its end."""
        workflow.set_current_details(self._describe(self.entity.state)[1])
        seen = self.entity.changes
        left = max(parse_time(until) - workflow.now(), _SHORTEST) if until is not None else None
        with suppress(asyncio.TimeoutError):
            await workflow.wait_condition(
                lambda: self.entity.changes != seen or self.looks != heard or self.canceled,
                timeout=left,
                timeout_summary=f"{self.entity.state.state.value} until {until}",
            )

    async def _last_use(self) -> UseReply:
        question = UseQuestion(app_id=self.app_id, temp_env_id=self.id)
        return await workflow.execute_activity(
            "temp_env_use", question, result_type=UseReply, **options.persist(summary="when was it used last")
        )

    # -- Clean-up

    async def _clean_up(self) -> None:
        """One job, and where all its attempts fail the pause before the next one. It is never given up."""
        job_id, heard = self.entity.state.expire_job_id or "", self.looks
        await self._apply(f"clean-up:{job_id}", moves.decide_clean_up_begins)
        removed = await self._removed(job_id)
        if isinstance(removed, CleanUpReply):
            asked_by = self.entity.state.deleted_by
            await self._apply(f"cleaned-up:{job_id}", lambda temp: moves.decide_cleaned_up(self.id, temp, removed), asked_by)
            return
        workflow.logger.error("the clean-up of temp env %s failed, job %s: %s", self.id, job_id, removed.message)
        next_job_id = derived_uuid7(milliseconds(now()), "temp-env-expire", self.id, job_id)
        await self._apply(
            f"clean-up-failed:{job_id}",
            lambda temp: moves.decide_clean_up_failed(self.id, temp, removed.reason, removed.message, next_job_id),
        )
        await self._sleep(later(now(), moves.pause_after(self.entity.state.failures)), heard)

    async def _removed(self, job_id: str) -> CleanUpReply | _Failure:
        """Attempts by the table of `spec.md` 9."""
        attempts, attempt = max_attempts(JobType.TEMP_ENV_EXPIRE), 1
        while True:
            removed = await self._remove(TempEnvRef(app_id=self.app_id, temp_env_id=self.id, job_id=job_id, attempt=attempt))
            if isinstance(removed, CleanUpReply) or removed.final or not runs_again(removed.reason, attempt, attempts):
                return removed
            await workflow.sleep(timedelta(seconds=backoff_seconds(attempt)), summary="the next attempt")
            attempt += 1
            await self._begin_again(job_id, attempt)

    async def _remove(self, ref: TempEnvRef) -> CleanUpReply | _Failure:
        try:
            reply = await workflow.execute_activity(
                "clean_up_temp_env", ref, result_type=CleanUpReply, **options.clean_up(summary=f"attempt {ref.attempt}")
            )
        except ActivityError as error:
            return _failure(error)
        return reply if not reply.left else _Failure(ReasonCode.INFRASTRUCTURE, "Not removed: " + "; ".join(reply.left))

    # -- What arrives

    @workflow.update
    async def extend(self, command: ExtendCommand) -> dict[str, Any]:
        """It is not to begin to expire so soon; its end may interleave, then it is refused."""
        await workflow.wait_condition(lambda: self.entity.loaded or self.entity.gone)
        active = self.entity.loaded and self.entity.state.state is TempEnvState.ACTIVE
        use = await self._last_use() if active else UseReply()
        return await self.entity.command(
            command,
            lambda temp: moves.decide_extend(
                self.id,
                temp,
                command.seconds,
                use.last_activity_at,
                now(),
                source_ended=command.source_ended or use.source_ended,
            ),
        )

    @extend.validator
    def _validate_extend(self, command: ExtendCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def undo_expire(self, command: UndoExpireCommand) -> dict[str, Any]:
        """Back from the grace; its end may come first, then that is over."""
        return await self.entity.command(command, lambda temp: moves.decide_undo(self.id, temp, now()))

    @undo_expire.validator
    def _validate_undo(self, command: UndoExpireCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def delete(self, command: DeleteCommand) -> dict[str, Any]:
        """End it at once; the loop cleans up. Also wakes a clean-up that rests after it failed."""
        return await self.entity.command(
            command, lambda temp: moves.decide_delete(self.id, temp, command.expire_job_id, command.actor.user_id)
        )

    @delete.validator
    def _validate_delete(self, command: DeleteCommand) -> None:
        self.entity.validate(command)

    @workflow.signal
    def cancel_provision(self, asked: CancelProvision) -> None:
        """Its job is to end: as long as it is provisioned, it ends with it."""
        if self.job_cancel is None or self.job_cancel.job_id != asked.job_id:  # upkeep repeats it and knows nobody
            self.job_cancel = asked
        self._stop_making()

    @workflow.signal
    def look_again(self) -> None:
        """Something has changed that it learns by looking, such as the end of its app."""
        self.looks += 1

    def _describe(self, temp: TempEnv) -> tuple[str, str]:
        return temp.state.value, moves.waiting_for(temp, self.use.last_activity_at)


_CANCELED = _Failure(ReasonCode.CANCELED, "Canceled on request.", final=True)
_TOO_LONG = "It took too long: an operator can allow more by CONMAN_TEMP_ENV_PROVISION_SECONDS."


def _failure(error: BaseException, too_long: str = "It took too long.") -> _Failure:
    """Why an activity gave no answer, by the table of `spec.md` 9."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError) and cause.type is not TimeoutType.HEARTBEAT:
        return _Failure(ReasonCode.TIMEOUT, too_long)
    if isinstance(cause, ApplicationError):
        reason = ReasonCode(cause.type) if cause.type in _REASONS else ReasonCode.INFRASTRUCTURE
        return _Failure(reason, cause.message, final=cause.non_retryable)
    return _Failure(ReasonCode.INFRASTRUCTURE, "Its worker was lost.")


def _mirror(temp: TempEnv) -> tuple[dict[str, Any], list[str]]:
    """`live_slot` holds one live temp env per source by a unique index."""
    slot = temp.live_slot
    return ({"live_slot": slot}, []) if slot is not None else ({}, ["live_slot"])
