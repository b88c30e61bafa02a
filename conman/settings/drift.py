"""Settings of drift: how often environments are looked at, and how often one is healed (`spec.md` 12)."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field
from pydantic_settings import BaseSettings

from conman.domain.heal import HealLimits


class DriftSettings(BaseSettings):
    """When drift is looked for by itself, and the limits of healing."""

    drift_check_minutes: int = Field(
        default=60,
        ge=0,
        le=10_080,
        description="How often every environment is looked at for drift, minutes; 0: only on demand and before a deployment, and "
        "nothing is healed. The worker that starts last decides.",
    )
    heal_most: int = Field(
        default=3,
        ge=1,
        le=100,
        description="How many times one environment is healed within the window; then it stops, and managers are told.",
    )
    heal_window_hours: int = Field(default=6, ge=1, le=720, description="The window in which healings are counted, hours.")
    heal_pause_minutes: int = Field(
        default=10, ge=0, le=1440, description="The least time between two healings of one environment, minutes."
    )

    @property
    def heal_limits(self) -> HealLimits:
        """The limits of healing one environment."""
        window, pause = timedelta(hours=self.heal_window_hours), timedelta(minutes=self.heal_pause_minutes)
        return HealLimits(most=self.heal_most, window=window, pause=pause)
