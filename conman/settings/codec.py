"""Settings of the codec that encrypts what Temporal keeps, and of its codec server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from conman.settings.vault import parse_keyring

_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class CodecSettings(BaseSettings):
    """Keys of Temporal's payloads (`durability.md` 24)."""

    codec_keys: SecretStr | None = Field(
        default=None,
        description="Keys that encrypt what Temporal keeps, as id:base64,id2:base64, each 32 bytes; the first encrypts, all"
        " decrypt. APIs, workers and codec servers of a namespace need all that are in use. Unset: Temporal keeps plain text.",
    )
    codec_encrypt: bool = Field(
        default=True,
        description="Whether CONMAN_CODEC_KEYS encrypt. `false`: they only decrypt, so that every process gets them before the"
        " first one encrypts, and the codec can be switched off again.",
    )

    codec_server_host: str = Field(
        default="127.0.0.1", min_length=1, description="Address that `conman codec-server` listens on; without a token, loopback."
    )
    codec_server_port: int = Field(default=8234, ge=0, le=65535, description="Port of `conman codec-server`; 0 takes a free one.")
    codec_server_token: SecretStr | None = Field(
        default=None,
        description="Secret of those who may read payloads, at least 32 bytes: a bearer token, or the password in a browser."
        " Unset: `conman codec-server` listens on loopback addresses only and serves whoever asks there.",
    )
    codec_server_origins: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Origins of Web UIs that may call `conman codec-server`, as https://host:port, separated by spaces. Unset:"
        " that of CONMAN_TEMPORAL_UI_URL, or of a running `conman up`.",
    )
    codec_server_tls_cert: Path | None = Field(
        default=None, description="PEM file with the certificate chain of `conman codec-server`. Unset: no TLS."
    )
    codec_server_tls_key: Path | None = Field(default=None, description="PEM file with the key of that certificate.")
    codec_server_max_body_mb: int = Field(
        default=16, ge=1, le=256, description="Largest request that `conman codec-server` takes, MiB; larger ones get 413."
    )
    codec_server_stop_seconds: int = Field(
        default=5, ge=0, le=600, description="How long `conman codec-server` lets running requests finish after SIGTERM, seconds."
    )

    @field_validator("codec_keys")
    @classmethod
    def _is_a_codec_keyring(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            keyring = parse_keyring(value.get_secret_value())
            if len(set(keyring.values())) < len(keyring):
                raise ValueError("two ids have the same key: a rotation between them would change nothing")
        return value

    @field_validator("codec_server_token")
    @classmethod
    def _codec_token_is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:
            raise ValueError("needs at least 32 bytes; make one with: openssl rand -hex 32")
        return value

    @field_validator("codec_server_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        return value.split() if isinstance(value, str) else value

    @field_validator("codec_server_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:100]!r} is no origin: scheme, host and port, without a path, as https://host:port")
        return value

    @property
    def codec_keyring(self) -> Mapping[str, bytes]:
        """Key id → key, the encrypting one first; empty when Temporal keeps plain text."""
        return {} if self.codec_keys is None else parse_keyring(self.codec_keys.get_secret_value())
