"""Mails as `conman up` leaves them without an SMTP server: files in `DATA/outbox`."""

from __future__ import annotations

import email
import re
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import cast

from tests.support.conman_stack import Stack, wait_for

_TOKEN = re.compile(r"\?token=([A-Za-z0-9_-]{32,})")


def _read(path: Path) -> EmailMessage:
    return cast("EmailMessage", email.message_from_bytes(path.read_bytes(), policy=default))


def mails_to(stack: Stack, address: str) -> list[EmailMessage]:
    mails = [_read(path) for path in sorted((stack.data / "outbox").glob("*.eml"))]
    return [mail for mail in mails if address in str(mail["To"])]


def token_in(mail: EmailMessage) -> str:
    """The token of the mail's link."""
    body = mail.get_body(("plain",))
    assert body is not None
    found = _TOKEN.search(body.get_content())
    assert found is not None, body.get_content()
    return found[1]


async def mailed(stack: Stack, address: str, *, besides: frozenset[str] = frozenset()) -> str:
    """The token of a mail to this address, other than those that are known already."""

    async def look() -> str | None:
        return next((token for token in map(token_in, mails_to(stack, address)) if token not in besides), None)

    return await wait_for(look, f"a mail to {address}")
