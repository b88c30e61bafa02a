"""A mail as bytes (RFC 5322): the same bytes in every attempt, 7bit or quoted-printable, never base64 (`spec.md` 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from email_validator import EmailNotValidError, validate_email

from conman.domain.mail import message_id, one_line
from conman.domain.times import parse_time
from conman.mail.rendering import Rendered

LONGEST_LINE = 998
"""Octets of a line without its end (RFC 5322 2.1.1); text with longer ones goes quoted-printable."""

_PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
_TOKEN_ENCODED = "?token=3D"
_ENCODED_WORD = "=?"
"""How encoded words begin (RFC 2047)."""


class BadAddressError(Exception):
    """No mail can be written to the address."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who a mail is from and to, and by which ids it is known. `at` is the time of the event, and the mail's date."""

    mail_id: str
    at: str
    sender: str
    recipient: str
    recipient_name: str | None
    host: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A mail that is ready to leave. `smtputf8`: an address is not ASCII, which a server must allow (RFC 6531)."""

    mail_id: str
    sender: str
    recipient: str
    content: bytes
    smtputf8: bool


def compose(envelope: Envelope, rendered: Rendered) -> Outgoing:
    """The mail; nothing that is in it can add a header line. Raises `BadAddressError`."""
    recipient = mailbox(envelope.recipient)
    name = _as_written(envelope.recipient_name or "")
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = envelope.sender
    message["To"] = _address(name, recipient)
    message["Subject"] = _as_written(rendered.subject)
    message["Date"] = format_datetime(parse_time(envelope.at))
    message["Message-ID"] = message_id(envelope.mail_id, envelope.host)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(rendered.text, charset=_charset(rendered.text), cte=_transfer_encoding(rendered.text))
    if message["Content-Transfer-Encoding"] == "quoted-printable":
        # A soft break before the token: who reads the raw mail finds it whole in the page, never a piece of it here.
        message.set_payload(str(message.get_payload()).replace(_TOKEN_ENCODED, f"{_TOKEN_ENCODED}=\n"))
    message.add_alternative(rendered.page, subtype="html", charset="us-ascii", cte=_transfer_encoding(rendered.page))
    message.set_boundary(f"=_{envelope.mail_id}")
    smtputf8 = not recipient.isascii()
    (sender,) = message["From"].addresses
    content = message.as_bytes(policy=policy.SMTPUTF8 if smtputf8 else policy.SMTP)
    return Outgoing(envelope.mail_id, sender.addr_spec, recipient, content, smtputf8)


def _as_written(text: str) -> str:
    """A text as it may stand in a header: one line, and nothing in it that mail programs, or this library when it folds the
    line, take for an encoded word (RFC 2047): that could hold the end of the line and a header of its own."""
    return one_line(text).replace(_ENCODED_WORD, "= ?")


def mailbox(email: str) -> str:
    """The address as SMTP takes it: an international domain in its ASCII form. Raises `BadAddressError`, also for one that could
    be taken for an encoded word (RFC 2047)."""
    if _ENCODED_WORD in email:
        raise BadAddressError
    try:
        checked = validate_email(email, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        # Names that only an operator's own network knows, which accounts may have (`services/accounts.py:clean_email`).
        if _PLAIN_ADDRESS.fullmatch(email) is None:
            raise BadAddressError from None
        return email
    return checked.ascii_email or f"{checked.local_part}@{checked.ascii_domain}"


def _address(name: str, mailbox_: str) -> Address:
    local, _, domain = mailbox_.rpartition("@")
    return Address(display_name=name, username=local, domain=domain)


def _charset(text: str) -> str:
    return "us-ascii" if text.isascii() else "utf-8"


def _transfer_encoding(text: str) -> str:
    short = all(len(line) <= LONGEST_LINE for line in text.splitlines())
    return "7bit" if text.isascii() and short else "quoted-printable"
