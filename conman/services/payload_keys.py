"""Which keys of the codec Temporal's histories still need: a key may leave the keyring once none does (`durability.md` 24)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from conman.workflows.codec import key_of

EXAMPLES = 5
"""Workflows that are named for each key."""


@dataclass(slots=True)
class KeyUse:
    """The runs whose histories need one key; `key_id` is None for payloads that are plain."""

    key_id: str | None
    open_runs: int = 0
    closed_runs: int = 0
    examples: list[str] = field(default_factory=list)
    """Ids of some of the workflows, open ones first."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


async def keys_in_use(client: Client) -> list[KeyUse]:
    """Every key that a kept run of the namespace needs, by reading every history; it decodes nothing. Raises `RPCError`.

    What Temporal deletes meanwhile, at the end of its retention, is left out.
    """
    found: dict[str | None, KeyUse] = {}
    for running in (True, False):
        operator = "=" if running else "!="
        async for run in client.list_workflows(f"ExecutionStatus {operator} 'Running'"):
            for key_id in await _keys_of(client, run.id, run.run_id):
                use = found.setdefault(key_id, KeyUse(key_id))
                if run.status is WorkflowExecutionStatus.RUNNING:
                    use.open_runs += 1
                else:
                    use.closed_runs += 1
                if len(use.examples) < EXAMPLES and run.id not in use.examples:
                    use.examples.append(run.id)
    return sorted(found.values(), key=lambda use: use.key_id or "")


async def _keys_of(client: Client, workflow_id: str, run_id: str) -> set[str | None]:
    keys: set[str | None] = set()
    try:
        async for event in client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events():
            keys |= {key_of(payload) for payload in payloads_in(event)}
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
    return keys


def payloads_in(message: Message) -> Iterator[Payload]:
    """Every payload that the codec writes below a message, wherever it stands; search attributes are never encrypted."""
    if isinstance(message, Payload):
        yield message
        return
    for descriptor, value in message.ListFields():
        if descriptor.type != FieldDescriptor.TYPE_MESSAGE or descriptor.name == "search_attributes":
            continue
        if isinstance(value, Message):
            children = [value]
        elif hasattr(value, "values"):
            children = list(value.values())
        else:
            children = list(value)
        for child in children:
            if isinstance(child, Message):
                yield from payloads_in(child)
