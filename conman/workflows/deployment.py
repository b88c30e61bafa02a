"""`deployment:{id}`: one release to one environment, under its lock and fence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from conman.workflows import options
from conman.workflows.entity import Entity, now, refusals
from conman.workflows.gate import canceled_verdict, run_gate

with workflow.unsafe.imports_passed_through():
    from conman.domain import deployment as rules
    from conman.domain.decision import Actor, Command, Decision, NewJob, Remembered, Verdict
    from conman.domain.deployment import TERMINAL, Deployment, DeploymentState, Ending, Move, Phase
    from conman.domain.ids import derived_uuid7
    from conman.domain.jobs import JobType, ReasonCode, max_attempts
    from conman.domain.messages import (
        DeployFacts,
        DeployQuestion,
        EndDeployment,
        EntityStart,
        GateStart,
        ProfileQuestion,
        ProfileReply,
        StartDeployment,
        SwitchReply,
        SwitchRequest,
    )
    from conman.domain.times import milliseconds, parse_time

CANCELABLE = frozenset({Phase.LOCK, Phase.SCHEDULE, Phase.APPROVALS, Phase.DRIFT, Phase.GATE})
"""Phases in which a cancel leaves the environment as it was; later ones finish."""

BRINGS_OVERRIDES = "brings-overrides"
"""Patch id: a deployment goes out with a revision that has the overrides which its release brings."""

_LOST = Ending(
    move=Move.FAIL, reason_code=ReasonCode.INFRASTRUCTURE, message="Its process was lost while it ran: look at the environment."
)


class ApproveCommand(Command):
    """One person's yes."""


class CancelCommand(Command):
    """Stop it while nothing of it shows."""


