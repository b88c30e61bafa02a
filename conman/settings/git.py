"""Settings of the Git backends: local repositories, Gitaly, and `conman git-server`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class GitBackend(StrEnum):
    """Where repositories live."""

    LOCAL = "local"
    GITALY = "gitaly"


class GitalyMode(StrEnum):
    """How Conman works with a Gitaly server; `auto` asks the server what it can do."""

    AUTO = "auto"
    PACK = "pack"
    OPERATIONS = "operations"


class GitalyAuth(StrEnum):
    """How the token is sent: `v2` signs the time with it, `bearer` sends it as it is."""

    V2 = "v2"
    BEARER = "bearer"


class GitSettings(BaseSettings):
    """Where repositories live, and how they are reached."""

    git_backend: GitBackend = Field(
        default=GitBackend.LOCAL,
        description="Git backend; `local` reads bare repositories from disk, `gitaly` asks a server over Gitaly's protocol.",
    )
    git_threads: int = Field(default=8, ge=1, le=128, description="Threads for blocking Git calls, per process.")
    gitaly_address: str | None = Field(
        default=None,
        pattern=r"^((tcp|tls)://)?([^/:\s]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$|^unix:[^\s]+$",
        description="Gitaly server: host:port, tls://host:port or unix:/path. Needed for the backend `gitaly`.",
    )
    gitaly_mode: GitalyMode = Field(
        default=GitalyMode.AUTO,
        description="`pack` keeps local mirrors and pushes (gitaly-rs), `operations` uses Gitaly's operations; `auto` finds out.",
    )
    gitaly_storage: str = Field(default="default", min_length=1, description="Name of the Gitaly storage with the repositories.")
    gitaly_token: SecretStr | None = Field(default=None, description="Secret shared with the Gitaly server. Unset: none is sent.")
    gitaly_auth: GitalyAuth = Field(
        default=GitalyAuth.V2, description="`v2` signs the time with the token; `bearer` sends the token as it is."
    )
    gitaly_ca_file: Path | None = Field(
        default=None, description="PEM file with the authorities of a tls:// server. Unset: the system's."
    )
    gitaly_short_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Deadline of a Gitaly call with a small answer, seconds."
    )
    gitaly_long_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Deadline of a Gitaly call that lists or compares, seconds."
    )
    gitaly_write_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Deadline of a Gitaly call that changes something, seconds."
    )
    gitaly_transfer_seconds: float = Field(
        default=600.0, gt=0, le=86_400, description="Deadline of a Gitaly call that carries a pack, seconds."
    )
    gitaly_attempts: int = Field(
        default=5, ge=1, le=20, description="Tries of a Gitaly call that fails for a passing reason, the first one included."
    )
    gitaly_concurrency: int = Field(default=64, ge=1, le=4096, description="Gitaly calls that one process makes at once.")
    gitaly_max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=65_536, le=2**31 - 1, description="Largest single message to or from Gitaly, bytes."
    )
    mirrors: Path | None = Field(
        default=None,
        description="Folder of the local mirrors of the mode `pack`, a cache that may be deleted. Default: DATA/mirrors.",
    )
    mirrors_max_mb: int = Field(
        default=10_240,
        ge=1,
        description="Size of all local mirrors together, MiB; beyond it the longest unused are deleted.",
    )

    git_server_host: str = Field(
        default="127.0.0.1",
        description="Address that `conman git-server` listens on; other machines reach only one that is not loopback.",
    )
    git_server_port: int = Field(default=8075, ge=0, le=65535, description="Port of `conman git-server`; 0 takes a free one.")
    git_server_token: SecretStr | None = Field(
        default=None,
        description="Secret that clients of `conman git-server` share. Unset: it listens on loopback addresses only.",
    )
    git_server_storage: str = Field(
        default="default", min_length=1, description="Name by which clients of `conman git-server` call its storage."
    )
    git_server_tls_cert: Path | None = Field(
        default=None, description="PEM file with the certificate chain of `conman git-server`. Unset: no TLS."
    )
    git_server_tls_key: Path | None = Field(default=None, description="PEM file with the key of that certificate.")
    git_server_max_message_mb: int = Field(
        default=16, ge=1, le=1024, description="Largest single message to or from `conman git-server`, MiB."
    )
    git_server_stop_seconds: float = Field(
        default=10.0, ge=0, le=3600, description="How long `conman git-server` lets running calls finish after SIGTERM, seconds."
    )
