"""A real SMTP server: what it takes, what it refuses, and what is tried again (`spec.md` 14)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from conman.config import Settings
from conman.domain.mail import Refusal, SmtpStep
from conman.mail.message import Outgoing
from conman.mail.smtp import Smtp
from conman.mail.transport import NotSentError
from tests.mail.server import Mailbox, certificate, hangs, says, says_in_turn, smtp_server

CONTENT = (
    b"From: a@example.com\r\nTo: ann@example.com\r\nMessage-ID: <1@conman.test>\r\nSubject: hello\r\n\r\nhello\r\n.\r\nbye\r\n"
)
MAIL = Outgoing(mail_id="1", sender="conman@example.com", recipient="ann@example.com", content=CONTENT, smtputf8=False)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def to(port: int, **more: Any) -> Smtp:
    return Smtp(Settings(smtp_host="127.0.0.1", smtp_port=port, public_url="https://conman.test", **more))


async def refusal(transport: Smtp, mail: Outgoing = MAIL) -> tuple[Refusal, bool]:
    with pytest.raises(NotSentError) as refused:
        await transport.send(mail)
    return refused.value.refusal, refused.value.final


async def test_a_mail_arrives_as_it_was_written_from_the_sender_to_the_recipient(mailbox: Mailbox) -> None:
    async with smtp_server(mailbox) as port:
        await to(port).send(MAIL)
    (arrived,) = mailbox.arrived
    assert (arrived.mail_from, arrived.rcpt_tos) == ("conman@example.com", ["ann@example.com"])
    assert arrived.content == CONTENT
    assert mailbox.greetings == ["conman.test"]


@pytest.mark.parametrize("code", [500, 550, 554, 599])
async def test_a_recipient_that_is_refused_for_good_is_not_tried_again(mailbox: Mailbox, code: int) -> None:
    mailbox.recipient = says(f"{code} 5.1.1 no such mailbox")
    async with smtp_server(mailbox) as port:
        assert await refusal(to(port)) == (Refusal(step=SmtpStep.RECIPIENT, code=code, text="5.1.1 no such mailbox"), True)
    assert mailbox.arrived == []


async def test_content_that_is_refused_for_good_is_not_tried_again(mailbox: Mailbox) -> None:
    mailbox.content = says("554 5.7.1 looks like spam")
    async with smtp_server(mailbox) as port:
        assert await refusal(to(port)) == (Refusal(step=SmtpStep.CONTENT, code=554, text="5.7.1 looks like spam"), True)


async def test_a_recipient_that_is_refused_for_now_is_taken_by_a_later_attempt(mailbox: Mailbox) -> None:
    mailbox.recipient = says_in_turn("450 4.2.0 greylisted", "250 OK")
    async with smtp_server(mailbox) as port:
        found, final = await refusal(to(port))
        assert (found.code, found.step, final) == (450, SmtpStep.RECIPIENT, False)
        await to(port).send(MAIL)
    assert len(mailbox.arrived) == 1


async def test_a_sender_that_is_refused_waits_for_somebody_to_mend_the_settings(mailbox: Mailbox) -> None:
    mailbox.sender = says("550 5.7.1 you may not send as this")
    async with smtp_server(mailbox) as port:
        found, final = await refusal(to(port))
    assert (found.code, found.step, final) == (550, SmtpStep.SENDER, False)


async def test_a_connection_that_breaks_after_the_content_is_tried_again(mailbox: Mailbox) -> None:
    async def breaks() -> str:
        return mailbox.drop()

    mailbox.content = breaks
    async with smtp_server(mailbox) as port:
        found, final = await refusal(to(port))
    assert (found.code, found.step, final) == (None, SmtpStep.CONTENT, False)
    assert len(mailbox.arrived) == 1, "the server had it: the next attempt brings it a second time, under the same Message-ID"


async def test_a_server_that_hangs_costs_the_timeout_and_no_more(mailbox: Mailbox) -> None:
    mailbox.recipient = hangs
    async with smtp_server(mailbox) as port, asyncio.timeout(30):
        found, final = await refusal(to(port, smtp_timeout_seconds=0.2))
    assert (found.code, found.step, final) == (None, SmtpStep.RECIPIENT, False)


async def test_a_server_that_says_nothing_at_all_costs_the_timeout_and_no_more() -> None:
    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    listening = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with asyncio.timeout(30):
        found, final = await refusal(to(listening.sockets[0].getsockname()[1], smtp_timeout_seconds=0.2))
    gone.set()
    listening.close()
    assert (found.code, found.step, final) == (None, SmtpStep.CONNECT, False)


async def test_a_server_that_is_not_there_is_tried_again(mailbox: Mailbox) -> None:
    async with smtp_server(mailbox) as port:
        pass
    found, final = await refusal(to(port))
    assert (found.code, found.step, final) == (None, SmtpStep.CONNECT, False)


async def test_a_server_that_hangs_at_the_goodbye_has_the_mail_all_the_same(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle_quit(*_: object) -> str:
        return await hangs()

    monkeypatch.setattr("conman.mail.smtp._GOODBYE_SECONDS", 0.1)
    mailbox.handle_QUIT = handle_quit  # type: ignore[attr-defined]
    async with smtp_server(mailbox) as port, asyncio.timeout(30):
        await to(port).send(MAIL)
    assert len(mailbox.arrived) == 1


async def test_starttls_protects_everything_that_is_said_and_the_login_follows_it(mailbox: Mailbox, tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path)
    async with smtp_server(
        mailbox, tls_context=context, require_starttls=True, authenticator=mailbox.authenticate, auth_required=True
    ) as port:
        await to(port, smtp_tls="starttls", smtp_ca_file=trusted, smtp_username="conman", smtp_password="right").send(MAIL)
    assert (len(mailbox.arrived), mailbox.protected, mailbox.logins) == (1, [True], ["conman"])


async def test_tls_from_the_first_byte(mailbox: Mailbox, tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path)
    async with smtp_server(mailbox, from_the_first_byte=context) as port:
        await to(port, smtp_tls="tls", smtp_ca_file=trusted).send(MAIL)
    assert len(mailbox.arrived) == 1


async def test_a_server_that_nobody_vouches_for_gets_no_mail(mailbox: Mailbox, tmp_path: Path) -> None:
    context, _ = certificate(tmp_path)
    async with smtp_server(mailbox, tls_context=context) as port:
        found, final = await refusal(to(port, smtp_tls="starttls"))
    assert (found.step, final, mailbox.arrived) == (SmtpStep.CONNECT, False, [])


async def test_a_server_without_starttls_gets_no_mail_where_it_was_asked_for(mailbox: Mailbox) -> None:
    async with smtp_server(mailbox) as port:
        found, final = await refusal(to(port, smtp_tls="starttls"))
    assert (found.step, final, mailbox.arrived) == (SmtpStep.CONNECT, False, [])


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_wrong_password_waits_for_somebody_to_mend_it(mailbox: Mailbox) -> None:
    async with smtp_server(mailbox, authenticator=mailbox.authenticate, auth_required=True, auth_require_tls=False) as port:
        found, final = await refusal(to(port, smtp_username="conman", smtp_password="wrong"))
    assert (found.step, found.code, final, mailbox.arrived) == (SmtpStep.LOGIN, 535, False, [])


async def test_an_address_beyond_ascii_goes_to_a_server_that_takes_it(mailbox: Mailbox) -> None:
    mail = Outgoing("1", "conman@example.com", "jürgen@example.com", CONTENT, smtputf8=True)
    async with smtp_server(mailbox, enable_SMTPUTF8=True) as port:
        await to(port).send(mail)
    assert mailbox.arrived[0].rcpt_tos == ["jürgen@example.com"]


async def test_an_address_beyond_ascii_is_refused_for_good_by_a_server_that_does_not_take_it(mailbox: Mailbox) -> None:
    mail = Outgoing("1", "conman@example.com", "jürgen@example.com", CONTENT, smtputf8=True)
    async with smtp_server(mailbox) as port:
        found, final = await refusal(to(port), mail)
    assert (found.step, found.code, final, mailbox.arrived) == (SmtpStep.RECIPIENT, 553, True, [])


async def test_what_a_failed_attempt_says_holds_no_address_and_no_word_of_the_server(mailbox: Mailbox) -> None:
    mailbox.recipient = says("550 5.1.1 <ann@example.com>: no such mailbox")
    async with smtp_server(mailbox) as port:
        with pytest.raises(NotSentError) as refused:
            await to(port).send(MAIL)
    assert str(refused.value) == "the mail server answered 550 at the step `recipient`"
    assert refused.value.__cause__ is None


async def test_a_token_that_the_server_quotes_is_not_kept(mailbox: Mailbox) -> None:
    token = "A1b2C3d4E5f6G7h8I9j0" * 2
    mailbox.content = says(f"554 5.7.1 forbidden link https://conman.test/reset-password?token={token}")
    async with smtp_server(mailbox) as port:
        found, _ = await refusal(to(port))
    assert token not in found.text
    assert "forbidden link" in found.text


async def test_a_look_at_the_server_sends_nothing_and_says_what_it_found(mailbox: Mailbox) -> None:
    async with smtp_server(mailbox) as port:
        assert await to(port).probe() == f"127.0.0.1:{port} answers (TLS: none)"
    assert (mailbox.greetings, mailbox.protected, mailbox.arrived) == (["conman.test"], [], [])


async def test_a_look_at_a_server_that_is_not_there_says_so(mailbox: Mailbox) -> None:
    async with smtp_server(mailbox) as port:
        pass
    with pytest.raises(NotSentError):
        await to(port).probe()
