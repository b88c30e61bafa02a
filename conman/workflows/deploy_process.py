"""What the parts of a deployment's process share: its record, what was asked of it meanwhile, and how it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ActivityConfig, ActivityHandle

from conman.workflows import options
from conman.workflows.entity import Entity, now
from conman.workflows.gate import canceled_verdict, run_gate

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Actor, Decision, Verdict
    from conman.domain.deploy_ending import Ending
    from conman.domain.deploy_messages import StartReply
    from conman.domain.deployment import TERMINAL, Deployment, Move
    from conman.domain.errors import ErrorCode
    from conman.domain.jobs import ReasonCode
    from conman.domain.messages import DeployFacts, GateStart, SwitchRequest
    from conman.domain.times import format_time, parse_time

T = TypeVar("T")

EXPIRED = Ending(
    move=Move.CANCEL,
    reason_code=ReasonCode.CANCELED,
    message="Its approvals expired: ask for the deployment again.",
    approval_expired=True,
)


class Stop(Exception):
    """The deployment ends now."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.message)
        self.ending = ending


class FreshRun(Exception):
    """The history is long: the process goes on in a new run, from its record (`durability.md` 12)."""


def canceled(message: str, code: ErrorCode | None = None) -> Stop:
    """It ends before anything of it shows, by a rule."""
    return Stop(Ending(move=Move.CANCEL, reason_code=ReasonCode.CANCELED, message=message, code=code))


def failed(message: str, reason: ReasonCode = ReasonCode.INFRASTRUCTURE) -> Stop:
    """It ends without having done what was asked."""
    return Stop(Ending(move=Move.FAIL, reason_code=reason, message=message))


def superseded(by_deployment_id: str) -> Ending:
    """A newer deployment has taken the environment from it."""
    return Ending(
        move=Move.CANCEL,
        reason_code=ReasonCode.SUPERSEDED,
        message=f"Deployment {by_deployment_id} has taken the environment.",
        superseded_by=by_deployment_id,
    )


