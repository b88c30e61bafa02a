"""The port's rules for rebases and reverts."""

from __future__ import annotations

from git_harness import ANN, BOB, MAIN, Repo, blob_id

from conman.git.adapter import CommitOutcome, Conflict, ConflictKind, MoveFile, WriteFile

LINES = b"".join(b"line %d\n" % number for number in range(20))
TOP = LINES.replace(b"line 1\n", b"top\n")
BOTTOM = LINES.replace(b"line 18\n", b"bottom\n")
BOTH = TOP.replace(b"line 18\n", b"bottom\n")
OTHER_TOP = LINES.replace(b"line 1\n", b"other\n")


async def rebase(repo: Repo, head: str, onto: str) -> CommitOutcome:
    ref = "refs/heads/rebased"
    old = await repo.git.resolve(repo.name, ref)
    return await repo.git.rebase(repo.name, ref=ref, expected_old=old, head=head, onto=onto, committer=BOB)


async def test_a_rebase_replays_the_missing_commits_in_order(repo: Repo) -> None:
    base = await repo.commit({"f": LINES, "g": b"0"})
    first = await repo.commit({"f": TOP}, base, message="first\n\nKey: 1\n")
    second = await repo.commit([MoveFile("g", "h")], first, message="second")
    onto = await repo.commit({"f": BOTTOM}, base)
    made = await rebase(repo, second, onto)
    assert made.sha is not None
    assert await repo.files(made.sha) == {"f": BOTH, "h": b"0"}
    log = await repo.git.log(repo.name, made.sha, exclude=onto)
    originals = [await repo.git.commit(repo.name, sha) for sha in (second, first)]
    assert [(commit.message, commit.author) for commit in log] == [(commit.message, commit.author) for commit in originals]
    assert {commit.committer for commit in log} == {BOB}
    assert log[-1].parents == (onto,)
    assert await repo.git.resolve(repo.name, "refs/heads/rebased") == made.sha
    assert await rebase(repo, second, onto) == made


async def test_a_rebase_onto_an_ancestor_keeps_the_commits(repo: Repo) -> None:
    base = await repo.commit({"a": b"1"})
    head = await repo.commit({"a": b"2"}, await repo.commit({"b": b""}, base))
    assert await rebase(repo, head, base) == CommitOutcome(head)


async def test_a_rebase_of_what_is_contained_gives_the_new_base(repo: Repo) -> None:
    base = await repo.commit({"a": b"1"})
    onto = await repo.commit({"a": b"2"}, base)
    assert await rebase(repo, base, onto) == CommitOutcome(onto)
    assert await rebase(repo, onto, onto) == CommitOutcome(onto)


async def test_a_rebase_drops_commits_that_become_empty_and_keeps_those_that_were(repo: Repo) -> None:
    base = await repo.commit({"a": b"1", "b": b"1"})
    same = await repo.commit({"a": b"2"}, base, message="same")
    empty = await repo.commit([], same, message="empty")
    head = await repo.commit({"b": b"2"}, empty, message="other")
    onto = await repo.commit({"a": b"2"}, base)
    made = await rebase(repo, head, onto)
    assert made.sha is not None
    assert [commit.message for commit in await repo.git.log(repo.name, made.sha, exclude=onto)] == ["other", "empty"]


async def test_a_rebase_reports_the_first_commit_that_does_not_apply(repo: Repo) -> None:
    base = await repo.commit({"a": LINES, "b": b"1"})
    first = await repo.commit({"a": TOP}, base)
    second = await repo.commit({"b": b"2"}, first)
    onto = await repo.commit({"a": OTHER_TOP, "b": b"3"}, base)
    assert await rebase(repo, second, onto) == CommitOutcome(
        None, (Conflict("a", ConflictKind.CONTENT, blob_id(LINES), blob_id(OTHER_TOP), blob_id(TOP)),)
    )
    assert await repo.git.resolve(repo.name, "refs/heads/rebased") is None


async def test_a_range_with_a_merge_is_not_rebased(repo: Repo) -> None:
    base = await repo.commit({"a": b"1"})
    one, two, onto = [await repo.commit({name: b""}, base) for name in ("one", "two", "onto")]
    merged = await repo.git.merge(repo.name, ref=MAIN, expected_old=None, ours=one, theirs=two, author=ANN, message="m")
    assert merged.sha is not None
    assert await rebase(repo, merged.sha, onto) == CommitOutcome(None)
    assert await repo.git.resolve(repo.name, "refs/heads/rebased") is None


