"""A real SMTP server in the test's own loop; a test scripts what it answers."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Hook = Callable[[], Awaitable[str]]
"""What the server answers at a step."""


@dataclass
class Mailbox:
    """What arrived, and how it answers; each hook is asked once per command."""

    arrived: list[Envelope] = field(default_factory=list)
    offered: list[bytes | str | None] = field(default_factory=list)
    greetings: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    protected: list[bool] = field(default_factory=list)
    sender: Hook | None = None
    recipient: Hook | None = None
    content: Hook | None = None
    servers: list[SMTP] = field(default_factory=list)

    async def handle_EHLO(
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.greetings.append(hostname)
        return responses

    async def handle_MAIL(
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> str:
        self.protected.append(session.ssl is not None)
        if self.sender is not None:
            return await self.sender()
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        answer = "250 OK" if self.recipient is None else await self.recipient()
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.offered.append(envelope.content)
        answer = "250 OK" if self.content is None else await self.content()
        if answer.startswith("250"):
            self.arrived.append(envelope)
        return answer

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        return AuthResult(success=data.password == b"right", handled=False)

    def drop(self) -> str:
        """Break the connection that is being served."""
        transport = self.servers[-1].transport
        assert transport is not None
        transport.abort()
        return "250 OK"


def says(answer: str) -> Hook:
    async def hook() -> str:
        return answer

    return hook


def says_in_turn(*answers: str) -> Hook:
    """One answer after the other, the last for ever."""
    given = list(answers)

    async def hook() -> str:
        return given.pop(0) if len(given) > 1 else given[0]

    return hook


async def hangs() -> str:
    await asyncio.Event().wait()
    return "250 OK"


@asynccontextmanager
async def smtp_server(mailbox: Mailbox, **options: Any) -> AsyncIterator[int]:
    """A server on a free port of this machine; its port."""
    tls: ssl.SSLContext | None = options.pop("from_the_first_byte", None)

    def serve() -> SMTP:
        server = SMTP(mailbox, hostname="mail.test", **options)
        mailbox.servers.append(server)
        return server

    listening = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for server in mailbox.servers:
            if server.transport is not None:
                server.transport.abort()
        await listening.wait_closed()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A certificate for 127.0.0.1 that nobody signed: the server's side of it, and the file that a client may trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "ca.pem", folder / "key.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trusted, private)
    return context, trusted
