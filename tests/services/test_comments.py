"""Comments over real records and real repositories: followed lines, repeats, races and crashes (`spec.md` 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conman.domain.changeset import Changeset, Revision
from conman.domain.comment import Anchor
from conman.domain.decision import REMEMBERED_COMMANDS
from conman.domain.errors import DomainError, ErrorCode
from conman.git.adapter import DeleteFile, FileChange, MoveFile, WriteFile
from conman.services import anchors, comments
from conman.services.call import Call, command_id, remember
from conman.services.clock import new_id, now
from conman.services.comments import NewComment
from conman.services.platform import Platform
from conman.store.database import Document
from conman.store.outgoing import sweep
from tests.services.people import refused
from tests.services.shop import ANN, OUTSIDER, REPO, Shop
from tests.support.crashes import crash_at

TEXT = "".join(f"line {number}\n" for number in range(1, 11))


async def revised(shop: Shop, platform: Platform, changeset: Document | None, *changes: FileChange) -> Document:
    """A changeset (a new one: None) with one more revision, whose head is the last one's with these changes."""
    state = Changeset.model_validate(changeset["owned"]) if changeset else None
    main = await shop.tip(platform, "refs/heads/main")
    parent = state.head_sha if state else main
    head = await platform.git.commit_files(
        REPO,
        ref=f"refs/conman/revisions/{new_id()}",
        expected_old=None,
        parent=parent,
        changes=changes,
        author=OUTSIDER,
        message="m\n",
    )
    number = state.current_revision + 1 if state else 1
    revision = Revision(
        revision_number=number, head_sha=head, base_sha=main, integration_sha=main, job_id=new_id(), created_at=now()
    )
    before = state or Changeset(app_id=shop.app["_id"], author_user_id=ANN["_id"], workspace_id="w")
    after = before.model_copy(update={"revisions": [*before.revisions, revision], "head_sha": head, "base_sha": main})
    fields: Document = {"owned": after.model_dump(mode="json"), "app_id": shop.app["_id"]}
    changeset_id = changeset["_id"] if changeset else new_id()
    await platform.db["changesets"].update_one({"_id": changeset_id}, {"$set": fields}, upsert=True)
    return {"_id": changeset_id, **fields}


async def draft(shop: Shop, platform: Platform) -> Document:
    owned = Changeset(app_id=shop.app["_id"], author_user_id=ANN["_id"], workspace_id="w").model_dump(mode="json")
    document: Document = {"_id": new_id(), "app_id": shop.app["_id"], "owned": owned}
    await platform.db["changesets"].insert_one(document)
    return document


async def keyed(shop: Shop, platform: Platform, key: str) -> Call:
    """A request with a key, as the API remembers it."""
    call = shop.call(key)
    at = await remember(platform.db, call.command_id, "body", call.at)
    return replace(call, at=at, key_id=call.command_id, command_id=command_id(call.command_id, at))


async def put(shop: Shop, platform: Platform, changeset: Document, call: Call | None = None, **new: Any) -> dict[str, Any]:
    wanted = NewComment(**{"body": "one"} | new)
    return await comments.create(platform, call or shop.call(), shop.app, changeset, wanted)


async def edit(
    shop: Shop,
    platform: Platform,
    changeset: Document,
    comment_id: str,
    body: str | None = None,
    *,
    resolved: bool | None = None,
    version: int | None = None,
    call: Call | None = None,
) -> dict[str, Any]:
    return await comments.change(
        platform, call or shop.call(), shop.app, changeset, comment_id, body=body, resolved=resolved, version=version
    )


async def shown(shop: Shop, platform: Platform, changeset: Document) -> list[dict[str, Any]]:
    return (await comments.page(platform, shop.app, changeset, 1, 100))[0]


async def bodies(platform: Platform, changeset: Document, comment_id: str) -> list[str]:
    """What the body has been, the first one first."""
    return [row["body"] for row in (await comments.revisions(platform, changeset, comment_id, 1, 100)).items][::-1]


def place(comment: Mapping[str, Any]) -> tuple[Any, Any, bool]:
    return comment["file_path"], comment["line_number"], comment["outdated"]


