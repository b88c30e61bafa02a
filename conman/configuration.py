"""The effective configuration as people read it, and the generated reference page."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr

from conman.config import Settings

HEADER = "<!-- Generated from `Settings` in conman/config.py by `make docs`; do not edit. -->\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is in effect."""

    variable: str
    value: str
    source: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def _shown(value: Any) -> str:
    if value is None:
        return "(unset)"
    if isinstance(value, SecretStr):
        return "****"
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return str(value)


def effective_rows(settings: Settings, given: set[str]) -> list[Row]:
    """Every setting with its value, secrets masked, and where it comes from; `given` came by the command line."""
    environment = {name.upper() for name in os.environ}
    file = {name.upper() for name in dotenv_values(".env")} if Path(".env").is_file() else set()
    rows: list[Row] = []
    for name in type(settings).model_fields:
        variable = f"CONMAN_{name.upper()}"
        source = "default"
        if name in given:
            source = "command line"
        elif variable in environment:
            source = "environment"
        elif variable in file:
            source = ".env"
        value = getattr(settings, name)
        shown = _shown(value)
        if name == "mongo_uri" and value is not None and "@" in value:
            scheme, _, rest = value.partition("://")
            shown = f"{scheme}://****@{rest.rpartition('@')[2]}"
        rows.append(Row(variable, shown, source))
    return rows


def configuration_page() -> str:
    """`docs/configuration.md`, generated."""
    lines = [
        HEADER,
        "# Configuration\n",
        "Every setting is a `CONMAN_*` variable, in the environment or in a `.env` file.",
        "`conman config` shows the effective ones. `CONMAN_CACHE` (default `~/.cache/conman`) is where built servers are kept.",
        "A value out of range stops the start with one line that names the variable.\n",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = _shown(field.get_default(call_default_factory=True))
        default = "" if default == "(unset)" else f"`{default}`"
        lines.append(f"| `CONMAN_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(configuration_page(), end="")
