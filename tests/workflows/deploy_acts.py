"""What the tests of a deployment's process say to it, and read of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from workflow_names import uid
from workflow_samples import deployment, deployment_shown
from workflow_world import World

from conman.domain.deploy_messages import ApproveCommand, Blocker, DriftReply, RevalidateCommand
from conman.domain.deployment import Approval, Phase
from conman.domain.drift import DriftItem
from conman.domain.times import later
from conman.workflows.client import EntityWorkflow
from conman.workflows.deployment import CancelCommand

TOUCHED = DriftItem(kind="env_var", key="LIMIT", expected="5", observed="50")
EDITED = DriftItem(kind="emergency_edit", expected=1, observed=2)


async def exceptional(world: World, **fields: Any) -> EntityWorkflow:
    """A deployment that needs two approvals within a day; the requester's counts already."""
    now = await world.now()
    base = {"skip_stage": True, "exceptional_reasons": ["skip_stage"], "approvals_required": 2, "requested_at": now}
    base |= {
        "approvals_expire_at": later(now, timedelta(hours=24)),
        "approvals": [Approval(user_id=world.id("manager"), at=now)],
    }
    return deployment(world, **(base | fields))


async def ordinary(world: World, **fields: Any) -> EntityWorkflow:
    """A deployment to an environment that asks two managers' yes to what was shown."""
    now = await world.now()
    base = {"approvals_required": 2, "approval_role": "config_manager", "shown_digest": "shown", "requested_at": now}
    return deployment(world, **(base | {"approvals_expire_at": later(now, timedelta(hours=24))} | fields))


async def scheduled(world: World, hours: float, **fields: Any) -> EntityWorkflow:
    """A deployment that starts so many hours from now."""
    now = await world.now()
    return deployment(world, requested_at=now, not_before=later(now, timedelta(hours=hours)), **fields)


async def approve(world: World, entity: EntityWorkflow, by: str) -> None:
    await world.send(entity, "approve", await world.command(ApproveCommand, by=by))


async def revalidate(world: World, entity: EntityWorkflow, *, overwrite: bool = False) -> None:
    await world.send(entity, "revalidate", await world.command(RevalidateCommand, overwrite=overwrite))


async def cancel(world: World, entity: EntityWorkflow) -> None:
    await world.send(entity, "cancel", await world.command(CancelCommand))


async def signal(world: World, entity: EntityWorkflow, name: str) -> None:
    await world.client.get_workflow_handle(entity.workflow_id).signal(name)


async def result(world: World, entity: EntityWorkflow) -> str:
    """How it ends; time skips to that."""
    return await world.handle(entity).result()


async def in_phase(world: World, phase: Phase, words: str = "") -> None:
    """Wait until it shows that it is there, and says so."""

    def there() -> bool:
        shown = deployment_shown(world)
        return shown.phase is phase and words in (shown.obstacle or "")

    await world.until(there, phase.value)


def blocked(*items: DriftItem, edit: str | None = None, **fields: Any) -> DriftReply:
    """What a look finds."""
    revision = uid(edit) if edit is not None else None
    return DriftReply(report=list(items), emergency_revision_id=revision, checked_at="2026-03-01T09:30:00.000Z", **fields)


def blocker(code: str, message: str = "It can't start.") -> dict[str, Any]:
    """An answer of the deciders with one thing in the way."""
    return {"blockers": [Blocker(code=code, message=message, who="config_manager")]}


def job(world: World) -> tuple[str, str]:
    """State and reason of the job that the request returned."""
    found = world.store.jobs[world.id("job")]
    return found["state"], found["reason_code"]


def told(world: World) -> list[str]:
    """The kinds of the notices, in order."""
    return [notice["kind"] for notice in world.store.notices]
