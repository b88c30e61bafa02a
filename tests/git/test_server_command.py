"""`conman git-server` as a process: what it says, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from server_harness import PATIENCE, REPOSITORY, Calls, connected

from conman.git.proto import gitaly_pb2 as pb

SECRET = "a secret that both sides know"
EXISTS = pb.RepositoryExistsRequest(repository=REPOSITORY)


def own_environment() -> dict[str, str]:
    """The variables of this process but for those that the code under test reads or sets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CONMAN_", "GRPC_"))}


@contextmanager
def started(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """The command with port 0 and a ready file; killed at the end if it still runs."""
    environment = own_environment() | settings
    command = [sys.executable, "-m", "conman", "git-server", "--data", str(folder / "data"), "--port", "0", *arguments]
    command += ["--ready-file", str(folder / "ready.json")]
    process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(folder: Path, process: subprocess.Popen[str]) -> dict[str, object]:
    """What the ready file says, once it is there."""
    deadline = time.monotonic() + PATIENCE
    while not (folder / "ready.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "never ready"
        time.sleep(0.02)
    return json.loads((folder / "ready.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_says_where_and_ends_well_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, CONMAN_GIT_SERVER_TOKEN=SECRET, CONMAN_LOG_LEVEL="warning") as process:
        told = ready(tmp_path, process)
        assert (told["tls"], told["flavour"], told["pid"]) == (False, "full", process.pid)
        address = str(told["address"])
        async with connected(address) as channel:
            calls = Calls(tmp_path / "data/repositories", address, channel)
            bearer = (("authorization", f"Bearer {SECRET}"),)
            await calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=REPOSITORY), metadata=bearer)
            assert (await calls.repositories.RepositoryExists(EXISTS, metadata=bearer)).exists
            told_refs = [
                answer.data
                async for answer in calls.smart.InfoRefsUploadPack(pb.InfoRefsRequest(repository=REPOSITORY), metadata=bearer)
            ]
            assert b"".join(told_refs).startswith(b"001e# service=git-upload-pack\n")
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert address in said
    assert str(tmp_path / "data/repositories") in said
    assert SECRET not in said
    assert not (tmp_path / "ready.json").exists()


async def test_like_gitaly_rs_it_says_that_it_is_not_for_work(tmp_path: Path) -> None:
    with started(tmp_path, "--like-gitaly-rs") as process:
        assert ready(tmp_path, process)["flavour"] == "gitaly-rs"
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    assert "gitaly-rs" in said


def test_without_a_token_it_does_not_listen_to_other_machines(tmp_path: Path) -> None:
    with started(tmp_path, "--host", "0.0.0.0") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "token" in said
    assert not (tmp_path / "ready.json").exists()


BESIDE = """
import asyncio, sys
from pathlib import Path

import uvloop

from conman.git.proto import gitaly_pb2 as pb, gitaly_pb2_grpc as rpc
from conman.git.server import serve
import grpc.aio

async def main():
    async with serve(Path(sys.argv[1])) as address, grpc.aio.insecure_channel(address) as channel:
        request = pb.RepositoryExistsRequest(repository=pb.Repository(storage_name="default", relative_path="a.git"))
        stub, started = rpc.RepositoryServiceStub(channel), asyncio.Event()
        async def call():
            while not started.is_set():
                await stub.RepositoryExists(request)
        calling = [asyncio.ensure_future(call()) for _ in range(4)]
        for _ in range(100):
            process = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "", start_new_session=True)
            assert await process.wait() == 0
        started.set()
        await asyncio.gather(*calling)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_programs_that_are_started_beside_calls_run_and_do_not_break_the_connection(tmp_path: Path) -> None:
    run = [sys.executable, "-c", BESIDE, str(tmp_path / "storage")]
    finished = subprocess.run(run, env=own_environment(), capture_output=True, text=True, timeout=4 * PATIENCE)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "fork" not in finished.stderr
