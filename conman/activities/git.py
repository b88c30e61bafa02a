"""Activities of Git: trial merges, and composing a release."""

from __future__ import annotations

from typing import Any

from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.activities.repositories import head_of, integration_branch
from conman.domain.app import candidate_ref, revalidation_ref
from conman.domain.messages import (
    AssembleStart,
    ComposeReply,
    TrialReply,
    TrialRequest,
)
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, Signature, StaleRef
from conman.services.clock import now
from conman.services.conflicts import Merged, conflict_record, merge_under
from conman.store.database import Database

MERGER = ("Conman", "conman@localhost")
"""Who makes merge commits; their author dates come from what is merged, so that a repeat makes the same commit."""


class GitActivities:
    """Bound to one Git backend and the records that say which repository an app has."""

    def __init__(self, db: Database, git: GitAdapter) -> None:
        self.db = db
        self.git = git

    def all(self) -> list[Any]:
        """The activities to register."""
        return [
            self.trial_merges,
            self.compose_release,
            self.integration_head,
        ]

    async def _app(self, app_id: str) -> tuple[str, str]:
        """Repository and full name of the integration branch."""
        return await integration_branch(self.db, app_id)

    async def _head(self, repo: str, ref: str) -> str:
        return await head_of(self.git, repo, ref)

    async def _merge_onto(self, repo: str, ref: str, base: str, head: str, message: str) -> Merged:
        """Merge `head` onto `base` under a private ref; the same inputs make the same commit."""
        when = (await self.git.commit(repo, head)).committer.when
        for _ in range(5):
            old = await self.git.resolve(repo, ref)
            try:
                return await merge_under(
                    self.git,
                    repo,
                    ref=ref,
                    expected_old=old,
                    ours=base,
                    theirs=head,
                    author=Signature(*MERGER, when),
                    message=message,
                )
            except StaleRef:
                continue  # an attempt that was given up is still at it; it makes the same commit
        raise RuntimeError(f"{ref} of {repo} keeps moving")

    @activity.defn
    async def trial_merges(self, request: TrialRequest) -> TrialReply:
        """Each queued head on the new integration head: a commit under a private ref, or its conflicts."""
        repo, _ = await self._app(request.app_id)
        reply = TrialReply()
        async with heartbeating():
            for entry in request.entries:
                outcome = await self._merge_onto(
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

    @activity.defn
    async def compose_release(self, start: AssembleStart) -> ComposeReply:
        """One merge commit per changeset on the integration head, in the selection's order (`spec.md` 11)."""
        repo, branch = await self._app(start.app_id)
        await self.db["jobs"].update_one(
            {"_id": start.job_id, "state": "queued"},
            {"$set": {"state": "running", "attempt": 1, "started_at": now()}, "$inc": {"version": 1}},
        )
        base = await self._head(repo, branch)
        prefixes: list[str] = []
        async with heartbeating():
            for step, member in enumerate(start.members, start=1):
                outcome = await self._merge_onto(
                    repo,
                    candidate_ref(start.release_id, step),
                    prefixes[-1] if prefixes else base,
                    member.head_sha,
                    f"{member.title}\n\nConman-Changeset: {member.changeset_id}\nConman-Release: {start.tag}\n",
                )
                fault_point("compose.merged")
                if outcome.sha is None:
                    conflicts = [conflict_record(conflict) for conflict in outcome.conflicts]
                    return ComposeReply(base_sha=base, prefix_shas=prefixes, conflicted=member.changeset_id, conflicts=conflicts)
                prefixes.append(outcome.sha)
        return ComposeReply(base_sha=base, prefix_shas=prefixes)

    @activity.defn
    async def integration_head(self, app_id: str) -> str:
        """The present head of the integration branch."""
        repo, branch = await self._app(app_id)
        return await self._head(repo, branch)
