"""`conman doctor` looks at the way out of mails and sends none."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from conman.config import Settings
from conman.doctor import Finding, examine
from conman.worker import say_what_mails_lack
from conman.workflows.options import Queue
from tests.mail.server import Mailbox, smtp_server


async def mail_finding(settings: Settings) -> Finding:
    return next(finding for finding in await examine(settings) if finding.component == "mail")


async def test_a_server_that_answers_is_fine_and_gets_nothing(tmp_path: Path) -> None:
    mailbox = Mailbox()
    async with smtp_server(mailbox) as port:
        found = await mail_finding(Settings(data=tmp_path, smtp_host="127.0.0.1", smtp_port=port))
    assert (found.ok, found.message) == (True, f"127.0.0.1:{port} answers (TLS: none)")
    assert mailbox.protected == []


async def test_a_server_that_does_not_answer_is_to_be_mended(tmp_path: Path) -> None:
    async with smtp_server(Mailbox()) as port:
        pass
    found = await mail_finding(Settings(data=tmp_path, smtp_host="127.0.0.1", smtp_port=port))
    assert not found.ok
    assert "CONMAN_SMTP_" in found.message


async def test_without_a_server_it_says_that_mails_reach_nobody(tmp_path: Path) -> None:
    found = await mail_finding(Settings(data=tmp_path))
    assert found.ok
    assert "reach nobody" in found.message


def test_a_worker_without_the_secret_says_so_in_one_line_when_it_sends_mails() -> None:
    with capture_logs() as said:
        say_what_mails_lack(Settings(secret=None), {Queue.MAIL})
        say_what_mails_lack(Settings(secret=None), {Queue.GIT})
        say_what_mails_lack(Settings(secret="s" * 32), {Queue.MAIL})
    (line,) = said
    assert (line["log_level"], "CONMAN_SECRET" in line["problem"]) == ("warning", True)
