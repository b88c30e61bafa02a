"""Settings of the programs that members of an app may choose by name."""

from __future__ import annotations

from pydantic_settings import BaseSettings


class ProgramSettings(BaseSettings):
    """The operator's commands (`spec.md` 6)."""
