"""Runtime profiles: what an environment needs to run, and how it is rendered (`spec.md` 6).

These models read what is kept, and so ignore unknown fields; what people send goes through `profile_edit`, which is strict.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from conman.domain.decision import Model
from conman.domain.secrets import SecretRef
from conman.domain.typed_value import TypedValue, is_shell_name, rendered_value

ProfileKind = Literal["persistent_env", "temp_workspace", "temp_changeset"]
"""What a profile is for."""


class ProfileDatabase(Model):
    """The environment's database; `connection_ref` names the secret that holds its connection string."""

    engine: Literal["mongodb"]
    connection_ref: str
    provisioning_mode: Literal["existing", "clone_from_base", "snapshot_restore", "empty"]
    base_profile_id: str | None = None


class ProfileMigrations(Model):
    """How data is migrated: by the operator's command of this name, from these paths of the repository."""

    repo_paths: list[str]
    command_ref: str
    applied_state_ref: str | None = None


class DataStrategy(Model):
    """What data a fresh environment begins with."""

    seed_mode: Literal["none", "baseline", "snapshot"] = "none"
    seed_source_ref: str | None = None


class Lifecycle(Model):
    """How long a temp environment made from this profile lives; hours, None for Conman's own default."""

    ttl_idle_hours: int | None = None
    grace_hours: int | None = None
    auto_cleanup: bool = True


class Profile(Model):
    """The content of a profile's revision; of its secrets only which values they are, and how these are shown."""

    name: str
    kind: ProfileKind = "persistent_env"
    base_url: str | None = None
    env_vars: dict[str, TypedValue] = Field(default_factory=dict[str, TypedValue])
    secrets: dict[str, SecretRef] = Field(default_factory=dict[str, SecretRef])
    database: ProfileDatabase | None = None
    migrations: ProfileMigrations | None = None
    data_strategy: DataStrategy = Field(default_factory=DataStrategy)
    lifecycle: Lifecycle = Field(default_factory=Lifecycle)

    def masked(self) -> dict[str, Any]:
        """The content as everybody may see it: each secret as its mask."""
        return {**self.model_dump(mode="json"), "secrets": {key: ref.mask for key, ref in sorted(self.secrets.items())}}


class Source(StrEnum):
    """Where an effective variable comes from (`spec.md` 6)."""

    APP_DEFAULT = "app_default"
    PROFILE = "profile"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Variable:
    """An effective variable; of a secret only the mask."""

    key: str
    source: Source
    value: TypedValue
    secret: bool = False

    def record(self) -> dict[str, Any]:
        """As it is shown."""
        value = self.value
        return {"key": self.key, "type": value.type, "value": value.value, "source": self.source.value, "secret": self.secret}


def effective_variables(defaults: dict[str, Any], profile: Profile, overridden: Collection[str] = ()) -> list[Variable]:
    """App defaults < environment profile < overrides, in the order of their names, each with where it comes from (`spec.md` 6).

    The profile has its overrides already; `overridden` are the names that these set.
    """
    source = {key: Source.OVERRIDE for key in overridden}
    of_app = {key: Variable(key, Source.APP_DEFAULT, TypedValue.model_validate(value)) for key, value in defaults.items()}
    of_profile = {key: Variable(key, source.get(key, Source.PROFILE), value) for key, value in profile.env_vars.items()}
    secret = {
        key: Variable(key, source.get(key, Source.PROFILE), TypedValue(type="string", value=ref.mask), secret=True)
        for key, ref in profile.secrets.items()
    }
    return [variable for _, variable in sorted({**of_app, **of_profile, **secret}.items())]


def effective(defaults: dict[str, Any], profile: Profile) -> dict[str, TypedValue]:
    """The effective variables that are no secrets, by name."""
    return {variable.key: variable.value for variable in effective_variables(defaults, profile) if not variable.secret}


def environment_variables(variables: dict[str, TypedValue]) -> dict[str, str]:
    """Variables as a process gets them."""
    return {key: rendered_value(value) for key, value in sorted(variables.items())}


def env_file(variables: dict[str, str]) -> str:
    """Variables as lines of `KEY='value'` that a POSIX shell reads back exactly.

    Raises `ValueError` for what no shell could hold: a key that is no name (it would be run as a command), a NUL in a value.
    """
    bad = sorted(key for key, value in variables.items() if not is_shell_name(key) or "\0" in value)
    if bad:
        raise ValueError(f"no shell can read these variables: {', '.join(map(repr, bad))}")
    quote = "'\\''"
    return "".join(f"{key}='{value.replace(chr(39), quote)}'\n" for key, value in sorted(variables.items()))


_PIECE = r"""'[^']*'|"[^"$`\\]*"|\\[^\n]|[A-Za-z0-9_@%+=:,./^-]"""
_LINE = re.compile(
    rf"[ \t]*(?:(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=((?:{_PIECE})*+)(?:[ \t]+#[^\n]*|[ \t]*)|#[^\n]*)?(?:\n|\Z)"
)


def read_env_file(text: str) -> dict[str, str]:
    """What a POSIX shell would read from lines of `KEY=value`, where no line has it run or expand anything.

    Raises `ValueError`, with the line's number and nothing of its content, for any other line.
    """
    variables: dict[str, str] = {}
    at = 0
    while at < len(text):
        line = _LINE.match(text, at)
        if line is None:
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} is not KEY='value'")
        at = line.end()
        if line[1] is not None:
            variables[line[1]] = "".join(_unquoted(piece[0]) for piece in re.finditer(_PIECE, line[2]))
    return variables


def _unquoted(piece: str) -> str:
    if piece[0] in "'\"":
        return piece[1:-1]
    return piece[1:] if piece[0] == "\\" else piece


__all__ = [
    "DataStrategy",
    "Lifecycle",
    "Profile",
    "ProfileDatabase",
    "ProfileKind",
    "ProfileMigrations",
    "Source",
    "TypedValue",
    "Variable",
    "effective",
    "effective_variables",
    "env_file",
    "environment_variables",
    "read_env_file",
    "rendered_value",
]
