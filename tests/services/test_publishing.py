"""What a publish asks of Git and the records: the tag's number, the proofs of the candidate, the refs (`spec.md` 11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from conman.activities.composing import ComposeActivities
from conman.activities.publishing import PublishActivities
from conman.domain.messages import (
    AssembleStart,
    ComposeReply,
    MoveRefs,
    MoveRefsReply,
    PublishFacts,
    PublishQuestion,
    TagRequest,
)
from conman.domain.profile_edit import ProfileEdit
from conman.domain.queue_records import Entry, EntryState, Queue
from conman.domain.release import Member, PinnedProfile, Release, ReleaseState
from conman.git.adapter import DeleteFile, FileChange, MoveFile, RefUpdate, WriteFile
from conman.services import arrivals, overtaken, profile_changes
from conman.services.clock import new_id, now
from conman.services.pinned_profiles import changed_since
from conman.services.platform import Platform
from conman.store.database import Document
from conman.workflows.client import Commands
from tests.services.desk import ANN, Desk, text
from tests.services.shop import OUTSIDER, REPO, Shop

MAIN = "refs/heads/main"
TAG = "refs/tags/r2026.03.01."
DAY = "2026-03-01T09:30:00.000Z"
LINES = "".join(f"line {number}\n" for number in range(20))


@dataclass
class Yard:
    """An app whose integration branch has a few files, changesets made on it, and the activities of assembly and publish."""

    platform: Platform
    app_id: str

    def __post_init__(self) -> None:
        self.db, self.git = self.platform.db, self.platform.git
        self.composing = ComposeActivities(self.db, self.git)
        self.publishing = PublishActivities(self.db, self.git)

    async def run(self, activity: Any, request: Any) -> Any:
        return await ActivityEnvironment().run(activity, request)

    async def head(self) -> str:
        return await self.git.resolve(REPO, MAIN) or ""

    async def commit(self, ref: str, parent: str, *changes: FileChange) -> str:
        old = await self.git.resolve(REPO, ref)
        return await self.git.commit_files(
            REPO, ref=ref, expected_old=old, parent=parent, changes=changes, author=OUTSIDER, message="change\n"
        )

    async def outside(self, *changes: FileChange) -> str:
        """Somebody moves the integration branch past Conman."""
        return await self.commit(MAIN, await self.head(), *changes)

    async def member(self, *changes: FileChange, base: str | None = None) -> Member:
        base = base or await self.head()
        made = new_id()
        sha = await self.commit(f"refs/conman/work/{made}", base, *changes)
        return Member(changeset_id=made, head_sha=sha, base_sha=base, revision_number=1, title="change")

    async def release(self, app_id: str | None = None, at: str = DAY, **owned: Any) -> str:
        made = new_id()
        record = Release(app_id=app_id or self.app_id).model_copy(update=owned).model_dump(mode="json")
        await self.db["releases"].insert_one({"_id": made, "app_id": app_id or self.app_id, "created_at": at, "owned": record})
        return made

    async def tag(self, release: str, app_id: str | None = None) -> str:
        return await self.run(self.publishing.reserve_tag, TagRequest(app_id=app_id or self.app_id, release_id=release))

    async def composed(self, *members: Member) -> ComposeReply:
        start = AssembleStart(app_id=self.app_id, release_id=new_id(), job_id=new_id(), tag="r1", members=list(members))
        made: ComposeReply = await self.run(self.composing.compose_release, start)
        assert made.conflicted is None, made.conflicts
        return made

    async def facts(
        self, members: Sequence[Member], base: str, candidate: str, *, release: str = "none", tag: str = "r2026.03.01.1"
    ) -> PublishFacts:
        question = PublishQuestion(
            app_id=self.app_id, release_id=release, tag=tag, base_sha=base, candidate_sha=candidate, members=list(members)
        )
        return await self.run(self.publishing.publish_facts, question)

    async def proof(self, *members: Member) -> PublishFacts:
        made = await self.composed(*members)
        return await self.facts(members, made.base_sha, made.prefix_shas[-1])

    async def ready(self) -> tuple[MoveRefs, str]:
        """A publish that is about to move its refs, and its release."""
        release = await self.release()
        tag = await self.tag(release)
        made = await self.composed(await self.member(WriteFile("new.txt", b"new\n")))
        request = MoveRefs(app_id=self.app_id, old_sha=made.base_sha, new_sha=made.prefix_shas[-1], tag=tag, release_id=release)
        return request, release

    async def move(self, request: MoveRefs) -> MoveRefsReply:
        return await self.run(self.publishing.move_refs, request)

    async def set_main(self, sha: str) -> None:
        """Somebody sets the integration branch, past Conman."""
        await self.git.update_refs(REPO, [RefUpdate(MAIN, await self.head(), sha)])

    async def set_tag(self, tag: str, sha: str) -> None:
        await self.git.update_refs(REPO, [RefUpdate(f"refs/tags/{tag}", None, sha)])

    async def refs(self) -> dict[str, str]:
        """The integration branch, and the tags."""
        return {**await self.git.list_refs(REPO, MAIN), **await self.git.list_refs(REPO, "refs/tags/")}


@pytest.fixture
async def yard(shop: Shop) -> AsyncIterator[Yard]:
    async with shop.platform() as platform:
        await platform.db["apps"].insert_one({**shop.app, "environments": []})
        made = Yard(platform, shop.app["_id"])
        await made.outside(WriteFile("a.txt", LINES.encode()), WriteFile("b.txt", b"b\n"), WriteFile("dir/c.txt", b"c\n"))
        yield made


# -- Members that are no longer queued


@dataclass
class Told:
    """A Temporal client that notes who is signaled."""

    signals: list[str] = field(default_factory=list[str])

    def get_workflow_handle(self, workflow_id: str) -> Told:
        self.signals.append(workflow_id)
        return self

    async def signal(self, name: str) -> None:
        assert name == "look_again"


async def test_a_validated_release_is_told_when_one_of_its_members_is_no_longer_queued(yard: Yard) -> None:
    """`spec.md` 3: it returns to draft then, also where the word of it was lost."""
    one, other = await yard.member(WriteFile("x.txt", b"x\n")), await yard.member(WriteFile("y.txt", b"y\n"))
    base = await yard.head()
    release = await yard.release(state=ReleaseState.VALIDATED, members=[one, other], base_sha=base)
    states = {one.changeset_id: EntryState.QUEUED, other.changeset_id: EntryState.NEEDS_REVALIDATION}
    entries = [
        Entry(**member.model_dump(), queued_at=DAY, judged_sha=base, reserved_by=release, state=states[member.changeset_id])
        for member in (one, other)
    ]
    queue = Queue(app_id=yard.app_id, integration_sha=base, entries=entries).model_dump(mode="json")
    await yard.db["queues"].replace_one({"_id": yard.app_id}, {"app_id": yard.app_id, "owned": queue}, upsert=True)
    made = await yard.composed(one, other)
    facts = await yard.facts([one, other], base, made.prefix_shas[-1], release=release)
    assert facts.left == [{"changeset_id": other.changeset_id, "state": "needs_revalidation", "release_id": release}]
    told = Told()
    commands = Commands(cast("Client", told))
    assert await overtaken.find_overtaken(yard.db, commands) == 1
    await overtaken.tell_of_members(yard.db, commands, yard.app_id, [other.changeset_id])
    await overtaken.tell_of_members(yard.db, commands, yard.app_id, ["another"])
    assert told.signals == [f"release:{release}"] * 2
    await yard.db["queues"].update_one({"_id": yard.app_id}, {"$set": {"owned.entries.1.state": "queued"}})
    assert await overtaken.find_overtaken(yard.db, commands) == 0


# -- The tag's number


async def test_twenty_drafts_at_once_take_one_to_twenty_beside_tags_made_outside(yard: Yard) -> None:
    """`spec.md` 11: N from 1 per app and day; a number whose tag exists is skipped."""
    for number in (3, 7):
        await yard.set_tag(f"r2026.03.01.{number}", await yard.head())
    await yard.set_tag("r2026.03.01.x", await yard.head())
    releases = [await yard.release() for _ in range(20)]
    tags = await asyncio.gather(*(yard.tag(release) for release in releases))
    assert sorted(tags) == sorted(f"r2026.03.01.{number}" for number in range(1, 23) if number not in (3, 7))
    assert [await yard.tag(release) for release in releases] == list(tags)


async def test_a_number_that_is_free_again_is_not_used_again(yard: Yard) -> None:
    """`spec.md` 3: a dropped release's number stays used; so does one that was skipped."""
    await yard.set_tag("r2026.03.01.1", await yard.head())
    assert await yard.tag(await yard.release()) == "r2026.03.01.2"
    await yard.git.update_refs(REPO, [RefUpdate(f"{TAG}1", await yard.head(), None)])
    assert await yard.tag(await yard.release()) == "r2026.03.01.3"


