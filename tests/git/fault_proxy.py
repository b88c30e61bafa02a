"""Proxies that stand between a client and a Git server and harm what passes: calls (`CallProxy`) or bytes (`WireProxy`).

`CallProxy` forwards any method of gRPC as it is: a call of any shape looks the same on the wire, so each is a stream of raw
messages in either direction here. What is to happen to which call is said beforehand (`fault`), or drawn from a seed (`storm`).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from conman.git.server_guard import whole

_LARGEST = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call. `kept_requests` and `kept_replies` count messages; None: all.

    `forwarded` False: the server never hears of the call. `status` is what the client is told when the server has answered (or
    never heard of it); None: the server's own. `hangs`: the client is told nothing at all. `resets`: all connections are reset
    instead. `then_down`: from here on each call fails. `meanwhile` is done when the server has answered, before the client is.
    """

    name: str
    forwarded: bool = True
    status: grpc.StatusCode | None = None
    kept_requests: int | None = None
    kept_replies: int | None = None
    seconds: float = 0.0
    hangs: bool = False
    resets: bool = False
    then_down: bool = False
    meanwhile: Callable[[], None] | None = None


def failing(status: grpc.StatusCode) -> Fault:
    """The call fails before the server hears of it."""
    return Fault(f"fails with {status.name}", forwarded=False, status=status)


def losing(status: grpc.StatusCode) -> Fault:
    """The server does what it is asked, and the client is told that it failed."""
    return Fault(f"done, answered {status.name}", status=status, kept_replies=0)


DOWN = failing(grpc.StatusCode.UNAVAILABLE)
HANGS = Fault("never heard of", forwarded=False, hangs=True)
DONE_HANGS = Fault("done, never answered", kept_replies=0, hangs=True)
DONE_RESET = Fault("done, connection reset", kept_replies=0, resets=True)
DONE_DOWN = Fault("done, then the server is away", status=grpc.StatusCode.UNAVAILABLE, kept_replies=0, then_down=True)


def cut_short(messages: int, status: grpc.StatusCode | None = None) -> Fault:
    """The answer ends after so many messages: as if that were all of it, or with a status."""
    how = "as if whole" if status is None else f"with {status.name}"
    return Fault(f"answer ends after {messages}, {how}", kept_replies=messages, status=status)


def request_cut_short(messages: int) -> Fault:
    """The server gets so many messages of the request, as if they were all."""
    return Fault(f"request ends after {messages}", kept_requests=messages)


DELAYED = Fault("held up", seconds=0.05)


@dataclass(slots=True)
class _Planned:
    fault: Fault
    first: int
    last: int | None


@dataclass(slots=True)
class _Storm:
    chance: random.Random
    odds: float
    faults: Sequence[Fault]


@dataclass
class CallProxy:
    """A running proxy: what it has seen, and what it is to do."""

    address: str = ""
    calls: list[str] = field(default_factory=list)
    """The methods that were called, by their short names, in order."""
    answered: list[str] = field(default_factory=list)
    """The methods whose call the server has answered well, whatever the client is told."""
    harmed: int = 0
    """Calls to which a fault happened."""
    reset_connections: Callable[[], None] = lambda: None
    _planned: dict[str, list[_Planned]] = field(default_factory=dict)
    _storm: _Storm | None = None
    _numbers: Counter[str] = field(default_factory=Counter)
    _always: Fault | None = None

    def fault(self, method: str, fault: Fault, *, call: int = 1, until: int | None = 0) -> None:
        """Have a fault happen to the n-th call of a method from now, or to all calls up to number `until` (None: for ever)."""
        planned = _Planned(fault, call, call if until == 0 else until)
        self._planned.setdefault(method, []).append(planned)

    def storm(self, seed: int, odds: float, faults: Sequence[Fault]) -> None:
        """Have one of the faults happen to each call with these odds."""
        self._storm = _Storm(random.Random(seed), odds, faults)

    def all_calls(self, fault: Fault) -> None:
        """Have a fault happen to each call from now on."""
        self._always = fault

    def calm(self) -> None:
        """No faults any more; counting starts again."""
        self._planned, self._storm, self._always = {}, None, None
        self._numbers.clear()
        self.calls.clear()
        self.answered.clear()
        self.harmed = 0

    def count(self, method: str) -> int:
        """How many calls of a method came since the last `calm`."""
        return self._numbers[method]

    def next_fault(self, method: str) -> Fault | None:
        """Note a call; what is to happen to it."""
        self._numbers[method] += 1
        self.calls.append(method)
        number = self._numbers[method]
        found = self._always
        for planned in self._planned.get(method, []):
            if planned.first <= number and (planned.last is None or number <= planned.last):
                found = found or planned.fault
        if found is None and self._storm is not None and self._storm.chance.random() < self._storm.odds:
            found = self._storm.chance.choice(self._storm.faults)
        self.harmed += found is not None
        return found


