"""Runtime profiles: what an environment needs to run, and how it is rendered (`spec.md` 6)."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from conman.domain.audit_schema import is_json
from conman.domain.decision import Model


class TypedValue(Model):
    """A variable with its type; the value must match it (`spec.md` 6)."""

    type: Literal["string", "number", "boolean", "json"]
    value: Any

    @model_validator(mode="after")
    def _matches_its_type(self) -> Self:
        if not _matches(self.type, self.value):
            raise ValueError(f"the value is not of type {self.type}")
        return self


def _matches(kind: str, value: object) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "number":
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole or (isinstance(value, float) and math.isfinite(value))
        case _:
            return is_json(value)


class Lifecycle(Model):
    """How long a temp environment made from this profile lives."""

    ttl_idle_hours: int | None = None
    grace_hours: int | None = None
    auto_cleanup: bool = True


class Profile(Model):
    """The content of a profile's revision. Secrets are kept encrypted and are no part of it."""

    name: str
    kind: Literal["persistent_env", "temp_workspace", "temp_changeset"] = "persistent_env"
    base_url: str | None = None
    env_vars: dict[str, TypedValue] = Field(default_factory=dict[str, TypedValue])
    secrets: dict[str, str] = Field(default_factory=dict[str, str])
    database: dict[str, Any] | None = None
    migrations: dict[str, Any] | None = None
    data_strategy: dict[str, Any] = Field(default_factory=lambda: {"seed_mode": "none"})
    lifecycle: Lifecycle = Field(default_factory=Lifecycle)


def rendered_value(value: TypedValue) -> str:
    """A variable as the text that a process gets: JSON for everything but strings."""
    return str(value.value) if value.type == "string" else json.dumps(value.value, sort_keys=True, separators=(",", ":"))


def effective(defaults: dict[str, Any], profile: Profile) -> dict[str, TypedValue]:
    """App defaults < environment profile (`spec.md` 6)."""
    merged = {key: TypedValue.model_validate(value) for key, value in defaults.items()}
    return {**merged, **profile.env_vars}


def environment_variables(variables: dict[str, TypedValue]) -> dict[str, str]:
    """Variables as a process gets them."""
    return {key: rendered_value(value) for key, value in sorted(variables.items())}


_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def env_file(variables: dict[str, str]) -> str:
    """Variables as lines of `KEY='value'` that a POSIX shell reads back exactly.

    Raises `ValueError` for what no shell could hold: a key that is no name (it would be run as a command), a NUL in a value.
    """
    bad = sorted(key for key, value in variables.items() if not _SHELL_NAME.fullmatch(key) or "\0" in value)
    if bad:
        raise ValueError(f"no shell can read these variables: {', '.join(map(repr, bad))}")
    quote = "'\\''"
    return "".join(f"{key}='{value.replace(chr(39), quote)}'\n" for key, value in sorted(variables.items()))
