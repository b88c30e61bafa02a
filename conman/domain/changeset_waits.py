"""What a changeset waits for: in data, for who can clear it, and in a sentence (`api.md` 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conman.domain.changeset import TERMINAL, Changeset, ChangesetState
from conman.domain.changeset_gate import JUDGED, RUNNING
from conman.domain.jobs import JobState
from conman.domain.override_collisions import KIND as OVERRIDE_COLLISION


class BlockerCode(StrEnum):
    """What keeps a changeset from its next state."""

    QUEUE_ASKED = "queue_asked"
    NOT_SUBMITTED = "not_submitted"
    GATE_RUNNING = "gate_running"
    GATE_NOT_PASSED = "gate_not_passed"
    GATE_WITHOUT_VERDICT = "gate_without_verdict"
    APPROVALS_MISSING = "approvals_missing"
    CHANGES_REQUESTED = "changes_requested"
    OUT_OF_DATE = "out_of_date"
    NOT_QUEUED = "not_queued"
    NOT_IN_A_RELEASE = "not_in_a_release"
    RELEASE_NOT_PUBLISHED = "release_not_published"
    CONFLICTED = "conflicted"
    NEEDS_REVALIDATION = "needs_revalidation"


class Who(StrEnum):
    """Who can clear a blocker: the author (or who may act for them), a role of the app, or Conman by itself in a while."""

    AUTHOR = "author"
    REVIEWER = "reviewer"
    CONFIG_MANAGER = "config_manager"
    CONMAN = "conman"


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that is missing. `message` is a sentence: what is waited for, and what to do."""

    code: BlockerCode
    message: str
    who: Who

    def record(self) -> dict[str, Any]:
        """As `api.md` 3 shows the blockers of a plan."""
        return {"code": self.code.value, "message": self.message, "who": self.who.value}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What others know of a changeset: whether the queue would refuse it as behind, and the open release that holds it."""

    behind: bool = False
    release_id: str | None = None


def blockers(cs: Changeset, around: Surroundings | None = None) -> list[Blocker]:
    """What keeps it from its next state, what comes first first; nothing once it has ended."""
    if cs.state in TERMINAL:
        return []
    if cs.intent is not None:
        return [_queue_asked(cs.intent.move.value)]
    code, who = BlockerCode, Who
    match cs.state:
        case ChangesetState.DRAFT:
            return [Blocker(code.NOT_SUBMITTED, "Waits for its author to submit it.", who.AUTHOR)]
        case ChangesetState.SUBMITTED | ChangesetState.IN_REVIEW:
            return [*_gate(cs), *_approvals(cs)]
        case ChangesetState.CHANGES_REQUESTED:
            message = "Waits for its author to make the changes that were requested, and to resubmit it."
            return [Blocker(code.CHANGES_REQUESTED, message, who.AUTHOR)]
        case ChangesetState.APPROVED:
            return [_behind() if around is not None and around.behind else _not_queued()]
        case ChangesetState.QUEUED if around is not None and around.release_id is not None:
            message = f"Waits for the release {around.release_id}, which holds it, to be published."
            return [Blocker(code.RELEASE_NOT_PUBLISHED, message, who.CONFIG_MANAGER)]
        case ChangesetState.QUEUED:
            return [Blocker(code.NOT_IN_A_RELEASE, "Waits for a config manager to take it into a release.", who.CONFIG_MANAGER)]
        case ChangesetState.CONFLICTED:
            return [Blocker(code.CONFLICTED, f"Waits for its author: {_conflicts(cs.conflicts)}", who.AUTHOR)]
        case _:
            message = "Waits for a revalidation that passes: revalidate it, or return it to draft, mend it and submit again."
            return [Blocker(code.NEEDS_REVALIDATION, message, who.AUTHOR)]


def waiting_for(cs: Changeset, around: Surroundings | None = None) -> str | None:
    """One sentence on what this changeset waits for first; None when it is at an end."""
    found = blockers(cs, around)
    return found[0].message if found else None


def _conflicts(conflicts: Sequence[dict[str, Any]]) -> str:
    """Why it left the queue, and what its author does: overrides collide, or files do not merge."""
    collisions = [conflict for conflict in conflicts if conflict.get("kind") == OVERRIDE_COLLISION]
    if collisions:
        keys = ", ".join(dict.fromkeys(str(one["key"]) for one in collisions[:3]))
        first = collisions[0]["changeset_id"]
        return (
            f"its overrides of {keys} collide with those of changeset {first}; return it to draft, set others, and submit again."
        )
    paths = ", ".join(str(conflict["path"]) for conflict in conflicts[:3])
    by = f", by {paths}" if paths else ""
    return f"it no longer merges{by}; return it to draft, sync, and submit again."


def _queue_asked(move: str) -> Blocker:
    return Blocker(BlockerCode.QUEUE_ASKED, f"Waits for the queue to answer {move}.", Who.CONMAN)


def _behind() -> Blocker:
    message = "Waits for its author: the integration branch has moved on; return it to draft and submit it again."
    return Blocker(BlockerCode.OUT_OF_DATE, message, Who.AUTHOR)


def _not_queued() -> Blocker:
    return Blocker(BlockerCode.NOT_QUEUED, "Waits for its author or a config manager to put it into the queue.", Who.AUTHOR)


def _gate(cs: Changeset) -> list[Blocker]:
    gate = cs.gate
    if gate is None or gate.state is JobState.SUCCEEDED:
        return []
    named = f"the gate of revision {cs.current_revision}"
    if gate.state in RUNNING:
        return [Blocker(BlockerCode.GATE_RUNNING, f"Waits for {named}, which is {gate.state.value}.", Who.CONMAN)]
    reason = gate.reason_code.value if gate.reason_code else gate.state.value
    if gate.reason_code in JUDGED:
        message = f"Waits for a new revision: {named} ended with {reason}; its author mends the files and resubmits."
        return [Blocker(BlockerCode.GATE_NOT_PASSED, message, Who.AUTHOR)]
    message = f"Waits for {named} to be run again: it ended without a verdict, with {reason}; retry the job {gate.job_id}."
    return [Blocker(BlockerCode.GATE_WITHOUT_VERDICT, message, Who.AUTHOR)]


def _approvals(cs: Changeset) -> list[Blocker]:
    missing = cs.required_approvals - cs.approval_count
    if missing <= 0:
        return []
    plural = "s" if missing != 1 else ""
    message = f"Waits for {missing} more approval{plural}, by reviewers who are not its author and have not approved it yet."
    return [Blocker(BlockerCode.APPROVALS_MISSING, message, Who.REVIEWER)]
