"""What is in a release, over a real repository and real records: the ends of its diff, and what its notes tell (`api.md` 3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from conman.domain.changeset import Changeset, Vote
from conman.domain.errors import DomainError, ErrorCode
from conman.domain.release import Member, Release, ReleaseState
from conman.git.adapter import Signature, WriteFile
from conman.services import release_notes as service
from conman.services.clock import new_id
from conman.services.diffs import Sides
from conman.services.kept import Kept
from conman.services.platform import Platform
from conman.services.release_diffs import compared, compared_with
from conman.services.release_notes import release_notes
from conman.store.database import Document
from tests.services.shop import OUTSIDER, REPO, Shop

PUBLISHED = ReleaseState.PUBLISHED
NAMES = {"ann": "Ann", "rob": "Rob <b>", "max": "Max"}


@dataclass
class Line:
    """An integration branch with releases on it, made by hand."""

    shop: Shop
    platform: Platform
    head: str
    made: int = 0
    """How many releases."""

    async def commit(self, parent: str, path: str, text: str) -> str:
        ref = f"refs/conman/made/{new_id()}"
        changes = [WriteFile(path, text.encode())]
        author = Signature(OUTSIDER.name, OUTSIDER.email, OUTSIDER.when)
        return await self.platform.git.commit_files(
            REPO, ref=ref, expected_old=None, parent=parent, changes=changes, author=author, message="x\n"
        )

    async def member(self, path: str, text: str, title: str = "change it", **more: Any) -> Member:
        """A changeset of Ann's on the present head, approved by Rob in its second revision."""
        changeset_id = new_id()
        votes = [
            Vote(id="1", reviewer_user_id="max", action="approve", revision_number=1, at="", void=True),
            Vote(id="2", reviewer_user_id="rob", action="approve", revision_number=2, at=""),
            Vote(id="3", reviewer_user_id="max", action="request_changes", revision_number=2, at=""),
        ]
        state = Changeset(app_id=self.shop.app["_id"], author_user_id="ann", workspace_id="w", votes=votes)
        row = {"_id": changeset_id, "app_id": self.shop.app["_id"], "owned": state.model_dump(mode="json")}
        await self.platform.db["changesets"].insert_one(row)
        sha = await self.commit(self.head, path, text)
        return Member(
            changeset_id=changeset_id,
            head_sha=sha,
            base_sha=self.head,
            revision_number=2,
            title=title,
            author_user_id="ann",
            **more,
        )

    async def release(self, *members: Member, state: ReleaseState = PUBLISHED, composed: bool = True, **more: Any) -> Document:
        """A release of changesets that each stand on what those before them made of the head."""
        self.made += 1
        at = f"2026-03-01T09:30:{self.made:02}.000Z"
        owned = Release(app_id=self.shop.app["_id"], tag=f"r{self.made}", created=True, state=state, members=list(members))
        if composed:
            prefixes = [member.head_sha for member in members]
            found = {"base_sha": self.head, "prefix_shas": prefixes, "candidate_sha": prefixes[-1] if prefixes else None}
            owned = owned.model_copy(update=found)
        if state is PUBLISHED:
            done = {"published_sha": owned.candidate_sha, "published_at": at, "published_by": "max"}
            owned = owned.model_copy(update=done)
            self.head = owned.candidate_sha or self.head
        owned = owned.model_copy(update=more)
        document = {"_id": new_id(), "app_id": self.shop.app["_id"], "created_at": at, "owned": owned.model_dump(mode="json")}
        await self.platform.db["releases"].insert_one(document)
        return document

    async def sides(self, release: Document) -> Sides:
        return await compared(self.platform, self.shop.app, release)

    async def notes(self, release: Document) -> dict[str, Any]:
        return await release_notes(self.platform, self.shop.app, release)


@pytest.fixture
async def line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    monkeypatch.setattr(service, "_kept", Kept(service.MOST_KEPT_CHANGES))
    async with shop.platform() as platform:
        for user_id, name in NAMES.items():
            await platform.db["users"].insert_one({"_id": user_id, "name": name, "email": f"{user_id}@example.com"})
        head = await platform.git.resolve(REPO, "refs/heads/main")
        assert head is not None
        yield Line(shop, platform, head)


