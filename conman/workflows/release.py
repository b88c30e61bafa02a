"""`release:{id}`: from draft to published or dropped."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError, WorkflowAlreadyStartedError, is_cancelled_exception

from conman.workflows import options
from conman.workflows.assemble import AssembleWorkflow
from conman.workflows.entity import Decide, Entity, now, refusal, refusals, whole

with workflow.unsafe.imports_passed_through():
    from conman.domain import release as rules
    from conman.domain.changeset_news import QueueNews
    from conman.domain.decision import Actor, Command, Decision
    from conman.domain.errors import DomainError, ErrorCode
    from conman.domain.messages import (
        Answer,
        AssembleStart,
        EntityStart,
        MoveRefs,
        MoveRefsReply,
        PublishFacts,
        PublishQuestion,
        QueueCall,
        TagRequest,
        Telling,
    )
    from conman.domain.release import AssemblyResult, EditIntent, Failure, Member, Move, PublishIntent, Release, ReleaseState


class SelectCommand(Command):
    """The whole selection, in merge order; the first one creates the release."""

    changeset_ids: list[str]


class AssembleCommand(Command):
    """Compose and gate the selection."""

    job_id: str


class PublishCommand(Command):
    """Publish what was validated."""


class DropCommand(Command):
    """Give it up."""


class _Interleaved(Exception):
    """Another command recorded its intent before this one had the lock."""


@workflow.defn(name="release")
class ReleaseWorkflow:
    """Arrives: select, assemble, publish, drop. Waits for: the queue's answers, the assembly (a child), the publish saga.

    Every command needs the queue, which alone owns reservations: each records its intent, lets go of the lock, and is answered
    when the loop has finished it (`durability.md` 14).
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.id = start.entity_id
        self.app_id = start.app_id
        self.entity = Entity(Release, "releases", start.entity_id, start.app_id, carried=start.carried, describe=_describe)
        self.assembly: asyncio.Task[None] | None = None
        self.composing = False
        self.outcomes: dict[str, DomainError | None] = {}

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
            await self._call(QueueCall(app_id=self.app_id, update="reserve", command_id=command_id, payload=self._select([])))
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
                await self._move_refs(state.publishing)
            except DomainError as error:
                workflow.logger.warning("the publish of %s that was begun earlier is refused: %s", state.tag, error.message)
            state = self.entity.state
        if not state.told:
            await self._tell()

    def _select(self, ids: list[str]) -> dict[str, Any]:
        return {"release_id": self.id, "changeset_ids": ids}

    async def _call(self, call: QueueCall) -> Answer:
        return await workflow.execute_activity(
            "call_queue", call, result_type=Answer, **options.call(summary=f"queue: {call.update}")
        )

    async def _reserve(self, edit: EditIntent, actor: Actor, ids: list[str]) -> list[Member]:
        call = QueueCall(
            app_id=self.app_id,
            update="reserve",
            command_id=f"{edit.command_id}:{edit.kind}:{workflow.uuid4()}",
            actor=actor,
            payload=self._select(ids),
            # The app is read after the intent is recorded, so that this and archiving see one another (services/standstill.py).
            needs_open_app=edit.kind != "drop",
            publishes=edit.kind == "publish",
        )
        answer = await self._call(call)
        if answer.refusal is not None:
            raise DomainError(ErrorCode(answer.refusal["code"]), answer.refusal["message"], answer.refusal.get("details"))
        return [Member.model_validate(member) for member in answer.result.get("members", [])]

    async def _resolve(self, edit: EditIntent) -> None:
        actor = Actor.model_validate(edit.actor)
        refused: DomainError | None = None
        try:
            match edit.kind:
                case "select":
                    await self._do_select(edit, actor)
                case "assemble":
                    await self._do_assemble(edit, actor)
                case "publish":
                    await self._do_publish(edit, actor)
                case "drop":
                    await self._reserve(edit, actor, [])
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

    async def _do_select(self, edit: EditIntent, actor: Actor) -> None:
        members = await self._reserve(edit, actor, edit.changeset_ids)
        tag = self.entity.state.tag
        if tag is None:
            request = TagRequest(app_id=self.app_id, release_id=self.id, at=now())
            tag = await workflow.execute_activity("reserve_tag", request, result_type=str, **options.git())
        await self.entity.apply(edit.command_id, actor, lambda release: rules.decide_selected(self.id, release, members, tag))

    async def _do_assemble(self, edit: EditIntent, actor: Actor) -> None:
        # Asking for what it holds proves that no member has left the queue meanwhile.
        await self._reserve(edit, actor, self.entity.state.ordered_changeset_ids)
        await self.entity.apply(
            edit.command_id,
            actor,
            lambda release: rules.decide_assemble(self.id, release, edit.facts["job_id"], actor.user_id),
        )

    async def _do_publish(self, edit: EditIntent, actor: Actor) -> None:
        state = self.entity.state
        rules.target(state.state, Move.PUBLISH)
        await self._reserve(edit, actor, state.ordered_changeset_ids)
        facts = await workflow.execute_activity(
            "publish_facts",
            PublishQuestion(
                app_id=self.app_id,
                release_id=self.id,
                tag=state.tag or "",
                base_sha=state.base_sha or "",
                candidate_sha=state.candidate_sha or "",
                members=state.members,
                at=now(),
            ),
            result_type=PublishFacts,
            **options.git(),
        )
        if facts.unexplained:
            raise DomainError(
                ErrorCode.CONFLICT,
                "The candidate changes paths that none of its changesets changed: assemble it again.",
                {"paths": facts.unexplained[:50]},
            )
        try:
            rules.check_publish(state, facts.integration_sha)
        except DomainError as error:
            if error.code is ErrorCode.CONFLICT:
                await self.entity.apply(
                    f"{edit.command_id}:moved", Actor(), lambda release: rules.decide_head_moved(self.id, release)
                )
            raise
        intent = PublishIntent(
            command_id=edit.command_id,
            actor=edit.actor,
            old_sha=state.base_sha or "",
            new_sha=state.candidate_sha or "",
            tag=facts.tag,
            at=now(),
        )
        await self.entity.apply(
            f"{edit.command_id}:publishing", Actor(), lambda release: rules.decide_publishing(release, intent)
        )
        # The answer is given when the queue has been told: `_move_refs` and `_tell` finish this command.
        await self._move_refs(intent)
        await self._tell()

    async def _move_refs(self, intent: PublishIntent) -> None:
        """After the refs moved there is only forward; a branch that moved elsewhere first ends it (`durability.md` 19)."""
        moved = await workflow.execute_activity(
            "move_refs",
            MoveRefs(app_id=self.app_id, old_sha=intent.old_sha, new_sha=intent.new_sha, tag=intent.tag),
            result_type=MoveRefsReply,
            **options.git(summary=f"move the branch and tag {intent.tag}"),
        )
        actor = Actor.model_validate(intent.actor)
        if not moved.moved:
            await self.entity.apply(
                f"{intent.command_id}:moved", Actor(), lambda release: rules.decide_head_moved(self.id, release)
            )
            refused = DomainError(
                ErrorCode.CONFLICT,
                "The integration branch moved since this release was assembled: assemble it again, then publish.",
                {"assembled_on": intent.old_sha, "integration_sha": moved.integration_sha},
            )
            self.outcomes[intent.command_id] = refused
            raise refused
        await self.entity.apply(intent.command_id, actor, lambda release: rules.decide_published(self.id, release, None))

    async def _tell(self) -> None:
        """Members become released, then the queue begins a new epoch; each is repeated until it is done."""
        state = self.entity.state
        if state.published_sha is None or state.told:
            return
        news = [
            (member.changeset_id, QueueNews(kind="released", head_sha=member.head_sha, release_id=self.id))
            for member in state.members
        ]
        if news:
            await workflow.execute_activity(
                "tell_changesets",
                Telling(app_id=self.app_id, by=f"release:{self.id}", news=news),
                **options.call(summary=f"release {len(news)} changesets"),
            )
        await self._call(
            QueueCall(
                app_id=self.app_id,
                update="published",
                command_id=f"published:{self.id}",
                payload={"release_id": self.id, "integration_sha": state.published_sha},
            )
        )
        await self.entity.apply(f"told:{self.id}", Actor(), lambda release: Decision(release.model_copy(update={"told": True})))

    async def _assemble(self, job_id: str) -> None:
        state = self.entity.state
        start = AssembleStart(app_id=self.app_id, release_id=self.id, job_id=job_id, tag=state.tag or "", members=state.members)
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
        await self._call(
            QueueCall(
                app_id=self.app_id,
                update="eject",
                command_id=f"eject:{found.job_id}",
                payload={
                    "release_id": self.id,
                    "changeset_id": member.changeset_id,
                    "conflicted": conflicted,
                    "job_id": job_id,
                },
            )
        )
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
        self, command: Command, kind: str, check: Any, *, ids: list[str] | None = None, facts: dict[str, Any] | None = None
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
                    "changeset_ids": ids or [],
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
        return await self._by_intent(
            command, "select", lambda release: rules.target(release.state, Move.EDIT), ids=command.changeset_ids
        )

    @workflow.update
    async def assemble(self, command: AssembleCommand) -> dict[str, Any]:
        """Start an assembly; its job can be read when this answers."""
        return await self._by_intent(command, "assemble", rules.check_assemble, facts={"job_id": command.job_id})

    @workflow.update
    async def publish(self, command: PublishCommand) -> dict[str, Any]:
        """Publish; answered when the members are released and the queue has been told."""
        return await self._by_intent(command, "publish", lambda release: rules.target(release.state, Move.PUBLISH))

    @workflow.update
    async def drop(self, command: DropCommand) -> dict[str, Any]:
        """Free the selection and end."""
        return await self._by_intent(command, "drop", lambda release: rules.target(release.state, Move.DROP))

    @select.validator
    def _validate_select(self, command: SelectCommand) -> None:
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
