"""Healing: whether what was last applied in an environment is put back by itself (`spec.md` 12, `drift_policy: heal`).

Put back is what was applied last, be it by a rollback: never the newest release or revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from conman.domain.drift import put_right_by_a_deployment
from conman.domain.drift_record import DriftRecord, DriftState
from conman.domain.times import later


class Healing(StrEnum):
    """What is to be done about a drift."""

    NOTHING = "nothing"
    HEAL = "heal"
    WAIT = "wait"
    """The last healing was too short a time ago."""
    STOP = "stop"
    """It does not hold: people are told, and nothing is healed until one of them deploys, or it is seen clean."""


@dataclass(frozen=True, slots=True)
class HealLimits:
    """At most `most` healings of one environment within `window`, and at least `pause` between two."""

    most: int
    window: timedelta
    pause: timedelta


def healing(policy: str, record: DriftRecord, healed_at: Sequence[str], at: str, limits: HealLimits) -> Healing:
    """What to do about a drift; `healed_at` are the starts of the healings since a person deployed last."""
    if policy != "heal" or record.state is not DriftState.DRIFTED or record.healing_stopped_at is not None:
        return Healing.NOTHING
    if not put_right_by_a_deployment(record.report):
        return Healing.NOTHING
    if len([one for one in healed_at if later(one, limits.window) > at]) >= limits.most:
        return Healing.STOP
    if any(later(one, limits.pause) > at for one in healed_at):
        return Healing.WAIT
    return Healing.HEAL