# -- The diff


async def test_the_first_release_is_compared_with_what_it_was_assembled_on_and_each_later_one_with_the_one_before(
    line: Line,
) -> None:
    start = line.head
    first = await line.release(await line.member("a.json", '{"a": 1}\n'))
    assert await line.sides(first) == Sides(start, line.head)
    published = line.head
    line.head = await line.commit(line.head, "outside.json", "{}\n")
    second = await line.release(await line.member("b.json", '{"b": 1}\n'))
    assert await line.sides(second) == Sides(published, line.head)
    assert await line.sides(first) == Sides(start, published)


async def test_the_release_that_the_record_names_is_the_one_before(line: Line) -> None:
    first = await line.release(await line.member("a.json", '{"a": 1}\n'))
    await line.release(await line.member("b.json", '{"b": 1}\n'))
    third = await line.release(await line.member("c.json", '{"c": 1}\n'), supersedes=first["_id"])
    assert await line.sides(third) == Sides(first["owned"]["published_sha"], line.head)


async def test_of_an_open_release_the_candidate_is_compared_and_of_a_dropped_one_what_it_would_have_changed(line: Line) -> None:
    member = await line.member("a.json", '{"a": 1}\n')
    first = await line.release(await line.member("b.json", '{"b": 1}\n'))
    dropped = await line.release(member, state=ReleaseState.DROPPED, base_sha=member.base_sha)
    validated = await line.release(await line.member("c.json", '{"c": 1}\n'), state=ReleaseState.VALIDATED)
    assert await line.sides(validated) == Sides(first["owned"]["published_sha"], validated["owned"]["candidate_sha"])
    assert await line.sides(dropped) == Sides(member.base_sha, member.head_sha)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (ReleaseState.DRAFT_RELEASE, "assemble it, then ask again"),
        (ReleaseState.ASSEMBLING, "ask again when its job has ended"),
        (ReleaseState.DROPPED, "there is nothing to compare"),
    ],
)
async def test_what_has_no_candidate_says_what_to_do(line: Line, state: ReleaseState, told: str) -> None:
    made = await line.release(await line.member("a.json", "{}\n"), state=state, composed=False)
    with pytest.raises(DomainError, match=told) as refused:
        await line.sides(made)
    assert refused.value.code is ErrorCode.CONFLICT


async def test_any_two_releases_are_compared_by_id_or_tag(line: Line) -> None:
    first, second, third = [await line.release(await line.member(f"{name}.json", "{}\n")) for name in "abc"]
    ends = Sides(first["owned"]["published_sha"], third["owned"]["published_sha"])
    for against in (first["_id"], "r1"):
        assert await compared_with(line.platform, line.shop.app, third, against) == ends
    back = await compared_with(line.platform, line.shop.app, first, second["_id"])
    assert back == Sides(second["owned"]["published_sha"], first["owned"]["published_sha"])
    for unknown in ("r9", new_id(), ""):
        with pytest.raises(DomainError, match="no release") as refused:
            await compared_with(line.platform, line.shop.app, third, unknown)
        assert refused.value.code is ErrorCode.NOT_FOUND


# -- The notes


async def test_notes_tell_each_changeset_by_what_its_merge_brought(line: Line) -> None:
    await line.release(await line.member("entities/Pay.json", '{"retries": 3, "url": "x"}\n'))
    line.head = await line.commit(line.head, "outside.json", "{}\n")
    one = await line.member("entities/Pay.json", '{"retries": 5, "url": "x"}\n', "*Retry* <i>more</i>")
    line_head, line.head = line.head, one.head_sha
    two = await line.member("menus/main.yaml", "a: 1\n", "A menu")
    line.head = line_head
    release = await line.release(one, two)
    notes = await line.notes(release)
    assert notes["text"] == (
        "# Release r2\n\n"
        "Published at 2026-03-01 09:30 UTC by Max. 2 changesets. The release before it is r1.\n\n"
        "The integration branch also got commits that no release made: they are in the release's diff, not in these notes.\n\n"
        "## 1. \\*Retry\\* \\<i\\>more\\</i\\>\n\n"
        "By Ann, approved by Rob \\<b\\>.\n\n"
        "File `entities/Pay.json`:\n\n"
        "- `retries` of entity `Pay` changed from 3 to 5\n\n"
        "## 2. A menu\n\n"
        "By Ann, approved by Rob \\<b\\>.\n\n"
        "File `menus/main.yaml`:\n\n"
        "- menu `main` was added\n"
    )
    first, second = notes["changesets"]
    assert first == {
        "changeset_id": one.changeset_id,
        "title": "*Retry* <i>more</i>",
        "author_user_id": "ann",
        "approved_by": ["rob"],
        "changes": [{"file_path": "entities/Pay.json", "description": "`retries` of entity `Pay` changed from 3 to 5"}],
        "more_changes": 0,
        "overrides": [],
    }
    assert second["changeset_id"] == two.changeset_id
    assert await line.notes(release) == notes


