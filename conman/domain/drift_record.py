"""What an environment's record knows of its drift, and what one look at it changes (`spec.md` 12).

A report is told once, when it is new, not with every look. What ended a drift follows from what is in place now: the same
deployment (somebody mended it), or another one (it was overwritten, revalidated, or healed).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field

from conman.domain.decision import Event, Model
from conman.domain.deployment import Deployment, Kind
from conman.domain.drift import DriftItem, put_right_by_a_deployment, same_report


class DriftState(StrEnum):
    """What is known; `unknown`: nobody has looked since the last deployment, or nobody could."""

    CLEAN = "clean"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"


class Act(Model):
    """An audited act that lies between the last clean look and the first one that found a drift."""

    event_id: str
    occurred_at: str
    entity_type: str
    entity_id: str
    action: str
    actor_user_id: str | None = None


MOST_ACTS = 20
"""How many acts a report names, the latest."""


class DriftRecord(Model):
    """An environment's `owned.drift`; `version` grows by one with each write.

    `report` is the last one that was seen, `first_seen_at` when it was seen first, `deployment_id` what was in place then.
    `cleared_revision_id`: the emergency edit that a deploy gate has passed with. `judged_heal_id`: the last healing of which it
    was seen whether it holds.
    """

    version: int = 0
    state: DriftState = DriftState.UNKNOWN
    report: list[DriftItem] = Field(default_factory=list[DriftItem])
    first_seen_at: str | None = None
    last_clean_at: str | None = None
    checked_at: str | None = None
    problem: str | None = None
    deployment_id: str | None = None
    applied_revision: int | None = None
    acts: list[Act] = Field(default_factory=list[Act])
    more_acts: bool = False
    cleared_revision_id: str | None = None
    judged_heal_id: str | None = None
    healing_stopped_at: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at an environment: what differs there from what `deployment` applied. `problem`: nobody could look.

    `is_told`: a deployment that the drift blocks tells people of it.
    """

    environment_id: str
    at: str
    deployment_id: str | None
    deployment: Deployment | None
    revision_number: int | None
    report: list[DriftItem]
    problem: str | None = None
    cleared_revision_id: str | None = None
    job_id: str | None = None
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """The record after a look, and what is to be audited. `is_news`: there is a drift that nobody has seen; `tells`: people are
    told of it.
    """

    record: DriftRecord
    events: tuple[Event, ...] = ()
    is_news: bool = False
    tells: bool = False


def look(before: DriftRecord, seen: Look) -> Looked:
    """What one look changes; the acts of a new report are filled in by who can read the audit."""
    after = before.model_copy(update={"version": before.version + 1, "checked_at": seen.at, "problem": seen.problem})
    if seen.problem is not None:
        return Looked(after.model_copy(update={"state": DriftState.UNKNOWN}))
    cleared = seen.cleared_revision_id or before.cleared_revision_id
    update: dict[str, Any] = {
        "state": DriftState.DRIFTED if seen.report else DriftState.CLEAN,
        "report": seen.report,
        "deployment_id": seen.deployment_id,
        "applied_revision": seen.revision_number,
        "cleared_revision_id": cleared,
    }
    events: list[Event] = []
    is_news = False
    if not seen.report:
        update |= {"last_clean_at": seen.at, "first_seen_at": None, "acts": [], "more_acts": False, "healing_stopped_at": None}
        if before.report:
            events.append(_cleared(before, seen))
    elif not same_report(before.report, seen.report):
        is_news = True
        update |= {"first_seen_at": seen.at, "acts": [], "more_acts": False}
        events.append(_detected(before, seen))
    else:
        update["report"] = before.report  # the one that was told, with its digests
    if _is_other_by_a_person(before, seen):
        update["healing_stopped_at"] = None
    healed = _healed(before, seen)
    if healed is not None:
        update["judged_heal_id"] = seen.deployment_id
        events.append(healed)
    return Looked(after.model_copy(update=update), tuple(events), is_news, tells=is_news and not seen.is_told)


def _detected(before: DriftRecord, seen: Look) -> Event:
    after: dict[str, Any] = {"report": dumped(seen.report), "job_id": seen.job_id}
    if seen.revision_number is not None:
        after["profile_revision"] = seen.revision_number
    return Event(
        "environment",
        seen.environment_id,
        "drift_detected",
        before={"report": dumped(before.report)} if before.report else None,
        after=after,
    )


def _cleared(before: DriftRecord, seen: Look) -> Event:
    after = {"cause": _cause(before, seen), "deployment_id": seen.deployment_id}
    return Event("environment", seen.environment_id, "drift_cleared", before={"report": dumped(before.report)}, after=after)


def _cause(before: DriftRecord, seen: Look) -> str:
    emergency_only = not [item for item in before.report if item.kind != "emergency_edit"]
    if emergency_only and (seen.cleared_revision_id or before.cleared_revision_id) is not None:
        return "revalidated"
    deployment = seen.deployment
    if deployment is None or seen.deployment_id == before.deployment_id:
        return "mended"
    if deployment.kind is Kind.HEAL:
        return "healed"
    return "revalidated" if emergency_only and deployment.cleared_revision_id is not None else "overwritten"


def _is_other_by_a_person(before: DriftRecord, seen: Look) -> bool:
    deployed = seen.deployment is not None and seen.deployment_id != before.deployment_id
    return deployed and seen.deployment is not None and seen.deployment.kind is not Kind.HEAL


def _healed(before: DriftRecord, seen: Look) -> Event | None:
    """Whether the healing that is in place holds, said at the first look after it."""
    deployment = seen.deployment
    if deployment is None or deployment.kind is not Kind.HEAL or seen.deployment_id in (None, before.judged_heal_id):
        return None
    after = {
        "state": deployment.state.value,
        "environment_id": seen.environment_id,
        "release_id": deployment.release_id,
        "report": dumped(deployment.drift_report or []),
        "holds": not put_right_by_a_deployment(seen.report),
    }
    return Event("deployment", seen.deployment_id or "", "healed", before={"state": deployment.state.value}, after=after)


def left_by(deployment: Deployment, report: list[DriftItem]) -> list[DriftItem]:
    """What of a report a deployment that succeeded leaves: migrated data, and, by one that went back, an edit of the profile."""
    goes_back = deployment.kind in (Kind.ROLLBACK, Kind.HEAL)
    return [item for item in report if item.kind == "migration" or (goes_back and item.kind == "emergency_edit")]


def dumped(report: list[DriftItem]) -> list[dict[str, Any]]:
    """A report as records and the audit hold it."""
    return [item.model_dump(mode="json") for item in report]