# -- Following


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        ([WriteFile("b.txt", b"x\n")], [("a.txt", 5, False), ("a.txt", None, False)]),
        ([WriteFile("a.txt", b"new\nnew\n" + TEXT.encode())], [("a.txt", 7, False), ("a.txt", None, False)]),
        ([WriteFile("a.txt", TEXT.replace("line 2\n", "").encode())], [("a.txt", 4, False), ("a.txt", None, False)]),
        ([WriteFile("a.txt", TEXT.replace("line 5", "other").encode())], [("a.txt", 5, True), ("a.txt", None, False)]),
        ([WriteFile("a.txt", TEXT.replace("line 5\n", "").encode())], [("a.txt", 5, True), ("a.txt", None, False)]),
        ([WriteFile("a.txt", b"\0" + TEXT.encode())], [("a.txt", 5, True), ("a.txt", None, False)]),
        ([MoveFile("a.txt", "d/c.txt")], [("d/c.txt", 5, False), ("d/c.txt", None, False)]),
        ([MoveFile("a.txt", "c.txt", b"new\n" + TEXT.encode())], [("c.txt", 6, False), ("c.txt", None, False)]),
        ([DeleteFile("a.txt")], [("a.txt", 5, True), ("a.txt", None, True)]),
    ],
    ids=["another file", "lines above", "a line less above", "changed", "removed", "binary", "moved", "moved and edited", "gone"],
)
async def test_a_comment_follows_its_line_and_its_file_to_the_next_revision(
    shop: Shop, changes: list[FileChange], places: list[tuple[Any, Any, bool]]
) -> None:
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", TEXT.encode()))
        for line in (5, None):
            await put(shop, platform, changeset, file_path="a.txt", line_number=line)
        changeset = await revised(shop, platform, changeset, *changes)
        rows = await shown(shop, platform, changeset)
        assert [place(row) for row in rows] == places
        assert [row["original"] for row in rows] == [
            {"revision_number": 1, "file_path": "a.txt", "line_number": line} for line in (5, None)
        ]
        assert [row["revision_number"] for row in rows] == [1, 1]


