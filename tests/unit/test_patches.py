"""What is a pure rebase (`spec.md` 3, `carry_votes`): the same patch, at the place where Git's merge puts it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from conman.git.adapter import ChangedPath, ChangeStatus, FileDiff, Signature, WriteFile
from conman.git.memory import MemoryGit
from conman.services.patches import is_rebase, patch_id, patch_id_of

REPO, MAIN, WORK = "shop.git", "refs/heads/main", "refs/heads/work"
ANN = Signature("Ann", "ann@example.com", datetime(2026, 3, 1, tzinfo=UTC))
BLOCK = "  one: 1\n  two: 2\n  three: 3\n  four: 4\n  five: 5\n  six: 6\n  seven: 7\n"
FILE = f"a:\n{BLOCK}b:\n{BLOCK}"
CHANGED = BLOCK.replace("four: 4", "four: 44")


class Repository:
    """A repository in memory, with files by name."""

    def __init__(self) -> None:
        self.git = MemoryGit()

    async def commit(self, ref: str, parent: str | None, files: dict[str, str | bytes]) -> str:
        changes = [WriteFile(path, text.encode() if isinstance(text, str) else text) for path, text in files.items()]
        old = await self.git.resolve(REPO, ref)
        return await self.git.commit_files(
            REPO, ref=ref, expected_old=old, parent=parent, changes=changes, author=ANN, message="change"
        )

    async def same(self, reviewed: tuple[str, str], now: tuple[str, str]) -> bool:
        same = await patch_id(self.git, REPO, *reviewed) == await patch_id(self.git, REPO, *now)
        return same and await is_rebase(self.git, REPO, reviewed[1], *now)


@pytest.fixture
async def repository() -> Repository:
    made = Repository()
    await made.git.create_repository(REPO, "main")
    return made


async def histories(
    repository: Repository, main: dict[str, str | bytes], first: dict[str, str | bytes], second: dict[str, str | bytes]
) -> tuple[tuple[str, str], tuple[str, str]]:
    """A change on a base, then main moves on and another change (or the same one) is made on that."""
    base = await repository.commit(MAIN, None, {"app.yaml": FILE, "logo.png": b"\0old", "other.json": "{}\n"})
    reviewed = await repository.commit(f"{WORK}1", base, first)
    moved = await repository.commit(MAIN, base, main) if main else base
    now = await repository.commit(f"{WORK}2", moved, second)
    return (base, reviewed), (moved, now)


async def test_the_same_change_on_a_base_that_changed_elsewhere_is_a_rebase(repository: Repository) -> None:
    change: dict[str, str | bytes] = {"app.yaml": f"a:\n{CHANGED}b:\n{BLOCK}", "new.json": "[]\n", "logo.png": b"\0new"}
    assert await repository.same(*await histories(repository, {"other.json": "[1]\n"}, change, change))


async def test_the_same_change_further_down_in_its_file_is_a_rebase(repository: Repository) -> None:
    above = f"# a comment\n# more of it\n{FILE}"
    change = above.replace(BLOCK, CHANGED)
    first = FILE.replace(BLOCK, CHANGED)
    assert await repository.same(*await histories(repository, {"app.yaml": above}, {"app.yaml": first}, {"app.yaml": change}))


async def test_the_same_lines_changed_in_another_place_that_reads_alike_are_no_rebase(repository: Repository) -> None:
    first, second = f"a:\n{CHANGED}b:\n{BLOCK}", f"a:\n{BLOCK}b:\n{CHANGED}"
    reviewed, now = await histories(repository, {}, {"app.yaml": first}, {"app.yaml": second})
    assert await patch_id(repository.git, REPO, *reviewed) == await patch_id(repository.git, REPO, *now)
    assert not await repository.same(reviewed, now)


@pytest.mark.parametrize(
    "second",
    [{"app.yaml": FILE.replace("four: 4", "four: 5")}, {"app.yaml": FILE.replace("  four: 4", "    four: 44")}, {"x.json": "{}"}],
    ids=["another value", "other white space", "another file"],
)
async def test_another_change_is_no_rebase(repository: Repository, second: dict[str, str | bytes]) -> None:
    first: dict[str, str | bytes] = {"app.yaml": FILE.replace("four: 4", "four: 44")}
    assert not await repository.same(*await histories(repository, {"other.json": "[1]\n"}, first, second))


async def test_a_change_of_which_the_branch_has_a_part_already_is_no_rebase(repository: Repository) -> None:
    both: dict[str, str | bytes] = {"app.yaml": f"a:\n{CHANGED}b:\n{BLOCK}", "new.json": "[]\n"}
    reviewed, now = await histories(repository, {"new.json": "[]\n"}, both, {"app.yaml": both["app.yaml"]})
    assert await is_rebase(repository.git, REPO, reviewed[1], *now)
    assert not await repository.same(reviewed, now)


async def test_what_conflicted_and_was_resolved_by_hand_is_no_rebase(repository: Repository) -> None:
    main = FILE.replace("four: 4", "four: 40")
    first, second = FILE.replace("four: 4", "four: 44"), main.replace("four: 40", "four: 44")
    assert not await repository.same(*await histories(repository, {"app.yaml": main}, {"app.yaml": first}, {"app.yaml": second}))


async def test_another_binary_content_is_another_patch(repository: Repository) -> None:
    assert not await repository.same(*await histories(repository, {}, {"logo.png": b"\0new"}, {"logo.png": b"\0newer"}))


DIFF = FileDiff(
    ChangedPath("a.yaml", None, ChangeStatus.MODIFIED, "1" * 40, "2" * 40, 0o100644, 0o100644),
    additions=1,
    deletions=1,
    binary=False,
    patch=(
        "diff --git a/a.yaml b/a.yaml\nindex 111..222 100644\n--- a/a.yaml\n+++ b/a.yaml\n"
        "@@ -1,2 +1,2 @@ a:\n one: 1\n-two: 2\n+two: 3\n"
    ),
)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("@@ -1,2 +1,2 @@ a:", "@@ -90,2 +91,2 @@ b:", True),
        ("index 111..222", "index 333..444", True),
        ("+two: 3", "+two:  3", False),
        (" one: 1", " one: 0", False),
        ("-two: 2", "-two: 1", False),
    ],
    ids=["where it stands", "the blobs", "white space", "its neighbours", "what it replaces"],
)
def test_a_patch_is_named_by_what_it_says_and_not_by_where(before: str, after: str, same: bool) -> None:
    other = replace(DIFF, patch=DIFF.patch.replace(before, after))
    assert other != DIFF
    assert (patch_id_of([other]) == patch_id_of([DIFF])) is same


def test_a_line_of_a_file_that_looks_like_a_header_counts() -> None:
    one = replace(DIFF, patch=DIFF.patch + "+index 111\n")
    assert patch_id_of([one]) != patch_id_of([DIFF])


def test_mode_and_path_are_part_of_the_patch() -> None:
    executable = replace(DIFF, change=replace(DIFF.change, new_mode=0o100755))
    elsewhere = replace(DIFF, change=replace(DIFF.change, path="b.yaml"))
    assert len({patch_id_of([one]) for one in (DIFF, executable, elsewhere)}) == 3
