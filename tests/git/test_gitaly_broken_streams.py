"""Connections that are reset or silent in the middle of a file, and answers that end too early: noticed, mended, not kept."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from fault_harness import MODES, PATIENT, Stack, adapter, stack
from fault_proxy import cut_short
from git_harness import ANN, MAIN
from server_harness import until

from conman.git.adapter import GitError, WriteFile
from conman.git.gitaly_channel import GitalyError

Status = grpc.StatusCode
BIG = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(65_536))
"""Two MB that nothing compresses."""


@pytest_asyncio.fixture(params=list(MODES))
async def on(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path, request.param) as made:
        yield made


async def commit(on: Stack, repo: str) -> str:
    return await on.git.commit_files(
        repo,
        ref=MAIN,
        expected_old=on.shas.main,
        parent=on.shas.main,
        changes=[WriteFile("big.bin", BIG)],
        author=ANN,
        message="big\n",
    )


def git(on: Stack, repo: str, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=on.storage / repo, capture_output=True, check=True).stdout


@pytest.mark.parametrize("passed", [0, 60_000, 1_500_000])
async def test_an_upload_whose_connection_is_reset_is_made_again_and_is_there_once(on: Stack, passed: int) -> None:
    repo = on.fresh()
    await on.git.list_tree(repo, on.shas.main)
    resets = []

    def reset() -> None:
        resets.append(passed)
        on.wire.reset()

    on.wire.after("up", passed, reset)
    sha = await commit(on, repo)
    assert resets == [passed]
    assert git(on, repo, "rev-parse", MAIN).decode().strip() == sha
    assert git(on, repo, "rev-list", "--count", f"{on.shas.main}..{MAIN}") == b"1\n"
    assert git(on, repo, "cat-file", "blob", f"{MAIN}:big.bin") == BIG
    git(on, repo, "fsck", "--strict")


@pytest.mark.parametrize("passed", [0, 60_000, 1_500_000])
async def test_a_download_whose_connection_is_reset_is_made_again_and_is_whole(on: Stack, passed: int, tmp_path: Path) -> None:
    repo = on.fresh()
    sha = await commit(on, repo)
    # Another adapter, which has nothing of it yet.
    with adapter(on.mode, on.channel, tmp_path / "other") as git_anew:
        on.wire.after("down", passed)
        found = await git_anew.read_file(repo, sha, "big.bin")
    assert found is not None
    assert found.data == BIG


async def test_a_connection_that_falls_silent_costs_a_deadline_and_serves_again_when_it_speaks(on: Stack) -> None:
    repo = on.fresh()
    before = await on.git.list_refs(repo, "refs/")
    address = on.channel.options.address
    on.channel.options = replace(PATIENT, address=address, short_seconds=0.5, long_seconds=0.5)
    on.wire.stall("up", "down")
    with pytest.raises(GitalyError) as failed:
        await on.git.list_refs(repo, "refs/")
    assert (failed.value.code, failed.value.safe_to_repeat) == (Status.DEADLINE_EXCEEDED, True)
    on.wire.resume()
    on.channel.options = replace(PATIENT, address=address)
    assert await on.git.list_refs(repo, "refs/") == before


async def test_a_write_into_a_silence_is_told_as_unknown_and_is_done_once_in_the_end(on: Stack) -> None:
    repo = on.fresh()
    await on.git.list_tree(repo, on.shas.main)
    address = on.channel.options.address
    on.channel.options = replace(
        PATIENT, address=address, short_seconds=0.5, long_seconds=0.5, write_seconds=1, transfer_seconds=1
    )
    # What is asked arrives, and no answer comes back.
    writing = asyncio.ensure_future(commit(on, repo))
    method = {"pack": "PostReceivePack", "operations": "UserCommitFiles"}[on.mode]
    await until(lambda: on.proxy.count(method) > 0 or writing.done())
    on.wire.stall("down")
    told: str | GitError
    try:
        told = await writing
    except GitError as error:
        told = error
        assert error.safe_to_repeat
    on.wire.resume()
    on.channel.options = replace(PATIENT, address=address)
    sha = await commit(on, repo)
    assert told == sha or isinstance(told, GitError)
    assert git(on, repo, "rev-list", "--count", f"{on.shas.main}..{MAIN}") == b"1\n"


CUT = {"pack": ["PostUploadPack", "InfoRefsUploadPack"], "operations": ["GetBlobs", "GetTreeEntries", "GetBlob"]}


@pytest.mark.parametrize("messages", [0, 1, 2])
async def test_nothing_of_an_answer_that_ends_too_early_is_kept(on: Stack, messages: int, tmp_path: Path) -> None:
    for method in CUT[on.mode]:
        repo = on.fresh()
        on.proxy.calm()
        # As often as it is asked for: there is never a whole one.
        on.proxy.fault(method, cut_short(messages), until=None)
        try:
            await on.git.diff(repo, on.shas.base, on.shas.feature)
        except GitError as error:
            assert error.safe_to_repeat, method
        check_kept(on.mode, tmp_path)
        on.proxy.calm()
        assert await on.git.export(repo, on.shas.feature, tmp_path / f"export-{method}") == 9
        check_kept(on.mode, tmp_path)


def check_kept(mode: str, root: Path) -> None:
    """Each object that is kept here is what its name says; a mirror has all that its tips reach."""
    if mode == "operations":
        for path in (root / "objects").glob("*/objects/??/*"):
            data = zlib.decompress(path.read_bytes())
            assert hashlib.sha1(data, usedforsecurity=False).hexdigest() == path.parent.name + path.name
        return
    for generation in (path.parent for path in (root / "mirrors").glob("*/*/HEAD")):
        for index in generation.glob("objects/pack/*.idx"):
            subprocess.run(["git", "verify-pack", str(index)], check=True, capture_output=True)
        tips = generation / "tips"
        if tips.exists():
            command = ["git", "rev-list", "--objects", *tips.read_text().split()]
            subprocess.run(command, cwd=generation, check=True, capture_output=True)
