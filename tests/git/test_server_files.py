"""UserCommitFiles of the Git server, over the wire."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from server_harness import ANN, MAIN, MISSING, REPOSITORY, SECONDS, ZERO, Calls, calling_with_repository, code, git, refusal

from conman.git.proto import gitaly_pb2 as pb

Kind = pb.UserCommitFilesActionHeader
EXECUTABLE = 0o100755


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling_with_repository(tmp_path / "storage") as made:
        yield made


def header(**given: Any) -> pb.UserCommitFilesRequest:
    made = pb.UserCommitFilesRequestHeader(
        **({"repository": REPOSITORY, "user": ANN, "branch_name": b"main", "commit_message": b"words\n"} | given)
    )
    if not made.HasField("timestamp"):
        made.timestamp.seconds = SECONDS
    return pb.UserCommitFilesRequest(header=made)


def action(kind: int, path: bytes, *contents: bytes, **given: Any) -> list[pb.UserCommitFilesRequest]:
    head = pb.UserCommitFilesActionHeader(action=kind, file_path=path, **given)
    parts = [pb.UserCommitFilesAction(header=head), *(pb.UserCommitFilesAction(content=content) for content in contents)]
    return [pb.UserCommitFilesRequest(action=part) for part in parts]


def commit(calls: Calls, *actions: list[pb.UserCommitFilesRequest], **given: Any) -> Any:
    return calls.operations.UserCommitFiles(iter([header(**given), *(message for messages in actions for message in messages)]))


def modes(calls: Calls, revision: str) -> dict[str, str]:
    listed = git(calls.folder, "ls-tree", "-r", revision).decode().splitlines()
    return {entry.split("\t")[1]: entry.split(" ")[0] for entry in listed}


async def test_the_first_commit_of_an_empty_repository_is_a_root(calls: Calls) -> None:
    update = (await commit(calls, action(Kind.CREATE, b"a", b"1\n"))).branch_update
    assert (update.branch_created, update.repo_created) == (True, True)
    assert calls.ref(MAIN) == update.commit_id
    assert calls.files(update.commit_id) == {"a": b"1\n"}
    assert git(calls.folder, "rev-list", "--parents", MAIN).decode().split() == [update.commit_id]
    calls.fsck()


async def test_a_new_branch_without_a_start_is_a_root_too(calls: Calls) -> None:
    calls.put({"a": b"1"}, ref=MAIN)
    update = (await commit(calls, action(Kind.CREATE, b"b", b"2"), branch_name=b"orphan")).branch_update
    assert (update.branch_created, update.repo_created) == (True, False)
    assert calls.files("orphan") == {"b": b"2"}


async def test_author_committer_and_time_are_those_of_the_request_so_that_a_repeat_makes_the_same_sha(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    given = {"commit_author_name": b"Ben", "commit_author_email": b"ben@example.org", "start_sha": base}
    shas = [
        (await commit(calls, action(Kind.CREATE, b"b", b"2"), branch_name=name, **given)).branch_update.commit_id
        for name in (b"one", b"two")
    ]
    assert shas[0] == shas[1]
    raw = git(calls.folder, "cat-file", "commit", shas[0]).decode()
    assert f"author Ben <ben@example.org> {SECONDS} +0200\n" in raw
    assert f"committer Ann Example <ann@example.org> {SECONDS} +0200\n" in raw
    assert raw.endswith("\n\nwords\n")


async def test_without_an_author_the_user_is_the_author(calls: Calls) -> None:
    sha = (await commit(calls, action(Kind.CREATE, b"a", b"1"))).branch_update.commit_id
    assert f"author Ann Example <ann@example.org> {SECONDS} +0200" in git(calls.folder, "cat-file", "commit", sha).decode()


async def test_actions_apply_in_order_each_on_what_the_one_before_left(calls: Calls) -> None:
    calls.put({"a": b"1", "b": b"2", "c": (EXECUTABLE, b"3"), "d/e": b"4", "gone": b"5"}, ref=MAIN)
    await commit(
        calls,
        action(Kind.UPDATE, b"a", b"1", b"1", b"1"),
        action(Kind.MOVE, b"b2", previous_path=b"b", infer_content=True),
        action(Kind.MOVE, b"c2", b"new", previous_path=b"c"),
        action(Kind.MOVE, b"d/f", previous_path=b"d/e"),
        action(Kind.DELETE, b"gone"),
        action(Kind.CREATE, b"gone/now/folder", b"6"),
        action(Kind.CREATE_DIR, b"empty"),
        action(Kind.CREATE, b"run", b"#!", execute_filemode=True),
        action(Kind.CHMOD, b"a", execute_filemode=True),
        action(Kind.CREATE, b"coded", base64.b64encode(b"\0\xff"), base64_content=True),
        action(Kind.UPDATE, b"coded", b"last"),
    )
    assert calls.files(MAIN) == {
        "a": b"111",
        "b2": b"2",
        "c2": b"new",
        "coded": b"last",
        "d/f": b"",
        "empty/.gitkeep": b"",
        "gone/now/folder": b"6",
        "run": b"#!",
    }
    shown = modes(calls, MAIN)
    assert [shown[name] for name in ("a", "c2", "run", "b2")] == ["100755", "100755", "100755", "100644"]
    calls.fsck()


async def test_a_mode_can_be_taken_back(calls: Calls) -> None:
    calls.put({"run": (EXECUTABLE, b"#!")}, ref=MAIN)
    await commit(calls, action(Kind.CHMOD, b"run"))
    assert modes(calls, MAIN) == {"run": "100644"}


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (action(Kind.CREATE, b"a", b"2"), StatusCode.ALREADY_EXISTS),
        (action(Kind.CREATE, b"folder", b"2"), StatusCode.ALREADY_EXISTS),
        (action(Kind.CREATE_DIR, b"folder"), StatusCode.ALREADY_EXISTS),
        (action(Kind.CREATE_DIR, b"a"), StatusCode.ALREADY_EXISTS),
        (action(Kind.UPDATE, b"none", b"2"), StatusCode.NOT_FOUND),
        (action(Kind.UPDATE, b"folder", b"2"), StatusCode.NOT_FOUND),
        (action(Kind.DELETE, b"none"), StatusCode.NOT_FOUND),
        (action(Kind.CHMOD, b"none"), StatusCode.NOT_FOUND),
        (action(Kind.MOVE, b"b", previous_path=b"none", infer_content=True), StatusCode.NOT_FOUND),
        (action(Kind.MOVE, b"folder/x", previous_path=b"a", infer_content=True), StatusCode.ALREADY_EXISTS),
        (action(Kind.CREATE, b"a/below", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"../x", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"/x", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b".git/hooks/x", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"x/.GIT/y", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"\xff", b"2"), StatusCode.INVALID_ARGUMENT),
        (action(Kind.CREATE, b"x", b"!!", base64_content=True), StatusCode.INVALID_ARGUMENT),
        (action(Kind.MOVE, b"x", previous_path=b"../a", infer_content=True), StatusCode.INVALID_ARGUMENT),
        (action(9, b"x"), StatusCode.INVALID_ARGUMENT),
        ([pb.UserCommitFilesRequest(action=pb.UserCommitFilesAction(content=b"stray"))], StatusCode.INVALID_ARGUMENT),
        ([pb.UserCommitFilesRequest()], StatusCode.INVALID_ARGUMENT),
        ([header()], StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_change_that_does_not_fit_is_refused_and_leaves_all_as_it_was(
    calls: Calls, wrong: list[pb.UserCommitFilesRequest], status: StatusCode
) -> None:
    head = calls.put({"a": b"1", "folder/x": b"1"}, ref=MAIN)
    refused = [pb.UserCommitFilesRequest(action=message.action) if message.HasField("action") else message for message in wrong]
    stream = iter([header(), *refused])
    if wrong[0].HasField("action") and wrong[0].action.HasField("header"):
        stream = iter([header(), *action(Kind.CREATE, b"before", b"1"), *refused])
    assert await code(calls.operations.UserCommitFiles(stream)) is status
    assert calls.ref(MAIN) == head


@pytest.mark.parametrize(
    "given",
    [
        {"branch_name": b""},
        {"branch_name": b"a..b"},
        {"commit_message": b""},
        {"commit_message": b"\xff"},
        {"user": pb.User()},
        {"user": pb.User(name=b"Ann", email=b"a@b", timezone="Mars/Olympus")},
        {"start_sha": "short"},
        {"start_sha": MISSING},
        {"start_branch_name": b"none"},
        {"expected_old_oid": "short"},
    ],
)
async def test_a_malformed_header_is_refused(calls: Calls, given: dict[str, Any]) -> None:
    head = calls.put({"a": b"1"}, ref=MAIN)
    assert await code(commit(calls, action(Kind.CREATE, b"b", b"2"), **given)) is StatusCode.INVALID_ARGUMENT
    assert calls.ref(MAIN) == head


async def test_a_stream_without_a_header_or_a_start_elsewhere_is_refused(calls: Calls) -> None:
    assert await code(calls.operations.UserCommitFiles(iter([]))) is StatusCode.INVALID_ARGUMENT
    headless = iter(action(Kind.CREATE, b"a", b"1"))
    assert await code(calls.operations.UserCommitFiles(headless)) is StatusCode.INVALID_ARGUMENT
    other = pb.Repository(storage_name="default", relative_path="other.git")
    assert await code(commit(calls, action(Kind.CREATE, b"b", b"2"), start_repository=other)) is StatusCode.UNIMPLEMENTED
    await commit(calls, action(Kind.CREATE, b"b", b"2"), start_repository=REPOSITORY)


async def test_a_branch_starts_from_a_sha_or_another_branch(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    await commit(calls, action(Kind.CREATE, b"b", b"2"), branch_name=b"one", start_sha=base)
    await commit(calls, action(Kind.CREATE, b"c", b"3"), branch_name=b"two", start_branch_name=b"one")
    assert calls.files("two") == {"a": b"1", "b": b"2", "c": b"3"}


async def test_a_private_ref_can_be_committed_to(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    private = b"refs/conman/snapshots/1"
    sha = (await commit(calls, action(Kind.CREATE, b"b", b"2"), branch_name=private, start_sha=base)).branch_update.commit_id
    assert calls.ref(private.decode()) == sha


async def test_an_expected_old_value_guards_the_branch(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)
    change = action(Kind.CREATE, b"b", b"2")
    status, words = await refusal(commit(calls, change, expected_old_oid=MISSING))
    assert status is StatusCode.FAILED_PRECONDITION
    assert MAIN in words
    assert await code(commit(calls, change, expected_old_oid=ZERO)) is StatusCode.FAILED_PRECONDITION
    await commit(calls, change, expected_old_oid=base)
    await commit(calls, change, branch_name=b"new", start_sha=base, expected_old_oid=ZERO)
    assert await code(commit(calls, change, branch_name=b"new", start_sha=base)) is StatusCode.FAILED_PRECONDITION


async def test_a_forced_commit_replaces_where_the_branch_was(calls: Calls) -> None:
    base = calls.put({"a": b"1"})
    calls.put({"a": b"2"}, [base], ref=MAIN)
    await commit(calls, action(Kind.CREATE, b"b", b"3"), start_sha=base, force=True)
    assert calls.files(MAIN) == {"a": b"1", "b": b"3"}


async def test_content_larger_than_a_message_arrives_whole(calls: Calls) -> None:
    data = os.urandom(6_000_000)
    parts = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]
    sha = (await commit(calls, action(Kind.CREATE, b"big", *parts))).branch_update.commit_id
    assert calls.files(sha)["big"] == data


async def test_of_eight_writers_on_one_branch_one_wins_and_nothing_is_lost(calls: Calls) -> None:
    base = calls.put({"a": b"1"}, ref=MAIN)

    async def write(number: int) -> str | None:
        change = action(Kind.CREATE, f"f{number}".encode(), b"x")
        try:
            return (await commit(calls, change, expected_old_oid=base)).branch_update.commit_id
        except grpc.aio.AioRpcError as error:
            assert error.code() is StatusCode.FAILED_PRECONDITION
            return None

    won = [sha for sha in await asyncio.gather(*map(write, range(8))) if sha is not None]
    assert won == [calls.ref(MAIN)]
    assert len(calls.files(MAIN)) == 2
    calls.fsck()
