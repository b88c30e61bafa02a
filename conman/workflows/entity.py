"""One record's workflow-owned state: loaded, decided on under a lock, and written by one guarded activity.

`durability.md` 1-12. A handler gives `apply` a pure decision; `apply` takes the lock, decides from the present state, persists
with the decision's audit events and jobs, and only then changes the state. Nothing slow runs inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from conman.workflows import options

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import REMEMBERED_COMMANDS, Actor, Command, Decision, Owned, Remembered
    from conman.domain.errors import DomainError, ErrorCode, not_found
    from conman.domain.messages import LoadRequest, OwnedReply, PersistReply, PersistRequest
    from conman.domain.outgoing import outgoing_entries
    from conman.domain.repair import decide_repair, is_behind
    from conman.domain.times import format_time

OwnedT = TypeVar("OwnedT", bound=Owned)
T = TypeVar("T")
Decide = Callable[[OwnedT], "Decision[OwnedT] | None"]

DRAINING = "draining"
"""Type of the refusal that the front door answers by asking again: this run is about to continue as new."""

REPAIRS = "repairs-records"
"""Patch: a record that is behind is rewritten; before, its workflow went back to it."""


def now() -> str:
    """The workflow's time as Conman writes times."""
    return format_time(workflow.now())


def refusal(error: DomainError) -> ApplicationError:
    """A rule's refusal as Temporal carries it: not retryable, since nothing was written."""
    return ApplicationError(error.message, error.details, type=error.code.value, non_retryable=True)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn refusals by rules into failed updates."""
    try:
        yield
    except DomainError as error:
        raise refusal(error) from error


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Carry `work` to its end; a cancel that comes meanwhile is not delivered."""
    result, _ = await _to_its_end(work)
    return result


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Carry `work` to its end; a cancel that comes meanwhile is delivered then, so that nothing stays half done."""
    result, canceled = await _to_its_end(work)
    if canceled is not None:
        raise canceled
    return result


async def _to_its_end(work: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    task = asyncio.create_task(work)
    canceled: asyncio.CancelledError | None = None
    while True:
        try:
            return await asyncio.shield(task), canceled
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            canceled = error
            if task.done():
                return task.result(), canceled


class Entity(Generic[OwnedT]):
    """The owned part of one record inside its workflow.

    `changes` counts writes; the `run` loop waits for it to grow. `mirror` gives top-level fields kept for unique indexes.
    """

    def __init__(
        self,
        kind: type[OwnedT],
        collection: str,
        entity_id: str,
        app_id: str,
        *,
        carried: dict[str, Any] | None = None,
        mirror: Callable[[OwnedT], tuple[dict[str, Any], list[str]]] | None = None,
        describe: Callable[[OwnedT], tuple[str, str]] | None = None,
    ) -> None:
        self.kind = kind
        self.collection = collection
        self.entity_id = entity_id
        self.app_id = app_id
        self.lock = asyncio.Lock()
        self.changes = 0
        self.draining = False
        self.gone = False
        self._mirror = mirror
        self._describe = describe
        self._state: OwnedT | None = kind.model_validate(carried) if carried is not None else None
        self._synced = carried is not None
        self._shown: tuple[str | None, str | None] = (None, None)
        self._actor: str | None = None

    @property
    def loaded(self) -> bool:
        """Whether the record was read."""
        return self._state is not None

    @property
    def state(self) -> OwnedT:
        """The present state. Raises `not_found` when the record is gone."""
        if self._state is None:
            raise not_found(self.collection.removesuffix("s"))
        return self._state

    def validate(self, command: Command) -> None:
        """The early refusal of a validator: nothing of it gets into history."""
        if self.draining:
            raise ApplicationError("This workflow is continuing as new; ask again.", type=DRAINING, non_retryable=True)
        self.check_not_expired(command)

    def check_not_expired(self, command: Command) -> None:
        """Refuse what nobody waits for any more. Raises `command_expired`."""
        if now() > command.not_after:
            raise refusal(
                DomainError(ErrorCode.COMMAND_EXPIRED, "The command waited too long and was not carried out: send it again.")
            )

    async def sync(self) -> None:
        """Read the record unless its state is known. Call with the lock held."""
        if self._synced:
            return
        await self._catch_up(await self._read())
        self._synced = True

    async def _read(self) -> dict[str, Any] | None:
        reply = await workflow.execute_activity(
            "load_owned",
            LoadRequest(collection=self.collection, entity_id=self.entity_id),
            result_type=OwnedReply,
            **options.persist(),
        )
        return reply.owned

    async def resync(self) -> None:
        """Compare with the record, which somebody has seen to differ (`durability.md` 20).

        Under the lock no write of this workflow's own is under way, so that what differs here does differ.
        """
        async with self.lock:
            if self.gone:
                return
            try:
                if not self._synced:
                    await self.sync()
                    return
                found = await self._read()
                if found is None or found["version"] != self.state.version:
                    await self._catch_up(found)
            except FailureError as error:
                # What comes next reads the record before it decides (rule 5).
                self._synced = False
                workflow.logger.warning("%s %s could not be compared: %s", self.collection, self.entity_id, error)

    async def _catch_up(self, owned: dict[str, Any] | None) -> None:
        """Adopt the record as somebody else left it; where it is behind, as in a restored backup, write it again."""
        while self._state is not None and owned is not None and is_behind(owned, self._state) and workflow.patched(REPAIRS):
            before = self._state
            decision = decide_repair(self.collection, self.entity_id, owned, before)
            command_id = f"repaired:{owned['version']}:{before.version}"
            request = self.persist_request(command_id, Actor(), before, decision)
            reply = await workflow.execute_activity(
                "persist",
                request.model_copy(update={"expected_version": owned["version"]}),
                result_type=PersistReply,
                **options.persist(summary=_summary(decision)),
            )
            workflow.logger.warning("%s %s was behind: %s", self.collection, self.entity_id, reply.status)
            if reply.status == "saved":
                self._state = self._next(command_id, before, decision)
                self.changes += 1
                self._show()
                return
            owned = reply.owned
        self._take(owned)

    async def load(self) -> bool:
        """The first step of `run`: read the record; False when there is none."""
        await whole(self._load())
        return not self.gone

    async def _load(self) -> None:
        async with self.lock:
            await self.sync()
            self._show()

    def _take(self, owned: dict[str, Any] | None) -> None:
        if owned is None:
            self.gone = True
            self._state = None
        else:
            self._state = self.kind.model_validate(owned)
        self.changes += 1
        self._show()

    async def command(self, command: Command, decide: Decide[OwnedT]) -> dict[str, Any]:
        """Carry out a command: its result, the first run's on a repeat. Refusals leave as failed updates."""
        with refusals():
            async with self.lock:
                self.check_not_expired(command)
                result = await self._apply(command.id, command.actor, decide)
        return result or {}

    async def apply(self, command_id: str, actor: Actor, decide: Decide[OwnedT]) -> dict[str, Any] | None:
        """As `command`, for what the workflow does by itself; a `DomainError` reaches the caller.

        None when the decision is that nothing changes, or when the record is gone. A cancel waits until it is written.
        """
        return await whole(self._apply_locked(command_id, actor, decide))

    async def _apply_locked(self, command_id: str, actor: Actor, decide: Decide[OwnedT]) -> dict[str, Any] | None:
        async with self.lock:
            try:
                return await self._apply(command_id, actor, decide)
            except DomainError:
                if self.gone:
                    return None
                raise

    async def _apply(self, command_id: str, actor: Actor, decide: Decide[OwnedT]) -> dict[str, Any] | None:
        while True:
            await self.sync()
            before = self.state
            repeated = before.remembered(command_id)
            if repeated is not None:
                return repeated.result
            decision = decide(before)
            if decision is None:
                return None
            if decision.owned is before and not decision.events:
                return decision.result
            reply = await self._persist(command_id, actor, before, decision)
            if reply.status == "saved":
                self._state = self._next(command_id, before, decision)
                self._actor = actor.user_id or self._actor
                self.changes += 1
                self._show()
                return decision.result
            await self._catch_up(reply.owned)

    def _next(self, command_id: str, before: OwnedT, decision: Decision[OwnedT]) -> OwnedT:
        commands = [*decision.owned.commands, Remembered(id=command_id, result=decision.result)][-REMEMBERED_COMMANDS:]
        return decision.owned.model_copy(update={"version": before.version + 1, "commands": commands})

    def persist_request(self, command_id: str, actor: Actor, before: OwnedT, decision: Decision[OwnedT]) -> PersistRequest:
        """The guarded write of one decision."""
        after = self._next(command_id, before, decision)
        at = now()
        mirrored, unset = self._mirror(after) if self._mirror is not None else ({}, [])
        return PersistRequest(
            collection=self.collection,
            entity_id=self.entity_id,
            expected_version=before.version,
            command_id=command_id,
            owned=after.model_dump(mode="json"),
            outgoing=outgoing_entries(
                decision,
                app_id=self.app_id,
                entity=f"{self.collection}:{self.entity_id}",
                version=after.version,
                actor=actor,
                at=at,
                workflow_id=workflow.info().workflow_id,
            ),
            at=at,
            mirrored=mirrored,
            unset=unset,
        )

    async def _persist(self, command_id: str, actor: Actor, before: OwnedT, decision: Decision[OwnedT]) -> PersistReply:
        request = self.persist_request(command_id, actor, before, decision)
        try:
            return await workflow.execute_activity(
                "persist", request, result_type=PersistReply, **options.persist(summary=_summary(decision))
            )
        except FailureError as error:
            # The write may have landed: know the record again before anybody else decides on it (rule 5).
            self._synced = False
            await self.sync()
            raise ApplicationError(
                "The outcome is not known: read the record, or repeat with the same Idempotency-Key.",
                type=ErrorCode.OUTCOME_UNKNOWN.value,
                non_retryable=True,
            ) from error

    async def end_with(
        self, activity: str, command_id: str, build: Callable[[OwnedT], tuple[Decision[OwnedT], Any] | None]
    ) -> None:
        """As `apply`, where one activity writes several records in order; `build` makes its request from the guarded write."""
        async with self.lock:
            while True:
                await self.sync()
                if self.gone:
                    return
                before = self.state
                if before.remembered(command_id) is not None:
                    return
                built = build(before)
                if built is None:
                    return
                decision, request = built
                reply = await workflow.execute_activity(activity, request, result_type=PersistReply, **options.bulk())
                if reply.status == "saved":
                    self._state = self._next(command_id, before, decision)
                    self.changes += 1
                    self._show()
                    return
                await self._catch_up(reply.owned)

    def _show(self) -> None:
        """Keep what an operator sees in the Web UI in step with the state."""
        if self._state is None or self._describe is None:
            return
        state, details = self._describe(self._state)
        workflow.set_current_details(details)
        if (state, self._actor) != self._shown:
            self._shown = (state, self._actor)
            updates = [options.STATE.value_set(state)]
            if self._actor is not None:
                updates.append(options.ACTOR.value_set(self._actor))
            workflow.upsert_search_attributes(updates)

    def touch(self) -> None:
        """Wake the `run` loop: something that it waits for may have happened."""
        self.changes += 1

    def should_continue_as_new(self) -> bool:
        """Whether the history is long enough to start a fresh one (`durability.md` 12)."""
        info = workflow.info()
        return (
            info.is_continue_as_new_suggested()
            or self.changes >= options.CONTINUE_AFTER_CHANGES
            or info.get_current_history_length() >= options.CONTINUE_AFTER_EVENTS
        )

    def carry(self) -> dict[str, Any]:
        """The state for the next run."""
        return self.state.model_dump(mode="json")


def _summary(decision: Decision[Any]) -> str | None:
    """What an operator reads beside the write in the Web UI."""
    words = [event.action.replace("_", " ") for event in decision.events]
    words += [f"{end.id[-6:]} {end.reason_code.value}" for end in decision.job_ends]
    return ", ".join(words[:4]) or None
