"""`deployment:{id}`: one release to one environment, under its lock and fence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from temporalio import workflow

from conman.workflows import deploy_former, options
from conman.workflows.deploy_process import FreshRun, Process, Stop, superseded
from conman.workflows.deploy_running import carry_out
from conman.workflows.deploy_waiting import until_ready
from conman.workflows.entity import Entity, now, refusals
from conman.workflows.resync import Resynced

with workflow.unsafe.imports_passed_through():
    from conman.domain import deploy_moves as moves
    from conman.domain import deployment as rules
    from conman.domain.decision import Actor, Command, Decision, Remembered
    from conman.domain.deploy_ending import Ending, Left, decide_end
    from conman.domain.deploy_messages import (
        ApproveCommand,
        Ended,
        ReleaseFailedCommand,
        ReleaseReadyCommand,
        RevalidateCommand,
        SupersedeCommand,
    )
    from conman.domain.deployment import TERMINAL, Deployment, DeploymentState, Move, Phase
    from conman.domain.errors import DomainError
    from conman.domain.jobs import ReasonCode
    from conman.domain.messages import EndDeployment, EntityStart

CANCELABLE = frozenset({Phase.LOCK, Phase.SCHEDULE, Phase.APPROVALS, Phase.DRIFT, Phase.GATE})
"""Phases in which a cancel leaves the environment as it was; later ones finish."""

WHOLE_PROCESS = "whole-process"
"""Patch id: line, schedule, drift, migrations, health and the way back are part of a deployment."""

_LOST = Ending(
    move=Move.FAIL,
    reason_code=ReasonCode.INFRASTRUCTURE,
    message="Its process was lost while it ran: look at the environment.",
)


class CancelCommand(Command):
    """Stop it while nothing of it shows."""


@workflow.defn(name="deployment")
class DeploymentWorkflow(Resynced):
    """Arrives: approve, revalidate, supersede, the release of a rollback, cancel; word that the lock is free, or that something
    else has changed that it waits for. Waits for: its release, the deployment before it, the lock, its time, approvals with their
    expiry, the environment to be mended, the deploy gate (a child), migrations, the switch, the verify.

    Its fence goes with every effect, so that an attempt that was given up can't touch what a later deployment did
    (`durability.md` 15 and 16).
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.id = start.entity_id
        self.app_id = start.app_id
        self.entity = Entity(
            Deployment,
            "deployments",
            start.entity_id,
            start.app_id,
            carried=start.carried,
            mirror=lambda deployment: ({"release_id": deployment.release_id}, []),
            describe=_describe,
        )
        self.process = Process(self.entity, self.id, self.app_id)

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """From the line for the lock to the record of the end; every end frees the lock."""
        work = asyncio.create_task(self._run())
        while True:
            try:
                ended = await asyncio.shield(work)
            except asyncio.CancelledError:
                # Somebody canceled it in the Web UI: that means what the command means; past the gate it finishes.
                if self.entity.loaded and self.entity.state.phase not in CANCELABLE:
                    workflow.logger.warning("deployment %s is past its gate and goes on", self.id)
                else:
                    self.process.ask_to_cancel(Actor())
                continue
            if ended is None:
                workflow.continue_as_new(start.model_copy(update={"carried": self.entity.carry()}))
            return ended

    async def _run(self) -> str | None:
        """The state at the end; None when the process goes on in a fresh run."""
        if await self.entity.load() and self.entity.state.state not in TERMINAL:
            try:
                ending = await self._ending()
            except DomainError:
                # Its record is gone, as in a backup from before it was made: then its lock counts as free.
                if not self.entity.gone:
                    raise
            else:
                if ending is None:
                    return None
                await self._end(ending)
                if workflow.patched(WHOLE_PROCESS):
                    await self._tell_the_line()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return "gone" if self.entity.gone else self.entity.state.state.value

    async def _ending(self) -> Ending | None:
        while True:
            try:
                if self.entity.state.state is DeploymentState.RUNNING:
                    # A fresh history beside a record that was running means that the old one is lost (`durability.md` 20).
                    return _LOST.model_copy(update={"left": Left()}) if workflow.patched(WHOLE_PROCESS) else _LOST
                if not workflow.patched(WHOLE_PROCESS):
                    return await deploy_former.deploy(self.process)
                return await carry_out(self.process, await until_ready(self.process))
            except Stop as stop:
                return stop.ending
            except FreshRun:
                self.entity.draining = True
                await workflow.wait_condition(lambda: self.process.must_end or workflow.all_handlers_finished())
                if not self.process.must_end and not self.entity.gone:
                    return None
                self.entity.draining = False

    async def _end(self, ending: Ending) -> None:
        """Environment, release, deployment, lock, job: in this order, in one repeatable activity."""
        command_id = f"end:{self.id}"
        # What was asked for and done is that person's act; a failure is Conman's own finding.
        asked_by = Actor(user_id=self.entity.state.requested_by)
        actor = {Move.CANCEL: self.process.canceled_by, Move.SUCCEED: asked_by}.get(ending.move, Actor())

        def build(deployment: Deployment) -> tuple[Decision[Deployment], EndDeployment] | None:
            if deployment.state in TERMINAL:
                return None
            decision = decide_end(self.id, deployment, ending)
            if ending is self.process.asked:
                # A repeat of the command that ended it gets the first one's answer.
                known = [*decision.owned.commands, *(Remembered(id=command_id) for command_id in self.process.cancels)]
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

    async def _tell_the_line(self) -> None:
        """Who waits for the lock asks for it at once; a lost word costs them the time until they ask by themselves."""
        if not self.entity.gone:
            ended = Ended(app_id=self.app_id, environment_id=self.entity.state.environment_id, deployment_id=self.id)
            await workflow.execute_activity("tell_the_line", ended, **options.call())

    @workflow.signal
    def lock_granted(self) -> None:
        """The environment's lock may be this deployment's now: it asks."""
        self.process.news += 1

    @workflow.signal
    def look_again(self) -> None:
        """Something has changed that may matter to what it waits for: a release was published, a hold was lifted."""
        self.process.news += 1

    @workflow.update
    async def approve(self, command: ApproveCommand) -> dict[str, Any]:
        """One distinct person approves; the start may interleave, then it is refused."""
        return await self.entity.command(
            command,
            lambda deployment: rules.decide_approve(self.id, deployment, command.actor.user_id or "", now(), command.digest),
        )

    @approve.validator
    def _validate_approve(self, command: ApproveCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def revalidate(self, command: RevalidateCommand) -> dict[str, Any]:
        """Have the environment looked at again at once; the look itself is the process's affair."""
        return await self.entity.command(
            command, lambda deployment: moves.decide_revalidate(self.id, deployment, overwrite=command.overwrite)
        )

    @revalidate.validator
    def _validate_revalidate(self, command: RevalidateCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def release_ready(self, command: ReleaseReadyCommand) -> dict[str, Any]:
        """The release that a rollback waits for is published."""
        return await self.entity.command(command, lambda deployment: moves.decide_release_ready(deployment, command.release_id))

    @release_ready.validator
    def _validate_release_ready(self, command: ReleaseReadyCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def release_failed(self, command: ReleaseFailedCommand) -> dict[str, Any]:
        """There will be no release to roll back with; answered when the deployment has failed."""
        ending = Ending(move=Move.FAIL, reason_code=command.reason_code, message=command.message)
        return await self._end_on_command(command, ending, frozenset({Phase.LOCK}))

    @release_failed.validator
    def _validate_release_failed(self, command: ReleaseFailedCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def supersede(self, command: SupersedeCommand) -> dict[str, Any]:
        """A newer deployment has taken the lock from this one, which waits only for drift; answered when it has ended."""
        return await self._end_on_command(command, superseded(command.by_deployment_id), CANCELABLE)

    @supersede.validator
    def _validate_supersede(self, command: SupersedeCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def cancel(self, command: CancelCommand) -> dict[str, Any]:
        """Stop it; answered when it has ended. A phase that is past the gate finishes: then it is refused."""
        ending = Ending(move=Move.CANCEL, reason_code=ReasonCode.CANCELED, message="Canceled on request.")
        return await self._end_on_command(command, ending, CANCELABLE)

    @cancel.validator
    def _validate_cancel(self, command: CancelCommand) -> None:
        self.entity.validate(command)

    async def _end_on_command(self, command: Command, ending: Ending, phases: frozenset[Phase]) -> dict[str, Any]:
        """Have it end so, in one of these phases; its other end may come first, then the command is refused."""
        await workflow.wait_condition(lambda: self.entity.loaded or self.entity.gone)
        with refusals():
            state = self.entity.state
            if state.remembered(command.id) is not None:
                return {}
            if state.state in TERMINAL or state.phase not in phases:
                rules.target(state.state if state.state in TERMINAL else DeploymentState.SUCCEEDED, ending.move)
            self.process.cancels.append(command.id)
            self.process.ask_to_end(ending, command.actor)
            await workflow.wait_condition(lambda: self.process.is_over)
            wanted = DeploymentState.FAILED if ending.move is Move.FAIL else DeploymentState.CANCELED
            if self.entity.state.state is not wanted:
                rules.target(self.entity.state.state, ending.move)
        return {}


def _describe(deployment: Deployment) -> tuple[str, str]:
    waits = rules.waiting_for(deployment)
    what = f"{deployment.kind.value} {deployment.state.value}, phase {deployment.phase.value}."
    return deployment.state.value, f"{what} Waits for {waits}." if waits else f"{what} {deployment.message or ''}".rstrip()


__all__ = ["ApproveCommand", "CancelCommand", "DeploymentWorkflow"]
