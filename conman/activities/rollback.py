"""Activities of rollbacks: the commit that undoes a release, its release's way, and the news to its deployment (`spec.md` 12)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from temporalio import activity
from temporalio.service import RPCError

from conman.activities.heartbeat import heartbeating
from conman.activities.merging import MERGER
from conman.activities.repositories import head_of, integration_branch
from conman.domain.app import candidate_ref
from conman.domain.decision import Actor, Command
from conman.domain.deployment import TERMINAL, Deployment
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.messages import AssembleStart, ComposeReply, UndoRelease
from conman.domain.outgoing import job_start
from conman.domain.release import Release, ReleaseState
from conman.domain.rollback import Step, check_undoable
from conman.domain.rollback_messages import RollbackBegun, RollbackNews, RollbackQuestion, RollbackStep, RollbackView
from conman.faults import fault_point
from conman.git.adapter import CommitOutcome, GitAdapter, Signature, StaleRef
from conman.services import rollbacks
from conman.services.clock import now
from conman.services.conflicts import conflict_record
from conman.services.rollback_trial import keep_overrides, try_revert
from conman.services.secrets import Secrets
from conman.services.vault import Vault
from conman.store import feed, records, release_states
from conman.store.database import Database, Document
from conman.workflows import options
from conman.workflows.client import Commands
from conman.workflows.release import AssembleCommand, DropCommand, PublishCommand

LOOK_SECONDS = 0.5
"""How often a rollback looks whether its release has come further, seconds."""
LOOKING_SECONDS = 60.0
"""How long one look at a release that is being assembled may last before its workflow decides again, seconds."""
REFUSED_SECONDS = 2.0
"""How long a step that was refused takes at least, seconds: where the release is as it was, the same step comes again."""
STEP_SECONDS = 90.0
"""How long a release may take to answer a step, seconds; the step is sent again under the same command id after it."""


class RollbackActivities:
    """Bound to the records, one Git backend, the secrets, and the way to workflows."""

    def __init__(self, db: Database, git: GitAdapter, vault: Vault, commands: Commands) -> None:
        self.db = db
        self.git = git
        self.secrets = Secrets(db, vault)
        self.commands = commands

    def on_git(self) -> list[Any]:
        """The activities that work on repositories."""
        return [self.compose_revert]

    def on_main(self) -> list[Any]:
        """The activities that write records."""
        return [self.undo_release]

    def on_calls(self) -> list[Any]:
        """The activities that call other workflows, or wait for them."""
        return [self.begin_revert, self.watch_revert, self.step_revert, self.tell_deployment]

    # The commit

    @activity.defn
    async def compose_revert(self, start: AssembleStart) -> ComposeReply:
        """One commit on the integration head that takes a release's difference back, and the overrides that take back what it set
        in profiles; or why it can't be undone, with nothing written. A repeat on the same head makes the same.
        """
        await self.db["jobs"].update_one(
            {"_id": start.job_id, "state": "queued"},
            {"$set": job_start(now()), "$inc": {"version": 1}},
        )
        await feed.tell_jobs(self.db, [start.job_id])
        repo, branch = await integration_branch(self.db, start.app_id)
        base = await head_of(self.git, repo, branch)
        undone = await records.get(self.db, "releases", start.reverts_release_id or "", what="release")
        state = Release.model_validate(undone["owned"])
        try:
            check_undoable(state)
        except DomainError as error:
            return ComposeReply(base_sha=base, problem=error.message)
        async with heartbeating():
            trial = await try_revert(self.secrets, self.git, repo, base, undone)
            if trial.refused is not None:
                conflicts = [conflict_record(one) for one in trial.conflicts]
                return ComposeReply(base_sha=base, conflicts=conflicts, problem=trial.refused.message)
            overrides = await keep_overrides(self.db, start.app_id, trial, now())
            fault_point("revert.overrides_kept")
            made = await self._committed(repo, base, start, state)
            fault_point("revert.committed")
        if made.sha is None:
            conflicts = [conflict_record(one) for one in made.conflicts]
            return ComposeReply(base_sha=base, conflicts=conflicts, problem=f"{state.tag} can't be undone: it conflicts.")
        return ComposeReply(base_sha=base, prefix_shas=[made.sha], overrides=overrides)

    async def _committed(self, repo: str, base: str, start: AssembleStart, undone: Release) -> CommitOutcome:
        ref = candidate_ref(start.release_id, 1)
        when = (await self.git.commit(repo, base)).committer.when
        message = f"Undo {undone.tag}\n\nConman-Reverts: {start.reverts_release_id}\nConman-Release: {start.tag}\n"
        for _ in range(5):
            try:
                return await self.git.revert(
                    repo,
                    ref=ref,
                    expected_old=await self.git.resolve(repo, ref),
                    onto=base,
                    base=undone.base_sha or "",
                    head=undone.published_sha or "",
                    author=Signature(*MERGER, when),
                    message=message,
                )
            except StaleRef:
                continue  # an attempt that was given up is still at it; it makes the same commit
        raise RuntimeError(f"{ref} of {repo} keeps moving")

    # The records

    @activity.defn
    async def undo_release(self, request: UndoRelease) -> None:
        """The release that was undone is `rolled_back` from its undoing's publish on, also where it still runs."""
        await release_states.roll_back(self.db, request)
        fault_point("revert.undone")

    # The way of the release

    @activity.defn
    async def begin_revert(self, question: RollbackQuestion) -> RollbackBegun:
        """Make the release that undoes the other, and have it assembled; a repeat finds it."""
        deployment = await records.get(self.db, "deployments", question.deployment_id, what="deployment")
        try:
            async with heartbeating():
                await rollbacks.begin_release(self.db, self.commands, deployment)
        except DomainError as error:
            if error.code is ErrorCode.COMMAND_EXPIRED:
                raise  # it waited for a worker too long, which says nothing against it
            return RollbackBegun(refused=error.message)
        return RollbackBegun()

    @activity.defn
    async def watch_revert(self, question: RollbackQuestion) -> RollbackView:
        """How the release is, as soon as it calls for a step or nobody waits for it any more; after a minute anyway."""
        async with heartbeating():
            for _ in range(int(LOOKING_SECONDS / LOOK_SECONDS)):
                view = await self._view(question)
                busy = view.release.edit is not None or view.release.publishing is not None
                if not busy and (view.release.state is not ReleaseState.ASSEMBLING or not view.wanted):
                    return view
                await asyncio.sleep(LOOK_SECONDS)
        return await self._view(question)

    async def _view(self, question: RollbackQuestion) -> RollbackView:
        deployment = Deployment.model_validate(
            (await records.get(self.db, "deployments", question.deployment_id, what="deployment"))["owned"]
        )
        release = await records.get(self.db, "releases", question.release_id, what="release")
        wanted = deployment.state not in TERMINAL
        return RollbackView(release=Release.model_validate(release["owned"]), wanted=wanted, user_id=deployment.requested_by)

    @activity.defn
    async def step_revert(self, step: RollbackStep) -> None:
        """Do one thing with the release; what refuses it shows in its record, which is looked at next."""
        async with heartbeating():
            if step.kind is Step.STOP:
                await self._stop(step)
            else:
                await self._command(step)
        fault_point("revert.stepped")

    async def _stop(self, step: RollbackStep) -> None:
        """Cancel the assembly, and wait until the release shows that it has ended."""
        with suppress(RPCError):  # it may have ended meanwhile; the record tells
            await self.commands.client.get_workflow_handle(options.job_workflow(step.job_id)).cancel()
        for _ in range(int(LOOKING_SECONDS / LOOK_SECONDS)):
            release = await records.get(self.db, "releases", step.release_id, what="release")
            if release["owned"]["state"] != ReleaseState.ASSEMBLING.value:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _command(self, step: RollbackStep) -> None:
        release = await records.get(self.db, "releases", step.release_id, what="release")
        command: Command
        actor, not_after = Actor(user_id=step.user_id), self.commands.not_after()
        match step.kind:
            case Step.ASSEMBLE:
                command = AssembleCommand(id=step.command_id, actor=actor, not_after=not_after, job_id=step.job_id)
            case Step.PUBLISH:
                command = PublishCommand(id=step.command_id, actor=actor, not_after=not_after)
            case Step.DROP:
                command = DropCommand(id=step.command_id, actor=actor, not_after=not_after)
            case _:
                raise ValueError(f"{step.kind.value} is no command of a release")
        entity = rollbacks.release_workflow(self.commands, release)
        try:
            await self.commands.send(entity, step.kind.value, command, timeout_seconds=STEP_SECONDS)
        except DomainError as error:
            activity.logger.warning("the %s of %s was refused: %s", step.kind.value, step.release_id, error.message)
            await asyncio.sleep(REFUSED_SECONDS)

    @activity.defn
    async def tell_deployment(self, news: RollbackNews) -> None:
        """The deployment goes on with the release, or ends without it; one that has ended needs no news."""
        deployment: Document = await records.get(self.db, "deployments", news.deployment_id, what="deployment")
        async with heartbeating():
            await rollbacks.tell_deployment(self.commands, deployment, news)
        fault_point("revert.told")
