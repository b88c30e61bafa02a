"""The activities that put a release in place and look whether it works (`spec.md` 12): thin over `conman.targets`."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from conman.activities.deploy_log import deploy_log
from conman.activities.heartbeat import heartbeating
from conman.config import Settings
from conman.domain.messages import SwitchReply, SwitchRequest
from conman.domain.target import Health
from conman.faults import fault_point
from conman.git.adapter import GitAdapter
from conman.programs.runner_output import Stream
from conman.services.vault import Vault
from conman.store.database import Database
from conman.targets.base import TargetError
from conman.targets.registry import Targets


class TargetActivities:
    """Bound to the targets that this worker knows."""

    def __init__(self, settings: Settings, db: Database, git: GitAdapter, vault: Vault) -> None:
        self.db = db
        self.targets = Targets(settings, db, git, vault)

    def all(self) -> list[Any]:
        """The activities to register."""
        return [self.switch_environment, self.verify_environment]

    @activity.defn
    async def switch_environment(self, request: SwitchRequest) -> SwitchReply:
        """Have the environment's target put the release in place; a repeat finds what is done, or does the same again."""
        async with heartbeating(), deploy_log(self.db, request.deployment_id) as log:
            try:
                order = await self.targets.order(request, log.tell)
                await log.tell(Stream.SYSTEM, f"putting {request.tag} in place by the target {order.place.target}")
                placed = await self.targets.deploy(order)
            except TargetError as error:
                await log.tell(Stream.SYSTEM, error.message)
                raise failure_of(error) from error
            await log.tell(Stream.SYSTEM, f"{request.tag} is in place: {placed.files} files")
        return SwitchReply(folder=placed.folder, files=placed.files)

    @activity.defn
    async def verify_environment(self, request: SwitchRequest) -> Health:
        """Whether the target shows the release, finds it well, and the environment's health command agrees.

        What keeps anybody from knowing is raised, and is no verdict.
        """
        async with heartbeating(), deploy_log(self.db, request.deployment_id) as log:
            try:
                found = await self.targets.health(await self.targets.order(request, log.tell))
            except TargetError as error:
                await log.tell(Stream.SYSTEM, error.message)
                raise failure_of(error) from error
            await log.tell(Stream.SYSTEM, f"{'healthy' if found.healthy else 'unhealthy'}: {found.message}")
        fault_point("verify.looked")
        return found


def failure_of(error: TargetError) -> ApplicationError:
    """As a workflow gets it: the type is a reason code, or `fenced`; what must be mended first is not tried again."""
    return ApplicationError(error.message, type="fenced" if error.fenced else error.reason.value, non_retryable=not error.again)
