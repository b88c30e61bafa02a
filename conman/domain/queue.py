"""The queue of an app: membership, order, reservation, and verdicts per epoch (`spec.md` 10, `durability.md` 14-18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from conman.domain.changeset_gate import retried_event
from conman.domain.decision import Decision, Event, JobEnd, Model, NewJob
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.jobs import JobState, JobType, ReasonCode, max_attempts
from conman.domain.override_collisions import Collision, collided
from conman.domain.queue_records import Entry, EntryState, EntryStatus, News, Queue, Sweep
from conman.domain.queue_verdicts import Judged, counted, decide_verdicts

JobIds = Callable[[str], str]
"""Changeset id → a fresh, deterministic job id."""


def _revalidation_job(job_id: str, changeset_id: str) -> NewJob:
    kind = JobType.REVALIDATE_QUEUED_CHANGESET
    return NewJob(job_id, kind, "changeset", changeset_id, max_attempts(kind))


def _superseded_jobs(entries: Sequence[Entry]) -> list[JobEnd]:
    """The ends of the revalidations of these entries that still run: nobody waits for them any more."""
    return [
        JobEnd(id=entry.job_id, state=JobState.CANCELED, reason_code=ReasonCode.SUPERSEDED)
        for entry in entries
        if entry.status is EntryStatus.RUNNING and entry.job_id is not None
    ]


def _revalidated(
    queue: Queue, ids: Sequence[str], job_ids: JobIds, *, adapts: bool, fresh: bool = False
) -> tuple[Queue, list[NewJob], list[JobEnd]]:
    """The entries `ids` are judged on the present head: with the sweep that is under way, or in a new epoch where none is."""
    if queue.sweep is None or not queue.sweep.adapts:
        return _with_sweep(queue, queue.integration_sha, ids, job_ids, adapts=adapts, fresh=ids if fresh else ())
    wanted = [entry.changeset_id for entry in queue.entries if entry.changeset_id in ids and not _runs(entry)]
    entries, jobs = _running(queue, wanted, job_ids, fresh=wanted if fresh else ())
    asked = [*queue.sweep.changeset_ids, *(one for one in wanted if one not in queue.sweep.changeset_ids)]
    after = queue.model_copy(
        update={
            "entries": entries,
            "sweep": queue.sweep.model_copy(update={"changeset_ids": asked}),
            "joining": [*queue.joining, *(job.id for job in jobs)],
            "progress_total": len(asked),
        }
    )
    return counted(after), jobs, []


def _with_sweep(
    queue: Queue, integration_sha: str, ids: Sequence[str], job_ids: JobIds, *, adapts: bool, fresh: Sequence[str] = ()
) -> tuple[Queue, list[NewJob], list[JobEnd]]:
    """A new epoch in which the entries `ids` are judged against `integration_sha`; an older sweep is superseded."""
    ends = _superseded_jobs(queue.entries)
    wanted = [entry.changeset_id for entry in queue.entries if entry.changeset_id in ids or _runs(entry)]
    entries, jobs = _running(queue, wanted, job_ids, fresh=fresh)
    epoch = queue.epoch + 1
    sweep = Sweep(epoch=epoch, integration_sha=integration_sha, changeset_ids=wanted, adapts=adapts)
    superseded = [*queue.superseded_epochs, *([queue.epoch] if queue.sweep is not None or queue.leaving else [])]
    after = queue.model_copy(
        update={
            "entries": entries,
            "epoch": epoch,
            "integration_sha": integration_sha,
            "sweep": sweep if wanted else None,
            "sweep_started": not wanted and not superseded,  # an older sweep is stopped even where none follows it
            "joining": [],
            "leaving": [],
            "superseded_epochs": superseded,
            "progress_done": 0,
            "progress_total": len(wanted),
        }
    )
    return after, jobs, ends


def _runs(entry: Entry) -> bool:
    return entry.status is EntryStatus.RUNNING


def _running(queue: Queue, ids: Sequence[str], job_ids: JobIds, *, fresh: Sequence[str]) -> tuple[list[Entry], list[NewJob]]:
    """The entries of the queue, those of `ids` with a new job each."""
    jobs = {changeset_id: job_ids(changeset_id) for changeset_id in ids}

    def begun(entry: Entry) -> Entry:
        asked = {"status": EntryStatus.RUNNING, "job_id": jobs[entry.changeset_id], "fresh": entry.changeset_id in fresh}
        return entry.model_copy(update=asked)

    entries = [begun(entry) if entry.changeset_id in jobs else entry for entry in queue.entries]
    return entries, [_revalidation_job(job_id, changeset_id) for changeset_id, job_id in jobs.items()]


def _left(queue: Queue, entry: Entry) -> Queue:
    """The queue, counted, whose sweep lets go of an entry that is there no more, or that is judged already."""
    if not _runs(entry) or queue.sweep is None or not queue.sweep.adapts or entry.job_id is None:
        return counted(queue)
    joining = [job_id for job_id in queue.joining if job_id != entry.job_id]
    return counted(queue.model_copy(update={"joining": joining, "leaving": [*queue.leaving, entry.job_id]}))


def decide_enqueue(queue: Queue, entry: Entry, job_ids: JobIds, *, adapts: bool = True) -> Decision[Queue]:
    """An approved changeset is appended (a hotpatch goes to the head).

    A hotpatch, what entered by a clean merge, what is behind the integration head, and what was judged on an older one are
    revalidated at once. One whose overrides collide with those of an earlier entry does not enter: the result has its
    `collisions`. Those that come after a hotpatch and collide with it leave.
    A repeat for what is already in the queue changes nothing.
    """
    if queue.entry(entry.changeset_id) is not None:
        return Decision(queue)
    entries = [entry, *queue.entries] if entry.hotpatch else [*queue.entries, entry]
    leaving = _collided(entries)
    if entry.changeset_id in leaving:
        return Decision(queue, result={"collisions": [one.record() for one in leaving[entry.changeset_id]]})
    after = queue.model_copy(update={"entries": entries})
    if entry.judged_sha == entry.base_sha == queue.integration_sha and not entry.hotpatch and not entry.revalidate:
        return Decision(after)
    after, jobs, ends = _revalidated(after, [entry.changeset_id, *leaving], job_ids, adapts=adapts)
    return _with_collisions(Decision(after, jobs=tuple(jobs), job_ends=tuple(ends)), leaving)


def _collided(entries: Sequence[Entry]) -> dict[str, list[Collision]]:
    return collided([(entry.changeset_id, entry.overrides) for entry in entries])


def _with_collisions(decision: Decision[Queue], leaving: Mapping[str, Sequence[Collision]]) -> Decision[Queue]:
    """A sweep in which those whose overrides collide have their verdict already (`spec.md` 10)."""
    queue = decision.owned
    judges = Judged(queue.epoch, queue.integration_sha)
    found = {one: [collision.record() for collision in leaving[one]] for one in leaving}
    verdicts = [judges.conflicted(entry, found[one]) for entry in queue.entries if (one := entry.changeset_id) in found]
    judged = decide_verdicts(queue, verdicts)
    if judged is None:
        return decision
    over = [verdict.job_id for verdict in verdicts]
    given = [job_id for job_id in over if job_id not in queue.joining] if queue.sweep_started else []
    told = {"joining": [job_id for job_id in queue.joining if job_id not in over], "leaving": [*queue.leaving, *given]}
    return replace(
        decision,
        owned=judged.owned.model_copy(update=told),
        events=(*decision.events, *judged.events),
        job_ends=(*decision.job_ends, *judged.job_ends),
    )


def decide_remove(queue: Queue, changeset_id: str) -> Decision[Queue]:
    """A changeset leaves, unless an open release holds it (409 `conflict` with the release)."""
    entry = queue.entry(changeset_id)
    if entry is None:
        return Decision(queue, result={"removed": False})
    if entry.reserved_by is not None:
        raise DomainError(
            ErrorCode.CONFLICT,
            "The changeset is in an open release: take it out of the release first.",
            [{"changeset_id": changeset_id, "state": entry.state.value, "release_id": entry.reserved_by}],
        )
    after = queue.model_copy(update={"entries": [old for old in queue.entries if old.changeset_id != changeset_id]})
    return Decision(_left(after, entry), job_ends=tuple(_superseded_jobs([entry])), result={"removed": True})


def decide_reorder(queue: Queue, ordered: Sequence[str], expected_version: int) -> Decision[Queue]:
    """An exact permutation of what the queue lists, against the version that was read (`spec.md` 10).

    Raises `stale_write` or `validation_error`.
    """
    if queue.version != expected_version:
        raise DomainError(
            ErrorCode.STALE_WRITE,
            f"The queue is at version {queue.version} now: read it again, then reorder.",
            {"version": queue.version},
        )
    before = [entry.changeset_id for entry in queue.entries]
    if sorted(ordered) != sorted(before):
        message = "must name every changeset that the queue lists, each once"
        raise DomainError(
            ErrorCode.VALIDATION_ERROR,
            f"ordered_changeset_ids {message}.",
            [{"field": "ordered_changeset_ids", "message": message}],
        )
    by_id = {entry.changeset_id: entry for entry in queue.entries}
    after = queue.model_copy(update={"entries": [by_id[changeset_id] for changeset_id in ordered]})
    event = Event(
        "queue",
        queue.app_id,
        "reordered",
        before={"ordered_changeset_ids": before},
        after={"ordered_changeset_ids": list(ordered)},
    )
    return Decision(after, events=(event,))


def decide_reserve(queue: Queue, release_id: str, changeset_ids: Sequence[str]) -> Decision[Queue]:
    """A release reserves exactly these changesets, or nothing (`spec.md` 11). What it held before and is not named is freed.

    Raises `conflict` with `[{changeset_id, state, release_id}]` for each that is not `queued`, or is in another open release.
    """
    refused: list[dict[str, Any]] = []
    for changeset_id in changeset_ids:
        entry = queue.entry(changeset_id)
        if entry is None or entry.state is not EntryState.QUEUED or entry.reserved_by not in (None, release_id):
            refused.append(
                {
                    "changeset_id": changeset_id,
                    "state": entry.state.value if entry else "not queued",
                    "release_id": entry.reserved_by if entry else None,
                }
            )
    if refused:
        raise DomainError(ErrorCode.CONFLICT, "Some changesets can't be in this release: choose from the queue.", refused)
    entries = [
        entry.model_copy(update={"reserved_by": release_id})
        if entry.changeset_id in changeset_ids
        else (entry.model_copy(update={"reserved_by": None}) if entry.reserved_by == release_id else entry)
        for entry in queue.entries
    ]
    members = {entry.changeset_id: entry for entry in entries if entry.reserved_by == release_id}
    return Decision(
        queue.model_copy(update={"entries": entries}),
        result={"members": [members[changeset_id].model_dump(mode="json") for changeset_id in changeset_ids]},
    )


def decide_published(
    queue: Queue, release_id: str, integration_sha: str, job_ids: JobIds, *, adapts: bool = True
) -> Decision[Queue]:
    """A release was published: its members leave, what remains is revalidated on the new head in a new epoch."""
    if release_id in queue.published_releases:
        return Decision(queue)
    rest = [entry for entry in queue.entries if entry.reserved_by != release_id]
    before = queue.model_copy(
        update={
            "entries": rest,
            "published_releases": [*queue.published_releases, release_id][-100:],
        }
    )
    decision = _on_another_head(before, integration_sha, job_ids, adapts=adapts)
    left = _superseded_jobs([entry for entry in queue.entries if entry.reserved_by == release_id])
    return replace(decision, job_ends=(*left, *decision.job_ends))


def decide_integration_moved(
    queue: Queue, old_sha: str, new_sha: str, job_ids: JobIds, *, adapts: bool = True
) -> Decision[Queue]:
    """The integration branch was moved outside Conman: all entries are revalidated on its new head, as after a publish.

    Nothing changes where the queue knows another head than `old_sha` by now: a publish was told meanwhile.
    """
    if queue.integration_sha != old_sha or old_sha == new_sha:
        return Decision(queue, result={"moved": False})
    return replace(_on_another_head(queue, new_sha, job_ids, adapts=adapts), result={"moved": True})


def _on_another_head(queue: Queue, integration_sha: str, job_ids: JobIds, *, adapts: bool) -> Decision[Queue]:
    """A new epoch in which all entries are judged on another head; a sweep that was under way is superseded."""
    entries = queue.entries
    after, jobs, ends = _with_sweep(queue, integration_sha, [entry.changeset_id for entry in entries], job_ids, adapts=adapts)
    superseded = Event("queue", queue.app_id, "superseded", before={"epoch": queue.epoch}, after={"epoch": after.epoch})
    events = (superseded,) if queue.sweep is not None else ()
    return _with_collisions(Decision(after, events=events, jobs=tuple(jobs), job_ends=tuple(ends)), _collided(entries))


class RetriedJob(Model):
    """An ended job that somebody retries."""

    job_id: str
    state: JobState
    reason_code: ReasonCode | None = None


def decide_revalidate(
    queue: Queue, changeset_id: str, job_ids: JobIds, retried: RetriedJob | None = None, *, adapts: bool = True
) -> Decision[Queue]:
    """One entry is judged again on the present head (`spec.md` 10), `retried` where somebody retries its ended job.

    Who asks by hand doubts the earlier result, so the suite runs afresh; what other sweeps judge meanwhile goes on.

    Raises `invalid_transition` when it is not in the queue, `conflict` for a job that is no longer its latest.
    """
    entry = queue.entry(changeset_id)
    if entry is None:
        raise DomainError(
            ErrorCode.INVALID_TRANSITION,
            "Only a changeset that is queued or needs_revalidation can be revalidated.",
            None,
        )
    if retried is not None and retried.job_id != entry.job_id:
        raise DomainError(
            ErrorCode.CONFLICT,
            "This job is not the latest revalidation of the changeset: retry that one, or revalidate the changeset.",
            {"job_id": entry.job_id},
        )
    if entry.status is EntryStatus.RUNNING:
        return Decision(queue, result={"job_id": entry.job_id})
    after, jobs, ends = _revalidated(queue, [changeset_id], job_ids, adapts=adapts, fresh=True)
    renewed = after.entry(changeset_id)
    again: tuple[Event, ...] = ()
    if retried is not None:
        kind, old, new = JobType.REVALIDATE_QUEUED_CHANGESET, retried.job_id, job_ids(changeset_id)
        again = (retried_event(old, retried.state, retried.reason_code, new, kind, changeset_id, entry.head_sha),)
    return Decision(
        after,
        events=again,
        jobs=tuple(jobs),
        job_ends=tuple(ends),
        result={"job_id": renewed.job_id if renewed is not None else None},
    )


def decide_eject(queue: Queue, release_id: str, changeset_id: str, *, conflicted: bool, job_id: str) -> Decision[Queue]:
    """Assembly blames a member of a release: a conflict leaves the queue, a failing suite keeps its place (`spec.md` 11)."""
    entry = queue.entry(changeset_id)
    if entry is None or entry.reserved_by != release_id:
        return Decision(queue)
    if conflicted:
        entries = [old for old in queue.entries if old.changeset_id != changeset_id]
    else:
        blamed = {"state": EntryState.NEEDS_REVALIDATION, "status": EntryStatus.FAILED, "reserved_by": None, "job_id": job_id}
        entries = queue.replaced(entry.model_copy(update=blamed))
    ended = tuple(_superseded_jobs([entry]))
    return Decision(_left(queue.model_copy(update={"entries": entries}), entry), job_ends=ended)


def decide_delivered(queue: Queue, delivered: Sequence[News]) -> Decision[Queue]:
    """News that their changesets have taken (or no longer wait for) are forgotten, and their jobs end."""
    ends = tuple(news.job_end for news in delivered if news.job_end is not None and news in queue.undelivered)
    rest = [news for news in queue.undelivered if news not in delivered]
    return Decision(queue.model_copy(update={"undelivered": rest}), job_ends=ends)


def decide_sweep_told(queue: Queue, epoch: int, told: Sequence[str] = ()) -> Decision[Queue] | None:
    """The process of this epoch's sweep is there, those before it were told to stop, and it knows of the jobs `told`.

    None when a newer epoch began, or when that was known.
    """
    joining = [job_id for job_id in queue.joining if job_id not in told]
    leaving = [job_id for job_id in queue.leaving if job_id not in told]
    known = queue.sweep_started and (joining, leaving) == (queue.joining, queue.leaving)
    if queue.epoch != epoch or known:
        return None
    update = {"sweep_started": True, "superseded_epochs": [], "joining": joining, "leaving": leaving}
    return Decision(queue.model_copy(update=update))