async def test_a_line_that_comes_back_is_there_again(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", TEXT.encode()))
        await put(shop, platform, changeset, file_path="a.txt", line_number=5)
        changeset = await revised(shop, platform, changeset, WriteFile("a.txt", b"other\n"))
        assert place((await shown(shop, platform, changeset))[0]) == ("a.txt", 5, True)
        changeset = await revised(shop, platform, changeset, WriteFile("a.txt", b"new\n" + TEXT.encode()))
        assert place((await shown(shop, platform, changeset))[0]) == ("a.txt", 6, False)


async def test_comments_of_several_revisions_are_followed_each_from_its_own(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", TEXT.encode()))
        await put(shop, platform, changeset, file_path="a.txt", line_number=1)
        changeset = await revised(shop, platform, changeset, WriteFile("a.txt", b"0\n" + TEXT.encode()))
        await put(shop, platform, changeset, file_path="a.txt", line_number=1)
        changeset = await revised(shop, platform, changeset, WriteFile("a.txt", b"-1\n0\n" + TEXT.encode()))
        await put(shop, platform, changeset, file_path="a.txt", line_number=1)
        assert [row["line_number"] for row in await shown(shop, platform, changeset)] == [3, 2, 1]


async def test_a_new_revision_is_compared_once_and_only_when_it_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", TEXT.encode()))
        for line in (1, 5, 5, 9):
            await put(shop, platform, changeset, file_path="a.txt", line_number=line)
        changeset = await revised(shop, platform, changeset, WriteFile("a.txt", b"new\n" + TEXT.encode()))
        compared: list[Any] = []
        diff = platform.git.diff

        async def counted(*arguments: Any, **more: Any) -> Any:
            compared.append(more["paths"])
            return await diff(*arguments, **more)

        monkeypatch.setattr(platform.git, "diff", counted)
        first = await shown(shop, platform, changeset)
        assert await shown(shop, platform, changeset) == first
        assert [row["line_number"] for row in first] == [2, 6, 6, 10]
        assert compared == [["a.txt"]]


LINES = st.lists(st.sampled_from(["{", "}", "  x", "  y", "\u00e9\r", "@@ -1 +1 @@", "-- a", ""]), min_size=1, max_size=10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=LINES, after=LINES, ends=st.booleans(), moved=st.booleans())
async def test_a_followed_line_has_the_same_text_in_any_two_files(
    shop: Shop, before: list[str], after: list[str], ends: bool, moved: bool
) -> None:
    end = "\n" if ends else "."
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", ("\n".join(before) + end).encode()))
        wanted = [Anchor(1, "a.txt", line) for line in range(1, len(before) + 1)]
        new = ("\n".join(after) + "\n").encode()
        change = MoveFile("a.txt", "b.txt", new) if moved else WriteFile("a.txt", new)
        changeset = await revised(shop, platform, changeset, change)
        state = Changeset.model_validate(changeset["owned"])
        found = await anchors.places_in(platform, shop.app, state, 2, wanted)
        old_lines = ("\n".join(before) + end).split("\n")
        for anchor in wanted:
            assert anchor.line_number is not None
            stands = found[anchor]
            if not stands.outdated:
                assert stands.line_number is not None
                assert after[stands.line_number - 1] == old_lines[anchor.line_number - 1]
        if before == after and ends:
            followed = [place.line_number for place in found.values() if not place.outdated]
            assert followed == list(range(1, len(before) + 1))


# -- Where a comment may be put


async def test_a_comment_is_put_on_what_the_revision_changes_or_has(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await revised(
            shop, platform, None, WriteFile("a.txt", TEXT.encode()), WriteFile("b", b"\0"), DeleteFile("base.txt")
        )
        assert place(await put(shop, platform, changeset)) == (None, None, False)
        assert place(await put(shop, platform, changeset, file_path="a.txt", line_number=10)) == ("a.txt", 10, False)
        assert place(await put(shop, platform, changeset, file_path=".//a.txt")) == ("a.txt", None, False)
        assert place(await put(shop, platform, changeset, file_path="base.txt")) == ("base.txt", None, False)
        assert place(await put(shop, platform, changeset, file_path="b")) == ("b", None, False)


@pytest.mark.parametrize(
    ("new", "field"),
    [
        ({"body": " "}, "body"),
        ({"line_number": 1}, "line_number"),
        ({"file_path": "none.txt"}, "file_path"),
        ({"file_path": "d"}, "file_path"),
        ({"file_path": "../a.txt"}, "file_path"),
        ({"file_path": ""}, "file_path"),
        ({"file_path": "a.txt", "line_number": 11}, "line_number"),
        ({"file_path": "base.txt", "line_number": 1}, "line_number"),
        ({"file_path": "b", "line_number": 1}, "line_number"),
        ({"file_path": "empty", "line_number": 1}, "line_number"),
    ],
)
async def test_a_place_that_is_none_is_refused_by_its_field(shop: Shop, new: dict[str, Any], field: str) -> None:
    async with shop.platform() as platform:
        files = [WriteFile("a.txt", TEXT.encode()), WriteFile("b", b"\0"), WriteFile("d/e", b"x\n"), WriteFile("empty", b"")]
        changeset = await revised(shop, platform, None, *files, DeleteFile("base.txt"))
        with pytest.raises(DomainError) as refusal:
            await put(shop, platform, changeset, **new)
        assert refusal.value.code is ErrorCode.VALIDATION_ERROR
        assert [item["field"] for item in refusal.value.details] == [field]
        assert await shown(shop, platform, changeset) == []


async def test_before_the_first_submit_only_the_changeset_can_be_commented_on(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        made = await put(shop, platform, changeset)
        assert (made["revision_number"], *place(made)) == (None, None, None, False)
        assert await refused(put(shop, platform, changeset, file_path="base.txt")) is ErrorCode.VALIDATION_ERROR
        changeset = await revised(shop, platform, changeset | {"owned": changeset["owned"] | await _main_head(shop, platform)})
        assert place((await shown(shop, platform, changeset))[0]) == (None, None, False)


async def _main_head(shop: Shop, platform: Platform) -> dict[str, str]:
    return {"head_sha": await shop.tip(platform, "refs/heads/main")}


# -- Threads


async def test_a_reply_to_a_reply_hangs_on_the_thread_and_stands_where_it_does(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", TEXT.encode()))
        first = await put(shop, platform, changeset, file_path="a.txt", line_number=5)
        changeset = await revised(shop, platform, changeset, WriteFile("a.txt", b"new\n" + TEXT.encode()))
        second = await put(shop, platform, changeset, parent_comment_id=first["id"], file_path="a.txt", line_number=6)
        third = await put(shop, platform, changeset, parent_comment_id=second["id"])
        assert [row["parent_comment_id"] for row in (first, second, third)] == [None, first["id"], first["id"]]
        assert [row["revision_number"] for row in (first, second, third)] == [1, 2, 2]
        assert {place(row) for row in await shown(shop, platform, changeset)} == {("a.txt", 6, False)}


async def test_a_parent_of_another_changeset_is_as_one_that_nothing_is(shop: Shop) -> None:
    async with shop.platform() as platform:
        one, other = [await draft(shop, platform) for _ in range(2)]
        theirs = await put(shop, platform, other)
        for parent in (theirs["id"], new_id()):
            assert await refused(put(shop, platform, one, parent_comment_id=parent)) is ErrorCode.NOT_FOUND
        assert await refused(edit(shop, platform, one, theirs["id"], "x")) is ErrorCode.NOT_FOUND
        assert await refused(comments.revisions(platform, one, theirs["id"], 1, 20)) is ErrorCode.NOT_FOUND


async def test_a_thread_is_resolved_and_reopened_with_its_replies_on_every_page(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        first = await put(shop, platform, changeset)
        reply = await put(shop, platform, changeset, parent_comment_id=first["id"])
        assert await refused(edit(shop, platform, changeset, reply["id"], resolved=True)) is ErrorCode.VALIDATION_ERROR
        for resolved in (True, False, True):
            assert (await edit(shop, platform, changeset, first["id"], resolved=resolved))["resolved"] is resolved
            second_page, _ = await comments.page(platform, shop.app, changeset, 2, 1)
            assert [row["resolved"] for row in second_page] == [resolved]
        late = await put(shop, platform, changeset, parent_comment_id=first["id"])
        assert late["resolved"]
        assert len(await shop.audit(platform, "resolved")) == 3


# -- Edits, repeats and races


async def test_an_edit_keeps_every_former_body_and_what_stands_already_is_no_edit(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        made = await put(shop, platform, changeset, body="<b>one</b>")
        for body in ("two", "two", "<b>one</b>"):
            await edit(shop, platform, changeset, made["id"], body)
        [row] = await shown(shop, platform, changeset)
        assert (row["body"], row["edited"], row["version"]) == ("<b>one</b>", True, 3)
        assert await bodies(platform, changeset, made["id"]) == ["<b>one</b>", "two", "<b>one</b>"]
        assert [event["after"]["body"] for event in await shop.audit(platform, "edited")] == ["two", "<b>one</b>"]


async def test_of_edits_at_once_that_name_a_version_one_wins(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        made = await put(shop, platform, changeset)
        edits = (edit(shop, platform, changeset, made["id"], f"edit {number}", version=1) for number in range(6))
        found = await asyncio.gather(*edits, return_exceptions=True)
        lost = [one for one in found if isinstance(one, DomainError)]
        assert [one.code for one in lost] == [ErrorCode.STALE_WRITE] * 5
        assert [one.details for one in lost] == [{"version": 2}] * 5
        assert len(await bodies(platform, changeset, made["id"])) == 2


async def test_edits_at_once_that_name_none_are_all_made_and_all_kept(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        made = await put(shop, platform, changeset)

        async def by_a_process(number: int) -> None:
            await shop.apart(lambda other: edit(shop, other, changeset, made["id"], f"edit {number}"))

        await asyncio.gather(*(by_a_process(number) for number in range(6)))
        await edit(shop, platform, changeset, made["id"], resolved=True)
        kept = await bodies(platform, changeset, made["id"])
        assert sorted(kept) == sorted(["one", *(f"edit {number}" for number in range(6))])
        [row] = await shown(shop, platform, changeset)
        assert (row["body"], row["version"], row["resolved"]) == (kept[-1], 8, True)
        edited = await shop.audit(platform, "edited")
        assert {(event["before"]["body"], event["after"]["body"]) for event in edited} == set(pairwise(kept))


async def test_repeats_with_a_key_get_the_first_answer_whatever_came_since(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await revised(shop, platform, None, WriteFile("a.txt", TEXT.encode()))
        at = {"file_path": "a.txt", "line_number": 5}
        made = await put(shop, platform, changeset, await keyed(shop, platform, "make"), **at)
        edited = await edit(shop, platform, changeset, made["id"], "two", call=await keyed(shop, platform, "edit"))
        idle = await edit(shop, platform, changeset, made["id"], resolved=False, call=await keyed(shop, platform, "idle"))
        reply = {"parent_comment_id": made["id"]}
        replied = await put(shop, platform, changeset, await keyed(shop, platform, "reply"), **reply)
        await edit(shop, platform, changeset, made["id"], "three", resolved=True)
        changeset = await revised(shop, platform, changeset, DeleteFile("a.txt"))
        before = await shown(shop, platform, changeset)
        assert await put(shop, platform, changeset, await keyed(shop, platform, "make"), **at) == made
        assert await put(shop, platform, changeset, await keyed(shop, platform, "reply"), **reply) == replied
        for key, answer, change in (("edit", edited, {"body": "two"}), ("idle", idle, {"resolved": False})):
            call = await keyed(shop, platform, key)
            assert await edit(shop, platform, changeset, made["id"], **change, call=call) == answer
            assert await edit(shop, platform, changeset, made["id"], **change, call=call, version=1) == answer
        assert await shown(shop, platform, changeset) == before
        assert (made["version"], edited["version"], idle["version"]) == (1, 2, 2)


async def test_a_repeat_that_the_comment_remembers_no_more_changes_nothing(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        made = await put(shop, platform, changeset)
        await edit(shop, platform, changeset, made["id"], resolved=True, call=await keyed(shop, platform, "first"))
        for number in range(REMEMBERED_COMMANDS + 1):
            await edit(shop, platform, changeset, made["id"], resolved=number % 2 == 1)
        [before] = await shown(shop, platform, changeset)
        again = await edit(shop, platform, changeset, made["id"], resolved=True, call=await keyed(shop, platform, "first"))
        assert again == before
        assert [before] == await shown(shop, platform, changeset)


@pytest.mark.parametrize("point", ["deliver.audited", "deliver.put"])
async def test_a_process_that_dies_in_an_edit_leaves_it_whole_for_its_repeat_and_for_the_sweep(shop: Shop, point: str) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        with crash_at(point):
            await put(shop, platform, changeset, await keyed(shop, platform, "make"))
        made = await put(shop, platform, changeset, await keyed(shop, platform, "make"))
        with crash_at(point):
            await edit(shop, platform, changeset, made["id"], "two", call=await keyed(shop, platform, "edit"))
        assert await bodies(platform, changeset, made["id"]) == ["one", "two"]
        again = await edit(shop, platform, changeset, made["id"], "two", call=await keyed(shop, platform, "edit"))
        assert (again["body"], again["version"]) == ("two", 2)
        with crash_at(point):
            await edit(shop, platform, changeset, made["id"], "three")
        assert await sweep(platform.db) == 2
        assert await bodies(platform, changeset, made["id"]) == ["one", "two", "three"]
        assert [event["after"]["body"] for event in await shop.audit(platform, "edited")] == ["two", "three"]
        assert await sweep(platform.db) == 0


async def test_a_former_body_that_only_the_document_holds_is_shown_to_a_repeat(shop: Shop) -> None:
    async with shop.platform() as platform:
        changeset = await draft(shop, platform)
        made = await put(shop, platform, changeset)
        await edit(shop, platform, changeset, made["id"], "two", call=await keyed(shop, platform, "edit"))
        with crash_at("deliver.audited"):
            await edit(shop, platform, changeset, made["id"], "three")
        again = await edit(shop, platform, changeset, made["id"], "two", call=await keyed(shop, platform, "edit"))
        assert again["body"] == "two"
