"""Activities of a publish: the tag's number, the proofs, and moving the refs (`spec.md` 11, `durability.md` 19)."""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError
from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.activities.repositories import head_of, integration_branch
from conman.domain.messages import MoveRefs, MoveRefsReply, PublishFacts, PublishQuestion, TagRequest
from conman.domain.release import Member, unexplained_paths
from conman.domain.times import utc_day
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, RefUpdate, StaleRef
from conman.store.database import Database

TAGS = "refs/tags/"


class PublishActivities:
    """Bound to one Git backend, and to the records of apps, releases and tags."""

    def __init__(self, db: Database, git: GitAdapter) -> None:
        self.db = db
        self.git = git

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.reserve_tag, self.publish_facts, self.move_refs]

    @activity.defn
    async def reserve_tag(self, request: TagRequest) -> str:
        """`rYYYY.MM.DD.N`: the next number of the app's UTC day, reserved by a unique index (`spec.md` 11)."""
        repo, _ = await integration_branch(self.db, request.app_id)
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
        repo, branch = await integration_branch(self.db, question.app_id)
        head = await head_of(self.git, repo, branch)
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
        repo, branch = await integration_branch(self.db, request.app_id)
        tag = TAGS + request.tag
        fault_point("refs.begun")
        async with heartbeating():
            return await self._moved(repo, branch, tag, request)

    async def _moved(self, repo: str, branch: str, tag: str, request: MoveRefs) -> MoveRefsReply:
        for _ in range(10):
            head = await head_of(self.git, repo, branch)
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
