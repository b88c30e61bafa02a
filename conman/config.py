"""All configuration of Conman: one typed `Settings`, read from `CONMAN_*` variables or a `.env` file.

The fields of one concern stand together in `conman.settings`. Every field carries its type, default, unit and consequence;
`docs/configuration.md` is generated from here. A value out of range stops the start with one line naming the variable; nothing is
clamped in silence.
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from conman.settings.accounts import AccountSettings
from conman.settings.assistant import AssistantSettings
from conman.settings.codec import CodecSettings
from conman.settings.drift import DriftSettings
from conman.settings.gates import GateSettings
from conman.settings.git import GitSettings
from conman.settings.limits import LimitSettings
from conman.settings.mail import MailSettings
from conman.settings.programs import ProgramSettings
from conman.settings.streams import StreamSettings
from conman.settings.targets import TargetSettings
from conman.settings.temp_envs import TempEnvSettings
from conman.settings.temp_urls import TempUrlSettings
from conman.settings.vault import VaultSettings
from conman.settings.webhooks import WebhookSettings


class LogFormat(StrEnum):
    """How log lines are written."""

    JSON = "json"
    CONSOLE = "console"


class SettingsError(Exception):
    """A configuration value that Conman can't start with; its text is one line naming each variable."""


class Settings(
    GitSettings,
    AccountSettings,
    LimitSettings,
    MailSettings,
    VaultSettings,
    CodecSettings,
    ProgramSettings,
    TargetSettings,
    GateSettings,
    StreamSettings,
    DriftSettings,
    AssistantSettings,
    TempEnvSettings,
    TempUrlSettings,
    WebhookSettings,
):
    """The effective configuration of one process."""

    model_config = SettingsConfigDict(env_prefix="CONMAN_", env_file=".env", env_file_encoding="utf-8", extra="ignore")

    data: Path = Field(
        default=Path("data"),
        description="Folder that holds all local state: repositories, embedded servers, deployed files, outbox, keys.",
    )
    repositories: Path | None = Field(
        default=None,
        description="Folder of the Git repositories; an app's `repo_path` is relative to it. Default: DATA/repositories.",
    )
    mongo_uri: str | None = Field(
        default=None,
        description="MongoDB connection URI. Unset: the embedded server of `conman up` (or a running `up` in --data).",
    )
    mongo_database: str = Field(default="conman", min_length=1, max_length=38, description="Name of the MongoDB database.")

    temporal_address: str | None = Field(
        default=None, description="Temporal frontend as host:port. Unset: the embedded server of `conman up`."
    )
    temporal_namespace: str = Field(default="default", min_length=1, description="Temporal namespace of every workflow.")
    temporal_ui_url: str | None = Field(default=None, description="URL of Temporal's Web UI, for links. Unset: the embedded one.")
    task_queue_prefix: str = Field(
        default="conman",
        pattern=r"^[A-Za-z0-9_-]{1,60}$",
        description="Prefix of the task queues; change it to share a namespace.",
    )

    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the API; 0 takes a free one.")

    secret: SecretStr | None = Field(
        default=None,
        description="Key that signs sessions and tokens, at least 32 bytes. Unset: `conman up` makes one in DATA/keys.",
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: LogFormat = Field(default=LogFormat.JSON, description="`json` (one object a line) or `console`.")

    command_timeout_seconds: float = Field(
        default=30.0,
        ge=1,
        le=300,
        description="How long the front door waits for a command before it answers 503, seconds.",
    )
    publish_wait_seconds: float = Field(
        default=20.0,
        ge=0.1,
        le=120,
        description="How long a publish request waits for the end before it answers 202, seconds.",
    )

    worker_drain_seconds: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="How long a worker lets running activities finish after SIGTERM, seconds.",
    )

    @field_validator("secret")
    @classmethod
    def _secret_is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:
            raise ValueError("needs at least 32 bytes; make one with: openssl rand -base64 48")
        return value

    @property
    def repositories_folder(self) -> Path:
        """The folder that `repo_path` of an app is relative to."""
        return (self.repositories or self.data / "repositories").resolve()

    @property
    def mirrors_folder(self) -> Path:
        """The folder of the local mirrors of repositories that live on a Gitaly server."""
        return (self.mirrors or self.data / "mirrors").resolve()

    @property
    def environments_folder(self) -> Path:
        """The folder under which the `directory` target puts each environment's files."""
        return (self.data / "environments").resolve()

    @property
    def temp_dumps_folder(self) -> Path:
        """Where this machine keeps the dumps of databases that are copied from one server to another."""
        return (self.data / "temp-dumps").resolve()


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` win over the environment.

    Raises `SettingsError` with one line that names every bad variable.
    """
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        lines = [f"CONMAN_{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()]
        raise SettingsError("; ".join(lines)) from error


def generate_secret() -> str:
    """A fresh signing key of 48 random bytes, as text."""
    return secrets.token_urlsafe(48)
