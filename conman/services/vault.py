"""Envelope encryption (`spec.md` 6): AES-256-GCM; master keys wrap data keys, a data key encrypts the values of one profile.

What is authenticated beside the ciphertext ties it to its place: a wrapped data key to its profile and id, a value to its
profile, key name and id. So nothing that is moved elsewhere in the store decrypts there.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from conman.domain.errors import ErrorCode, Unavailable
from conman.settings.vault import KEY_BYTES, parse_keyring

NONCE_BYTES = 12
"""Length of a nonce of GCM; each encryption takes a fresh one of chance."""

_DATA_KEY = "conman data key v1"
_VALUE = "conman secret value v1"


class VaultError(Unavailable):
    """Something does not decrypt, or its key is missing. The text names ids and key names, never a value."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message)


@dataclass(frozen=True, slots=True)
class Sealed:
    """One encrypted value."""

    nonce: bytes
    ciphertext: bytes


class DataKey:
    """The key of one profile's values, unwrapped; it never leaves the process."""

    def __init__(self, data_key_id: str, profile_id: str, key: bytes) -> None:
        self.id = data_key_id
        self.profile_id = profile_id
        self._cipher = AESGCM(key)

    def seal(self, key_name: str, value_id: str, value: str) -> Sealed:
        """Encrypt one value under a fresh nonce."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(nonce, self._cipher.encrypt(nonce, value.encode(), _bound(_VALUE, self.profile_id, key_name, value_id)))

    def unseal(self, key_name: str, value_id: str, sealed: Sealed) -> str:
        """Decrypt one value. Raises `VaultError` where it is not what was encrypted here."""
        try:
            bound = _bound(_VALUE, self.profile_id, key_name, value_id)
            return self._cipher.decrypt(sealed.nonce, sealed.ciphertext, bound).decode()
        except (InvalidTag, ValueError):
            raise VaultError(
                f"the secret {key_name} of profile {self.profile_id} does not decrypt (value {value_id}): restore it from a"
                " backup, or set it anew"
            ) from None


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is kept: encrypted under the master key that it names."""

    master_key_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Vault:
    """The master keys of one process: the primary one wraps, all unwrap."""

    primary: str
    _keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def of(cls, keyring: str) -> Vault:
        """The vault of `id:base64,id2:base64`. Raises `ValueError`, whose text never holds any of a key."""
        keys = parse_keyring(keyring)
        return cls(next(iter(keys)), keys)

    @property
    def master_key_ids(self) -> tuple[str, ...]:
        """The ids of the keyring, the primary one first."""
        return tuple(self._keys)

    def new_data_key(self, profile_id: str, data_key_id: str) -> WrappedKey:
        """A fresh data key, wrapped."""
        return self._wrap(profile_id, data_key_id, os.urandom(KEY_BYTES))

    def unwrap(self, profile_id: str, data_key_id: str, kept: WrappedKey) -> DataKey:
        """A data key that decrypts values. Raises `VaultError`."""
        return DataKey(data_key_id, profile_id, self._unwrapped(profile_id, data_key_id, kept))

    def rewrap(self, profile_id: str, data_key_id: str, kept: WrappedKey) -> WrappedKey:
        """The same data key under the primary master key. Raises `VaultError`."""
        return self._wrap(profile_id, data_key_id, self._unwrapped(profile_id, data_key_id, kept))

    def digest(self, purpose: str, *parts: str) -> str:
        """What tells texts from others and, without the master key, nothing else of them: a HMAC-SHA256.

        It is another one for each purpose, and once another master key is the primary one.
        """
        key = hmac.digest(self._keys[self.primary], purpose.encode(), hashlib.sha256)
        return hmac.new(key, _bound(*parts), hashlib.sha256).hexdigest()

    def _wrap(self, profile_id: str, data_key_id: str, key: bytes) -> WrappedKey:
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._keys[self.primary]).encrypt(nonce, key, _bound(_DATA_KEY, profile_id, data_key_id))
        return WrappedKey(self.primary, nonce + sealed)

    def _unwrapped(self, profile_id: str, data_key_id: str, kept: WrappedKey) -> bytes:
        master = self._keys.get(kept.master_key_id)
        if master is None:
            raise VaultError(
                f"the master key {kept.master_key_id} is not in the keyring, and the data key {data_key_id} of profile"
                f" {profile_id} needs it: add it to CONMAN_MASTER_KEYS"
            )
        nonce, sealed = kept.wrapped[:NONCE_BYTES], kept.wrapped[NONCE_BYTES:]
        try:
            return AESGCM(master).decrypt(nonce, sealed, _bound(_DATA_KEY, profile_id, data_key_id))
        except (InvalidTag, ValueError):
            raise VaultError(
                f"the data key {data_key_id} of profile {profile_id} does not unwrap under the master key {kept.master_key_id}:"
                " CONMAN_MASTER_KEYS holds another key by that id, or the record is damaged"
            ) from None


def _bound(*parts: str) -> bytes:
    """Parts as bytes, each with its length: no two lists of parts give the same ones."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
