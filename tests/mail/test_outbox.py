"""The outbox: `.eml` files that are never seen half-written (`spec.md` 14)."""

from __future__ import annotations

from pathlib import Path

import pytest

from conman.domain.mail import SmtpStep
from conman.mail.message import Outgoing
from conman.mail.outbox import Outbox
from conman.mail.transport import NotSentError


def mail(content: bytes = b"Subject: hello\r\n\r\nhello\r\n", mail_id: str = "0199") -> Outgoing:
    return Outgoing(mail_id=mail_id, sender="a@example.com", recipient="b@example.com", content=content, smtputf8=False)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "outbox"


async def test_a_mail_lands_as_a_private_file_named_by_its_row(folder: Path) -> None:
    await Outbox(folder).send(mail())
    assert files(folder) == {"0199.eml": mail().content}
    assert (mode(folder), mode(folder / "0199.eml")) == (0o700, 0o600)


async def test_a_repeat_replaces_the_mail_before_it(folder: Path) -> None:
    outbox = Outbox(folder)
    await outbox.send(mail(b"one"))
    await outbox.send(mail(b"two"))
    await outbox.send(mail(b"other", "0200"))
    assert files(folder) == {"0199.eml": b"two", "0200.eml": b"other"}


async def test_what_a_crash_left_is_cleared_by_the_repeat(folder: Path) -> None:
    await Outbox(folder).send(mail())
    (folder / "0199.eml.xyz.part").write_bytes(b"half")
    (folder / "0200.eml.xyz.part").write_bytes(b"another mail's")
    await Outbox(folder).send(mail())
    assert sorted(files(folder)) == ["0199.eml", "0200.eml.xyz.part"]


async def test_a_mail_appears_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], bytes]] = []
    rename = Path.replace

    def watched(draft: Path, target: Path) -> Path:
        seen.append(([path.suffix for path in folder.iterdir()], draft.read_bytes()))
        return rename(draft, target)

    monkeypatch.setattr(Path, "replace", watched)
    await Outbox(folder).send(mail(b"whole"))
    assert seen == [([".part"], b"whole")]


async def test_a_folder_that_can_not_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("in the way")
    with pytest.raises(NotSentError) as refused:
        await Outbox(tmp_path / "outbox").send(mail())
    assert (refused.value.refusal.step, refused.value.final) == (SmtpStep.CONNECT, False)


async def test_a_look_at_the_outbox_leaves_nothing_in_it(folder: Path) -> None:
    said = await Outbox(folder).probe()
    assert str(folder) in said
    assert "CONMAN_SMTP_HOST" in said
    assert files(folder) == {}


async def test_a_look_at_an_outbox_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("in the way")
    with pytest.raises(NotSentError):
        await Outbox(tmp_path / "outbox").probe()
