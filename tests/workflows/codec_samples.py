"""Keys, planted text, and a look at what Temporal keeps: for the tests of the codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import History

from conman.workflows.codec import KeyringCodec

A, B = {"a": b"a" * 32}, {"b": b"b" * 32}
PLANTED = "planted plaintext"


def payloads_in(message: Message) -> Iterator[Payload]:
    """Every payload below a message, wherever it stands."""
    if isinstance(message, Payload):
        yield message
        return
    for descriptor, value in message.ListFields():
        if descriptor.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        for child in _children(value):
            if isinstance(child, Message):
                yield from payloads_in(child)


def _children(value: Any) -> list[Any]:
    if isinstance(value, Message):
        return [value]
    return list(value.values()) if hasattr(value, "values") else list(value)


def shown(message: Message | History) -> str:
    """All that the server sees of a message."""
    return message.SerializeToString().decode("latin-1")


async def opened(message: Message, codec: KeyringCodec) -> str:
    """All payloads of a message, decoded."""
    decoded = await codec.decode([payload for payload in payloads_in(message)])
    return " ".join(payload.data.decode() for payload in decoded)
