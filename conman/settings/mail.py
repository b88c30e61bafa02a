"""Settings of outgoing mail: links in it, and the SMTP server or the outbox folder that it goes to."""

from __future__ import annotations

from pydantic_settings import BaseSettings


class MailSettings(BaseSettings):
    """How mails leave (`spec.md` 14)."""
