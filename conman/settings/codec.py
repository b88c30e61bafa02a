"""Settings of the codec that encrypts what Temporal keeps, and of its codec server."""

from __future__ import annotations

from pydantic_settings import BaseSettings


class CodecSettings(BaseSettings):
    """Keys of Temporal's payloads (`durability.md` 24)."""
