"""A record that is behind its workflow, as after a backup was restored, is written again (`durability.md` 20)."""

from __future__ import annotations

from typing import Any, TypeVar

from conman.domain.decision import Decision, Event, Owned

ENTITY_TYPES = {
    "changesets": "changeset",
    "queues": "queue",
    "releases": "release",
    "deployments": "deployment",
    "temp_envs": "temp_environment",
}
"""Collection → what the audit calls its records."""

_OF_EVERY_RECORD = ("version", "commands")

OwnedT = TypeVar("OwnedT", bound=Owned)


def is_behind(found: dict[str, Any], state: Owned) -> bool:
    """Whether the record lacks what its workflow has written: versions only grow, and the record is written first."""
    return found["version"] < state.version


def decide_repair(collection: str, entity_id: str, found: dict[str, Any], state: OwnedT) -> Decision[OwnedT]:
    """The workflow's state stands again, and the audit says over what it was written."""
    shown = state.model_dump(mode="json")
    changed = [name for name in shown if name not in _OF_EVERY_RECORD and shown[name] != found.get(name)]
    event = Event(
        "audit",
        entity_id,
        "repaired",
        before={"version": found["version"], "state": found.get("state")},
        after={
            "version": state.version + 1,
            "state": shown.get("state"),
            "entity_type": ENTITY_TYPES[collection],
            "entity_id": entity_id,
            "truth": "workflow",
            "fields": sorted(changed),
        },
    )
    return Decision(state, events=(event,))
