"""The Git server killed in the middle of what a client does, and started again on the same port: the client gets over it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from fault_harness import MODES, PATIENT, Stack, adapter, fsck, stack_before
from fault_proxy import losing
from git_harness import ANN, MAIN
from server_harness import until

from conman.git.adapter import WriteFile

pytestmark = pytest.mark.kill

BIG = os.urandom(4 * 1024 * 1024)
ENDURING = replace(PATIENT, attempts=12)
"""Tries for about ten seconds, in which the server starts again."""


class Server:
    """`conman git-server` as a process that can be killed and started again on the port that it had."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._folder = folder
        self._ready = folder / "ready.json"
        self._mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self) -> None:
        """Start it; `ready` waits until it serves."""
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "conman", "git-server", "--data", str(self._folder), "--port", str(self.port)]
        command += ["--ready-file", str(self._ready), *(["--like-gitaly-rs"] if self._mode == "pack" else [])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONMAN_", "GRPC_"))}
        self._process = subprocess.Popen(command, env=kept, cwd=self._folder, stderr=subprocess.DEVNULL)

    async def ready(self) -> None:
        """Wait until it serves."""
        process = self._process
        assert process is not None
        await until(lambda: self._ready.exists() or process.poll() is not None)
        assert json.loads(self._ready.read_text())["pid"] == process.pid

    def kill(self) -> None:
        """End it by SIGKILL, as it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_and_start(self) -> None:
        """SIGKILL, and another one in its place."""
        self.kill()
        self.start()


@dataclass
class Killable:
    """A stack whose server is a process."""

    stack: Stack
    server: Server


@pytest_asyncio.fixture(scope="module", params=list(MODES))
async def on(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Killable]:
    root = tmp_path_factory.mktemp(request.param)
    server = Server(root, request.param)
    server.start()
    try:
        await server.ready()
        address = f"127.0.0.1:{server.port}"
        async with stack_before(address, root / "repositories", root, request.param, ENDURING) as stack:
            yield Killable(stack, server)
    finally:
        server.kill()


async def commit(stack: Stack, repo: str) -> str:
    return await stack.git.commit_files(
        repo,
        ref=MAIN,
        expected_old=stack.shas.main,
        parent=stack.shas.main,
        changes=[WriteFile("big.bin", BIG)],
        author=ANN,
        message="big\n",
    )


def check_committed_once(stack: Stack, repo: str, sha: str) -> None:
    folder = stack.storage / repo

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True).stdout

    assert git("rev-parse", MAIN).decode().strip() == sha
    assert git("rev-list", "--count", f"{stack.shas.main}..{MAIN}") == b"1\n"
    assert git("cat-file", "blob", f"{MAIN}:big.bin") == BIG
    assert stack.scratch(repo) == []
    fsck(folder)


async def test_killed_in_the_middle_of_an_upload_it_gets_the_commit_once(on: Killable) -> None:
    stack, repo = on.stack, on.stack.fresh()
    # So that what goes up from now on is the commit.
    await stack.git.list_tree(repo, stack.shas.main)
    kills: list[None] = []
    stack.wire.after("up", 1_000_000, lambda: kills.append(on.server.kill_and_start()))
    sha = await commit(stack, repo)
    assert len(kills) == 1
    check_committed_once(stack, repo, sha)


async def test_killed_in_the_middle_of_a_download_it_gives_the_whole_file(on: Killable, tmp_path: Path) -> None:
    stack, repo = on.stack, on.stack.fresh()
    sha = await commit(stack, repo)
    kills: list[None] = []
    with adapter(stack.mode, stack.channel, tmp_path) as git_anew:
        stack.wire.after("down", 1_000_000, lambda: kills.append(on.server.kill_and_start()))
        found = await git_anew.read_file(repo, sha, "big.bin")
    assert len(kills) == 1
    assert found is not None
    assert found.data == BIG
    fsck(stack.storage / repo)


async def test_killed_after_a_commit_and_before_the_answer_it_is_not_asked_to_commit_again(on: Killable) -> None:
    stack, repo = on.stack, on.stack.fresh()
    method = {"pack": "PostReceivePack", "operations": "UserCommitFiles"}[stack.mode]
    stack.proxy.calm()
    stack.proxy.fault(method, replace(losing(grpc.StatusCode.UNAVAILABLE), meanwhile=on.server.kill_and_start))
    sha = await commit(stack, repo)
    assert stack.proxy.answered.count(method) == stack.proxy.count(method) == 1
    check_committed_once(stack, repo, sha)


async def test_killed_while_nobody_calls_it_serves_the_next_call(on: Killable) -> None:
    stack, repo = on.stack, on.stack.fresh()
    before = await stack.git.list_refs(repo, "refs/")
    on.server.kill_and_start()
    assert await stack.git.list_refs(repo, "refs/") == before
