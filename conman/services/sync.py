"""Bringing a workspace onto the integration head, by request or in a submit (`spec.md` 3 and 7).

What is pending is committed first and moves with the branch in one transaction, so that a save that comes meanwhile is in it, or
stays pending on top. Where the heads conflict the branch keeps its place, with that commit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conman.domain.decision import Event
from conman.domain.errors import DomainError, ErrorCode, invalid
from conman.domain.workspace import MoveEvent, MoveKind, move_event
from conman.git.adapter import Conflict
from conman.services.apps import integration_head
from conman.services.call import Call, keep, recall
from conman.services.checkpoints import Committed, commit_of_pending, entry_of
from conman.services.conflicts import conflict_record, keyed_record, with_keys
from conman.services.platform import Platform
from conman.services.resolutions import Resolution, merge_resolved
from conman.services.workspace_history import move_by
from conman.services.workspace_refs import Scratch, Tips, attempts, author_of, move
from conman.store.database import Document


class Strategy(StrEnum):
    """How a branch is brought onto the integration head."""

    REBASE = "rebase"
    MERGE = "merge"


@dataclass(frozen=True, slots=True)
class Brought:
    """A head that contains the integration head, or the conflicts for which there is none; and how it was tried last."""

    sha: str | None
    strategy: Strategy
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class Synced:
    """The outcome of a sync: `strategy` is None when there was nothing to do."""

    head: str
    strategy: Strategy | None = None
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class SubmitHead:
    """What a submit freezes; where there are conflicts it can't, and `sha` is the branch's head."""

    sha: str
    conflicts: tuple[Conflict, ...] = ()


async def _bring(call: Call, app: Document, making: Scratch, head: str, onto: str, wanted: Strategy | None) -> Brought:
    """Rebase, and merge where that conflicts or can't be made (`spec.md` 7); a strategy that was asked for is the only one."""
    if wanted is not Strategy.MERGE:
        made = await making.rebase(head, onto, author_of(call))
        if made.sha is not None:
            return Brought(made.sha, Strategy.REBASE)
        if wanted is Strategy.REBASE:
            if not made.conflicts:
                raise DomainError(
                    ErrorCode.CONFLICT, "The workspace has a merge in it, which can't be rebased: sync with the strategy merge."
                )
            return Brought(None, Strategy.REBASE, made.conflicts)
    made = await making.merge(head, onto, author_of(call), sync_message(app))
    return Brought(made.sha, Strategy.MERGE, made.conflicts)


def sync_message(app: Document) -> str:
    """The message of the merge commit that a sync makes."""
    return f"Sync with {app['integration_branch']}\n"


async def _synced_event(
    platform: Platform,
    app: Document,
    workspace: Document,
    at: Tips,
    *,
    to: str,
    onto: str,
    strategy: Strategy,
    resolved: Sequence[str] = (),
) -> MoveEvent:
    base = await platform.git.merge_base(app["repo_path"], at.head, onto)
    after: dict[str, Any] = {"head_sha": to, "base_sha": onto, "integration_sha": onto, "strategy": strategy.value}
    event = Event(
        "workspace",
        workspace["_id"],
        "synced_integration",
        before={"head_sha": at.head, "base_sha": base},
        after={**after, "resolved_paths": list(resolved)} if resolved else after,
        git_sha=to,
    )
    return move_event(event)


