"""One mail: one event for one recipient, its states, and when it is not sent or tried again (`spec.md` 14, `durability.md` 21).

A mail is sent at least once. Between the server's yes and the note of it here a crash can't be excluded; the mail is sent again
then, under the same Message-ID, by which mailboxes tell that it is the same. docs/adr/0010-mail-is-at-least-once.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pydantic import Field

from conman.domain.decision import Model
from conman.domain.ids import derived_uuid7
from conman.domain.plain_text import plain_line, shortened
from conman.domain.times import milliseconds


class MailState(StrEnum):
    """Where a mail is."""

    PENDING = "pending"
    SENDING = "sending"
    """An attempt has begun; it may have been delivered even where the next one begins."""
    SENT = "sent"
    FAILED = "failed"
    SKIPPED = "skipped"


MOVES: Final[Mapping[MailState, tuple[MailState, ...]]] = MappingProxyType(
    {
        MailState.PENDING: (MailState.SENDING, MailState.SKIPPED, MailState.FAILED),
        MailState.SENDING: (MailState.SENDING, MailState.SENT, MailState.SKIPPED, MailState.FAILED),
        MailState.SENT: (),
        MailState.FAILED: (),
        MailState.SKIPPED: (),
    }
)
"""What a mail may become. `sending` again is the next attempt."""

OPEN: Final = tuple(state for state in MailState if MOVES[state])


def before(state: MailState) -> list[str]:
    """The states that a mail may be in just before it comes to be in `state`."""
    return [origin.value for origin in MailState if state in MOVES[origin]]


class MailReason(StrEnum):
    """Why a mail was skipped, or failed."""

    ACCOUNT_DISABLED = "account_disabled"
    ACCOUNT_GONE = "account_gone"
    EMAIL_OFF = "email_off"
    NOT_A_MEMBER = "not_a_member"
    TOKEN_REPLACED = "token_replaced"
    TOKEN_ENDED = "token_ended"
    TOKEN_EXPIRED = "token_expired"
    CANCELED = "canceled"
    BAD_ADDRESS = "bad_address"
    """No mail can be written to it."""
    REFUSED = "refused"
    """The server said that it never will deliver this."""
    GAVE_UP = "gave_up"
    """It was tried for a day; the last reply is on the row."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """What is known of a recipient when the mail is about to leave. Without an account, `has_account` is False."""

    has_account: bool
    disabled: bool = False
    email_enabled: bool = True
    is_member: bool = True
    """Of the notice's app; True where there is none."""


def withheld(addressee: Addressee, *, by_account: bool, always_sent: bool) -> MailReason | None:
    """Why this person gets no mail: who is disabled gets none at all, who switched email off or left the app gets only auth
    mails (`spec.md` 5 and 14). `by_account`: the notice names an account, not an address."""
    if addressee.disabled:
        return MailReason.ACCOUNT_DISABLED
    if by_account and not addressee.has_account:
        return MailReason.ACCOUNT_GONE
    if always_sent:
        return None
    if not addressee.is_member:
        return MailReason.NOT_A_MEMBER
    if not addressee.email_enabled:
        return MailReason.EMAIL_OFF
    return None


class AnotherSecretError(Exception):
    """The record of a token was written under another `CONMAN_SECRET` than this process has."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What the record of a token says now; `hash` is None once the token was used or revoked."""

    number: int
    hash: str | None
    expires_at: str


def dead_token(record: TokenRecord | None, *, number: int, computed_hash: str, at: str) -> MailReason | None:
    """Why a link with this token would lead nowhere, None when it works (`spec.md` 5).

    Raises `AnotherSecretError` when the number is right and the hash is not: then no link of this process works.
    """
    if record is None or record.hash is None:
        return MailReason.TOKEN_ENDED
    if record.number != number:
        return MailReason.TOKEN_REPLACED
    if record.expires_at <= at:
        return MailReason.TOKEN_EXPIRED
    if record.hash != computed_hash:
        raise AnotherSecretError
    return None


