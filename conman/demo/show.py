"""How the demo talks: one line a step with the time it took, plain where nobody watches, and one line when it fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.text import Text

_INDENT = " " * 11


class DemoError(Exception):
    """The demo can't go on; its text is one line that says what happened."""


class Step:
    """One step while it runs; set `said` to what it turned out to have done."""

    def __init__(self, doing: str) -> None:
        self.said = doing


class Steps:
    """Writes the demo's lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @contextmanager
    def step(self, doing: str) -> Iterator[Step]:
        """One line at the end of the block; a `DemoError` that leaves it says which step it was."""
        began = time.monotonic()
        step = Step(doing)
        with self._console.status(Text(doing)) if self._console.is_terminal else nullcontext():
            try:
                yield step
            except DemoError as error:
                raise DemoError(f"{doing}: {error}") from error
        self._timed(step.said, time.monotonic() - began)

    def heading(self, text: str) -> None:
        """The title of the steps that follow."""
        self._console.print()
        self._print(Text(text, style="bold"))

    def note(self, text: str) -> None:
        """A line that belongs to the step above or around it."""
        self._print(Text(_INDENT).append(text, style="dim"))

    def told(self, text: str) -> None:
        """A line that one should not miss, below a step."""
        self._print(Text(_INDENT).append(text, style="yellow"))

    def fact(self, name: str, value: str) -> None:
        """One line of the summary."""
        self._print(Text(f"{name:<20} ", style="bold").append(value, style="cyan"))

    def done(self, text: str) -> None:
        """The last line of the walk, with the time of the whole."""
        self._console.print()
        self._timed(text, time.monotonic() - self._began, style="bold green")

    def plain(self, text: str) -> None:
        """A line as it is."""
        self._print(Text(text))

    def failed(self, text: str) -> None:
        """Why the demo ends here."""
        self._print(Text("conman demo failed: ", style="bold red").append(text, style="default"))

    def _timed(self, text: str, seconds: float, style: str = "") -> None:
        self._print(Text(f"{seconds:7.2f} s  ", style="green").append(text, style=style))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)
