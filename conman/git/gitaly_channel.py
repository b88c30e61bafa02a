"""The wire to a Gitaly server: one channel, its authentication, deadlines, retries, and what each status means to us.

A read that fails for a passing reason is made again here. A write is made once; `GitalyChannel.settle` is how a caller
makes one whose answer may get lost: it reads what became of it before it decides to make it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from conman.git.adapter import GitError, StaleRef
from conman.git.gitaly_early import EarlyEnds
from conman.git.proto import gitaly_pb2, gitaly_pb2_grpc
from conman.settings.git import GitalyAuth

_Result = TypeVar("_Result")


class Kind(StrEnum):
    """What a call does, which sets how long it may take."""

    SHORT = "short"
    """One answer of bounded size: a ref, a commit, whether a repository exists."""
    LONG = "long"
    """An answer that grows with the repository: a listing, a log, a diff."""
    WRITE = "write"
    TRANSFER = "transfer"
    """A pack or a file's whole content."""


@dataclass(frozen=True, slots=True)
class GitalyOptions:
    """How to reach a server. Times are in seconds; `attempts` counts the first try.

    A deadline bounds each try, and no further one begins once it has passed since the first: a server that never answers costs
    a call its deadline.
    """

    address: str
    storage: str = "default"
    token: str | None = field(default=None, repr=False)
    auth: GitalyAuth = GitalyAuth.V2
    ca_file: Path | None = None
    short_seconds: float = 10.0
    long_seconds: float = 60.0
    write_seconds: float = 60.0
    transfer_seconds: float = 600.0
    attempts: int = 5
    concurrency: int = 64
    max_message_bytes: int = 16 * 1024 * 1024

    def deadline(self, kind: Kind) -> float:
        """How long one try of a call may take."""
        match kind:
            case Kind.SHORT:
                return self.short_seconds
            case Kind.LONG:
                return self.long_seconds
            case Kind.WRITE:
                return self.write_seconds
            case Kind.TRANSFER:
                return self.transfer_seconds


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a status says about the call that ended with it."""

    words: str
    transient: bool = False
    """The server or the way to it is busy or away: the same call may succeed in a moment."""
    outcome_known: bool = True
    """A write that ended so has changed nothing."""
    safe_to_repeat: bool = False


STATUSES: dict[grpc.StatusCode, Meaning] = {
    grpc.StatusCode.OK: Meaning("the answer breaks off", True, outcome_known=False, safe_to_repeat=True),
    grpc.StatusCode.UNAVAILABLE: Meaning("the server can't be reached", True, outcome_known=False, safe_to_repeat=True),
    grpc.StatusCode.DEADLINE_EXCEEDED: Meaning("no answer in time", True, outcome_known=False, safe_to_repeat=True),
    grpc.StatusCode.RESOURCE_EXHAUSTED: Meaning("a limit is reached", True, outcome_known=False, safe_to_repeat=True),
    grpc.StatusCode.CANCELLED: Meaning("the call was cancelled", outcome_known=False, safe_to_repeat=True),
    grpc.StatusCode.UNKNOWN: Meaning("the server failed", outcome_known=False, safe_to_repeat=True),
    # gitaly-rs answers so for a lost race and for a conflict too: who makes the call knows what to read then.
    grpc.StatusCode.INTERNAL: Meaning("the server failed", outcome_known=False, safe_to_repeat=True),
    grpc.StatusCode.DATA_LOSS: Meaning("the server's data is damaged", outcome_known=False),
    grpc.StatusCode.ABORTED: Meaning("the call conflicts with what is there"),
    grpc.StatusCode.FAILED_PRECONDITION: Meaning("what the call expects is not so"),
    grpc.StatusCode.INVALID_ARGUMENT: Meaning("the server refuses the arguments"),
    grpc.StatusCode.OUT_OF_RANGE: Meaning("the server refuses the arguments"),
    grpc.StatusCode.NOT_FOUND: Meaning("the server does not have it"),
    grpc.StatusCode.ALREADY_EXISTS: Meaning("the server has it already"),
    grpc.StatusCode.PERMISSION_DENIED: Meaning("the server does not permit it"),
    grpc.StatusCode.UNAUTHENTICATED: Meaning("the server does not accept our token"),
    grpc.StatusCode.UNIMPLEMENTED: Meaning("the server does not have this call"),
}
"""The one map from gRPC's statuses to ours. Litmus: the same call may succeed in a moment → `transient`; a write may have
been done although this came back → not `outcome_known`; a repeat can't do harm and may help → `safe_to_repeat`."""


