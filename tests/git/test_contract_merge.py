"""The port's rules for merges, rebases and reverts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from git_harness import ANN, BOB, EXECUTABLE, FILE, MAIN, MISSING, SUBMODULE, SYMLINK, Repo, blob_id

from conman.git.adapter import (
    CommitOutcome,
    Conflict,
    ConflictKind,
    ObjectMissing,
    StaleRef,
)

LINES = b"".join(b"line %d\n" % number for number in range(20))
TOP = LINES.replace(b"line 1\n", b"top\n")
BOTTOM = LINES.replace(b"line 18\n", b"bottom\n")
BOTH = TOP.replace(b"line 18\n", b"bottom\n")
OTHER_TOP = LINES.replace(b"line 1\n", b"other\n")

Files = Mapping[str, tuple[int, bytes]]
CONTENT, ADD_ADD, RENAME, TYPE = ConflictKind.CONTENT, ConflictKind.ADD_ADD, ConflictKind.RENAME, ConflictKind.TYPE
MODIFY_DELETE, DELETE_MODIFY = ConflictKind.MODIFY_DELETE, ConflictKind.DELETE_MODIFY


def file(data: bytes) -> tuple[int, bytes]:
    return (FILE, data)


def three(repo: Repo, base: Files, ours: Files, theirs: Files) -> tuple[str, str]:
    """Two commits on a common base."""
    start = repo.plant(base)
    return repo.plant(ours, (start,)), repo.plant(theirs, (start,))


def swapped(conflict: Conflict) -> Conflict:
    """The same conflict seen from the other side."""
    kinds = {MODIFY_DELETE: DELETE_MODIFY, DELETE_MODIFY: MODIFY_DELETE}
    kind = kinds.get(conflict.kind, conflict.kind)
    return Conflict(conflict.path, kind, conflict.base_blob, conflict.theirs_blob, conflict.ours_blob)


CLEAN: dict[str, tuple[Files, Files, Files, Files]] = {
    "nothing changed": ({"a": file(b"1")}, {"a": file(b"1")}, {"a": file(b"1")}, {"a": file(b"1")}),
    "different files": (
        {"a": file(b"1"), "b": file(b"1")},
        {"a": file(b"2"), "b": file(b"1")},
        {"a": file(b"1"), "b": file(b"2")},
        {"a": file(b"2"), "b": file(b"2")},
    ),
    "different ends of a file": ({"a": file(LINES)}, {"a": file(TOP)}, {"a": file(BOTTOM)}, {"a": file(BOTH)}),
    "the same change": ({"a": file(LINES)}, {"a": file(TOP)}, {"a": file(TOP)}, {"a": file(TOP)}),
    "line ends are content": (
        {"a": file(LINES.replace(b"\n", b"\r\n"))},
        {"a": file(TOP.replace(b"\n", b"\r\n"))},
        {"a": file(BOTTOM.replace(b"\n", b"\r\n"))},
        {"a": file(BOTH.replace(b"\n", b"\r\n"))},
    ),
    "text that is not UTF-8": (
        {"a": file(b"\xe4\n" + LINES)},
        {"a": file(b"\xe4\n" + TOP)},
        {"a": file(b"\xe4\n" + BOTTOM)},
        {"a": file(b"\xe4\n" + BOTH)},
    ),
    "both add the same": ({}, {"a": file(b"1")}, {"a": file(b"1")}, {"a": file(b"1")}),
    "both delete": ({"a": file(b"1"), "b": file(b"")}, {"b": file(b"")}, {"b": file(b"")}, {"b": file(b"")}),
    "one deletes": ({"a": file(b"1"), "b": file(b"")}, {"b": file(b"")}, {"a": file(b"1"), "b": file(b"")}, {"b": file(b"")}),
    "a mode and a content": (
        {"a": file(LINES)},
        {"a": (EXECUTABLE, LINES)},
        {"a": file(TOP)},
        {"a": (EXECUTABLE, TOP)},
    ),
    "one empties": ({"a": file(LINES)}, {"a": file(b"")}, {"a": file(LINES)}, {"a": file(b"")}),
    "one changes a binary": ({"a": file(b"\0a")}, {"a": file(b"\0b")}, {"a": file(b"\0a")}, {"a": file(b"\0b")}),
    "one moves, the other changes": ({"a": file(LINES)}, {"b": file(LINES)}, {"a": file(TOP)}, {"b": file(TOP)}),
    "one moves and changes, the other changes": ({"a": file(LINES)}, {"b": file(TOP)}, {"a": file(BOTTOM)}, {"b": file(BOTH)}),
    "one moves, the other makes it executable": (
        {"a": file(LINES)},
        {"d/b": file(LINES)},
        {"a": (EXECUTABLE, TOP)},
        {"d/b": (EXECUTABLE, TOP)},
    ),
    "a mode and a binary": (
        {"a": file(b"\0a")},
        {"a": (EXECUTABLE, b"\0a")},
        {"a": file(b"\0b")},
        {"a": (EXECUTABLE, b"\0b")},
    ),
    "both move to the same path and change": (
        {"a": file(LINES)},
        {"b": file(TOP)},
        {"b": file(BOTTOM)},
        {"b": file(BOTH)},
    ),
    "a folder becomes a file": ({"d/x": file(b"1")}, {"d": file(b"2")}, {"d/x": file(b"1")}, {"d": file(b"2")}),
    "files in the place of a link, one of them empty": (
        {"a": (SYMLINK, b"x")},
        {"a": file(LINES)},
        {"a": file(b"")},
        {"a": file(LINES)},
    ),
    "files in the place of a submodule, one of them empty": (
        {"a": (SUBMODULE, MISSING.encode())},
        {"a": file(LINES)},
        {"a": file(b"")},
        {"a": file(LINES)},
    ),
    "links and submodules": (
        {"l": (SYMLINK, b"a"), "m": (SUBMODULE, MISSING.encode())},
        {"l": (SYMLINK, b"b"), "m": (SUBMODULE, MISSING.encode())},
        {"l": (SYMLINK, b"a"), "m": (SUBMODULE, MISSING[::-1].encode())},
        {"l": (SYMLINK, b"b"), "m": (SUBMODULE, MISSING[::-1].encode())},
    ),
}


@pytest.mark.parametrize("case", CLEAN)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
async def test_changes_that_do_not_touch_merge(repo: Repo, case: str, turned: bool) -> None:
    base, ours, theirs, expected = CLEAN[case]
    one, two = three(repo, base, *((theirs, ours) if turned else (ours, theirs)))
    tried = await repo.git.trial_merge(repo.name, one, two)
    assert tried.conflicts == ()
    assert tried.clean
    assert tried.tree_id == (await repo.git.commit(repo.name, repo.plant(expected))).tree_id
    assert await repo.git.resolve(repo.name, MAIN) is None


def expect(path: str, kind: ConflictKind, base: bytes | None, ours: bytes | None, theirs: bytes | None) -> Conflict:
    return Conflict(path, kind, *(None if data is None else blob_id(data) for data in (base, ours, theirs)))


CONFLICTS: dict[str, tuple[Files, Files, Files, list[Conflict]]] = {
    "the same line": (
        {"a": file(LINES)},
        {"a": file(TOP)},
        {"a": file(OTHER_TOP)},
        [expect("a", CONTENT, LINES, TOP, OTHER_TOP)],
    ),
    "touching lines": (
        {"a": file(b"1\n2\n3\n4\n")},
        {"a": file(b"1\nx\n3\n4\n")},
        {"a": file(b"1\n2\ny\n4\n")},
        [expect("a", CONTENT, b"1\n2\n3\n4\n", b"1\nx\n3\n4\n", b"1\n2\ny\n4\n")],
    ),
    "a binary": ({"a": file(b"\0a")}, {"a": file(b"\0b")}, {"a": file(b"\0c")}, [expect("a", CONTENT, b"\0a", b"\0b", b"\0c")]),
    "both add": ({}, {"a": file(b"1\n")}, {"a": file(b"2\n")}, [expect("a", ADD_ADD, None, b"1\n", b"2\n")]),
    "both add, one an empty file and one a binary": (
        {},
        {"a": file(b"")},
        {"a": file(b"\0")},
        [expect("a", ADD_ADD, None, b"", b"\0")],
    ),
    "both add with other modes": (
        {},
        {"a": file(b"1")},
        {"a": (EXECUTABLE, b"1")},
        [expect("a", ADD_ADD, None, b"1", b"1")],
    ),
    "one changes, one deletes": ({"a": file(b"1")}, {"a": file(b"2")}, {}, [expect("a", MODIFY_DELETE, b"1", b"2", None)]),
    "a link and a file": (
        {"a": file(b"1")},
        {"a": (SYMLINK, b"x")},
        {"a": file(b"2")},
        [expect("a", TYPE, b"1", b"x", b"2")],
    ),
    "two links": (
        {"a": (SYMLINK, b"x")},
        {"a": (SYMLINK, b"y")},
        {"a": (SYMLINK, b"z")},
        [expect("a", CONTENT, b"x", b"y", b"z")],
    ),
    "two links whose targets differ in other lines": (
        {"a": (SYMLINK, LINES)},
        {"a": (SYMLINK, TOP)},
        {"a": (SYMLINK, BOTTOM)},
        [expect("a", CONTENT, LINES, TOP, BOTTOM)],
    ),
    "files in the place of a link": (
        {"a": (SYMLINK, b"x")},
        {"a": file(b"1\n")},
        {"a": file(b"2\n")},
        [expect("a", CONTENT, b"x", b"1\n", b"2\n")],
    ),
    "files in the place of a link with other modes": (
        {"a": (SYMLINK, b"x")},
        {"a": file(b"1\n")},
        {"a": (EXECUTABLE, b"1\n")},
        [expect("a", CONTENT, b"x", b"1\n", b"1\n")],
    ),
    "two submodules": (
        {"m": (SUBMODULE, b"1" * 40)},
        {"m": (SUBMODULE, b"2" * 40)},
        {"m": (SUBMODULE, b"3" * 40)},
        [Conflict("m", CONTENT, "1" * 40, "2" * 40, "3" * 40)],
    ),
    "a file and a folder": ({}, {"d": file(b"1")}, {"d/x": file(b"2")}, [expect("d", TYPE, None, b"1", None)]),
    "a file in the place of a folder that goes on": (
        {"d/x": file(b"0")},
        {"d": file(b"1")},
        {"d/x": file(b"0"), "d/y": file(b"2")},
        [expect("d", TYPE, None, b"1", None)],
    ),
    "a file in the place of a folder that both empty": (
        {"d/x/w": file(b"0")},
        {"d": file(b"1")},
        {"d/y": file(b"2")},
        [expect("d", TYPE, None, b"1", None)],
    ),
    "a file in the place of a folder with a change": (
        {"d/x": file(b"0")},
        {"d": file(b"1")},
        {"d/x": file(b"2")},
        [expect("d", TYPE, None, b"1", None), expect("d/x", DELETE_MODIFY, b"0", None, b"2")],
    ),
    "one moves a file onto a folder of the other": (
        {"d/x": file(LINES)},
        {"a": file(LINES)},
        {"d/x": file(LINES), "a/q": file(b"2")},
        [expect("a", TYPE, None, LINES, None)],
    ),
    "one moves and changes, the other changes the same line": (
        {"a": file(LINES)},
        {"b": file(TOP)},
        {"a": file(OTHER_TOP)},
        [expect("a", RENAME, LINES, None, OTHER_TOP), expect("b", RENAME, LINES, TOP, OTHER_TOP)],
    ),
    "one moves, the other deletes": ({"a": file(LINES)}, {"b": file(LINES)}, {}, [expect("b", RENAME, LINES, LINES, None)]),
    "both move, to different paths": (
        {"a": file(LINES)},
        {"b": file(LINES)},
        {"c": file(LINES)},
        [expect("b", RENAME, LINES, LINES, None), expect("c", RENAME, LINES, None, LINES)],
    ),
    "both move to the same path and change the same line": (
        {"a": file(LINES)},
        {"b": file(TOP)},
        {"b": file(OTHER_TOP)},
        [expect("b", CONTENT, LINES, TOP, OTHER_TOP)],
    ),
    "one moves to where the other adds": (
        {"a": file(LINES)},
        {"b": file(LINES)},
        {"a": file(LINES), "b": file(b"2\n")},
        [expect("b", ADD_ADD, None, LINES, b"2\n")],
    ),
    "one changes and moves a link": (
        {"a": (SYMLINK, b"x")},
        {"b": (SYMLINK, b"x")},
        {"a": (SYMLINK, b"y")},
        [expect("a", DELETE_MODIFY, b"x", None, b"y")],
    ),
    "several, sorted by bytes": (
        {"b": file(b"1"), "a/x": file(b"1"), "a.x": file(b"1"), "c": file(b"1")},
        {"b": file(b"2"), "a/x": file(b"2"), "a.x": file(b"2"), "c": file(b"2")},
        {"b": file(b"3"), "a/x": file(b"3"), "a.x": file(b"3"), "c": file(b"1")},
        [expect(path, CONTENT, b"1", b"2", b"3") for path in ("a.x", "a/x", "b")],
    ),
}


@pytest.mark.parametrize("case", CONFLICTS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
async def test_changes_that_clash_are_reported_by_path_and_move_nothing(repo: Repo, case: str, turned: bool) -> None:
    base, ours, theirs, expected = CONFLICTS[case]
    if turned:
        ours, theirs, expected = theirs, ours, [swapped(conflict) for conflict in expected]
    one, two = three(repo, base, ours, theirs)
    tried = await repo.git.trial_merge(repo.name, one, two)
    assert list(tried.conflicts) == expected
    assert tried.tree_id is None
    assert not tried.clean
    made = await repo.git.merge(repo.name, ref=MAIN, expected_old=None, ours=one, theirs=two, author=ANN, message="m")
    assert made == CommitOutcome(None, tried.conflicts)
    assert not made.clean
    assert await repo.git.resolve(repo.name, MAIN) is None


async def test_a_merge_is_a_commit_of_two_parents_even_where_one_could_fast_forward(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.commit({"b": b"2"}, one)

    async def merge() -> CommitOutcome:
        return await repo.git.merge(
            repo.name, ref=MAIN, expected_old=one, ours=one, theirs=two, author=BOB, message="Merge\n\nKey: v\n"
        )

    made = await merge()
    assert made.sha is not None
    assert made.clean
    commit = await repo.git.commit(repo.name, made.sha)
    assert commit.parents == (one, two)
    assert commit.author == commit.committer == BOB
    assert commit.message == "Merge\n\nKey: v\n"
    assert await repo.git.resolve(repo.name, MAIN) == made.sha
    assert await merge() == made


async def test_a_merge_of_what_is_contained_makes_no_commit(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    two = await repo.commit({"b": b"2"}, one)
    for theirs in (one, two):
        made = await repo.git.merge(
            repo.name, ref=f"refs/heads/{theirs}", expected_old=None, ours=two, theirs=theirs, author=ANN, message="m"
        )
        assert made == CommitOutcome(two)
        assert await repo.git.resolve(repo.name, f"refs/heads/{theirs}") == two


async def test_unrelated_histories_merge_like_additions(repo: Repo) -> None:
    one, two = await repo.commit({"a": b"1", "same": b""}), await repo.commit({"b": b"2", "same": b""})
    three_ = await repo.commit({"a": b"3"})
    made = await repo.git.merge(repo.name, ref=MAIN, expected_old=None, ours=one, theirs=two, author=ANN, message="m")
    assert made.sha is not None
    assert await repo.files(made.sha) == {"a": b"1", "b": b"2", "same": b""}
    assert (await repo.git.trial_merge(repo.name, one, three_)).conflicts == (expect("a", ADD_ADD, None, b"1", b"3"),)


async def test_a_crossed_history_merges_from_both_bases(repo: Repo) -> None:
    base = await repo.commit({"f": LINES})
    left, right = await repo.commit({"f": TOP}, base), await repo.commit({"f": BOTTOM}, base)
    crossed: list[str] = []
    for number, (ours, theirs) in enumerate([(left, right), (right, left)]):
        made = await repo.git.merge(
            repo.name, ref=f"refs/heads/c{number}", expected_old=None, ours=ours, theirs=theirs, author=ANN, message="m"
        )
        assert made.sha is not None
        crossed.append(made.sha)
    assert await repo.git.merge_base(repo.name, *crossed) in (left, right)
    changed = BOTH.replace(b"line 9\n", b"nine\n")
    one = await repo.commit({"f": changed}, crossed[0])
    two = await repo.commit({"f": BOTH.replace(b"top\n", b"TOP\n")}, crossed[1])
    tried = await repo.git.trial_merge(repo.name, one, two)
    assert tried.tree_id is not None
    expected = repo.plant({"f": file(changed.replace(b"top\n", b"TOP\n"))})
    assert tried.tree_id == (await repo.git.commit(repo.name, expected)).tree_id


@pytest.mark.parametrize("operation", ["merge", "rebase", "revert"])
async def test_a_ref_that_moved_is_left_alone(repo: Repo, operation: str) -> None:
    base = await repo.commit({"a": b"1"})
    one = await repo.commit({"b": b"1"}, base)
    two = await repo.commit({"c": b"1"}, base)
    other = await repo.commit({"z": b""}, ref=MAIN)
    target = {"ref": MAIN, "expected_old": base}
    calls = {
        "merge": lambda: repo.git.merge(repo.name, **target, ours=one, theirs=two, author=ANN, message="m"),
        "rebase": lambda: repo.git.rebase(repo.name, **target, head=one, onto=two, committer=ANN),
        "revert": lambda: repo.git.revert(repo.name, **target, onto=one, base=base, head=one, author=ANN, message="m"),
    }
    with pytest.raises(StaleRef):
        await calls[operation]()
    assert await repo.git.resolve(repo.name, MAIN) == other


async def test_what_does_not_exist_can_not_be_merged(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    target = {"ref": MAIN, "expected_old": None}
    for call in (
        repo.git.merge(repo.name, **target, ours=one, theirs=MISSING, author=ANN, message="m"),
        repo.git.merge(repo.name, **target, ours=MISSING, theirs=one, author=ANN, message="m"),
        repo.git.rebase(repo.name, **target, head=one, onto=MISSING, committer=ANN),
        repo.git.rebase(repo.name, **target, head=MISSING, onto=one, committer=ANN),
        repo.git.trial_revert(repo.name, one, base=MISSING, head=one),
        repo.git.revert(repo.name, **target, onto=one, base=MISSING, head=one, author=ANN, message="m"),
    ):
        with pytest.raises(ObjectMissing):
            await call


async def in_turn(repo: Repo, base: str, heads: list[str]) -> list[CommitOutcome]:
    """What real merges make of them, each on what those before it made."""
    current = base
    made: list[CommitOutcome] = []
    for number, head in enumerate(heads):
        ref = f"refs/conman/turn/{number}"
        old = await repo.git.resolve(repo.name, ref)
        outcome = await repo.git.merge(
            repo.name, ref=ref, expected_old=old, ours=current, theirs=head, author=BOB, message="merge\n"
        )
        made.append(outcome)
        current = outcome.sha or current
    return made


async def agrees(repo: Repo, base: str, heads: list[str]) -> list[bool]:
    """Trials agree with real merges in trees and conflicts and move no ref; which of them are clean."""
    before = await repo.git.list_refs(repo.name, "refs/")
    tried = await repo.git.trial_merges(repo.name, base, heads)
    assert await repo.git.list_refs(repo.name, "refs/") == before
    made = await in_turn(repo, base, heads)
    trees = [None if one.sha is None else (await repo.git.commit(repo.name, one.sha)).tree_id for one in made]
    assert [one.tree_id for one in tried] == trees
    assert [one.conflicts for one in tried] == [one.conflicts for one in made]
    return [one.clean for one in tried]


async def test_trials_one_after_the_other_pass_over_what_conflicts(repo: Repo) -> None:
    base = await repo.commit({"a": LINES, "b": b"1\n"})
    top, other = await repo.commit({"a": TOP}, base), await repo.commit({"a": OTHER_TOP}, base)
    bottom, mine = await repo.commit({"a": BOTTOM}, base), await repo.commit({"b": b"2\n"}, base)
    assert await agrees(repo, base, [top, other, bottom, mine]) == [True, False, True, True]
    assert await agrees(repo, base, [other, top, bottom, mine]) == [True, False, True, True]
    assert await repo.git.trial_merges(repo.name, base, []) == []


async def test_trials_one_after_the_other_know_what_was_merged_before(repo: Repo) -> None:
    """A head on top of another one brings only what is its own; one that is contained changes nothing."""
    base = await repo.commit({"a": LINES})
    first = await repo.commit({"a": TOP}, base)
    second = await repo.commit({"a": TOP.replace(b"top", b"higher")}, first)
    head = await repo.commit({"b": b"1"}, base)
    assert await agrees(repo, head, [first, second, first, base]) == [True, True, True, True]
    assert await agrees(repo, head, [second, first]) == [True, True]


async def test_trials_one_after_the_other_merge_from_all_that_the_histories_share(repo: Repo) -> None:
    """The third has two best ancestors in common with what was merged: one by the base, one by the first."""
    start = await repo.commit({"a": LINES, "b": LINES, "c": b"1"})
    left, right = await repo.commit({"a": TOP}, start), await repo.commit({"b": TOP}, start)
    base, first = await repo.commit({"c": b"2"}, left), await repo.commit({"d": b"1"}, right)
    crossed = await repo.git.merge(
        repo.name, ref="refs/heads/x", expected_old=None, ours=left, theirs=right, author=ANN, message="cross\n"
    )
    assert crossed.sha is not None
    third = await repo.commit({"a": BOTH, "b": BOTH}, crossed.sha)
    assert await agrees(repo, base, [first, third]) == [True, True]
    assert await agrees(repo, left, [first, third]) == [True, True], "the base is one of the two itself"
    assert await agrees(repo, base, [third, first]) == [True, True]


async def test_trials_one_after_the_other_of_what_is_not_there_are_refused(repo: Repo) -> None:
    base = await repo.commit({"a": b"1"})
    for start, heads in ((MISSING, []), (base, [MISSING]), (base, [base, MISSING])):
        with pytest.raises(ObjectMissing):
            await repo.git.trial_merges(repo.name, start, heads)
