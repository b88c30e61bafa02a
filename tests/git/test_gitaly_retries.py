"""What a client of a Gitaly server does again, how often and for how long; what it makes of a lost write that was built upon."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pygit2
import pytest
import pytest_asyncio
from fault_harness import MODES, PATIENT, PRIVATE, TAG, TOPIC, Stack, stack
from fault_proxy import HANGS, failing, losing
from git_harness import ANN, MAIN
from server_harness import until

from conman.git.adapter import GitError, RefUpdate, StaleRef, WriteFile
from conman.git.gitaly_channel import GitalyError, GitalyOptions

Status = grpc.StatusCode
TRANSIENT = {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED}
ATTEMPTS = 3
READING = {"pack": "InfoRefsUploadPack", "operations": "ListRefs"}
WRITING = {"pack": "PostReceivePack", "operations": "UserCommitFiles"}
MOVING = {"pack": "PostReceivePack", "operations": "UpdateReferences"}
FEW_TRIES = replace(PATIENT, attempts=ATTEMPTS)
HASTY = replace(FEW_TRIES, short_seconds=0.3, long_seconds=0.3, write_seconds=0.3, transfer_seconds=0.3)


@pytest_asyncio.fixture(params=list(MODES))
async def on(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path, request.param, FEW_TRIES) as made:
        yield made


def set_options(on: Stack, options: GitalyOptions) -> None:
    on.channel.options = replace(options, address=on.channel.options.address)


async def commit(on: Stack, repo: str, data: bytes = b"n\n") -> str:
    return await on.git.commit_files(
        repo,
        ref=MAIN,
        expected_old=on.shas.main,
        parent=on.shas.main,
        changes=[WriteFile("new", data)],
        author=ANN,
        message="new\n",
    )


def commits(on: Stack, repo: str, ref: str = MAIN) -> list[str]:
    """The first lines of the messages of a branch, as `git` lists them."""
    listed = subprocess.run(["git", "log", "--format=%s", ref], cwd=on.storage / repo, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


STATUSES = sorted(set(Status) - {Status.OK}, key=lambda status: status.name)


async def test_only_what_may_pass_is_tried_again_and_not_for_ever(on: Stack) -> None:
    for status in STATUSES:
        repo, tries = on.fresh(), ATTEMPTS if status in TRANSIENT else 1
        on.proxy.calm()
        on.proxy.fault(READING[on.mode], failing(status), until=None)
        with pytest.raises(GitalyError) as failed:
            await on.git.list_refs(repo, "refs/")
        # The very first call finds out whether the server takes settings, which INVALID_ARGUMENT denies.
        most = 2 if status is Status.INVALID_ARGUMENT else tries
        assert tries <= on.proxy.count(READING[on.mode]) <= most, status
        assert (failed.value.operation, failed.value.code) == ("list_refs", status)
        assert failed.value.safe_to_repeat or status not in TRANSIENT


async def test_a_write_is_tried_again_only_where_it_may_pass_and_has_not_been_done(on: Stack) -> None:
    for status in STATUSES:
        repo, tries = on.fresh(), ATTEMPTS if status in TRANSIENT else 1
        on.proxy.calm()
        on.proxy.fault(MOVING[on.mode], failing(status), until=None)
        with pytest.raises(GitError) as failed:
            await on.git.update_refs(repo, [RefUpdate(TAG, None, on.shas.main)])
        # ABORTED is a lock that another holds, as long as the ref is where it was.
        assert on.proxy.count(MOVING[on.mode]) == tries or (status, on.mode) == (Status.ABORTED, "operations"), status
        assert failed.value.operation == "update_refs"
        assert on.state(repo) == on.state(on.fresh())


async def test_a_server_that_never_answers_costs_a_read_one_deadline(on: Stack) -> None:
    repo = on.fresh()
    await on.git.list_refs(repo, "refs/")
    set_options(on, HASTY)
    on.proxy.calm()
    on.proxy.all_calls(HANGS)
    with pytest.raises(GitalyError) as failed:
        await on.git.list_refs(repo, "refs/")
    assert on.proxy.calls == [READING[on.mode]]
    assert (failed.value.code, failed.value.safe_to_repeat) == (Status.DEADLINE_EXCEEDED, True)


async def test_a_server_that_never_answers_costs_a_write_one_deadline_and_a_look(on: Stack) -> None:
    repo = on.fresh()
    await on.git.list_refs(repo, "refs/")
    await on.git.list_tree(repo, on.shas.main)
    set_options(on, replace(FEW_TRIES, write_seconds=0.5, transfer_seconds=0.5))
    on.proxy.calm()
    on.proxy.fault(MOVING[on.mode], HANGS, until=None)
    with pytest.raises(GitalyError) as failed:
        await on.git.update_refs(repo, [RefUpdate(TAG, None, on.shas.main)])
    assert on.proxy.count(MOVING[on.mode]) == 1
    assert on.proxy.calls[-1] == READING[on.mode]
    assert (failed.value.code, failed.value.safe_to_repeat) == (Status.DEADLINE_EXCEEDED, True)
    assert on.state(repo) == on.state(on.fresh())


async def test_calls_that_wait_for_a_silent_server_do_not_keep_others_waiting_for_ever(tmp_path: Path) -> None:
    async with stack(tmp_path, "operations", replace(FEW_TRIES, concurrency=1)) as on:
        repo = on.fresh()
        on.proxy.fault("ListRefs", HANGS)
        hung = asyncio.ensure_future(on.git.list_refs(repo, "refs/"))
        await until(lambda: on.proxy.count("ListRefs") == 1)
        set_options(on, replace(HASTY, concurrency=1))
        with pytest.raises(GitalyError) as failed:
            await on.git.list_refs(repo, "refs/")
        hung.cancel()
        assert (failed.value.code, failed.value.safe_to_repeat) == (Status.RESOURCE_EXHAUSTED, True)
        assert on.proxy.count("ListRefs") == 1


def built_upon(on: Stack, repo: str, ref: str) -> Callable[[], None]:
    """Somebody else commits on top of what a ref holds, behind the server's back."""

    def build() -> None:
        repository = pygit2.Repository(str(on.storage / repo))
        head = repository.references[ref].peel(pygit2.Commit)
        who = pygit2.Signature("Bob", "bob@example.org", head.commit_time + 60, 0)
        repository.create_commit(ref, who, who, "built upon\n", head.tree_id, [head.id])

    return build