class Process:
    """One deployment under way. `news` counts what was told after which it looks again at what it waits for."""

    def __init__(self, entity: Entity[Deployment], deployment_id: str, app_id: str) -> None:
        self.entity = entity
        self.id = deployment_id
        self.app_id = app_id
        self.news = 0
        self._heard = 0
        self.canceled_by = Actor()
        self.cancels: list[str] = []
        self.gate: asyncio.Task[Verdict] | None = None
        self._asked: Ending | None = None

    @property
    def state(self) -> Deployment:
        """The record as it is now; what stands here must not outlive an await."""
        return self.entity.state

    @property
    def release_id(self) -> str:
        """The release that goes out, once it is known."""
        return self.state.release_id or ""

    # -- What was asked of it

    @property
    def must_end(self) -> bool:
        """Whether somebody has asked for its end."""
        return self._asked is not None

    def ask_to_end(self, ending: Ending, actor: Actor) -> None:
        """It is to end so; the first who asks is heard. A gate that runs is stopped."""
        if self._asked is None:
            self._asked = ending
            self.canceled_by = actor
        if self.gate is not None:
            self.gate.cancel()

    def ask_to_cancel(self, actor: Actor) -> None:
        """Somebody cancels it."""
        self.ask_to_end(Ending(move=Move.CANCEL, reason_code=ReasonCode.CANCELED, message="Canceled on request."), actor)

    @property
    def asked(self) -> Ending | None:
        """How somebody has asked it to end."""
        return self._asked

    def check_end(self) -> None:
        """Raises `Stop` when somebody has asked for the end."""
        if self._asked is not None:
            raise Stop(self._asked)

    # -- Waiting

    async def pause(
        self, until: str, summary: str, met: Callable[[], bool] = lambda: False, *, lacks_approvals: bool = False
    ) -> None:
        """Wait for `until`, for news since it asked last, or for what `met` says.

        Raises `Stop` when it is to end, or its approvals have expired. A long history goes on as a fresh one here: all that
        counts is in the record.
        """
        self.check_end()
        if self.entity.should_continue_as_new():
            raise FreshRun
        deadline = self._deadline(lacks_approvals=lacks_approvals)
        await self._until(
            lambda: self.news != self._heard or met(), min(until, deadline) if deadline is not None else until, summary
        )
        self._heard = self.news
        self.check_end()
        self.check_expiry(lacks_approvals=lacks_approvals)

    async def _until(self, met: Callable[[], bool], until: str | None, summary: str) -> None:
        left = max(parse_time(until) - workflow.now(), timedelta(0)) if until is not None else None
        with suppress(TimeoutError):  # the caller looks what the time has changed
            await workflow.wait_condition(lambda: self.must_end or met(), timeout=left, timeout_summary=summary)

    def check_expiry(self, *, lacks_approvals: bool = False) -> None:
        """Raises `Stop` when what needs approvals has not started before they expire (`spec.md` 12)."""
        deadline = self._deadline(lacks_approvals=lacks_approvals)
        if deadline is not None and now() >= deadline:
            raise Stop(EXPIRED)

    def _deadline(self, *, lacks_approvals: bool = False) -> str | None:
        """When its approvals expire; those of a whole request do not while that is being carried out."""
        state = self.state
        if not state.approvals_required:
            return None
        complete = len(state.approvals) >= state.approvals_required and not lacks_approvals
        return None if complete and state.after_deployment_id is not None else state.approvals_expire_at

    def other_votes(self) -> Callable[[], bool]:
        """Whether the votes are other ones than now, or nobody's any more."""
        before = self.state.approvals
        return lambda: self.entity.gone or self.state.approvals != before

    # -- Work

    async def ask(self, activity: str, question: Any, answer: type[T], config: ActivityConfig) -> T:
        """Ask what changes nothing; neither a request to end nor the end of its approvals is kept waiting for the answer.

        News that come meanwhile may not be in the answer: the next pause is none then.
        """
        self.check_end()
        self._heard = self.news
        handle: ActivityHandle[T] = workflow.start_activity(activity, question, result_type=answer, **config)
        try:
            while not handle.done():
                await self._until(handle.done, self._deadline(), "approvals expire")
                self.check_end()
                if not handle.done():
                    self.check_expiry()
        finally:
            if not handle.done():
                handle.cancel()
        return await handle

    async def apply(self, command_id: str, decide: Callable[[Deployment], Decision[Deployment] | None]) -> None:
        """Persist what the process found out by itself; each of these writes is an act of its own."""
        await self.entity.apply(f"{command_id}:{self.entity.state.version}", Actor(), decide)

    async def effect(self, activity: str, request: Any, answer: type[T], summary: str) -> T:
        """A visible effect on the environment; raises `Stop` when it was given up."""
        try:
            return await workflow.execute_activity(activity, request, result_type=answer, **options.effect(summary=summary))
        except ActivityError as error:
            message = error.cause.message if isinstance(error.cause, ApplicationError) else str(error.cause or error)
            raise failed(message) from error

    def switch_request(self, facts: StartReply | DeployFacts, profile_id: str, profile_revision_id: str | None) -> SwitchRequest:
        """What is put in place, under the fence."""
        return SwitchRequest(
            app_id=self.app_id,
            environment_id=self.state.environment_id,
            deployment_id=self.id,
            release_id=self.release_id,
            tag=facts.tag,
            commit_sha=facts.published_sha,
            profile_id=profile_id,
            profile_revision_id=profile_revision_id,
            fence=self.state.fence or 0,
        )

    async def suite(self, gate: GateStart) -> Verdict:
        """Run the deploy gate; a request to end stops it."""
        if self.must_end:
            return canceled_verdict(gate)
        self.gate = asyncio.create_task(run_gate(gate))
        try:
            return await self.gate
        except asyncio.CancelledError:
            return canceled_verdict(gate)  # a cancel came before its first step
        finally:
            self.gate = None

    @property
    def is_over(self) -> bool:
        """Whether its record is gone or at an end."""
        return self.entity.gone or self.state.state in TERMINAL


def in_time(delta: timedelta) -> str:
    """The time `delta` from now."""
    return format_time(workflow.now() + delta)