async def test_the_day_is_that_of_the_creation_and_each_day_and_app_counts_for_itself(yard: Yard) -> None:
    """`spec.md` 11: UTC day of creation."""
    await yard.git.create_repository("another.git", "main")
    another = {"_id": "another", "name": "another", "repo_path": "another.git", "integration_branch": "main"}
    await yard.db["apps"].insert_one(another)
    times = ["2026-03-01T23:59:59.999Z", "2026-03-02T00:00:00.000Z", "2026-03-01T00:00:00.000Z"]
    assert [await yard.tag(await yard.release(at=at)) for at in times] == ["r2026.03.01.1", "r2026.03.02.1", "r2026.03.01.2"]
    assert await yard.tag(await yard.release("another"), "another") == "r2026.03.01.1"


async def test_a_number_skipped_days_later_is_followed_by_one_of_the_same_day(yard: Yard) -> None:
    release = await yard.release()
    tag = await yard.tag(release)
    member = await yard.member(WriteFile("new.txt", b"new\n"))
    made = await yard.composed(member)
    # Also where it points at the candidate: no publish has begun, so that it is somebody else's.
    await yard.set_tag(tag, made.prefix_shas[-1])
    facts = await yard.facts([member], made.base_sha, made.prefix_shas[-1], release=release, tag=tag)
    assert (tag, facts.tag, await yard.tag(release)) == ("r2026.03.01.1", "r2026.03.01.2", "r2026.03.01.2")


