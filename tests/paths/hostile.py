"""The corpus of hostile paths, as rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCEPTED = "accepted"
FILE = Path(__file__).with_name("hostile.json")


@dataclass(frozen=True)
class Row:
    """One path and what becomes of it."""

    group: str
    path: str
    outcome: str
    """An error code, or `accepted`."""
    as_folder: str
    """The same where a folder is asked for."""
    why: str

    @property
    def id(self) -> str:
        """A short printable name."""
        shown = ascii(self.path)[1:-1]
        return f"{self.group}: {shown if len(shown) <= 40 else f'{shown[:30]}... of {len(self.path)}'}"


def _text(written: str | list[tuple[str, int]]) -> str:
    return written if isinstance(written, str) else "".join(piece * count for piece, count in written)


def _read() -> list[Row]:
    groups: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="ascii"))["groups"]
    return [
        Row(group["group"], _text(path), group["outcome"], group.get("as_folder", group["outcome"]), group["why"])
        for group in groups
        for path in group["paths"]
    ]


ROWS = _read()
REFUSED = [row for row in ROWS if row.outcome != ACCEPTED]
GROUPS = list(dict.fromkeys(row.group for row in ROWS))
