"""Activities of Git: the trial merges of a revalidation."""

from __future__ import annotations

import json
from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.activities.merging import conflict_records, merge_onto
from conman.activities.repositories import integration_branch
from conman.domain.app import revalidation_ref
from conman.domain.messages import TrialReply, TrialRequest
from conman.domain.queue_verdicts import BATCH_BYTES
from conman.faults import fault_point
from conman.git.adapter import GitAdapter
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
        """Each queued head on the new integration head: a commit under a private ref, or its conflicts.

        Where those are many it ends early; the entries that it says nothing of are asked for again.
        """
        repo, _ = await integration_branch(self.db, request.app_id)
        reply = TrialReply()
        size = 0
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
                    reply.conflicts[entry.changeset_id] = conflict_records(outcome.conflicts)
                    size += len(json.dumps(reply.conflicts[entry.changeset_id]))
                    if size > BATCH_BYTES:
                        break
        return reply
