"""Into the queue, and the ways out: back to draft, or withdrawn (`spec.md` 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from conman.domain.changeset import Changeset, ChangesetState, Intent, Move, state_event, target
from conman.domain.changeset_gate import gate_at_the_end, superseded_gate
from conman.domain.changeset_news import QueueNews, decide_news
from conman.domain.changeset_notices import queued as queued_notice
from conman.domain.decision import Decision, Model
from conman.domain.errors import DomainError, ErrorCode


class QueueFacts(Model):
    """What the service found in Git for the gate of the queue, about `head_sha` on `integration_sha`.

    `gate` is the one that holds for this changeset: a hotpatch enters by a clean merge in every app. `conflicts` are those of the
    trial merge that this gate asks for.
    """

    integration_sha: str
    up_to_date: bool
    at: str
    gate: Literal["up_to_date", "clean_merge"] = "up_to_date"
    head_sha: str | None = None
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


def decide_queue(cs: Changeset, facts: QueueFacts) -> None:
    """Only an approved changeset enters the queue: on the integration head, or merging cleanly with it (`queue_gate`).

    Raises `invalid_transition`, `out_of_date`, or `conflict` with the paths that do not merge, or for facts about other files.
    """
    target(cs.state, Move.QUEUE)
    if facts.head_sha not in (None, cs.head_sha):
        raise DomainError(
            ErrorCode.CONFLICT, f"Revision {cs.current_revision} was submitted meanwhile: look at it, then queue it.", None
        )
    if facts.conflicts:
        paths = ", ".join(str(conflict["path"]) for conflict in facts.conflicts[:3])
        more = f" and {len(facts.conflicts) - 3} more" if len(facts.conflicts) > 3 else ""
        raise DomainError(
            ErrorCode.CONFLICT,
            f"It no longer merges with the integration branch, by {paths}{more}: return to draft, sync and submit again.",
            {"conflicts": facts.conflicts, "integration_sha": facts.integration_sha},
        )
    if facts.gate == "up_to_date" and not facts.up_to_date:
        raise DomainError(
            ErrorCode.OUT_OF_DATE,
            "The integration branch has moved on since this was submitted: return to draft and submit again.",
            {"base_sha": cs.base_sha, "integration_sha": facts.integration_sha},
        )


def decide_queued(changeset_id: str, cs: Changeset, at: str, collisions: Sequence[dict[str, Any]] = ()) -> Decision[Changeset]:
    """The queue has taken it; with `collisions` it left again at once, since its overrides collide with those of an earlier
    entry (`spec.md` 6 and 10). People are told of where it is then, once.
    """
    after = cs.model_copy(update={"state": target(cs.state, Move.QUEUE), "queued_at": at, "intent": None, "release_id": None})
    notice = queued_notice(changeset_id, after)
    queued = Decision(after, events=(state_event(changeset_id, "queued", cs, after),), notices=(notice,))
    if not collisions or after.head_sha is None:
        return queued
    left = decide_news(changeset_id, after, QueueNews(kind="conflicted", head_sha=after.head_sha, conflicts=[*collisions]))
    return queued if left is None else replace(left, events=(*queued.events, *left.events))


def decide_move_to_draft(changeset_id: str, cs: Changeset) -> Decision[Changeset]:
    """Back to draft: votes stay on record and count no more; a running gate is superseded (`spec.md` 3)."""
    after = cs.model_copy(
        update={
            "state": target(cs.state, Move.MOVE_TO_DRAFT),
            "queued_at": None,
            "conflicts": [],
            "intent": None,
            "gate": None,
            "last_revalidation_status": None,
            "last_revalidation_job_id": None,
        }
    )
    return Decision(after, events=(state_event(changeset_id, "moved_to_draft", cs, after),), job_ends=superseded_gate(cs))


def decide_withdraw(changeset_id: str, cs: Changeset) -> Decision[Changeset]:
    """The end by the author's or a manager's wish."""
    update = {"state": target(cs.state, Move.WITHDRAW), "intent": None, "queued_at": None, "gate": gate_at_the_end(cs)}
    after = cs.model_copy(update=update)
    return Decision(after, events=(state_event(changeset_id, "withdrawn", cs, after),), job_ends=superseded_gate(cs))


def with_intent(cs: Changeset, intent: Intent) -> Decision[Changeset] | None:
    """A command that needs the queue is recorded before that is asked; None while another one is (`durability.md` 14)."""
    return Decision(cs.model_copy(update={"intent": intent})) if cs.intent is None else None


def without_intent(cs: Changeset, intent: Intent) -> Decision[Changeset] | None:
    """The queue has refused, and nothing is left of the command; None when that was done."""
    if cs.intent is None or cs.intent.command_id != intent.command_id:
        return None
    return Decision(cs.model_copy(update={"intent": None}))


def check_revalidate(cs: Changeset) -> None:
    """Only what the queue lists is judged again (`spec.md` 10). Raises `invalid_transition`."""
    if not needs_the_queue(cs):
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            f"A changeset that is {cs.state.value} can't be revalidated: only one that is queued or needs_revalidation can.",
            {"from": cs.state.value, "to": ChangesetState.QUEUED.value},
        )


def needs_the_queue(cs: Changeset) -> bool:
    """Whether leaving this state must first win `queue.remove` (`durability.md` 14)."""
    return cs.state in (ChangesetState.QUEUED, ChangesetState.NEEDS_REVALIDATION)
