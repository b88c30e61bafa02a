"""Keys, planted text, and a look at what Temporal keeps: for the tests of the codec."""

from __future__ import annotations

from google.protobuf.message import Message
from temporalio.api.history.v1 import History

from conman.services.payload_keys import payloads_in
from conman.workflows.codec import KeyringCodec

A, B = {"a": b"a" * 32}, {"b": b"b" * 32}
PLANTED = "planted plaintext"


def shown(message: Message | History) -> str:
    """All that the server sees of a message."""
    return message.SerializeToString().decode("latin-1")


async def opened(message: Message, codec: KeyringCodec) -> str:
    """All payloads of a message, decoded."""
    decoded = await codec.decode(list(payloads_in(message)))
    return " ".join(payload.data.decode() for payload in decoded)
