"""What the embedded servers say when they can't be had: one line that a person can act on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one line about what is going on now; called often enough that a long step is never silent."""


class EmbeddedError(Exception):
    """A local server can't be found, built or started; its text is one line that says what to do."""


class NotReady(Exception):
    """A health check's answer while a server is still starting; its text says what is missing."""


def silent(_line: str) -> None:
    """A `Progress` for callers that show nothing."""
