"""Random releases of several changesets, under an integration branch that moves (`spec.md` 11).

The activities of assembly and publish themselves, over real repositories and the embedded MongoDB; in place of the workflows
between them stands what they do with the answers. The 1,000 releases of `make thorough` take about a minute.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pygit2
import pytest
from pygit2.enums import Option
from temporalio.testing import ActivityEnvironment

from conman.activities.composing import ComposeActivities
from conman.activities.publishing import PublishActivities
from conman.domain.errors import ErrorCode
from conman.domain.messages import AssembleStart, ComposeReply, MoveRefs, MoveRefsReply, PublishFacts, PublishQuestion, TagRequest
from conman.domain.publishing import Refusal, refusal
from conman.domain.release import Member, Release, ReleaseState
from conman.git.adapter import RefUpdate, Signature, WriteFile
from conman.git.local import LocalGit
from conman.services.clock import new_id
from conman.store.database import Database
from tests.services.release_model import Editor, NoMerge, State, all_values, changes_between, merged, values_in
from tests.support.sizes import size

REPOSITORIES = size(3, 20)
RELEASES = 50
"""In each repository, one after the other."""
REPO = "team/app.git"
MAIN = "refs/heads/main"
SOMEBODY = Signature("somebody", "somebody@example.com", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@dataclass(frozen=True)
class Proposal:
    """A changeset: what it was made on, and what its author made of that."""

    member: Member
    base: State
    head: State


@dataclass
class Told:
    """What happened in the history of one repository."""

    published: int = 0
    changesets: int = 0
    conflicts: int = 0
    refused: int = 0
    unmoved: int = 0
    skipped: int = 0
    moved_files: int = 0


@dataclass
class History:
    """One app, whose integration branch is at `state`; `heads` are the states that it had, newest last."""

    db: Database
    git: LocalGit
    store: pygit2.Repository
    rng: random.Random
    editor: Editor
    activities: dict[str, Callable[..., Awaitable[Any]]]
    app_id: str
    heads: list[tuple[str, State]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    last: str | None = None
    """The release that was published last."""
    told: Told = field(default_factory=Told)

    @property
    def head(self) -> str:
        return self.heads[-1][0]

    @property
    def state(self) -> State:
        return self.heads[-1][1]

    async def call(self, name: str, argument: Any) -> Any:
        return await ActivityEnvironment().run(self.activities[name], argument)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def refs(self) -> dict[str, str]:
        return {name: str(self.store.references[name].target) for name in self.store.references if "/conman/" not in name}

    async def commit(self, ref: str, parent: str | None, before: State, after: State) -> str:
        old = await self.git.resolve(REPO, ref)
        changes = changes_between(before, after)
        return await self.git.commit_files(
            REPO, ref=ref, expected_old=old, parent=parent, changes=changes, author=SOMEBODY, message="change settings\n"
        )

    async def push_from_outside(self) -> None:
        after = self.editor.edited(self.state)
        self.heads.append((await self.commit(MAIN, self.head, self.state, after), after))

    async def tag_from_outside(self, tag: str) -> None:
        await self.git.update_refs(REPO, [RefUpdate(f"refs/tags/{tag}", None, self.heads[0][0])])
        self.tags[tag] = self.heads[0][0]
        self.told.skipped += 1

    async def propose(self) -> Proposal:
        """A changeset of one or two commits, made on the present head or on one of the two before it."""
        base_sha, base = self.heads[-1] if self.chance(0.7) else self.rng.choice(self.heads[-3:])
        changeset_id, sha, state = new_id(), base_sha, base
        for _ in range(1 + self.chance(0.25)):
            before, state = state, self.editor.edited(state)
            sha = await self.commit(f"refs/conman/proposals/{changeset_id}", sha, before, state)
        self.told.moved_files += sum(state[one].path != base[one].path for one in state.keys() & base.keys())
        member = Member(changeset_id=changeset_id, head_sha=sha, base_sha=base_sha, revision_number=1, title="change settings")
        return Proposal(member, base, state)

    def read(self, sha: str) -> dict[str, str]:
        """Path → text of each file of a commit, past every adapter."""

        def walk(tree: pygit2.Tree, folder: str) -> dict[str, str]:
            found: dict[str, str] = {}
            for entry in tree:
                path = f"{folder}{entry.name}"
                if isinstance(entry, pygit2.Tree):
                    found |= walk(entry, f"{path}/")
                elif isinstance(entry, pygit2.Blob):
                    found[path] = entry.data.decode()
            return found

        return walk(self.store[sha].peel(pygit2.Tree), "")

    # -- One release

    async def release(self, number: int) -> None:
        """From a selection to a publish; whatever is refused on the way is assembled again."""
        selection = [await self.propose() for _ in range(self.rng.randint(1, 5))]
        if self.chance(0.3):
            await self.push_from_outside()
        release = Release(app_id=self.app_id, state=ReleaseState.VALIDATED, created=True)
        release_id, at = new_id(), f"2026-10-{1 + number // 10:02}T10:{number:02}:00.000Z"
        record = {"_id": release_id, "app_id": self.app_id, "created_at": at, "owned": release.model_dump(mode="json")}
        await self.db["releases"].insert_one(record)
        release.tag = await self.call("reserve_tag", TagRequest(app_id=self.app_id, release_id=release_id))
        while True:
            composed, selection = await self.assemble(release_id, release.tag or "", selection)
            release.members = [each.member for each in selection]
            release.base_sha, release.prefix_shas = composed.base_sha, composed.prefix_shas
            release.candidate_sha = composed.prefix_shas[-1]
            tested = str(self.store[release.candidate_sha].peel(pygit2.Tree).id)
            expected = self.all_merged(selection)
            if await self.publish(release_id, release):
                break
        self.check_published(release, composed, tested, selection, expected)
        frozen = {"owned.published_sha": release.candidate_sha, "owned.published_at": at}
        await self.db["releases"].update_one({"_id": release_id}, {"$set": frozen})
        self.last = release_id
        self.heads.append((release.candidate_sha, expected))
        self.told.published += 1
        self.told.changesets += len(selection)

    async def assemble(self, release_id: str, tag: str, selection: list[Proposal]) -> tuple[ComposeReply, list[Proposal]]:
        """Compose until it merges: what conflicts leaves the selection. What must conflict by the model is never merged."""
        while True:
            members = [each.member for each in selection]
            start = AssembleStart(app_id=self.app_id, release_id=release_id, job_id=new_id(), tag=tag, members=members)
            composed: ComposeReply = await self.call("compose_release", start)
            assert composed.base_sha == self.head
            if composed.conflicted is None:
                assert len(composed.prefix_shas) == len(selection)
                return composed, selection
            culprit = selection[len(composed.prefix_shas)]
            assert composed.conflicted == culprit.member.changeset_id
            named = {conflict["path"] for conflict in composed.conflicts}
            here = self.all_merged(selection[: len(composed.prefix_shas)])
            assert named, "a conflict has a path"
            assert named <= {file.path for state in (here, culprit.base, culprit.head) for file in state.values()}
            self.told.conflicts += 1
            selection = [each for each in selection if each is not culprit] or [await self.propose()]

    def all_merged(self, selection: list[Proposal]) -> State:
        """What the model makes of the selection on the integration head. Fails where it has no merge, though Git made one."""
        state = self.state
        for each in selection:
            try:
                state = merged(each.base, state, each.head)
            except NoMerge:
                pytest.fail(f"{each.member.changeset_id} was merged, though it changed what another side changed otherwise")
        return state

    async def publish(self, release_id: str, release: Release) -> bool:
        """Publish as the workflow does; False when it is refused, and then nothing has moved."""
        assert release.base_sha is not None
        assert release.candidate_sha is not None
        if self.chance(0.05):
            await self.check_that_a_foreign_change_is_found(release_id, release)
        moved = self.chance(0.15)
        if moved:
            await self.push_from_outside()
        if self.chance(0.05):
            await self.tag_from_outside(release.tag or "")
        before = self.refs()
        facts, refused = await self.judged(release_id, release, release.candidate_sha)
        release.tag = facts.tag
        assert (refused is not None) == moved
        if refused is not None:
            assert refused.error.code is ErrorCode.CONFLICT
            assert self.refs() == before
            self.told.refused += 1
            return False
        assert facts.supersedes == self.last
        late = self.chance(0.1)
        if late:
            await self.push_from_outside()
        elif self.chance(0.05):
            await self.tag_from_outside(facts.tag)
        before = self.refs()
        request = MoveRefs(
            app_id=self.app_id, release_id=release_id, old_sha=release.base_sha, new_sha=release.candidate_sha, tag=facts.tag
        )
        reply: MoveRefsReply = await self.call("move_refs", request)
        assert reply.moved == (not late)
        if self.chance(0.2):  # repeated, since the worker was lost before it could answer
            again: MoveRefsReply = await self.call("move_refs", request)
            assert (again.moved, again.tag) == (reply.moved, reply.tag)
        if late:
            assert self.refs() == before
            self.told.unmoved += 1
            return False
        release.tag = reply.tag
        assert self.refs() == {**before, MAIN: release.candidate_sha, f"refs/tags/{release.tag}": release.candidate_sha}
        return True

    async def judged(self, release_id: str, release: Release, candidate: str) -> tuple[PublishFacts, Refusal | None]:
        question = PublishQuestion(
            app_id=self.app_id,
            release_id=release_id,
            tag=release.tag or "",
            base_sha=release.base_sha or "",
            candidate_sha=candidate,
            members=release.members,
        )
        facts: PublishFacts = await self.call("publish_facts", question)
        return facts, refusal(release, facts)

    async def check_that_a_foreign_change_is_found(self, release_id: str, release: Release) -> None:
        """Something is slipped into the candidate that no changeset has: the proof fails, and names it."""
        slipped = await self.git.commit_files(
            REPO,
            ref=f"refs/conman/slipped/{release_id}",
            expected_old=await self.git.resolve(REPO, f"refs/conman/slipped/{release_id}"),
            parent=release.candidate_sha,
            changes=[WriteFile("slipped/in.json", b"{}\n")],
            author=SOMEBODY,
            message="slip\n",
        )
        facts, refused = await self.judged(release_id, release, slipped)
        assert facts.unexplained == ["slipped/in.json"]
        assert refused is not None

    def check_published(
        self, release: Release, composed: ComposeReply, tested: str, selection: list[Proposal], expected: State
    ) -> None:
        """The tree that was tested is the one that is published, and it has every change of the selection, and no other."""
        assert release.candidate_sha is not None
        assert str(self.store.references[MAIN].peel(pygit2.Tree).id) == tested
        tag = self.store.references[f"refs/tags/{release.tag}"]
        assert (str(tag.target), tag.peel().type_str) == (release.candidate_sha, "commit")
        self.tags[release.tag or ""] = release.candidate_sha

        files = self.read(release.candidate_sha)
        found: dict[str, Any] = {}
        for path, text in files.items():
            values = values_in(path, text)
            assert not found.keys() & values.keys(), f"{path} has keys that another file has too"
            found |= values
        wanted = all_values(self.state)
        for each in selection:  # said again without the model's merge: what a member set or removed, later ones win
            before, after = all_values(each.base), all_values(each.head)
            wanted |= {key: value for key, value in after.items() if key not in before or before[key] != value}
            wanted = {key: value for key, value in wanted.items() if key in after or key not in before}
        assert found == wanted
        assert set(files) == {file.path for file in expected.values()}
        assert all(values_in(file.path, files[file.path]) == file.values for file in expected.values())

        line = [self.store[sha].peel(pygit2.Commit) for sha in composed.prefix_shas]
        parents = [[str(parent) for parent in commit.parent_ids] for commit in line]
        firsts = [composed.base_sha, *composed.prefix_shas[:-1]]
        assert parents == [[first, each.member.head_sha] for first, each in zip(firsts, selection, strict=True)]


@pytest.fixture
async def history(db: Database, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[History]:
    """An app with six files; `request.param` is the seed of all that happens to it."""
    pygit2.option(Option.ENABLE_FSYNC_GITDIR, False)  # nobody takes the power away
    rng = random.Random(f"releases {request.param}")
    git = LocalGit(tmp_path, 2)
    await git.create_repository(REPO, "main")
    app_id = new_id()
    await db["apps"].insert_one({"_id": app_id, "repo_path": REPO, "integration_branch": "main", "environments": []})
    activities = {each.__name__: each for made in (ComposeActivities(db, git), PublishActivities(db, git)) for each in made.all()}
    made = History(db, git, pygit2.Repository(str(tmp_path / REPO)), rng, Editor(rng), activities, app_id)
    first = made.editor.first_state()
    made.heads.append((await made.commit(MAIN, None, {}, first), first))
    yield made
    git.close()


@pytest.mark.parametrize("history", range(REPOSITORIES), indirect=True, ids="seed {}".format)
async def test_what_is_published_is_what_was_tested_and_no_key_of_any_changeset_is_lost(history: History) -> None:
    for number in range(RELEASES):
        await history.release(number)
    tags = {name.removeprefix("refs/tags/"): sha for name, sha in history.refs().items() if name.startswith("refs/tags/")}
    assert tags == history.tags, "a tag of an earlier release is where it was"
    told = history.told
    happened = (told.changesets - RELEASES, told.conflicts, told.refused, told.skipped, told.moved_files)
    assert min(happened) > 0, f"a dull history: {told}"
