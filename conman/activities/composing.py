"""Activities of an assembly: merging the selection, and why it does not merge (`spec.md` 11)."""

from __future__ import annotations

import time
from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.activities.merging import conflict_records, merge_onto
from conman.activities.repositories import head_of, integration_branch
from conman.domain.app import candidate_ref
from conman.domain.exclusions import Exclusions
from conman.domain.messages import AssembleStart, ComposeReply, ExclusionsQuestion, JobProgress
from conman.domain.outgoing import job_start
from conman.faults import fault_point
from conman.git.adapter import GitAdapter
from conman.services.clock import now
from conman.services.exclusions import find_exclusions
from conman.store import feed
from conman.store.database import Database
from conman.store.job_progress import show_progress

PROGRESS_SECONDS = 0.5
"""How often the job of an assembly shows how many merges are done, seconds, at most."""


class ComposeActivities:
    """Bound to one Git backend, and to the records of apps and jobs."""

    def __init__(self, db: Database, git: GitAdapter) -> None:
        self.db = db
        self.git = git

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.compose_release, self.integration_head, self.find_exclusions]

    @activity.defn
    async def compose_release(self, start: AssembleStart) -> ComposeReply:
        """One merge commit per changeset on the integration head, in the selection's order (`spec.md` 11)."""
        repo, branch = await integration_branch(self.db, start.app_id)
        await self.db["jobs"].update_one(
            {"_id": start.job_id, "state": "queued"},
            {"$set": job_start(now()), "$inc": {"version": 1}},
        )
        await feed.tell_jobs(self.db, [start.job_id])
        base = await head_of(self.git, repo, branch)
        prefixes: list[str] = []
        shown = time.monotonic()
        async with heartbeating():
            for step, member in enumerate(start.members, start=1):
                outcome = await merge_onto(
                    self.git,
                    repo,
                    candidate_ref(start.release_id, step),
                    prefixes[-1] if prefixes else base,
                    member.head_sha,
                    f"{member.title}\n\nConman-Changeset: {member.changeset_id}\nConman-Release: {start.tag}\n",
                )
                fault_point("compose.merged")
                if outcome.sha is None:
                    conflicts = conflict_records(outcome.conflicts)
                    return ComposeReply(base_sha=base, prefix_shas=prefixes, conflicted=member.changeset_id, conflicts=conflicts)
                prefixes.append(outcome.sha)
                if time.monotonic() - shown >= PROGRESS_SECONDS:
                    total = len(start.members)
                    message = f"{step} of {total} merges"
                    await show_progress(self.db, JobProgress(job_id=start.job_id, done=step, total=total, message=message), now())
                    shown = time.monotonic()
        return ComposeReply(base_sha=base, prefix_shas=prefixes)

    @activity.defn
    async def integration_head(self, app_id: str) -> str:
        """The present head of the integration branch."""
        repo, branch = await integration_branch(self.db, app_id)
        return await head_of(self.git, repo, branch)

    @activity.defn
    async def find_exclusions(self, question: ExclusionsQuestion) -> Exclusions:
        """Which members of a selection that does not merge exclude each other, by trials alone: nothing is written."""
        repo, _ = await integration_branch(self.db, question.app_id)
        async with heartbeating():
            return (await find_exclusions(self.git, repo, question.base_sha, question.members)).found
