"""Runtime profiles: what an environment needs to run, and how it is rendered (`spec.md` 6)."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from conman.domain.decision import Model


class TypedValue(Model):
    """A variable with its type."""

    type: Literal["string", "number", "boolean", "json"]
    value: Any


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


def env_file(variables: dict[str, str]) -> str:
    """Variables as lines of `KEY='value'` that a POSIX shell reads back exactly."""
    quote = "'\\''"
    return "".join(f"{key}='{value.replace(chr(39), quote)}'\n" for key, value in sorted(variables.items()))