class GitalyError(GitError):
    """A call ended with a status that is no answer; `code` and `details` are the server's."""

    def __init__(self, operation: str, code: grpc.StatusCode, details: str) -> None:
        meaning = STATUSES[code]
        text = f"{meaning.words} ({code.name}{': ' + details[:500] if details else ''})"
        super().__init__(operation, text, safe_to_repeat=meaning.safe_to_repeat)
        self.code = code
        self.details = details

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed in a moment."""
        return STATUSES[self.code].transient

    @property
    def outcome_known(self) -> bool:
        """Whether a write that ended so has certainly changed nothing."""
        return STATUSES[self.code].outcome_known


@dataclass(frozen=True, slots=True)
class Landed(Generic[_Result]):
    """A write whose answer was lost has been done, with this result."""

    value: _Result


class Stubs:
    """The services of one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The generated code has no types; what comes out of it is a message of `gitaly_pb2`.
        made: Any = channel
        self.repository: Any = gitaly_pb2_grpc.RepositoryServiceStub(made)
        self.refs: Any = gitaly_pb2_grpc.RefServiceStub(made)
        self.commits: Any = gitaly_pb2_grpc.CommitServiceStub(made)
        self.blobs: Any = gitaly_pb2_grpc.BlobServiceStub(made)
        self.diffs: Any = gitaly_pb2_grpc.DiffServiceStub(made)
        self.operations: Any = gitaly_pb2_grpc.OperationServiceStub(made)
        self.smart_http: Any = gitaly_pb2_grpc.SmartHTTPServiceStub(made)


@dataclass(slots=True)
class _Connection:
    channel: grpc.aio.Channel
    stubs: Stubs
    slots: asyncio.Semaphore


