"""Settings of the rate limits."""

from __future__ import annotations

from pydantic_settings import BaseSettings


class LimitSettings(BaseSettings):
    """Requests per minute (`api.md` 1)."""
