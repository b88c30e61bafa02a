"""Settings of the keys that protect profile secrets."""

from __future__ import annotations

from pydantic_settings import BaseSettings


class VaultSettings(BaseSettings):
    """Master keys of the envelope encryption (`spec.md` 6)."""
