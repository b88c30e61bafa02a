"""The ways out of Conman for a mail, and what keeps one from leaving (`spec.md` 14)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from conman.domain.mail import Refusal, is_final
from conman.mail.message import Outgoing


class NotSentError(Exception):
    """A mail that did not leave. Its text holds no address and no word of the server's, so that it may be logged."""

    def __init__(self, refusal: Refusal) -> None:
        answer = f"answered {refusal.code}" if refusal.code is not None else "did not answer as it should"
        super().__init__(f"the mail server {answer} at the step `{refusal.step.value}`")
        self.refusal = refusal

    @property
    def final(self) -> bool:
        """Whether the refusal is about this very mail and stays."""
        return is_final(self.refusal.step, self.refusal.code)


class Transport(ABC):
    """A way out."""

    name: str

    @abstractmethod
    async def send(self, mail: Outgoing) -> None:
        """Hand the mail over; when it returns, somebody else answers for it. Raises `NotSentError`."""

    @abstractmethod
    async def probe(self) -> str:
        """Look whether mails could leave, without sending one; a sentence on it. Raises `NotSentError`."""
