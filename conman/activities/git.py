"""Activities of Git: the trial merges of a revalidation."""

from __future__ import annotations

from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.activities.merging import merge_onto
from conman.activities.repositories import integration_branch
from conman.domain.app import revalidation_ref
from conman.domain.messages import TrialReply, TrialRequest
from conman.faults import fault_point
from conman.git.adapter import GitAdapter
from conman.services.conflicts import conflict_record
from conman.store.database import Database


class GitActivities:
    """Bound to one Git backend and the records that say which repository an app has."""

    def __init__(self, db: Database, git: GitAdapter) -> None:
        self.db = db
        self.git = git

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.trial_merges]

    @activity.defn
    async def trial_merges(self, request: TrialRequest) -> TrialReply:
        """Each queued head on the new integration head: a commit under a private ref, or its conflicts."""
        repo, _ = await integration_branch(self.db, request.app_id)
        reply = TrialReply()
        async with heartbeating():
            for entry in request.entries:
                outcome = await merge_onto(
                    self.git,
                    repo,
                    revalidation_ref(entry.changeset_id),
                    request.integration_sha,
                    entry.head_sha,
                    f"Revalidate: {entry.title}\n\nConman-Changeset: {entry.changeset_id}\n",
                )
                fault_point("trial.merged")
                if outcome.sha is not None:
                    reply.merged[entry.changeset_id] = outcome.sha
                else:
                    reply.conflicts[entry.changeset_id] = [conflict_record(conflict) for conflict in outcome.conflicts]
        return reply
