"""Reminders: reviewers are told again of what nobody reviews, at most three times per revision (`spec.md` 3)."""

from __future__ import annotations

from datetime import timedelta

from conman.domain.changeset import Changeset, ChangesetState
from conman.domain.changeset_notices import about
from conman.domain.decision import Decision
from conman.domain.jobs import JobState
from conman.domain.notification import NoticeKind
from conman.domain.times import later

MOST_REMINDERS = 3
"""How often the reviewers are told again of one revision."""

AWAITING_REVIEW = (ChangesetState.SUBMITTED, ChangesetState.IN_REVIEW)
"""The states in which it is the reviewers' turn."""


def awaits_review(cs: Changeset) -> bool:
    """Whether it is the reviewers' turn, and they may be told again: while the gate has not passed nobody can approve."""
    passed = cs.gate is not None and cs.gate.state is JobState.SUCCEEDED
    return cs.state in AWAITING_REVIEW and passed and cs.reminders < MOST_REMINDERS


def due_at(cs: Changeset, hours: int) -> str:
    """When the reviewers are told again: `hours` after the submit, the last review of this revision, or the last reminder."""
    revision = cs.revisions[-1]
    said = [vote.at for vote in cs.votes if vote.revision_number == revision.revision_number]
    return later(max([revision.created_at, *said, *([cs.reminded_at] if cs.reminded_at else [])]), timedelta(hours=hours))


def decide_reminder(changeset_id: str, cs: Changeset, hours: int, at: str) -> Decision[Changeset] | None:
    """The reviewers are told again; None when it is not, or no more, time for that. `hours` 0 means never."""
    if not hours or not awaits_review(cs) or at < due_at(cs, hours):
        return None
    number = cs.reminders + 1
    notice = about(NoticeKind.REVIEW_REMINDER, changeset_id, cs)
    return Decision(cs.model_copy(update={"reminders": number, "reminded_at": at}), notices=(notice,))
