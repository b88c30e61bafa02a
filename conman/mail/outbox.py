"""The outbox: a folder of `.eml` files for machines without an SMTP server (`spec.md` 14)."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from conman.domain.mail import Refusal, SmtpStep
from conman.mail.message import Outgoing
from conman.mail.transport import NotSentError, Transport

_UNFINISHED = ".part"


class Outbox(Transport):
    """Mails as `{mail id}.eml`, private (0600), never seen half-written; a repeat replaces the one before it."""

    name = "outbox"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, mail: Outgoing) -> None:
        """Put the mail into the folder. Raises `NotSentError` when the disk does not take it."""
        await _on_disk(lambda: self._put(f"{mail.mail_id}.eml", mail.content))

    async def probe(self) -> str:
        """Look whether the folder can be written. Raises `NotSentError`."""
        await _on_disk(self._try_out)
        return f"mails land in {self._folder} and reach nobody: CONMAN_SMTP_HOST is not set"

    def _put(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left_by_a_crash in self._folder.glob(f"{name}.*{_UNFINISHED}"):
            left_by_a_crash.unlink(missing_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=f"{name}.", suffix=_UNFINISHED)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self._folder / name)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _try_out(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=self._folder):
            pass


async def _on_disk(work: Callable[[], None]) -> None:
    try:
        await asyncio.to_thread(work)
    except OSError as error:
        text = f"the outbox can't be written: {error.strerror}"
        raise NotSentError(Refusal(step=SmtpStep.CONNECT, text=text)) from None
