"""Diffs of two commits over a real repository: pages, patches that are cut, and what is kept in memory (`spec.md` 8)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pygit2
import pygit2.enums
import pytest

from conman.domain.changeset import Changeset, Revision
from conman.domain.errors import DomainError
from conman.git.adapter import DeleteFile, FileChange, MoveFile, Signature, WriteFile
from conman.git.local import LocalGit
from conman.services import diffs, semantic_diffs
from conman.services.diffs import Sides, cut, raw_diff, revision_sides
from conman.services.kept import Kept
from conman.services.semantic_diffs import semantic_page

ANN = Signature("Ann", "ann@example.com", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
REPO = "team/app.git"


@dataclass
class Repository:
    git: LocalGit

    async def commit(self, parent: str | None, *changes: FileChange) -> str:
        ref = f"refs/heads/on-{parent}"
        old = await self.git.resolve(REPO, ref)
        return await self.git.commit_files(
            REPO, ref=ref, expected_old=old, parent=parent, changes=changes, author=ANN, message="x\n"
        )

    async def sides(self, base: dict[str, str | bytes], *changes: FileChange) -> Sides:
        files = [WriteFile(path, text.encode() if isinstance(text, str) else text) for path, text in base.items()]
        first = await self.commit(None, *files)
        return Sides(first, await self.commit(first, *changes))

    async def raw(self, sides: Sides, page: int = 1, limit: int = 100) -> dict[str, Any]:
        return await raw_diff(self.git, REPO, sides, page, limit)

    async def semantic(self, sides: Sides, page: int = 1, limit: int = 100) -> dict[str, Any]:
        return await semantic_page(self.git, REPO, sides, page, limit)


@pytest.fixture
async def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Repository]:
    monkeypatch.setattr(diffs, "_counted", Kept(diffs.MOST_COUNTED_FILES))
    monkeypatch.setattr(semantic_diffs, "_answers", Kept(semantic_diffs.MOST_KEPT_BYTES))
    git = LocalGit(tmp_path, 2)
    await git.create_repository(REPO, "main")
    yield Repository(git)
    git.close()


def texts(count: int, text: str) -> dict[str, str | bytes]:
    return {f"pages/{index:03}.txt": text for index in range(count)}


# -- Raw


async def test_each_page_has_its_own_files_and_the_numbers_of_all(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffs, "FILES_AT_A_TIME", 2)
    edits = [WriteFile(path, b"a\nc\nd\n") for path in texts(5, "")]
    sides = await repository.sides(texts(7, "a\nb\n"), *edits, DeleteFile("pages/006.txt"))
    pages = [await repository.raw(sides, page, 4) for page in (1, 2, 3)]
    assert [[row["path"][6:9] for row in page["data"]["files"]] for page in pages] == [
        ["000", "001", "002", "003"],
        ["004", "006"],
        [],
    ]
    for number, page in enumerate(pages, 1):
        assert page["data"]["stats"] == {"files": 6, "additions": 10, "deletions": 7}
        assert page["pagination"] == {"page": number, "limit": 4, "total": 6}
        assert all(row["patch"].count("\n@@ ") == 1 for row in page["data"]["files"])


async def test_later_pages_look_at_their_own_files_only(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = await repository.sides(texts(6, "a\n"), *(WriteFile(path, b"b\n") for path in texts(6, "")))
    first = await repository.raw(sides, 1, 2)
    asked: list[Any] = []
    diff = repository.git.diff

    async def noted(*args: Any, **kwargs: Any) -> Any:
        asked.append(list(kwargs["paths"]))
        return await diff(*args, **kwargs)

    monkeypatch.setattr(repository.git, "diff", noted)
    second = await repository.raw(sides, 2, 2)
    assert asked == [["pages/002.txt", "pages/003.txt"]]
    assert second["data"]["stats"] == first["data"]["stats"]


async def test_renames_binary_files_and_modes_are_told(repository: Repository) -> None:
    sides = await repository.sides(
        {"a.txt": "one\ntwo\nthree\nfour\n", "b.bin": b"\0a", "c.sh": "x\n"},
        MoveFile("a.txt", "d/e.txt", b"one\ntwo\nthree\n4\n"),
        WriteFile("b.bin", b"\0b"),
        WriteFile("c.sh", b"x\n", executable=True),
    )
    rows = {row["path"]: row for row in (await repository.raw(sides))["data"]["files"]}
    assert (rows["d/e.txt"]["old_path"], rows["d/e.txt"]["status"], rows["d/e.txt"]["additions"]) == ("a.txt", "renamed", 1)
    assert (rows["b.bin"]["binary"], rows["b.bin"]["patch"], rows["b.bin"]["truncated"]) == (True, "", False)
    assert "new mode 100755" in rows["c.sh"]["patch"]


async def test_a_file_whose_name_is_not_utf8_is_shown(repository: Repository, tmp_path: Path) -> None:
    sides = await repository.sides({"a.txt": "x\n"}, WriteFile("a.txt", b"y\n"))
    store = pygit2.Repository(str(tmp_path / REPO))
    entries = store[sides.head].peel(pygit2.Tree).read_raw()
    odd_name = b"100644 caf\xe9.txt\0" + bytes.fromhex(str(store.create_blob(b"1\n2\n")))
    tree = store.write(pygit2.enums.ObjectType.TREE, entries + odd_name)
    who = pygit2.Signature("Ann", "ann@example.com", 1, 0)
    odd = store.create_commit(None, who, who, "odd", tree, [pygit2.Oid(hex=sides.head)])
    shown = (await repository.raw(Sides(sides.base, str(odd))))["data"]
    assert [(row["path"], row["additions"]) for row in shown["files"]] == [("a.txt", 1), ("caf\ufffd.txt", 2)]
    assert shown["stats"] == {"files": 2, "additions": 3, "deletions": 1}


async def test_a_huge_patch_is_cut_at_a_line_and_its_numbers_are_not(repository: Repository) -> None:
    lines = diffs.MOST_PATCH_BYTES // 10 + 1_000
    sides = await repository.sides({"a.txt": "x\n"}, WriteFile("a.txt", b"123456789\n" * lines), WriteFile("b.txt", b"b\n"))
    cut_one, whole = (await repository.raw(sides))["data"]["files"]
    assert (cut_one["truncated"], cut_one["additions"], cut_one["deletions"]) == (True, lines, 1)
    assert diffs.MOST_PATCH_BYTES - 20 < len(cut_one["patch"]) <= diffs.MOST_PATCH_BYTES
    assert cut_one["patch"].endswith("+123456789\n")
    assert whole["truncated"] is False


async def test_one_page_has_no_more_than_a_page_may_have(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffs, "MOST_PAGE_BYTES", 250)
    sides = await repository.sides(texts(3, "a\n"), *(WriteFile(path, b"b\n") for path in texts(3, "")))
    assert [row["truncated"] for row in (await repository.raw(sides))["data"]["files"]] == [False, True, True]


@pytest.mark.parametrize(("most", "left"), [(0, ""), (4, "ab\n"), (5, "ab\n"), (6, "ab\né\n"), (99, "ab\né\n")])
def test_a_patch_is_cut_between_lines(most: int, left: str) -> None:
    assert cut("ab\né\n", most) == left


# -- Semantic


async def test_changes_come_in_pages_with_the_summary_of_all(repository: Repository) -> None:
    base = {f"entities/{name}.json": json.dumps({"a": 1, "b": 2}) for name in "xyz"}
    edits = [WriteFile(path, json.dumps({"a": 2, "b": 3}).encode()) for path in base]
    sides = await repository.sides({**base, "scripts/s.sh": "a"}, *edits, WriteFile("scripts/s.sh", b"b"))
    pages = [await repository.semantic(sides, page, 3) for page in (1, 2, 3, 4)]
    assert [len(page["data"]["changes"]) for page in pages] == [3, 3, 1, 0]
    for page in pages:
        assert set(page) == {"data", "pagination"}
        assert set(page["data"]) == {"baseSha", "headSha", "summary", "changes"}
        assert page["data"]["summary"]["totalChanges"] == page["pagination"]["total"] == 7
        assert page["data"]["summary"]["byConfigType"]["entity"] == 6
    ids = [each["id"] for page in pages for each in page["data"]["changes"]]
    assert len(set(ids)) == 7


async def test_the_same_two_blobs_are_read_once(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = await repository.sides({"pages/a.json": "1", "pages/b.json": "1"}, WriteFile("pages/a.json", b"2"))
    first = await repository.semantic(sides)
    read: list[str] = []
    read_blob = repository.git.read_blob

    async def noted(repo: str, blob_id: str) -> bytes:
        read.append(blob_id)
        return await read_blob(repo, blob_id)

    monkeypatch.setattr(repository.git, "read_blob", noted)
    assert await repository.semantic(sides) == first
    assert read == []
    later = Sides(sides.base, await repository.commit(sides.head, WriteFile("pages/b.json", b"3")))
    assert [each["filePath"] for each in (await repository.semantic(later))["data"]["changes"]] == [
        "pages/a.json",
        "pages/b.json",
    ]
    assert len(read) == 2


async def test_what_is_behind_the_most_that_is_compared_is_told_as_changed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a", "b", "c")
    sides = await repository.sides(
        {f"pages/{name}.json": '{"a": 1}' for name in names}, *(WriteFile(f"pages/{name}.json", b'{"a": 2}') for name in names)
    )
    whole = await repository.semantic(sides)
    assert [each["details"]["pointer"] for each in whole["data"]["changes"]] == ["/a"] * 3
    monkeypatch.setattr(semantic_diffs, "MOST_COMPARED_BYTES", 20)
    told = await repository.semantic(sides)
    assert [each["details"].get("wholeFile", False) for each in told["data"]["changes"]] == [False, True, True]
    assert "this file stands behind them" in told["data"]["changes"][1]["description"]
    monkeypatch.setattr(semantic_diffs, "_answers", Kept(semantic_diffs.MOST_KEPT_BYTES))
    assert await repository.semantic(sides) == told
    monkeypatch.setattr(semantic_diffs, "MOST_COMPARED_BYTES", 1_000)
    assert await repository.semantic(sides) == whole


async def test_links_and_renamed_files_are_compared_as_what_they_are(repository: Repository) -> None:
    sides = await repository.sides(
        {"pages/a.json": json.dumps({"a": list(range(30))}, indent=1), "pages/z.txt": "one\n"},
        MoveFile("pages/a.json", "pages/b.json", json.dumps({"a": [*range(29), 99]}, indent=1).encode()),
        MoveFile("pages/z.txt", "pages/y.txt"),
    )
    told = [each["description"] for each in (await repository.semantic(sides))["data"]["changes"]]
    assert told == [
        "page `b` moved from `pages/a.json` to `pages/b.json`",
        "`a[29]` of page `b` changed from 29 to 99",
        "page `y.txt` moved from `pages/z.txt` to `pages/y.txt`",
    ]


# -- Which commits


def revised(count: int) -> Changeset:
    revisions = [
        Revision.model_construct(revision_number=number, head_sha=f"head{number}", base_sha=f"base{number}")
        for number in range(1, count + 1)
    ]
    return Changeset.model_construct(revisions=revisions)


@pytest.mark.parametrize(
    ("revision", "against", "sides"),
    [
        (None, None, Sides("base3", "head3")),
        (1, None, Sides("base1", "head1")),
        (3, 1, Sides("head1", "head3")),
        (1, 3, Sides("head3", "head1")),
        (None, 2, Sides("head2", "head3")),
        (2, 2, Sides("head2", "head2")),
    ],
)
def test_a_revision_is_compared_with_its_base_or_another_revision(
    revision: int | None, against: int | None, sides: Sides
) -> None:
    assert revision_sides(revised(3), revision, against) == sides


@pytest.mark.parametrize(("count", "revision", "against"), [(3, 4, None), (3, None, 4), (3, 1, 4), (0, 1, None), (0, None, 1)])
def test_an_unknown_revision_is_not_found(count: int, revision: int | None, against: int | None) -> None:
    with pytest.raises(DomainError, match="has no revision"):
        revision_sides(revised(count), revision, against)


def test_before_the_first_submit_there_are_no_revisions_to_compare() -> None:
    assert revision_sides(revised(0), None, None) is None


# -- What is kept


def test_what_was_asked_for_last_is_kept_within_its_weight() -> None:
    kept = Kept[str, int](10)
    kept.put("a", 1, 4)
    kept.put("b", 2, 4)
    assert kept.get("a") == 1
    kept.put("c", 3, 4)
    assert [kept.get(name) for name in "abc"] == [1, None, 3]
    kept.put("a", 4, 11)
    assert [kept.get(name) for name in "ac"] == [None, 3]
    kept.put("c", 5, 10)
    assert kept.get("c") == 5
