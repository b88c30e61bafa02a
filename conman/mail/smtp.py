"""The SMTP server that mails go to, by aiosmtplib; each step by itself, so that a refusal says which one it met."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException, SMTPResponseException

from conman.config import Settings
from conman.domain.mail import Refusal, SmtpStep, harmless_reply
from conman.mail.links import public_host
from conman.mail.message import Outgoing
from conman.mail.transport import NotSentError, Transport
from conman.settings.mail import SmtpTls

_NO_SMTPUTF8 = 553
"""What a server without SMTPUTF8 says to an address that is not ASCII (RFC 6531 3.5)."""

_GOODBYE_SECONDS = 2.0


class Smtp(Transport):
    """One connection per mail: few mails leave, and a connection that was kept would have to be proved alive each time."""

    name = "smtp"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host = settings.smtp_host or ""
        self._port = settings.smtp_port_in_effect
        self._protection = settings.smtp_protection

    async def send(self, mail: Outgoing) -> None:
        """Hand the mail to the server. Raises `NotSentError`."""
        encoding = "utf-8" if mail.smtputf8 else "ascii"
        async with self._connected() as client:
            await self._log_in(client)
            if mail.smtputf8 and not client.supports_extension("smtputf8"):
                raise _not_sent(SmtpStep.RECIPIENT, _NO_SMTPUTF8, "The server does not take addresses beyond ASCII.")
            with _refusals(SmtpStep.SENDER):
                await client.mail(mail.sender, options=["SMTPUTF8", "BODY=8BITMIME"] if mail.smtputf8 else [], encoding=encoding)
            with _refusals(SmtpStep.RECIPIENT):
                await client.rcpt(mail.recipient, encoding=encoding)
            with _refusals(SmtpStep.CONTENT):
                await client.data(mail.content)

    async def probe(self) -> str:
        """Connect, protect the connection and say EHLO, no more. Raises `NotSentError`."""
        async with self._connected():
            return f"{self._host}:{self._port} answers (TLS: {self._protection.value})"

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[SMTP]:
        client = SMTP(
            hostname=self._host,
            port=self._port,
            local_hostname=_greeting_name(self._settings),
            timeout=self._settings.smtp_timeout_seconds,
            use_tls=self._protection is SmtpTls.TLS,
            start_tls=self._protection is SmtpTls.STARTTLS,
            tls_context=await asyncio.to_thread(self._tls_context),
        )
        with _refusals(SmtpStep.CONNECT):
            await client.connect()
            await client.ehlo()
        try:
            yield client
        finally:
            # After the server's yes nothing may undo it: how it says goodbye is of no account.
            with suppress(SMTPException, OSError, TimeoutError):
                if client.is_connected:
                    await client.quit(timeout=_GOODBYE_SECONDS)
            client.close()

    async def _log_in(self, client: SMTP) -> None:
        settings = self._settings
        if settings.smtp_username is None or settings.smtp_password is None:
            return
        with _refusals(SmtpStep.LOGIN):
            await client.login(settings.smtp_username, settings.smtp_password.get_secret_value())

    def _tls_context(self) -> ssl.SSLContext | None:
        """Made for each mail, so that authorities which were renewed on the disk are seen."""
        if self._protection is SmtpTls.NONE:
            return None
        try:
            return ssl.create_default_context(cafile=self._settings.smtp_ca_file)
        except (OSError, ssl.SSLError):
            raise _not_sent(SmtpStep.CONNECT, None, "The file CONMAN_SMTP_CA_FILE can't be used.") from None


def _greeting_name(settings: Settings) -> str:
    """What Conman calls itself in EHLO: its public host, an address in brackets (RFC 5321 4.1.3)."""
    host = public_host(settings)
    return f"[{host}]" if host.replace(".", "").isdigit() else host


@contextmanager
def _refusals(step: SmtpStep) -> Iterator[None]:
    """What the library raises, as a `NotSentError`. Its own errors quote addresses, so they stay out of the chain."""
    try:
        yield
    except SMTPResponseException as error:
        met = SmtpStep.LOGIN if isinstance(error, SMTPAuthenticationError) else step
        raise _not_sent(met, error.code, error.message) from None
    except (SMTPException, OSError, TimeoutError, ValueError) as error:
        raise _not_sent(step, None, str(error) or type(error).__name__) from None


def _not_sent(step: SmtpStep, code: int | None, text: str) -> NotSentError:
    return NotSentError(Refusal(step=step, code=code, text=harmless_reply(text)))