class SmtpStep(StrEnum):
    """The steps of a conversation with an SMTP server, in order."""

    CONNECT = "connect"
    LOGIN = "login"
    SENDER = "sender"
    RECIPIENT = "recipient"
    CONTENT = "content"


def is_final(step: SmtpStep, code: int | None) -> bool:
    """Whether a refusal is about this very mail and stays: a 5xx to its recipient or its content.

    A 5xx to the connection, the login or the sender is about Conman's settings there: somebody mends them, and the mail goes on.
    """
    return code is not None and 500 <= code <= 599 and step in (SmtpStep.RECIPIENT, SmtpStep.CONTENT)


class Refusal(Model):
    """What kept a mail from being sent, as the row keeps it. `code` is the server's; None: it did not answer."""

    step: SmtpStep
    code: int | None = None
    text: str = ""


class Wave(Model):
    """The next mails of a notice; none: it is done, and `ended` counts its mails by how they ended, if the look wrote its end.

    `found` False: there is no such notice (yet).
    """

    found: bool = True
    app_id: str | None = None
    actor_user_id: str | None = None
    mail_ids: list[str] = Field(default_factory=list[str])
    ended: dict[str, int] | None = None


class MailEnd(Model):
    """How a mail ended; ids and codes only, since it stands in a workflow's history.

    `notice` counts all mails of its notice by how they ended, when this was the last one and the notice ended with it.
    """

    state: MailState
    reason: MailReason | None = None
    code: int | None = None
    notice: dict[str, int] | None = None

    @property
    def label(self) -> str:
        """State, reason and code, as counts name them: `failed: refused 550`."""
        why = " ".join(str(part) for part in (self.reason and self.reason.value, self.code) if part)
        return f"{self.state.value}: {why}" if why else self.state.value


def counted(ends: Iterable[MailEnd], before: Mapping[str, int] | None = None) -> dict[str, int]:
    """How many mails ended in which state, each of which is named, and of those with a reason by which (`MailEnd.label`);
    `before` are the counts of others, which are added."""
    counts = {**{state.value: 0 for state in MailState if state not in OPEN}, **(before or {})}
    for end in ends:
        for name in dict.fromkeys((end.state.value, end.label)):
            counts[name] = counts.get(name, 0) + 1
    return counts


def tally(counts: Mapping[str, int]) -> str:
    """Such counts in words: `2 sent, 1 failed (1 refused 550)`; empty where no mail has ended."""
    words: list[str] = []
    for state in (name for name, count in counts.items() if count and ": " not in name):
        reasons = [f"{count} {name.partition(': ')[2]}" for name, count in counts.items() if name.startswith(f"{state}: ")]
        words.append(f"{counts[state]} {state}" + (f" ({', '.join(reasons)})" if reasons else ""))
    return ", ".join(words)


class NoticeEnd(Model):
    """That a notice is done, or that somebody canceled its workflow."""

    notice_id: str
    canceled: bool = False


LONGEST_REPLY = 200
LONGEST_LINE = 200
_MAYBE_A_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")


def one_line(text: str) -> str:
    """A name as it may stand in a mail: one line, no control characters, nothing that reverses the text's direction, at most 200
    characters. Its `://` gets a space, so that no mail program makes a link of somebody's name."""
    return shortened(plain_line(text).replace("://", ": //"), LONGEST_LINE)


def harmless_reply(text: str) -> str:
    """A server's words without what may be a token that it quotes from the mail."""
    return _MAYBE_A_TOKEN.sub("…", one_line(text))[:LONGEST_REPLY]


def mail_id(notice_id: str, at: str, recipient: str) -> str:
    """The id of the row of a notice, made at `at`, and a recipient: a user id or an address."""
    return derived_uuid7(milliseconds(at), "mail", notice_id, recipient)


def message_id(mail: str, host: str) -> str:
    """The Message-ID of a mail: the same in every attempt."""
    return f"<{mail}@{host}>"