# -- The proofs


CHANGES: dict[str, tuple[FileChange, ...]] = {
    "new": (WriteFile("new.txt", b"new\n"),),
    "edited": (WriteFile("b.txt", b"other\n"),),
    "made executable": (WriteFile("b.txt", b"b\n", executable=True),),
    "deleted": (DeleteFile("b.txt"),),
    "moved": (MoveFile("a.txt", "elsewhere/a.txt"),),
    "moved and edited": (MoveFile("a.txt", "z.txt"), WriteFile("z.txt", (LINES + "more\n").encode())),
    "a file where a folder was": (DeleteFile("dir/c.txt"), WriteFile("dir", b"a file\n")),
    "a folder where a file was": (DeleteFile("b.txt"), WriteFile("b.txt/inside", b"a file\n")),
    "several": (WriteFile("new.txt", b"new\n"), DeleteFile("b.txt"), MoveFile("dir/c.txt", "dir/d.txt")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("behind", [False, True], ids=["on the head", "on an older head"])
async def test_every_kind_of_change_is_proved_to_be_its_changeset_s(yard: Yard, change: str, behind: bool) -> None:
    base = await yard.head()
    if behind:
        await yard.outside(WriteFile("outside.txt", b"outside\n"))
    member = await yard.member(*CHANGES[change], base=base)
    facts = await yard.proof(await yard.member(WriteFile("other.txt", b"other\n")), member)
    assert (facts.unexplained, facts.uprooted, facts.lost) == ([], [], [])


async def test_an_edit_of_a_file_that_was_moved_since_is_proved_where_the_file_went(yard: Yard) -> None:
    base = await yard.head()
    edit = await yard.member(WriteFile("a.txt", LINES.replace("line 3\n", "line three\n").encode()), base=base)
    await yard.outside(MoveFile("a.txt", "moved/a.txt"))
    again = await yard.member(MoveFile("moved/a.txt", "again/a.txt"))
    facts = await yard.proof(edit)
    assert (facts.unexplained, facts.lost) == ([], [])
    facts = await yard.proof(again, edit)
    assert (facts.unexplained, facts.lost) == ([], [])


async def test_a_head_that_holds_merges_of_the_integration_branch_brings_its_own_changes_only(yard: Yard) -> None:
    first = await yard.member(WriteFile("mine.txt", b"mine\n"))
    integration = await yard.outside(WriteFile("theirs.txt", b"theirs\n"))
    merged = await yard.git.merge(
        REPO,
        ref="refs/conman/work/merged",
        expected_old=None,
        ours=first.head_sha,
        theirs=integration,
        author=OUTSIDER,
        message="merge\n",
    )
    assert merged.sha is not None
    head = await yard.commit("refs/conman/work/merged", merged.sha, WriteFile("b.txt", b"mine\n"))
    await yard.outside(WriteFile("later.txt", b"later\n"))
    member = Member(changeset_id=new_id(), head_sha=head, base_sha=integration, revision_number=1)
    facts = await yard.proof(member, await yard.member(DeleteFile("dir/c.txt")))
    assert (facts.unexplained, facts.uprooted, facts.lost) == ([], [], [])


async def test_what_the_integration_branch_has_already_is_not_lost(yard: Yard) -> None:
    """Somebody pushed a changeset's commit: the candidate has no merge of its own for it."""
    member = await yard.member(WriteFile("new.txt", b"new\n"))
    await yard.set_main(member.head_sha)
    facts = await yard.proof(member)
    assert (facts.unexplained, facts.uprooted, facts.lost) == ([], [], [])


async def test_what_nobody_changed_is_found_and_what_is_missing_is_found(yard: Yard) -> None:
    one, two = await yard.member(WriteFile("one.txt", b"1\n")), await yard.member(WriteFile("two.txt", b"2\n"))
    made = await yard.composed(one)
    slipped = await yard.commit("refs/conman/work/slipped", made.prefix_shas[-1], WriteFile("b.txt", b"slipped\n"))
    facts = await yard.facts([one, two], made.base_sha, slipped)
    assert (facts.unexplained, facts.lost) == (["b.txt"], [two.changeset_id])


async def test_a_changeset_does_not_bring_back_what_the_integration_branch_was_set_back_from(yard: Yard) -> None:
    """The same path too: what the dropped commits did to it would come with the changeset's own line."""
    before = await yard.head()
    await yard.outside(WriteFile("a.txt", ("dropped\n" + LINES).encode()), WriteFile("dropped.txt", b"dropped\n"))
    member = await yard.member(WriteFile("a.txt", ("dropped\n" + LINES + "mine\n").encode()))
    await yard.set_main(before)
    sound = await yard.member(WriteFile("sound.txt", b"sound\n"))
    facts = await yard.proof(sound, member)
    assert facts.unexplained == ["a.txt", "dropped.txt"]
    assert (facts.uprooted, facts.lost) == ([member.changeset_id], [])


# -- The release before


async def test_a_release_supersedes_the_one_that_was_published_last_before_it(yard: Yard) -> None:
    """Also while that one's record does not say so yet; not one that the branch was set back from."""

    async def supersedes() -> str | None:
        member = await yard.member(WriteFile("new.txt", b"new\n"))
        return (await yard.proof(member)).supersedes

    await yard.release(candidate_sha=await yard.head())
    assert await supersedes() is None
    first = await yard.release(published_sha=await yard.head(), published_at="2026-03-01T10:00:00.000Z")
    assert await supersedes() == first
    kept = await yard.head()
    later = await yard.outside(WriteFile("later.txt", b"later\n"))
    intent = {"command_id": "p", "actor": {}, "old_sha": kept, "new_sha": later, "tag": "r1", "at": "2026-03-02T10:00:00.000Z"}
    second = await yard.release()
    await yard.db["releases"].update_one({"_id": second}, {"$set": {"owned.publishing": intent}})
    assert await supersedes() == second
    await yard.set_main(kept)
    assert await supersedes() == first


# -- The refs


async def test_branch_and_tag_move_together(yard: Yard) -> None:
    request, _ = await yard.ready()
    assert await yard.move(request) == MoveRefsReply(moved=True, integration_sha=request.new_sha, tag=request.tag)
    assert await yard.refs() == {MAIN: request.new_sha, f"{TAG}1": request.new_sha}


async def test_a_branch_that_was_moved_to_what_contains_the_candidate_stays_there_and_the_tag_is_made(yard: Yard) -> None:
    request, _ = await yard.ready()
    beyond = await yard.commit("refs/conman/work/beyond", request.new_sha, WriteFile("beyond.txt", b"beyond\n"))
    await yard.set_main(beyond)
    assert await yard.move(request) == MoveRefsReply(moved=True, integration_sha=beyond, tag=request.tag)
    assert await yard.refs() == {MAIN: beyond, f"{TAG}1": request.new_sha}


@pytest.mark.parametrize("where", ["forward", "back"])
async def test_a_branch_that_moved_elsewhere_first_stops_the_publish_and_nothing_moves(yard: Yard, where: str) -> None:
    before = await yard.head()
    await yard.outside(WriteFile("b.txt", b"b2\n"))
    request, _ = await yard.ready()
    elsewhere = before if where == "back" else await yard.commit("refs/conman/work/x", request.old_sha, DeleteFile("b.txt"))
    await yard.set_main(elsewhere)
    assert await yard.move(request) == MoveRefsReply(moved=False, integration_sha=elsewhere)
    assert await yard.refs() == {MAIN: elsewhere}


@pytest.mark.parametrize("where", ["to where it was", "elsewhere"])
async def test_after_the_refs_moved_there_is_only_forward_also_where_somebody_sets_the_branch(yard: Yard, where: str) -> None:
    """`durability.md` 19. The activity is run again because its worker died before it could say that they moved."""
    before = await yard.head()
    await yard.outside(WriteFile("b.txt", b"b2\n"))
    request, _ = await yard.ready()
    await yard.move(request)
    back = request.old_sha if where == "to where it was" else before
    await yard.set_main(back)
    reply = await yard.move(request)
    assert (reply.moved, reply.tag) == (True, request.tag)
    assert (await yard.refs())[f"{TAG}1"] == request.new_sha


async def test_a_tag_that_somebody_makes_while_the_refs_move_costs_its_number_only(yard: Yard) -> None:
    request, release = await yard.ready()
    await yard.set_tag(request.tag, request.old_sha)
    for _ in range(2):
        assert await yard.move(request) == MoveRefsReply(moved=True, integration_sha=request.new_sha, tag="r2026.03.01.2")
    assert await yard.refs() == {MAIN: request.new_sha, f"{TAG}1": request.old_sha, f"{TAG}2": request.new_sha}
    assert await yard.tag(release) == "r2026.03.01.2"


async def test_a_tag_that_somebody_deletes_before_the_publish_is_recorded_is_made_again(yard: Yard) -> None:
    request, _ = await yard.ready()
    await yard.move(request)
    await yard.git.update_refs(REPO, [RefUpdate(f"{TAG}1", request.new_sha, None)])
    await yard.outside(WriteFile("later.txt", b"later\n"))
    assert (await yard.move(request)).moved
    assert (await yard.refs())[f"{TAG}1"] == request.new_sha


# -- The profiles


async def pinned(desk: Desk, name: str = "QA") -> PinnedProfile:
    profile = await desk.platform.db["profiles"].find_one({"_id": desk.profiles[name]})
    assert profile is not None
    return PinnedProfile(environment=name, profile_id=profile["_id"], profile_revision_id=profile["revision_id"])


async def test_a_profile_that_was_edited_since_the_gate_used_it_is_named_as_it_is_now(desk: Desk) -> None:
    """`spec.md` 11: a profile revision that the gate used changed since."""
    used = [await pinned(desk, "QA"), await pinned(desk, "Live")]
    db, app_id = desk.platform.db, desk.app["_id"]
    assert await changed_since(db, app_id, used) == []
    await desk.edit("QA", env_vars={"MODE": text("new")})
    assert await changed_since(db, app_id, used) == [await pinned(desk, "QA")]


async def test_an_environment_that_has_another_profile_since_is_named_with_that(desk: Desk) -> None:
    used = await pinned(desk, "QA")
    environments: list[Document] = [{**one, "runtime_profile_id": desk.profiles["Live"]} for one in desk.app["environments"]]
    await desk.platform.db["apps"].update_one({"_id": desk.app["_id"]}, {"$set": {"environments": environments}})
    (changed,) = await changed_since(desk.platform.db, desk.app["_id"], [used])
    assert (changed.environment, changed.profile_id) == ("QA", desk.profiles["Live"])


async def test_overrides_that_a_deployment_brought_change_nothing_that_the_gate_ran_with(desk: Desk) -> None:
    """The gate ran with them already: they are of a release that was published before (`spec.md` 6)."""
    db, app_id = desk.platform.db, desk.app["_id"]
    changeset, release, at = await desk.changeset(), new_id(), now()
    kept = (await desk.put(changeset, {"env_vars": {"MODE": text("travels")}}))["overrides"]
    member = {"changeset_id": changeset, "head_sha": "h", "base_sha": "b", "revision_number": 1, "overrides": kept}
    owned = {"members": [member], "published_sha": "p", "published_at": at, "reverts_release_id": None}
    await db["releases"].insert_one({"_id": release, "app_id": app_id, "owned": owned})
    used = await pinned(desk)
    profile_id = desk.profiles["QA"]
    revision = await arrivals.prepare(db, profile_id, release_id=release, deployment_id="d", by=ANN["_id"], at=at)
    await arrivals.receive(db, revision, deployment_id="d", by=ANN["_id"], at=at)
    assert await pinned(desk) != used
    assert await changed_since(db, app_id, [used]) == []
    profile = await db["profiles"].find_one({"_id": profile_id})
    assert profile is not None
    edit = ProfileEdit.model_validate({"env_vars": {"MODE": text("edited")}})
    await profile_changes.edit(desk.platform, desk.call(), desk.app, profile_id, edit, profile["version"])
    assert await changed_since(db, app_id, [used]) == [await pinned(desk)]
