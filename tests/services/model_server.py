"""A local HTTP server that speaks chat completions as a test wants it to: sound, broken, slow or hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Writes the whole HTTP answer to a request that was read."""


@dataclass
class ModelServer:
    """What was asked, and what is answered: the replies in their order, the last one again and again."""

    url: str = ""
    replies: list[Reply] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    def answers(self, *replies: Reply) -> None:
        self.replies = list(replies)

    @property
    def received(self) -> str:
        """Everything that reached the server, as text."""
        return "\n".join((*self.heads, *(json.dumps(body, ensure_ascii=False) for body in self.bodies)))

    def prompt(self, number: int = -1) -> str:
        """The conversation of one request."""
        return "\n".join(message["content"] for message in self.bodies[number]["messages"])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = [line.partition(":") for line in head.split("\r\n")]
            length = next(int(value) for name, _, value in lines if name.lower() == "content-length")
            body = json.loads(await reader.readexactly(length))
            self.heads.append(head)
            self.bodies.append(body)
            reply = self.replies[min(len(self.bodies), len(self.replies)) - 1]
            await reply(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass  # who asked has gone, as some tests want it
        finally:
            writer.close()


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    made = ModelServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()


def http(status: int, body: str | bytes, kind: str = "application/json", **headers: str) -> Reply:
    """One answer of a given length."""
    data = body.encode() if isinstance(body, str) else body
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{more}\r\n"
        writer.write(head.encode() + data)

    return reply


def completion(text: str | None, finish_reason: str = "stop") -> Reply:
    """An answer in one piece."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    return http(200, json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}))


def chunk(text: str | None, finish_reason: str | None = None) -> str:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return (
        f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'm', 'choices': [choice]})}\n\n"
    )


def stream(*pieces: str, ends: Sequence[str] = (chunk(None, "stop"), "data: [DONE]\n\n"), breaks_off: bool = False) -> Reply:
    """An answer as events; `breaks_off`: the connection ends within it."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = "Content-Length: 10000000\r\n" if breaks_off else ""
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{length}\r\n".encode())
        for event in (*map(chunk, pieces), *ends):
            writer.write(event.encode())
            await writer.drain()

    return reply


def endless(text: str) -> Reply:
    """Events that end only when nobody listens any more."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(chunk(text).encode())
            await writer.drain()
            await asyncio.sleep(0)

    return reply


def silent(*, after: str = "") -> Reply:
    """Nothing more, until who asked has gone."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(after.encode())
        await writer.drain()
        await reader.read()

    return reply
