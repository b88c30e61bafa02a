"""The port's rules for repositories and refs."""

from __future__ import annotations

import asyncio

import pytest
from git_harness import ANN, MAIN, MISSING, Harness, Repo

from conman.git.adapter import (
    GitError,
    ObjectMissing,
    RefUpdate,
    RepositoryExists,
    RepositoryMissing,
    StaleRef,
    WriteFile,
)

TAG = "refs/tags/r2024.05.01.1"


async def test_a_repository_exists_from_its_creation_to_its_removal(harness: Harness) -> None:
    assert not await harness.git.repository_exists("a/b.git")
    await harness.git.create_repository("a/b.git", "main")
    assert await harness.git.repository_exists("a/b.git")
    assert await harness.git.list_refs("a/b.git", "refs/") == {}
    await harness.git.remove_repository("a/b.git")
    assert not await harness.git.repository_exists("a/b.git")


async def test_a_repository_made_again_has_nothing_of_the_removed_one(repo: Repo) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    await repo.git.remove_repository(repo.name)
    await repo.git.create_repository(repo.name, "main")
    assert await repo.git.resolve(repo.name, MAIN) is None
    assert await repo.git.resolve(repo.name, sha) is None


async def test_a_repository_is_made_once(repo: Repo) -> None:
    with pytest.raises(RepositoryExists):
        await repo.git.create_repository(repo.name, "main")


async def test_of_two_who_make_the_same_repository_one_wins(harness: Harness) -> None:
    made = [harness.git.create_repository("x.git", "main") for _ in range(6)]
    results = await asyncio.gather(*made, return_exceptions=True)
    assert [type(result) for result in results if result] == [RepositoryExists] * 5
    assert await harness.git.list_refs("x.git", "") == {}


async def test_a_repository_is_not_made_inside_another_or_around_one(repo: Repo) -> None:
    with pytest.raises(GitError):
        await repo.git.create_repository(f"{repo.name}/inner.git", "main")
    with pytest.raises(RepositoryExists):
        await repo.git.create_repository("team", "main")


@pytest.mark.parametrize("branch", ["", "a b", "a..b", "/a", "a.lock", "-\0", "a~1"])
async def test_a_bad_default_branch_is_refused(harness: Harness, branch: str) -> None:
    with pytest.raises(GitError):
        await harness.git.create_repository("x.git", branch)
    assert not await harness.git.repository_exists("x.git")


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc", "../x", "a/../../x", "a/..", "a//b", "a/", "a\\b", "a\0b", ".conman-x/a", "\udc80"],
)
async def test_a_path_out_of_the_storage_root_is_refused_by_every_call(harness: Harness, path: str) -> None:
    for call in (
        harness.git.repository_exists(path),
        harness.git.create_repository(path, "main"),
        harness.git.remove_repository(path),
        harness.git.list_refs(path, ""),
    ):
        with pytest.raises(GitError) as refused:
            await call
        assert not refused.value.safe_to_repeat
        assert not isinstance(refused.value, RepositoryMissing)


async def test_every_call_on_a_missing_repository_says_so(harness: Harness) -> None:
    git, name = harness.git, "no.git"
    calls = [
        git.remove_repository(name),
        git.resolve(name, MAIN),
        git.list_refs(name, ""),
        git.update_refs(name, []),
        git.commit(name, MISSING),
        git.log(name, MISSING),
        git.merge_base(name, MISSING, MISSING),
        git.is_ancestor(name, MISSING, MISSING),
        git.list_tree(name, MISSING),
        git.entry(name, MISSING, ""),
        git.read_file(name, MISSING, "a"),
        git.read_blob(name, MISSING),
        git.changed_paths(name, MISSING, MISSING),
        git.diff(name, MISSING, MISSING),
        git.trial_merge(name, MISSING, MISSING),
        git.commit_files(name, ref=MAIN, expected_old=None, parent=None, changes=[], author=ANN, message="m"),
        git.rebase(name, ref=MAIN, expected_old=None, head=MISSING, onto=MISSING, committer=ANN),
    ]
    for call in calls:
        with pytest.raises(RepositoryMissing) as missing:
            await call
        assert not missing.value.safe_to_repeat


async def test_a_ref_resolves_to_its_commit_and_a_sha_to_itself(repo: Repo) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    assert await repo.git.resolve(repo.name, MAIN) == sha
    assert await repo.git.resolve(repo.name, sha) == sha


@pytest.mark.parametrize("revision", ["main", "HEAD", "refs/heads/other", MISSING, "", "refs/heads/main~1", "@", "refs/heads/"])
async def test_what_is_no_ref_or_sha_resolves_to_nothing(repo: Repo, revision: str) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    assert await repo.git.resolve(repo.name, revision) is None
    assert await repo.git.resolve(repo.name, sha[:10]) is None


