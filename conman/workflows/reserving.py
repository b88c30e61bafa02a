"""What a release asks of the queue, which alone owns reservations (`durability.md` 14)."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from conman.workflows import options

with workflow.unsafe.imports_passed_through():
    from conman.domain.decision import Actor
    from conman.domain.errors import DomainError, ErrorCode
    from conman.domain.messages import Answer, QueueCall
    from conman.domain.release import EditIntent, Member


class ReservingQueue:
    """The queue of a release's app, as the release talks to it; each call is repeated until it is answered."""

    def __init__(self, app_id: str, release_id: str) -> None:
        self.app_id = app_id
        self.release_id = release_id

    async def _call(self, call: QueueCall) -> Answer:
        return await workflow.execute_activity(
            "call_queue", call, result_type=Answer, **options.call(summary=f"queue: {call.update}")
        )

    def _selection(self, ids: list[str]) -> dict[str, Any]:
        return {"release_id": self.release_id, "changeset_ids": ids}

    async def reserve(self, edit: EditIntent, actor: Actor, ids: list[str], *, publishes: bool = False) -> list[Member]:
        """Take exactly these changesets, or nothing. Raises what the queue refuses with; `publishes`: also a hold of the app."""
        call = QueueCall(
            app_id=self.app_id,
            update="reserve",
            command_id=f"{edit.command_id}:{edit.kind}:{workflow.uuid4()}",
            actor=actor,
            payload=self._selection(ids),
            # The app is read after the intent is recorded, so that this and archiving see one another (services/standstill.py).
            needs_open_app=edit.kind != "drop",
            publishes=publishes,
        )
        answer = await self._call(call)
        if answer.refusal is not None:
            raise DomainError(ErrorCode(answer.refusal["code"]), answer.refusal["message"], answer.refusal.get("details"))
        return [Member.model_validate(member) for member in answer.result.get("members", [])]

    async def free(self, command_id: str) -> None:
        """Let go of all that the release holds."""
        await self._call(QueueCall(app_id=self.app_id, update="reserve", command_id=command_id, payload=self._selection([])))

    async def eject(self, job_id: str, changeset_id: str, *, conflicted: bool, judged_by: str) -> None:
        """An assembly, of job `job_id`, blames a member; `judged_by` is the job that shows why."""
        payload = {"release_id": self.release_id, "changeset_id": changeset_id, "conflicted": conflicted, "job_id": judged_by}
        await self._call(QueueCall(app_id=self.app_id, update="eject", command_id=f"eject:{job_id}", payload=payload))

    async def published(self, integration_sha: str) -> None:
        """The integration branch has moved: the members leave, a new epoch begins."""
        payload = {"release_id": self.release_id, "integration_sha": integration_sha}
        await self._call(
            QueueCall(app_id=self.app_id, update="published", command_id=f"published:{self.release_id}", payload=payload)
        )
