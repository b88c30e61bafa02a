"""`release:{id}`: from draft to published or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.assemble import AssembleWorkflow
from conman.workflows.entity import Decide, Entity, refusal, refusals, whole
from conman.workflows.publishing import Publishing
from conman.workflows.reserving import ReservingQueue
from conman.workflows.resync import Resynced

with workflow.unsafe.imports_passed_through():
    from pydantic import Field

    from conman.domain import release as rules
    from conman.domain.changeset_news import QueueNews
    from conman.domain.decision import Actor, Command, Decision
    from conman.domain.errors import DomainError
    from conman.domain.messages import AssembleStart, EntityStart, TagRequest, Telling
    from conman.domain.publishing import check_may_publish
    from conman.domain.release import AssemblyResult, EditIntent, Failure, Move, Release, ReleaseState, Selection


class SelectCommand(Command):
    """The whole selection in merge order, or a `selection` made from the present one; the first one creates the release."""

    changeset_ids: list[str] = Field(default_factory=list[str])
    selection: Selection | None = None


class AssembleCommand(Command):
    """Compose and gate the selection."""

    job_id: str


class RevertCommand(Command):
    """Become the release that undoes another one, as the record says, and be assembled."""

    job_id: str


class PublishCommand(Command):
    """Publish what was validated."""


class DropCommand(Command):
    """Give it up."""


class _Interleaved(Exception):
    """Another command recorded its intent before this one had the lock."""


@workflow.defn(name="release")
class ReleaseWorkflow(Resynced):
    """Arrives: select, revert, assemble, publish, drop; word that the head or a profile is another one.

    Waits for: the queue's answers, the assembly (a child), the publish saga.

    Every command needs the queue, which alone owns reservations: each records its intent, lets go of the lock, and is answered
    when the loop has finished it (`durability.md` 14).
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.id = start.entity_id
        self.app_id = start.app_id
        self.entity = Entity(Release, "releases", start.entity_id, start.app_id, carried=start.carried, describe=_describe)
        self.queue = ReservingQueue(start.app_id, start.entity_id)
        self.publishing = Publishing(self.entity, self.queue)
        self.assembly: asyncio.Task[None] | None = None
        self.composing = False
        self.outcomes: dict[str, DomainError | None] = {}
        self.looks = False

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """Do what the state calls for until it is published and told, or dropped."""
        canceled = False
        try:
            await self.entity.load()
        except asyncio.CancelledError:
            canceled = True
        while not self._over():
            try:
                seen = self.entity.changes  # before the work: what changes during it is looked at again
                await whole(self._work())
                if canceled:
                    canceled = False
                    await self._cancel()
                    continue
                await workflow.wait_condition(lambda seen=seen: self.entity.changes != seen or self._may_continue())
                if self._may_continue():
                    await self._continue(start)
            except DomainError:
                if not self.entity.gone:
                    raise
            except asyncio.CancelledError:
                canceled = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        return "gone" if self.entity.gone else self.entity.state.state.value

    def _may_continue(self) -> bool:
        return self.entity.should_continue_as_new() and not self._over() and self._idle()

    async def _continue(self, start: EntityStart) -> None:
        """Continue as new, unless a command that was let in before calls for work first."""
        self.entity.draining = True
        # A handler whose intent is recorded waits for the loop, so the loop must not wait for it.
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or not self._may_continue())
        if self._may_continue():
            workflow.continue_as_new(start.model_copy(update={"carried": self.entity.carry()}))
        self.entity.draining = False

    def _over(self) -> bool:
        if self.entity.gone:
            return True
        state = self.entity.state
        return state.state not in rules.OPEN and state.told and state.publishing is None

    def _idle(self) -> bool:
        state = self.entity.state
        return self.assembly is None and state.edit is None and state.publishing is None and state.state in rules.OPEN

    async def _cancel(self) -> None:
        """Canceled in the Web UI: an assembly is given up, an open release is dropped; after the refs moved it goes on."""
        if self._over():
            return
        state = self.entity.state
        if state.publishing is not None or state.state not in rules.OPEN:
            workflow.logger.warning("release %s is being published and goes on", state.tag)
        elif self.assembly is not None:
            if self.composing:  # what it found already is told and recorded
                self.assembly.cancel()
        elif state.edit is None:
            command_id = f"cancel:{workflow.info().run_id}:{workflow.uuid4()}"
            await self.queue.free(command_id)
            await self.entity.apply(command_id, Actor(), lambda release: rules.decide_dropped(self.id, release))

    async def _work(self) -> None:
        if self._over():
            return
        state = self.entity.state
        if state.edit is not None:
            await self._resolve(state.edit)
            state = self.entity.state
        if self.assembly is not None and self.assembly.done():
            ended, self.assembly = self.assembly, None
            if not ended.cancelled():
                ended.result()
        if state.state is ReleaseState.ASSEMBLING and self.assembly is None and state.job_id is not None:
            self.assembly = asyncio.create_task(self._assemble(state.job_id))
            self.assembly.add_done_callback(lambda _: self.entity.touch())
        if state.publishing is not None:
            try:
                await self.publishing.move_refs(state.publishing)
            except DomainError as error:
                self.outcomes[state.publishing.command_id] = error
                workflow.logger.warning("the publish of %s that was begun earlier is refused: %s", state.tag, error.message)
            state = self.entity.state
        if not state.told:
            await self.publishing.tell()
        if self.looks:
            self.looks = False
            await self.publishing.look()

    async def _resolve(self, edit: EditIntent) -> None:
        actor = Actor.model_validate(edit.actor)
        refused: DomainError | None = None
        try:
            match edit.kind:
                case "select":
                    await self._do_select(edit, actor)
                case "assemble":
                    await self._do_assemble(edit, actor)
                case "revert":
                    await self._do_revert(edit, actor)
                case "publish":
                    await self.publishing.begin(edit, actor)
                case "drop":
                    await self.queue.reserve(edit, actor, [])
                    await self.entity.apply(edit.command_id, actor, lambda release: rules.decide_dropped(self.id, release))
        except DomainError as error:
            refused = error
            await self.entity.apply(
                f"{edit.command_id}:refused:{workflow.uuid4()}", Actor(), lambda release: self._refused(release, edit)
            )
        self.outcomes[edit.command_id] = refused

    def _refused(self, release: Release, edit: EditIntent) -> Decision[Release] | None:
        if release.edit is None or release.edit.command_id != edit.command_id:
            return None
        if not release.created:
            # A release that never got its selection is nobody's: it is not shown, and its id is not used again.
            return rules.decide_dropped(self.id, release)
        return Decision(release.model_copy(update={"edit": None}))

    async def _do_revert(self, edit: EditIntent, actor: Actor) -> None:
        await self.queue.reserve(edit, actor, [])  # the queue says whether the app still takes new work
        tag = await self._reserve_tag()
        await self.entity.apply(
            edit.command_id,
            actor,
            lambda release: rules.decide_reverting(self.id, release, tag, edit.facts["job_id"], actor.user_id),
        )

    async def _reserve_tag(self) -> str:
        request = TagRequest(app_id=self.app_id, release_id=self.id)
        return await workflow.execute_activity("reserve_tag", request, result_type=str, **options.git())

    async def _do_select(self, edit: EditIntent, actor: Actor) -> None:
        present = self.entity.state.ordered_changeset_ids
        wanted = edit.selection.of(present) if edit.selection is not None else edit.changeset_ids
        members = await self.queue.reserve(edit, actor, wanted)
        tag = self.entity.state.tag
        if tag is None:
            tag = await self._reserve_tag()
        await self.entity.apply(edit.command_id, actor, lambda release: rules.decide_selected(self.id, release, members, tag))

    async def _do_assemble(self, edit: EditIntent, actor: Actor) -> None:
        # Asking for what it holds proves that no member has left the queue meanwhile.
        await self.queue.reserve(edit, actor, self.entity.state.ordered_changeset_ids)
        await self.entity.apply(
            edit.command_id,
            actor,
            lambda release: rules.decide_assemble(self.id, release, edit.facts["job_id"], actor.user_id),
        )

    async def _assemble(self, job_id: str) -> None:
        state = self.entity.state
        start = AssembleStart(
            app_id=self.app_id,
            release_id=self.id,
            job_id=job_id,
            tag=state.tag or "",
            members=state.members,
            reverts_release_id=state.reverts_release_id,
        )
        found = await self._assembled(start)
        if found.failure is not None and found.failure.changeset_id is not None:
            await self._blame(found.failure, found)
        await self.entity.apply(
            f"assembled:{job_id}", Actor(), lambda release: rules.decide_assembly_result(self.id, release, found)
        )

    async def _assembled(self, start: AssembleStart) -> AssemblyResult:
        self.composing = True
        try:
            return await workflow.execute_child_workflow(
                AssembleWorkflow.run,
                start,
                id=options.job_workflow(start.job_id),
                task_timeout=options.WORKFLOW_TASK_TIMEOUT,
                search_attributes=options.search_attributes(self.app_id, "job", start.job_id),
                static_summary=f"assemble {start.tag}: {len(start.members)} changesets",
                static_details=f"Release {self.id}: merges, then the release gate, then a bisection where the gate fails.",
            )
        except WorkflowAlreadyStartedError:
            reason, message = "infrastructure", "An earlier assembly of this job was interrupted: assemble again."
        except ChildWorkflowError as error:
            canceled = is_cancelled_exception(error)
            reason = "canceled" if canceled else "infrastructure"
            message = "The assembly was canceled." if canceled else "The assembly was stopped: assemble again."
        except asyncio.CancelledError:
            reason, message = "canceled", "The assembly was canceled."
        finally:
            self.composing = False
        return AssemblyResult(job_id=start.job_id, base_sha="", failure=Failure(reason_code=reason, message=message))

    async def _blame(self, failure: Failure, found: AssemblyResult) -> None:
        """The queue is told first, then the changeset, then the assembly's record shows it."""
        member = next(m for m in self.entity.state.members if m.changeset_id == failure.changeset_id)
        conflicted = failure.reason_code == "conflict"
        job_id = found.gate_job_ids[-1] if found.gate_job_ids else found.job_id
        await self.queue.eject(found.job_id, member.changeset_id, conflicted=conflicted, judged_by=job_id)
        news = QueueNews(
            kind="conflicted" if conflicted else "needs_revalidation",
            head_sha=member.head_sha,
            job_id=job_id,
            conflicts=found.conflicts,
        )
        await workflow.execute_activity(
            "tell_changesets",
            Telling(app_id=self.app_id, by=f"release:{self.id}", news=[(member.changeset_id, news)]),
            **options.call(summary="tell the changeset that is to blame"),
        )

    async def _by_intent(
        self,
        command: Command,
        kind: str,
        check: Callable[[Release], Any],
        *,
        selection: Selection | None = None,
        facts: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        def decide(release: Release) -> Decision[Release]:
            same = any(intent is not None and intent.command_id == command.id for intent in (release.edit, release.publishing))
            if same or release.remembered(command.id) is not None:
                return Decision(release)
            check(release)
            intent = EditIntent.model_validate(
                {
                    "command_id": command.id,
                    "kind": kind,
                    "actor": command.actor.model_dump(mode="json"),
                    "changeset_ids": selection.changeset_ids if selection is not None else [],
                    "selection": selection,
                    "facts": facts or {},
                }
            )
            return Decision(release.model_copy(update={"edit": intent}))

        if self.entity.loaded and self.entity.state.edit is None and self.entity.state.publishing is None:
            self.outcomes.pop(command.id, None)
        await self._alone(command, decide)
        await workflow.wait_condition(lambda: self._answered(command.id))
        refused = self.outcomes.get(command.id)
        if refused is not None:
            raise refusal(refused)
        with refusals():
            if self.entity.state.remembered(command.id) is None:
                check(self.entity.state)
        return facts or {}

    async def _alone(self, command: Command, decide: Decide[Release]) -> None:
        """Record an intent once no other one stands; another command may record its own before the lock: checked again inside."""

        def free(release: Release) -> bool:
            busy = release.edit or release.publishing
            return busy is None or busy.command_id == command.id

        def alone(release: Release) -> Decision[Release] | None:
            if not free(release):
                raise _Interleaved
            return decide(release)

        written = command.model_copy(update={"id": f"{command.id}:intent:{workflow.uuid4()}"})
        while True:
            await workflow.wait_condition(lambda: not self.entity.loaded or free(self.entity.state))
            try:
                await self.entity.command(written, alone)
                return
            except _Interleaved:
                continue

    def _answered(self, command_id: str) -> bool:
        if command_id in self.outcomes or self.entity.gone:
            return True
        state = self.entity.state
        return (state.remembered(command_id) is not None and state.told) or self._over()

    @workflow.update
    async def select(self, command: SelectCommand) -> dict[str, Any]:
        """The selection in merge order, reserved as a whole or not at all; another manager's may interleave before the lock."""
        selection = command.selection or Selection(changeset_ids=command.changeset_ids)
        return await self._by_intent(
            command, "select", lambda release: rules.check_select(release, selection), selection=selection
        )

    @workflow.update
    async def revert(self, command: RevertCommand) -> dict[str, Any]:
        """Get a tag and assemble what undoes another release; both can be read when this answers."""
        return await self._by_intent(command, "revert", rules.check_revert, facts={"job_id": command.job_id})

    @workflow.update
    async def assemble(self, command: AssembleCommand) -> dict[str, Any]:
        """Start an assembly; its job can be read when this answers."""
        return await self._by_intent(command, "assemble", rules.check_assemble, facts={"job_id": command.job_id})

    @workflow.update
    async def publish(self, command: PublishCommand) -> dict[str, Any]:
        """Publish; answered when the members are released and the queue has been told."""
        return await self._by_intent(command, "publish", check_may_publish)

    @workflow.update
    async def drop(self, command: DropCommand) -> dict[str, Any]:
        """Free the selection and end."""
        return await self._by_intent(command, "drop", lambda release: rules.target(release.state, Move.DROP))

    @workflow.signal
    def look_again(self) -> None:
        """The integration head, or a profile that gates render, is another one now."""
        self.looks = True
        self.entity.touch()

    @select.validator
    def _validate_select(self, command: SelectCommand) -> None:
        self.entity.validate(command)

    @revert.validator
    def _validate_revert(self, command: RevertCommand) -> None:
        self.entity.validate(command)

    @assemble.validator
    def _validate_assemble(self, command: AssembleCommand) -> None:
        self.entity.validate(command)

    @publish.validator
    def _validate_publish(self, command: PublishCommand) -> None:
        self.entity.validate(command)

    @drop.validator
    def _validate_drop(self, command: DropCommand) -> None:
        self.entity.validate(command)


def _describe(release: Release) -> tuple[str, str]:
    waits = rules.waiting_for(release)
    what = f"{release.tag or 'New release'}: {release.state.value}, {len(release.members)} changesets."
    return release.state.value, f"{what} Waits for {waits}." if waits else what
