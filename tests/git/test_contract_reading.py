"""The port's rules for reading trees, files and history."""

from __future__ import annotations

import pytest
from git_harness import ANN, FILE, MAIN, MISSING, TREE, Repo, blob_id

from conman.git.adapter import EntryType, GitError, ObjectMissing, TreeEntry


async def test_a_folder_is_listed_one_level_or_all_leaves_sorted_by_bytes(repo: Repo) -> None:
    one = await repo.commit({"b/x": b"12", "b.txt": b"", "b0": b"1", "a": b"1", "b/sub/y": b"", "Z": b"", "\u00e9": b""})
    top = await repo.git.list_tree(repo.name, one)
    assert [entry.path for entry in top] == ["Z", "a", "b", "b.txt", "b0", "\u00e9"]
    assert [entry.type for entry in top][2] is EntryType.TREE
    assert (top[2].mode, top[2].size) == (TREE, None)
    leaves = await repo.git.list_tree(repo.name, one, recursive=True)
    assert [entry.path for entry in leaves] == ["Z", "a", "b.txt", "b/sub/y", "b/x", "b0", "\u00e9"]
    assert leaves[4] == TreeEntry("b/x", EntryType.BLOB, FILE, blob_id(b"12"), 2)
    assert [entry.path for entry in await repo.git.list_tree(repo.name, one, "b")] == ["b/sub", "b/x"]
    assert [entry.path for entry in await repo.git.list_tree(repo.name, one, "b/sub", recursive=True)] == ["b/sub/y"]


@pytest.mark.parametrize("path", ["none", "a", "a/b", "b/none"])
async def test_listing_what_is_no_folder_says_so(repo: Repo, path: str) -> None:
    one = await repo.commit({"a": b"", "b/c": b""})
    with pytest.raises(ObjectMissing):
        await repo.git.list_tree(repo.name, one, path)


@pytest.mark.parametrize("path", ["/", "/a", "a/", "../a", "b/../a", "./a", "a\0"])
async def test_reading_a_path_that_is_not_plain_is_refused(repo: Repo, path: str) -> None:
    one = await repo.commit({"a": b"", "b/c": b""})
    for call in (
        repo.git.list_tree(repo.name, one, path),
        repo.git.entry(repo.name, one, path),
        repo.git.read_file(repo.name, one, path),
    ):
        with pytest.raises(GitError):
            await call


async def test_an_entry_is_what_is_at_the_path(repo: Repo) -> None:
    one = await repo.commit({"b/c": b"123"})
    tree_id = (await repo.git.commit(repo.name, one)).tree_id
    assert await repo.git.entry(repo.name, one, "") == TreeEntry("", EntryType.TREE, TREE, tree_id, None)
    folder = await repo.git.entry(repo.name, one, "b")
    assert folder is not None
    assert (folder.path, folder.type, folder.size) == ("b", EntryType.TREE, None)
    assert await repo.git.entry(repo.name, one, "b/c") == TreeEntry("b/c", EntryType.BLOB, FILE, blob_id(b"123"), 3)
    for path in ("c", "b/d", "b/c/d"):
        assert await repo.git.entry(repo.name, one, path) is None
        assert await repo.git.read_file(repo.name, one, path) is None
    assert await repo.git.read_file(repo.name, one, "b") is None


async def test_names_that_are_not_utf8_are_shown_and_kept(repo: Repo) -> None:
    one = repo.plant({"caf\udce9": (FILE, b"1"), "dir\udcff/x": (FILE, b"2"), "plain": (FILE, b"3")})
    listed = [entry.path for entry in await repo.git.list_tree(repo.name, one, recursive=True)]
    assert listed == ["caf\ufffd", "dir\ufffd/x", "plain"]
    two = await repo.commit({"plain": b"4"}, one)
    three = await repo.commit({"new": b"5"}, one)
    merged = await repo.git.merge(repo.name, ref=MAIN, expected_old=None, ours=two, theirs=three, author=ANN, message="m")
    assert merged.sha is not None
    [changed] = await repo.git.changed_paths(repo.name, two, merged.sha)
    assert changed.path == "new"
    four = repo.plant({"caf\udce9": (FILE, b"6"), "new\udcee": (FILE, b"7")}, parents=(one,))
    outcome = await repo.git.trial_merge(repo.name, three, four)
    assert outcome.clean
    assert [change.path for change in await repo.git.changed_paths(repo.name, one, four)] == [
        "caf\ufffd", "dir\ufffd/x", "new\ufffd", "plain",
    ]  # fmt: skip


