"""What sweeps find about the entries of a queue (`spec.md` 10, `durability.md` 17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from conman.domain.changeset_news import QueueNews
from conman.domain.decision import Decision, Event, JobEnd, Model
from conman.domain.jobs import JobState, ReasonCode
from conman.domain.queue_records import Entry, EntryState, EntryStatus, News, Queue


class EntryVerdict(Model):
    """What a sweep found about one entry, with all that it judged (`durability.md` 17)."""

    epoch: int
    integration_sha: str
    changeset_id: str
    head_sha: str
    job_id: str
    status: EntryStatus
    job_state: JobState
    reason_code: ReasonCode
    exit_code: int | None = None
    summary: dict[str, Any] | None = None
    conflicts: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


def decide_verdicts(queue: Queue, verdicts: Sequence[EntryVerdict]) -> Decision[Queue] | None:
    """Verdicts for the present epoch, head and revision are taken; older ones are dropped whenever they land (`spec.md` 10)."""
    events: list[Event] = []
    ends: list[JobEnd] = []
    told = list(queue.undelivered)
    after = queue
    for verdict in verdicts:
        entry = after.entry(verdict.changeset_id)
        if (
            entry is None
            or (verdict.epoch, verdict.integration_sha) != (queue.epoch, queue.integration_sha)
            or verdict.job_id != entry.job_id
            or verdict.head_sha != entry.head_sha
            or entry.status is not EntryStatus.RUNNING
        ):
            continue
        end = JobEnd(
            id=verdict.job_id,
            state=verdict.job_state,
            reason_code=verdict.reason_code,
            exit_code=verdict.exit_code,
            summary=verdict.summary,
            result={"status": verdict.status.value, "integration_sha": verdict.integration_sha, "conflicts": verdict.conflicts},
        )
        events.append(
            Event(
                "changeset",
                entry.changeset_id,
                "revalidated",
                before={"status": entry.status.value},
                after={
                    "status": verdict.status.value,
                    "integration_sha": verdict.integration_sha,
                    "job_id": verdict.job_id,
                },
                git_sha=entry.head_sha,
            )
        )
        after, news = _judged(after, entry, verdict)
        if news is None:
            ends.append(end)
        else:
            told.append(News(changeset_id=entry.changeset_id, news=news, job_end=end))
    if not events:
        return None
    return Decision(counted(after.model_copy(update={"undelivered": told})), events=tuple(events), job_ends=tuple(ends))


def _judged(queue: Queue, entry: Entry, verdict: EntryVerdict) -> tuple[Queue, QueueNews | None]:
    """The queue with one verdict in it, and what the changeset must be told (None: its state stays)."""
    kept = entry.model_copy(update={"status": verdict.status, "judged_sha": verdict.integration_sha})
    match verdict.status:
        case EntryStatus.CONFLICTED:
            rest = [old for old in queue.entries if old.changeset_id != entry.changeset_id]
            news = QueueNews(kind="conflicted", head_sha=entry.head_sha, job_id=verdict.job_id, conflicts=verdict.conflicts)
            return queue.model_copy(update={"entries": rest}), news
        case EntryStatus.FAILED:
            failed = kept.model_copy(update={"state": EntryState.NEEDS_REVALIDATION})
            news = QueueNews(kind="needs_revalidation", head_sha=entry.head_sha, job_id=verdict.job_id)
            return queue.model_copy(update={"entries": queue.replaced(failed)}), news
        case EntryStatus.VALID if entry.state is EntryState.NEEDS_REVALIDATION:
            passed = kept.model_copy(update={"state": EntryState.QUEUED})
            news = QueueNews(kind="revalidated", head_sha=entry.head_sha, job_id=verdict.job_id)
            return queue.model_copy(update={"entries": queue.replaced(passed)}), news
        case EntryStatus.VALID:
            return queue.model_copy(update={"entries": queue.replaced(kept)}), None
        case _:
            unknown = entry.model_copy(update={"status": EntryStatus.UNKNOWN})
            return queue.model_copy(update={"entries": queue.replaced(unknown)}), None


def counted(queue: Queue) -> Queue:
    """The queue with its progress counted; a sweep whose verdicts are all in is over."""
    running = sum(entry.status is EntryStatus.RUNNING for entry in queue.entries)
    done = max(queue.progress_total - running, 0)
    return queue.model_copy(update={"progress_done": done, "sweep": queue.sweep if running else None})
