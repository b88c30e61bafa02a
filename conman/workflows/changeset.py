"""`changeset:{id}`: from the first command to a terminal state."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow

from conman.workflows import options
from conman.workflows.entity import Decide, Entity, refusal, refusals, whole
from conman.workflows.gate import run_gate
from conman.workflows.reminders import Reminders
from conman.workflows.resync import Resynced

with workflow.unsafe.imports_passed_through():
    from conman.domain.changeset import TERMINAL, Changeset, Intent, Move, target
    from conman.domain.changeset_commands import (
        LeaveCommand,
        QueueCommand,
        RequestReviewCommand,
        RetryCommand,
        ReviewCommand,
        SubmitCommand,
        TakeBackCommand,
    )
    from conman.domain.changeset_gate import RUNNING, decide_gate_verdict, decide_retry
    from conman.domain.changeset_news import decide_news
    from conman.domain.changeset_queue import (
        QueueFacts,
        decide_move_to_draft,
        decide_queue,
        decide_queued,
        decide_withdraw,
        needs_the_queue,
        with_intent,
        without_intent,
    )
    from conman.domain.changeset_review import decide_request_review, decide_review, decide_take_back
    from conman.domain.changeset_submit import decide_submit
    from conman.domain.changeset_waits import waiting_for
    from conman.domain.decision import Actor, Command, Decision
    from conman.domain.errors import DomainError, ErrorCode
    from conman.domain.jobs import JobType
    from conman.domain.messages import Answer, EntityStart, GateStart, NewsCommand, QueueCall
    from conman.domain.overrides import frozen_of
    from conman.domain.queue import Entry


class _Interleaved(Exception):
    """Another command recorded its intent before this one had the lock."""


class _InTheQueue(Exception):
    """The queue must agree to this command first."""


@workflow.defn(name="changeset")
class ChangesetWorkflow(Resynced):
    """Arrives: submit, review, request_review, retry (of the gate), queue, leave (to draft, withdrawn), take_back (votes),
    and news of the queue and of releases.

    Waits for: the submit gate (a child), the queue's answer to a recorded intent, the next reminder, the next command.
    """

    @workflow.init
    def __init__(self, start: EntityStart) -> None:
        self.id = start.entity_id
        self.app_id = start.app_id
        self.entity = Entity(
            Changeset,
            "changesets",
            start.entity_id,
            start.app_id,
            carried=start.carried,
            mirror=_mirror,
            describe=_describe,
        )
        self.gates: dict[str, asyncio.Task[None]] = {}
        self.reminders = Reminders(self.entity)
        self.outcomes: dict[str, DomainError | None] = {}

    @workflow.run
    async def run(self, start: EntityStart) -> str:
        """Do what the state calls for until it is terminal; returns the last state."""
        canceled = False
        try:
            await self.entity.load()
        except asyncio.CancelledError:
            canceled = True
        while not self._over():
            try:
                if canceled:
                    canceled = False
                    await self._withdraw()
                    continue
                seen = self.entity.changes  # before the work: what changes during it is looked at again
                await whole(self._work())
                await workflow.wait_condition(lambda seen=seen: self.entity.changes != seen or self._may_continue())
                if self._may_continue():
                    await self._continue(start)
            except asyncio.CancelledError:
                # Somebody canceled it in the Web UI: that means what withdraw means, once the queue has answered.
                canceled = True
        for gate in self.gates.values():
            gate.cancel()
        await asyncio.gather(*self.gates.values(), return_exceptions=True)
        await self.reminders.stop()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return "gone" if self.entity.gone else self.entity.state.state.value

    def _over(self) -> bool:
        return self.entity.gone or self.entity.state.state in TERMINAL

    def _may_continue(self) -> bool:
        return self.entity.should_continue_as_new() and not self.gates and not self._over() and self.entity.state.intent is None

    async def _continue(self, start: EntityStart) -> None:
        """Continue as new, unless a command that was let in before calls for work first."""
        self.entity.draining = True
        # A handler whose intent is recorded waits for the loop, so the loop must not wait for it.
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or not self._may_continue())
        if self._may_continue():
            await self.reminders.stop()
            workflow.continue_as_new(start.model_copy(update={"carried": self.entity.carry()}))
        self.entity.draining = False

    async def _withdraw(self) -> None:
        try:
            await self._finish_intent()
            if self._over():
                return
            command_id = f"cancel:{workflow.info().run_id}:{workflow.uuid4()}"
            if not needs_the_queue(self.entity.state):
                await self.entity.apply(command_id, Actor(), lambda cs: decide_withdraw(self.id, cs))
                return
            target(self.entity.state.state, Move.WITHDRAW)
            intent = Intent(command_id=command_id, move=Move.WITHDRAW, actor=Actor().model_dump(mode="json"))
            await self.entity.apply(f"{command_id}:intent", Actor(), lambda cs: with_intent(cs, intent))
            await self._finish_intent()
        except DomainError as error:
            workflow.logger.warning("it was canceled, but can't be withdrawn and goes on: %s", error.message)

    async def _work(self) -> None:
        """Start what the state calls for and is not running, stop what it no longer calls for (`durability.md` 2)."""
        if self._over():
            return
        state = self.entity.state
        wanted = state.gate.job_id if state.gate is not None and state.gate.state in RUNNING else None
        for job_id in list(self.gates):
            if self.gates[job_id].done():
                ended = self.gates.pop(job_id)
                if not ended.cancelled():  # the end of a superseded gate is not a cancel of this workflow
                    ended.result()
            elif job_id != wanted:
                self.gates[job_id].cancel()
        if wanted is not None and wanted not in self.gates:
            task = asyncio.create_task(self._gate(wanted))
            task.add_done_callback(lambda _: self.entity.touch())
            self.gates[wanted] = task
        await self._finish_intent()
        if not self._over():
            self.reminders.follow()

    async def _finish_intent(self) -> None:
        if not self._over() and self.entity.state.intent is not None:
            await self._resolve(self.entity.state.intent)

    async def _gate(self, job_id: str) -> None:
        revision, asked = self.entity.state.revisions[-1], self.entity.state.gate
        verdict = await run_gate(
            GateStart(
                job_id=job_id,
                app_id=self.app_id,
                job_type=JobType.MSUITE_SUBMIT,
                entity_type="changeset",
                entity_id=self.id,
                commit_sha=revision.head_sha,
                scope="submit",
                overrides=revision.overrides,
                what=f"revision {revision.revision_number} of {self.entity.state.title}",
                fresh=asked is not None and asked.fresh,
            )
        )
        await self.entity.apply(f"verdict:{job_id}", Actor(), lambda cs: decide_gate_verdict(self.id, cs, verdict))

    async def _resolve(self, intent: Intent) -> None:
        """Ask the queue for what the intent needs, then finish the command; refused, the intent is cleared first."""
        actor = Actor.model_validate(intent.actor)
        answer = await workflow.execute_activity(
            "call_queue", self._queue_call(intent, actor), result_type=Answer, **options.call(summary=intent.move.value)
        )
        refused = _refused(answer)
        try:
            if refused is not None:
                raise refused
            await self.entity.apply(intent.command_id, actor, lambda cs: self._finish(cs, intent, answer))
        except DomainError as error:
            refused = error
            await self.entity.apply(
                f"{intent.command_id}:refused:{workflow.uuid4()}", Actor(), lambda cs: without_intent(cs, intent)
            )
        self.outcomes[intent.command_id] = refused

    def _queue_call(self, intent: Intent, actor: Actor) -> QueueCall:
        state = self.entity.state
        command_id = f"{intent.command_id}:queue"
        if intent.move is not Move.QUEUE:
            return QueueCall(
                app_id=self.app_id, update="remove", command_id=command_id, actor=actor, payload={"changeset_id": self.id}
            )
        facts = QueueFacts.model_validate(intent.facts)
        revision = state.revisions[-1]
        entry = Entry(
            changeset_id=self.id,
            author_user_id=state.author_user_id,
            title=state.title,
            revision_number=revision.revision_number,
            head_sha=revision.head_sha,
            base_sha=revision.base_sha,
            hotpatch=state.hotpatch,
            queued_at=facts.at,
            judged_sha=facts.integration_sha,
            revalidate=facts.gate == "clean_merge",
            overrides=frozen_of(revision.overrides),
        )
        return QueueCall(
            app_id=self.app_id,
            update="enqueue",
            command_id=command_id,
            actor=actor,
            payload={"entry": entry.model_dump(mode="json")},
        )

    def _finish(self, cs: Changeset, intent: Intent, answer: Answer) -> Decision[Changeset] | None:
        # News may have moved it while the queue was asked: decide again.
        match intent.move:
            case Move.QUEUE:
                return decide_queued(self.id, cs, intent.facts["at"], answer.result.get("collisions", []))
            case Move.MOVE_TO_DRAFT:
                return decide_move_to_draft(self.id, cs)
            case _:
                return decide_withdraw(self.id, cs)

    async def _by_intent(self, command: Command, move: Move, facts: dict[str, Any], check: Any) -> dict[str, Any]:
        """Record the intent, let go of the lock, and answer when the loop has finished it (`durability.md` 14)."""

        def decide(cs: Changeset) -> Decision[Changeset]:
            if cs.remembered(command.id) is not None or (cs.intent is not None and cs.intent.command_id == command.id):
                return Decision(cs)
            check(cs)
            intent = Intent(command_id=command.id, move=move, actor=command.actor.model_dump(mode="json"), facts=facts)
            return Decision(cs.model_copy(update={"intent": intent}))

        if not self.entity.loaded or self.entity.state.intent is None:
            self.outcomes.pop(command.id, None)
        # A refused command leaves nothing behind, so a later try of it records a fresh intent.
        await self._alone(command, decide, write_id=f"{command.id}:intent:{workflow.uuid4()}")
        await workflow.wait_condition(lambda: self._answered(command.id))
        refused = self.outcomes.get(command.id)
        if refused is not None:
            raise refusal(refused)
        with refusals():
            if self.entity.state.remembered(command.id) is None:
                target(self.entity.state.state, move)
        return {}

    def _answered(self, command_id: str) -> bool:
        if self.entity.gone:
            return True
        state = self.entity.state
        done = command_id in self.outcomes or state.remembered(command_id) is not None
        return done or (state.state in TERMINAL and state.intent is None)

    async def _alone(self, command: Command, decide: Decide[Changeset], *, write_id: str | None = None) -> dict[str, Any]:
        """As `Entity.command`, once no other command waits for the queue; a repeat of that one goes through.

        Another one may record its intent before this one has the lock: checked again inside.
        """

        def free(cs: Changeset) -> bool:
            return cs.intent is None or cs.intent.command_id == command.id

        def alone(cs: Changeset) -> Decision[Changeset] | None:
            if not free(cs):
                raise _Interleaved
            return decide(cs)

        written = command if write_id is None else command.model_copy(update={"id": write_id})
        while True:
            await workflow.wait_condition(lambda: not self.entity.loaded or free(self.entity.state))
            try:
                return await self.entity.command(written, alone)
            except _Interleaved:
                continue

    @workflow.update
    async def submit(self, command: SubmitCommand) -> dict[str, Any]:
        """Freeze the next revision; the gate starts by itself. A review may interleave before the lock: decided again inside."""
        return await self._alone(
            command, lambda cs: decide_submit(self.id, cs, command.facts, command.actor.user_id, again=command.again)
        )

    @submit.validator
    def _validate_submit(self, command: SubmitCommand) -> None:
        self.entity.validate(command)
        self._early(command, Move.RESUBMIT if command.again else Move.SUBMIT)

    @workflow.update
    async def review(self, command: ReviewCommand) -> dict[str, Any]:
        """Take one vote. Two reviewers at once take the lock one after the other: both count."""
        return await self._alone(command, lambda cs: decide_review(self.id, cs, command.facts, command.actor.user_id or ""))

    @review.validator
    def _validate_review(self, command: ReviewCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def request_review(self, command: RequestReviewCommand) -> dict[str, Any]:
        """Ask somebody to review; a resubmit that interleaves makes it a request for the new revision."""
        by = command.actor.user_id
        return await self._alone(command, lambda cs: decide_request_review(self.id, cs, command.reviewer_user_id, by, command.at))

    @request_review.validator
    def _validate_request_review(self, command: RequestReviewCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def retry(self, command: RetryCommand) -> dict[str, Any]:
        """Run the gate again; the loop starts it. A resubmit or another retry may interleave: then the job is not current."""
        by = command.actor.user_id
        return await self._alone(command, lambda cs: decide_retry(self.id, cs, command.job_id, command.new_job_id, by))

    @retry.validator
    def _validate_retry(self, command: RetryCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def take_back(self, command: TakeBackCommand) -> dict[str, Any]:
        """Votes of somebody who may review no more count no more. It waits for an intent: what the queue has taken keeps them."""
        return await self._alone(command, lambda cs: decide_take_back(self.id, cs, command.reviewer_user_id, command.until))

    @take_back.validator
    def _validate_take_back(self, command: TakeBackCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def queue(self, command: QueueCommand) -> dict[str, Any]:
        """Enter the queue; answered when the queue shows it. A review may interleave while the queue is asked."""
        return await self._by_intent(
            command, Move.QUEUE, command.facts.model_dump(mode="json"), lambda cs: decide_queue(cs, command.facts)
        )

    @queue.validator
    def _validate_queue(self, command: QueueCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def leave(self, command: LeaveCommand) -> dict[str, Any]:
        """To draft or withdrawn; what is queued must win `queue.remove` first. A publish may interleave: then it is refused."""
        decide = decide_move_to_draft if command.move is Move.MOVE_TO_DRAFT else decide_withdraw

        def direct(cs: Changeset) -> Decision[Changeset]:
            if needs_the_queue(cs):
                raise _InTheQueue
            return decide(self.id, cs)

        try:
            return await self._alone(command, direct)
        except _InTheQueue:
            return await self._by_intent(command, command.move, {}, lambda cs: target(cs.state, command.move))

    @leave.validator
    def _validate_leave(self, command: LeaveCommand) -> None:
        self.entity.validate(command)

    @workflow.update
    async def take_news(self, command: NewsCommand) -> dict[str, Any]:
        """What the queue or a release found; dropped when it judged something that is no more.

        It waits for an intent: news may come while the queue has taken the changeset and this record does not show it yet.
        """
        return await self._alone(command, lambda cs: decide_news(self.id, cs, command.news))

    @take_news.validator
    def _validate_take_news(self, command: NewsCommand) -> None:
        self.entity.validate(command)

    def _early(self, command: Command, move: Move) -> None:
        """A repeat of what was carried out is no refusal: it gets the first run's answer (`durability.md` 4)."""
        known = self.entity.loaded and self.entity.state.remembered(command.id) is not None
        if self.entity.loaded and not known and self.entity.state.intent is None:
            try:
                target(self.entity.state.state, move)
            except DomainError as error:
                raise refusal(error) from error


def _refused(answer: Answer) -> DomainError | None:
    if answer.refusal is None:
        return None
    return DomainError(ErrorCode(answer.refusal["code"]), answer.refusal["message"], answer.refusal.get("details"))


def _mirror(cs: Changeset) -> tuple[dict[str, Any], list[str]]:
    """`open_slot` holds one open changeset per workspace by a unique index."""
    return ({}, ["open_slot"]) if cs.state in TERMINAL else ({"open_slot": cs.workspace_id}, [])


def _describe(cs: Changeset) -> tuple[str, str]:
    return cs.state.value, f"{cs.title or 'Changeset'}: {cs.state.value}. {waiting_for(cs) or 'At its end.'}"
