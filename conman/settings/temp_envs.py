"""Settings of temp environments: where their databases are made, and how much is copied (`spec.md` 13)."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from conman.domain.jobs import JobType, timeout_seconds

_SERVER = re.compile(r"[A-Za-z0-9*?._-]+(:[0-9*?]+)?|\[[0-9A-Fa-f:*?]+\](:[0-9*?]+)?")


class TempEnvSettings(BaseSettings):
    """Databases of temp environments."""

    temp_database_uri: SecretStr | None = Field(
        default=None,
        description="MongoDB server on which the databases of temp environments are made, as a connection URI. Its account "
        "needs to read, write and drop the databases `conman_temp_*`, and its credentials get into the derived profiles, so let "
        "it do no more than that. Unset: each is made on the server of its base profile's database, with that profile's account.",
    )
    temp_database_servers: str = Field(
        default="",
        description="Servers that Conman may connect to for the databases of temp environments, as host:port separated by "
        "commas, `*` and `?` as in file names. A profile that names another one can't be cloned. Unset: every server that a "
        "profile names.",
    )
    temp_database_max_mb: int = Field(
        default=10_240,
        ge=1,
        description="The largest database that is copied for a temp environment, MiB of its documents; a larger base can't be "
        "cloned.",
    )
    temp_database_batch: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Documents that are copied at a time where the server can't copy by itself; it bounds the worker's memory "
        "together with a limit of 16 MiB.",
    )
    temp_snapshots: Path | None = Field(
        default=None,
        description="Folder with a database dump per folder, as `mongodump` writes them (uncompressed). A profile whose "
        "database has `provisioning_mode: snapshot_restore` names one of them as `data_strategy.seed_source_ref`. Every worker "
        "of the queue `conman-git` needs it. Unset: there are none.",
    )
    temp_env_provision_seconds: int = Field(
        default=timeout_seconds(JobType.TEMP_ENV_PROVISION),
        ge=10,
        le=86_400,
        description="How long a step of provisioning a temporary environment may take, the copy of its database above all, "
        "seconds from when a worker begins it; then the job fails with `timeout`. An attempt keeps the limit that it began with.",
    )
    temp_orphan_minutes: int = Field(
        default=30,
        ge=0,
        le=1440,
        description="How often databases, branches and profiles of temp environments are looked for that nothing needs any more, "
        "minutes; each goes an hour after it was first seen. 0: never. The worker that starts last decides.",
    )

    @field_validator("temp_database_uri")
    @classmethod
    def _is_a_uri(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return value

    @field_validator("temp_database_servers")
    @classmethod
    def _are_servers(cls, value: str) -> str:
        bad = [server for server in _names(value) if _SERVER.fullmatch(server) is None]
        if bad:
            raise ValueError(f"{bad[0]!r} is no host:port")
        return value

    @property
    def temp_database_server_patterns(self) -> tuple[str, ...]:
        """The servers that may be connected to, as patterns; empty where every one may."""
        return _names(self.temp_database_servers)


def _names(servers: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in servers.split(",") if part.strip())
