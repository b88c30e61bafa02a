"""What the workflow `queue:{app}` owns: the entries in their order, and what is known of them (`spec.md` 10)."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from conman.domain.changeset_news import QueueNews
from conman.domain.decision import JobEnd, Model, Owned
from conman.domain.overrides import FrozenOverride


class EntryState(StrEnum):
    """Whether an entry may be selected for a release."""

    QUEUED = "queued"
    NEEDS_REVALIDATION = "needs_revalidation"


class EntryStatus(StrEnum):
    """What the latest revalidation says (`api.md` 4, `last_revalidation_status`)."""

    VALID = "valid"
    CONFLICTED = "conflicted"
    FAILED = "failed"
    RUNNING = "running"
    UNKNOWN = "unknown"


class Entry(Model):
    """One queued changeset: what was approved, and what is known of it on the present integration head."""

    changeset_id: str
    author_user_id: str
    title: str = ""
    revision_number: int
    head_sha: str
    base_sha: str
    hotpatch: bool = False
    queued_at: str
    state: EntryState = EntryState.QUEUED
    status: EntryStatus = EntryStatus.VALID
    judged_sha: str
    revalidate: bool = False
    """It entered by a clean merge alone (`queue_gate: clean_merge`), and no suite has seen the merge."""
    job_id: str | None = None
    fresh: bool = False
    """Somebody asked for this revalidation by hand: it is never answered from an earlier result."""
    reserved_by: str | None = None
    overrides: list[FrozenOverride] = Field(default_factory=list[FrozenOverride])


class Sweep(Model):
    """One revalidation of what the queue shows: one process per epoch, judging against one head.

    `changeset_ids` are all that it was asked for, each once. `adapts`: its process takes in what joins it and lets go of what
    leaves; one that was begun before processes could do so is superseded instead.
    """

    epoch: int
    integration_sha: str
    changeset_ids: list[str]
    adapts: bool = False


class News(Model):
    """Something that a changeset must be told, kept until it has taken it; `job_end` is written then, not before."""

    changeset_id: str
    news: QueueNews
    job_end: JobEnd | None = None


class Queue(Owned):
    """What the workflow `queue:{app}` owns."""

    app_id: str
    integration_sha: str
    epoch: int = 0
    entries: list[Entry] = Field(default_factory=list[Entry])
    sweep: Sweep | None = None
    sweep_started: bool = True
    joining: list[str] = Field(default_factory=list[str])
    """Jobs that the sweep's process must still be given."""
    leaving: list[str] = Field(default_factory=list[str])
    """Jobs that the sweep's process has, for which nobody waits any more."""
    superseded_epochs: list[int] = Field(default_factory=list[int])
    undelivered: list[News] = Field(default_factory=list[News])
    published_releases: list[str] = Field(default_factory=list[str])
    progress_done: int = 0
    progress_total: int = 0

    def entry(self, changeset_id: str) -> Entry | None:
        """The entry of a changeset, None when it is not in the queue."""
        return next((entry for entry in self.entries if entry.changeset_id == changeset_id), None)

    def replaced(self, entry: Entry) -> list[Entry]:
        """The entries with this one in place of the one of the same changeset."""
        return [entry if old.changeset_id == entry.changeset_id else old for old in self.entries]