async def test_an_unrelated_history_is_rebased_from_its_root(repo: Repo) -> None:
    head = await repo.commit({"b": b"2"}, await repo.commit({"a": b"1"}))
    onto = await repo.commit({"z": b""})
    made = await rebase(repo, head, onto)
    assert made.sha is not None
    assert await repo.files(made.sha) == {"a": b"1", "b": b"2", "z": b""}


async def revert(repo: Repo, onto: str, base: str, head: str) -> CommitOutcome:
    return await repo.git.revert(
        repo.name, ref="refs/heads/reverted", expected_old=None, onto=onto, base=base, head=head, author=BOB, message="r\n"
    )


async def test_a_revert_takes_back_the_difference_and_keeps_what_came_after(repo: Repo) -> None:
    base = await repo.commit({"f": LINES, "gone": b"1", "moved": LINES + b"x\n"})
    middle = await repo.commit([WriteFile("f", TOP), WriteFile("new", b"2"), MoveFile("moved", "there")], base)
    head = await repo.commit({"gone": None}, middle)
    later = await repo.commit({"f": BOTH, "later": b"3"}, head)
    made = await revert(repo, later, base, head)
    assert made.sha is not None
    assert await repo.files(made.sha) == {"f": BOTTOM, "gone": b"1", "later": b"3", "moved": LINES + b"x\n"}
    commit = await repo.git.commit(repo.name, made.sha)
    assert (commit.parents, commit.author, commit.message) == ((later,), BOB, "r\n")
    assert await revert(repo, later, base, head) == made


async def test_a_revert_of_what_changed_again_conflicts(repo: Repo) -> None:
    base = await repo.commit({"f": LINES, "new": b"0"})
    head = await repo.commit({"f": TOP, "new": b"1"}, base)
    later = await repo.commit({"f": OTHER_TOP, "new": None}, head)
    made = await revert(repo, later, base, head)
    assert made.sha is None
    assert made.conflicts == (
        Conflict("f", ConflictKind.CONTENT, blob_id(TOP), blob_id(OTHER_TOP), blob_id(LINES)),
        Conflict("new", ConflictKind.DELETE_MODIFY, blob_id(b"1"), None, blob_id(b"0")),
    )
    assert await repo.git.resolve(repo.name, "refs/heads/reverted") is None


async def test_a_trial_revert_says_what_a_revert_would_make_and_moves_nothing(repo: Repo) -> None:
    base = await repo.commit({"f": LINES, "moved": LINES + b"x\n"})
    head = await repo.commit([WriteFile("f", TOP), MoveFile("moved", "there")], base)
    later = await repo.commit({"f": BOTH, "later": b"3"}, head)
    again = await repo.commit({"f": OTHER_TOP}, head)
    before = await repo.git.list_refs(repo.name, "refs/")
    clean = await repo.git.trial_revert(repo.name, later, base, head)
    clashing = await repo.git.trial_revert(repo.name, again, base, head)
    assert await repo.git.list_refs(repo.name, "refs/") == before
    made = await revert(repo, later, base, head)
    assert made.sha is not None
    assert clean.conflicts == ()
    assert clean.tree_id == (await repo.git.commit(repo.name, made.sha)).tree_id
    assert clashing.tree_id is None
    refused = await repo.git.revert(
        repo.name, ref=MAIN, expected_old=None, onto=again, base=base, head=head, author=ANN, message="m"
    )
    assert clashing.conflicts == refused.conflicts != ()


async def test_a_revert_of_a_revert_brings_the_change_back(repo: Repo) -> None:
    base = await repo.commit({"f": LINES})
    head = await repo.commit({"f": TOP, "g": b""}, base)
    first = await revert(repo, head, base, head)
    assert first.sha is not None
    again = await repo.git.revert(
        repo.name, ref=MAIN, expected_old=None, onto=first.sha, base=head, head=first.sha, author=ANN, message="m"
    )
    assert again.sha is not None
    assert await repo.files(again.sha) == await repo.files(head)
