"""A server that goes wrong at every moment and in every way: what is kept of it, what is tried again, and that nothing hangs or
breaks otherwise (`spec.md` 14)."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from conman.config import Settings
from conman.domain.mail import SmtpStep
from conman.mail.message import Outgoing
from conman.mail.smtp import Smtp
from conman.mail.transport import NotSentError
from tests.mail.faulty_server import Fault, FaultyServer, Moment, faulty_server

MAIL = Outgoing("1", "conman@example.com", "ann@example.com", b"Subject: hello\r\n\r\nhello\r\n", smtputf8=False)
STEPS = {
    Moment.GREETING: SmtpStep.CONNECT,
    Moment.EHLO: SmtpStep.CONNECT,
    Moment.MAIL: SmtpStep.SENDER,
    Moment.RCPT: SmtpStep.RECIPIENT,
    Moment.DATA: SmtpStep.CONTENT,
    Moment.CONTENT: SmtpStep.CONTENT,
}
ABOUT_THIS_MAIL = (Moment.RCPT, Moment.DATA, Moment.CONTENT)


@pytest.mark.parametrize(("moment", "fault"), list(product(Moment, Fault)), ids=lambda part: part.name.lower())
async def test_whatever_goes_wrong_is_a_refusal_at_its_step_and_stays_only_where_it_is_about_this_mail(
    moment: Moment, fault: Fault
) -> None:
    server = FaultyServer(moment, fault)
    async with faulty_server(server) as port, asyncio.timeout(30):
        with pytest.raises(NotSentError) as refused:
            await Smtp(Settings(smtp_host="127.0.0.1", smtp_port=port, smtp_timeout_seconds=0.2)).send(MAIL)
    refusal = refused.value.refusal
    assert refusal.step is STEPS[moment]
    if fault.value.isdigit():
        assert refusal.code == int(fault.value)
    assert refused.value.final is (fault is Fault.FOR_GOOD and moment in ABOUT_THIS_MAIL)
    assert server.taken == []
    assert "example.com" not in str(refused.value)