async def test_notes_of_a_draft_tell_what_each_changeset_changed_where_it_was_made(line: Line) -> None:
    member = await line.member("menus/main.yaml", "a: 1\n")
    draft = await line.release(member, state=ReleaseState.DRAFT_RELEASE, composed=False)
    notes = await line.notes(draft)
    assert notes["text"].startswith("# Release r1\n\nNot published yet (draft release)")
    assert [one["description"] for one in notes["changesets"][0]["changes"]] == ["menu `main` was added"]


async def test_notes_of_a_release_without_changesets_tell_what_it_undoes(line: Line) -> None:
    start = line.head
    first = await line.release(await line.member("menus/main.yaml", "a: 1\n"))
    back = await line.platform.git.commit_tree_of(
        REPO, ref="refs/conman/back", expected_old=None, tree_of=start, parents=[line.head], author=OUTSIDER, message="x\n"
    )
    undoing = await line.release(candidate_sha=back, published_sha=back, reverts_release_id=first["_id"])
    notes = await line.notes(undoing)
    assert "0 changesets. It undoes r1." in notes["text"]
    assert notes["changes"] == [{"file_path": "menus/main.yaml", "description": "menu `main` was removed"}]


async def test_notes_name_the_keys_of_overrides_and_no_value(line: Line) -> None:
    profile, environment = new_id(), new_id()
    content = {"env_vars": {"MODE": {"type": "string", "value": "a hidden value"}}}
    content |= {"migrations": {"repo_paths": ["sql/"], "command_ref": "migrate", "applied_state_ref": None}}
    await line.platform.db["profiles"].insert_one({"_id": profile, "content": {"name": "Live profile"}})
    await line.platform.db["environments"].insert_one({"_id": environment, "name": "Live"})
    await line.platform.db["profile_overrides"].insert_one({"_id": "content", "content": content})
    keys = {"env_vars.MODE": "d1", "secrets.TOKEN": None, "migrations": "d2"}
    frozen = {"profile_id": profile, "content_id": "content", "keys": keys}
    given = [{**frozen, "target_environment_id": environment}, {**frozen, "target_profile_id": profile}]
    notes = await line.notes(await line.release(await line.member("a.json", "{}\n", overrides=given)))
    assert (
        "- The profile of Live: sets `env_vars.MODE`, `migrations`; removes `secrets.TOKEN`\n"
        "- Migrations there: `migrate` runs what is in `sql/`\n"
    ) in notes["text"]
    assert [one["target"] for one in notes["changesets"][0]["overrides"]] == ["Live", "Live profile"]
    assert "hidden" not in str(notes)


async def test_of_too_many_changesets_the_last_ones_are_listed_by_title(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_COMPARED", 1)
    members = [await line.member(f"{name}.json", "{}\n") for name in "ab"]
    draft = await line.release(*members, state=ReleaseState.DRAFT_RELEASE, composed=False)
    notes = await line.notes(draft)
    assert [one["more_changes"] for one in notes["changesets"]] == [0, None]


async def test_what_was_compared_once_is_not_compared_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    release = await line.release(await line.member("a.json", "{}\n"))
    first = await line.notes(release)
    monkeypatch.setattr(service, "semantic_diff", None)
    assert await line.notes(release) == first
