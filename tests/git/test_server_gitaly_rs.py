"""The Git server with `--like-gitaly-rs`: what was observed of today's gitaly-rs, call by call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from server_harness import ANN, MAIN, MISSING, REPOSITORY, ZERO, Calls, calling_with_repository, code, everything, git

from conman.git.proto import gitaly_pb2 as pb
from conman.git.server_call import ServerFlavour

PRIVATE = "refs/conman/snapshots/1"
Kind = pb.UserCommitFilesActionHeader


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage", ServerFlavour.GITALY_RS) as made:
        yield made


def action(kind: int, path: bytes, *contents: bytes, **given: Any) -> list[pb.UserCommitFilesRequest]:
    head = pb.UserCommitFilesActionHeader(action=kind, file_path=path, **given)
    parts = [pb.UserCommitFilesAction(header=head), *(pb.UserCommitFilesAction(content=content) for content in contents)]
    return [pb.UserCommitFilesRequest(action=part) for part in parts]


def commit(calls: Calls, *actions: list[pb.UserCommitFilesRequest], **given: Any) -> Any:
    made = {"repository": REPOSITORY, "user": ANN, "branch_name": b"main", "commit_message": b"words"} | given
    header = pb.UserCommitFilesRequest(header=pb.UserCommitFilesRequestHeader(**made))
    return calls.operations.UserCommitFiles(iter([header, *(message for messages in actions for message in messages)]))


def merge(calls: Calls, source: str, target: str = MAIN, **given: Any) -> Any:
    request = pb.UserMergeToRefRequest(
        repository=REPOSITORY, user=ANN, source_sha=source, target_ref=target.encode(), message=b"merge", **given
    )
    return calls.operations.UserMergeToRef(request)


def moves(*updates: tuple[str, str, str]) -> list[pb.UpdateReferencesRequest]:
    made = [
        pb.UpdateReferencesRequest.Update(reference=ref.encode(), old_object_id=old.encode(), new_object_id=new.encode())
        for ref, old, new in updates
    ]
    return [pb.UpdateReferencesRequest(repository=REPOSITORY, updates=made)]


def refs(calls: Calls) -> dict[str, str]:
    repository = calls.open()
    return {name: str(repository.references[name].target) for name in repository.references}


async def test_stubs_say_ok_answer_nothing_and_change_nothing(calls: Calls) -> None:
    one = calls.put({"a": b"1"})
    two = calls.put({"a": b"2"}, [one], ref=MAIN)
    before = refs(calls)
    common: dict[str, Any] = {"repository": REPOSITORY, "user": ANN}
    operations, repositories = calls.operations, calls.repositories
    answers = [
        await operations.UserUpdateBranch(pb.UserUpdateBranchRequest(branch_name=b"main", newrev=one.encode(), **common)),
        await operations.UserDeleteBranch(pb.UserDeleteBranchRequest(branch_name=b"main", **common)),
        await operations.UserFFBranch(pb.UserFFBranchRequest(branch=b"main", commit_id=two, **common)),
        await operations.UserRebaseToRef(pb.UserRebaseToRefRequest(source_sha=two, target_ref=b"refs/x/y", **common)),
        await operations.UserSquash(pb.UserSquashRequest(start_sha=one, end_sha=two, **common)),
        await operations.UserRevert(pb.UserRevertRequest(commit=pb.GitCommit(id=two), branch_name=b"main", **common)),
        await repositories.WriteRef(pb.WriteRefRequest(repository=REPOSITORY, ref=b"refs/x/y", revision=one.encode())),
        await repositories.FindMergeBase(pb.FindMergeBaseRequest(repository=REPOSITORY, revisions=[one.encode(), two.encode()])),
        await operations.UserCreateBranch(pb.UserCreateBranchRequest(branch_name=b"x", **common)),
        *await everything(operations.UserMergeBranch(iter([pb.UserMergeBranchRequest(branch=b"main", commit_id=two, **common)]))),
    ]
    assert [answer.ByteSize() for answer in answers] == [0] * 10
    assert refs(calls) == before


async def test_stubs_still_want_a_repository_of_a_storage_that_is_served(calls: Calls) -> None:
    revert = calls.operations.UserRevert
    assert await code(revert(pb.UserRevertRequest())) is StatusCode.INVALID_ARGUMENT
    other = pb.Repository(storage_name="other", relative_path="x.git")
    assert await code(revert(pb.UserRevertRequest(repository=other))) is StatusCode.NOT_FOUND


async def test_the_first_commit_can_not_be_made_from_files(calls: Calls) -> None:
    assert await code(commit(calls, action(Kind.CREATE, b"a", b"1"))) is StatusCode.INVALID_ARGUMENT


async def test_files_are_written_and_deleted_whatever_was_there(calls: Calls) -> None:
    calls.put({"a": b"1", "b": b"2", "c/d": b"3"}, ref=MAIN)
    await commit(
        calls,
        action(Kind.CREATE, b"a", b"over"),
        action(Kind.UPDATE, b"new", b"made"),
        action(Kind.DELETE, b"none"),
        action(Kind.DELETE, b"c"),
    )
    assert calls.files(MAIN) == {"a": b"over", "b": b"2", "new": b"made"}
    calls.fsck()


async def test_the_author_is_the_committer_and_it_is_now(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    given: dict[str, Any] = {"commit_author_name": b"Ben", "commit_author_email": b"ben@example.org", "start_sha": base}
    sha = (await commit(calls, action(Kind.CREATE, b"b", b"2"), branch_name=PRIVATE.encode(), **given)).branch_update.commit_id
    assert calls.ref(PRIVATE) == sha
    author, committer = git(calls.folder, "log", "-1", "--format=%an %at%n%cn %ct", sha).decode().splitlines()
    assert author == committer
    assert author.startswith("Ben ")
    assert int(author.split()[1]) > 1_714_557_600


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (action(Kind.MOVE, b"b", previous_path=b"a"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CHMOD, b"a", execute_filemode=True), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE_DIR, b"d"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"../x", b"1"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"x", b"MQ==", base64_content=True), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b".git/x", b"1"), StatusCode.INTERNAL),
        (action(Kind.UPDATE, b"a", b"1"), StatusCode.INTERNAL),
    ],
)
async def test_other_changes_are_refused_and_one_that_changes_nothing_fails(
    calls: Calls, wrong: list[pb.UserCommitFilesRequest], status: StatusCode
) -> None:
    head = calls.put({"a": b"1"}, ref=MAIN)
    assert await code(commit(calls, wrong)) is status
    assert calls.ref(MAIN) == head


async def test_an_expected_old_value_is_honoured(calls: Calls) -> None:
    calls.put({"a": b"1"}, ref=MAIN)
    stale = commit(calls, action(Kind.CREATE, b"b", b"2"), expected_old_oid=MISSING)
    assert await code(stale) is StatusCode.FAILED_PRECONDITION


async def test_of_eight_writers_at_once_the_losers_get_internal_and_nothing_is_lost(calls: Calls) -> None:
    calls.put({"a": b"1"}, ref=MAIN)

    async def write(number: int) -> str | None:
        try:
            return (await commit(calls, action(Kind.CREATE, f"f{number}".encode(), b"x"))).branch_update.commit_id
        except grpc.aio.AioRpcError as error:
            assert error.code() is StatusCode.INTERNAL
            return None

    won = [sha for sha in await asyncio.gather(*map(write, range(8))) if sha is not None]
    assert calls.ref(MAIN) in won
    assert len(calls.files(MAIN)) == 1 + len(won)
    calls.fsck()


async def test_a_merge_has_a_commit_but_for_what_is_contained(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    ahead = calls.put({"a": b"2"}, [base])
    sha = (await merge(calls, ahead)).commit_id
    assert git(calls.folder, "rev-list", "--parents", "-n1", MAIN).decode().split() == [sha, base, ahead]
    assert (await merge(calls, base)).commit_id == sha
    private = (await merge(calls, ahead, PRIVATE, first_parent_ref=MAIN.encode())).commit_id
    assert calls.ref(PRIVATE) == private == sha


async def test_a_merge_that_conflicts_or_can_not_start_is_internal_and_a_stale_one_is_not(calls: Calls) -> None:
    base = calls.put({"a": b"1"})
    ours, theirs = calls.put({"a": b"2"}, [base], ref=MAIN), calls.put({"a": b"3"}, [base])
    assert await code(merge(calls, theirs)) is StatusCode.INTERNAL
    assert await code(merge(calls, MISSING)) is StatusCode.INTERNAL
    assert await code(merge(calls, theirs, expected_old_oid=base)) is StatusCode.FAILED_PRECONDITION
    assert calls.ref(MAIN) == ours


async def test_a_branch_or_tag_of_a_name_that_is_taken_exists_and_of_a_missing_revision_is_internal(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)

    def branch(name: bytes, start: bytes) -> Any:
        request = pb.UserCreateBranchRequest(repository=REPOSITORY, user=ANN, branch_name=name, start_point=start)
        return calls.operations.UserCreateBranch(request)

    def tag(name: bytes, target: bytes) -> Any:
        request = pb.UserCreateTagRequest(
            repository=REPOSITORY, user=ANN, tag_name=name, target_revision=target, message=b"words"
        )
        return calls.operations.UserCreateTag(request)

    made = (await branch(b"one", b"main")).branch
    assert made.target_commit == pb.GitCommit(id=sha)
    assert (await tag(b"v1", b"main")).tag.target_commit == pb.GitCommit(id=sha)
    for make in (branch, tag):
        assert await code(make(b"one" if make is branch else b"v1", b"main")) is StatusCode.ALREADY_EXISTS
        assert await code(make(b"two", b"none")) is StatusCode.INTERNAL


async def test_refs_move_together_by_comparison_and_a_lost_race_is_internal(calls: Calls) -> None:
    one = calls.put({"a": b"1"}, ref=MAIN)
    two = calls.put({"a": b"2"}, [one])
    await calls.refs.UpdateReferences(iter(moves((MAIN, one, two), ("refs/tags/r1", "", two), (PRIVATE, ZERO, two))))
    before = refs(calls)
    assert before[MAIN] == before["refs/tags/r1"] == before[PRIVATE] == two
    for lost in (
        moves((PRIVATE, two, one), (MAIN, one, two)),
        moves(("refs/tags/r1", "", one)),
        moves((PRIVATE, "", ZERO)),
        moves(("main", two, one)),
        moves(("refs/heads/x", ZERO, MISSING)),
    ):
        assert await code(calls.refs.UpdateReferences(iter(lost))) is StatusCode.INTERNAL
    assert await code(calls.refs.UpdateReferences(iter(moves((MAIN, two, ""))))) is StatusCode.INVALID_ARGUMENT
    assert refs(calls) == before
    await calls.refs.DeleteRefs(pb.DeleteRefsRequest(repository=REPOSITORY, refs=[PRIVATE.encode()]))
    assert PRIVATE not in refs(calls)


async def test_commits_branches_and_tags_are_told_by_their_ids_alone(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    git(calls.folder, "tag", "v1", sha)
    found = await calls.commits.FindCommit(pb.FindCommitRequest(repository=REPOSITORY, revision=b"main"))
    assert found.commit == pb.GitCommit(id=sha)
    none = await calls.commits.FindCommit(pb.FindCommitRequest(repository=REPOSITORY, revision=b"none"))
    assert not none.HasField("commit")
    (page,) = await everything(calls.commits.ListCommits(pb.ListCommitsRequest(repository=REPOSITORY, revisions=["main"])))
    assert list(page.commits) == [pb.GitCommit(id=sha)]
    (branches,) = await everything(calls.refs.FindLocalBranches(pb.FindLocalBranchesRequest(repository=REPOSITORY)))
    assert list(branches.local_branches) == [pb.Branch(name=MAIN.encode(), target_commit=pb.GitCommit(id=sha))]
    (tags,) = await everything(calls.refs.FindAllTags(pb.FindAllTagsRequest(repository=REPOSITORY)))
    assert list(tags.tags) == [pb.Tag(name=b"refs/tags/v1", id=sha)]


async def test_ancestry_of_what_does_not_exist_is_internal(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    ask = calls.commits.CommitIsAncestor
    assert (await ask(pb.CommitIsAncestorRequest(repository=REPOSITORY, ancestor_id=sha, child_id="main"))).value
    missing = pb.CommitIsAncestorRequest(repository=REPOSITORY, ancestor_id=MISSING, child_id=sha)
    assert await code(ask(missing)) is StatusCode.INTERNAL


async def test_the_root_of_a_tree_is_empty_and_a_recursive_listing_has_no_folders(calls: Calls) -> None:
    calls.put({"a": b"1", "b/c": b"2", "b/d/e": b"3"}, ref=MAIN)

    def ask(path: bytes, **given: Any) -> Any:
        return calls.commits.GetTreeEntries(pb.GetTreeEntriesRequest(repository=REPOSITORY, revision=b"main", path=path, **given))

    (flat,) = await everything(ask(b""))
    assert [(entry.path, entry.flat_path) for entry in flat.entries] == [(b"a", b""), (b"b", b"")]
    (deep,) = await everything(ask(b"", recursive=True))
    assert [entry.path for entry in deep.entries] == [b"a", b"b/c", b"b/d/e"]
    assert await code(ask(b".")) is StatusCode.INVALID_ARGUMENT
    (page,) = await everything(ask(b"", recursive=True, pagination_params=pb.PaginationParameter(limit=1, page_token="a")))
    assert ([entry.path for entry in page.entries], page.pagination_cursor.next_cursor) == ([b"b/c"], "b/c")


async def test_many_contents_fail_as_a_whole_when_one_is_missing(calls: Calls) -> None:
    data = b"x" * 1_000_000
    calls.put({"big": data}, ref=MAIN)

    def ask(*paths: bytes) -> Any:
        wanted = [pb.GetBlobsRequest.RevisionPath(revision="main", path=path) for path in paths]
        return calls.blobs.GetBlobs(pb.GetBlobsRequest(repository=REPOSITORY, revision_paths=wanted, limit=-1))

    assert [answer.data for answer in await everything(ask(b"big"))] == [data]
    assert await code(ask(b"big", b"none")) is StatusCode.INTERNAL
    entry = pb.TreeEntryRequest(repository=REPOSITORY, revision=b"main", path=b"none")
    assert await code(calls.commits.TreeEntry(entry)) is StatusCode.NOT_FOUND


async def test_an_advertisement_begins_with_the_refs(calls: Calls) -> None:
    sha = calls.put({"a": b"1"}, ref=MAIN)
    answers = await everything(calls.smart.InfoRefsUploadPack(pb.InfoRefsRequest(repository=REPOSITORY)))
    assert answers[0].data[4:44].decode() == sha


async def test_a_raw_diff_has_short_ids(calls: Calls) -> None:
    one = calls.put({"a": b"1\n"})
    two = calls.put({"a": b"2\n"}, [one])
    request = pb.RawDiffRequest(repository=REPOSITORY, left_commit_id=one, right_commit_id=two)
    answers = await everything(calls.diffs.RawDiff(request))
    assert b"".join(answer.data for answer in answers) == git(calls.folder, "diff", one, two)
