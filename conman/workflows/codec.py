"""Payloads as Temporal keeps them: AES-256-GCM under a keyring, failures included (`durability.md` 24).

What stays plain are names and ids: of workflows, activities, updates and signals, failure types, and search attributes. So none
of these may hold more than ids. Static summaries and details are payloads as well: without `conman codec-server`, Temporal's Web
UI shows none of them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
    PayloadConverter,
)

ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"
"""Metadata of an encrypted payload that names its key; with `ENCODING`, what Temporal's own samples write."""
NONCE_BYTES = 12
"""Random for each payload: under one key that is safe for 2^32 payloads (NIST SP 800-38D, 8.3)."""
TAG_BYTES = 16
_CONTEXT = b"conman payload 1\0"
"""Starts the authenticated data; the key's id follows. Nothing else does: the codec server can't tell whose a payload is."""


class CodecError(Exception):
    """A payload can't be read; its text says why and never holds any of the payload."""


class KeyringCodec(PayloadCodec):
    """Encrypts each payload whole, with its metadata, under the first key; reads what any key wrote, and what is plain.

    An empty keyring encrypts nothing and refuses what is encrypted. With `encrypt` off, keys only decrypt: so every process gets
    them before the first one writes with them, and the codec can be switched off without losing histories.
    """

    def __init__(self, keyring: Mapping[str, bytes], *, encrypt: bool = True) -> None:
        self._keys = {key_id: AESGCM(key) for key_id, key in keyring.items()}
        self.primary = next(iter(self._keys), None) if encrypt else None

    @property
    def key_ids(self) -> list[str]:
        """The ids of the keys that decrypt."""
        return list(self._keys)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Each payload encrypted under the primary key, in order; unchanged when there is none."""
        if self.primary is None:
            return list(payloads)
        return [self._encrypted(payload, self.primary) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Each payload as it was before `encode`, in order. Raises `CodecError`."""
        return [self._decrypted(payload) if is_encrypted(payload) else payload for payload in payloads]

    def _encrypted(self, payload: Payload, key_id: str) -> Payload:
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._keys[key_id].encrypt(nonce, payload.SerializeToString(), _authenticated(key_id))
        return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id.encode()}, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        key_id = key_of(payload) or ""
        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(self._keys) or "it is empty"
            raise CodecError(f"a payload is encrypted under the key {key_id[:64]!r}: add it to CONMAN_CODEC_KEYS ({known})")
        if len(payload.data) < NONCE_BYTES + TAG_BYTES:
            raise CodecError(f"a payload encrypted under the key {key_id!r} is cut short")
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(key.decrypt(nonce, sealed, _authenticated(key_id)))
        except InvalidTag as error:
            raise CodecError(
                f"a payload encrypted under the key {key_id!r} does not open:"
                " it was changed, or CONMAN_CODEC_KEYS has other bytes under that id"
            ) from error
        except DecodeError as error:
            raise CodecError(f"what is encrypted under the key {key_id!r} is no payload") from error


def is_encrypted(payload: Payload) -> bool:
    """Whether a codec like this one wrote it."""
    return payload.metadata.get("encoding") == ENCODING


def key_of(payload: Payload) -> str | None:
    """The id of the key that opens a payload; None for a plain one, and empty where none is named."""
    return payload.metadata.get(KEY_ID, b"").decode(errors="replace") if is_encrypted(payload) else None


def _authenticated(key_id: str) -> bytes:
    return _CONTEXT + key_id.encode()


class EncodedFailureConverter(DefaultFailureConverterWithEncodedAttributes):
    """Moves messages and stack traces into a payload, in the whole chain of causes.

    The SDK's own moves those of the error at hand, but copies the causes of one that came from history as they stand there: plain
    when it was written before the codec was switched on.
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """See the base class."""
        super().to_failure(exception, payload_converter, failure)
        cause = failure
        while cause.HasField("cause"):
            cause = cause.cause
            if not cause.HasField("encoded_attributes"):
                _encode_attributes(cause, payload_converter)


def _encode_attributes(failure: Failure, payload_converter: PayloadConverter) -> None:
    attributes = {"message": failure.message, "stack_trace": failure.stack_trace}
    failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([attributes])[0])
    failure.message = "Encoded failure"
    failure.stack_trace = ""


def data_converter(codec: KeyringCodec) -> DataConverter:
    """How every client and worker of Conman writes and reads payloads: pydantic's JSON behind the codec.

    Failures are hidden only while the codec encrypts: else they would be no safer, and the Web UI harder to read.
    """
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=codec,
        failure_converter_class=DefaultFailureConverter if codec.primary is None else EncodedFailureConverter,
    )