class GitalyChannel:
    """Calls to one server, from any event loop (each that makes calls has a connection of its own).

    At most `concurrency` calls run at once in a loop; further ones wait. A stream keeps its place until it ends, so whoever
    reads one makes no other call meanwhile.
    """

    def __init__(self, options: GitalyOptions) -> None:
        self.options = options
        self.target, self._credentials = _target(options)
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = WeakKeyDictionary()
        self._early = EarlyEnds()
        self._closed = False

    @property
    def stubs(self) -> Stubs:
        """The services, for the running event loop. Raises `GitError` after `close`."""
        return self._connection().stubs

    def repository(self, repo: str) -> gitaly_pb2.Repository:
        """The server's name of a repository."""
        return gitaly_pb2.Repository(storage_name=self.options.storage, relative_path=repo)

    async def close(self) -> None:
        """End all calls and connections; later calls raise `GitError`."""
        self._closed = True
        here = asyncio.get_running_loop()
        connections = list(self._connections.items())
        self._connections.clear()
        for loop, connection in connections:
            if loop is here:
                await connection.channel.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(connection.channel.close(), loop))

    async def read(self, operation: str, method: Any, request: Any, *, kind: Kind = Kind.SHORT) -> Any:
        """The answer to a call that changes nothing, made again after transient failures. Raises `GitalyError`."""

        async def once() -> Any:
            return await self._unary(operation, method, request, kind)

        return await self.repeated(once, kind=kind)

    async def read_all(self, operation: str, method: Any, request: Any, *, kind: Kind = Kind.LONG) -> list[Any]:
        """All messages of a call that changes nothing, made again from the start after transient failures."""

        async def once() -> list[Any]:
            async with self.stream(operation, method, request, kind=kind) as messages:
                return [message async for message in messages]

        return await self.repeated(once, kind=kind)

    async def write(self, operation: str, method: Any, request: Any, *, kind: Kind = Kind.WRITE) -> Any:
        """The answer to a call that changes something, made once; `request` is a message or the messages of a stream.

        Raises `GitalyError`, whose `outcome_known` says whether it may have been done all the same.
        """
        return await self._unary(operation, method, request, kind)

    @asynccontextmanager
    async def stream(
        self, operation: str, method: Any, request: Any, *, kind: Kind = Kind.TRANSFER
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """The messages of an answer as they arrive, made once; leaving the block early ends the call."""
        async with self._place(operation, kind):
            with self._translated(operation, method):
                call = self._early.start(method, request, timeout=self.options.deadline(kind), metadata=self._metadata())
            try:
                yield self._messages(operation, method, call)
            finally:
                call.cancel()

    async def repeated(self, once: Callable[[], Awaitable[_Result]], *, kind: Kind = Kind.TRANSFER) -> _Result:
        """Do what changes nothing, again with growing pauses while it fails with a transient status."""
        pauses = self.pauses(kind)
        while True:
            try:
                return await once()
            except GitalyError as error:
                pause = next(pauses, None) if error.transient else None
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def settle(
        self,
        attempt: Callable[[], Awaitable[_Result]],
        look: Callable[[], Awaitable[Landed[_Result] | None]],
        *,
        kind: Kind = Kind.WRITE,
    ) -> _Result:
        """Make a write, and find out what became of it when its answer is lost.

        `look` reads the refs that `attempt` moves: `Landed` when they are where it would put them, or further on from there;
        None when they are where it found them; it raises `StaleRef` when somebody else moved them. Only after None is the write
        made again, and only when its failure was transient. Raises what `attempt` and `look` raise.
        """
        in_doubt = False
        pauses = self.pauses(kind)
        while True:
            failure: GitalyError | StaleRef
            try:
                return await attempt()
            except GitalyError as error:
                failure = error
                in_doubt = in_doubt or not error.outcome_known
            except StaleRef as error:
                failure = error
            # An earlier try whose answer was lost may have landed late, so that a later one is refused.
            if in_doubt:
                found = await look()
                if found is not None:
                    return found.value
            pause = next(pauses, None)
            if pause is None or isinstance(failure, StaleRef) or not failure.transient:
                raise failure
            await asyncio.sleep(pause)

    async def _unary(self, operation: str, method: Any, request: Any, kind: Kind) -> Any:
        async with self._place(operation, kind):
            with self._translated(operation, method):
                reply = await self._early.start(method, request, timeout=self.options.deadline(kind), metadata=self._metadata())
        if reply is None:
            raise GitalyError(operation, grpc.StatusCode.OK, "it has no message")
        return reply

    @asynccontextmanager
    async def _place(self, operation: str, kind: Kind) -> AsyncIterator[None]:
        """Be one of the calls under way. Raises `GitalyError` when none of them ends in time."""
        slots = self._connection().slots
        try:
            async with asyncio.timeout(self.options.deadline(kind)):
                await slots.acquire()
        except TimeoutError as error:
            message = f"{self.options.concurrency} calls are under way, and none of them ends"
            raise GitalyError(operation, grpc.StatusCode.RESOURCE_EXHAUSTED, message) from error
        try:
            yield
        finally:
            slots.release()

    async def _messages(self, operation: str, method: Any, call: Any) -> AsyncIterator[Any]:
        with self._translated(operation, method):
            async for message in call:
                yield message

    @contextmanager
    def _translated(self, operation: str, method: Any) -> Iterator[None]:
        """Let only `GitError` leave the block, by `STATUSES`."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if self._early.is_lost(method, error):
                message = "the server ended the call before it took all of it"
                raise GitalyError(operation, grpc.StatusCode.UNAVAILABLE, message) from error
            raise GitalyError(operation, error.code(), error.details() or "") from error
        except grpc.aio.UsageError as error:
            raise GitError(operation, f"the connection was closed ({error})", safe_to_repeat=True) from error

    def _connection(self) -> _Connection:
        if self._closed:
            raise GitError("connect", "the adapter is closed", safe_to_repeat=True)
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            channel = self._open()
            connection = _Connection(channel, Stubs(channel), asyncio.Semaphore(self.options.concurrency))
            self._connections[loop] = connection
        return connection

    def _open(self) -> grpc.aio.Channel:
        settings = [
            ("grpc.max_receive_message_length", self.options.max_message_bytes),
            ("grpc.max_send_message_length", self.options.max_message_bytes),
            # GitLab's Gitaly drops who pings more often than every 20 seconds.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            # Retries are ours: the library would not know a read from a write.
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.target, options=settings)
        return grpc.aio.secure_channel(self.target, self._credentials, options=settings)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self.options.token
        if token is None:
            return ()
        if self.options.auth is GitalyAuth.V2:
            token = signed_token(token, int(time.time()))
        return (("authorization", f"Bearer {token}"),)

    def pauses(self, kind: Kind = Kind.WRITE) -> Iterator[float]:
        """Seconds between tries: up to 0.1, 0.2, 0.4 … 2, each cut at random so that many callers don't come back at once.

        There is none after which the next try would begin later than the deadline of its kind from now.
        """
        return self._pauses(time.monotonic() + self.options.deadline(kind))

    def _pauses(self, end: float) -> Iterator[float]:
        for number in range(self.options.attempts - 1):
            pause = random.uniform(0.5, 1.0) * min(0.1 * 2**number, 2.0)
            if time.monotonic() + pause >= end:
                return
            yield pause


def signed_token(secret: str, now: int) -> str:
    """Gitaly's v2 token: the Unix time and its HMAC-SHA256 under the shared secret, so that the secret is never sent."""
    signature = hmac.new(secret.encode(), str(now).encode(), hashlib.sha256).hexdigest()
    return f"v2.{signature}.{now}"


def _target(options: GitalyOptions) -> tuple[str, grpc.ChannelCredentials | None]:
    """The library's name of the server, and the credentials when the way there is encrypted. Raises `OSError` for no CA file."""
    scheme, separator, rest = options.address.partition("://")
    if not separator:
        return options.address, None
    if scheme == "unix":
        return f"unix:{rest}", None
    if scheme != "tls":
        return rest, None
    authorities = options.ca_file or ssl.get_default_verify_paths().cafile
    roots = None if authorities is None else Path(authorities).read_bytes()
    return rest, grpc.ssl_channel_credentials(root_certificates=roots)