async def test_a_sha_of_something_else_resolves_to_nothing(repo: Repo) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    tree = (await repo.git.commit(repo.name, sha)).tree_id
    blob = repo.harness.put(repo.name, "blob", b"1")
    assert await repo.git.resolve(repo.name, tree) is None
    assert await repo.git.resolve(repo.name, blob) is None


async def test_an_annotated_tag_resolves_to_its_commit_and_is_listed_as_itself(repo: Repo) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    body = "object {}\ntype {}\ntag v1\ntagger A <a@b.c> 1714557600 +0000\n\nnotes\n"
    inner = repo.harness.put(repo.name, "tag", body.format(sha, "commit").encode())
    outer = repo.harness.put(repo.name, "tag", body.format(inner, "tag").encode())
    repo.harness.set_ref(repo.name, TAG, outer)
    assert await repo.git.resolve(repo.name, TAG) == sha
    assert await repo.git.resolve(repo.name, outer) == sha
    assert await repo.git.list_refs(repo.name, "refs/tags/") == {TAG: outer}


async def test_refs_are_listed_by_prefix_and_sorted(repo: Repo) -> None:
    sha = await repo.commit({"a": b"1"}, ref=MAIN)
    names = ["refs/heads/ws/b", "refs/heads/ws/a", "refs/heads/wsx", "refs/conman/pending/a"]
    await repo.git.update_refs(repo.name, [RefUpdate(name, None, sha) for name in names])
    assert list(await repo.git.list_refs(repo.name, "refs/heads/ws")) == sorted(names[:3])
    assert list(await repo.git.list_refs(repo.name, "refs/heads/ws/")) == sorted(names[:2])
    assert list(await repo.git.list_refs(repo.name, "")) == sorted([MAIN, *names])
    assert await repo.git.list_refs(repo.name, "refs/none") == {}


async def test_a_ref_is_made_moved_and_deleted(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    two = await repo.commit({"a": b"2"}, one)
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, one)])
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, one, two)])
    assert await repo.git.resolve(repo.name, MAIN) == two
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, two, None)])
    assert await repo.git.resolve(repo.name, MAIN) is None


@pytest.mark.parametrize(
    ("present", "old", "new"),
    [
        (None, "one", "two"),
        ("one", None, "two"),
        ("one", "two", "two"),
        ("one", "two", "one"),
        ("one", None, "one"),
        ("one", "two", None),
        ("one", None, None),
        (None, "one", None),
    ],
    ids=lambda value: value or "nothing",
)
async def test_a_ref_that_is_not_where_it_was_expected_stays(
    repo: Repo, present: str | None, old: str | None, new: str | None
) -> None:
    shas = {"one": await repo.commit({"a": b"1"}), "two": await repo.commit({"a": b"2"}), None: None}
    if present:
        await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, shas[present])])
    with pytest.raises(StaleRef) as stale:
        await repo.git.update_refs(repo.name, [RefUpdate(MAIN, shas[old], shas[new])])
    assert stale.value.ref == MAIN
    assert not stale.value.safe_to_repeat
    assert await repo.git.resolve(repo.name, MAIN) == shas[present]


async def test_an_update_that_changes_nothing_passes_when_the_ref_is_there(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, one, one), RefUpdate("refs/heads/none", None, None)])
    assert await repo.git.list_refs(repo.name, "refs/heads/main") == {MAIN: one}
    assert await repo.git.resolve(repo.name, "refs/heads/none") is None


async def test_several_refs_move_all_or_none(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"}, ref=MAIN)
    two = await repo.commit({"a": b"2"}, one)
    await repo.git.update_refs(repo.name, [RefUpdate(MAIN, one, two), RefUpdate(TAG, None, two)])
    assert await repo.git.list_refs(repo.name, "refs/tags") == {TAG: two}
    with pytest.raises(StaleRef) as stale:
        await repo.git.update_refs(
            repo.name,
            [RefUpdate("refs/heads/new", None, one), RefUpdate(MAIN, two, one), RefUpdate(TAG, None, one)],
        )
    assert stale.value.ref == TAG
    assert await repo.git.resolve(repo.name, MAIN) == two
    assert await repo.git.resolve(repo.name, "refs/heads/new") is None


@pytest.mark.parametrize(
    "name", ["main", "refs", "refs/", "heads/main", "refs/heads/a b", "refs/heads/.a", "refs/a/../b", "HEAD"]
)
async def test_a_bad_ref_name_is_refused_and_nothing_moves(repo: Repo, name: str) -> None:
    one = await repo.commit({"a": b"1"})
    with pytest.raises(GitError) as refused:
        await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, one), RefUpdate(name, None, one)])
    assert not isinstance(refused.value, StaleRef)
    assert await repo.git.resolve(repo.name, MAIN) is None


