"""Who may call the Git server, how much may be said at once, and how it stops."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from server_harness import MAIN, REPOSITORY, Calls, calling, code, connected, git_processes, refusal, until

from conman.domain.addresses import is_loopback
from conman.git.adapter import GitError, ObjectMissing, RepositoryExists, RepositoryMissing, StaleRef
from conman.git.proto import gitaly_pb2 as pb
from conman.git.server import ServerError, ServerOptions, serve
from conman.git.server_call import Refused, status_of
from conman.git.server_guard import TOKEN_VALID_SECONDS, check_authorization, v2_token, whole

SECRET = "a secret that both sides know"
NOW = 1_714_557_600
EXISTS = pb.RepositoryExistsRequest(repository=REPOSITORY)


def test_a_token_of_version_2_is_the_time_signed_as_gitaly_signs_it() -> None:
    # printf 1714557600 | openssl dgst -sha256 -hmac "a secret that both sides know"
    signature = "1b933fa1c8b649a56b18e935214ecc163865c8f161fa5d6b382f6e73925bd139"
    assert v2_token(SECRET, NOW) == f"v2.{signature}.{NOW}"


@pytest.mark.parametrize("late", [-TOKEN_VALID_SECONDS, 0, TOKEN_VALID_SECONDS])
def test_a_token_is_good_for_half_a_minute_either_way(late: int) -> None:
    check_authorization(f"Bearer {v2_token(SECRET, NOW)}", SECRET, NOW + late)


def test_the_secret_itself_is_good_at_any_time() -> None:
    check_authorization(f"bearer {SECRET}", SECRET, NOW)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {SECRET}", SECRET])
def test_a_call_without_a_token_is_unauthenticated(header: str | None) -> None:
    with pytest.raises(Refused) as refused:
        check_authorization(header, SECRET, NOW)
    assert refused.value.code is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "token",
    [
        "wrong",
        SECRET + "x",
        SECRET[:-1],
        "v2.",
        "v2..",
        f"v2.{'0' * 64}.{NOW}",
        v2_token("another secret", NOW),
        v2_token(SECRET, NOW - TOKEN_VALID_SECONDS - 1),
        v2_token(SECRET, NOW + TOKEN_VALID_SECONDS + 1),
        v2_token(SECRET, NOW).removeprefix("v2."),
        v2_token(SECRET, NOW) + "0",
        v2_token(SECRET, NOW).replace(f".{NOW}", f".{NOW + 1}"),
        f"{v2_token(SECRET, NOW).rsplit('.', 1)[0]}.",
        "é",
    ],
)
def test_a_wrong_or_expired_token_is_denied(token: str) -> None:
    with pytest.raises(Refused) as refused:
        check_authorization(f"Bearer {token}", SECRET, NOW)
    assert refused.value.code is StatusCode.PERMISSION_DENIED


def test_a_signed_text_that_is_no_time_is_denied() -> None:
    signed = v2_token(SECRET, "²")  # type: ignore[arg-type]
    with pytest.raises(Refused):
        check_authorization(f"Bearer {signed}", SECRET, NOW)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Calls]:
    async with calling(tmp_path / "storage", ServerOptions(token=SECRET)) as calls:
        yield calls


async def test_every_kind_of_call_needs_the_token(guarded: Calls) -> None:
    for call in (
        guarded.repositories.RepositoryExists(EXISTS),
        guarded.refs.UpdateReferences(iter([pb.UpdateReferencesRequest(repository=REPOSITORY)])),
        guarded.refs.FindLocalBranches(pb.FindLocalBranchesRequest(repository=REPOSITORY)),
        guarded.smart.PostReceivePack(iter([pb.PostReceivePackRequest(repository=REPOSITORY)])),
    ):
        assert await code(call) is StatusCode.UNAUTHENTICATED


async def test_a_right_token_is_admitted_and_a_wrong_one_is_not(guarded: Calls) -> None:
    bearer = (("authorization", f"Bearer {SECRET}"),)
    assert not (await guarded.repositories.RepositoryExists(EXISTS, metadata=bearer)).exists
    wrong = (("authorization", "Bearer wrong"),)
    assert await code(guarded.repositories.RepositoryExists(EXISTS, metadata=wrong)) is StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "git.example.org"])
async def test_without_a_token_only_this_machine_is_listened_to(tmp_path: Path, host: str) -> None:
    with pytest.raises(ServerError, match="token"):
        async with serve(tmp_path, ServerOptions(host=host)):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_is_known_in_every_form(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RepositoryMissing("op", "x"), StatusCode.NOT_FOUND),
        (RepositoryExists("op", "x"), StatusCode.ALREADY_EXISTS),
        (ObjectMissing("op", "x"), StatusCode.NOT_FOUND),
        (StaleRef("op", "refs/heads/x"), StatusCode.FAILED_PRECONDITION),
        (GitError("op", "a lock is held", safe_to_repeat=True), StatusCode.UNAVAILABLE),
        (GitError("op", "malformed", safe_to_repeat=False), StatusCode.INVALID_ARGUMENT),
    ],
)
def test_each_error_of_the_storage_has_its_status(error: GitError, status: StatusCode) -> None:
    assert status_of(error) is status


async def test_without_the_git_program_it_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="git"):
        async with serve(tmp_path):
            pass


async def test_a_port_that_is_taken_is_not_shared(tmp_path: Path) -> None:
    async with serve(tmp_path / "one") as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ServerError, match=str(port)):
            async with serve(tmp_path / "two", ServerOptions(port=port)):
                pass


async def test_a_server_starts_again_on_its_port(tmp_path: Path) -> None:
    async with serve(tmp_path) as address:
        port = int(address.rpartition(":")[2])
    async with serve(tmp_path, ServerOptions(port=port)) as again, connected(again) as channel:
        assert again == address
        assert (
            await code(
                Calls(tmp_path, again, channel).repositories.RemoveRepository(pb.RemoveRepositoryRequest(repository=REPOSITORY))
            )
            is StatusCode.NOT_FOUND
        )


async def test_a_message_above_the_limit_is_refused_and_the_next_call_goes_on(tmp_path: Path) -> None:
    async with calling(tmp_path, replace(ServerOptions(), max_message_mb=1)) as calls:
        await calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=REPOSITORY))
        calls.put({"a": b"1"}, ref=MAIN)
        big = [pb.PostReceivePackRequest(repository=REPOSITORY, data=b"x" * (1024 * 1024 + 1))]
        assert await code(calls.smart.PostReceivePack(iter(big))) is StatusCode.RESOURCE_EXHAUSTED
        assert (await calls.repositories.RepositoryExists(EXISTS)).exists


async def test_a_call_that_no_service_has_is_unimplemented(tmp_path: Path) -> None:
    async with serve(tmp_path) as address, connected(address) as channel:
        unknown: Any = channel.unary_unary("/gitaly.RepositoryService/Fsck")
        assert await code(unknown(b"")) is StatusCode.UNIMPLEMENTED


async def test_a_stop_lets_running_calls_finish_and_takes_no_new_ones(tmp_path: Path) -> None:
    options = ServerOptions(stop_seconds=30)
    more = asyncio.Event()

    async def requests() -> AsyncIterator[pb.UpdateReferencesRequest]:
        yield pb.UpdateReferencesRequest(repository=REPOSITORY, updates=[made])
        started.set()
        await more.wait()

    started = asyncio.Event()
    server = AsyncExitStack()
    address = await server.enter_async_context(serve(tmp_path, options))
    async with connected(address) as channel:
        calls = Calls(tmp_path, address, channel)
        await calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=REPOSITORY))
        sha = calls.put({"a": b"1"})
        made = pb.UpdateReferencesRequest.Update(reference=MAIN.encode(), new_object_id=sha.encode())
        running = asyncio.ensure_future(_answer(calls.refs.UpdateReferences(requests())))
        await started.wait()
        await calls.repositories.RepositoryExists(EXISTS)
        stopping = asyncio.ensure_future(server.aclose())
        # A new call either does not reach the server any more, or is turned away; the running one goes on.
        while True:
            try:
                await calls.repositories.RepositoryExists(EXISTS, timeout=5)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED)
                break
        more.set()
        await running
        await stopping
        assert calls.ref(MAIN) == sha


async def test_a_stop_ends_calls_that_go_on_for_too_long(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def requests() -> AsyncIterator[pb.PostUploadPackRequest]:
        yield pb.PostUploadPackRequest(repository=REPOSITORY)
        await never.wait()

    server = AsyncExitStack()
    address = await server.enter_async_context(serve(tmp_path, ServerOptions(stop_seconds=0.2)))
    async with connected(address) as channel:
        calls = Calls(tmp_path, address, channel)
        await calls.repositories.CreateRepository(pb.CreateRepositoryRequest(repository=REPOSITORY))
        ending = asyncio.ensure_future(refusal(calls.smart.PostUploadPack(requests())))
        await until(lambda: len(git_processes()) == 1)
        await server.aclose()
        status, _ = await ending
        assert status in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
        assert git_processes() == []
        never.set()


async def _answer(call: Any) -> Any:
    return await call


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(make, check=True, capture_output=True)
    return cert, key


async def test_calls_over_tls_are_answered_and_plain_ones_are_not(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    async with serve(tmp_path / "storage", ServerOptions(tls_cert=cert, tls_key=key)) as address:
        trusted = grpc.ssl_channel_credentials(cert.read_bytes())
        async with grpc.aio.secure_channel(address, trusted) as channel:
            assert not (await Calls(tmp_path, address, channel).repositories.RepositoryExists(EXISTS)).exists
        async with connected(address) as channel:
            plain = Calls(tmp_path, address, channel).repositories.RepositoryExists(EXISTS, timeout=30)
            assert await code(plain) is StatusCode.UNAVAILABLE


async def test_half_of_a_certificate_or_a_wrong_one_keeps_it_from_starting(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    for cert, key in ((wrong, None), (None, wrong), (wrong, wrong), (tmp_path / "none", tmp_path / "none")):
        with pytest.raises(ServerError):
            async with serve(tmp_path / "storage", ServerOptions(tls_cert=cert, tls_key=key)):
                pass


async def test_a_request_that_is_broken_off_does_not_end_like_a_whole_one() -> None:
    taken: list[str] = []

    async def broken_off() -> AsyncIterator[bytes]:
        yield b"half"
        # As the library does it: the messages end, and the call is cancelled in one of the next turns of the event loop.
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(call.cancel))

    async def commit() -> None:
        taken.append(b"".join([piece async for piece in whole(broken_off())]).decode())

    call = asyncio.ensure_future(commit())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert taken == []
