"""The channel to a Gitaly server: what each status means, what is repeated and what is not, tokens, deadlines, loops."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from conman.git.adapter import GitError, StaleRef
from conman.git.gitaly_channel import STATUSES, GitalyChannel, GitalyError, GitalyOptions, Kind, Landed, signed_token
from conman.git.proto import gitaly_pb2, gitaly_pb2_grpc
from conman.git.server import ServerOptions, serve
from conman.settings.git import GitalyAuth

Status = grpc.StatusCode
TRANSIENT = {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED}


class Scripted(gitaly_pb2_grpc.RepositoryServiceServicer):
    """Answers `RepositoryExists` and `CreateRepository` by the script: a status to fail with, None for a good answer."""

    def __init__(self, *script: grpc.StatusCode | None) -> None:
        self.script = list(script)
        self.metadata: list[dict[str, Any]] = []

    async def RepositoryExists(self, request: gitaly_pb2.RepositoryExistsRequest, context: Any) -> Any:
        await self._play(context)
        return gitaly_pb2.RepositoryExistsResponse(exists=True)

    async def CreateRepository(self, request: gitaly_pb2.CreateRepositoryRequest, context: Any) -> Any:
        await self._play(context)
        return gitaly_pb2.CreateRepositoryResponse()

    async def _play(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        status = self.script.pop(0)
        if status is not None:
            await context.abort(status, "as scripted")

    @property
    def calls(self) -> int:
        return len(self.metadata)


@asynccontextmanager
async def scripted(script: Scripted, **options: Any) -> AsyncIterator[GitalyChannel]:
    server = grpc.aio.server()
    gitaly_pb2_grpc.add_RepositoryServiceServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = GitalyChannel(GitalyOptions(f"127.0.0.1:{port}", **options))
    try:
        yield channel
    finally:
        await channel.close()
        await server.stop(None)


async def exists(channel: GitalyChannel, kind: Kind = Kind.SHORT) -> bool:
    request = gitaly_pb2.RepositoryExistsRequest(repository=channel.repository("a.git"))
    return (await channel.read("exists", channel.stubs.repository.RepositoryExists, request, kind=kind)).exists


async def create(channel: GitalyChannel) -> None:
    request = gitaly_pb2.CreateRepositoryRequest(repository=channel.repository("a.git"))
    await channel.write("create", channel.stubs.repository.CreateRepository, request)


def make_certificate(folder: Path, name: str) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subprocess.run([*made, *subject, *files], check=True, capture_output=True)


def test_every_status_has_a_meaning() -> None:
    assert set(STATUSES) == set(Status)
    for code in Status:
        error = GitalyError("log", code, "words")
        assert error.operation == "log"
        assert code.name in str(error)
        assert error.safe_to_repeat or not error.transient


def test_what_is_transient_is_what_may_pass_by_itself() -> None:
    # OK stands for an answer that was cut short.
    assert {code for code, meaning in STATUSES.items() if meaning.transient} == TRANSIENT | {Status.OK}


@pytest.mark.parametrize("status", sorted(TRANSIENT, key=lambda code: code.name), ids=lambda code: code.name)
async def test_a_read_is_made_again_after_a_transient_failure(status: grpc.StatusCode) -> None:
    script = Scripted(status, status, None)
    async with scripted(script) as channel:
        assert await exists(channel)
    assert script.calls == 3


@pytest.mark.parametrize(
    "status", sorted(set(Status) - TRANSIENT - {Status.OK}, key=lambda code: code.name), ids=lambda c: c.name
)
async def test_a_read_that_fails_for_good_is_not_made_again(status: grpc.StatusCode) -> None:
    script = Scripted(status)
    async with scripted(script) as channel:
        with pytest.raises(GitalyError) as failed:
            await exists(channel)
    assert (failed.value.code, failed.value.details) == (status, "as scripted")
    assert script.calls == 1


async def test_a_read_is_given_up_after_the_last_attempt() -> None:
    script = Scripted(*[Status.UNAVAILABLE] * 3)
    async with scripted(script, attempts=3) as channel:
        with pytest.raises(GitalyError) as failed:
            await exists(channel)
    assert failed.value.safe_to_repeat
    assert script.calls == 3


async def test_a_write_is_made_once() -> None:
    script = Scripted(Status.UNAVAILABLE)
    async with scripted(script) as channel:
        with pytest.raises(GitalyError) as failed:
            await create(channel)
    assert not failed.value.outcome_known
    assert script.calls == 1


async def test_a_write_whose_answer_is_lost_is_looked_for_and_not_made_again_when_it_landed() -> None:
    script = Scripted(Status.DEADLINE_EXCEEDED)

    async def look() -> Landed[None] | None:
        return Landed(None)

    async with scripted(script) as channel:
        await channel.settle(lambda: create(channel), look)
    assert script.calls == 1


async def test_a_write_whose_answer_is_lost_is_made_again_when_it_did_not_land() -> None:
    script = Scripted(Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, None)
    looks = 0

    async def look() -> Landed[None] | None:
        nonlocal looks
        looks += 1
        return None

    async with scripted(script) as channel:
        await channel.settle(lambda: create(channel), look)
    assert (script.calls, looks) == (3, 2)


async def test_a_write_whose_refs_moved_elsewhere_is_not_made_again() -> None:
    script = Scripted(Status.UNAVAILABLE)

    async def look() -> Landed[None] | None:
        raise StaleRef("create", "refs/heads/main")

    async with scripted(script) as channel:
        with pytest.raises(StaleRef):
            await channel.settle(lambda: create(channel), look)
    assert script.calls == 1


async def test_a_write_that_is_refused_is_neither_looked_for_nor_made_again() -> None:
    script = Scripted(Status.FAILED_PRECONDITION)

    async def look() -> Landed[None] | None:
        raise AssertionError("a refusal leaves nothing to look for")

    async with scripted(script) as channel:
        with pytest.raises(GitalyError) as refused:
            await channel.settle(lambda: create(channel), look)
    assert refused.value.outcome_known
    assert script.calls == 1


@pytest.mark.parametrize("refusal", [Status.ALREADY_EXISTS, None], ids=["status", "stale"])
async def test_a_lost_write_that_lands_late_makes_its_repeat_a_success(refusal: grpc.StatusCode | None) -> None:
    """The first try was not there when it was looked for, and is why the second one is refused."""
    tries = looks = 0

    async def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise GitalyError("create", Status.UNAVAILABLE, "")
        if refusal is None:
            raise StaleRef("create", "refs/heads/main")
        raise GitalyError("create", refusal, "")

    async def look() -> Landed[str] | None:
        nonlocal looks
        looks += 1
        return None if looks == 1 else Landed("done")

    assert await GitalyChannel(GitalyOptions("127.0.0.1:1")).settle(attempt, look) == "done"
    assert (tries, looks) == (2, 2)


async def test_a_call_that_takes_too_long_is_ended_by_the_deadline_of_its_kind() -> None:
    class Slow(Scripted):
        async def RepositoryExists(self, request: gitaly_pb2.RepositoryExistsRequest, context: Any) -> Any:
            await asyncio.Event().wait()

    async with scripted(Slow(), attempts=1, long_seconds=0.05, short_seconds=3600) as channel:
        with pytest.raises(GitalyError) as late:
            await exists(channel, Kind.LONG)
    assert late.value.code is Status.DEADLINE_EXCEEDED


async def test_no_more_calls_run_at_once_than_are_allowed() -> None:
    running = most = 0
    full = asyncio.Event()

    class Counting(Scripted):
        async def RepositoryExists(self, request: gitaly_pb2.RepositoryExistsRequest, context: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
            await full.wait()
            running -= 1
            return gitaly_pb2.RepositoryExistsResponse(exists=True)

    async with scripted(Counting(), concurrency=3) as channel:
        assert await asyncio.gather(*(exists(channel) for _ in range(30))) == [True] * 30
    assert most == 3


def test_the_v2_token_is_the_time_signed_with_the_secret() -> None:
    signature = hmac.new(b"secret", b"1714557600", hashlib.sha256).hexdigest()
    assert signed_token("secret", 1714557600) == f"v2.{signature}.1714557600"


async def test_the_token_is_sent_the_way_that_is_set_and_never_shown() -> None:
    for auth, expected in ((GitalyAuth.BEARER, "Bearer hunter2"), (GitalyAuth.V2, "Bearer v2.")):
        script = Scripted(None)
        async with scripted(script, token="hunter2", auth=auth) as channel:
            await exists(channel)
            assert "hunter2" not in repr(channel.options)
        assert script.metadata[0]["authorization"].startswith(expected)
    assert "hunter2" not in script.metadata[0]["authorization"]


async def test_a_server_accepts_the_right_token_only(tmp_path: Path) -> None:
    async with serve(tmp_path, ServerOptions(token="hunter2")) as address:
        right = GitalyChannel(GitalyOptions(address, token="hunter2"))
        assert not await exists(right)
        await right.close()
        for wrong in ("hunter3", None):
            channel = GitalyChannel(GitalyOptions(address, token=wrong))
            with pytest.raises(GitalyError) as refused:
                await exists(channel)
            assert refused.value.code in (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED)
            assert not refused.value.safe_to_repeat
            await channel.close()


async def test_tls_takes_the_authority_that_is_given_and_no_other(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        make_certificate(tmp_path, name)
    options = ServerOptions(tls_cert=tmp_path / "ours.pem", tls_key=tmp_path / "ours.key", token="hunter2")
    async with serve(tmp_path / "storage", options) as address:
        known = GitalyChannel(GitalyOptions(f"tls://{address}", token="hunter2", ca_file=tmp_path / "ours.pem"))
        assert not await exists(known)
        await known.close()
        unknown = GitalyChannel(GitalyOptions(f"tls://{address}", token="hunter2", ca_file=tmp_path / "theirs.pem", attempts=1))
        with pytest.raises(GitalyError) as refused:
            await exists(unknown)
        assert refused.value.code is Status.UNAVAILABLE
        await unknown.close()


@pytest.mark.parametrize(
    ("address", "target", "encrypted"),
    [
        ("gitaly:8075", "gitaly:8075", False),
        ("tcp://gitaly:8075", "gitaly:8075", False),
        ("tls://gitaly:8075", "gitaly:8075", True),
        ("unix:/run/gitaly.socket", "unix:/run/gitaly.socket", False),
        ("unix:///run/gitaly.socket", "unix:/run/gitaly.socket", False),
    ],
)
def test_an_address_says_where_and_whether_encrypted(address: str, target: str, encrypted: bool) -> None:
    channel = GitalyChannel(GitalyOptions(address))
    assert channel.target == target
    assert (channel._credentials is not None) == encrypted


async def test_a_server_on_a_socket_is_reached(tmp_path: Path) -> None:
    server = grpc.aio.server()
    gitaly_pb2_grpc.add_RepositoryServiceServicer_to_server(Scripted(None), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    channel = GitalyChannel(GitalyOptions(f"unix:{tmp_path}/s"))
    assert await exists(channel)
    await channel.close()
    await server.stop(None)


async def test_one_channel_serves_several_event_loops() -> None:
    script = Scripted(None, None, None)
    async with scripted(script) as channel:
        assert await exists(channel)
        assert await asyncio.to_thread(asyncio.run, exists(channel))
        assert await exists(channel)


async def test_a_closed_channel_says_so_and_that_nothing_was_done() -> None:
    channel = GitalyChannel(GitalyOptions("127.0.0.1:1"))
    await channel.close()
    with pytest.raises(GitError) as closed:
        await exists(channel)
    assert closed.value.safe_to_repeat


async def test_a_server_that_comes_back_is_reached_without_a_new_channel(tmp_path: Path) -> None:
    async with serve(tmp_path) as address:
        port = int(address.rpartition(":")[2])
        channel = GitalyChannel(GitalyOptions(address, attempts=2))
        assert not await exists(channel)
    with pytest.raises(GitalyError) as away:
        await exists(channel)
    assert away.value.code is Status.UNAVAILABLE
    async with serve(tmp_path, ServerOptions(port=port)):
        patient = GitalyChannel(GitalyOptions(address, attempts=10))
        assert not await exists(patient)
        await patient.close()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert not await exists(channel)
                    break
                except GitalyError as error:
                    assert error.transient
        await channel.close()
