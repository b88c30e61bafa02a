"""What the queue or a release tells a changeset (`spec.md` 10 and 11, `durability.md` 17)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from conman.domain.changeset import TRANSITIONS, Changeset, ChangesetState, Move, state_event
from conman.domain.changeset_notices import conflicted, needs_revalidation
from conman.domain.decision import Decision, Model, NewNotice
from conman.domain.override_collisions import KIND as OVERRIDE_COLLISION


class QueueNews(Model):
    """What the queue or a release tells one changeset; `head_sha` is what was judged (`durability.md` 17)."""

    kind: Literal["released", "conflicted", "needs_revalidation", "revalidated"]
    head_sha: str
    job_id: str | None = None
    release_id: str | None = None
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


_NEWS_MOVES = {
    "released": Move.PUBLISH,
    "conflicted": Move.CONFLICT,
    "needs_revalidation": Move.FAIL_REVALIDATION,
    "revalidated": Move.PASS_REVALIDATION,
}


def decide_news(changeset_id: str, cs: Changeset, news: QueueNews) -> Decision[Changeset] | None:
    """News about what is still queued moves it; anything else is dropped (None), since it judged what is no more."""
    move = _NEWS_MOVES[news.kind]
    # Once the refs of a release have moved there is only forward: a verdict that came in between keeps no member back.
    late = move is Move.PUBLISH and cs.state in (ChangesetState.NEEDS_REVALIDATION, ChangesetState.CONFLICTED)
    state = ChangesetState.QUEUED if late else cs.state
    if (state, move) not in TRANSITIONS or news.head_sha != cs.head_sha:
        return None
    update: dict[str, Any] = {"state": TRANSITIONS[state, move], "intent": None}
    if news.kind == "released":
        update |= {"release_id": news.release_id, "last_revalidation_status": None, "conflicts": []}
    else:
        status = {"conflicted": "conflicted", "needs_revalidation": "failed", "revalidated": "valid"}[news.kind]
        update |= {
            "conflicts": news.conflicts,
            "last_revalidation_status": status,
            "last_revalidation_job_id": news.job_id,
        }
    after = cs.model_copy(update=update)
    more: dict[str, Any] = {"release_id": news.release_id} if news.kind == "released" else {"job_id": news.job_id}
    more |= _causes(news)
    event = state_event(changeset_id, news.kind, cs, after, **more)
    return Decision(after, events=(event,), notices=_told(changeset_id, after, news))


def _told(changeset_id: str, after: Changeset, news: QueueNews) -> tuple[NewNotice, ...]:
    """Of what was released its release tells, and what is valid again was never out of the queue."""
    match news.kind:
        case "conflicted":
            return (conflicted(changeset_id, after, news.conflicts),)
        case "needs_revalidation":
            return (needs_revalidation(changeset_id, after, news.job_id),)
        case _:
            return ()


def _causes(news: QueueNews) -> dict[str, Any]:
    """What the audit says of conflicts: the paths of files, and the overrides that collide."""
    paths = [str(conflict["path"]) for conflict in news.conflicts if "path" in conflict]
    collisions = [
        {name: conflict[name] for name in ("profile_id", "key", "changeset_id")}
        for conflict in news.conflicts
        if conflict.get("kind") == OVERRIDE_COLLISION
    ]
    found: dict[str, Any] = {"paths": paths} if paths else {}
    return {**found, "cause": OVERRIDE_COLLISION, "collisions": collisions} if collisions else found