async def test_a_lost_write_that_somebody_has_built_upon_is_done_and_not_stale(on: Stack) -> None:
    repo = on.fresh()
    lost = replace(losing(Status.UNAVAILABLE), meanwhile=built_upon(on, repo, MAIN))
    on.proxy.calm()
    on.proxy.fault(WRITING[on.mode], lost)
    sha = await commit(on, repo)
    assert on.proxy.count(WRITING[on.mode]) == 1
    assert commits(on, repo)[:3] == ["built upon", "new", "main 2"]
    assert str(pygit2.Repository(str(on.storage / repo)).revparse_single("main~1").id) == sha


async def test_a_lost_merge_that_somebody_has_built_upon_is_done_and_not_stale(on: Stack) -> None:
    repo = on.fresh()
    on.proxy.calm()
    on.proxy.fault(MOVING[on.mode], replace(losing(Status.UNAVAILABLE), meanwhile=built_upon(on, repo, MAIN)))
    outcome = await on.git.merge(
        repo, ref=MAIN, expected_old=on.shas.main, ours=on.shas.main, theirs=on.shas.feature, author=ANN, message="merge\n"
    )
    assert on.proxy.count(MOVING[on.mode]) == 1
    assert str(pygit2.Repository(str(on.storage / repo)).revparse_single("main~1").id) == outcome.sha
    assert commits(on, repo).count("merge") == 1
    assert on.scratch(repo) == []


async def test_a_lost_push_that_somebody_has_built_upon_is_done_and_not_stale(on: Stack) -> None:
    repo = on.fresh()
    on.proxy.calm()
    on.proxy.fault("PostReceivePack", replace(losing(Status.UNAVAILABLE), meanwhile=built_upon(on, repo, MAIN)))
    # Times that differ are what no operation can express.
    later = replace(ANN, when=ANN.when.replace(year=2025))
    sha = await on.git.commit_files(
        repo,
        ref=MAIN,
        expected_old=on.shas.main,
        parent=on.shas.main,
        changes=[WriteFile("new", b"n\n")],
        author=ANN,
        committer=later,
        message="new\n",
    )
    assert on.proxy.count("PostReceivePack") == 1
    assert str(pygit2.Repository(str(on.storage / repo)).revparse_single("main~1").id) == sha


async def test_a_write_that_did_not_get_through_before_somebody_moved_the_ref_is_stale(on: Stack) -> None:
    repo = on.fresh()
    on.proxy.calm()
    away = replace(failing(Status.UNAVAILABLE), meanwhile=built_upon(on, repo, MAIN))
    on.proxy.fault(WRITING[on.mode], away)
    with pytest.raises(StaleRef):
        await commit(on, repo)
    assert commits(on, repo)[:2] == ["built upon", "main 2"]


async def test_a_move_of_several_refs_that_was_lost_is_done_only_if_all_of_them_moved(on: Stack) -> None:
    repo = on.fresh()
    base, main = on.shas.base, on.shas.main
    moves = [RefUpdate(TOPIC, base, main), RefUpdate(TAG, None, main), RefUpdate(PRIVATE, base, None)]
    on.proxy.calm()
    on.proxy.fault(MOVING[on.mode], replace(losing(Status.UNAVAILABLE), meanwhile=built_upon(on, repo, TOPIC)))
    await on.git.update_refs(repo, moves)
    assert on.proxy.count(MOVING[on.mode]) == 1
    other = on.fresh()
    on.proxy.calm()
    # Nobody heard of it, and one of the refs has moved to where it was to go by another hand.
    on.proxy.fault(MOVING[on.mode], replace(failing(Status.UNAVAILABLE), meanwhile=lambda: set_ref(on, other, TOPIC, main)))
    with pytest.raises(StaleRef):
        await on.git.update_refs(other, moves)
    assert TAG not in (on.state(other) or {})


def set_ref(on: Stack, repo: str, ref: str, sha: str) -> None:
    pygit2.Repository(str(on.storage / repo)).references.create(ref, sha, force=True)
