"""OperationService of the Git server but for commits of files: branches, tags, merges, rebases, squashes, reverts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from server_harness import (
    ANN,
    MAIN,
    MISSING,
    REPOSITORY,
    SECONDS,
    ZERO,
    Calls,
    calling_with_repository,
    code,
    everything,
    git,
    refusal,
)

from conman.git.proto import gitaly_pb2 as pb

RESULT = "refs/conman/results/1"
WHO = f"Ann Example <ann@example.org> {SECONDS} +0200"
BOB = "Bob Beispiel <bob@example.org>"


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage") as made:
        yield made


def at_time(request: Any) -> Any:
    """A request at the one time of these tests."""
    request.timestamp.seconds = SECONDS
    return request


def raw(calls: Calls, sha: str) -> str:
    return git(calls.folder, "cat-file", "-p", sha).decode()


def parents(calls: Calls, sha: str) -> list[str]:
    return git(calls.folder, "rev-list", "--parents", "-n1", sha).decode().split()[1:]


def forked(calls: Calls, ours: dict[str, bytes], theirs: dict[str, bytes]) -> tuple[str, str, str]:
    """A base, and two commits on it: `main`, and one beside."""
    base = calls.put({"a": b"1\n2\n3\n4\n5\n", "b": b"1\n"})
    whole = {"a": b"1\n2\n3\n4\n5\n", "b": b"1\n"}
    return base, calls.put(whole | ours, [base], ref=MAIN), calls.put(whole | theirs, [base])


CLEAN: tuple[dict[str, bytes], dict[str, bytes]] = ({"a": b"one\n2\n3\n4\n5\n"}, {"a": b"1\n2\n3\n4\nfive\n"})
CLASH: tuple[dict[str, bytes], dict[str, bytes]] = ({"a": b"one\n"}, {"a": b"uno\n"})


async def test_a_branch_is_made_at_a_revision(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)

    def make(name: bytes, start: bytes, user: pb.User = ANN) -> Any:
        request = pb.UserCreateBranchRequest(repository=REPOSITORY, branch_name=name, start_point=start, user=user)
        return calls.operations.UserCreateBranch(request)

    branch = (await make(b"topic/one", b"main")).branch
    assert (branch.name, branch.target_commit.id) == (b"topic/one", sha)
    assert calls.ref("refs/heads/topic/one") == sha
    assert await code(make(b"topic/one", b"main")) is StatusCode.ALREADY_EXISTS
    assert await code(make(b"topic", b"main")) is StatusCode.INVALID_ARGUMENT
    assert await code(make(b"two", b"none")) is StatusCode.FAILED_PRECONDITION
    for name, start, user in ((b"", b"main", ANN), (b"a b", b"main", ANN), (b"x", b"", ANN), (b"x", b"main", pb.User())):
        assert await code(make(name, start, user)) is StatusCode.INVALID_ARGUMENT


async def test_a_branch_is_moved_only_from_where_it_is(calls: Calls) -> None:
    one = calls.put({"a": b"1"}, ref=MAIN)
    two = calls.put({"a": b"2"}, [one])

    def move(old: str, new: str) -> Any:
        request = pb.UserUpdateBranchRequest(
            repository=REPOSITORY, branch_name=b"main", user=ANN, oldrev=old.encode(), newrev=new.encode()
        )
        return calls.operations.UserUpdateBranch(request)

    await move(one, two)
    assert calls.ref(MAIN) == two
    assert await code(move(one, two)) is StatusCode.FAILED_PRECONDITION
    assert await code(move(two, MISSING)) is StatusCode.NOT_FOUND
    assert await code(move(two, "main")) is StatusCode.INVALID_ARGUMENT


async def test_a_branch_is_deleted_where_it_is_expected(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref="refs/heads/topic")

    def delete(old: str = "") -> Any:
        request = pb.UserDeleteBranchRequest(repository=REPOSITORY, branch_name=b"topic", user=ANN, expected_old_oid=old)
        return calls.operations.UserDeleteBranch(request)

    assert await code(delete(MISSING)) is StatusCode.FAILED_PRECONDITION
    await delete(sha)
    assert calls.ref("refs/heads/topic") is None
    assert await code(delete()) is StatusCode.FAILED_PRECONDITION
    calls.put({"a": b"2"}, ref="refs/heads/topic")
    await delete()
    assert calls.ref("refs/heads/topic") is None


async def test_a_branch_goes_forward_and_never_back(calls: Calls) -> None:
    one = calls.put({"a": b"1"}, ref=MAIN)
    two = calls.put({"a": b"2"}, [one])
    beside = calls.put({"a": b"3"}, [one])

    def forward(sha: str, old: str = "", branch: bytes = b"main") -> Any:
        request = pb.UserFFBranchRequest(repository=REPOSITORY, user=ANN, commit_id=sha, branch=branch, expected_old_oid=old)
        return calls.operations.UserFFBranch(request)

    assert (await forward(two)).branch_update.commit_id == two == calls.ref(MAIN)
    assert await code(forward(beside)) is StatusCode.FAILED_PRECONDITION
    assert await code(forward(two, one)) is StatusCode.FAILED_PRECONDITION
    assert await code(forward(two, MISSING)) is StatusCode.FAILED_PRECONDITION
    assert await code(forward(MISSING)) is StatusCode.INVALID_ARGUMENT
    assert await code(forward(two, branch=b"none")) is StatusCode.NOT_FOUND
    assert calls.ref(MAIN) == two


async def test_a_tag_is_light_without_words_and_annotated_with_them(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)

    def make(name: bytes, target: bytes = b"main", message: bytes = b"") -> Any:
        request = pb.UserCreateTagRequest(repository=REPOSITORY, tag_name=name, user=ANN, target_revision=target, message=message)
        return calls.operations.UserCreateTag(at_time(request))

    light = (await make(b"v1")).tag
    assert light.id == light.target_commit.id == sha == calls.ref("refs/tags/v1")
    tag = (await make(b"v2", message="Größe".encode())).tag
    assert (tag.id, tag.target_commit.id) == (calls.ref("refs/tags/v2"), sha)
    assert raw(calls, tag.id) == f"object {sha}\ntype commit\ntag v2\ntagger {WHO}\n\nGröße\n"
    assert await code(make(b"v1")) is StatusCode.ALREADY_EXISTS
    assert await code(make(b"v3", b"none")) is StatusCode.FAILED_PRECONDITION
    assert await code(make(b"a b")) is StatusCode.INVALID_ARGUMENT
    calls.fsck()


def merge(calls: Calls, source: str, parent: str = MAIN, target: str = RESULT, **given: Any) -> Any:
    request = pb.UserMergeToRefRequest(
        repository=REPOSITORY,
        user=ANN,
        source_sha=source,
        first_parent_ref=parent.encode(),
        target_ref=target.encode(),
        message=b"merge\n",
        **given,
    )
    return calls.operations.UserMergeToRef(at_time(request))


async def test_a_merge_is_made_to_any_ref_from_any_parent(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    sha = (await merge(calls, theirs)).commit_id
    assert calls.ref(RESULT) == sha
    assert calls.ref(MAIN) == ours
    assert parents(calls, sha) == [ours, theirs]
    assert calls.files(sha)["a"] == b"one\n2\n3\n4\nfive\n"
    assert f"author {WHO}\ncommitter {WHO}\n\nmerge\n" in raw(calls, sha)
    assert (await merge(calls, theirs, parent=ours, target="refs/conman/results/2")).commit_id == sha
    calls.fsck()


async def test_a_merge_never_only_goes_forward(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    ahead = calls.put({"a": b"2"}, [base])
    assert parents(calls, (await merge(calls, ahead)).commit_id) == [base, ahead]
    contained = (await merge(calls, base, parent=ahead, target="refs/conman/results/2")).commit_id
    assert parents(calls, contained) == [ahead, base]


async def test_a_merge_that_conflicts_is_aborted_names_the_paths_and_moves_nothing(calls: Calls) -> None:
    _, _, theirs = forked(calls, *CLASH)
    status, words = await refusal(merge(calls, theirs))
    assert status is StatusCode.ABORTED
    assert words.endswith("conflict in a")
    assert calls.ref(RESULT) is None


async def test_the_target_of_a_merge_is_guarded_by_its_old_value(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    assert await code(merge(calls, theirs, expected_old_oid=ours)) is StatusCode.FAILED_PRECONDITION
    assert await code(merge(calls, theirs, target=MAIN, expected_old_oid=ZERO)) is StatusCode.FAILED_PRECONDITION
    first = (await merge(calls, theirs, expected_old_oid=ZERO)).commit_id
    assert await code(merge(calls, theirs, expected_old_oid=ours)) is StatusCode.FAILED_PRECONDITION
    assert calls.ref(RESULT) == first
    sha = (await merge(calls, theirs, target=MAIN, expected_old_oid=ours)).commit_id
    assert calls.ref(MAIN) == sha


async def test_a_merge_of_what_does_not_exist_or_to_no_ref_is_refused(calls: Calls) -> None:
    _, _, theirs = forked(calls, *CLEAN)
    for wrong in (
        merge(calls, MISSING),
        merge(calls, theirs, parent="none"),
        merge(calls, theirs, target="main"),
        merge(calls, theirs, expected_old_oid="short"),
        merge(calls, "", parent=MAIN),
    ):
        assert await code(wrong) is StatusCode.INVALID_ARGUMENT


async def two_step(calls: Calls, commit_id: str, *, apply: bool = True, **given: Any) -> list[pb.UserMergeBranchResponse]:
    first = pb.UserMergeBranchRequest(
        repository=REPOSITORY, user=ANN, commit_id=commit_id, branch=b"main", message=b"merge\n", **given
    )
    requests = [at_time(first), pb.UserMergeBranchRequest(apply=apply)]
    return await everything(calls.operations.UserMergeBranch(iter(requests)))


async def test_a_branch_is_merged_in_two_steps(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    shown, applied = await two_step(calls, theirs)
    assert shown.commit_id == applied.branch_update.commit_id == calls.ref(MAIN)
    assert parents(calls, shown.commit_id) == [ours, theirs]


async def test_the_first_step_of_a_merge_waits_for_the_second(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    told = asyncio.Event()

    async def requests() -> AsyncIterator[pb.UserMergeBranchRequest]:
        yield at_time(pb.UserMergeBranchRequest(repository=REPOSITORY, user=ANN, commit_id=theirs, branch=b"main", message=b"m"))
        await told.wait()
        yield pb.UserMergeBranchRequest(apply=True)

    call = calls.operations.UserMergeBranch(requests())
    shown = await call.read()
    assert calls.ref(MAIN) == ours
    told.set()
    await call.read()
    assert calls.ref(MAIN) == shown.commit_id


async def test_a_merge_that_is_not_applied_or_lost_its_race_moves_nothing(calls: Calls) -> None:
    base, ours, theirs = forked(calls, *CLEAN)
    with pytest.raises(Exception, match="aborted by client"):
        await two_step(calls, theirs, apply=False)
    with pytest.raises(Exception, match="could not update"):
        await two_step(calls, theirs, expected_old_oid=base)
    with pytest.raises(Exception, match="does not exist"):
        await two_step(calls, MISSING)
    assert calls.ref(MAIN) == ours


async def test_a_squashing_merge_has_one_parent(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    shown, _ = await two_step(calls, theirs, squash=True)
    assert parents(calls, shown.commit_id) == [ours]


def rebase(calls: Calls, source: str, onto: str = MAIN, **given: Any) -> Any:
    request = pb.UserRebaseToRefRequest(
        repository=REPOSITORY,
        user=ANN,
        source_sha=source,
        first_parent_ref=onto.encode(),
        target_ref=RESULT.encode(),
        **given,
    )
    return calls.operations.UserRebaseToRef(at_time(request))


async def test_a_rebase_keeps_authors_and_has_the_user_as_committer(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    sha = (await rebase(calls, theirs)).commit_id
    assert calls.ref(RESULT) == sha
    assert parents(calls, sha) == [ours]
    assert f"author {BOB}" in raw(calls, sha)
    assert f"committer {WHO}" in raw(calls, sha)
    assert (await rebase(calls, theirs, expected_old_oid=sha)).commit_id == sha
    calls.fsck()


async def test_a_rebase_that_conflicts_or_would_replay_a_merge_is_refused(calls: Calls) -> None:
    base, ours, theirs = forked(calls, *CLASH)
    assert await code(rebase(calls, theirs)) is StatusCode.ABORTED
    merged = calls.put({"a": b"x"}, [base, theirs])
    assert await code(rebase(calls, merged)) is StatusCode.FAILED_PRECONDITION
    assert await code(rebase(calls, ours, expected_old_oid=base)) is StatusCode.FAILED_PRECONDITION
    assert await code(rebase(calls, MISSING)) is StatusCode.INVALID_ARGUMENT
    assert calls.ref(RESULT) is None


def squash(calls: Calls, start: str, end: str, **given: Any) -> Any:
    author = pb.User(name=b"Ben", email=b"ben@example.org")
    request = pb.UserSquashRequest(
        **(
            {"repository": REPOSITORY, "user": ANN, "author": author, "start_sha": start, "end_sha": end}
            | {"commit_message": b"squashed"}
            | given
        )
    )
    return calls.operations.UserSquash(at_time(request))


async def test_a_squash_is_the_end_on_top_of_the_start(calls: Calls) -> None:
    start = calls.put({"a": b"0"}, ref=MAIN)
    middle = calls.put({"a": b"1", "b": b"1"}, [start])
    end = calls.put({"a": b"2"}, [middle])
    sha = (await squash(calls, start, end)).squash_sha
    assert parents(calls, sha) == [start]
    assert calls.files(sha) == {"a": b"2"}
    assert f"author Ben <ben@example.org> {SECONDS} +0200\ncommitter {WHO}\n\nsquashed\n" in raw(calls, sha)
    assert calls.ref(MAIN) == start
    for wrong in (
        squash(calls, start, MISSING),
        squash(calls, "", end),
        squash(calls, start, end, commit_message=b""),
        squash(calls, start, end, author=pb.User()),
    ):
        assert await code(wrong) is StatusCode.INVALID_ARGUMENT


async def test_a_squash_onto_a_start_that_went_on_is_a_merge_with_one_parent(calls: Calls) -> None:
    _, ours, theirs = forked(calls, *CLEAN)
    sha = (await squash(calls, ours, theirs)).squash_sha
    assert parents(calls, sha) == [ours]
    assert calls.files(sha)["a"] == b"one\n2\n3\n4\nfive\n"
    clashing = calls.put({"a": b"other\n", "b": b"1\n"}, parents(calls, theirs))
    assert await code(squash(calls, ours, clashing)) is StatusCode.ABORTED


def revert(calls: Calls, sha: str, **given: Any) -> Any:
    request = pb.UserRevertRequest(
        **(
            {"repository": REPOSITORY, "user": ANN, "commit": pb.GitCommit(id=sha), "branch_name": b"main", "message": b"undo\n"}
            | given
        )
    )
    return calls.operations.UserRevert(at_time(request))


async def test_a_revert_takes_back_what_a_commit_did_and_no_more(calls: Calls) -> None:
    one = calls.put({"a": b"1"})
    two = calls.put({"a": b"2"}, [one])
    three = calls.put({"a": b"2", "b": b"3"}, [two], ref=MAIN)
    update = (await revert(calls, two, expected_old_oid=three)).branch_update
    assert (calls.ref(MAIN), update.branch_created) == (update.commit_id, False)
    assert calls.files(MAIN) == {"a": b"1", "b": b"3"}
    assert f"author {WHO}\ncommitter {WHO}\n\nundo\n" in raw(calls, update.commit_id)


async def test_a_merge_is_reverted_against_its_first_parent_and_a_root_against_nothing(calls: Calls) -> None:
    root = calls.put({"a": b"1"})
    ours, theirs = calls.put({"a": b"1", "b": b"1"}, [root]), calls.put({"a": b"1", "c": b"1"}, [root])
    merged = calls.put({"a": b"1", "b": b"1", "c": b"1"}, [ours, theirs], ref=MAIN)
    await revert(calls, merged)
    assert calls.files(MAIN) == {"a": b"1", "b": b"1"}
    await revert(calls, root)
    assert calls.files(MAIN) == {"b": b"1"}


async def test_a_revert_that_conflicts_is_aborted_and_one_of_nothing_says_so(calls: Calls) -> None:
    one = calls.put({"a": b"1"})
    two = calls.put({"a": b"2"}, [one])
    three = calls.put({"a": b"3"}, [two], ref=MAIN)
    assert await code(revert(calls, two)) is StatusCode.ABORTED
    empty = calls.put({"a": b"3"}, [three])
    assert (await revert(calls, empty)).create_tree_error_code == pb.UserRevertResponse.EMPTY
    assert await code(revert(calls, three, expected_old_oid=two)) is StatusCode.FAILED_PRECONDITION
    assert await code(revert(calls, MISSING)) is StatusCode.INVALID_ARGUMENT
    assert await code(revert(calls, three, message=b"")) is StatusCode.INVALID_ARGUMENT
    assert calls.ref(MAIN) == three


async def test_a_revert_may_go_to_a_new_branch_or_only_be_tried(calls: Calls) -> None:
    one = calls.put({"a": b"1"})
    two = calls.put({"a": b"2"}, [one], ref=MAIN)
    tried = (await revert(calls, two, dry_run=True)).branch_update
    assert (tried.commit_id, calls.ref(MAIN)) == (two, two)
    update = (await revert(calls, two, branch_name=b"undo", start_branch_name=b"main")).branch_update
    assert update.branch_created
    assert calls.ref("refs/heads/undo") == update.commit_id
    calls.put({"a": b"9"}, ref="refs/heads/undo")
    diverged = revert(calls, two, branch_name=b"undo", start_branch_name=b"main")
    assert await code(diverged) is StatusCode.FAILED_PRECONDITION
