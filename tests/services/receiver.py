"""A receiver of webhooks on this machine, in any mood; it keeps what it was told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Mood = Callable[["Receiver", asyncio.StreamWriter], Awaitable[None]]
"""How it answers a request that it has read to its end; the connection is closed after it."""


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`url` leads to it. `moods` are used up one by one; then it says yes."""

    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    moods: list[Mood] = field(default_factory=list)
    always: Mood | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?x=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append(Request(head[0], headers, body))
            mood = self.moods.pop(0) if self.moods else self.always or answers(204)
            await mood(self, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def answers(status: int, *headers: str, body: bytes = b"") -> Mood:
    async def mood(_: Receiver, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", "Connection: close", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await writer.drain()

    return mood


async def hangs(_: Receiver, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def closes(_: Receiver, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def speaks_no_http(_: Receiver, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()


async def never_ends_its_headers(_: Receiver, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
        await writer.drain()


async def informs_for_ever(_: Receiver, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


def never_ends_its_answer(status: int) -> Mood:
    async def mood(_: Receiver, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Words\r\nContent-Type: text/plain\r\n\r\n".encode())
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()

    return mood


def self_signed(name: str) -> bytes:
    """A key and a certificate for a host's name that vouches for itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem)


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(scheme="http" if tls is None else "https")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
