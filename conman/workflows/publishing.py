"""The publish saga of a release: proofs, intent, refs, record, and telling who waits (`spec.md` 11, `durability.md` 19)."""

from __future__ import annotations

from temporalio import workflow

from conman.workflows import options
from conman.workflows.entity import Entity, now
from conman.workflows.reserving import ReservingQueue

with workflow.unsafe.imports_passed_through():
    from conman.domain import publishing as rules
    from conman.domain.changeset_news import QueueNews
    from conman.domain.decision import Actor, Decision
    from conman.domain.errors import DomainError
    from conman.domain.messages import (
        MoveRefs,
        MoveRefsReply,
        Overtaken,
        PublishFacts,
        PublishQuestion,
        Telling,
        UndoRelease,
    )
    from conman.domain.publishing import Refusal
    from conman.domain.release import HEAD_MOVED, EditIntent, Move, PublishIntent, Release, ReleaseState, target

BACK_TO_DRAFT = "refused-publish-returns-to-draft"
"""Patch id: whatever refuses a publish returns the release to draft, not only an integration head that moved."""

TELLS_RELEASES = "tells-the-other-releases"
"""Patch id: after a publish the app's other validated releases are told to look whether they can still be published."""


class Publishing:
    """What a release does to be published. Each step is repeated until it is done; after the refs moved there is only forward."""

    def __init__(self, entity: Entity[Release], queue: ReservingQueue) -> None:
        self.id = entity.entity_id
        self.app_id = entity.app_id
        self.entity = entity
        self.queue = queue

    async def begin(self, edit: EditIntent, actor: Actor) -> None:
        """Prove the candidate, record the intent, and carry it out. Raises `DomainError`, and the release is a draft again."""
        state = self.entity.state
        target(state.state, Move.PUBLISH)
        await self._still_queued(edit, actor, state)
        facts = await self._facts(state)
        refused = rules.refusal(state, facts)
        if refused is not None:
            if refused.failure.reason_code == HEAD_MOVED or workflow.patched(BACK_TO_DRAFT):
                await self._return(edit.command_id, refused)
            raise refused.error
        intent = PublishIntent(
            command_id=edit.command_id,
            actor=edit.actor,
            old_sha=state.base_sha or "",
            new_sha=state.candidate_sha or "",
            tag=facts.tag,
            at=now(),
            supersedes=facts.supersedes,
        )
        await self.entity.apply(
            f"{edit.command_id}:publishing", Actor(), lambda release: rules.decide_publishing(release, intent)
        )
        # The answer is given when the queue has been told: `move_refs` and `tell` finish this command.
        await self.move_refs(intent)
        await self.tell()

    async def _still_queued(self, edit: EditIntent, actor: Actor, state: Release) -> None:
        """Asking for what it holds proves that no member has left the queue meanwhile."""
        try:
            # A rollback needs only its environment's lock: no hold stops it (`spec.md` 12).
            publishes = state.reverts_release_id is None
            await self.queue.reserve(edit, actor, state.ordered_changeset_ids, publishes=publishes)
        except DomainError as error:
            # The queue names its entries in a list; what else refuses (the app is closing) says nothing against the candidate.
            if isinstance(error.details, list) and workflow.patched(BACK_TO_DRAFT):
                await self._return(edit.command_id, rules.member_left(error.details))
            raise

    async def _facts(self, state: Release) -> PublishFacts:
        return await workflow.execute_activity(
            "publish_facts",
            PublishQuestion(
                app_id=self.app_id,
                release_id=self.id,
                tag=state.tag or "",
                base_sha=state.base_sha or "",
                candidate_sha=state.candidate_sha or "",
                members=state.members,
                pinned_profiles=state.pinned_profiles,
                reverts_release_id=state.reverts_release_id,
            ),
            result_type=PublishFacts,
            **options.git(),
        )

    async def _return(self, command_id: str, refused: Refusal) -> None:
        await self.entity.apply(f"{command_id}:moved", Actor(), lambda release: rules.decide_refused(self.id, release, refused))

    async def look(self) -> None:
        """Return a validated candidate to draft that was overtaken: by another head, or a changed profile."""
        state = self.entity.state
        if state.state is not ReleaseState.VALIDATED or state.edit is not None or state.publishing is not None:
            return
        refused = rules.refusal(state, await self._facts(state))
        if refused is not None:
            await self.entity.apply(
                f"overtaken:{workflow.uuid4()}", Actor(), lambda release: rules.decide_overtaken(self.id, release, refused)
            )

    async def move_refs(self, intent: PublishIntent) -> None:
        """Move branch and tag as the intent says. Raises `conflict` when the branch moved elsewhere first: nothing moved then."""
        moved = await workflow.execute_activity(
            "move_refs",
            MoveRefs(app_id=self.app_id, old_sha=intent.old_sha, new_sha=intent.new_sha, tag=intent.tag, release_id=self.id),
            result_type=MoveRefsReply,
            **options.git(summary=f"move the branch and tag {intent.tag}"),
        )
        if not moved.moved:
            refused = rules.head_moved(self.entity.state, moved.integration_sha)
            await self._return(intent.command_id, refused)
            raise refused.error
        actor = Actor.model_validate(intent.actor)
        tag = moved.tag or intent.tag
        await self.entity.apply(intent.command_id, actor, lambda release: rules.decide_published(self.id, release, tag))

    async def tell(self) -> None:
        """Members become released, or the release that it undoes rolled back; then the queue begins a new epoch."""
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
        if state.reverts_release_id is not None:
            undo = UndoRelease(
                app_id=self.app_id,
                release_id=state.reverts_release_id,
                by_release_id=self.id,
                user_id=state.published_by,
                at=state.published_at or now(),
            )
            await workflow.execute_activity("undo_release", undo, **options.persist())
        await self.queue.published(state.published_sha)
        if workflow.patched(TELLS_RELEASES):
            overtaken = Overtaken(app_id=self.app_id, integration_sha=state.published_sha)
            await workflow.execute_activity("tell_releases", overtaken, **options.call(summary="tell the other releases"))
        await self.entity.apply(f"told:{self.id}", Actor(), lambda release: Decision(release.model_copy(update={"told": True})))