async def test_objects_that_do_not_exist_are_said_to_be_missing(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    git, name = repo.git, repo.name
    tree = (await git.commit(name, one)).tree_id
    for sha in (MISSING, "nonsense", "refs/heads/none", tree, blob_id(b"1"), ""):
        for call in (
            git.commit(name, sha),
            git.log(name, sha),
            git.log(name, one, exclude=sha),
            git.merge_base(name, one, sha),
            git.is_ancestor(name, one, sha),
            git.list_tree(name, sha),
            git.read_file(name, sha, "a"),
            git.changed_paths(name, one, sha),
            git.diff(name, sha, one),
            git.trial_merge(name, one, sha),
        ):
            with pytest.raises(ObjectMissing):
                await call
        with pytest.raises(ObjectMissing):
            await git.commit_files(name, ref=MAIN, expected_old=None, parent=sha, changes=[], author=ANN, message="m")
    for blob in (MISSING, "nonsense", tree, one, ""):
        with pytest.raises(ObjectMissing):
            await git.read_blob(name, blob)
    assert await git.resolve(name, MAIN) is None


async def test_the_log_lists_children_first_within_its_limits(repo: Repo) -> None:
    shas = [await repo.commit({"a": b"0"})]
    for number in range(1, 5):
        shas.append(await repo.commit({"a": b"%d" % number}, shas[-1]))

    async def listed(**options: object) -> list[str]:
        return [commit.sha for commit in await repo.git.log(repo.name, shas[-1], **options)]  # type: ignore[arg-type]

    assert await listed() == shas[::-1]
    assert await listed(exclude=shas[2]) == [shas[4], shas[3]]
    assert await listed(exclude=shas[4]) == []
    assert await listed(limit=2) == [shas[4], shas[3]]
    assert await listed(limit=0) == []
    assert await listed(limit=5) == shas[::-1]
    assert await listed(first_parent=True, exclude=shas[1], limit=2) == [shas[4], shas[3]]


async def test_the_log_of_first_parents_leaves_side_branches_out(repo: Repo) -> None:
    base = await repo.commit({"a": b"0"})
    side = await repo.commit({"b": b"1"}, base)
    main = await repo.commit({"c": b"1"}, base)
    merged = await repo.git.merge(repo.name, ref=MAIN, expected_old=None, ours=main, theirs=side, author=ANN, message="m")
    assert merged.sha is not None
    head = await repo.commit({"d": b"1"}, merged.sha)

    async def listed(exclude: str | None, first_parent: bool) -> list[str]:
        log = await repo.git.log(repo.name, head, exclude=exclude, first_parent=first_parent)
        return [commit.sha for commit in log]

    everything = await listed(None, False)
    assert everything[:2] == [head, merged.sha]
    assert set(everything[2:4]) == {main, side}
    assert everything[4:] == [base]
    assert await listed(None, True) == [head, merged.sha, main, base]
    assert await listed(side, True) == [head, merged.sha, main]
    assert await listed(main, True) == [head, merged.sha]
    assert set(await listed(main, False)) == {head, merged.sha, side}


async def test_ancestry_and_merge_bases(repo: Repo) -> None:
    base = await repo.commit({"a": b"0"})
    left, right = await repo.commit({"l": b""}, base), await repo.commit({"r": b""}, base)
    alone = await repo.commit({"z": b""})
    git, name = repo.git, repo.name
    assert await git.merge_base(name, left, right) == base
    assert await git.merge_base(name, left, left) == left
    assert await git.merge_base(name, base, right) == base
    assert await git.merge_base(name, left, alone) is None
    assert await git.is_ancestor(name, base, left)
    assert await git.is_ancestor(name, left, left)
    assert not await git.is_ancestor(name, left, base)
    assert not await git.is_ancestor(name, left, right)
    assert not await git.is_ancestor(name, alone, left)
