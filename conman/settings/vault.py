"""Settings of the keys that protect profile secrets."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

KEY_BYTES = 32
"""Length of a key of AES-256."""

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def parse_keyring(text: str) -> Mapping[str, bytes]:
    """Key id → key of `id:base64,id2:base64`, in that order: the first is primary, the others still decrypt.

    Raises `ValueError`, whose text never holds any of a key.
    """
    keyring: dict[str, bytes] = {}
    for place, entry in enumerate(text.split(","), start=1):
        key_id, colon, encoded = entry.strip().partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise ValueError(f"entry {place} is not id:base64 with an id of 1 to 64 characters of [A-Za-z0-9._-]")
        if key_id in keyring:
            raise ValueError(f"the id {key_id} stands there twice")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key {key_id} is not {KEY_BYTES} bytes in base64; make one with: openssl rand -base64 32")
        keyring[key_id] = key
    return keyring


def generate_keyring() -> str:
    """A keyring of one fresh key, under an id that no other has: a lost key is told from this one."""
    return f"local-{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


class VaultSettings(BaseSettings):
    """Master keys of the envelope encryption (`spec.md` 6)."""

    master_keys: SecretStr | None = Field(
        default=None,
        description="Keys that wrap the data keys of secrets, as id:base64,id2:base64, each 32 bytes. The first is primary, the"
        " others still decrypt. Without a key that is in use its secrets are lost. Unset: `conman up` makes one in DATA/keys.",
    )

    @field_validator("master_keys")
    @classmethod
    def _is_a_keyring(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keyring(value.get_secret_value())
        return value
