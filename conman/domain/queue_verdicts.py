"""What sweeps find about the entries of a queue (`spec.md` 10, `durability.md` 17)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field

from conman.domain.changeset_news import QueueNews
from conman.domain.decision import Decision, Event, JobEnd, Model, Verdict
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


BATCH_BYTES = 512 * 1024
"""What travels and is written at once: Temporal refuses payloads over 2 MiB, and a suite's report may have 256 KiB."""

ModelT = TypeVar("ModelT", bound=Model)


def first_batch(items: Sequence[ModelT]) -> list[ModelT]:
    """The first of these, as many as `BATCH_BYTES` hold but one at least."""
    batch: list[ModelT] = []
    size = 0
    for item in items:
        size += len(item.model_dump_json())
        if batch and size > BATCH_BYTES:
            break
        batch.append(item)
    return batch


@dataclass(frozen=True, slots=True)
class Judged:
    """Makes the verdicts of one epoch, on one integration head."""

    epoch: int
    integration_sha: str

    def conflicted(self, entry: Entry, conflicts: Sequence[dict[str, Any]]) -> EntryVerdict:
        """It does not merge, or its overrides collide."""
        found = self._verdict(entry, EntryStatus.CONFLICTED, JobState.FAILED, ReasonCode.TESTS_FAILED)
        return found.model_copy(update={"conflicts": list(conflicts)})

    def canceled(self, entry: Entry) -> EntryVerdict:
        """The sweep ended before it was judged."""
        return self._verdict(entry, EntryStatus.UNKNOWN, JobState.CANCELED, ReasonCode.CANCELED)

    def by_suite(self, entry: Entry, verdict: Verdict) -> EntryVerdict:
        """What the suite says; what is no verdict on the files leaves it `unknown` (`spec.md` 10)."""
        known = {ReasonCode.OK: EntryStatus.VALID, ReasonCode.TESTS_FAILED: EntryStatus.FAILED}
        status = known.get(verdict.reason_code, EntryStatus.UNKNOWN)
        found = self._verdict(entry, status, verdict.state, verdict.reason_code)
        return found.model_copy(update={"exit_code": verdict.exit_code, "summary": verdict.end().summary})

    def _verdict(self, entry: Entry, status: EntryStatus, state: JobState, reason: ReasonCode) -> EntryVerdict:
        return EntryVerdict(
            epoch=self.epoch,
            integration_sha=self.integration_sha,
            changeset_id=entry.changeset_id,
            head_sha=entry.head_sha,
            job_id=entry.job_id or "",
            status=status,
            job_state=state,
            reason_code=reason,
        )


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