class _Stop(Exception):
    """The deployment ends now."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.message)
        self.ending = ending


@workflow.defn(name="deployment")
class DeploymentWorkflow:
    """Arrives: approve, cancel. Waits for: approvals with their expiry, the deploy gate (a child), the switch, the verify.

    The environment's lock was taken by the request; its fence goes with every effect, so that an attempt that was given up can't
    touch what a later deployment did (`durability.md` 15 and 16).
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.id = start.entity_id
        self.app_id = start.app_id
        self.entity = Entity(Deployment, "deployments", start.entity_id, start.app_id, carried=start.carried, describe=_describe)
        self.cancel_asked = False
        self.canceled_by = Actor()
        self.cancels: list[str] = []
        self.gate: asyncio.Task[Verdict] | None = None

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """Approvals, gate, switch, verify, record; every end frees the lock."""
        work = asyncio.create_task(self._run())
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # Somebody canceled it in the Web UI: that means what the command means; past the gate it finishes.
                if self.entity.loaded and self.entity.state.phase not in CANCELABLE:
                    workflow.logger.warning("deployment %s is past its gate and goes on", self.id)
                else:
                    self._ask_to_cancel(Actor())

    async def _run(self) -> str:
        if await self.entity.load() and self.entity.state.state not in TERMINAL:
            try:
                # A fresh history beside a record that was running means that the old one is lost (`durability.md` 20).
                ending = _LOST if self.entity.state.state is DeploymentState.RUNNING else await self._deploy()
            except _Stop as stop:
                ending = stop.ending
            await self._end(ending)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return "gone" if self.entity.gone else self.entity.state.state.value

    def _ask_to_cancel(self, actor: Actor) -> None:
        self.cancel_asked = True
        self.canceled_by = actor
        if self.gate is not None:
            self.gate.cancel()

    async def _deploy(self) -> Ending:
        await self._approvals()
        facts = await self._start(await self._facts())
        await self._gate(facts)
        state = self.entity.state
        request = SwitchRequest(
            app_id=self.app_id,
            environment_id=state.environment_id,
            deployment_id=self.id,
            release_id=state.release_id,
            tag=facts.tag,
            commit_sha=facts.published_sha,
            profile_id=facts.profile_id,
            profile_revision_id=state.profile_revision_id,
            fence=state.fence,
        )
        await self._phase(Phase.SWITCH)
        switched = await self._effect("switch_environment", request, f"put {facts.tag} in place")
        await self._phase(Phase.VERIFY)
        await self._effect("verify_environment", request, "look whether the environment shows it")
        return Ending(move=Move.SUCCEED, reason_code=ReasonCode.OK, folder=switched.folder)

    async def _effect(self, activity: str, request: SwitchRequest, summary: str) -> SwitchReply:
        try:
            return await workflow.execute_activity(activity, request, result_type=SwitchReply, **options.effect(summary=summary))
        except ActivityError as error:
            message = error.cause.message if isinstance(error.cause, ApplicationError) else str(error.cause or error)
            raise _Stop(Ending(move=Move.FAIL, reason_code=ReasonCode.INFRASTRUCTURE, message=message)) from error

    def _check_cancel(self) -> None:
        if self.cancel_asked:
            raise _Stop(Ending(move=Move.CANCEL, reason_code=ReasonCode.CANCELED, message="Canceled on request."))

    async def _approvals(self) -> None:
        state = self.entity.state
        if not state.approvals_required:
            self._check_cancel()
            return
        await self._phase(Phase.APPROVALS)
        expires = parse_time(state.approvals_expire_at or state.requested_at)
        wanted = state.approvals_required
        while True:
            left = expires - workflow.now()
            try:
                await workflow.wait_condition(
                    lambda wanted=wanted: self.cancel_asked or len(self.entity.state.approvals) >= wanted,
                    timeout=max(left, timedelta(0)),
                    timeout_summary="approvals expire",
                )
            except TimeoutError:
                raise _Stop(
                    Ending(
                        move=Move.CANCEL,
                        reason_code=ReasonCode.CANCELED,
                        message="Its approvals expired: ask for the deployment again.",
                        approval_expired=True,
                    )
                ) from None
            self._check_cancel()
            counted = len(self.entity.state.approvals)
            # One who lost the role meanwhile no longer counts, and it waits on (`spec.md` 12).
            if len((await self._facts()).eligible_approvers) >= state.approvals_required:
                return
            wanted = counted + 1

    async def _facts(self) -> DeployFacts:
        state = self.entity.state
        return await workflow.execute_activity(
            "deploy_facts",
            DeployQuestion(
                app_id=self.app_id,
                environment_id=state.environment_id,
                release_id=state.release_id,
                deployment_id=self.id,
                approver_ids=[approval.user_id for approval in state.approvals],
            ),
            result_type=DeployFacts,
            **options.persist(),
        )

    async def _start(self, facts: DeployFacts) -> DeployFacts:
        """`running` starts with the gate; the lock's holder says so first (`durability.md` 15).

        From then on nobody changes the profile: the facts come back with the revision that goes out.
        """
        state = self.entity.state
        held = await workflow.execute_activity(
            "lock_running",
            StartDeployment(app_id=self.app_id, environment_id=state.environment_id, deployment_id=self.id),
            result_type=bool,
            **options.persist(),
        )
        if not held:
            raise _Stop(Ending(move=Move.FAIL, reason_code=ReasonCode.INFRASTRUCTURE, message="The environment's lock was lost."))
        if workflow.patched(BRINGS_OVERRIDES):
            facts = await self._with_overrides(facts)
        gate_job_id = derived_uuid7(milliseconds(now()), "deploy-gate", self.id)

        def decide(deployment: Deployment) -> Decision[Deployment]:
            started = rules.decide_start(
                self.id, deployment, gate_job_id=gate_job_id, profile_revision_id=facts.profile_revision_id
            )
            kind = JobType.MSUITE_DEPLOY
            job = NewJob(gate_job_id, kind, "deployment", self.id, max_attempts(kind), created_by=deployment.requested_by)
            return Decision(started.owned, events=started.events, jobs=(job,), job_starts=started.job_starts)

        await self.entity.apply(f"start:{self.id}", Actor(), decide)
        return facts

    async def _with_overrides(self, facts: DeployFacts) -> DeployFacts:
        """The facts with the revision that has what the release brings; a profile that can't take it fails the deployment."""
        state = self.entity.state
        question = ProfileQuestion(
            app_id=self.app_id,
            environment_id=state.environment_id,
            release_id=state.release_id,
            deployment_id=self.id,
            requested_by=state.requested_by,
            at=now(),
        )
        found = await workflow.execute_activity("prepare_profile", question, result_type=ProfileReply, **options.persist())
        if found.problem is not None:
            raise _Stop(Ending(move=Move.FAIL, reason_code=ReasonCode.RUNNER_ERROR, message=found.problem))
        return facts.model_copy(update={"profile_id": found.profile_id, "profile_revision_id": found.profile_revision_id})

    async def _gate(self, facts: DeployFacts) -> None:
        gate_job_id = self.entity.state.gate_job_id or ""
        verdict = await self._suite(
            GateStart(
                job_id=gate_job_id,
                app_id=self.app_id,
                job_type=JobType.MSUITE_DEPLOY,
                entity_type="deployment",
                entity_id=self.id,
                commit_sha=facts.published_sha,
                scope="deploy",
                profile_id=facts.profile_id,
                profile_revision_id=facts.profile_revision_id,
                tag=facts.tag,
                what=f"{facts.tag} before it is deployed",
            )
        )
        await self.entity.apply(
            f"gate:{gate_job_id}",
            Actor(),
            lambda deployment: Decision(
                deployment.model_copy(update={"message": f"gate: {verdict.reason_code.value}"}), job_ends=(verdict.end(),)
            ),
        )
        self._check_cancel()
        if verdict.reason_code is ReasonCode.CANCELED:
            raise _Stop(Ending(move=Move.CANCEL, reason_code=ReasonCode.CANCELED, message="The deploy gate was canceled."))
        if verdict.reason_code is not ReasonCode.OK:
            raise _Stop(
                Ending(
                    move=Move.FAIL,
                    reason_code=verdict.reason_code,
                    message=f"The deploy gate ended with {verdict.reason_code.value}; see job {gate_job_id}.",
                )
            )

    async def _suite(self, gate: GateStart) -> Verdict:
        if self.cancel_asked:
            return canceled_verdict(gate)
        self.gate = asyncio.create_task(run_gate(gate))
        try:
            return await self.gate
        except asyncio.CancelledError:
            return canceled_verdict(gate)  # a cancel came before its first step
        finally:
            self.gate = None

    async def _phase(self, phase: Phase) -> None:
        await self.entity.apply(f"phase:{phase.value}", Actor(), lambda deployment: rules.decide_phase(deployment, phase))

    async def _end(self, ending: Ending) -> None:
        """Environment, release, deployment, lock, job: in this order, in one repeatable activity."""
        command_id = f"end:{self.id}"
        # What was asked for and done is that person's act; a failure is Conman's own finding.
        asked_by = Actor(user_id=self.entity.state.requested_by)
        actor = {Move.CANCEL: self.canceled_by, Move.SUCCEED: asked_by}.get(ending.move, Actor())

        def build(deployment: Deployment) -> tuple[Decision[Deployment], EndDeployment] | None:
            if deployment.state in TERMINAL:
                return None
            decision = rules.decide_end(self.id, deployment, ending)
            if ending.move is Move.CANCEL:
                # A repeat of the command that canceled it gets the first one's answer.
                known = [*decision.owned.commands, *(Remembered(id=command_id) for command_id in self.cancels)]
                decision = replace(decision, owned=decision.owned.model_copy(update={"commands": known}))
            request = EndDeployment(
                persist=self.entity.persist_request(command_id, actor, deployment, decision),
                app_id=self.app_id,
                environment_id=deployment.environment_id,
                release_id=deployment.release_id,
                deployment_id=self.id,
                ending=ending,
                requested_by=deployment.requested_by,
            )
            return decision, request

        await self.entity.end_with("end_deployment", command_id, build)

    @workflow.update
    async def approve(self, command: ApproveCommand) -> dict[str, Any]:
        """One distinct person approves; the start may interleave, then it is refused."""
        return await self.entity.command(
            command, lambda deployment: rules.decide_approve(self.id, deployment, command.actor.user_id or "", now())
        )

    @approve.validator
    def _validate_approve(self, command: ApproveCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def cancel(self, command: CancelCommand) -> dict[str, Any]:
        """Stop it; answered when it has ended. A phase that is past the gate finishes: then it is refused."""
        await workflow.wait_condition(lambda: self.entity.loaded or self.entity.gone)
        with refusals():
            state = self.entity.state
            if state.remembered(command.id) is not None:
                return {}
            if state.state in TERMINAL or state.phase not in CANCELABLE:
                rules.target(state.state if state.state in TERMINAL else DeploymentState.SUCCEEDED, Move.CANCEL)
            self.cancels.append(command.id)
            self._ask_to_cancel(command.actor)
            await workflow.wait_condition(lambda: self.entity.gone or self.entity.state.state in TERMINAL)
            if self.entity.state.state is not DeploymentState.CANCELED:
                rules.target(self.entity.state.state, Move.CANCEL)
        return {}

    @cancel.validator
    def _validate_cancel(self, command: CancelCommand) -> None:
        self.entity.validate(command)


def _describe(deployment: Deployment) -> tuple[str, str]:
    waits = rules.waiting_for(deployment)
    what = f"{deployment.kind.value} {deployment.state.value}, phase {deployment.phase.value}."
    return deployment.state.value, f"{what} Waits for {waits}." if waits else f"{what} {deployment.message or ''}".rstrip()


__all__ = ["ApproveCommand", "CancelCommand", "DeploymentWorkflow"]
