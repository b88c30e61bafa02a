"""The commands that `changeset:{id}` takes. Every added field needs a default; nothing is renamed (`durability.md` 23)."""

from __future__ import annotations

from conman.domain.changeset import Move
from conman.domain.changeset_queue import QueueFacts
from conman.domain.changeset_review import ReviewFacts
from conman.domain.changeset_submit import SubmitFacts
from conman.domain.decision import Command


class SubmitCommand(Command):
    """Submit, or resubmit when `again`; the service has done the Git work."""

    facts: SubmitFacts
    again: bool = False


class ReviewCommand(Command):
    """One reviewer's word."""

    facts: ReviewFacts


class RequestReviewCommand(Command):
    """Somebody who may review is asked to."""

    reviewer_user_id: str
    at: str


class QueueCommand(Command):
    """Put it into the queue."""

    facts: QueueFacts


class LeaveCommand(Command):
    """Return it to draft, or withdraw it."""

    move: Move


class RetryCommand(Command):
    """Run the gate `job_id` again, as `new_job_id`."""

    job_id: str
    new_job_id: str


class TakeBackCommand(Command):
    """Somebody may review no more: their votes, or those that they cast by `until`, count no more."""

    reviewer_user_id: str
    until: str | None = None
