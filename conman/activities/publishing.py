"""Activities of a publish: the tag's number, the proofs, and moving the refs (`spec.md` 11, `durability.md` 19)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError
from temporalio import activity

from conman.activities.heartbeat import heartbeating
from conman.activities.repositories import head_of, integration_branch
from conman.domain.messages import MoveRefs, MoveRefsReply, PublishFacts, PublishQuestion, TagRequest
from conman.domain.publishing import unexplained_paths
from conman.domain.release import Member
from conman.domain.times import utc_day
from conman.faults import fault_point
from conman.git.adapter import GitAdapter, RefUpdate, StaleRef
from conman.services.overtaken import members_left
from conman.services.pinned_profiles import changed_since
from conman.store import records
from conman.store.database import Database, Document

TAGS = "refs/tags/"
MEMBERS_AT_ONCE = 8
"""How many members of a release are compared with its candidate at a time."""


@dataclass(frozen=True, slots=True)
class _Share:
    """What one member has to do with the candidate: its own paths, and those that it brings along without being its own."""

    paths: list[str]
    foreign: list[str]
    contained: bool


class PublishActivities:
    """Bound to one Git backend, and to the records of apps, releases and tags."""

    def __init__(self, db: Database, git: GitAdapter) -> None:
        self.db = db
        self.git = git

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.reserve_tag, self.publish_facts, self.move_refs]

    # The tag

    @activity.defn
    async def reserve_tag(self, request: TagRequest) -> str:
        """`rYYYY.MM.DD.N`: the next number of the app's UTC day, reserved by a unique index (`spec.md` 11).

        The day is the one on which the release was created, whenever this runs.
        """
        repo, _ = await integration_branch(self.db, request.app_id)
        release = await records.get(self.db, "releases", request.release_id, what="release")
        return await self._next_tag(repo, request.app_id, request.release_id, utc_day(release["created_at"]))

    async def _next_tag(self, repo: str, app_id: str, release_id: str, day: str) -> str:
        """The tag that the release holds, or the first one after the day's last number that nobody made outside Conman."""
        tags = self.db["release_tags"]
        existing = await self.git.list_refs(repo, f"{TAGS}r{day}.")
        last = await tags.find({"app_id": app_id, "day": day}).sort("number", DESCENDING).limit(1).to_list()
        number = last[0].get("number", 0) if last else 0
        while True:
            held = await tags.find_one({"release_id": release_id})
            if held is not None:
                return held["tag"]
            number += 1
            tag = f"r{day}.{number}"
            if TAGS + tag in existing:
                continue
            row: Document = {"_id": f"{app_id}:{tag}", "app_id": app_id, "day": day, "number": number, "tag": tag}
            try:
                await tags.insert_one({**row, "release_id": release_id})
            except DuplicateKeyError:
                continue  # another release was quicker, or an attempt at this that was given up
            fault_point("tag.reserved")
            return tag

    async def _other_tag(self, repo: str, app_id: str, release_id: str, tag: str) -> str:
        """Somebody made a tag of this name outside Conman: the number is skipped, and the next one of its day is taken."""
        await self.db["release_tags"].update_one(
            # Only of this tag: a repeat must not give up the number that the first run took in its place.
            {"release_id": release_id, "tag": tag},
            {"$set": {"release_id": f"skipped:{release_id}:{tag}"}},
        )
        fault_point("tag.skipped")
        return await self._next_tag(repo, app_id, release_id, tag.removeprefix("r").rpartition(".")[0])

    # The proofs

    @activity.defn
    async def publish_facts(self, question: PublishQuestion) -> PublishFacts:
        """The present head and profiles, a free tag, and the proof that the candidate has the members' changes and no others."""
        repo, branch = await integration_branch(self.db, question.app_id)
        async with heartbeating():
            changed = [row.path for row in await self.git.changed_paths(repo, question.base_sha, question.candidate_sha)]
            shares = await self._shares(repo, question)
            if question.reverts_release_id is not None:
                shares.append(await self._undone(repo, question.reverts_release_id, question.base_sha))
        brought = {path for share in shares for path in share.foreign}
        unexplained = {*unexplained_paths(changed, [share.paths for share in shares]), *(p for p in changed if p in brought)}
        left = await members_left(self.db, question.app_id, question.release_id, [one.changeset_id for one in question.members])
        members = list(zip(question.members, shares[: len(question.members)], strict=True))
        # No publish has begun yet, so that a tag of this name is somebody else's, whatever it points at.
        taken = await self.git.resolve(repo, TAGS + question.tag) is not None
        return PublishFacts(
            integration_sha=await head_of(self.git, repo, branch),
            tag=await self._other_tag(repo, question.app_id, question.release_id, question.tag) if taken else question.tag,
            unexplained=sorted(unexplained),
            uprooted=[member.changeset_id for member, share in members if brought.intersection(changed, share.foreign)],
            lost=[member.changeset_id for member, share in members if not share.contained],
            changed_profiles=await changed_since(self.db, question.app_id, question.pinned_profiles),
            left=left,
            supersedes=await self._published_before(repo, question),
        )

    async def _shares(self, repo: str, question: PublishQuestion) -> list[_Share]:
        line = await self.git.log(
            repo, question.candidate_sha, exclude=question.base_sha, first_parent=True, limit=len(question.members) + 1
        )
        merged = {parent for commit in line for parent in commit.parents[1:]}
        slots = asyncio.Semaphore(MEMBERS_AT_ONCE)

        async def share(member: Member) -> _Share:
            async with slots:
                # A member that the base contained already has no merge of its own.
                contained = member.head_sha in merged or await self.git.is_ancestor(repo, member.head_sha, question.candidate_sha)
                paths = [row.path for row in await self.git.changed_paths(repo, member.base_sha, member.head_sha)]
                if member.base_sha == question.base_sha:
                    return _Share(paths, [], contained)
                moved = await self._moved_in(repo, member.base_sha, question.base_sha)
                own = paths + [moved[path] for path in paths if path in moved]
                return _Share(own, await self._brought(repo, member, question.base_sha), contained)

        return list(await asyncio.gather(*(share(member) for member in question.members)))

    async def _undone(self, repo: str, release_id: str, base: str) -> _Share:
        """What undoing a release has to do with a candidate: the paths that it changed, and where these have gone since."""
        owned = (await records.get(self.db, "releases", release_id, what="release"))["owned"]
        rows = await self.git.changed_paths(repo, owned["base_sha"], owned["published_sha"])
        moved = await self._moved_in(repo, owned["published_sha"], base)
        paths = [row.path for row in rows]
        return _Share(paths + [moved[path] for path in paths if path in moved], [], True)

    async def _moved_in(self, repo: str, old: str, new: str) -> dict[str, str]:
        """Old path → new path of the files that were moved between two commits: merges put changes where a file went."""
        rows = await self.git.changed_paths(repo, old, new, renames=True)
        return {row.old_path: row.path for row in rows if row.old_path is not None}

    async def _brought(self, repo: str, member: Member, base: str) -> list[str]:
        """What a member brings along that is not its own: it was made on commits that the base does not contain, because the
        integration branch was set back since."""
        if await self.git.is_ancestor(repo, member.base_sha, base):
            return []
        common = await self.git.merge_base(repo, member.base_sha, base)
        if common is None:
            return [entry.path for entry in await self.git.list_tree(repo, member.base_sha, recursive=True)]
        return [row.path for row in await self.git.changed_paths(repo, common, member.base_sha)]

    async def _published_before(self, repo: str, question: PublishQuestion) -> str | None:
        """The release that was published last before this one, also where its record does not say so yet.

        A branch that was set back since may not contain the last one: then it is the last one that it contains.
        """
        query = {
            "app_id": question.app_id,
            "_id": {"$ne": question.release_id},
            "$or": [{"owned.published_sha": {"$ne": None}}, {"owned.publishing": {"$ne": None}}],
        }
        wanted = {"owned.published_sha": 1, "owned.published_at": 1, "owned.publishing": 1}
        found: list[tuple[str, str, str]] = []
        async for row in self.db["releases"].find(query, wanted):
            owned, intent = row["owned"], row["owned"].get("publishing") or {}
            found.append((owned["published_at"] or intent["at"], row["_id"], owned["published_sha"] or intent["new_sha"]))
        for _, release_id, sha in sorted(found, reverse=True):
            if await self.git.is_ancestor(repo, sha, question.base_sha):
                return release_id
        return None

    # The refs

    @activity.defn
    async def move_refs(self, request: MoveRefs) -> MoveRefsReply:
        """Branch and tag in one transaction; done already when the tag is there, or the branch contains the new head
        (`durability.md` 19).
        """
        repo, branch = await integration_branch(self.db, request.app_id)
        fault_point("refs.begun")
        async with heartbeating():
            return await self._moved(repo, branch, request)

    async def _moved(self, repo: str, branch: str, request: MoveRefs) -> MoveRefsReply:
        name = request.tag
        for _ in range(10):
            head = await head_of(self.git, repo, branch)
            tagged = await self.git.resolve(repo, TAGS + name)
            if tagged not in (None, request.new_sha):
                if not request.release_id:
                    raise RuntimeError(f"tag {name} was made elsewhere meanwhile, and who asks does not say whose number it is")
                # Made outside since the publish began; an attempt that was given up may have taken another one already.
                name = await self._other_tag(repo, request.app_id, request.release_id, name)
                continue
            if head == request.old_sha and head != request.new_sha:
                updates = [RefUpdate(branch, request.old_sha, request.new_sha)]
            elif tagged is not None or await self.git.is_ancestor(repo, request.new_sha, head):
                # Only this transaction makes the tag: what moved the branch since came after the publish.
                updates = []
            else:
                return MoveRefsReply(moved=False, integration_sha=head)
            if tagged is None:
                updates.append(RefUpdate(TAGS + name, None, request.new_sha))
            if not updates:
                return MoveRefsReply(moved=True, integration_sha=head, tag=name)
            try:
                await self.git.update_refs(repo, updates)
            except StaleRef:
                continue
            fault_point("refs.moved")
        raise RuntimeError(f"the refs of {request.tag} keep moving")