class _Forwarder(grpc.GenericRpcHandler):
    def __init__(self, proxy: CallProxy, channel: grpc.aio.Channel) -> None:
        self._proxy = proxy
        self._channel = channel

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method

        async def forward(requests: AsyncIterator[bytes], context: Any) -> None:
            fault = self._proxy.next_fault(method.rpartition("/")[2]) or Fault("none")
            await asyncio.sleep(fault.seconds)
            if fault.forwarded:
                await self._carry(method, fault, requests, context)
            elif not fault.hangs:
                # The library loses the status of a call that ends before all of its request was sent.
                async for _ in requests:
                    pass
            if fault.meanwhile is not None:
                fault.meanwhile()
            if fault.then_down:
                self._proxy.all_calls(DOWN)
            if fault.resets:
                self._proxy.reset_connections()
            if fault.hangs or fault.resets:
                await asyncio.Event().wait()
            if fault.status is not None:
                await context.abort(fault.status, f"the proxy: {fault.name}")

        return grpc.stream_stream_rpc_method_handler(forward)

    async def _carry(self, method: str, fault: Fault, requests: AsyncIterator[bytes], context: Any) -> None:
        """Forward a call to its end; the server's refusal is passed on."""
        metadata = [(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]
        upstream: Any = self._channel.stream_stream(method)
        call = upstream(_first(requests, fault.kept_requests), timeout=context.time_remaining(), metadata=metadata)
        passed = 0
        try:
            async for reply in call:
                if fault.kept_replies is None or passed < fault.kept_replies:
                    await context.write(reply)
                    passed += 1
        except grpc.aio.AioRpcError as error:
            # A server that refuses a call has done nothing that could be lost.
            context.set_trailing_metadata(error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "")
        finally:
            call.cancel()
        self._proxy.answered.append(method.rpartition("/")[2])


async def _first(requests: AsyncIterator[bytes], most: int | None) -> AsyncIterator[bytes]:
    passed = 0
    async for request in whole(requests):
        if most is None or passed < most:
            yield request
            passed += 1


@asynccontextmanager
async def call_proxy(upstream: str) -> AsyncIterator[CallProxy]:
    """A proxy of calls in front of a server, until the end of the block."""
    proxy = CallProxy()
    options = [*_LARGEST, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    options += [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]
    async with grpc.aio.insecure_channel(upstream, options=options) as channel:
        server = grpc.aio.server(handlers=[_Forwarder(proxy, channel)], options=[*_LARGEST, ("grpc.so_reuseport", 0)])
        proxy.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield proxy
        finally:
            await server.stop(None)


class WireProxy:
    """A proxy of bytes: it can reset its connections, and act when so many bytes have passed in one direction."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._left: dict[str, int] = {}
        self._then: dict[str, Callable[[], None]] = {}
        self.address = ""
        self.resume()

    def reset(self) -> None:
        """End all connections with RST."""
        for writer in list(self._writers):
            _reset(writer)

    def stall(self, *directions: str) -> None:
        """Let no byte through any more, in these directions (`up`: to the server; `down`)."""
        for direction in directions:
            self._flowing[direction].clear()

    def resume(self) -> None:
        """Let bytes through again."""
        for flowing in self._flowing.values():
            flowing.set()

    def after(self, direction: str, count: int, then: Callable[[], None] | None = None) -> None:
        """Once so many more bytes have passed in a direction, do `then` (reset all connections)."""
        self._left[direction] = count
        self._then[direction] = then or self.reset

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        try:
            there = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        both = {writer, there[1]}
        self._writers |= both
        pumps = [self._pump("up", reader, there[1]), self._pump("down", there[0], writer)]
        try:
            await asyncio.gather(*pumps)
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await self._flowing[direction].wait()
                writer.write(piece)
                await writer.drain()
                self._passed(direction, len(piece))
            writer.write_eof()

    def _passed(self, direction: str, count: int) -> None:
        left = self._left.get(direction)
        if left is None:
            return
        self._left[direction] = left - count
        if left <= count:
            del self._left[direction]
            self._then[direction]()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        # Closed at once and without lingering, a connection ends with RST.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def wire_proxy(upstream: str) -> AsyncIterator[WireProxy]:
    """A proxy of bytes in front of a server, until the end of the block."""
    proxy = WireProxy(upstream)
    tasks: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.connected(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
        proxy.reset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
