"""The round through all environments, and healings, in memory; the looks themselves are `Fakes.look`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity

from conman.domain.deploy_messages import DriftCheckStart, DriftPlace, DriftPlaces, DriftRound, HealQuestion, HealReply


@dataclass
class Watch:
    """Environments in pages, of which some are healed; `begins`: whether the job of a check is this history's to run."""

    pages: list[list[DriftPlace]] = field(default_factory=list)
    begins: bool = True
    heals: Callable[[HealQuestion], str | None] = lambda _: None
    begun: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    healed: list[HealQuestion] = field(default_factory=list)

    @activity.defn
    async def begin_drift_check(self, start: DriftCheckStart) -> bool:
        self.begun.append(start.job_id)
        return self.begins

    @activity.defn
    async def drift_places(self, page: DriftRound) -> DriftPlaces:
        self.turned.append(page.after)
        number = int(page.after or 0)
        places = self.pages[number] if number < len(self.pages) else []
        return DriftPlaces(places=places, last=str(number + 1) if number + 1 < len(self.pages) else None)

    @activity.defn
    async def heal_environment(self, question: HealQuestion) -> HealReply:
        self.healed.append(question)
        return HealReply(deployment_id=self.heals(question))

    def store(self) -> list[Callable[..., Any]]:
        return [self.begin_drift_check, self.drift_places]

    def calls(self) -> list[Callable[..., Any]]:
        return [self.heal_environment]
