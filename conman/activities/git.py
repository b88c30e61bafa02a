"""Activities of Git: trial merges, composing a release, publishing."""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError
from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.domain.app import BRANCHES, candidate_ref, revalidation_ref
from conman.domain.messages import (
    AssembleStart,
    ComposeReply,
    MoveRefs,
    MoveRefsReply,
    PublishFacts,
    PublishQuestion,
    TagRequest,
    TrialReply,
    TrialRequest,
)
from conman.domain.release import Member, unexplained_paths
from conman.domain.times import utc_day
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, RefUpdate, Signature, StaleRef
from conman.services.clock import now
from conman.services.conflicts import Merged, conflict_record, merge_under
from conman.store import records
from conman.store.database import Database, Document

TAGS = "refs/tags/"
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
            self.reserve_tag,
            self.publish_facts,
            self.move_refs,
        ]

    async def _app(self, app_id: str) -> tuple[str, str]:
        """Repository and full name of the integration branch."""
        app: Document = await records.get(self.db, "apps", app_id, what="app")
        return app["repo_path"], BRANCHES + app["integration_branch"]

    async def _head(self, repo: str, ref: str) -> str:
        head = await self.git.resolve(repo, ref)
        if head is None:
            raise RuntimeError(f"the integration branch {ref} of {repo} is gone")
        return head

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

    @activity.defn
    async def reserve_tag(self, request: TagRequest) -> str:
        """`rYYYY.MM.DD.N`: the next number of the app's UTC day, reserved by a unique index (`spec.md` 11)."""
        repo, _ = await self._app(request.app_id)
        taken = await self.db["release_tags"].find_one({"release_id": request.release_id})
        if taken is not None:
            return taken["tag"]
        day = utc_day(request.at)
        number = 1 + await self.db["release_tags"].count_documents({"app_id": request.app_id, "day": day})
        existing = await self.git.list_refs(repo, f"{TAGS}r{day}.")
        while True:
            tag = f"r{day}.{number}"
            number += 1
            if TAGS + tag in existing:
                continue
            try:
                await self.db["release_tags"].insert_one(
                    {
                        "_id": f"{request.app_id}:{tag}",
                        "app_id": request.app_id,
                        "day": day,
                        "tag": tag,
                        "release_id": request.release_id,
                    }
                )
            except DuplicateKeyError:
                taken = await self.db["release_tags"].find_one({"release_id": request.release_id})
                if taken is not None:
                    return taken["tag"]
                continue
            fault_point("tag.reserved")
            return tag

    @activity.defn
    async def publish_facts(self, question: PublishQuestion) -> PublishFacts:
        """The present head, a free tag, and the proof that nothing but the members' changes is in the candidate."""
        repo, branch = await self._app(question.app_id)
        head = await self._head(repo, branch)
        async with heartbeating():
            changed = [row.path for row in await self.git.changed_paths(repo, question.base_sha, question.candidate_sha)]
            members = [await self._paths_of(repo, member, question.base_sha) for member in question.members]
        present = await self.git.resolve(repo, TAGS + question.tag)
        tag = question.tag if present in (None, question.candidate_sha) else await self._other_tag(question)
        return PublishFacts(
            integration_sha=head,
            contained=await self.git.is_ancestor(repo, question.candidate_sha, head),
            tag=tag,
            unexplained=unexplained_paths(changed, members),
        )

    async def _paths_of(self, repo: str, member: Member, base: str) -> list[str]:
        """What a member changed, and where merges put it when the file was moved since the member's own base."""
        paths = [row.path for row in await self.git.changed_paths(repo, member.base_sha, member.head_sha)]
        if member.base_sha == base:
            return paths
        moves = await self.git.changed_paths(repo, member.base_sha, base, renames=True)
        moved = {row.old_path: row.path for row in moves if row.old_path is not None}
        return paths + [moved[path] for path in paths if path in moved]

    async def _other_tag(self, question: PublishQuestion) -> str:
        """Somebody made a tag of this name outside Conman: the number is skipped."""
        await self.db["release_tags"].update_one(
            # Only of this tag: a repeat must not give up the number that the first run took in its place.
            {"release_id": question.release_id, "tag": question.tag},
            {"$set": {"release_id": f"skipped:{question.release_id}:{question.tag}"}},
        )
        fault_point("tag.skipped")
        return await self.reserve_tag(TagRequest(app_id=question.app_id, release_id=question.release_id, at=question.at))

    @activity.defn
    async def move_refs(self, request: MoveRefs) -> MoveRefsReply:
        """Branch and tag in one transaction; done already when the branch contains the new head (`durability.md` 19)."""
        repo, branch = await self._app(request.app_id)
        tag = TAGS + request.tag
        fault_point("refs.begun")
        async with heartbeating():
            return await self._moved(repo, branch, tag, request)

    async def _moved(self, repo: str, branch: str, tag: str, request: MoveRefs) -> MoveRefsReply:
        for _ in range(10):
            head = await self._head(repo, branch)
            tagged = await self.git.resolve(repo, tag)
            if tagged not in (None, request.new_sha):
                raise RuntimeError(f"tag {request.tag} was made elsewhere meanwhile")
            if head == request.old_sha and head != request.new_sha:
                updates = [RefUpdate(branch, request.old_sha, request.new_sha)]
            elif await self.git.is_ancestor(repo, request.new_sha, head):
                updates = []
            else:
                return MoveRefsReply(moved=False, integration_sha=head)
            if tagged is None:
                updates.append(RefUpdate(tag, None, request.new_sha))
            if not updates:
                return MoveRefsReply(moved=True, integration_sha=head)
            try:
                await self.git.update_refs(repo, updates)
            except StaleRef:
                continue
            fault_point("refs.moved")
        raise RuntimeError(f"the refs of {request.tag} keep moving")