async def test_a_malformed_sha_and_a_ref_named_twice_are_refused(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    for updates in (
        [RefUpdate(MAIN, None, one[:10])],
        [RefUpdate(MAIN, "x", one)],
        [RefUpdate(MAIN, None, one), RefUpdate(MAIN, one, None)],
    ):
        with pytest.raises(GitError) as refused:
            await repo.git.update_refs(repo.name, updates)
        assert not isinstance(refused.value, StaleRef)


async def test_a_ref_can_only_be_moved_to_what_exists_and_a_branch_to_a_commit(repo: Repo) -> None:
    one = await repo.commit({"a": b"1"})
    blob = repo.harness.put(repo.name, "blob", b"1")
    with pytest.raises(ObjectMissing):
        await repo.git.update_refs(repo.name, [RefUpdate(TAG, None, one), RefUpdate(MAIN, None, MISSING)])
    with pytest.raises(GitError):
        await repo.git.update_refs(repo.name, [RefUpdate(MAIN, None, blob)])
    assert await repo.git.list_refs(repo.name, "refs/tags") == {}


@pytest.mark.parametrize(("first", "second"), [("refs/heads/a", "refs/heads/a/b"), ("refs/heads/a/b/c", "refs/heads/a")])
async def test_a_ref_can_not_be_the_folder_of_another(repo: Repo, first: str, second: str) -> None:
    one = await repo.commit({"a": b"1"})
    with pytest.raises(GitError):
        await repo.git.update_refs(repo.name, [RefUpdate(first, None, one), RefUpdate(second, None, one)])
    await repo.git.update_refs(repo.name, [RefUpdate(first, None, one)])
    with pytest.raises(GitError) as refused:
        await repo.git.update_refs(repo.name, [RefUpdate(second, None, one)])
    assert not isinstance(refused.value, StaleRef)
    assert await repo.git.list_refs(repo.name, "refs/heads/a") == {first: one}
    await repo.git.update_refs(repo.name, [RefUpdate(first, one, None)])
    await repo.git.update_refs(repo.name, [RefUpdate(second, None, one)])
    assert await repo.git.list_refs(repo.name, "refs/heads/a") == {second: one}


async def test_of_many_who_move_one_ref_from_the_same_value_one_wins(repo: Repo) -> None:
    head = await repo.commit({"a": b"0"}, ref=MAIN)
    for turn in range(5):
        rivals = [await repo.commit({"a": b"%d %d" % (turn, rival)}, head) for rival in range(6)]
        moves = [repo.git.update_refs(repo.name, [RefUpdate(MAIN, head, rival)]) for rival in rivals]
        results = await asyncio.gather(*moves, return_exceptions=True)
        winners = [rival for rival, result in zip(rivals, results, strict=True) if result is None]
        assert len(winners) == 1
        assert sum(isinstance(result, StaleRef) for result in results) == 5
        head = winners[0]
        assert await repo.git.resolve(repo.name, MAIN) == head


async def test_writers_that_try_again_after_losing_lose_no_change(repo: Repo) -> None:
    await repo.commit({"start": b""}, ref=MAIN)

    async def write(number: int) -> None:
        while True:
            head = await repo.git.resolve(repo.name, MAIN)
            try:
                await repo.git.commit_files(
                    repo.name,
                    ref=MAIN,
                    expected_old=head,
                    parent=head,
                    changes=[WriteFile(f"file{number}", b"x")],
                    author=ANN,
                    message=f"{number}\n",
                )
                return
            except StaleRef:
                continue

    await asyncio.gather(*(write(number) for number in range(8)))
    head = await repo.git.resolve(repo.name, MAIN)
    assert head is not None
    assert len(await repo.files(head)) == 9
    assert len(await repo.git.log(repo.name, head)) == 9


async def test_crossing_moves_of_two_refs_leave_both_at_one_side(repo: Repo) -> None:
    old = await repo.commit({"a": b"0"})
    left, right = await repo.commit({"a": b"l"}, old), await repo.commit({"a": b"r"}, old)
    names = ["refs/heads/x", "refs/heads/y"]
    await repo.git.update_refs(repo.name, [RefUpdate(name, None, old) for name in names])
    results = await asyncio.gather(
        repo.git.update_refs(repo.name, [RefUpdate(name, old, left) for name in names]),
        repo.git.update_refs(repo.name, [RefUpdate(name, old, right) for name in reversed(names)]),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "StaleRef"]
    refs = await repo.git.list_refs(repo.name, "refs/heads/")
    assert refs[names[0]] == refs[names[1]] == (left if results[0] is None else right)


async def test_a_healthy_backend_says_nothing(harness: Harness) -> None:
    await harness.git.health()