async def sync(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    *,
    strategy: Strategy | None,
    resolutions: Sequence[Resolution],
) -> dict[str, Any]:
    """The reply of `sync-integration`. Raises `validation_error` for resolutions that do not fit the conflicts."""
    if resolutions and strategy is Strategy.REBASE:
        raise invalid("strategy", "resolved conflicts are merged: leave it out, or use merge")
    kept = await recall(platform.db, call)
    if kept is not None:
        return kept

    async def attempt(at: Tips, making: Scratch) -> Synced:
        done = await move_by(platform, app, workspace["_id"], call)
        if done is not None and done.kind is MoveKind.SYNCED:
            return Synced(done.after, Strategy(done.answer["strategy"]))
        title = f"Edit before the sync with {app['integration_branch']}"
        committed = await commit_of_pending(platform, call, app, workspace, at, making, title=title)
        onto = await integration_head(platform, app)
        if await platform.git.is_ancestor(app["repo_path"], onto, committed.head):
            if resolutions:
                raise invalid("resolutions", "nothing conflicts: the workspace has all of the integration branch")
            return Synced(await _stay(platform, call, app, workspace, at, making, committed))
        if resolutions:
            sha = await merge_resolved(platform, call, app, making, committed.head, onto, resolutions, sync_message(app))
            brought = Brought(sha, Strategy.MERGE)
        else:
            brought = await _bring(call, app, making, committed.head, onto, strategy)
        if brought.sha is None:
            head = await _stay(platform, call, app, workspace, at, making, committed)
            return Synced(head, brought.strategy, brought.conflicts)
        resolved = [one.path for one in resolutions]
        event = await _synced_event(
            platform, app, workspace, at, to=brought.sha, onto=onto, strategy=brought.strategy, resolved=resolved
        )
        answer = {"strategy": brought.strategy.value}
        entry = entry_of(call, MoveKind.SYNCED, brought.sha, [*committed.events, event], answer)
        await move(platform, call, app, workspace, at, making, entry)
        return Synced(brought.sha, brought.strategy)

    synced = await attempts(platform, call, app, workspace, attempt)
    reply = {
        "clean": not synced.conflicts,
        "head_sha": synced.head,
        "strategy": synced.strategy.value if synced.strategy else None,
        "conflicts": [keyed_record(one) for one in await with_keys(platform.git, app["repo_path"], synced.conflicts)],
    }
    if not synced.conflicts:
        await keep(platform.db, call, reply)
    return reply


async def _stay(
    platform: Platform, call: Call, app: Document, workspace: Document, at: Tips, making: Scratch, committed: Committed
) -> str:
    """Leave the branch where it is, with the commit of what was pending; its head."""
    if committed.head != at.head:
        entry = entry_of(call, MoveKind.COMMITTED, committed.head, committed.events)
        await move(platform, call, app, workspace, at, making, entry)
    return committed.head


async def head_for_submit(
    platform: Platform,
    call: Call,
    app: Document,
    workspace: Document,
    *,
    title: str,
    submitted: Collection[str],
    up_to_date: bool,
) -> SubmitHead:
    """Commit what is pending and, with `up_to_date`, sync what is behind (`spec.md` 3, first rules): the head to freeze.

    A repeat of the same command finds what the first run made: newer edits are no part of this submit.
    """

    async def attempt(at: Tips, making: Scratch) -> SubmitHead:
        done = await move_by(platform, app, workspace["_id"], call)
        if done is not None and done.answer.get("submitted"):
            return SubmitHead(done.after)
        committed = await commit_of_pending(platform, call, app, workspace, at, making, title=title, submitted=submitted)
        head, kind, events = committed.head, MoveKind.COMMITTED, committed.events
        onto = await integration_head(platform, app)
        if up_to_date and not await platform.git.is_ancestor(app["repo_path"], onto, head):
            brought = await _bring(call, app, making, head, onto, None)
            if brought.sha is None:
                unsubmitted = await commit_of_pending(platform, call, app, workspace, at, making, title=title)
                stayed = await _stay(platform, call, app, workspace, at, making, unsubmitted)
                return SubmitHead(stayed, brought.conflicts)
            head, kind = brought.sha, MoveKind.SYNCED
            synced = await _synced_event(platform, app, workspace, at, to=head, onto=onto, strategy=brought.strategy)
            events = [*events, synced]
        if head != at.head:
            entry = entry_of(call, kind, head, events, {"submitted": True})
            await move(platform, call, app, workspace, at, making, entry)
        return SubmitHead(head)

    return await attempts(platform, call, app, workspace, attempt)


def conflict_paths(conflicts: Sequence[Conflict]) -> list[dict[str, Any]]:
    """Conflicts as a refusal shows them."""
    return [conflict_record(conflict) for conflict in conflicts]
